//! What the server counts and measures of itself, and how Prometheus asks for it.
//!
//! What happened in rounds is the engine's to count; the owner shows its last status here and a scrape reads
//! that, so a scrape waits for nobody. What only the shell knows is counted where it happens. Names, types
//! and meanings are in `METRICS.md`, and a test holds them to it.
//!
//! `prometheus-client` rather than `metrics`: a registry is a value, so two servers in one process do not
//! count into one another, and the exposition comes from the format's own maintainers.

mod exposition;
mod http;
mod memory;

use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::{Histogram, exponential_buckets};

pub(super) use http::{bind, serve};

use crate::status::Status;

/// Everything that is counted outside of the engine.
#[derive(Debug)]
pub(super) struct Metrics {
    /// Whether anybody can ask: otherwise nothing is shown here.
    served: bool,
    shown: Mutex<Option<Shown>>,
    pub(super) connections: Gauge,
    pub(super) connections_taken: Counter,
    pub(super) connections_refused: Counter,
    /// Seconds from the last byte of an update to its verdict.
    pub(super) verdict_seconds: Histogram,
    /// Seconds that a group of writes takes until it is durable.
    pub(super) journal_seconds: Histogram,
    pub(super) journal_writes: Counter,
    pub(super) journal_bytes: Counter,
    pub(super) audit_bytes: Gauge,
}

/// What the owner shows: nothing in it is newer than the store.
#[derive(Clone, Debug)]
pub(super) struct Shown {
    pub(super) status: Status,
    /// Workers that are connected.
    pub(super) connected: usize,
}

impl Metrics {
    pub(super) fn new(served: bool) -> Self {
        // 0.25 ms to 16 s, each twice the one before.
        let seconds = || Histogram::new(exponential_buckets(0.000_25, 2.0, 17));
        Self {
            served,
            shown: Mutex::new(None),
            connections: Gauge::default(),
            connections_taken: Counter::default(),
            connections_refused: Counter::default(),
            verdict_seconds: seconds(),
            journal_seconds: seconds(),
            journal_writes: Counter::default(),
            journal_bytes: Counter::default(),
            audit_bytes: Gauge::default(),
        }
    }

    /// Shows how things are, if anybody can ask.
    pub(super) fn show(&self, shown: impl FnOnce() -> Shown) {
        if self.served {
            *self.shown.lock().unwrap_or_else(PoisonError::into_inner) = Some(shown());
        }
    }

    fn shown(&self) -> Option<Shown> {
        self.shown.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Notes a group of writes that became durable.
    pub(super) fn journalled(&self, took: Duration, writes: usize, bytes: usize) {
        self.journal_seconds.observe(took.as_secs_f64());
        self.journal_writes.inc_by(writes as u64);
        self.journal_bytes.inc_by(bytes as u64);
    }
}
