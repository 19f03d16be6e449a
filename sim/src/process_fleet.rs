//! A fleet of real processes: one coordinator and its workers, over QUIC on loopback.
//!
//! The same task, keys and plan as a run in virtual time, so both end in the same digest.

use std::collections::VecDeque;
use std::io::{BufReader, Lines};
use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::process::{ChildStderr, Command};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;

use anyhow::{Context, Result, bail, ensure};
use packfed_coordinator::config::RunConfig;
use packfed_coordinator::redb_store::RedbStore;
use packfed_coordinator::store::Store;
use packfed_protocol::CoordinatorId;
use serde::Deserialize;

use crate::federated::FederatedTask;
use crate::fleet_files::{CoordinatorFiles, write_coordinator, write_worker};
use crate::options::{Options, digits_run};
use crate::parallel;
use crate::process::{Process, beside};
use crate::progress::{MethodProgress, Progress};
use crate::results::{MethodResult, Results, Score, shortest};
use crate::stopwatch::Stopwatch;
use crate::task::Task;

/// A coordinator process that listens.
#[derive(Debug)]
pub struct Coordinator {
    process: Process,
    logs: Logs,
    /// Where it listens.
    pub address: SocketAddr,
    /// Its public key.
    pub key: CoordinatorId,
    /// Where its dashboard is, if it has one.
    pub dashboard: Option<SocketAddr>,
}

/// The first line that `coordinator serve --json` prints.
#[derive(Deserialize)]
struct Listening {
    listening: SocketAddr,
    public_key: CoordinatorId,
    dashboard: Option<SocketAddr>,
}

/// What its last line says, as far as it is needed here.
#[derive(Debug, Deserialize)]
pub struct Report {
    /// Commits.
    pub version: u64,
    /// Digest of the final model.
    pub digest: String,
    /// Bytes of frames that workers sent.
    pub bytes_up: u64,
    /// Bytes of frames that workers received.
    pub bytes_down: u64,
}

impl Coordinator {
    /// Starts the coordinator of a configuration and waits until it listens; `seen` gets its log lines.
    ///
    /// # Errors
    /// If it does not come up; the error has the end of its log.
    pub fn start(config: &Path, seen: impl Fn(&str) + Send + 'static) -> Result<Self> {
        Self::launch(config, &["--until-finished"], seen)
    }

    /// Starts the coordinator of a configuration, which serves until it is ended, and waits until it listens.
    ///
    /// # Errors
    /// If it does not come up; the error has the end of its log.
    pub fn serve(config: &Path) -> Result<Self> {
        Self::launch(config, &[], |_| {})
    }

    fn launch(config: &Path, flags: &[&str], seen: impl Fn(&str) + Send + 'static) -> Result<Self> {
        let config = config.to_str().context("a path that is not UTF-8")?;
        let arguments = [&["--log-format", "json", "serve", "--config", config, "--json"], flags].concat();
        let (mut process, stderr) = Process::start(&beside("coordinator")?, &arguments)?;
        let logs = Logs::follow(stderr, seen);
        let Some(line) = process.line()? else { bail!("the coordinator did not start: {}", logs.end()) };
        let Listening { listening, public_key, dashboard } = serde_json::from_str(&line).context(line)?;
        Ok(Self { process, logs, address: listening, key: public_key, dashboard })
    }

    /// Waits for the run's end.
    ///
    /// # Errors
    /// If the coordinator fails; the error has the end of its log.
    pub fn finish(mut self) -> Result<Report> {
        let last = self.process.last_line()?;
        let status = self.process.wait()?;
        ensure!(status.success(), "the coordinator failed ({status}): {}", self.logs.end());
        let line = last.context("the coordinator printed no report")?;
        serde_json::from_str(&line).context(line)
    }

    /// Ends it at once, as a power cut would.
    ///
    /// # Errors
    /// If it cannot be killed.
    pub fn kill(mut self) -> Result<()> {
        self.process.kill()
    }
}

