//! The buffered plan: workers are assigned whenever they are free, and a commit waits for nobody in particular.
//!
//! ```text
//!   check-in ──► idle ── fewer at work than the plan allows ──► at work on the head ──► update gathered
//!                 ▲                                                                          │
//!                 └───────────────────────────── check-in ◄──────────────────────────────────┘
//! ```
//!
//! A worker trains a version at most once; having done so it is idle until the head moves.

use packfed_protocol::{CheckIn, Digest, Message, Outcome, Rejection, Timestamp, Verified, WorkerId};

use super::phases::{FAULT, turn};
use super::{Engine, Stage};
use crate::buffer::{Ended, Gathered};
use crate::cohort;
use crate::event::{Commit, Effect, OpenRound, Summary, Write};
use crate::head::HeadError;
use crate::ledger::{PastRound, RoundOutcome};
use crate::plan::Buffered;

impl Engine {
    /// A worker that is at work gets its assignment again if it can go on with it; any other is free.
    pub(super) fn check_in_buffered(
        &mut self,
        worker: WorkerId,
        check_in: &CheckIn,
        now: Timestamp,
        effects: &mut Vec<Effect>,
    ) {
        let version = self.known_version(check_in);
        let Stage::Buffering(buffer) = &mut self.stage else { return };
        let head = self.head.version();
        if let Some(open) = buffer.round_of(&worker) {
            let assignment = open.assignment(&self.plan.raw().training, now);
            if open.base == head {
                self.send_plan(worker, check_in, effects);
                return self.send_assignment(worker, version, assignment, effects);
            }
            if Some(open.base) == version {
                self.send_plan(worker, check_in, effects);
                return effects.push(Effect::Send { worker, message: Message::Assignment(assignment) });
            }
            if let Some(open) = buffer.withdraw(&worker) {
                self.missed.push(open.round, [worker]);
                effects.push(Effect::Store(written(open)));
            }
        }
        self.hold(worker, check_in, now, effects);
    }

    /// What becomes of an update; if it is accepted it is in its round's sum.
    pub(super) fn judge_buffered(&mut self, update: &Verified) -> Result<Outcome, Rejection> {
        let Stage::Buffering(buffer) = &mut self.stage else { unreachable!("the stage was looked at") };
        let (round, worker) = (update.header().round, update.header().worker);
        if buffer.assigned(round, &worker) {
            return buffer.accept(&self.plan, update).map(|()| Outcome::Accepted);
        }
        let is_open = buffer.open().any(|open| open.round == round);
        if is_open && !self.missed.awaited(round, &worker) {
            return buffer.accept(&self.plan, update).map(|()| Outcome::Accepted);
        }
        self.late(round, &worker)
    }

    /// Commits what is gathered, ends what took too long, or gives free workers something to do.
    pub(super) fn advance_buffer(&mut self, buffered: Buffered, now: Timestamp, effects: &mut Vec<Effect>) {
        let Stage::Buffering(buffer) = &mut self.stage else { return };
        let phase = self.plan.raw().reporting;
        if buffer.updates() >= phase.goal {
            return self.commit_buffer(buffered, now, effects);
        }
        if buffer.deadline().is_none_or(|deadline| now < deadline) {
            return self.assign_idle(buffered, now, effects);
        }
        let deadline = now.plus(phase.timeout_ms);
        let (ended, changed) = buffer.lapse(now, deadline);
        let enough = buffer.updates() >= phase.min;
        self.miss(ended);
        if enough {
            return self.commit_buffer(buffered, now, effects);
        }
        for open in changed {
            if open.cohort.is_empty() {
                *self.counters.abandoned.entry(NO_UPDATES.to_owned()).or_default() += 1;
            } else {
                effects.push(Effect::Wake(deadline));
            }
            effects.push(Effect::Store(written(open)));
        }
    }

