//! A round on a machine that is stopped, restarted and bounded.

use std::sync::Arc;

use packfed_codec::{LayerSpec, Layout, Profile, Seed, State, Window};

use super::*;
use crate::examples::Examples;
use crate::idx::Images;
use crate::local::{LocalOptimizer, LocalSteps};
use crate::mlp::{Dense, Mlp};
use crate::task::{Job, LocalTask, TaskError, Trained};
use crate::trainer::{Base, Trainer};

const STEPS: u32 = 5;
const AT_ONCE: Budgets = Budgets { time: None, memory: None, snapshot_every: Duration::ZERO };

fn trainer() -> Trainer {
    let weight = (0..32u8).map(|n| (f32::from(n) * 1.7).sin()).collect();
    let layer = Dense { weight: Arc::new(weight), bias: Arc::new(vec![0.0; 4]), inputs: 8 };
    let pixels = (0..80u8).map(|n| n.wrapping_mul(37)).collect();
    let labels: Vec<u8> = (0..10).map(|n| n % 4).collect();
    let examples = Examples::from_images(&Images { rows: 2, cols: 4, pixels }, &labels).unwrap();
    Trainer::new(Arc::new(Base::new(Arc::new(Mlp { layers: vec![layer] }))), Arc::new(examples))
}

fn job() -> Job {
    let name = "layers.0.weight".into();
    let spec = LayerSpec { name, rows: 4, cols: 8, block: 4, residual: 16, gain_exponent: 6 };
    let seed = Seed::from_number(1);
    let layout = Arc::new(Layout::new(&seed, vec![spec]).unwrap());
    Job {
        factors: [1.0].into(),
        state: Arc::new(State::zero(layout)),
        window: Window::new(Profile::Plain, 0),
        local: LocalSteps::adam(STEPS, 4, 0.05),
        seed,
    }
}

fn machine(folder: &Path, budgets: Budgets) -> Machine {
    Machine::new(budgets, folder.join("training.snapshot"), MultiProgress::new())
}

fn undisturbed() -> Trained {
    trainer().train(&job(), &mut crate::local::host::Unattended).unwrap()
}

/// Counts the steps of a host, and ends the process, as it were, after some.
struct Counted {
    host: RoundHost,
    steps: u32,
    killed_after: u32,
}

impl Host for Counted {
    fn memory_budget(&self) -> Option<u64> {
        self.host.memory_budget()
    }

    fn resume(&mut self, job: &JobDigest) -> Option<Snapshot> {
        self.host.resume(job)
    }

    fn stepped(&mut self, step: &Step<'_>) -> ControlFlow<()> {
        self.steps += 1;
        self.host.stepped(step)?;
        if self.steps == self.killed_after { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
    }
}

/// Trains round 1 on a machine that has just started; tells the steps that it took.
fn train(machine: &Machine, job: &Job, killed_after: u32) -> (u32, Trained) {
    let mut host = Counted { host: machine.round(Round(1)), steps: 0, killed_after };
    let trained = trainer().train(job, &mut host).unwrap();
    (host.steps, trained)
}

#[test]
fn a_round_that_is_cut_short_is_gone_on_with_by_the_next_process() {
    for killed_after in 1..STEPS {
        let folder = tempfile::tempdir().unwrap();
        assert_eq!(train(&machine(folder.path(), AT_ONCE), &job(), killed_after).0, killed_after);
        let (steps, trained) = train(&machine(folder.path(), AT_ONCE), &job(), 0);
        assert_eq!((steps, trained), (STEPS - killed_after, undisturbed()));
    }
}

#[test]
fn a_torn_or_foreign_file_is_ignored() {
    let folder = tempfile::tempdir().unwrap();
    let machine = machine(folder.path(), AT_ONCE);
    let file = folder.path().join("training.snapshot");
    train(&machine, &job(), 3);
    let bytes = std::fs::read(&file).unwrap();
    std::fs::write(&file, &bytes[..bytes.len() - 5]).unwrap();
    assert_eq!(train(&machine, &job(), 0), (STEPS, undisturbed()), "torn");
    let mut others = [job(), job(), job(), job()];
    others[0].seed = Seed::from_number(2);
    others[1].window = Window::new(Profile::Plain, 1);
    others[2].local.learning_rate = 0.01;
    others[3].local.warmup = 3;
    for other in others {
        std::fs::write(&file, &bytes).unwrap();
        assert_eq!(train(&machine, &other, 0).0, STEPS, "{other:?}");
    }
    std::fs::write(&file, &bytes).unwrap();
    assert_eq!(train(&machine, &job(), 0), (STEPS - 3, undisturbed()));
}

#[test]
fn nothing_is_left_when_a_round_is_over() {
    let folder = tempfile::tempdir().unwrap();
    let machine = machine(folder.path(), AT_ONCE);
    train(&machine, &job(), 0);
    assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 1);
    machine.over();
    assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 0);
    machine.over();
}

