//! A picture of a run for people and scripts: what `coordinator status` shows and `--json` prints.

use packfed_protocol::{Digest, RunId};
use serde::Serialize;

use crate::counters::Counters;
use crate::event::Summary;

/// Where a run stands.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Status {
    /// The run.
    pub run: RunId,
    /// Its phase.
    #[serde(flatten)]
    pub stage: StatusStage,
    /// Whether no further round is opened.
    pub paused: bool,
    /// Commits so far.
    pub version: u64,
    /// Commits after which it is finished.
    pub rounds: u64,
    /// Digest of the current model.
    pub digest: Digest,
    /// Enrolled workers.
    pub enrolled: usize,
    /// Workers that are connected and free.
    pub idle: usize,
    /// The last committed round.
    pub last: Option<Summary>,
    /// What happened to everything that arrived, since this process began.
    pub counters: Counters,
}

/// The phase of a run.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(tag = "stage", rename_all = "lowercase")]
pub enum StatusStage {
    /// Workers are checking in.
    Selecting {
        /// How many are waited for.
        waiting_for: u32,
    },
    /// Drawn workers train and report.
    Reporting {
        /// The open round.
        round: u64,
        /// Workers drawn.
        cohort: usize,
        /// Updates accepted.
        reports: u32,
    },
    /// The rule is at work on the round's updates.
    Aggregating {
        /// The round.
        round: u64,
        /// Updates accepted.
        reports: u32,
    },
    /// Of a buffered plan: workers train and report whenever they can.
    Buffering {
        /// The latest round with an assignment; 0 before the first.
        round: u64,
        /// Workers with an assignment and no update yet.
        at_work: usize,
        /// Updates gathered.
        reports: u32,
        /// How many are waited for.
        waiting_for: u32,
    },
    /// Every round is committed.
    Finished,
}