    /// Draws as many free workers as may be at work besides, and assigns them the head.
    fn assign_idle(&mut self, buffered: Buffered, now: Timestamp, effects: &mut Vec<Effect>) {
        if self.conduct.paused {
            return;
        }
        let Stage::Buffering(buffer) = &mut self.stage else { return };
        let (base, raw) = (self.head.version(), self.plan.raw());
        let here = buffer.round_from(base);
        let round = here.map_or(self.next_round, |open| open.round);
        let fresh = |worker: &&WorkerId| !buffer.assigned(round, worker);
        let free = (buffered.concurrency as usize).saturating_sub(buffer.at_work());
        let drawn = cohort::draw(&raw.seed, round, self.idle.keys().filter(fresh).copied(), free);
        if drawn.is_empty() {
            return;
        }
        let deadline = now.plus(raw.reporting.timeout_ms);
        let scales = self.scales.clone();
        let open = OpenRound { round, base, turn: turn(base), cohort: drawn.clone(), deadline, scales };
        let open = buffer.assign(&self.plan, open).clone();
        tracing::info!(round = round.0, base, workers = drawn.len(), "assigned");
        self.next_round = self.next_round.max(round.next());
        let assignment = open.assignment(&raw.training, now);
        self.drew(&drawn, now, effects);
        effects.push(Effect::Store(Write::Open(open)));
        for worker in drawn {
            let version = self.idle.remove(&worker).flatten();
            self.send_assignment(worker, version, assignment.clone(), effects);
        }
        effects.push(Effect::Wake(deadline));
    }

    /// Steps the head by what is gathered; whoever is at work goes on.
    fn commit_buffer(&mut self, buffered: Buffered, now: Timestamp, effects: &mut Vec<Effect>) {
        let Stage::Buffering(buffer) = &mut self.stage else { return };
        let before = self.head.version();
        let Some(gathered) = buffer.gathered(&self.plan, before) else { return };
        let mean = buffer.mean(&self.plan, &buffered, before).map_err(HeadError::from);
        if let Err(error) = mean.and_then(|mean| self.head.commit(&mean)) {
            tracing::error!(%error, "buffer faulted");
            return self.abandon_buffer(FAULT, now, effects);
        }
        if let Some(scales) = buffer.corrected_scales(&self.plan) {
            self.scales = scales;
        }
        let finished = self.head.version() >= self.plan.raw().rounds;
        let ended = buffer.settle(&self.plan, &buffered, self.head.version());
        let ended = if finished { [ended, buffer.end()].concat() } else { ended };
        let open = buffer.open().cloned().collect();
        self.miss(ended);
        self.record_commit(gathered, open, now, effects);
        if finished {
            self.finish(effects);
        }
    }

    fn record_commit(&mut self, gathered: Gathered, open: Vec<OpenRound>, now: Timestamp, effects: &mut Vec<Effect>) {
        let Gathered { round, updates, examples, train_loss, clipped, staleness } = gathered;
        let (version, digest) = (self.head.version(), Digest(self.head.digest().0));
        tracing::info!(version, updates, staleness, loss = train_loss, %digest, "buffer committed");
        let summary = Summary { round, version, digest, updates, examples, train_loss, clipped };
        self.last = Some(summary);
        self.counters.committed += 1;
        let (head, scales) = (self.head.record().clone(), self.scales.clone());
        effects.push(Effect::Store(Write::Commit(Box::new(Commit { round, head, scales, open, summary }))));
        let outcome = RoundOutcome::Committed(summary);
        self.note_past(PastRound { round, ended: now, cohort: updates, reports: updates, outcome }, effects);
    }

    /// Gives up what is gathered and everything that is under way.
    pub(super) fn abandon_buffer(&mut self, why: &str, now: Timestamp, effects: &mut Vec<Effect>) {
        let Stage::Buffering(buffer) = &mut self.stage else { return };
        let updates = buffer.updates();
        let ended = buffer.end();
        effects.extend(ended.iter().map(|ended| Effect::Store(Write::Abandon { round: ended.round })));
        if let Some(last) = ended.last() {
            self.note_abandoned((last.round, last.missing.len(), updates), why, now, effects);
        }
        *self.counters.abandoned.entry(why.to_owned()).or_default() += 1;
        self.miss(ended);
    }

    fn miss(&mut self, ended: Vec<Ended>) {
        for Ended { round, missing } in ended {
            self.missed.push(round, missing);
        }
    }
}

/// What is to be stored of a round that changed.
pub(super) fn written(open: OpenRound) -> Write {
    if open.cohort.is_empty() { Write::Abandon { round: open.round } } else { Write::Open(open) }
}

/// Why a round of a buffered plan is over without an update.
const NO_UPDATES: &str = "no-updates";
