//! How often what happened, in a run or in many.

use std::collections::BTreeMap;

use serde::Serialize;

/// See the module.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Counts {
    /// Lines of the trace.
    pub events: u64,
    /// Rounds opened.
    pub rounds: u64,
    /// Rounds committed.
    pub commits: u64,
    /// Of these, once nothing went wrong any more.
    pub commits_after_faults: u64,
    /// Rounds abandoned.
    pub abandoned: u64,
    /// Updates that reached the coordinator.
    pub arrived: u64,
    /// Updates accepted.
    pub accepted: u64,
    /// Updates discarded.
    pub discarded: u64,
    /// Updates rejected, by reason.
    pub rejected: BTreeMap<String, u64>,
    /// Coordinator processes that died.
    pub coordinator_crashes: u64,
    /// Of these, with a round open in the store.
    pub crashes_in_a_round: u64,
    /// Of the processes that died, with a rollout in the store that was not over.
    pub crashes_in_a_rollout: u64,
    /// Worker processes that died.
    pub worker_crashes: u64,
    /// Connections broken.
    pub broken_connections: u64,
    /// Frames lost with them.
    pub lost_frames: u64,
    /// Updates read after their connection had broken.
    pub late_updates: u64,
    /// Partitions.
    pub partitions: u64,
    /// Clocks set anew.
    pub clocks_set: u64,
    /// Lies told.
    pub lies: u64,
    /// Rounds of local training that faulted.
    pub training_faults: u64,
    /// Writes that the disk refused or lost its power over.
    pub failed_writes: u64,
    /// Unsynced sectors that a disk forgot.
    pub forgotten_sectors: u64,
    /// Orders of the operator that were done.
    pub orders: u64,
    /// Orders that were refused.
    pub orders_refused: u64,
    /// Orders whose coordinator died before it answered.
    pub orders_unanswered: u64,
    /// Rollouts started.
    pub rollouts_started: u64,
    /// Stages of them that began.
    pub stages_begun: u64,
    /// How often a rollout was completed; one that was rolled back and undone counts once.
    pub rollouts_completed: u64,
    /// How often a rollout was aborted.
    pub rollouts_aborted: u64,
    /// How often a rollout was rolled back.
    pub rollouts_rolled_back: u64,
    /// Of these, by a gate that failed.
    pub gates_failed: u64,
    /// How often a worker's model became another.
    pub releases_swapped: u64,
    /// How often a release failed on a worker.
    pub releases_failed: u64,
    /// Worker processes that died while they wrote down what runs.
    pub crashes_in_a_swap: u64,
}

impl Counts {
    /// Adds another run's.
    pub fn add(&mut self, other: &Self) {
        for (sum, n) in self.plain_mut().into_iter().zip(other.clone().plain_mut()) {
            *sum += *n;
        }
        for (reason, n) in &other.rejected {
            *self.rejected.entry(reason.clone()).or_default() += n;
        }
    }

    fn plain_mut(&mut self) -> [&mut u64; 33] {
        let Self { events, rounds, commits, commits_after_faults, abandoned, arrived, accepted, discarded, .. } = self;
        let Self { coordinator_crashes, crashes_in_a_round, crashes_in_a_rollout, worker_crashes, .. } = self;
        let Self { broken_connections, lost_frames, late_updates, partitions, clocks_set, lies, .. } = self;
        let Self { training_faults, failed_writes, forgotten_sectors, .. } = self;
        let Self { orders, orders_refused, orders_unanswered, rollouts_started, stages_begun, .. } = self;
        let Self { rollouts_completed, rollouts_aborted, rollouts_rolled_back, gates_failed, .. } = self;
        let Self { releases_swapped, releases_failed, crashes_in_a_swap, .. } = self;
        [
            events,
            rounds,
            commits,
            commits_after_faults,
            abandoned,
            arrived,
            accepted,
            discarded,
            coordinator_crashes,
            crashes_in_a_round,
            crashes_in_a_rollout,
            worker_crashes,
            broken_connections,
            lost_frames,
            late_updates,
            partitions,
            clocks_set,
            lies,
            training_faults,
            failed_writes,
            forgotten_sectors,
            orders,
            orders_refused,
            orders_unanswered,
            rollouts_started,
            stages_begun,
            rollouts_completed,
            rollouts_aborted,
            rollouts_rolled_back,
            gates_failed,
            releases_swapped,
            releases_failed,
            crashes_in_a_swap,
        ]
    }
}
