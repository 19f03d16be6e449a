//! All that shapes a run, as a file or a simulation says it.

use packfed_codec::{LayerSpec, Layout, Profile, Seed};
use packfed_protocol::{Conditions, Digest, LAYER_NAME_BYTES_MAX, LocalOptimizer};
use serde::{Deserialize, Serialize};

use super::{AggregationTable, ConfigError};
use crate::eligibility::Eligibility;
use crate::optimizer::ServerOptimizer;
use crate::pace::Pace;
use crate::plan::{Buffered, Phase, PlanError, RawPlan, RunPlan, Training};
use crate::staleness::StalenessWeight;
use crate::strikes::Strikes;

/// A run before it is checked: the tables of a file that shape it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RunConfig {
    /// What the run is.
    pub run: RunTable,
    /// The adapted matrices.
    pub layers: Vec<LayerTable>,
    /// Local training of one round.
    pub training: TrainingTable,
    /// Workers to wait for before a cohort is drawn.
    pub selection: SelectionTable,
    /// When workers come back that are not needed.
    #[serde(default)]
    pub pace: Pace,
    /// What misbehaviour leads to.
    #[serde(default)]
    pub strikes: Strikes,
    /// Updates to wait for.
    pub reporting: ReportingTable,
    /// How accepted updates become one delta. Default the mean.
    #[serde(default)]
    pub aggregation: AggregationTable,
    /// Without rounds, if it is there.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub buffered: Option<BufferedTable>,
    /// How that becomes a step.
    pub server_optimizer: ServerOptimizer,
}

/// `[run]`: name, randomness, base, length, and how words are packed.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RunTable {
    /// What people call it; part of the run's id.
    pub name: String,
    /// Where all of the run's randomness comes from; TOML has integers up to 2^63 − 1.
    pub seed: u64,
    /// BLAKE3 of the base model's file, 64 hex digits.
    pub base: Digest,
    /// Commits after which the run is finished.
    pub rounds: u64,
    /// Most examples that one update may claim. Default 65,536.
    #[serde(default = "examples_max")]
    pub examples_max: u32,
    /// Packing of the words. Default plain.
    #[serde(default)]
    pub profile: ProfileName,
    /// Quantization levels that the root mean square of a step spans on the way down. Default 1.
    #[serde(default = "levels")]
    pub levels: f64,
    /// Steps that are remembered, to bring late workers up to date. Default 64.
    #[serde(default = "history")]
    pub history: u32,
}

/// A word profile by its name.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ProfileName {
    /// Two lanes of 16 bits and 12 of 8.
    #[default]
    Plain,
    /// Two lanes of 8 bits and 28 of 4.
    Nibble,
}

/// One of `[[layers]]`: an adapted matrix.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LayerTable {
    /// The path of its weight in the base model.
    pub name: String,
    /// Rows: outputs.
    pub rows: usize,
    /// Columns: inputs.
    pub cols: usize,
    /// The edge of a block.
    pub block: usize,
    /// Residual coefficients of a block.
    pub residual: usize,
    /// The gain of the wave is two to this. Default 6.
    #[serde(default = "gain_exponent")]
    pub gain_exponent: i8,
    /// Its lanes learn at two to this times the rate. Default 0.
    #[serde(default)]
    pub rate_exponent: i8,
}

/// `[training]`: a worker's part of one round.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TrainingTable {
    /// Optimizer steps.
    pub steps: u32,
    /// Examples of one step.
    pub batch: u32,
    /// The optimizer's rate, in orthonormal-coefficient units.
    pub learning_rate: f32,
    /// How a gradient becomes a step. Default AdamW.
    #[serde(default)]
    pub optimizer: LocalOptimizerName,
    /// Of SGD. Default 0.
    #[serde(default)]
    pub momentum: f32,
    /// Decay decoupled from the gradient; it pulls a round's delta back to 0. Default 0.
    #[serde(default)]
    pub weight_decay: f32,
    /// Steps over which the rate rises to its place, each round anew. Default 0.
    #[serde(default)]
    pub warmup: u32,
    /// The longest that a gradient may be in Euclidean norm; 0, the default, leaves every gradient as it is.
    #[serde(default)]
    pub clip_norm: f32,
    /// μ of FedProx, which pulls a worker's weights to the global ones. Default 0.
    #[serde(default)]
    pub proximal: f32,
}

