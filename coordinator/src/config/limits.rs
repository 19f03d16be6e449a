//! What the process bears of its peers: tuning knobs with defaults that suit a thousand workers.

use serde::{Deserialize, Serialize};

use super::ConfigError;

/// Bounds of the shell. None of them shapes the model.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct ShellLimits {
    /// Connections at once; more are turned away in the handshake. Default 1,024.
    pub connections_max: u32,
    /// Milliseconds that a peer may take for one frame, either way. Default 30,000.
    pub update_timeout_ms: u64,
    /// Updates whose payload is being read at once; others wait. Default 64.
    pub updates_max: u32,
    /// Messages that wait to be sent to one worker; with more it is disconnected. Default 32.
    pub queue_max: u32,
    /// Messages of all workers that wait for the engine; with more, reading pauses. Default 256.
    pub inbox_max: u32,
}

impl Default for ShellLimits {
    fn default() -> Self {
        Self { connections_max: 1024, update_timeout_ms: 30_000, updates_max: 64, queue_max: 32, inbox_max: 256 }
    }
}

impl ShellLimits {
    pub(super) fn check(&self) -> Result<(), ConfigError> {
        let range = |key, value: u64, min: u64, max: u64| match (min..=max).contains(&value) {
            true => Ok(()),
            false => Err(ConfigError::Limit { key, value, min, max }),
        };
        range("connections_max", self.connections_max.into(), 1, 1 << 20)?;
        range("update_timeout_ms", self.update_timeout_ms, 10, 24 * 3_600_000)?;
        range("updates_max", self.updates_max.into(), 1, 1 << 16)?;
        // An assignment takes three messages: plan, catch-up and itself.
        range("queue_max", self.queue_max.into(), 4, 1 << 16)?;
        range("inbox_max", self.inbox_max.into(), 1, 1 << 20)
    }
}
