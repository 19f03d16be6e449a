//! `[metrics]`: where Prometheus may ask.

use std::net::SocketAddr;

use serde::{Deserialize, Serialize};

/// Without this table nobody may.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct MetricsTable {
    /// TCP address of the HTTP port, for the operator's own network: whoever reaches it may read.
    pub listen: SocketAddr,
}