#[test]
fn a_round_that_is_not_wanted_stops_and_writes_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let machine = machine(folder.path(), AT_ONCE);
    let mut first = Counted { host: machine.round(Round(1)), steps: 0, killed_after: 0 };
    let second = machine.round(Round(2));
    trainer().train(&job(), &mut first).unwrap();
    assert_eq!(first.steps, 1);
    drop(second);
    assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 0);
}

#[test]
fn an_interrupted_process_writes_its_training_down_and_stops() {
    let folder = tempfile::tempdir().unwrap();
    let seldom = Budgets { snapshot_every: Duration::from_secs(3_600), ..AT_ONCE };
    let first = machine(folder.path(), seldom);
    first.interrupt();
    assert_eq!(train(&first, &job(), 0).0, 1);
    assert_eq!(train(&machine(folder.path(), seldom), &job(), 0), (STEPS - 1, undisturbed()));
}

#[test]
fn a_spent_time_budget_leaves_one_step_at_least() {
    let folder = tempfile::tempdir().unwrap();
    let (steps, trained) = train(&machine(folder.path(), Budgets { time: Some(Duration::ZERO), ..AT_ONCE }), &job(), 0);
    assert_eq!(steps, 1);
    assert!(trained.loss.is_finite() && trained.delta.iter().any(|&value| value != 0.0));
}

#[test]
fn a_memory_budget_cuts_steps_and_says_what_it_would_take() {
    // A softmax's gradient over all classes is 0 but for rounding, which Adam would blow up to whole steps.
    let optimizer = LocalOptimizer::Sgd { momentum: 0.9, weight_decay: 0.0 };
    let job = Job { local: LocalSteps { optimizer, ..job().local }, ..job() };
    let train = |memory| {
        let folder = tempfile::tempdir().unwrap();
        let budgets = Budgets { memory: Some(memory), ..AT_ONCE };
        trainer().train(&job, &mut machine(folder.path(), budgets).round(Round(1)))
    };
    let Err(TaskError::Memory(error)) = train(0) else { panic!("0 bytes are not enough") };
    assert!(error.least > error.fixed, "{error}");
    // One example at a time: the same to rounding, and not the same bits.
    let (cut, whole) = (train(error.least).unwrap(), train(u64::MAX).unwrap());
    assert_ne!(cut.delta, whole.delta);
    for (cut, whole) in cut.delta.iter().zip(&whole.delta) {
        assert!((cut - whole).abs() < 1e-6, "{cut} {whole}");
    }
    assert!((cut.loss - whole.loss).abs() < 1e-5);
    assert!(train(error.least - 1).is_err());
}

#[test]
fn what_is_due_follows_from_the_time() {
    let seconds = Duration::from_secs;
    let budgets = Budgets { time: Some(seconds(60)), snapshot_every: seconds(20), ..AT_ONCE };
    let mut pace = Pace { budgets, show_every: seconds(5), saved: Duration::ZERO, shown: Duration::ZERO };
    let mut due = |at| {
        let Due { stop, save, show } = pace.step(seconds(at));
        [stop, save, show]
    };
    assert_eq!(due(1), [false, false, false]);
    assert_eq!(due(5), [false, false, true]);
    assert_eq!(due(9), [false, false, false]);
    assert_eq!(due(21), [false, true, true]);
    assert_eq!(due(40), [false, false, true]);
    assert_eq!(due(41), [false, true, false]);
    assert_eq!(due(60), [true, false, true]);
    let short = Budgets { snapshot_every: seconds(9), ..AT_ONCE };
    let mut pace = Pace { budgets: short, show_every: Duration::ZERO, saved: Duration::ZERO, shown: Duration::ZERO };
    assert!(!pace.step(Duration::from_millis(1_999)).show && pace.step(seconds(2)).show, "short rounds are silent");
}
