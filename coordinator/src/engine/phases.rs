//! When phases end and what they end in: a cohort drawn, a round committed or abandoned, the run finished.
//!
//! One function a transition: it sets the stage and asks for everything that follows from it. It does not look at
//! what arrives.

use packfed_protocol::{Digest, Round, Timestamp};

use super::{Engine, Stage};
use crate::aggregation::{Aggregated, Rule};
use crate::buffer::Buffer;
use crate::cohort;
use crate::event::{Commit, Effect, OpenRound, Summary, Write};
use crate::head::HeadError;
use crate::ledger::{PastRound, RoundOutcome};
use crate::mean::Mean;
use crate::round::Reporting;
use crate::scaling::corrected;
use crate::staleness::FRESH;

impl Engine {
    /// Ends every phase whose goal is met or whose time is up.
    pub(super) fn advance(&mut self, now: Timestamp, effects: &mut Vec<Effect>) {
        loop {
            let before = effects.len();
            match &self.stage {
                Stage::Selecting { deadline } => self.end_selection(*deadline, now, effects),
                Stage::Reporting(_) => self.end_reporting(now, effects),
                Stage::Buffering(_) => {
                    if let Some(buffered) = self.plan.raw().buffered {
                        self.advance_buffer(buffered, now, effects);
                    }
                }
                Stage::Aggregating(_) | Stage::Finished => {}
            }
            if effects.len() == before {
                return;
            }
        }
    }

    pub(super) fn end_selection(&mut self, deadline: Timestamp, now: Timestamp, effects: &mut Vec<Effect>) {
        if self.conduct.paused {
            return;
        }
        let (phase, idle) = (self.plan.raw().selection, self.idle.len());
        let late = now >= deadline;
        if idle >= phase.goal as usize || late && idle >= phase.min as usize {
            self.open(now, effects);
        } else if late {
            self.abandon("too-few-checked-in", now, effects);
        }
    }

    pub(super) fn open(&mut self, now: Timestamp, effects: &mut Vec<Effect>) {
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
        self.drew(&open.cohort, now, effects);
        effects.push(Effect::Store(Write::Open(open.clone())));
        let assignment = open.assignment(&self.plan.raw().training, now);
        for &worker in &open.cohort {
            let version = self.idle.remove(&worker).flatten();
            self.send_assignment(worker, version, assignment.clone(), effects);
        }
        effects.push(Effect::Wake(open.deadline));
        self.stage = Stage::Reporting(Box::new(Reporting::new(&self.plan, open)));
    }

    pub(super) fn end_reporting(&mut self, now: Timestamp, effects: &mut Vec<Effect>) {
        let Stage::Reporting(reporting) = &self.stage else { return };
        let phase = self.plan.raw().reporting;
        let drawn = u32::try_from(reporting.open().cohort.len()).unwrap_or(u32::MAX);
        let late = now >= reporting.open().deadline || drawn < phase.min;
        let goal = if late { phase.min } else { phase.goal.min(drawn) };
        if reporting.reports() >= goal {
            self.aggregate(now, effects);
        } else if late {
            self.close_without_commit("too-few-updates", now, effects);
        }
    }

    /// Nobody reports any more: commits the sum, or asks for the rule to be applied to what was journalled.
    pub(super) fn aggregate(&mut self, now: Timestamp, effects: &mut Vec<Effect>) {
        let Some(reporting) = self.close() else { return };
        match self.plan.raw().aggregation.rule {
            Rule::Mean => self.commit(&reporting, now, effects),
            Rule::Robust(rule) => {
                effects.push(Effect::Aggregate(Box::new(reporting.task(&self.plan, rule))));
                self.stage = Stage::Aggregating(Box::new(reporting));
            }
        }
    }

    /// Takes what the rule came to; an answer for any other round is of no interest any more.
    pub(super) fn aggregated(
        &mut self,
        round: Round,
        result: Result<Aggregated, String>,
        now: Timestamp,
        effects: &mut Vec<Effect>,
    ) {
        match std::mem::replace(&mut self.stage, Stage::Finished) {
            Stage::Aggregating(mut reporting) if reporting.open().round == round => match result {
                Ok(aggregated) => {
                    tracing::info!(round = round.0, kept = aggregated.kept.len(), "aggregated");
                    reporting.take(aggregated.tally);
                    self.commit(&reporting, now, effects);
                }
                Err(error) => self.fault(&reporting, &error, now, effects),
            },
            stage => self.stage = stage,
        }
    }

