//! packfed beside its baselines on one task: the main job of the simulator.

use packfed_coordinator::config::ConfigError;
use packfed_worker::local::LocalSteps;
use packfed_worker::personal::PersonalError;
use packfed_worker::task::TaskError;
use thiserror::Error;

use crate::baseline::dense::DenseModel;
use crate::baseline::lora::LoraModel;
use crate::baseline::tuned::Baseline;
use crate::federated::FederatedTask;
use crate::mode::Mode;
use crate::options::{BATCH, Options, SERVER_OPTIMIZER, STEPS, digits_run};
use crate::packed::{self, Finished};
use crate::progress::Progress;
use crate::resilience::Resilience;
use crate::results::{MethodResult, PersonalResult, Results};
use crate::task::{SetupError, Task};
use crate::text::Texts;
use crate::text::flat::{Adaptation, FlatText};
use crate::text::run::{Rates, TextRun};
use crate::virtual_fleet::{Devices, FleetError, PHONES};

/// A method to run beside packfed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Method {
    /// Every parameter trained and shipped.
    Dense,
    /// Low-rank factors of rank 4, the head whole.
    LoraR4,
    /// Low-rank factors of rank 8, the head whole.
    LoraR8,
}

/// Why a comparison ended early.
#[derive(Debug, Error)]
pub enum CompareError {
    /// The task could not be made.
    #[error(transparent)]
    Setup(#[from] SetupError),
    /// The plan is out of bounds.
    #[error(transparent)]
    Plan(#[from] ConfigError),
    /// The simulated fleet did not get through.
    #[error(transparent)]
    Fleet(#[from] FleetError),
    /// A model could not be trained or tested.
    #[error("training or testing failed: {0}")]
    Training(#[from] TaskError),
    /// Private lanes could not be trained.
    #[error(transparent)]
    Personal(#[from] PersonalError),
    /// A baseline without a learning rate.
    #[error("a baseline needs at least one learning rate")]
    NoRate,
}

/// Learning rates that dense FedAvg tries.
const DENSE_RATES: [f32; 4] = [2.5e-4, 5e-4, 1e-3, 2e-3];
/// Learning rates that LoRA FedAvg tries.
const LORA_RATES: [f32; 3] = [3e-3, 6e-3, 1.2e-2];

impl Method {
    /// Every baseline, in the order of the table.
    pub const ALL: [Self; 3] = [Self::Dense, Self::LoraR4, Self::LoraR8];

    /// Its name in flags, tables and files.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Dense => "dense",
            Self::LoraR4 => "lora-r4",
            Self::LoraR8 => "lora-r8",
        }
    }

    fn run(self, task: &Task, options: &Options, progress: &Progress) -> Result<MethodResult, CompareError> {
        let (name, seed) = (self.name(), options.run_seed());
        let lora = |rank| {
            let (model, initial) = LoraModel::new(task.base.clone(), rank, &seed).map_err(TaskError::from)?;
            baseline(name, model, initial, &LORA_RATES).run(task, options, progress)
        };
        match self {
            Self::Dense => {
                let (model, initial) = DenseModel::new(&task.base);
                baseline(name, model, initial, &DENSE_RATES).run(task, options, progress)
            }
            Self::LoraR4 => lora(4),
            Self::LoraR8 => lora(8),
        }
    }
}

fn baseline<'a, M>(name: &'a str, model: M, initial: Vec<f32>, rates: &'a [f32]) -> Baseline<'a, M> {
    let steps = LocalSteps::adam(STEPS, BATCH, rates[0]);
    Baseline { name, model, initial, rates, steps, optimizer: SERVER_OPTIMIZER }
}

/// Runs packfed and the named baselines on `digits`.
///
/// # Errors
/// If the task cannot be made or a method fails.
pub fn digits(options: &Options, methods: &[Method], progress: &Progress) -> Result<Results, CompareError> {
    digits_under(&Resilience::default(), options, methods, progress)
}

/// The same under an aggregation rule and with workers that lie; they attack packfed alone.
///
/// # Errors
/// If the task cannot be made, the rule does not fit the run, or a method fails.
pub fn digits_under(
    resilience: &Resilience,
    options: &Options,
    methods: &[Method],
    progress: &Progress,
) -> Result<Results, CompareError> {
    digits_on(resilience, (Mode::default(), PHONES), options, methods, progress)
}

/// The same, packfed's versions coming about in a mode of the caller's choice, on devices likewise. Baselines have
/// rounds and no devices.
///
/// # Errors
/// As [`digits_under`].
pub fn digits_on(
    resilience: &Resilience,
    (mode, devices): (Mode, Devices),
    options: &Options,
    methods: &[Method],
    progress: &Progress,
) -> Result<Results, CompareError> {
    progress.note("pre-training the base model");
    let task = Task::digits(options)?;
    let run = resilience.applied(mode.of(digits_run(options, &task.base, task.base_digest())))?;
    let mut records =
        vec![packed::run_attacked_on(&task, options, run.plan()?, resilience.malice, devices, progress)?.result];
    for method in methods {
        records.push(method.run(&task, options, progress)?);
    }
    Ok(Results { task: "digits".into(), seed: options.seed, metric: task.metric(), methods: records, personal: None })
}

/// Runs packfed and the named baselines on a task of text.
///
/// # Errors
/// If the plan is out of bounds or a method fails.
pub fn text(
    texts: &Texts,
    run: &TextRun,
    options: &Options,
    methods: &[Method],
    progress: &Progress,
) -> Result<Results, CompareError> {
    text_under(&Resilience::default(), texts, run, options, methods, progress)
}

/// The same under an aggregation rule and with workers that lie; they attack packfed alone.
///
/// # Errors
/// If the plan is out of bounds, the rule does not fit the run, or a method fails.
pub fn text_under(
    resilience: &Resilience,
    texts: &Texts,
    run: &TextRun,
    options: &Options,
    methods: &[Method],
    progress: &Progress,
) -> Result<Results, CompareError> {
    let (result, personal) = packed_text(resilience, texts, run, options, progress)?;
    let mut records = vec![result];
    for method in methods {
        records.push(method.run_text(texts, run, options, progress)?);
    }
    Ok(Results { task: run.name.into(), seed: options.seed, metric: texts.metric(), methods: records, personal })
}

/// packfed alone on a task of text, with the personal models that the run asks for.
///
/// # Errors
/// If the plan is out of bounds or training fails.
pub fn packed_text(
    resilience: &Resilience,
    texts: &Texts,
    run: &TextRun,
    options: &Options,
    progress: &Progress,
) -> Result<(MethodResult, Option<PersonalResult>), CompareError> {
    let config = run.config(options, texts.model.matrices(), texts.base_digest());
    let plan = resilience.applied(config)?.plan()?;
    let Finished { result, state } = packed::run_attacked(texts, options, plan, resilience.malice, progress)?;
    let personal = match &run.personal {
        Some(plan) => {
            progress.note("training every worker's private lanes");
            Some(texts.personalize(&state, plan, &options.run_seed())?)
        }
        None => None,
    };
    Ok((result, personal))
}

impl Method {
    /// A baseline alone on a task of text, under every rate that the run names for it.
    ///
    /// # Errors
    /// If training fails under every rate.
    pub fn run_text(
        self,
        texts: &Texts,
        run: &TextRun,
        options: &Options,
        progress: &Progress,
    ) -> Result<MethodResult, CompareError> {
        let (adaptation, Rates { rates, head_factor }) = match self {
            Self::Dense => (Adaptation::Dense, run.dense),
            Self::LoraR4 => (Adaptation::LowRank(4), run.lora),
            Self::LoraR8 => (Adaptation::LowRank(8), run.lora),
        };
        let (model, initial) = FlatText::new(texts.model.clone(), adaptation, head_factor, &options.run_seed())
            .map_err(TaskError::from)?;
        let steps = LocalSteps::adam(run.training.steps, run.training.batch, run.training.learning_rate);
        let baseline = Baseline { name: self.name(), model, initial, rates, steps, optimizer: run.optimizer };
        baseline.run(texts, options, progress)
    }
}
