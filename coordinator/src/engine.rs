//! The coordinator as a pure state machine: events in, effects out, time passed in.
//!
//! One task owns the engine and does what its effects say, in order. The engine names no socket, file,
//! clock or random generator; what it draws follows from the run's seed. Updates of a round, or of one buffer, lead
//! to the same model in any order, and so do check-ins when as many come as the selection waits for.

use std::collections::BTreeMap;
use std::sync::Arc;

use packfed_protocol::{Digest, LaneScales, Outcome, Rejection, Round, Timestamp, WorkerId};
use thiserror::Error;

use crate::buffer::Buffer;
use crate::counters::Counters;
use crate::event::{Effect, Event, Stored, StoredRound, Summary};
use crate::head::{Head, HeadError};
use crate::ledger::{Conduct, Ledger, PastRound};
use crate::missed::MissedRounds;
use crate::plan::RunPlan;
use crate::registry::Registry;
use crate::rollout::Book;
use crate::round::Reporting;
use crate::scaling::wire_scales;
use crate::status::{Status, StatusStage};

mod arrivals;
mod buffering;
mod holding;
mod orders;
mod phases;
mod releases;
mod sending;
mod standing;

use orders::Order;
use releases::Follower;

/// Everything that decides; see the module.
#[derive(Clone, Debug)]
pub struct Engine {
    plan: Arc<RunPlan>,
    registry: Registry,
    head: Head,
    scales: Vec<LaneScales>,
    next_round: Round,
    stage: Stage,
    /// Workers that are there and free, with the version of their replica if it is one of ours.
    idle: BTreeMap<WorkerId, Option<u64>>,
    missed: MissedRounds,
    last: Option<Summary>,
    counters: Counters,
    conduct: Conduct,
    /// By what the next round is opened, if that is otherwise.
    coming: Option<Arc<RunPlan>>,
    past: BTreeMap<Round, PastRound>,
    book: Book,
    /// When time may decide something about rollouts.
    rollouts_at: Option<Timestamp>,
    followers: BTreeMap<WorkerId, Follower>,
}

/// Where the run stands.
#[derive(Clone, Debug)]
enum Stage {
    /// Workers check in until there are enough to draw from.
    Selecting { deadline: Timestamp },
    /// The drawn workers train and report.
    Reporting(Box<Reporting>),
    /// Nobody reports any more; the rule is at work on the journal.
    Aggregating(Box<Reporting>),
    /// Of a buffered plan: workers train and report whenever they can.
    Buffering(Buffer),
    /// Every round of the plan is committed.
    Finished,
}

/// Why a stored run cannot be gone on with.
#[derive(Debug, Error)]
pub enum RestoreError {
    /// The stored head does not fit the plan.
    #[error("the stored model does not fit the plan: {0}")]
    Head(#[from] HeadError),
    /// A journalled update does not hold any more.
    #[error("journalled update {index} of round {} does not verify: {rejection}", round.0)]
    Journal {
        /// Its place in the journal.
        index: usize,
        /// The open round.
        round: Round,
        /// What is wrong with it.
        rejection: Rejection,
    },
    /// More rounds are open than the plan can have.
    #[error("the store has {open} open rounds of a buffered plan, this plan can have 1; put [buffered] back")]
    Rounds {
        /// How many.
        open: usize,
    },
}

/// The round of a verdict on an update that could not be read; rounds count from 1.
const NO_ROUND: Round = Round(0);

impl Engine {
    /// A run that has not begun.
    #[must_use]
    pub fn new(plan: Arc<RunPlan>, registry: Registry, now: Timestamp) -> Self {
        let head = Head::new(plan.head(), plan.layout().clone());
        let scales = wire_scales(&plan.first_scales());
        let stage = match plan.raw().buffered {
            Some(_) => Stage::Buffering(Buffer::default()),
            None => Stage::Selecting { deadline: now.plus(plan.raw().selection.timeout_ms) },
        };
        Self {
            stage,
            plan,
            registry,
            head,
            scales,
            next_round: Round(1),
            idle: BTreeMap::new(),
            missed: MissedRounds::default(),
            last: None,
            counters: Counters::default(),
            conduct: Conduct::default(),
            coming: None,
            past: BTreeMap::new(),
            book: Book::default(),
            rollouts_at: None,
            followers: BTreeMap::new(),
        }
    }

    /// A run as it was stored: the same round goes on with the same accepted updates.
    ///
    /// # Errors
    /// If the stored head does not fit the plan, or a journalled update does not verify.
    pub fn restore(
        plan: Arc<RunPlan>,
        registry: Registry,
        stored: Stored,
        now: Timestamp,
    ) -> Result<Self, RestoreError> {
        let mut engine = Self::new(plan, registry, now);
        engine.head = Head::restore(engine.plan.head(), stored.head)?;
        engine.scales = stored.scales;
        engine.next_round = stored.next_round;
        engine.last = stored.last;
        if engine.head.version() >= engine.plan.raw().rounds {
            engine.stage = Stage::Finished;
        } else {
            engine.take_up(stored.open)?;
        }
        Ok(engine)
    }

