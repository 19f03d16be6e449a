//! A fleet of real processes that an operator administers: its coordinator serves until it is stopped, its workers train
//! and follow releases, and orders are given with the programs that ship.
//!
//! Any of the processes may be killed and started again at any moment; what they were is in their folders.

use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use packfed_codec::{Adapter, State};
use packfed_coordinator::config::{AuditTable, CoordinatorFile, RunConfig};
use packfed_worker::config::{ReleasesConfig, WorkerConfig};
use serde_json::Value;
use tempfile::TempDir;

use crate::fleet_files::{write_coordinator, write_worker};
use crate::options::Options;
use crate::parallel;
use crate::process::beside;
use crate::process_fleet::{Coordinator, Worker};
use crate::stopwatch::Stopwatch;
use crate::task::Task;

/// See the module.
#[derive(Debug)]
pub struct OperatedFleet {
    /// Everything; gone with the fleet.
    folder: TempDir,
    config: PathBuf,
    coordinator: Option<Coordinator>,
    workers: Vec<(PathBuf, Option<Worker>)>,
}

/// Share of a worker's examples that releases are measured on.
const HELD_OUT: f64 = 0.3;
/// How long anything may take.
pub const PATIENCE: Duration = Duration::from_secs(240);
/// How often it is asked for.
const ASK_EVERY: Duration = Duration::from_millis(100);

impl OperatedFleet {
    /// Writes a fleet's files, starts its coordinator, enrols and starts every worker.
    ///
    /// # Errors
    /// If a file cannot be written, or a program is missing or fails.
    pub fn start(task: &Task, options: &Options, run: RunConfig) -> Result<Self> {
        let folder = tempfile::tempdir().context("make a temporary folder")?;
        let any_port = SocketAddr::from((Ipv4Addr::LOCALHOST, 0));
        let files = write_coordinator(folder.path(), task, run, any_port, None, task.shards.len())?;
        edit(&files.config, |file: &mut CoordinatorFile| {
            file.audit = Some(AuditTable { directory: "audit".into(), segment_bytes_max: 1 << 28, segments_max: 0 });
        })?;
        let coordinator = Coordinator::serve(&files.config)?;
        // Orders go, and a restart comes, to where its workers look for it.
        edit(&files.config, |file: &mut CoordinatorFile| file.listen = coordinator.address)?;
        let at = (coordinator.address, coordinator.key);
        let mut configs = Vec::new();
        for (number, (identity, shard)) in options.identities().iter().zip(&task.shards).enumerate() {
            let config = write_worker(folder.path(), number, identity, shard, at)?;
            edit(&config, |config: &mut WorkerConfig| {
                config.releases = Some(ReleasesConfig { folder: "releases".into(), loss_increase_max: None });
                config.data.iter_mut().for_each(|data| data.held_out = HELD_OUT);
            })?;
            configs.push(config);
        }
        let pairs: Vec<_> = configs.iter().zip(&files.tokens).collect();
        let enrolled =
            parallel::map(&pairs, options.threads, |(config, token)| Worker::enroll(config, &token.to_string()));
        enrolled.into_iter().collect::<Result<Vec<()>>>()?;
        let workers = configs.into_iter().map(|config| (config, None)).collect();
        let mut fleet = Self { folder, config: files.config, coordinator: Some(coordinator), workers };
        (0..fleet.workers.len()).try_for_each(|worker| fleet.start_worker(worker))?;
        Ok(fleet)
    }

    /// The coordinator's configuration.
    #[must_use]
    pub fn config(&self) -> &Path {
        &self.config
    }

    /// A path in the fleet's folder.
    #[must_use]
    pub fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// Workers of the fleet.
    #[must_use]
    pub const fn len(&self) -> usize {
        self.workers.len()
    }

