//! What the coordinator says of itself: the run, and what only the shell knows.

use serde::Serialize;

use super::traffic::{Bytes, Traffic};
use crate::status::Status;

/// The status JSON.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Report {
    /// Whether a process serves the run now; otherwise it has ended, or a store was read.
    pub serving: bool,
    /// The run.
    #[serde(flatten)]
    pub status: Status,
    /// Bytes of frames since the process began.
    #[serde(flatten)]
    pub bytes: Bytes,
}

impl Report {
    /// Of a process that serves.
    pub(super) fn serving(status: Status, traffic: &Traffic) -> Self {
        Self { serving: true, status, bytes: traffic.bytes() }
    }

    /// Of a store that nobody serves.
    #[must_use]
    pub fn stored(status: Status) -> Self {
        Self { serving: false, status, bytes: Bytes::default() }
    }

    /// One line of JSON.
    ///
    /// # Panics
    /// Never: every field is a number, a text, or a map with text keys.
    #[must_use]
    pub fn to_json(&self) -> String {
        serde_json::to_string(self).expect("numbers and texts are JSON")
    }
}