    /// Takes up what was kept beside the run, whose plan is with its settings already.
    #[must_use]
    pub fn with_ledger(mut self, ledger: Ledger) -> Self {
        let Ledger { labels, conduct, past, rollouts, reported } = ledger;
        labels.into_iter().for_each(|(worker, labels)| self.registry.label(worker, labels));
        (self.conduct, self.past, self.book) = (conduct, past, Book::new(rollouts, reported));
        // Time went on meanwhile.
        self.rollouts_at = self.book.deadline(Timestamp(0)).map(|_| Timestamp(0));
        self
    }

    /// Goes on with the rounds that were open.
    fn take_up(&mut self, mut open: Vec<StoredRound>) -> Result<(), RestoreError> {
        let journal = |(round, index, rejection)| RestoreError::Journal { index, round, rejection };
        if self.plan.raw().buffered.is_some() {
            self.stage = Stage::Buffering(Buffer::restore(&self.plan, open).map_err(journal)?);
        } else if open.len() > 1 {
            return Err(RestoreError::Rounds { open: open.len() });
        } else if let Some((open, frames)) = open.pop() {
            let round = open.round;
            let reporting =
                Reporting::restore(&self.plan, open, &frames).map_err(|(index, why)| journal((round, index, why)))?;
            self.stage = Stage::Reporting(Box::new(reporting));
        }
        Ok(())
    }

    /// Takes one event at a time and returns what is to be done, in order.
    pub fn handle(&mut self, event: Event, now: Timestamp) -> Vec<Effect> {
        let mut effects = Vec::new();
        // What is overdue ends first: an event at or after a deadline belongs to what comes next.
        self.tick_rollouts(now, &mut effects);
        self.advance(now, &mut effects);
        match event {
            Event::Enroll { worker, enroll } => self.enroll(worker, &enroll, now, &mut effects),
            Event::CheckIn { worker, check_in } => self.check_in(worker, &check_in, now, &mut effects),
            Event::Update { ticket, update } => self.update(ticket, &update, now, &mut effects),
            Event::BadUpdate { ticket, worker, rejection } => {
                self.strike(&worker, rejection.code, now, &mut effects);
                self.verdict(ticket, NO_ROUND, Outcome::Rejected(rejection), &mut effects);
            }
            Event::BadMessage { worker, rejection } => {
                self.strike(&worker, rejection.code, now, &mut effects);
                self.refuse(worker, rejection, &mut effects);
            }
            Event::Ordered { ticket, by, why, change } => {
                self.order(ticket, Order { by: &by, why: &why }, *change, now, &mut effects);
            }
            Event::ReleaseState { worker, state } => self.release_state(worker, state, now, &mut effects),
            Event::Disconnected { worker } => {
                self.idle.remove(&worker);
                self.followers.remove(&worker);
            }
            Event::Aggregated { round, result } => self.aggregated(round, *result, now, &mut effects),
            Event::Tick => {}
        }
        self.advance(now, &mut effects);
        effects
    }

    /// The current model.
    #[must_use]
    pub const fn head(&self) -> &Head {
        &self.head
    }

    /// The plan.
    #[must_use]
    pub const fn plan(&self) -> &Arc<RunPlan> {
        &self.plan
    }

    /// Who may take part.
    #[must_use]
    pub const fn registry(&self) -> &Registry {
        &self.registry
    }

    /// What happened to everything that arrived.
    #[must_use]
    pub const fn counters(&self) -> &Counters {
        &self.counters
    }

    /// Whether every round of the plan is committed.
    #[must_use]
    pub const fn finished(&self) -> bool {
        matches!(self.stage, Stage::Finished)
    }

    /// When the engine next wants to be woken, if at all.
    #[must_use]
    pub fn deadline(&self) -> Option<Timestamp> {
        let round = match &self.stage {
            Stage::Selecting { .. } if self.conduct.paused => None,
            Stage::Selecting { deadline } => Some(*deadline),
            Stage::Reporting(reporting) => Some(reporting.open().deadline),
            Stage::Buffering(buffer) => buffer.deadline(),
            Stage::Aggregating(_) | Stage::Finished => None,
        };
        [round, self.rollouts_at].into_iter().flatten().min()
    }

    /// A picture of the run for people and scripts.
    #[must_use]
    pub fn status(&self) -> Status {
        let stage = match &self.stage {
            Stage::Selecting { .. } => StatusStage::Selecting { waiting_for: self.plan.raw().selection.goal },
            Stage::Reporting(reporting) => StatusStage::Reporting {
                round: reporting.open().round.0,
                cohort: reporting.open().cohort.len(),
                reports: reporting.reports(),
            },
            Stage::Aggregating(reporting) => {
                StatusStage::Aggregating { round: reporting.open().round.0, reports: reporting.reports() }
            }
            Stage::Buffering(buffer) => StatusStage::Buffering {
                round: buffer.latest().map_or(0, |open| open.round.0),
                at_work: buffer.at_work(),
                reports: buffer.updates(),
                waiting_for: self.plan.raw().reporting.goal,
            },
            Stage::Finished => StatusStage::Finished,
        };
        Status {
            run: self.plan.raw().run,
            stage,
            paused: self.conduct.paused,
            version: self.head.version(),
            rounds: self.plan.raw().rounds,
            digest: Digest(self.head.digest().0),
            enrolled: self.registry.members().len(),
            idle: self.idle.len(),
            last: self.last,
            counters: self.counters.clone(),
        }
    }
}

#[cfg(test)]
mod tests;
