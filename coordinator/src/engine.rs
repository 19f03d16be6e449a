//! The coordinator as a pure state machine: events in, effects out, time passed in.
//!
//! One task owns the engine and does what its effects say, in order. The engine names no socket, file,
//! clock or random generator; what it draws follows from the run's seed. Updates of a round lead to the
//! same model in any order, and so do check-ins when as many come as the selection waits for.

use std::collections::BTreeMap;
use std::sync::Arc;

use packfed_protocol::{
    Assignment, CatchUp, CheckIn, Digest, Enroll, Enrolled, Finished, LaneScales, Message, Outcome, Refused, Rejection,
    RejectionCode, Round, Timestamp, Verdict, Verified, Version, WorkerId,
};
use thiserror::Error;

use crate::closed::ClosedRounds;
use crate::cohort;
use crate::counters::Counters;
use crate::event::{Commit, Effect, Event, OpenRound, Stored, Summary, Ticket, Write};
use crate::head::{Head, HeadError};
use crate::plan::RunPlan;
use crate::registry::{Registry, token_digest};
use crate::round::Reporting;
use crate::scaling::{corrected, wire_scales};
use crate::status::{Status, StatusStage};

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
    closed: ClosedRounds,
    last: Option<Summary>,
    counters: Counters,
}

/// Where the run stands.
#[derive(Clone, Debug)]
enum Stage {
    /// Workers check in until there are enough to draw from.
    Selecting { deadline: Timestamp },
    /// The drawn workers train and report.
    Reporting(Box<Reporting>),
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
}

/// The round of a verdict on an update that could not be read; rounds count from 1.
const NO_ROUND: Round = Round(0);
impl Engine {
    /// A run that has not begun.
    #[must_use]
    pub fn new(plan: Arc<RunPlan>, registry: Registry, now: Timestamp) -> Self {
        let head = Head::new(plan.head(), plan.layout().clone());
        let scales = wire_scales(&plan.first_scales());
        Self {
            stage: Stage::Selecting { deadline: now.plus(plan.raw().selection.timeout_ms) },
            plan,
            registry,
            head,
            scales,
            next_round: Round(1),
            idle: BTreeMap::new(),
            closed: ClosedRounds::default(),
            last: None,
            counters: Counters::default(),
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
        } else if let Some((open, frames)) = stored.open {
            let round = open.round;
            let reporting = Reporting::restore(&engine.plan, open, &frames)
                .map_err(|(index, rejection)| RestoreError::Journal { index, round, rejection })?;
            engine.stage = Stage::Reporting(Box::new(reporting));
        }
        Ok(engine)
    }

    /// Takes one event at a time and returns what is to be done, in order.
    pub fn handle(&mut self, event: Event, now: Timestamp) -> Vec<Effect> {
        let mut effects = Vec::new();
        // What is overdue ends first: an event at or after a deadline belongs to what comes next.
        self.advance(now, &mut effects);
        match event {
            Event::Enroll { worker, enroll } => self.enroll(worker, &enroll, &mut effects),
            Event::CheckIn { worker, check_in } => self.check_in(worker, &check_in, now, &mut effects),
            Event::Update { ticket, update } => self.update(ticket, &update, &mut effects),
            Event::BadUpdate { ticket, rejection } => {
                self.verdict(ticket, NO_ROUND, Outcome::Rejected(rejection), &mut effects);
            }
            Event::BadMessage { worker, rejection } => self.refuse(worker, rejection, &mut effects),
            Event::Disconnected { worker } => {
                self.idle.remove(&worker);
            }
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
        match &self.stage {
            Stage::Selecting { deadline } => Some(*deadline),
            Stage::Reporting(reporting) => Some(reporting.open().deadline),
            Stage::Finished => None,
        }
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
            Stage::Finished => StatusStage::Finished,
        };
        Status {
            run: self.plan.raw().run,
            stage,
            version: self.head.version(),
            rounds: self.plan.raw().rounds,
            digest: Digest(self.head.digest().0),
            enrolled: self.registry.members().len(),
            idle: self.idle.len(),
            last: self.last,
            counters: self.counters.clone(),
        }
    }

