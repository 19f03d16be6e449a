//! What the tasks of one worker's connection share.

use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Mutex, PoisonError};

use packfed_protocol::{Digest, Payload, WorkerId};

use super::shared::{Admission, Shared};
use super::{CLOSED, Sender, now};

pub(super) struct Peer {
    pub(super) from: Sender,
    pub(super) connection: quinn::Connection,
    pub(super) admission: Admission,
    /// The catch-up that it was told of and has not asked for.
    told: Mutex<Option<Payload>>,
    rejections: AtomicU32,
    /// Payloads that it fetches now.
    fetching: AtomicU32,
}

/// A payload that is being fetched. The count stands for itself: whoever reads it looks again.
pub(super) struct Fetching<'a>(&'a AtomicU32);

impl Drop for Fetching<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Peer {
    pub(super) fn new(from: Sender, connection: quinn::Connection, admission: Admission) -> Self {
        Self {
            from,
            connection,
            admission,
            told: Mutex::default(),
            rejections: AtomicU32::new(0),
            fetching: AtomicU32::new(0),
        }
    }

    pub(super) fn worker(&self) -> WorkerId {
        self.from.worker
    }

    /// Holds a catch-up ready until the worker fetches it.
    pub(super) fn tell(&self, body: Payload, shared: &Shared) {
        shared.bodies.keep(&body, now());
        *self.told() = Some(body);
    }

    /// Whether a catch-up waits for being fetched.
    pub(super) fn owes_a_fetch(&self) -> bool {
        self.told().is_some()
    }

    /// The payload that the worker asks for: of what it was just told, or of something before.
    pub(super) fn fetched(&self, digest: Digest, shared: &Shared) -> Option<Payload> {
        // Whatever it asks for, it has heard: what it does not want is not held for it.
        let told = self.told().take();
        told.filter(|body| body.id().digest == digest).or_else(|| shared.bodies.find(digest, now()))
    }

    /// Notes that a payload is being fetched, for as long as the guard lives.
    pub(super) fn fetching(&self) -> Fetching<'_> {
        self.fetching.fetch_add(1, Ordering::Relaxed);
        Fetching(&self.fetching)
    }

    /// Whether it fetches something now.
    pub(super) fn fetches(&self) -> bool {
        self.fetching.load(Ordering::Relaxed) > 0
    }

    /// Counts something that was refused; a peer that goes on like that is sent away.
    pub(super) fn refused(&self, shared: &Shared) {
        if self.rejections.fetch_add(1, Ordering::Relaxed) + 1 >= shared.rejections_max {
            tracing::warn!(worker = %self.from.worker, max = shared.rejections_max, "too much was refused, disconnected");
            self.connection.close(CLOSED, b"too much was refused");
        }
    }

    fn told(&self) -> std::sync::MutexGuard<'_, Option<Payload>> {
        self.told.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
