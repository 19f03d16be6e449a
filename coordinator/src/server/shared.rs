//! What every connection task knows.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use packfed_protocol::{CoordinatorId, Limits, Rejection, RejectionCode, UpdateHeader, WorkerId};
use tokio::sync::{Semaphore, watch};

use super::bodies::Bodies;
use super::dashboard::Dashboard;
use super::metrics::Metrics;
use super::partials::Partials;
use super::strangers::Strangers;
use super::traffic::Traffic;
use crate::admin::{Admin, Role};
use crate::config::ShellLimits;
use crate::plan::RunPlan;

/// Whether a worker may take part, kept up to date by the owner.
pub(super) type Admission = watch::Receiver<Result<(), Rejection>>;

pub(super) struct Shared {
    /// The coordinator's own key: who proves it is the operator.
    pub(super) own: CoordinatorId,
    /// Who may ask and order, the coordinator's own key included.
    pub(super) admins: BTreeMap<WorkerId, Arc<Admin>>,
    pub(super) limits: Limits,
    /// How long a peer may take for one frame or one piece of a payload, either way.
    pub(super) frame_time: Duration,
    bytes_per_second_min: u64,
    pub(super) handshake_time: Duration,
    pub(super) queue_max: usize,
    pub(super) rejections_max: u32,
    pub(super) traffic: Traffic,
    pub(super) metrics: Metrics,
    pub(super) dashboard: Dashboard,
    /// One permit for every update that is in memory, from its first word to its verdict.
    pub(super) updates: Semaphore,
    /// One permit for every catch-up that is being sent.
    pub(super) downloads: Semaphore,
    pub(super) partials: Partials,
    pub(super) bodies: Bodies,
    pub(super) strangers: Strangers,
    /// Words of an update in the plan's layout.
    blocks: u64,
    connections: AtomicU64,
}

/// What the audit log calls whoever has the coordinator's own key.
const OWNER: &str = "owner";

impl Shared {
    pub(super) fn new(
        own: CoordinatorId,
        admins: &[Admin],
        plan: &RunPlan,
        limits: &ShellLimits,
        metrics: Metrics,
        dashboard: Dashboard,
    ) -> Self {
        let owner = Admin { name: OWNER.to_owned(), key: own, role: Role::Owner };
        let count = |count: u32| usize::try_from(count).unwrap_or(usize::MAX);
        Self {
            own,
            admins: admins.iter().chain([&owner]).map(|admin| (admin.key, Arc::new(admin.clone()))).collect(),
            limits: Limits { control_bytes_max: CONTROL_BYTES_MAX },
            frame_time: Duration::from_millis(limits.update_timeout_ms),
            bytes_per_second_min: limits.bytes_per_second_min,
            handshake_time: Duration::from_millis(limits.handshake_timeout_ms),
            queue_max: count(limits.queue_max),
            rejections_max: limits.rejections_max,
            traffic: Traffic::default(),
            metrics,
            dashboard,
            updates: Semaphore::new(count(limits.updates_max)),
            downloads: Semaphore::new(count(limits.downloads_max)),
            partials: Partials::new(limits.kept_bytes_max, limits.kept_ms),
            bodies: Bodies::new(limits.kept_bytes_max, limits.kept_ms),
            strangers: Strangers::new(count(limits.strangers_max)),
            blocks: plan.layout().blocks() as u64,
            connections: AtomicU64::new(0),
        }
    }

    /// A number that no other connection of this process has: adding is one atomic step, and only its result counts.
    pub(super) fn next_connection(&self) -> u64 {
        self.connections.fetch_add(1, Ordering::Relaxed)
    }

    /// Refuses an update of another size than the plan's, so that nobody makes us hold more.
    pub(super) fn check_words(&self, header: &UpdateHeader) -> Result<(), Rejection> {
        let (words, blocks) = (header.words, self.blocks);
        if u64::from(words) != blocks {
            let detail = format!("the update has {words} words, the layout has {blocks} blocks");
            return Err(Rejection::new(RejectionCode::WrongBlockCount, detail));
        }
        Ok(())
    }

    /// How long so many bytes of a payload may take.
    pub(super) fn payload_time(&self, bytes: u64) -> Duration {
        self.frame_time + Duration::from_secs(bytes / self.bytes_per_second_min)
    }
}

/// An update's offer with as many layers as a plan may have, and room to spare.
const CONTROL_BYTES_MAX: u32 = 64 << 10;
