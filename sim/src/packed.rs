//! packfed's own run of a task, in virtual time.

use std::sync::Arc;

use packfed_codec::State;
use packfed_coordinator::engine::Engine;
use packfed_coordinator::plan::RunPlan;
use packfed_coordinator::registry::{Member, Registry, Standing};
use packfed_protocol::Timestamp;
use packfed_worker::session::Session;
use packfed_worker::task::LocalTask;

use crate::attack::Malice;
use crate::compare::CompareError;
use crate::federated::FederatedTask;
use crate::options::Options;
use crate::progress::Progress;
use crate::results::{MethodResult, Point, shortest};
use crate::stopwatch::Stopwatch;
use crate::virtual_fleet::{Devices, PHONES, VirtualFleet};

/// What a run came to.
#[derive(Debug)]
pub struct Finished {
    /// Its record.
    pub result: MethodResult,
    /// The final model.
    pub state: State,
}

/// Runs packfed on a task.
///
/// # Errors
/// If a worker gives up or the run stalls.
pub fn run<T: FederatedTask>(
    task: &T,
    options: &Options,
    plan: RunPlan,
    progress: &Progress,
) -> Result<Finished, CompareError> {
    run_on(task, options, plan, PHONES, progress)
}

/// Runs packfed on a task with some workers that lie.
///
/// # Errors
/// If a worker gives up or the run stalls.
pub fn run_attacked<T: FederatedTask>(
    task: &T,
    options: &Options,
    plan: RunPlan,
    malice: Option<Malice>,
    progress: &Progress,
) -> Result<Finished, CompareError> {
    run_attacked_on(task, options, plan, malice, PHONES, progress)
}

/// The same, on devices of the caller's choice.
///
/// # Errors
/// If a worker gives up or the run stalls.
pub fn run_attacked_on<T: FederatedTask>(
    task: &T,
    options: &Options,
    plan: RunPlan,
    malice: Option<Malice>,
    devices: Devices,
    progress: &Progress,
) -> Result<Finished, CompareError> {
    let mut fleet = fleet(task, options, plan, devices);
    if let Some(malice) = malice {
        let drawn = malice.drawn(options.workers as usize, &options.run_seed());
        let liars = options.identities().into_iter().enumerate().filter(|(worker, _)| drawn[*worker]);
        liars.for_each(|(worker, identity)| fleet.corrupt(worker, malice.attack, identity));
    }
    finish(task, options, fleet, progress)
}

/// Runs packfed on a task, on devices of the caller's choice.
///
/// # Errors
/// If a worker gives up or the run stalls.
pub fn run_on<T: FederatedTask>(
    task: &T,
    options: &Options,
    plan: RunPlan,
    devices: Devices,
    progress: &Progress,
) -> Result<Finished, CompareError> {
    finish(task, options, fleet(task, options, plan, devices), progress)
}

fn finish<T: FederatedTask>(
    task: &T,
    options: &Options,
    mut fleet: VirtualFleet<T::Worker>,
    progress: &Progress,
) -> Result<Finished, CompareError> {
    let learning_rate = shortest(fleet.engine().plan().raw().training.learning_rate);
    let display = progress.method("packfed", options.rounds, task.metric());
    let first = task.score(fleet.engine().head().state())?;
    let mut curve = vec![Point { score: first, ..Point::default() }];
    let mut failed = None;
    let mut watch = Stopwatch::started();
    fleet.run(|committed| {
        watch.pause();
        let tested = committed.version.is_multiple_of(task.test_every()) || committed.version == options.rounds;
        let score = tested.then(|| task.score(committed.state)).and_then(|score| match score {
            Ok(score) => Some(score),
            Err(error) => {
                failed = Some(error);
                None
            }
        });
        if let Some(score) = score {
            curve.push(Point {
                round: committed.version,
                score,
                bytes_up: committed.bytes_up,
                bytes_down: committed.bytes_down,
                virtual_s: committed.virtual_s,
            });
        }
        display.round(committed.version, score, committed.bytes_up, committed.bytes_down);
        watch.start();
    })?;
    watch.pause();
    if let Some(error) = failed {
        return Err(error.into());
    }
    let score = curve.last().map_or(first, |point| point.score);
    let worker_rounds = (options.rounds * u64::from(options.cohort)) as f64;
    let (up, down) = fleet.bytes();
    display.done(&score);
    let state = fleet.engine().head().state().clone();
    let result = MethodResult {
        name: "packfed".into(),
        score,
        bytes_up: up as f64 / worker_rounds,
        bytes_down: down as f64 / worker_rounds,
        rounds: fleet.engine().head().version(),
        worker_rounds_per_s: worker_rounds / watch.seconds(),
        digest: fleet.engine().status().digest.to_string(),
        learning_rate,
        tuning: Vec::new(),
        curve,
    };
    Ok(Finished { result, state })
}

fn fleet<T: FederatedTask>(task: &T, options: &Options, plan: RunPlan, devices: Devices) -> VirtualFleet<T::Worker> {
    let (run, base_digest) = (plan.raw().run, task.base_digest());
    let start = Timestamp(0);
    let mut members = Vec::new();
    let mut enrolled = std::collections::BTreeMap::new();
    for (n, (identity, local)) in options.identities().into_iter().zip(task.workers()).enumerate() {
        enrolled.insert(identity.id(), Member::new(format!("worker-{n}"), Standing::Admitted));
        let (session, effects) = Session::new(identity, run, base_digest, local.examples(), start);
        members.push((session, effects, local));
    }
    let engine = Engine::new(Arc::new(plan), Registry::new(enrolled, std::collections::BTreeSet::new()), start);
    VirtualFleet::new(engine, members, devices, &options.run_seed(), options.threads)
}
