//! Fleets of real processes on loopback: they agree with the simulation, and survive power cuts.
#![expect(clippy::unwrap_used, reason = "a test")]

use std::path::Path;
use std::sync::mpsc::{Receiver, channel};
use std::time::Duration;

use packfed_coordinator::config::{CoordinatorFile, ProfileName, RunConfig};
use packfed_sim::federated::FederatedTask;
use packfed_sim::options::{Options, UNEVEN, digits_run};
use packfed_sim::packed;
use packfed_sim::process_fleet::{self, Coordinator, Enrolled, Worker};
use packfed_sim::progress::Progress;
use packfed_sim::task::Task;
use tempfile::TempDir;

const OPTIONS: Options =
    Options { rounds: 3, workers: 4, cohort: 4, seed: 1, partition: UNEVEN, profile: ProfileName::Plain, threads: 2 };

/// An enrolled fleet whose coordinator runs, and the coordinator's log.
struct Fleet {
    _folder: TempDir,
    enrolled: Enrolled,
    log: Receiver<String>,
}

fn task() -> Task {
    Task::digits(&OPTIONS).unwrap()
}

fn run_of(task: &Task) -> RunConfig {
    digits_run(&OPTIONS, &task.base, task.base_digest())
}

/// The digest of an undisturbed run, from the simulation.
fn undisturbed(task: &Task) -> String {
    packed::run(task, &OPTIONS, run_of(task).plan().unwrap(), &Progress::new(true)).unwrap().result.digest
}

impl Fleet {
    fn new(task: &Task, run: RunConfig) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let (sender, log) = channel();
        let seen = move |line: &str| drop(sender.send(line.to_owned()));
        let enrolled = process_fleet::enroll(folder.path(), task, &OPTIONS, run, None, seen).unwrap();
        Self { _folder: folder, enrolled, log }
    }

    fn start_workers(&self) -> Vec<Worker> {
        self.enrolled.workers.iter().map(|config| start(config)).collect()
    }

    /// Waits until the coordinator has logged a message this many times.
    fn wait_for(&self, message: &str, times: usize) {
        for _ in 0..times {
            while !self.log.recv_timeout(Duration::from_secs(120)).unwrap().contains(message) {}
        }
    }
}

fn start(config: &Path) -> Worker {
    Worker::start(config, |_| {}).unwrap()
}

fn finish(coordinator: Coordinator, workers: Vec<Worker>) -> String {
    let report = coordinator.finish().unwrap();
    assert_eq!(report.version, OPTIONS.rounds);
    for worker in workers {
        assert_eq!(worker.finish().unwrap(), report.digest);
    }
    report.digest
}

#[test]
fn a_fleet_of_processes_and_a_simulation_end_in_the_same_digest() {
    let task = task();
    let results = process_fleet::digits(&OPTIONS, None, &Progress::new(true)).unwrap();
    assert_eq!(results.methods[0].digest, undisturbed(&task));
}

#[test]
fn a_killed_coordinator_goes_on_with_the_round_that_was_open() {
    let task = task();
    let fleet = Fleet::new(&task, run_of(&task));
    let workers = fleet.start_workers();
    fleet.wait_for("update accepted", 6);
    let address = fleet.enrolled.coordinator.address;
    fleet.enrolled.coordinator.kill().unwrap();
    // It comes back where its workers look for it.
    let config = &fleet.enrolled.files.config;
    let mut file = CoordinatorFile::parse(&std::fs::read_to_string(config).unwrap()).unwrap();
    file.listen = address;
    std::fs::write(config, file.to_toml().unwrap()).unwrap();
    let coordinator = Coordinator::start(config, |_| {}).unwrap();
    assert_eq!(finish(coordinator, workers), undisturbed(&task));
}

#[test]
fn a_killed_worker_comes_back_into_the_round() {
    let task = task();
    let fleet = Fleet::new(&task, run_of(&task));
    let mut workers = fleet.start_workers();
    fleet.wait_for("round opened", 2);
    workers.pop().unwrap().kill().unwrap();
    workers.push(start(fleet.enrolled.workers.last().unwrap()));
    assert_eq!(finish(fleet.enrolled.coordinator, workers), undisturbed(&task));
}

#[test]
fn a_worker_that_is_killed_while_it_trains_goes_on_from_its_snapshot() {
    let options = Options { rounds: 1, workers: 1, cohort: 1, ..OPTIONS };
    let task = Task::digits(&options).unwrap();
    let mut run = digits_run(&options, &task.base, task.base_digest());
    run.training.steps = 200;
    let undisturbed = packed::run(&task, &options, run.plan().unwrap(), &Progress::new(true)).unwrap().result.digest;
    let folder = tempfile::tempdir().unwrap();
    let enrolled = process_fleet::enroll(folder.path(), &task, &options, run, None, |_| {}).unwrap();
    let config = &enrolled.workers[0];
    let at_every_step =
        std::fs::read_to_string(config).unwrap().replace("snapshot_every_s = 30", "snapshot_every_s = 0");
    std::fs::write(config, at_every_step).unwrap();
    let snapshot = config.with_file_name("training.snapshot");
    let worker = start(config);
    while !snapshot.exists() {
        std::thread::yield_now();
    }
    worker.kill().unwrap();
    let (sender, log) = channel();
    let worker = Worker::start(config, move |line: &str| drop(sender.send(line.to_owned()))).unwrap();
    assert_eq!(enrolled.coordinator.finish().unwrap().digest, undisturbed);
    assert_eq!(worker.finish().unwrap(), undisturbed);
    assert!(log.iter().any(|line| line.contains("going on with interrupted training")));
    assert!(!snapshot.exists(), "the round is over");
}

#[test]
fn a_dead_worker_does_not_block_the_rounds_to_come() {
    let task = task();
    let mut run = run_of(&task);
    (run.selection.min, run.selection.timeout_ms) = (2, 2_000);
    (run.reporting.min, run.reporting.timeout_ms) = (2, 4_000);
    let fleet = Fleet::new(&task, run);
    let mut workers = fleet.start_workers();
    fleet.wait_for("round committed", 1);
    workers.pop().unwrap().kill().unwrap();
    finish(fleet.enrolled.coordinator, workers);
}