    /// Whether it has none.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.workers.is_empty()
    }

    /// Starts a worker that does not run.
    ///
    /// # Errors
    /// If it cannot be started.
    pub fn start_worker(&mut self, worker: usize) -> Result<()> {
        let (config, process) = &mut self.workers[worker];
        *process = Some(Worker::start(config, |_| {})?);
        Ok(())
    }

    /// Ends a worker at once, as a power cut would.
    ///
    /// # Errors
    /// If it cannot be killed.
    pub fn kill_worker(&mut self, worker: usize) -> Result<()> {
        self.workers[worker].1.take().map_or(Ok(()), Worker::kill)
    }

    /// Starts the coordinator again where it was.
    ///
    /// # Errors
    /// If it does not come up.
    pub fn start_coordinator(&mut self) -> Result<()> {
        self.coordinator = Some(Coordinator::serve(&self.config)?);
        Ok(())
    }

    /// Ends the coordinator at once, as a power cut would.
    ///
    /// # Errors
    /// If it cannot be killed.
    pub fn kill_coordinator(&mut self) -> Result<()> {
        self.coordinator.take().map_or(Ok(()), Coordinator::kill)
    }

    /// Gives an order with the coordinator's program, and returns its JSON.
    ///
    /// # Errors
    /// If it is refused; the error has what it said.
    pub fn order(&self, arguments: &[&str]) -> Result<Value> {
        let output = self.run("coordinator", arguments, &self.config)?;
        let said = String::from_utf8_lossy(&output.stderr);
        ensure!(output.status.success(), "{}: {said}", arguments.join(" "));
        json(&output.stdout)
    }

    /// What a worker says that runs on its machine, whether its process runs or not.
    ///
    /// # Errors
    /// If it cannot say so.
    pub fn release_of(&self, worker: usize) -> Result<Value> {
        let config = &self.workers[worker].0;
        let output = self.run("worker", &["release", "status"], config)?;
        let said = String::from_utf8_lossy(&output.stderr);
        ensure!(output.status.success() && !said.contains("WARN"), "worker {worker}: {said}");
        json(&output.stdout)
    }

    /// Asks again and again until something is there.
    ///
    /// # Errors
    /// If it cannot be asked, or it takes longer than [`PATIENCE`]; a busy machine takes its time.
    #[expect(clippy::disallowed_methods, reason = "processes are asked how they stand: nobody tells this one")]
    pub fn until<T>(&self, what: &str, look: impl Fn(&Self) -> Result<Option<T>>) -> Result<T> {
        let watch = Stopwatch::started();
        loop {
            if let Some(found) = look(self)? {
                return Ok(found);
            }
            ensure!(watch.seconds() < PATIENCE.as_secs_f64(), "{what} takes longer than {PATIENCE:?}");
            std::thread::sleep(ASK_EVERY);
        }
    }

    fn run(&self, program: &str, arguments: &[&str], config: &Path) -> Result<Output> {
        let mut command = Command::new(beside(program)?);
        command.args(arguments).arg("--config").arg(config).arg("--json");
        command.output().with_context(|| format!("run {program}"))
    }

    /// Makes a release of another's model whose lanes are changed, and returns its number.
    ///
    /// # Errors
    /// If it cannot be exported, changed or made.
    pub fn release_changed(&self, of: u64, notes: &str, change: impl Fn(&State) -> Vec<i32>) -> Result<u64> {
        let (from, to) = (self.path("exported.packed"), self.path("changed.packed"));
        let (source, target) = (text(&from)?, text(&to)?);
        self.order(&["release", "export", &of.to_string(), "--out", source, "--force"])?;
        let adapter = Adapter::from_bytes(&std::fs::read(&from)?)?;
        let lanes: Vec<u8> = change(adapter.state()).into_iter().flat_map(i32::to_le_bytes).collect();
        let state = State::from_bytes(adapter.state().layout().clone(), &lanes)?;
        let changed = Adapter::new(adapter.base(), *adapter.seed(), state, adapter.metrics().clone())?;
        std::fs::write(&to, changed.to_bytes())?;
        let made = self.order(&["release", "create", "--from", target, "--notes", notes])?;
        made["number"].as_u64().context("a release has a number")
    }
}

/// Changes a configuration file.
fn edit<T: serde::Serialize + serde::de::DeserializeOwned>(path: &Path, change: impl FnOnce(&mut T)) -> Result<()> {
    let text = std::fs::read_to_string(path).with_context(|| format!("read {}", path.display()))?;
    let mut file = toml::from_str(&text).with_context(|| path.display().to_string())?;
    change(&mut file);
    std::fs::write(path, toml::to_string(&file)?).with_context(|| format!("write {}", path.display()))
}

fn json(stdout: &[u8]) -> Result<Value> {
    let Some(line) = stdout.trim_ascii().split(|byte| *byte == b'\n').next_back() else { bail!("nothing was said") };
    serde_json::from_slice(line).with_context(|| String::from_utf8_lossy(line).into_owned())
}

fn text(path: &Path) -> Result<&str> {
    path.to_str().context("a path that is not UTF-8")
}
