//! A worker's report that it is ready, and what it holds.

use serde::{Deserialize, Serialize};

use crate::id::{Digest, RunId, Version};

/// Ready for work.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct CheckIn {
    /// The run it wants to take part in.
    pub run: RunId,
    /// The version of its replica.
    pub version: Version,
    /// The digest of its replica's state.
    pub digest: Digest,
    /// How many local examples it has.
    pub examples: u32,
    /// Whether it already holds the run's plan.
    pub planned: bool,
}