    fn enroll(&mut self, worker: WorkerId, enroll: &Enroll, effects: &mut Vec<Effect>) {
        let known = self.registry.members().contains_key(&worker);
        match self.registry.enroll(worker, &enroll.token, &enroll.name) {
            Ok(member) => {
                if !known {
                    let token = token_digest(&enroll.token);
                    effects.push(Effect::Store(Write::Enroll { worker, member, token }));
                }
                let message = Message::Enrolled(Enrolled { run: self.plan.raw().run, worker });
                effects.push(Effect::Send { worker, message });
            }
            Err(rejection) => self.refuse(worker, rejection, effects),
        }
    }

    fn refuse(&mut self, worker: WorkerId, rejection: Rejection, effects: &mut Vec<Effect>) {
        self.counters.refusal(rejection.code);
        effects.push(Effect::Send { worker, message: Message::Refused(Refused { rejection }) });
    }

    fn check_in(&mut self, worker: WorkerId, check_in: &CheckIn, now: Timestamp, effects: &mut Vec<Effect>) {
        if let Err(rejection) = self.may_check_in(&worker, check_in) {
            return self.refuse(worker, rejection, effects);
        }
        if !check_in.planned {
            effects.push(Effect::Send { worker, message: Message::Plan(self.plan.message()) });
        }
        let version = self.known_version(check_in);
        match &self.stage {
            Stage::Finished => self.send_finished(worker, version, effects),
            Stage::Reporting(reporting) if reporting.awaits(&worker) => {
                let assignment = reporting.open().assignment(&self.plan.raw().training, now);
                self.send_assignment(worker, version, assignment, effects);
            }
            Stage::Reporting(_) | Stage::Selecting { .. } => {
                self.idle.insert(worker, version);
            }
        }
    }

    fn may_check_in(&self, worker: &WorkerId, check_in: &CheckIn) -> Result<(), Rejection> {
        self.registry.admitted(worker)?;
        let run = self.plan.raw().run;
        if check_in.run != run {
            let detail = format!("the check-in is for run {}, this is run {run}", check_in.run);
            return Err(Rejection::new(RejectionCode::WrongRun, detail));
        }
        Ok(())
    }

    /// The version of a worker's replica if it is one that the head had; otherwise it starts anew.
    /// Version 0 is zero by definition, so a worker without a plan has it too.
    fn known_version(&self, check_in: &CheckIn) -> Option<u64> {
        let version = check_in.version.0;
        if version == 0 {
            return Some(0);
        }
        let digest = self.head.digest_of(version)?;
        (digest.0 == check_in.digest.0).then_some(version)
    }

    fn update(&mut self, ticket: Ticket, update: &Verified, effects: &mut Vec<Effect>) {
        let round = update.header().round;
        let outcome = match self.judge(update) {
            Ok(outcome) => outcome,
            Err(rejection) => Outcome::Rejected(rejection),
        };
        if outcome == Outcome::Accepted {
            let (worker, frame) = (update.header().worker, update.to_frame());
            tracing::info!(round = round.0, %worker, "update accepted");
            effects.push(Effect::Store(Write::Accept { round, worker, frame }));
        }
        self.verdict(ticket, round, outcome, effects);
    }

    /// What becomes of an update; if it is accepted it is in the sum.
    fn judge(&mut self, update: &Verified) -> Result<Outcome, Rejection> {
        let header = update.header();
        self.registry.admitted(&header.worker)?;
        let (run, layout) = (self.plan.raw().run, self.plan.layout_digest());
        if header.run != run {
            let detail = format!("the update is for run {}, this is run {run}", header.run);
            return Err(Rejection::new(RejectionCode::WrongRun, detail));
        }
        if header.layout != layout {
            let detail = format!("the update is in layout {}, the run's is {layout}", header.layout);
            return Err(Rejection::new(RejectionCode::WrongLayout, detail));
        }
        match &mut self.stage {
            Stage::Reporting(reporting) if reporting.open().round == header.round => {
                reporting.accept(&self.plan, update).map(|()| Outcome::Accepted)
            }
            Stage::Reporting(_) | Stage::Selecting { .. } | Stage::Finished => self.late(header.round, &header.worker),
        }
    }

