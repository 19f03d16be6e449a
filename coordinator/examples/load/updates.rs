//! Rounds in which all workers send at once, and the same bytes over bare QUIC in turn with them.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use packfed_coordinator::config::ShellLimits;
use packfed_coordinator::plan::RunPlan;
use packfed_protocol::{Message, Signed, WORD_BYTES};
use serde::Serialize;
use serde_json::json;
use tokio::sync::Semaphore;
use tokio::time::Instant;

use crate::bare::{self, Running};
use crate::costs::Costs;
use crate::device::{Device, Uploaded, upload};
use crate::fleet::{Fleet, together};
use crate::operator;
use crate::process::Launch;
use crate::run::{self, LAYER_WORDS};
use crate::spread::{Spread, quantile};
use crate::usage::Usage;

/// What is to be measured.
#[derive(Clone, Debug)]
pub(crate) struct Updates {
    pub(crate) coordinator: Launch,
    /// The bare server, if it is to have a process of its own.
    pub(crate) bare: Option<Launch>,
    pub(crate) workers: u32,
    pub(crate) rounds: u32,
    pub(crate) layers: u32,
    pub(crate) limits: ShellLimits,
}

/// What came of it. A megabyte has 10^6 bytes.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Findings {
    pub(crate) workers: u32,
    pub(crate) rounds: u32,
    /// Bytes of the words of one update.
    pub(crate) update_bytes: u64,
    pub(crate) cores: usize,
    /// Updates that were accepted, as the coordinator counts.
    pub(crate) accepted: u64,
    /// Updates a second, from the first byte of a round to its last verdict.
    pub(crate) updates_per_second: Spread,
    pub(crate) mb_per_second: Spread,
    pub(crate) verdict_ms: Latency,
    /// The same bytes over QUIC alone.
    pub(crate) bare: Vec<BareRate>,
    /// Throughput over that of the fastest of these, round by round.
    pub(crate) of_bare: Spread,
    pub(crate) memory: Memory,
    pub(crate) cpu: Cpu,
}

/// From the last byte that was handed to QUIC to the verdict.
#[derive(Clone, Copy, Debug, Serialize)]
pub(crate) struct Latency {
    pub(crate) p50: f64,
    pub(crate) p99: f64,
}

/// What QUIC alone moved.
#[derive(Clone, Copy, Debug, Serialize)]
pub(crate) struct BareRate {
    /// Streams that were sent at once.
    pub(crate) at_once: u32,
    pub(crate) mb_per_second: Spread,
    /// CPU time of its server, milliseconds an update.
    pub(crate) cpu_ms: Option<f64>,
}

/// The coordinator's memory, in bytes.
#[derive(Clone, Copy, Debug, Serialize)]
pub(crate) struct Memory {
    /// The sum of a round: 8 bytes a lane of every word.
    pub(crate) accumulator: u64,
    /// Three times that, and 64 KiB a connection.
    pub(crate) goal: u64,
    /// Resident when it listens.
    pub(crate) listening: u64,
    /// Of that, no file's.
    pub(crate) listening_anonymous: u64,
    /// Resident when all workers are there.
    pub(crate) connected: u64,
    /// Most that was ever resident.
    pub(crate) peak: u64,
    /// Of that, what came after it listened.
    pub(crate) peak_beyond_listening: u64,
}

/// The coordinator's CPU time during rounds, and where it went.
#[derive(Clone, Copy, Debug, Serialize)]
pub(crate) struct Cpu {
    /// Milliseconds an update.
    pub(crate) ms: f64,
    /// Cores that were busy with it.
    pub(crate) cores: f64,
    /// Of the workers, which share the cores, milliseconds an update.
    pub(crate) workers_ms: f64,
    /// What the steps cost on a core of their own.
    pub(crate) costs: Costs,
    pub(crate) percent: Percent,
}

/// Shares of the coordinator's CPU time.
#[derive(Clone, Copy, Debug, Serialize)]
pub(crate) struct Percent {
    /// Of QUIC with all that is below it, as its bare server took it.
    pub(crate) quic: Option<f64>,
    /// Of that, its AEAD.
    pub(crate) quic_aead: f64,
    pub(crate) signature: f64,
    pub(crate) hash: f64,
    pub(crate) journal: f64,
    pub(crate) fold: f64,
    /// Everything else, QUIC included where it is not known.
    pub(crate) rest: f64,
}

/// One go of something: how long it took, and CPU time of the process that served it.
#[derive(Clone, Copy, Debug)]
struct Go {
    took: Duration,
    cpu: Duration,
    /// Of this process, which is all workers.
    own_cpu: Duration,
}

/// One round, and the same bytes bare.
struct Measured {
    round: Go,
    uploaded: Vec<Uploaded>,
    bare: Vec<Go>,
}

/// What a round is measured with.
struct Stage {
    coordinator: u32,
    bare: Option<u32>,
    bare_connections: Vec<quinn::Connection>,
    widths: Vec<u32>,
}

