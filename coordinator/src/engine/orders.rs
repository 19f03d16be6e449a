//! What operators change: each order is done or refused as a whole, and answered once it is stored.

use std::collections::BTreeMap;
use std::sync::Arc;

use packfed_protocol::{LABELS_MAX, Rejection, RejectionCode, Round, Settings, Timestamp, WorkerId};

use super::{Engine, Stage};
use crate::change::Change;
use crate::event::{Effect, Ticket, Write};
use crate::ledger::{Conduct, Note, PastRound, RoundOutcome, keep};
use crate::registry::Standing;

/// Who orders something, and why.
#[derive(Clone, Copy, Debug)]
pub(super) struct Order<'a> {
    pub(super) by: &'a str,
    pub(super) why: &'a str,
}

impl Engine {
    /// Does what an operator orders.
    pub(super) fn order(
        &mut self,
        ticket: Ticket,
        order: Order<'_>,
        change: Change,
        now: Timestamp,
        effects: &mut Vec<Effect>,
    ) {
        let name = change.name();
        let result = self.change(order, change, now, effects);
        match &result {
            Ok(_) => tracing::info!(by = order.by, why = order.why, order = name, "done"),
            Err(rejection) => tracing::warn!(by = order.by, order = name, %rejection, "not done"),
        }
        effects.push(Effect::Ordered { ticket, result });
    }

    /// Does a change; the number of the rollout or round that it was of, 0 if of none.
    fn change(
        &mut self,
        order: Order<'_>,
        change: Change,
        now: Timestamp,
        effects: &mut Vec<Effect>,
    ) -> Result<u64, Rejection> {
        match change {
            Change::Stand { worker, standing } => self.ordered_standing(worker, standing, now, effects),
            Change::Label { worker, labels } => self.label(worker, labels, effects),
            Change::Tokens(tokens) => {
                self.registry.expect_tokens(&tokens);
                effects.push(note(Note::Tokens(tokens)));
                Ok(0)
            }
            Change::Abandon => self.abandon_open(now, effects),
            Change::Pause => self.set_paused(true, now, effects),
            Change::Unpause => self.set_paused(false, now, effects),
            Change::Set(settings) => self.set(&settings, now, effects),
            Change::Released(release) => Ok(release.number),
            Change::Start { release, spec } => self.start_rollout(order, release, spec, now, effects),
            Change::Steer { rollout, verb } => self.steer_rollout(order, rollout, verb, now, effects),
        }
    }

    fn ordered_standing(
        &mut self,
        worker: WorkerId,
        standing: Standing,
        now: Timestamp,
        effects: &mut Vec<Effect>,
    ) -> Result<u64, Rejection> {
        self.known(&worker)?;
        self.stand(worker, standing, now, effects);
        Ok(0)
    }

    fn known(&self, worker: &WorkerId) -> Result<(), Rejection> {
        let unknown = || Rejection::new(RejectionCode::UnknownWorker, format!("no worker has key {worker}"));
        self.registry.members().contains_key(worker).then_some(()).ok_or_else(unknown)
    }

    fn label(
        &mut self,
        worker: WorkerId,
        labels: Vec<(String, String)>,
        effects: &mut Vec<Effect>,
    ) -> Result<u64, Rejection> {
        self.known(&worker)?;
        let mut all = self.registry.labels_of(&worker).cloned().unwrap_or_default();
        for (name, value) in labels {
            if name.is_empty() {
                return Err(not_possible("a label has an empty name; write NAME=VALUE"));
            }
            match value.is_empty() {
                true => drop(all.remove(&name)),
                false => drop(all.insert(name, value)),
            }
        }
        if all.len() > LABELS_MAX {
            let why = format!("the worker would have {} labels, allowed are {LABELS_MAX}; take some away", all.len());
            return Err(not_possible(why));
        }
        self.registry.label(worker, all.clone());
        effects.push(note(Note::Labels { worker, labels: all }));
        // It may follow another channel now.
        self.retarget([worker], effects);
        Ok(0)
    }

