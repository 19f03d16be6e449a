//! What local training may ask of the machine that it runs on, and what it tells it.

use std::ops::ControlFlow;

use candle_core::Result as TensorResult;

use super::snapshot::{JobDigest, Snapshot};
use super::training::Training;

/// A machine on which a round is trained. What it says may end a round early or cut its steps; it never changes what
/// a step is.
pub trait Host {
    /// Bytes that training may take.
    fn memory_budget(&self) -> Option<u64> {
        None
    }

    /// Training of this job that was interrupted.
    fn resume(&mut self, job: &JobDigest) -> Option<Snapshot> {
        let _ = job;
        None
    }

    /// Is told of every step; a break ends training with the steps done.
    fn stepped(&mut self, step: &Step<'_>) -> ControlFlow<()> {
        let _ = step;
        ControlFlow::Continue(())
    }
}

/// A machine with no bounds, on which nobody watches and nothing is kept.
#[derive(Clone, Copy, Debug)]
pub struct Unattended;

impl Host for Unattended {}

/// A step that is done.
#[derive(Debug)]
pub struct Step<'a> {
    /// Steps done, this one among them.
    pub done: u32,
    /// Steps in all.
    pub of: u32,
    /// This one's loss.
    pub loss: f32,
    pub(super) job: JobDigest,
    pub(super) training: &'a Training,
}

impl Step<'_> {
    /// Training as it is now, to be given back by [`Host::resume`].
    ///
    /// # Errors
    /// If a variable cannot be read.
    pub fn snapshot(&self) -> TensorResult<Snapshot> {
        self.training.snapshot(self.job)
    }
}