impl Updates {
    /// Measures; every update has to be accepted.
    pub(crate) async fn run(&self) -> Result<Findings> {
        let folder = tempfile::tempdir()?;
        let identities = run::workers(self.workers);
        let mut file = run::file(self.workers, self.rounds, self.layers);
        file.limits = self.limits;
        let serving = run::serve(&self.coordinator, folder.path(), &file, &identities).await?;
        let process = serving.process.id()?;
        let listening = Usage::of(process)?;
        let key = run::coordinator().id();

        let fleet = Fleet::new(self.workers)?;
        let connections = fleet.connect(&identities, serving.address, key).await?;
        let open = |(identity, connection)| Device::open(identity, Arc::clone(&serving.plan), connection);
        let mut devices = together(identities.clone().into_iter().zip(connections).map(open)).await?;
        let connected = Usage::of(process)?;

        let (bare, address) = Running::start(self.bare.as_ref(), folder.path()).await?;
        let bare_fleet = Fleet::new(self.workers)?;
        let bare_connections = bare_fleet.connect(&identities, address, key).await?;
        let stage = Stage { coordinator: process, bare: bare.id()?, bare_connections, widths: self.widths() };

        let (mut measured, mut sample) = (Vec::new(), Vec::new());
        for round in 1..=self.rounds {
            let updates;
            (devices, updates) = prepared(devices).await.with_context(|| format!("round {round}"))?;
            measured.push(stage.measure(&devices, &updates).await.with_context(|| format!("round {round}"))?);
            sample = updates;
            if round < self.rounds {
                devices = checked_in(devices).await?;
            }
        }
        let used = Usage::of(process)?;
        let accepted = self.accepted(&operator::status(serving.address).await?)?;
        // The last model is not fetched: nobody measures it.
        drop(devices);
        fleet.close().await;
        let report = serving.process.report().await?;
        ensure!(report["stage"] == "finished", "the run is not over: {report}");
        bare_fleet.close().await;
        bare.stop().await?;

        let costs = self.costs(&sample, &serving.plan, folder.path()).await?;
        let memory = self.memory(&listening, &connected, &used);
        Ok(self.findings(accepted, &measured, memory, costs))
    }

    async fn costs(&self, updates: &[Arc<Message>], plan: &Arc<RunPlan>, folder: &Path) -> Result<Costs> {
        let signed = updates.iter().take(self.limits.updates_max as usize).filter_map(|update| match &**update {
            Message::Update(signed) => Some(signed.clone()),
            _ => None,
        });
        let (sample, plan, folder) = (signed.collect::<Vec<Signed>>(), Arc::clone(plan), folder.to_owned());
        tokio::task::spawn_blocking(move || Costs::measure(&sample, &plan, &folder)).await?
    }

    fn update_bytes(&self) -> u64 {
        u64::from(self.layers * LAYER_WORDS) * WORD_BYTES
    }

    /// Streams that the bare server is sent at once: as many as updates are taken at once, and all.
    fn widths(&self) -> Vec<u32> {
        let mut widths = vec![self.limits.updates_max.min(self.workers), self.workers];
        widths.dedup();
        widths
    }

    /// Updates that were accepted, which has to be all.
    fn accepted(&self, status: &serde_json::Value) -> Result<u64> {
        let (all, counters) = (u64::from(self.workers) * u64::from(self.rounds), &status["counters"]);
        ensure!(counters["accepted"] == json!(all), "{all} updates were sent, the coordinator counts {counters}");
        Ok(all)
    }

    fn memory(&self, listening: &Usage, connected: &Usage, used: &Usage) -> Memory {
        let accumulator = u64::from(self.layers * LAYER_WORDS) * 14 * 8;
        Memory {
            accumulator,
            goal: 3 * accumulator + (u64::from(self.workers) << 16),
            listening: listening.resident,
            listening_anonymous: listening.anonymous,
            connected: connected.resident,
            peak: used.peak,
            peak_beyond_listening: used.peak.saturating_sub(listening.resident),
        }
    }

    fn findings(&self, accepted: u64, measured: &[Measured], memory: Memory, costs: Costs) -> Findings {
        let all = f64::from(self.workers);
        let megabytes = all * self.update_bytes() as f64 / 1e6;
        let rate = |go: &Go| megabytes / go.took.as_secs_f64();
        let rates = |of: &dyn Fn(&Measured) -> f64| Spread::of(measured.iter().map(of).collect());
        let per_update = |of: &dyn Fn(&Measured) -> Duration| {
            measured.iter().map(|round| of(round).as_secs_f64()).sum::<f64>() * 1e3 / (all * measured.len() as f64)
        };
        let widths = self.widths();
        let bare: Vec<BareRate> = (0..widths.len())
            .map(|n| BareRate {
                at_once: widths[n],
                mb_per_second: rates(&|round| rate(&round.bare[n])),
                cpu_ms: self.bare.is_some().then(|| per_update(&|round| round.bare[n].cpu)),
            })
            .collect();
        let fastest = (0..bare.len())
            .max_by(|&a, &b| f64::total_cmp(&bare[a].mb_per_second.median, &bare[b].mb_per_second.median))
            .unwrap_or(0);
        let took = measured.iter().map(|round| round.round.took.as_secs_f64()).sum::<f64>();
        let ms = per_update(&|round| round.round.cpu);
        let cpu = Cpu {
            ms,
            cores: ms * all * measured.len() as f64 / 1e3 / took,
            workers_ms: per_update(&|round| round.round.own_cpu),
            costs,
            percent: Percent::of(ms, bare[fastest].cpu_ms, &costs),
        };
        Findings {
            workers: self.workers,
            rounds: self.rounds,
            update_bytes: self.update_bytes(),
            cores: std::thread::available_parallelism().map_or(1, usize::from),
            accepted,
            updates_per_second: rates(&|round| all / round.round.took.as_secs_f64()),
            mb_per_second: rates(&|round| rate(&round.round)),
            verdict_ms: Latency::of(measured.iter().flat_map(|round| &round.uploaded)),
            of_bare: rates(&|round| rate(&round.round) / rate(&round.bare[fastest])),
            bare,
            memory,
            cpu,
        }
    }
}

