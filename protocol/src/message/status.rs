//! What the coordinator tells about itself.

use serde::{Deserialize, Serialize};

/// A report for people and dashboards; bounded by its frame alone.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Status {
    /// A JSON document; what stands in it is the coordinator's business.
    pub json: String,
}
