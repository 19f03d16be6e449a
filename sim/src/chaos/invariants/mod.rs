//! What has to hold whatever happens: one file each.
//!
//! An invariant is told what can be seen from outside: what became durable, what left for the wire, what a process
//! found when it began, what a replica holds. It keeps its own books and believes no counter but to compare it.

mod acknowledged_is_kept;
mod commit_has_enough;
mod counters_add_up;
mod decisions_survive;
mod faults_off_ends_rollouts;
mod faults_off_is_progress;
mod folded_once;
mod head_by_commit;
mod honest_workers_stay;
mod kept;
mod one_open_round;
mod replicas_agree;
mod reports_count_once;
mod restarts;
mod shares_hold;
mod stages_nest;
mod swaps_as_told;
mod told_as_decided;
mod versions_by_one;

use std::fmt;

use packfed_coordinator::change::Change;
use packfed_coordinator::engine::Engine;
use packfed_coordinator::event::{Stored, Ticket, Write};
use packfed_protocol::{Digest, ReleaseRef, Timestamp, UpdateHeader, Verdict, WorkerId};
use serde::Serialize;

pub use faults_off_ends_rollouts::over_within_ms;

use super::scenario::Scenario;

/// Something that can be seen from outside.
#[derive(Clone, Copy, Debug)]
pub enum Seen<'a> {
    /// A coordinator process took the run up from its store.
    Started {
        /// As it took it up.
        engine: &'a Engine,
        /// What the store held.
        stored: Option<&'a Stored>,
    },
    /// The store does not let a coordinator begin.
    CannotStart {
        /// What it said.
        error: &'a str,
    },
    /// The coordinator's process ended, whatever it was doing.
    Died,
    /// An update reached the engine.
    Arrived {
        /// Where its verdict goes.
        ticket: Ticket,
        /// What it is, if it could be verified.
        header: Option<&'a UpdateHeader>,
    },
    /// The store said that this is durable.
    Durable(&'a Write),
    /// A verdict left for the wire.
    Answered {
        /// On whose stream.
        ticket: Ticket,
        /// What it says.
        verdict: &'a Verdict,
    },
    /// An event was handled, and all that the engine asked for was done.
    Settled {
        /// As it stands.
        engine: &'a Engine,
    },
    /// A worker handled an event and has this replica.
    Replica {
        /// Its number.
        worker: usize,
        /// The version that it takes it for.
        version: u64,
        /// Its digest.
        digest: Digest,
    },
    /// A worker in order gave up.
    GaveUp {
        /// Its number.
        worker: usize,
        /// What it said.
        why: &'a str,
    },
    /// An operator's order was answered.
    Ordered {
        /// Why it was given; no other order says the same.
        why: &'a str,
        /// What it was.
        change: &'a Change,
        /// The number of the rollout that it was of; none if it was refused.
        result: Option<u64>,
    },
    /// A coordinator process told a worker what to run.
    Offered {
        /// Whom.
        worker: WorkerId,
        /// What; none is the base model.
        target: Option<ReleaseRef>,
    },
    /// A worker that follows releases began, with what its disk says.
    FollowerStarts {
        /// Its number.
        worker: usize,
        /// What runs; none is the base model.
        runs: Option<ReleaseRef>,
    },
    /// What to run reached a worker.
    Told {
        /// Its number.
        worker: usize,
        /// What; none is the base model.
        target: Option<ReleaseRef>,
    },
    /// It is durable that a worker runs something else.
    Swapped {
        /// Its number.
        worker: usize,
        /// What; none is the base model.
        to: Option<ReleaseRef>,
    },
    /// Nothing goes wrong any more.
    Healed,
    /// Nothing is left to happen, or it took too long.
    Ended {
        /// Versions committed.
        version: u64,
        /// Workers in order that do not hold the final model.
        unfinished: usize,
        /// A rollout that goes on by itself.
        soaking: Option<u64>,
        /// Workers that do not run what they are to run, though it has not failed there.
        astray: usize,
    },
}

/// One promise.
trait Invariant {
    /// Its name: that of its file, in words.
    fn name(&self) -> &'static str;

    /// Takes notice of something; says what is wrong with it, if anything is.
    fn see(&mut self, seen: &Seen<'_>, now: Timestamp) -> Result<(), String>;
}

/// A promise that was broken.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Violation {
    /// The invariant's name.
    pub invariant: String,
    /// What was seen.
    pub what: String,
    /// When, in true milliseconds.
    pub at_ms: u64,
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} ({:.3} s): {}", self.invariant, self.at_ms as f64 / 1_000.0, self.what)
    }
}

/// All of them, for one run.
pub struct Invariants {
    all: Vec<Box<dyn Invariant>>,
    violations: Vec<Violation>,
}

impl Invariants {
    /// Those of a run of this scenario.
    #[must_use]
    pub fn of(scenario: &Scenario) -> Self {
        let plan = &*scenario.plan;
        let fleet = || scenario.members.iter().map(|member| member.identity.id()).collect();
        let all: Vec<Box<dyn Invariant>> = vec![
            Box::new(one_open_round::OneOpenRound::of(plan)),
            Box::new(versions_by_one::VersionsByOne::default()),
            Box::new(head_by_commit::HeadByCommit::of(plan)),
            Box::new(commit_has_enough::CommitHasEnough::of(plan)),
            Box::new(folded_once::FoldedOnce::default()),
            Box::new(counters_add_up::CountersAddUp::default()),
            Box::new(replicas_agree::ReplicasAgree::of(plan)),
            Box::new(acknowledged_is_kept::AcknowledgedIsKept::default()),
            Box::new(restarts::Restarts),
            Box::new(honest_workers_stay::HonestWorkersStay),
            Box::new(faults_off_is_progress::FaultsOffIsProgress::of(plan)),
            Box::new(stages_nest::StagesNest::of(fleet())),
            Box::new(shares_hold::SharesHold::of(fleet())),
            Box::new(told_as_decided::ToldAsDecided::of(fleet())),
            Box::new(swaps_as_told::SwapsAsTold::default()),
            Box::new(decisions_survive::DecisionsSurvive::of(fleet())),
            Box::new(reports_count_once::ReportsCountOnce::default()),
            Box::new(faults_off_ends_rollouts::FaultsOffEndsRollouts::of(scenario)),
        ];
        Self { all, violations: Vec::new() }
    }

    /// Tells all of them.
    pub fn see(&mut self, seen: &Seen<'_>, now: Timestamp) {
        for invariant in &mut self.all {
            if let Err(what) = invariant.see(seen, now) {
                let invariant = invariant.name().to_owned();
                self.violations.push(Violation { invariant, what, at_ms: now.0 });
            }
        }
    }

    /// What was broken so far.
    #[must_use]
    pub fn violations(&self) -> &[Violation] {
        &self.violations
    }
}

impl fmt::Debug for Invariants {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Invariants").field("violations", &self.violations).finish_non_exhaustive()
    }
}
