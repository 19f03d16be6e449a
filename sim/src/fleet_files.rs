//! A fleet's files: a folder for the coordinator, one for each worker, and the base model they share.
//!
//! ```text
//!  FOLDER/base.safetensors
//!  FOLDER/coordinator/  coordinator.toml  coordinator.key  coordinator.redb
//!  FOLDER/worker-N/     worker.toml  worker.key  images-idx3-ubyte  labels-idx1-ubyte
//! ```
//!
//! It writes what the programs read, and starts none of them.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use packfed_coordinator::config::{CoordinatorFile, DashboardTable, RunConfig};
use packfed_coordinator::redb_store::RedbStore;
use packfed_coordinator::registry::{Registry, token_digest};
use packfed_protocol::{CoordinatorId, Identity, Token};
use packfed_worker::conditions::ConditionsConfig;
use packfed_worker::config::{DataConfig, LimitsConfig, ModelConfig, WorkerConfig};
use packfed_worker::idx::{write_images, write_labels};

use crate::digits::Labelled;
use crate::task::Task;

/// The coordinator's side, written.
#[derive(Debug)]
pub struct CoordinatorFiles {
    /// Its configuration.
    pub config: PathBuf,
    /// Its store.
    pub store: PathBuf,
    /// Its public key.
    pub key: CoordinatorId,
    /// One one-time token a worker.
    pub tokens: Vec<Token>,
}

/// Writes the base model and the coordinator's folder; with an address for it, its dashboard is served there.
///
/// # Errors
/// If a file cannot be written; the error names it.
pub fn write_coordinator(
    folder: &Path,
    task: &Task,
    run: RunConfig,
    listen: SocketAddr,
    dashboard: Option<SocketAddr>,
    workers: usize,
) -> Result<CoordinatorFiles> {
    let own = folder.join("coordinator");
    make(&own)?;
    write(&folder.join("base.safetensors"), &task.base_file)?;
    let identity = Identity::generate()?;
    identity.save(&own.join("coordinator.key"))?;
    let tokens = (0..workers).map(|_| Token::generate()).collect::<Result<Vec<Token>, _>>()?;
    let hashes: BTreeSet<_> = tokens.iter().map(token_digest).collect();
    let store = own.join("coordinator.redb");
    RedbStore::create(&store, &Registry::new(BTreeMap::new(), hashes))?;
    let file = CoordinatorFile::new(listen, "coordinator.key".into(), "coordinator.redb".into(), run);
    let file = CoordinatorFile { dashboard: dashboard.map(|listen| DashboardTable { listen }), ..file };
    let config = own.join("coordinator.toml");
    write(&config, file.to_toml()?.as_bytes())?;
    Ok(CoordinatorFiles { config, store, key: identity.id(), tokens })
}

/// Writes one worker's folder and returns its configuration file.
///
/// # Errors
/// If a file cannot be written; the error names it.
pub fn write_worker(
    folder: &Path,
    number: usize,
    identity: &Identity,
    shard: &Labelled,
    coordinator: (SocketAddr, CoordinatorId),
) -> Result<PathBuf> {
    let own = folder.join(format!("worker-{number}"));
    make(&own)?;
    identity.save(&own.join("worker.key"))?;
    let data = DataConfig { images: "images-idx3-ubyte".into(), labels: "labels-idx1-ubyte".into(), held_out: 0.0 };
    write(&own.join(&data.images), &write_images(&shard.images))?;
    write(&own.join(&data.labels), &write_labels(&shard.labels))?;
    let config = WorkerConfig {
        coordinator: coordinator.0,
        coordinator_key: coordinator.1,
        name: format!("worker-{number}"),
        identity: "worker.key".into(),
        enrolment: "enrolment.toml".into(),
        model: ModelConfig {
            base: Path::new("..").join("base.safetensors"),
            global: "global.packfed".into(),
            personal: "personal.packfed".into(),
        },
        data: Some(data),
        texts: None,
        releases: None,
        limits: LimitsConfig::default(),
        conditions: ConditionsConfig::default(),
    };
    let path = own.join("worker.toml");
    write(&path, toml::to_string(&config)?.as_bytes())?;
    Ok(path)
}

fn make(folder: &Path) -> Result<()> {
    std::fs::create_dir_all(folder).with_context(|| format!("make folder {}", folder.display()))
}

fn write(path: &Path, bytes: &[u8]) -> Result<()> {
    std::fs::write(path, bytes).with_context(|| format!("write {}", path.display()))
}