    /// An update for a round that is not open: late if its worker was still awaited, else replayed.
    fn late(&self, round: Round, worker: &WorkerId) -> Result<Outcome, Rejection> {
        if round >= self.next_round {
            let detail = format!("round {} is not open, the next one is {}", round.0, self.next_round.0);
            return Err(Rejection::new(RejectionCode::NotSelected, detail));
        }
        if self.closed.awaited(round, worker) {
            return Ok(Outcome::Discarded);
        }
        let detail = format!("round {} is closed, the next one is {}", round.0, self.next_round.0);
        Err(Rejection::new(RejectionCode::Replayed, detail))
    }

    fn verdict(&mut self, ticket: Ticket, round: Round, outcome: Outcome, effects: &mut Vec<Effect>) {
        self.counters.update(&outcome);
        effects.push(Effect::Verdict { ticket, verdict: Verdict { round, outcome } });
    }

    /// Ends every phase whose goal is met or whose time is up.
    fn advance(&mut self, now: Timestamp, effects: &mut Vec<Effect>) {
        loop {
            let before = effects.len();
            match &self.stage {
                Stage::Selecting { deadline } => self.end_selection(*deadline, now, effects),
                Stage::Reporting(_) => self.end_reporting(now, effects),
                Stage::Finished => {}
            }
            if effects.len() == before {
                return;
            }
        }
    }

    fn end_selection(&mut self, deadline: Timestamp, now: Timestamp, effects: &mut Vec<Effect>) {
        let (phase, idle) = (self.plan.raw().selection, self.idle.len());
        let late = now >= deadline;
        if idle >= phase.goal as usize || late && idle >= phase.min as usize {
            self.open(now, effects);
        } else if late {
            self.abandon("too-few-checked-in", now, effects);
        }
    }

    fn open(&mut self, now: Timestamp, effects: &mut Vec<Effect>) {
        let size = self.plan.cohort() as usize;
        let open = OpenRound {
            round: self.next_round,
            base: self.head.version(),
            turn: turn(self.head.version()),
            cohort: cohort::draw(&self.plan.raw().seed, self.next_round, self.idle.keys().copied(), size),
            deadline: now.plus(self.plan.raw().reporting.timeout_ms),
            scales: self.scales.clone(),
        };
        tracing::info!(round = open.round.0, cohort = open.cohort.len(), base = open.base, "round opened");
        self.next_round = self.next_round.next();
        effects.push(Effect::Store(Write::Open(open.clone())));
        let assignment = open.assignment(&self.plan.raw().training, now);
        for &worker in &open.cohort {
            let version = self.idle.remove(&worker).flatten();
            self.send_assignment(worker, version, assignment.clone(), effects);
        }
        effects.push(Effect::Wake(open.deadline));
        self.stage = Stage::Reporting(Box::new(Reporting::new(&self.plan, open)));
    }

    fn end_reporting(&mut self, now: Timestamp, effects: &mut Vec<Effect>) {
        let Stage::Reporting(reporting) = &self.stage else { return };
        let phase = self.plan.raw().reporting;
        let drawn = u32::try_from(reporting.open().cohort.len()).unwrap_or(u32::MAX);
        let late = now >= reporting.open().deadline;
        if reporting.reports() >= phase.goal.min(drawn) || late && reporting.reports() >= phase.min {
            self.commit(now, effects);
        } else if late {
            self.close_without_commit("too-few-updates", now, effects);
        }
    }