    /// Makes the round's delta the next version. The round is closed.
    pub(super) fn commit(&mut self, reporting: &Reporting, now: Timestamp, effects: &mut Vec<Effect>) {
        let open = reporting.open();
        let mean = Mean::of(self.plan.layout(), self.plan.raw().profile, &[reporting.part(&reporting.scales(), FRESH)]);
        if let Err(error) = mean.map_err(HeadError::from).and_then(|mean| self.head.commit(&mean)) {
            return self.fault(reporting, &error, now, effects);
        }
        let digest = Digest(self.head.digest().0);
        self.scales = corrected(&open.scales, &reporting.clipped(&self.plan), &reporting.used(&self.plan));
        let summary = Summary {
            round: open.round,
            version: self.head.version(),
            digest,
            updates: reporting.reports(),
            examples: reporting.examples(),
            train_loss: reporting.train_loss(&self.plan),
            clipped: reporting.clipped_in_all(&self.plan),
        };
        tracing::info!(round = open.round.0, version = summary.version, updates = summary.updates, loss = summary.train_loss, %digest, "round committed");
        self.last = Some(summary);
        self.counters.committed += 1;
        let (head, scales) = (self.head.record().clone(), self.scales.clone());
        let commit = Commit { round: open.round, head, scales, open: Vec::new(), summary };
        effects.push(Effect::Store(Write::Commit(Box::new(commit))));
        let (cohort, outcome) = (open.cohort.len(), RoundOutcome::Committed(summary));
        let cohort = u32::try_from(cohort).unwrap_or(u32::MAX);
        let past = PastRound { round: open.round, ended: now, cohort, reports: summary.updates, outcome };
        self.note_past(past, effects);
        self.take_settings();
        if self.head.version() >= self.plan.raw().rounds {
            self.finish(effects);
        } else {
            self.select(now, effects);
        }
    }

    /// Ends the reporting phase and remembers who had reported.
    pub(super) fn close(&mut self) -> Option<Reporting> {
        let Stage::Reporting(reporting) = std::mem::replace(&mut self.stage, Stage::Finished) else { return None };
        self.missed.push(reporting.open().round, reporting.missing());
        Some(*reporting)
    }

    pub(super) fn close_without_commit(&mut self, why: &str, now: Timestamp, effects: &mut Vec<Effect>) {
        if let Some(reporting) = self.close() {
            let open = reporting.open();
            effects.push(Effect::Store(Write::Abandon { round: open.round }));
            self.note_abandoned((open.round, open.cohort.len(), reporting.reports()), why, now, effects);
        }
        self.abandon(why, now, effects);
    }

    /// Our own fault ends a closed round, not the process.
    pub(super) fn fault(
        &mut self,
        reporting: &Reporting,
        error: &dyn std::fmt::Display,
        now: Timestamp,
        effects: &mut Vec<Effect>,
    ) {
        let (round, cohort) = (reporting.open().round, reporting.open().cohort.len());
        tracing::error!(round = round.0, %error, "round faulted");
        effects.push(Effect::Store(Write::Abandon { round }));
        self.note_abandoned((round, cohort, reporting.reports()), FAULT, now, effects);
        self.abandon(FAULT, now, effects);
    }

    pub(super) fn abandon(&mut self, why: &str, now: Timestamp, effects: &mut Vec<Effect>) {
        *self.counters.abandoned.entry(why.to_owned()).or_default() += 1;
        tracing::warn!(why, idle = self.idle.len(), "round abandoned");
        self.select(now, effects);
    }

    /// Takes up a finished run again.
    pub(super) fn begin(&mut self, now: Timestamp, effects: &mut Vec<Effect>) {
        match self.plan.raw().buffered {
            Some(_) => self.stage = Stage::Buffering(Buffer::default()),
            None => self.select(now, effects),
        }
    }

    /// Waits for workers, by what was set meanwhile.
    pub(super) fn select(&mut self, now: Timestamp, effects: &mut Vec<Effect>) {
        self.take_settings();
        if self.head.version() >= self.plan.raw().rounds {
            return self.finish(effects);
        }
        let deadline = now.plus(self.plan.raw().selection.timeout_ms);
        self.stage = Stage::Selecting { deadline };
        effects.push(Effect::Wake(deadline));
    }

    pub(super) fn finish(&mut self, effects: &mut Vec<Effect>) {
        tracing::info!(version = self.head.version(), "run finished");
        self.stage = Stage::Finished;
        for (worker, version) in std::mem::take(&mut self.idle) {
            self.send_finished(worker, version, effects);
        }
    }
}

/// Why a round was abandoned that could not be committed.
pub(super) const FAULT: &str = "fault";

/// The window's turn for a base version: every commit moves it on.
pub(super) fn turn(version: u64) -> u32 {
    u32::try_from(version % (1 << 32)).unwrap_or(0)
}