/// A worker process that takes part.
#[derive(Debug)]
pub struct Worker {
    process: Process,
    logs: Logs,
}

/// What a worker's last line says.
#[derive(Deserialize)]
struct Final {
    digest: String,
}

impl Worker {
    /// Enrols the worker of a configuration with a token, and waits until it is.
    ///
    /// # Errors
    /// If it is refused; the error has what it said.
    pub fn enroll(config: &Path, token: &str) -> Result<()> {
        let config = config.to_str().context("a path that is not UTF-8")?;
        let output = Command::new(beside("worker")?).args(["enroll", "--config", config, "--token", token]).output()?;
        ensure!(output.status.success(), "enrolment failed: {}", String::from_utf8_lossy(&output.stderr));
        Ok(())
    }

    /// Starts the worker of a configuration; `seen` gets its log lines.
    ///
    /// # Errors
    /// If it cannot be started.
    pub fn start(config: &Path, seen: impl Fn(&str) + Send + 'static) -> Result<Self> {
        let config = config.to_str().context("a path that is not UTF-8")?;
        let (process, stderr) = Process::start(&beside("worker")?, &["run", "--config", config, "--json"])?;
        Ok(Self { process, logs: Logs::follow(stderr, seen) })
    }

    /// Waits until the worker holds the final model, and returns its digest.
    ///
    /// # Errors
    /// If it fails; the error has the end of its log.
    pub fn finish(mut self) -> Result<String> {
        let last = self.process.last_line()?;
        let status = self.process.wait()?;
        ensure!(status.success(), "a worker failed ({status}): {}", self.logs.end());
        let line = last.context("a worker printed no digest")?;
        let Final { digest } = serde_json::from_str(&line).context(line)?;
        Ok(digest)
    }

    /// Ends it at once, as a power cut would.
    ///
    /// # Errors
    /// If it cannot be killed.
    pub fn kill(mut self) -> Result<()> {
        self.process.kill()
    }
}

/// The last lines of a process's log, read as they come so that it never waits for its reader.
#[derive(Debug)]
struct Logs {
    end: Arc<Mutex<VecDeque<String>>>,
    reader: Option<JoinHandle<()>>,
}

/// Log lines that an error shows.
const LOG_LINES: usize = 8;

impl Logs {
    fn follow(lines: Lines<BufReader<ChildStderr>>, seen: impl Fn(&str) + Send + 'static) -> Self {
        let end = Arc::new(Mutex::new(VecDeque::new()));
        let kept = end.clone();
        let reader = std::thread::spawn(move || {
            for line in lines.map_while(Result::ok) {
                seen(&line);
                let mut kept = kept.lock().unwrap_or_else(PoisonError::into_inner);
                kept.push_back(line);
                if kept.len() > LOG_LINES {
                    kept.pop_front();
                }
            }
        });
        Self { end, reader: Some(reader) }
    }

    /// What the log ended with.
    fn end(mut self) -> String {
        if let Some(reader) = self.reader.take() {
            // The reader ends with the pipe; it has nothing that can panic but the caller's display.
            let _ = reader.join();
        }
        let end = self.end.lock().unwrap_or_else(PoisonError::into_inner);
        end.iter().map(String::as_str).collect::<Vec<_>>().join("\n")
    }
}

/// A prepared and enrolled fleet, its coordinator running and its workers not yet.
#[derive(Debug)]
pub struct Enrolled {
    /// The coordinator.
    pub coordinator: Coordinator,
    /// Its files.
    pub files: CoordinatorFiles,
    /// The workers' configurations.
    pub workers: Vec<PathBuf>,
}

