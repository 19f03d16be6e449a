//! What every connection task knows.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use packfed_protocol::{CoordinatorId, Limits, Rejection, SIGNATURE_BYTES, WORD_BYTES};
use tokio::sync::{Semaphore, watch};

use super::traffic::Traffic;
use crate::config::ShellLimits;
use crate::plan::RunPlan;

/// Whether a worker may take part, kept up to date by the owner.
pub(super) type Admission = watch::Receiver<Result<(), Rejection>>;

pub(super) struct Shared {
    /// The coordinator's own key: who proves it is the operator.
    pub(super) own: CoordinatorId,
    pub(super) limits: Limits,
    /// How long a peer may take for one frame, either way.
    pub(super) frame_time: Duration,
    pub(super) queue_max: usize,
    pub(super) traffic: Traffic,
    /// One permit for every payload that is being read.
    pub(super) updates: Semaphore,
    connections: AtomicU64,
}

impl Shared {
    pub(super) fn new(own: CoordinatorId, plan: &RunPlan, limits: &ShellLimits) -> Self {
        Self {
            own,
            limits: Limits { control_bytes_max: CONTROL_BYTES_MAX, payload_bytes_max: payload_bytes_max(plan) },
            frame_time: Duration::from_millis(limits.update_timeout_ms),
            queue_max: usize::try_from(limits.queue_max).unwrap_or(usize::MAX),
            traffic: Traffic::default(),
            updates: Semaphore::new(usize::try_from(limits.updates_max).unwrap_or(usize::MAX)),
            connections: AtomicU64::new(0),
        }
    }

    /// A number that no other connection of this process has: adding is one atomic step, and only its result counts.
    pub(super) fn next_connection(&self) -> u64 {
        self.connections.fetch_add(1, Ordering::Relaxed)
    }
}

/// The body of an update in this plan's layout, so that nobody makes us buffer more.
fn payload_bytes_max(plan: &RunPlan) -> u32 {
    let (blocks, layers) = (plan.layout().blocks() as u64, plan.layout().layers().len() as u64);
    let body = blocks * WORD_BYTES + 8 * layers + SIGNATURE_BYTES as u64 + HEADER_BYTES_MAX;
    u32::try_from(body).unwrap_or(u32::MAX).max(PAYLOAD_BYTES_MIN)
}

/// Bytes of an enrolment or a check-in are far fewer.
const CONTROL_BYTES_MAX: u32 = 4 << 10;
/// A small layout's updates may be this large, so that a wrong number of words is told as such.
const PAYLOAD_BYTES_MIN: u32 = 64 << 10;
/// More than the fixed part of an update's header takes.
const HEADER_BYTES_MAX: u64 = 512;
