//! What the process bears of its peers: tuning knobs with defaults that suit a thousand workers.

use serde::{Deserialize, Serialize};

use super::ConfigError;

/// Bounds of the shell. None of them shapes the model.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct ShellLimits {
    /// Connections at once; more are turned away in the handshake. Default 10,240.
    pub connections_max: u32,
    /// Of these, connections of keys that are not admitted; with more the first of them goes. Default 256.
    pub strangers_max: u32,
    /// Handshakes at once; half of them for addresses that are not proven, an eighth for each one that is.
    /// Default 256.
    pub handshakes_max: u32,
    /// Handshakes that are begun in a second; half of them for addresses that are not proven. Default 400.
    pub handshakes_per_second: u32,
    /// Handshakes that are begun in a second from one address, or IPv6 network of 64 bits, when much is
    /// going on. Default 100.
    pub handshakes_per_second_per_address: u32,
    /// Milliseconds that a handshake may take. Default 10,000.
    pub handshake_timeout_ms: u64,
    /// Milliseconds that a peer may take for one frame or one piece of a payload, either way. Default 30,000.
    pub update_timeout_ms: u64,
    /// Bytes of a payload that a peer has to move in a second, either way. Default 8,192.
    pub bytes_per_second_min: u64,
    /// Updates that are in memory at once, from their first word to their verdict; others wait. Default 64.
    pub updates_max: u32,
    /// Catch-ups that are being sent at once; others wait. Default 64.
    pub downloads_max: u32,
    /// Bytes of updates that were broken off, and of catch-ups before the last one, that are kept to be
    /// gone on with. Default 64 MiB for each.
    pub kept_bytes_max: u64,
    /// Milliseconds that such bytes are kept. Default 600,000.
    pub kept_ms: u64,
    /// Things that may be refused on one connection before it is closed. Default 64.
    pub rejections_max: u32,
    /// Messages that wait to be sent to one worker; with more it is disconnected. Default 32.
    pub queue_max: u32,
    /// Messages of all workers that wait for the engine; with more, reading pauses. Default 256.
    pub inbox_max: u32,
}

impl Default for ShellLimits {
    fn default() -> Self {
        Self {
            connections_max: 10_240,
            strangers_max: 256,
            handshakes_max: 256,
            handshakes_per_second: 400,
            handshakes_per_second_per_address: 100,
            handshake_timeout_ms: 10_000,
            update_timeout_ms: 30_000,
            bytes_per_second_min: 8 << 10,
            updates_max: 64,
            downloads_max: 64,
            kept_bytes_max: 64 << 20,
            kept_ms: 600_000,
            rejections_max: 64,
            queue_max: 32,
            inbox_max: 256,
        }
    }
}

impl ShellLimits {
    pub(super) fn check(&self) -> Result<(), ConfigError> {
        let range = |key, value: u64, min: u64, max: u64| match (min..=max).contains(&value) {
            true => Ok(()),
            false => Err(ConfigError::Limit { key, value, min, max }),
        };
        range("connections_max", self.connections_max.into(), 1, 1 << 20)?;
        range("strangers_max", self.strangers_max.into(), 1, 1 << 20)?;
        range("handshakes_max", self.handshakes_max.into(), 2, 1 << 16)?;
        range("handshakes_per_second", self.handshakes_per_second.into(), 2, 1 << 20)?;
        range("handshakes_per_second_per_address", self.handshakes_per_second_per_address.into(), 1, 1 << 20)?;
        range("handshake_timeout_ms", self.handshake_timeout_ms, 10, 3_600_000)?;
        range("update_timeout_ms", self.update_timeout_ms, 10, 24 * 3_600_000)?;
        range("bytes_per_second_min", self.bytes_per_second_min, 1, 1 << 40)?;
        range("updates_max", self.updates_max.into(), 1, 1 << 16)?;
        range("downloads_max", self.downloads_max.into(), 1, 1 << 16)?;
        range("kept_bytes_max", self.kept_bytes_max, 0, 1 << 40)?;
        range("kept_ms", self.kept_ms, 0, 24 * 3_600_000)?;
        range("rejections_max", self.rejections_max.into(), 1, 1 << 20)?;
        // An assignment takes three messages: plan, catch-up and itself.
        range("queue_max", self.queue_max.into(), 4, 1 << 16)?;
        range("inbox_max", self.inbox_max.into(), 1, 1 << 20)
    }
}