/// Writes a fleet's files into a folder, starts the coordinator, with a dashboard if there is an address for one, and
/// enrols every worker.
///
/// # Errors
/// If a file cannot be written, or a program is missing or fails.
pub fn enroll(
    folder: &Path,
    task: &Task,
    options: &Options,
    run: RunConfig,
    dashboard: Option<SocketAddr>,
    seen: impl Fn(&str) + Send + 'static,
) -> Result<Enrolled> {
    let any_port = SocketAddr::from((Ipv4Addr::LOCALHOST, 0));
    let files = write_coordinator(folder, task, run, any_port, dashboard, task.shards.len())?;
    let coordinator = Coordinator::start(&files.config, seen)?;
    let at = (coordinator.address, coordinator.key);
    let mut workers = Vec::new();
    for (number, (identity, shard)) in options.identities().iter().zip(&task.shards).enumerate() {
        workers.push(write_worker(folder, number, identity, shard, at)?);
    }
    let pairs: Vec<_> = workers.iter().zip(&files.tokens).collect();
    let enrolled = parallel::map(&pairs, options.threads, |(config, token)| Worker::enroll(config, &token.to_string()));
    enrolled.into_iter().collect::<Result<Vec<()>>>()?;
    Ok(Enrolled { coordinator, files, workers })
}

/// Runs the digits task on a fleet of processes, in a temporary folder; with an address for it, the coordinator's
/// dashboard is served there, and a line on stderr says where.
///
/// # Errors
/// If a program is missing or fails, or the workers do not end with the coordinator's digest.
pub fn digits(options: &Options, dashboard: Option<SocketAddr>, progress: &Progress) -> Result<Results> {
    for program in ["coordinator", "worker"] {
        beside(program)?;
    }
    progress.note("pre-training the base model");
    let task = Task::digits(options)?;
    let folder = tempfile::tempdir().context("make a temporary folder")?;
    let display = Arc::new(progress.method("packfed", options.rounds, task.metric()));
    let shown = display.clone();
    let run = digits_run(options, &task.base, task.base_digest());
    let learning_rate = shortest(run.training.learning_rate);
    let fleet = enroll(folder.path(), &task, options, run, dashboard, move |line| show(&shown, line))?;
    if let Some(address) = fleet.coordinator.dashboard {
        eprintln!("dashboard at http://{address}/");
    }
    let watch = Stopwatch::started();
    let start = |config: &PathBuf| Worker::start(config, |_| {});
    let workers = fleet.workers.iter().map(start).collect::<Result<Vec<Worker>>>()?;
    let report = fleet.coordinator.finish()?;
    let seconds = watch.seconds();
    for worker in workers {
        let digest = worker.finish()?;
        ensure!(digest == report.digest, "a worker ended with digest {digest}, the coordinator with {}", report.digest);
    }
    let score = score(&task, options, &fleet.files.store)?;
    if let Some(display) = Arc::into_inner(display) {
        display.done(&score);
    }
    let worker_rounds = (options.rounds * u64::from(options.cohort)) as f64;
    let packfed = MethodResult {
        name: "packfed".into(),
        score,
        bytes_up: report.bytes_up as f64 / worker_rounds,
        bytes_down: report.bytes_down as f64 / worker_rounds,
        rounds: report.version,
        worker_rounds_per_s: worker_rounds / seconds,
        digest: report.digest,
        learning_rate,
        tuning: Vec::new(),
        curve: Vec::new(),
    };
    Ok(Results {
        task: "digits".into(),
        seed: options.seed,
        metric: task.metric(),
        methods: vec![packfed],
        personal: None,
    })
}

/// The model in a coordinator's store, on the test set.
fn score(task: &Task, options: &Options, store: &Path) -> Result<Score> {
    let plan = digits_run(options, &task.base, task.base_digest()).plan()?;
    let stored = RedbStore::open(store)?.load(&plan)?.context("the coordinator stored no model")?;
    Ok(task.score(&stored.head.state)?)
}

/// Moves the display when the coordinator logs a commit.
fn show(display: &MethodProgress, line: &str) {
    let Ok(log) = serde_json::from_str::<serde_json::Value>(line) else { return };
    if log["fields"]["message"] == "round committed"
        && let Some(version) = log["fields"]["version"].as_u64()
    {
        display.round(version, None, 0, 0);
    }
}
