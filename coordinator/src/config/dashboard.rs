//! `[dashboard]`: where a person may look.

use std::net::{Ipv4Addr, SocketAddr};

use serde::{Deserialize, Serialize};

/// Without this table nobody may.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DashboardTable {
    /// TCP address of the page. Default this machine alone; whoever reaches another one may read.
    #[serde(default = "loopback")]
    pub listen: SocketAddr,
}

const fn loopback() -> SocketAddr {
    SocketAddr::new(std::net::IpAddr::V4(Ipv4Addr::LOCALHOST), PORT)
}

/// Where the page is unless told otherwise.
const PORT: u16 = 9_465;