    fn abandon_open(&mut self, now: Timestamp, effects: &mut Vec<Effect>) -> Result<u64, Rejection> {
        match &mut self.stage {
            Stage::Reporting(reporting) => {
                let round = reporting.open().round.0;
                self.close_without_commit(BY_OPERATOR, now, effects);
                Ok(round)
            }
            Stage::Buffering(buffer) if buffer.at_work() > 0 || buffer.updates() > 0 => {
                let round = buffer.latest().map_or(0, |open| open.round.0);
                self.abandon_buffer(BY_OPERATOR, now, effects);
                Ok(round)
            }
            Stage::Aggregating(reporting) => {
                let round = reporting.open().round.0;
                Err(not_possible(format!("round {round} is being aggregated; it ends by itself in a moment")))
            }
            Stage::Selecting { .. } | Stage::Buffering(_) | Stage::Finished => {
                Err(not_possible("no round is open; `round list` says which are over"))
            }
        }
    }

    fn set_paused(&mut self, paused: bool, now: Timestamp, effects: &mut Vec<Effect>) -> Result<u64, Rejection> {
        if self.conduct.paused == paused {
            let is = if paused { "paused already; `run resume` goes on" } else { "not paused; `run pause` pauses it" };
            return Err(not_possible(format!("the run is {is}")));
        }
        self.conduct.paused = paused;
        effects.push(note(Note::Conduct(self.conduct)));
        if !paused && matches!(self.stage, Stage::Selecting { .. }) {
            self.select(now, effects);
        }
        Ok(0)
    }

    fn set(&mut self, settings: &Settings, now: Timestamp, effects: &mut Vec<Effect>) -> Result<u64, Rejection> {
        let settings = self.conduct.settings.and(settings);
        let plan = self.plan.with(&settings).map_err(|error| not_possible(error.to_string()))?;
        if plan.raw().rounds < self.head.version() {
            let (rounds, version) = (plan.raw().rounds, self.head.version());
            return Err(not_possible(format!("rounds is {rounds}, the run has {version} already")));
        }
        self.conduct.settings = settings;
        effects.push(note(Note::Conduct(self.conduct)));
        self.coming = Some(Arc::new(plan));
        match self.stage {
            // The open round ends as it began.
            Stage::Reporting(_) | Stage::Aggregating(_) => {}
            Stage::Selecting { .. } => self.select(now, effects),
            Stage::Buffering(_) => self.take_settings(),
            Stage::Finished => {
                self.take_settings();
                if self.head.version() < self.plan.raw().rounds {
                    self.begin(now, effects);
                }
            }
        }
        Ok(0)
    }

    /// Begins to run by what was set.
    pub(super) fn take_settings(&mut self) {
        if let Some(plan) = self.coming.take() {
            self.plan = plan;
        }
    }

    /// Notes that a round is over.
    pub(super) fn note_past(&mut self, past: PastRound, effects: &mut Vec<Effect>) {
        keep(&mut self.past, past.clone());
        effects.push(note(Note::Past(past)));
    }

    /// Notes that open rounds ended without a commit.
    pub(super) fn note_abandoned(
        &mut self,
        round: (Round, usize, u32),
        why: &str,
        now: Timestamp,
        effects: &mut Vec<Effect>,
    ) {
        let (round, cohort, reports) = round;
        let cohort = u32::try_from(cohort).unwrap_or(u32::MAX);
        let outcome = RoundOutcome::Abandoned(why.to_owned());
        self.note_past(PastRound { round, ended: now, cohort, reports, outcome }, effects);
    }

    /// Rounds that are over, by number; the last thousand.
    #[must_use]
    pub const fn past(&self) -> &BTreeMap<Round, PastRound> {
        &self.past
    }

    /// What operators have changed of the run.
    #[must_use]
    pub const fn conduct(&self) -> &Conduct {
        &self.conduct
    }
}

/// An entry to be stored.
pub(super) fn note(note: Note) -> Effect {
    Effect::Store(Write::Note(note))
}

pub(super) fn not_possible(why: impl Into<String>) -> Rejection {
    Rejection::new(RejectionCode::NotPossible, why.into())
}

/// Why a round that the operator ended was abandoned.
const BY_OPERATOR: &str = "operator";
