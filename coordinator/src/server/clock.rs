//! The one place that reads a clock.

use std::time::{SystemTime, UNIX_EPOCH};

use packfed_protocol::Timestamp;

/// Milliseconds since the Unix epoch.
#[expect(clippy::disallowed_methods, reason = "the shell reads the clock for the engine")]
#[must_use]
pub fn now() -> Timestamp {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    Timestamp(u64::try_from(since.as_millis()).unwrap_or(u64::MAX))
}