impl Stage {
    /// One round with updates that are ready, and then the same bytes bare.
    async fn measure(&self, devices: &[Device], updates: &[Arc<Message>]) -> Result<Measured> {
        let pairs = devices.iter().zip(updates);
        let uploads = pairs.map(|(device, update)| {
            let (connection, update) = (device.connection().clone(), Arc::clone(update));
            async move { upload(&connection, &update).await }
        });
        let (round, uploaded) = timed(Some(self.coordinator), together(uploads)).await?;
        let mut bare = Vec::new();
        for &width in &self.widths {
            bare.push(timed(self.bare, self.bare(width as usize, updates)).await?.0);
        }
        Ok(Measured { round, uploaded, bare })
    }

    async fn bare(&self, width: usize, updates: &[Arc<Message>]) -> Result<()> {
        let permits = Arc::new(Semaphore::new(width));
        let sends = self.bare_connections.iter().zip(updates).map(|(connection, update)| {
            let (connection, update, permits) = (connection.clone(), Arc::clone(update), Arc::clone(&permits));
            async move {
                let _permit = permits.acquire().await?;
                bare::send(&connection, &update).await
            }
        });
        together(sends).await.context("the bare server")?;
        Ok(())
    }
}

impl Latency {
    fn of<'a>(uploads: impl Iterator<Item = &'a Uploaded>) -> Self {
        let mut ms: Vec<f64> =
            uploads.map(|upload| upload.answered.duration_since(upload.sent).as_secs_f64() * 1e3).collect();
        ms.sort_by(f64::total_cmp);
        Self { p50: quantile(&ms, 0.5), p99: quantile(&ms, 0.99) }
    }
}

impl Percent {
    fn of(ms: f64, quic_ms: Option<f64>, costs: &Costs) -> Self {
        let share = |cost: f64| 100.0 * cost / ms;
        let known = quic_ms.unwrap_or(0.0) + costs.signature + costs.hash + costs.journal + costs.fold;
        Self {
            quic: quic_ms.map(share),
            quic_aead: share(costs.aead),
            signature: share(costs.signature),
            hash: share(costs.hash),
            journal: share(costs.journal),
            fold: share(costs.fold),
            rest: share(ms - known),
        }
    }
}

/// How long something took, and what it took of a process's CPU time.
async fn timed<T>(process: Option<u32>, body: impl Future<Output = Result<T>>) -> Result<(Go, T)> {
    let cpu = || Ok::<_, anyhow::Error>(process.map(Usage::of).transpose()?.map_or(Duration::ZERO, |usage| usage.cpu));
    let own_cpu = || Ok::<_, anyhow::Error>(Usage::of(std::process::id())?.cpu);
    let (before, own_before, began) = (cpu()?, own_cpu()?, Instant::now());
    let done = body.await?;
    let took = began.elapsed();
    let (cpu, own_cpu) = (cpu()?.saturating_sub(before), own_cpu()?.saturating_sub(own_before));
    Ok((Go { took, cpu, own_cpu }, done))
}

/// Every device with its assignment's update, signed and ready.
async fn prepared(devices: Vec<Device>) -> Result<(Vec<Device>, Vec<Arc<Message>>)> {
    // One at a time, so that connections are kept alive meanwhile.
    let permits = Arc::new(Semaphore::new(1));
    let prepare = |mut device: Device| {
        let permits = Arc::clone(&permits);
        async move {
            let assignment = device.assigned().await?;
            let _permit = permits.acquire_owned().await?;
            tokio::task::spawn_blocking(move || {
                let update = Arc::new(Message::Update(device.update(&assignment)?));
                Ok((device, update))
            })
            .await?
        }
    };
    Ok(together(devices.into_iter().map(prepare)).await?.into_iter().unzip())
}

async fn checked_in(devices: Vec<Device>) -> Result<Vec<Device>> {
    let check_in = |mut device: Device| async move {
        device.check_in().await?;
        Ok(device)
    };
    together(devices.into_iter().map(check_in)).await
}
