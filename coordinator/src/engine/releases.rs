//! Which release every worker that is there runs, and which it is to run.
//!
//! The book of rollouts says what is desired, a worker what it has; whoever has another one is told, once for each. A
//! worker that failed with a release is not given it again.

use std::collections::BTreeMap;

use packfed_protocol::{
    Failure, Rejection, ReleaseOutcome, ReleaseRef, ReleaseState, RolloutVerb, Timestamp, Tried, WorkerId,
};

use super::Engine;
use super::orders::{Order, not_possible, note};
use crate::event::Effect;
use crate::ledger::Note;
use crate::rollout::{self, Book, Report, Spec};

/// A worker that is there and follows releases.
#[derive(Clone, Copy, Debug)]
pub(super) struct Follower {
    state: ReleaseState,
    /// What it was last told to run, since it said so.
    told: Option<Option<ReleaseRef>>,
}

impl Engine {
    pub(super) fn release_state(
        &mut self,
        worker: WorkerId,
        state: ReleaseState,
        now: Timestamp,
        effects: &mut Vec<Effect>,
    ) {
        if let Err(rejection) = self.registry.admitted(&worker, now) {
            self.followers.remove(&worker);
            // Of one that only stayed there, nothing would be heard when it may take part again.
            return self.turn_away(worker, rejection, now, effects);
        }
        self.followers.insert(worker, Follower { state, told: None });
        if let Some(tried) = state.tried {
            self.tried(worker, &tried, now, effects);
        }
        self.retarget([worker], effects);
    }

    /// Counts what became of a release on a worker.
    fn tried(&mut self, worker: WorkerId, tried: &Tried, now: Timestamp, effects: &mut Vec<Effect>) {
        let labels = self.registry.labels_of(&worker).cloned().unwrap_or_default();
        let report = Report { worker, labels: &labels, release: tried.release, outcome: &tried.outcome };
        match self.book.report(&report, self.plan.raw().examples_max, self.registry.followers(), now) {
            Ok(asked) => self.follow(asked, now, effects),
            // What it tried before is said again with everything else.
            Err(rollout::Refusal::NotIts(_)) => {}
            Err(refusal) => tracing::warn!(%worker, %refusal, "a report of a release is not counted"),
        }
    }

    /// Does what the book of rollouts asks for.
    fn follow(&mut self, asked: Vec<rollout::Effect>, now: Timestamp, effects: &mut Vec<Effect>) {
        let mut changed = false;
        for effect in asked {
            match effect {
                rollout::Effect::Store(record) => effects.push(note(Note::Rollout(record))),
                rollout::Effect::Reported { rollout, worker } => {
                    effects.push(note(Note::Reported { rollout, worker }));
                }
                rollout::Effect::Forget { rollout } => effects.push(note(Note::Forget { rollout })),
                rollout::Effect::Changed => changed = true,
            }
        }
        if changed {
            let everybody: Vec<WorkerId> = self.followers.keys().copied().collect();
            self.retarget(everybody, effects);
        }
        self.rollouts_at = self.book.deadline(now);
        effects.extend(self.rollouts_at.map(Effect::Wake));
    }

    /// Tells workers that are there what to run, if that is not what they run.
    pub(super) fn retarget(&mut self, workers: impl IntoIterator<Item = WorkerId>, effects: &mut Vec<Effect>) {
        for worker in workers {
            let desired = self.desired(&worker);
            let Some(follower) = self.followers.get_mut(&worker) else { continue };
            let ReleaseState { runs, tried } = follower.state;
            let failed = |tried: Tried| Some(tried.release) == desired && is_final(&tried, runs);
            let right = desired == runs && follower.told.is_none_or(|told| told == runs);
            if right || follower.told == Some(desired) || tried.is_some_and(failed) {
                continue;
            }
            follower.told = Some(desired);
            effects.push(Effect::Offer { worker, target: desired, runs });
        }
    }

    /// The release that a worker is to run; none is the base model.
    fn desired(&self, worker: &WorkerId) -> Option<ReleaseRef> {
        let labels = self.registry.followers().get(worker)?;
        self.book.desired(worker, labels)
    }

    /// Does what time has decided about rollouts.
    pub(super) fn tick_rollouts(&mut self, now: Timestamp, effects: &mut Vec<Effect>) {
        if self.rollouts_at.is_some_and(|at| now >= at) {
            let asked = self.book.tick(self.registry.followers(), now);
            self.follow(asked, now, effects);
        }
    }

    pub(super) fn start_rollout(
        &mut self,
        order: Order<'_>,
        release: ReleaseRef,
        spec: Spec,
        now: Timestamp,
        effects: &mut Vec<Effect>,
    ) -> Result<u64, Rejection> {
        let Order { by, why } = order;
        let started = self.book.start(release, spec, by, why.to_owned(), self.registry.followers(), now);
        let (number, asked) = started.map_err(|refusal| not_possible(refusal.to_string()))?;
        self.follow(asked, now, effects);
        Ok(number)
    }

    pub(super) fn steer_rollout(
        &mut self,
        order: Order<'_>,
        number: u64,
        verb: RolloutVerb,
        now: Timestamp,
        effects: &mut Vec<Effect>,
    ) -> Result<u64, Rejection> {
        let Order { by, why } = order;
        let steered = self.book.order(number, verb, by, why.to_owned(), self.registry.followers(), now);
        let asked = steered.map_err(|refusal| not_possible(refusal.to_string()))?;
        self.follow(asked, now, effects);
        Ok(number)
    }

    /// Every rollout.
    #[must_use]
    pub const fn rollouts(&self) -> &Book {
        &self.book
    }

    /// What a worker that is there says of releases.
    #[must_use]
    pub fn follower(&self, worker: &WorkerId) -> Option<&ReleaseState> {
        self.followers.get(worker).map(|follower| &follower.state)
    }

    /// How many workers that are there run each release; none is the base model.
    #[must_use]
    pub fn runs(&self) -> BTreeMap<Option<ReleaseRef>, usize> {
        let mut counts = BTreeMap::new();
        for follower in self.followers.values() {
            *counts.entry(follower.state.runs).or_default() += 1;
        }
        counts
    }
}

/// Whether a worker is not given a release again that it tried. To go back it has to come to, and what kept it from
/// that once was the way there: it fetches with pauses, so that it is not told without end.
fn is_final(tried: &Tried, runs: Option<ReleaseRef>) -> bool {
    let goes_back = runs.is_some_and(|runs| runs.number > tried.release.number);
    match tried.outcome {
        ReleaseOutcome::Evaluated(_) | ReleaseOutcome::Healthy => false,
        ReleaseOutcome::Failed(Failure::Download) => !goes_back,
        ReleaseOutcome::Failed(Failure::Crash | Failure::Verify) => true,
    }
}