/// A local optimizer by its name.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum LocalOptimizerName {
    /// Adam with decoupled decay; without decay it is Adam.
    #[default]
    AdamW,
    /// Gradient descent with momentum.
    Sgd,
}

impl TrainingTable {
    /// Adam at one rate from the first step to the last.
    #[must_use]
    pub const fn adam(steps: u32, batch: u32, learning_rate: f32) -> Self {
        let optimizer = LocalOptimizerName::AdamW;
        Self {
            steps,
            batch,
            learning_rate,
            optimizer,
            momentum: 0.0,
            weight_decay: 0.0,
            warmup: 0,
            clip_norm: 0.0,
            proximal: 0.0,
        }
    }

    fn training(self) -> Result<Training, PlanError> {
        let Self { steps, batch, learning_rate, optimizer, momentum, weight_decay, warmup, clip_norm, proximal } = self;
        let optimizer = match optimizer {
            LocalOptimizerName::AdamW if momentum != 0.0 => {
                let value = f64::from(momentum);
                return Err(PlanError::Range { name: "training momentum of adamw", value, min: 0.0, max: 0.0 });
            }
            LocalOptimizerName::AdamW => LocalOptimizer::AdamW,
            LocalOptimizerName::Sgd => LocalOptimizer::Sgd { momentum },
        };
        Ok(Training { steps, batch, learning_rate, optimizer, weight_decay, warmup, clip_norm, proximal })
    }
}

/// `[selection]`: how many workers are waited for before a cohort is drawn, and who may be.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SelectionTable {
    /// With this many the cohort is drawn at once.
    pub goal: u32,
    /// With fewer than this at the time-out nobody is drawn.
    pub min: u32,
    /// Milliseconds until the time-out.
    pub timeout_ms: u64,
    /// Only workers that draw no power from a battery. Default no.
    #[serde(default)]
    pub charging: bool,
    /// Only workers whose network does not cost by the byte. Default no.
    #[serde(default)]
    pub unmetered: bool,
    /// Only workers whose machine nobody uses. Default no.
    #[serde(default)]
    pub idle: bool,
    /// Only workers with so many examples. Default 0.
    #[serde(default)]
    pub examples_min: u32,
    /// Milliseconds between two times that a worker is drawn. Default 0.
    #[serde(default)]
    pub separation_ms: u64,
}

impl SelectionTable {
    /// So many workers, whoever they are.
    #[must_use]
    pub const fn of(goal: u32, min: u32, timeout_ms: u64) -> Self {
        let (charging, unmetered, idle) = (false, false, false);
        Self { goal, min, timeout_ms, charging, unmetered, idle, examples_min: 0, separation_ms: 0 }
    }

    const fn eligibility(&self) -> Eligibility {
        let &Self { charging, unmetered, idle, examples_min, separation_ms, .. } = self;
        Eligibility { conditions: Conditions { charging, unmetered, idle }, examples_min, separation_ms }
    }
}

/// `[reporting]`: how many updates are waited for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ReportingTable {
    /// With this many the round is aggregated at once.
    pub goal: u32,
    /// With fewer than this at the time-out the round is abandoned.
    pub min: u32,
    /// Milliseconds until the time-out.
    pub timeout_ms: u64,
    /// Workers drawn beyond the goal, so that stragglers need not be waited for. Default 0.
    #[serde(default)]
    pub over_selection: u32,
}

