//! What the operator asks of the coordinator beside its status.

use serde::{Deserialize, Serialize};

use crate::id::{Version, WorkerId};

/// An order; the answer is a JSON document, as to a status request.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Order {
    /// Tell of enrolled workers, in the order of their keys: of the first that come after this key.
    List(WorkerId),
    /// A worker may take part.
    Admit(WorkerId),
    /// A worker may not take part until it is admitted again.
    Suspend(WorkerId),
    /// A key may never take part again, unless it is admitted.
    Revoke(WorkerId),
    /// Freeze the global model as a release.
    Release {
        /// Which version; none is the current one.
        version: Option<Version>,
        /// What is said of it.
        notes: String,
    },
}
