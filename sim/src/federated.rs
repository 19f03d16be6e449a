//! What a task is to packfed and to the baselines: workers, their data, and a test.

use std::sync::Arc;

use packfed_codec::State;
use packfed_protocol::Digest;
use packfed_worker::task::{LocalTask, TaskError};

use crate::results::{Metric, Score};

/// A task made ready for one run's seed and workers.
pub trait FederatedTask: Sync {
    /// A worker of packfed.
    type Worker: LocalTask + Clone + Sync;
    /// What a worker holds, as a baseline trains on it.
    type Data: Sync;

    /// Digest of the base model's files.
    fn base_digest(&self) -> Digest;

    /// packfed's workers, over one base model.
    fn workers(&self) -> Vec<Self::Worker>;

    /// What each worker holds.
    fn data(&self) -> &[Arc<Self::Data>];

    /// Number of examples that a worker holds.
    fn examples(&self, worker: usize) -> usize;

    /// What models are compared by.
    fn metric(&self) -> Metric {
        Metric::Accuracy
    }

    /// Rounds between two tests, for the display and the curve; the last round is tested whatever this is.
    fn test_every(&self) -> u64;

    /// A model state on the test set, as inference sees it.
    ///
    /// # Errors
    /// If the state is not of this task's base.
    fn score(&self, state: &State) -> Result<Score, TaskError>;
}