/// `[buffered]`: workers are assigned whenever they are free, and each `reporting.goal` updates make a version.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct BufferedTable {
    /// Workers that may be at work at once.
    pub concurrency: u32,
    /// Versions that the base of an update may be behind the head. Default 20.
    #[serde(default = "staleness_max")]
    pub staleness_max: u32,
    /// What an update against an older base counts for. Default inverse-sqrt.
    #[serde(default)]
    pub staleness_weight: StalenessWeight,
}

impl BufferedTable {
    /// So many at work, and the defaults.
    #[must_use]
    pub const fn new(concurrency: u32) -> Self {
        Self { concurrency, staleness_max: staleness_max(), staleness_weight: StalenessWeight::InverseSqrt }
    }
}

impl RunConfig {
    /// Checks every number and cuts the layers into blocks.
    ///
    /// # Errors
    /// If a number or a name is out of bounds; the error names it, its value and the bound.
    pub fn plan(&self) -> Result<RunPlan, ConfigError> {
        printable("run name", &self.run.name)?;
        for layer in &self.layers {
            printable("layers name", &layer.name)?;
        }
        let (seed, layers) = (Seed::from_number(self.run.seed), self.layers.iter().map(LayerTable::spec).collect());
        let layout = Layout::new(&seed, layers).map_err(PlanError::from)?;
        let run = RunPlan::run_id(&self.run.name, &seed, &self.run.base, &layout);
        Ok(RunPlan::new(RawPlan {
            run,
            seed,
            base: self.run.base,
            layers: self.layers.iter().map(LayerTable::spec).collect(),
            rate_exponents: self.layers.iter().map(|layer| layer.rate_exponent).collect(),
            profile: self.run.profile.into(),
            rounds: self.run.rounds,
            examples_max: self.run.examples_max,
            training: self.training.training()?,
            selection: self.selection.into(),
            eligibility: self.selection.eligibility(),
            pace: self.pace,
            strikes: self.strikes,
            reporting: self.reporting.into(),
            over_selection: self.reporting.over_selection,
            aggregation: self.aggregation.aggregation()?,
            buffered: self.buffered.map(Buffered::from),
            optimizer: self.server_optimizer,
            levels: self.run.levels,
            history: self.run.history,
        })?)
    }
}

impl LayerTable {
    fn spec(&self) -> LayerSpec {
        let Self { name, rows, cols, block, residual, gain_exponent, rate_exponent: _ } = self.clone();
        LayerSpec { name, rows, cols, block, residual, gain_exponent }
    }
}

impl From<ProfileName> for Profile {
    fn from(name: ProfileName) -> Self {
        match name {
            ProfileName::Plain => Self::Plain,
            ProfileName::Nibble => Self::Nibble,
        }
    }
}

impl From<BufferedTable> for Buffered {
    fn from(table: BufferedTable) -> Self {
        let BufferedTable { concurrency, staleness_max, staleness_weight } = table;
        Self { concurrency, staleness_max, staleness_weight }
    }
}

impl From<SelectionTable> for Phase {
    fn from(table: SelectionTable) -> Self {
        let SelectionTable { goal, min, timeout_ms, .. } = table;
        Self { goal, min, timeout_ms }
    }
}

impl From<ReportingTable> for Phase {
    fn from(table: ReportingTable) -> Self {
        let ReportingTable { goal, min, timeout_ms, over_selection: _ } = table;
        Self { goal, min, timeout_ms }
    }
}

/// A name that a peer takes and a terminal shows as it is.
fn printable(key: &'static str, value: &str) -> Result<(), ConfigError> {
    if (1..=LAYER_NAME_BYTES_MAX).contains(&value.len()) && !value.contains(char::is_control) {
        return Ok(());
    }
    let bound = format!("allowed are 1 to {LAYER_NAME_BYTES_MAX} bytes without control characters");
    Err(ConfigError::Text { key, value: value.to_owned(), bound })
}

const fn examples_max() -> u32 {
    65_536
}

const fn staleness_max() -> u32 {
    20
}

const fn levels() -> f64 {
    1.0
}

const fn history() -> u32 {
    64
}

const fn gain_exponent() -> i8 {
    6
}
