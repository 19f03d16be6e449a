//! One run that is killed again and again, and the same run left in peace.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use packfed_codec::{Seed, Stream};
use packfed_coordinator::audit;
use packfed_coordinator::config::{
    AggregationTable, AuditTable, CoordinatorConfig, CoordinatorFile, LayerTable, ProfileName, ReportingTable,
    RunConfig, RunTable, SelectionTable, TrainingTable,
};
use packfed_coordinator::optimizer::ServerOptimizer;
use packfed_coordinator::pace::Pace;
use packfed_coordinator::server::now;
use packfed_coordinator::strikes::Strikes;
use packfed_protocol::{Digest, Identity};
use serde::Serialize;
use serde_json::{Value, json};
use tokio::sync::watch;
use tokio::task::JoinSet;

use crate::device::{Device, Ledger};
use crate::folder::prepare;
use crate::process::{Launch, Process};

/// What is to be done.
#[derive(Clone, Debug)]
pub(crate) struct Campaign {
    pub(crate) launch: Launch,
    pub(crate) kills: u32,
    pub(crate) workers: u8,
    pub(crate) seed: u64,
}

/// What came of it. There is none where something was lost or counted twice.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Findings {
    pub(crate) workers: u8,
    pub(crate) rounds: u64,
    pub(crate) kills: u32,
    /// Kills before the process listened.
    pub(crate) kills_before_listening: u32,
    /// Restarts that found an open round.
    pub(crate) found_open: u32,
    /// Updates that those rounds had.
    pub(crate) found_updates: u64,
    /// Updates that were acknowledged.
    pub(crate) acknowledged: u64,
    /// Updates that were sent again and were there already.
    pub(crate) known: u64,
    /// Updates whose verdict was lost, and which were not asked for again, as they were there.
    pub(crate) unheard: u64,
    /// Entries of the audit log that were replayed.
    pub(crate) replayed: u64,
    pub(crate) digest: Digest,
    pub(crate) seconds: f64,
}

/// What a whole run came to.
struct Ran {
    report: Value,
    ledgers: Vec<Ledger>,
    kills_before_listening: u32,
    found: Vec<u64>,
    /// From the start of its last process until that listened.
    startup_ms: u64,
    took_ms: u64,
}

impl Campaign {
    /// Runs both runs and compares them; `killed` is told the number of kills so far.
    pub(crate) async fn run(&self, killed: impl Fn(u32)) -> Result<Findings> {
        let began = now();
        let peaceful = self.ran(0, u64::MAX, &killed).await.context("the undisturbed run")?.0;
        // From an instant after the start to some rounds after it.
        let round_ms = peaceful.took_ms.saturating_sub(peaceful.startup_ms) / self.rounds();
        let span_ms = (peaceful.startup_ms + 3 * round_ms).max(20);
        let (killed, folder) = self.ran(self.kills, span_ms, &killed).await.context("the killed run")?;
        self.compare(&peaceful, &killed)?;
        let config = CoordinatorConfig::load(&folder.path().join("coordinator.toml"))?;
        let replayed = audit::replay(&config.plan, &folder.path().join("audit"), |_| ())?;
        ensure!(
            json!(replayed.digest) == killed.report["digest"],
            "the audit log leads to {}, the run to {}",
            replayed.digest,
            killed.report["digest"]
        );
        let count =
            |of: fn(&Ledger) -> &BTreeSet<u64>| -> u64 { killed.ledgers.iter().map(|l| of(l).len() as u64).sum() };
        let [acknowledged, known] = [count(|ledger| &ledger.acknowledged), count(|ledger| &ledger.known)];
        Ok(Findings {
            workers: self.workers,
            rounds: self.rounds(),
            kills: self.kills,
            kills_before_listening: killed.kills_before_listening,
            found_open: u32::try_from(killed.found.len())?,
            found_updates: killed.found.iter().sum(),
            acknowledged,
            known,
            unheard: self.rounds() * u64::from(self.workers) - acknowledged - known,
            replayed: replayed.entries,
            digest: replayed.digest,
            seconds: now().since(began) as f64 / 1e3,
        })
    }

    /// More rounds than the lives can take, so that every kill falls into the run.
    fn rounds(&self) -> u64 {
        u64::from(self.kills.max(1)) * 4
    }

    /// Every round has every worker's update exactly once, and the model is the same.
    fn compare(&self, peaceful: &Ran, killed: &Ran) -> Result<()> {
        for report in [&peaceful.report, &killed.report] {
            ensure!(report["stage"] == "finished" && report["version"] == json!(self.rounds()), "{report}");
        }
        for (number, ledger) in (1..).zip(&killed.ledgers) {
            for round in 1..=self.rounds() {
                ensure!(ledger.sent.contains(&round), "worker {number} was not asked for its update of round {round}");
            }
        }
        let digests: BTreeSet<_> =
            killed.ledgers.iter().map(|ledger| ledger.finished.map(|(_, digest)| digest)).collect();
        ensure!(digests.len() == 1, "the workers end with {} models", digests.len());
        ensure!(
            peaceful.report["digest"] == killed.report["digest"],
            "the digest is {}, undisturbed it is {}",
            killed.report["digest"],
            peaceful.report["digest"]
        );
        Ok(())
    }

