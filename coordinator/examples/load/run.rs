//! The run that is served: its configuration, its keys, and the process that serves it.

use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::{Result, ensure};
use packfed_coordinator::config::{
    AggregationTable, CoordinatorConfig, CoordinatorFile, LayerTable, ProfileName, ReportingTable, RunConfig, RunTable,
    SelectionTable, TrainingTable,
};
use packfed_coordinator::optimizer::ServerOptimizer;
use packfed_coordinator::pace::Pace;
use packfed_coordinator::plan::RunPlan;
use packfed_coordinator::strikes::Strikes;
use packfed_protocol::{Digest, Identity};

use crate::folder::prepare;
use crate::process::{Launch, Process};

/// Words of one layer: 256 × 256 in blocks of 8.
pub(crate) const LAYER_WORDS: u32 = 1024;

/// A coordinator that serves, and what its peers have to know of it.
pub(crate) struct Serving {
    pub(crate) process: Process,
    pub(crate) address: SocketAddr,
    pub(crate) plan: Arc<RunPlan>,
}

/// How `coordinator serve` is started.
pub(crate) fn launch(program: PathBuf) -> Launch {
    Launch {
        program,
        arguments: vec!["serve".into(), "--config".into()],
        after: vec!["--until-finished".into(), "--json".into()],
    }
}

/// The coordinator's key, which is the operator's.
pub(crate) fn coordinator() -> Identity {
    Identity::from_seed([0xc0; 32])
}

/// The keys of so many workers.
pub(crate) fn workers(count: u32) -> Vec<Identity> {
    let worker = |n: u32| {
        let mut seed = [0; 32];
        seed[..4].copy_from_slice(&n.to_le_bytes());
        Identity::from_seed(seed)
    };
    (1..=count).map(worker).collect()
}

/// Starts the coordinator of a new run in a folder.
pub(crate) async fn serve(
    launch: &Launch,
    folder: &Path,
    file: &CoordinatorFile,
    workers: &[Identity],
) -> Result<Serving> {
    let config = prepare(folder, file, &coordinator(), workers.iter().map(Identity::id))?;
    let plan = CoordinatorConfig::load(&config)?.plan;
    let mut process = Process::start(launch, &config)?;
    let listening = process.listening().await?;
    ensure!(listening.resumed.is_none(), "a new run has an open round");
    Ok(Serving { process, address: listening.address, plan })
}

/// A run whose rounds wait for all workers. A block has no more residual coefficients than a word carries, and the
/// server optimizer remembers nothing: the model is as small as the words allow, so what grows with workers shows.
pub(crate) fn file(workers: u32, rounds: u32, layers: u32) -> CoordinatorFile {
    let layer = |n| LayerTable {
        name: format!("layer-{n}"),
        rows: 256,
        cols: 256,
        block: 8,
        residual: 12,
        gain_exponent: 4,
        rate_exponent: 0,
    };
    let run = RunConfig {
        run: RunTable {
            name: "load".to_owned(),
            seed: 1,
            base: Digest([1; 32]),
            rounds: rounds.into(),
            examples_max: 100,
            profile: ProfileName::Plain,
            levels: 8.0,
            history: 4,
        },
        layers: (0..layers).map(layer).collect(),
        training: TrainingTable::adam(10, 8, 0.1),
        selection: SelectionTable::of(workers, workers, 3_600_000),
        // Nobody is sent away: all of them are to be held.
        pace: Pace { held_max: Pace::DEFAULT.held_max.max(workers), ..Pace::DEFAULT },
        strikes: Strikes::DEFAULT,
        buffered: None,
        reporting: ReportingTable { goal: workers, min: workers, timeout_ms: 3_600_000, over_selection: 0 },
        aggregation: AggregationTable::default(),
        server_optimizer: ServerOptimizer::FedAvg { rate: 1.0 },
    };
    let listen = SocketAddr::from((Ipv4Addr::LOCALHOST, 0));
    CoordinatorFile::new(listen, PathBuf::from("coordinator.key"), PathBuf::from("coordinator.redb"), run)
}
