//! Workers that are admitted and checked in, and wait for one more.

use std::sync::Arc;
use std::time::Duration;

use anyhow::{Result, ensure};
use serde::Serialize;
use serde_json::json;
use tokio::time::Instant;

use crate::device::Device;
use crate::fleet::{Fleet, together};
use crate::operator;
use crate::process::Launch;
use crate::run;
use crate::usage::Usage;

/// What is to be measured.
#[derive(Clone, Debug)]
pub(crate) struct Idle {
    pub(crate) coordinator: Launch,
    pub(crate) connections: u32,
    /// How long they are held before anything is asked of them.
    pub(crate) hold: Duration,
}

/// What came of it.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Findings {
    pub(crate) connections: u32,
    /// From the first handshake to the last check-in, in seconds.
    pub(crate) connecting_seconds: f64,
    /// How long they were held, in seconds.
    pub(crate) held_seconds: f64,
    /// Cores that the coordinator kept busy meanwhile.
    pub(crate) held_cores: f64,
    /// Bytes resident when the coordinator listened.
    pub(crate) listening: u64,
    /// Bytes resident when they had been held.
    pub(crate) held: u64,
    /// The difference, a connection.
    pub(crate) per_connection: u64,
    /// Most bytes that were ever resident.
    pub(crate) peak: u64,
    /// From one more check-in, which opens the round, to the last worker's assignment, in milliseconds.
    pub(crate) assigned_ms: f64,
}

impl Idle {
    /// Measures; every connection has to be there at the end.
    pub(crate) async fn run(&self) -> Result<Findings> {
        let folder = tempfile::tempdir()?;
        let all = self.connections + 1;
        let mut identities = run::workers(all);
        let file = run::file(all, 1, 25);
        let serving = run::serve(&self.coordinator, folder.path(), &file, &identities).await?;
        let process = serving.process.id()?;
        let listening = Usage::of(process)?;
        let key = run::coordinator().id();
        let last = identities.split_off(self.connections as usize);

        let (fleet, began) = (Fleet::new(all)?, Instant::now());
        let connections = fleet.connect(&identities, serving.address, key).await?;
        let open = |(identity, connection)| Device::open(identity, Arc::clone(&serving.plan), connection);
        let devices = together(identities.into_iter().zip(connections).map(open)).await?;
        let connecting = began.elapsed();

        let (before, began) = (Usage::of(process)?, Instant::now());
        // Not a wait for anything: what holding takes is measured.
        tokio::time::sleep(self.hold).await;
        let (held, held_for) = (Usage::of(process)?, began.elapsed());
        let status = operator::status(serving.address).await?;
        ensure!(status["idle"] == json!(self.connections), "{} are connected, idle are {status}", self.connections);

        let connections = fleet.connect(&last, serving.address, key).await?;
        let began = Instant::now();
        let last = together(last.into_iter().zip(connections).map(open)).await?;
        let assigned = devices.into_iter().chain(last).map(|mut device| async move { device.assigned().await });
        together(assigned).await?;
        let assigned = began.elapsed();
        let peak = Usage::of(process)?.peak;
        ensure!(serving.process.kill().await?, "the coordinator ended by itself");
        Ok(Findings {
            connections: self.connections,
            connecting_seconds: connecting.as_secs_f64(),
            held_seconds: held_for.as_secs_f64(),
            held_cores: held.cpu.saturating_sub(before.cpu).as_secs_f64() / held_for.as_secs_f64(),
            listening: listening.resident,
            held: held.resident,
            per_connection: held.resident.saturating_sub(listening.resident) / u64::from(self.connections),
            peak,
            assigned_ms: assigned.as_secs_f64() * 1e3,
        })
    }
}