    /// A whole run in a folder of its own.
    async fn ran(&self, kills: u32, span_ms: u64, killed: &impl Fn(u32)) -> Result<(Ran, tempfile::TempDir)> {
        let folder = tempfile::tempdir()?;
        let config = self.prepare(folder.path())?;
        let plan = CoordinatorConfig::load(&config)?.plan;
        let (told, whereabouts) = watch::channel(None);
        let mut devices = JoinSet::new();
        for n in 1..=self.workers {
            let device = Device::new(worker(n), Arc::clone(&plan), coordinator().id());
            let whereabouts = whereabouts.clone();
            devices.spawn(async move { (n, device.run(whereabouts).await) });
        }
        let began = now();
        let mut lives = Lives {
            campaign: self,
            config,
            told,
            life: 0,
            startup_ms: 0,
            kills_before_listening: 0,
            found: Vec::new(),
        };
        let ledgers = async {
            let mut ledgers = BTreeMap::new();
            while let Some(ended) = devices.join_next().await {
                let (n, ledger) = ended?;
                ledgers.insert(n, ledger.with_context(|| format!("worker {n}"))?);
            }
            anyhow::Ok(ledgers.into_values().collect())
        };
        let serve = async {
            let mut stream = Seed::from_number(self.seed).derive("crash-points/moments", &[]).stream();
            for number in 1..=kills {
                lives.live_and_die(&mut stream, span_ms).await.with_context(|| format!("kill {number}"))?;
                killed(number);
            }
            lives.live().await
        };
        let (ledgers, report): (Vec<Ledger>, Value) = tokio::try_join!(ledgers, serve)?;
        let Lives { kills_before_listening, found, startup_ms, .. } = lives;
        Ok((Ran { report, ledgers, kills_before_listening, found, startup_ms, took_ms: now().since(began) }, folder))
    }

    /// Writes the files that a coordinator needs; returns its configuration's path.
    fn prepare(&self, folder: &Path) -> Result<PathBuf> {
        let port = std::net::UdpSocket::bind((Ipv4Addr::LOCALHOST, 0))?.local_addr()?.port();
        let mut file = file(u32::from(self.workers), self.rounds(), SocketAddr::from((Ipv4Addr::LOCALHOST, port)));
        file.audit = Some(AuditTable { directory: "audit".into(), segment_bytes_max: 4 << 20, segments_max: 0 });
        prepare(folder, &file, &coordinator(), (1..=self.workers).map(|n| worker(n).id()))
    }
}

/// The lives of one coordinator.
struct Lives<'a> {
    campaign: &'a Campaign,
    config: PathBuf,
    told: watch::Sender<Option<(SocketAddr, u64)>>,
    life: u64,
    startup_ms: u64,
    kills_before_listening: u32,
    found: Vec<u64>,
}

impl Lives<'_> {
    /// Starts it and kills it at a random moment within `span_ms`.
    async fn live_and_die(&mut self, stream: &mut Stream, span_ms: u64) -> Result<()> {
        let moment = tokio::time::sleep(Duration::from_secs_f64(stream.unit() * span_ms as f64 / 1e3));
        tokio::pin!(moment);
        let mut process = Process::start(&self.campaign.launch, &self.config)?;
        let listening = tokio::select! {
            listening = process.listening() => Some(listening?),
            () = &mut moment => None,
        };
        match listening {
            Some(listening) => {
                self.tell(listening.address, listening.resumed);
                moment.await;
            }
            None => self.kills_before_listening += 1,
        }
        ensure!(process.kill().await?, "the run was over before its kills were");
        Ok(())
    }

    /// Starts it and lets it finish.
    async fn live(&mut self) -> Result<Value> {
        let began = now();
        let mut process = Process::start(&self.campaign.launch, &self.config)?;
        let listening = process.listening().await?;
        self.startup_ms = now().since(began);
        self.tell(listening.address, listening.resumed);
        process.report().await
    }

    fn tell(&mut self, address: SocketAddr, resumed: Option<u64>) {
        self.life += 1;
        self.found.extend(resumed);
        self.told.send_replace(Some((address, self.life)));
    }
}

fn coordinator() -> Identity {
    Identity::from_seed([0xc0; 32])
}

fn worker(n: u8) -> Identity {
    Identity::from_seed([n; 32])
}

/// Two layers, 1,056 words: some pages of the store, and quick to train on.
fn file(workers: u32, rounds: u64, listen: SocketAddr) -> CoordinatorFile {
    let layer = |name: &str, rows, cols| LayerTable {
        name: name.to_owned(),
        rows,
        cols,
        block: 8,
        residual: 24,
        gain_exponent: 4,
        rate_exponent: 0,
    };
    let run = RunConfig {
        run: RunTable {
            name: "crash points".to_owned(),
            seed: 1,
            base: Digest([1; 32]),
            rounds,
            examples_max: 100,
            profile: ProfileName::Plain,
            levels: 8.0,
            history: 4,
        },
        layers: vec![layer("a", 256, 256), layer("b", 32, 64)],
        training: TrainingTable::adam(10, 8, 0.1),
        selection: SelectionTable::of(workers, workers, 3_600_000),
        pace: Pace::DEFAULT,
        strikes: Strikes::DEFAULT,
        buffered: None,
        reporting: ReportingTable { goal: workers, min: workers, timeout_ms: 3_600_000, over_selection: 0 },
        aggregation: AggregationTable::default(),
        server_optimizer: ServerOptimizer::FedAvgM { rate: 1.0, momentum: 0.5 },
    };
    CoordinatorFile::new(listen, PathBuf::from("coordinator.key"), PathBuf::from("coordinator.redb"), run)
}
