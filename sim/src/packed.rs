//! packfed's own run of a task, in virtual time.

use std::sync::Arc;

use packfed_coordinator::engine::Engine;
use packfed_coordinator::plan::RunPlan;
use packfed_coordinator::registry::{Member, Registry, Standing};
use packfed_protocol::Timestamp;
use packfed_worker::session::Session;
use packfed_worker::task::LocalTask;
use packfed_worker::trainer::{Base, Trainer};

use crate::compare::CompareError;
use crate::options::Options;
use crate::progress::Progress;
use crate::results::{MethodResult, Point, shortest};
use crate::stopwatch::Stopwatch;
use crate::task::Task;
use crate::virtual_fleet::{Devices, PHONES, VirtualFleet};

/// Rounds between two tests for the display and the curve.
pub(crate) const TEST_EVERY: u64 = 2;

/// Runs packfed on a task.
///
/// # Errors
/// If a worker gives up or the run stalls.
pub fn run(task: &Task, options: &Options, plan: RunPlan, progress: &Progress) -> Result<MethodResult, CompareError> {
    run_on(task, options, plan, PHONES, progress)
}

/// Runs packfed on a task, on devices of the caller's choice.
///
/// # Errors
/// If a worker gives up or the run stalls.
pub fn run_on(
    task: &Task,
    options: &Options,
    plan: RunPlan,
    devices: Devices,
    progress: &Progress,
) -> Result<MethodResult, CompareError> {
    let learning_rate = shortest(plan.raw().training.learning_rate);
    let mut fleet = fleet(task, options, plan, devices);
    let display = progress.method("packfed", options.rounds);
    let mut curve = vec![Point { accuracy: task.test.accuracy(&task.base), ..Point::default() }];
    let mut watch = Stopwatch::started();
    fleet.run(|committed| {
        watch.pause();
        let tested = committed.version.is_multiple_of(TEST_EVERY) || committed.version == options.rounds;
        let accuracy = tested.then(|| task.accuracy(committed.state));
        if let Some(accuracy) = accuracy {
            curve.push(Point {
                round: committed.version,
                accuracy,
                bytes_up: committed.bytes_up,
                bytes_down: committed.bytes_down,
                virtual_s: committed.virtual_s,
            });
        }
        display.round(committed.version, accuracy, committed.bytes_up, committed.bytes_down);
        watch.start();
    })?;
    watch.pause();
    let accuracy = task.accuracy(fleet.engine().head().state());
    let worker_rounds = (options.rounds * u64::from(options.cohort)) as f64;
    let (up, down) = fleet.bytes();
    display.done(&format!("accuracy {accuracy:.4}"));
    Ok(MethodResult {
        name: "packfed".into(),
        accuracy,
        bytes_up: up as f64 / worker_rounds,
        bytes_down: down as f64 / worker_rounds,
        rounds: fleet.engine().head().version(),
        worker_rounds_per_s: worker_rounds / watch.seconds(),
        digest: fleet.engine().status().digest.to_string(),
        learning_rate,
        tuning: Vec::new(),
        curve,
    })
}

fn fleet(task: &Task, options: &Options, plan: RunPlan, devices: Devices) -> VirtualFleet {
    let (run, base_digest) = (plan.raw().run, task.base_digest());
    let base = Arc::new(Base::new(task.base.clone()));
    let start = Timestamp(0);
    let mut members = Vec::new();
    let mut enrolled = std::collections::BTreeMap::new();
    for (n, (identity, examples)) in options.identities().into_iter().zip(&task.examples).enumerate() {
        let trainer = Trainer::new(base.clone(), examples.clone());
        enrolled.insert(identity.id(), Member { name: format!("worker-{n}"), standing: Standing::Admitted });
        let (session, effects) = Session::new(identity, run, base_digest, trainer.examples(), start);
        members.push((session, effects, trainer));
    }
    let engine = Engine::new(Arc::new(plan), Registry::new(enrolled, std::collections::BTreeSet::new()), start);
    VirtualFleet::new(engine, members, devices, &options.run_seed(), options.threads)
}
