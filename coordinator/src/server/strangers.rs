//! Connections of keys that are not admitted: enough that newcomers can enrol, few enough that nobody fills
//! the house with keys that anyone can make. Whoever came first goes first: enrolling takes a moment.

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

use super::CLOSED;

pub(super) struct Strangers {
    max: usize,
    /// By the number of the connection, which is the order in which they came.
    connections: Mutex<BTreeMap<u64, quinn::Connection>>,
}

impl Strangers {
    pub(super) fn new(max: usize) -> Self {
        Self { max, connections: Mutex::default() }
    }

    /// One came; with too many the first of them is sent away.
    pub(super) fn enter(&self, number: u64, connection: quinn::Connection) {
        let mut connections = self.lock();
        connections.insert(number, connection);
        while connections.len() > self.max {
            if let Some((_, first)) = connections.pop_first() {
                tracing::debug!(max = self.max, "a stranger makes room");
                first.close(CLOSED, b"too many strangers");
            }
        }
    }

    /// One left, or is a stranger no more.
    pub(super) fn leave(&self, number: u64) {
        self.lock().remove(&number);
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<u64, quinn::Connection>> {
        self.connections.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