    /// Aggregates the round; its reporting phase is over either way.
    fn commit(&mut self, now: Timestamp, effects: &mut Vec<Effect>) {
        let Stage::Reporting(reporting) = &self.stage else { return };
        let open = reporting.open();
        if let Err(error) = self.head.commit(reporting.tally(), open.turn, &reporting.scales()) {
            tracing::error!(round = open.round.0, %error, "round faulted");
            return self.close_without_commit("fault", now, effects);
        }
        let Some(reporting) = self.close() else { return };
        let (open, digest) = (reporting.open(), Digest(self.head.digest().0));
        let clipped = reporting.clipped();
        self.scales = corrected(&open.scales, &clipped, &reporting.used(&self.plan));
        let summary = Summary {
            round: open.round,
            version: self.head.version(),
            digest,
            updates: reporting.reports(),
            examples: reporting.tally().weight(),
            train_loss: reporting.train_loss(),
            clipped: clipped.iter().flatten().sum::<f64>() / (2 * clipped.len()).max(1) as f64,
        };
        tracing::info!(round = open.round.0, version = summary.version, updates = summary.updates, loss = summary.train_loss, %digest, "round committed");
        self.last = Some(summary);
        self.counters.committed += 1;
        let commit =
            Commit { round: open.round, head: self.head.record().clone(), scales: self.scales.clone(), summary };
        effects.push(Effect::Store(Write::Commit(Box::new(commit))));
        if self.head.version() >= self.plan.raw().rounds {
            self.finish(effects);
        } else {
            self.select(now, effects);
        }
    }

    /// Ends the reporting phase and remembers who had reported.
    fn close(&mut self) -> Option<Reporting> {
        let Stage::Reporting(reporting) = std::mem::replace(&mut self.stage, Stage::Finished) else { return None };
        self.closed.push(&reporting);
        Some(*reporting)
    }

    fn close_without_commit(&mut self, why: &str, now: Timestamp, effects: &mut Vec<Effect>) {
        if let Some(reporting) = self.close() {
            effects.push(Effect::Store(Write::Abandon { round: reporting.open().round }));
        }
        self.abandon(why, now, effects);
    }

    fn abandon(&mut self, why: &str, now: Timestamp, effects: &mut Vec<Effect>) {
        *self.counters.abandoned.entry(why.to_owned()).or_default() += 1;
        tracing::warn!(why, idle = self.idle.len(), "round abandoned");
        self.select(now, effects);
    }

    fn select(&mut self, now: Timestamp, effects: &mut Vec<Effect>) {
        let deadline = now.plus(self.plan.raw().selection.timeout_ms);
        self.stage = Stage::Selecting { deadline };
        effects.push(Effect::Wake(deadline));
    }

    fn finish(&mut self, effects: &mut Vec<Effect>) {
        tracing::info!(version = self.head.version(), "run finished");
        self.stage = Stage::Finished;
        for (worker, version) in std::mem::take(&mut self.idle) {
            self.send_finished(worker, version, effects);
        }
    }

    fn send_assignment(
        &self,
        worker: WorkerId,
        version: Option<u64>,
        assignment: Assignment,
        effects: &mut Vec<Effect>,
    ) {
        self.send_catch_up(worker, version, effects);
        effects.push(Effect::Send { worker, message: Message::Assignment(assignment) });
    }

    fn send_finished(&self, worker: WorkerId, version: Option<u64>, effects: &mut Vec<Effect>) {
        self.send_catch_up(worker, version, effects);
        let (version, digest) = (Version(self.head.version()), Digest(self.head.digest().0));
        effects.push(Effect::Send { worker, message: Message::Finished(Finished { version, digest }) });
    }

    /// What a replica is missing; a replica that is no version of ours starts anew from zero.
    fn send_catch_up(&self, worker: WorkerId, version: Option<u64>, effects: &mut Vec<Effect>) {
        if version == Some(self.head.version()) {
            return;
        }
        let (from, body) = self.head.catch_up(version);
        let digest = Digest(self.head.digest().0);
        let message = Message::CatchUp(CatchUp { from: Version(from), to: Version(self.head.version()), digest, body });
        effects.push(Effect::Send { worker, message });
    }
}

/// The window's turn for a base version: every commit moves it on.
fn turn(version: u64) -> u32 {
    u32::try_from(version % (1 << 32)).unwrap_or(0)
}

#[cfg(test)]
mod tests;
