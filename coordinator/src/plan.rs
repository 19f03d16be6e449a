//! What a run is: everything that shapes its rounds, checked once.
//!
//! A plan is data. It does not know where it came from (a file, a simulation) nor how far the run is.

use std::ops::RangeInclusive;
use std::sync::Arc;

use packfed_codec::{LayerSpec, Layout, LayoutError, Profile, Scales, Seed};
use packfed_protocol::{Digest, LAYERS_MAX, LayerPlan, LocalOptimizer, Plan, RunId};
use thiserror::Error;

use crate::aggregation::{Aggregation, Rule};
use crate::eligibility::Eligibility;
use crate::head::HeadPlan;
use crate::optimizer::ServerOptimizer;
use crate::pace::Pace;
use crate::staleness::StalenessWeight;
use crate::strikes::Strikes;

mod settings;

/// How many are waited for, how few will do, and for how long.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Phase {
    /// With this many the phase ends at once.
    pub goal: u32,
    /// With fewer than this at the time-out the round is abandoned.
    pub min: u32,
    /// Milliseconds until the time-out.
    pub timeout_ms: u64,
}

/// Local training of one round.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Training {
    /// Optimizer steps.
    pub steps: u32,
    /// Examples of one step.
    pub batch: u32,
    /// The optimizer's rate, in orthonormal-coefficient units.
    pub learning_rate: f32,
    /// How a gradient becomes a step.
    pub optimizer: LocalOptimizer,
    /// Decay decoupled from the gradient; it pulls a round's delta back to 0.
    pub weight_decay: f32,
    /// Steps over which the rate rises to its place, each round anew.
    pub warmup: u32,
    /// The longest that a gradient may be in Euclidean norm; 0 leaves every gradient as it is.
    pub clip_norm: f32,
    /// μ of FedProx: the loss has a term `μ/2·‖w − w_global‖²`; 0 has none.
    pub proximal: f32,
}

impl Training {
    /// Adam at one rate from the first step to the last.
    #[must_use]
    pub const fn adam(steps: u32, batch: u32, learning_rate: f32) -> Self {
        let optimizer = LocalOptimizer::AdamW;
        Self { steps, batch, learning_rate, optimizer, weight_decay: 0.0, warmup: 0, clip_norm: 0.0, proximal: 0.0 }
    }

    /// How far a lane moves in a round: under Adam at most about rate × steps; under gradient descent that times the
    /// gradient, which is taken for the norm that it is clipped to, or for 1, times what momentum repeats of it.
    fn reach(&self) -> f64 {
        let steps = f64::from(self.learning_rate) * f64::from(self.steps);
        match self.optimizer {
            LocalOptimizer::AdamW => steps,
            LocalOptimizer::Sgd { momentum } => {
                let gradient = if self.clip_norm > 0.0 { f64::from(self.clip_norm) } else { 1.0 };
                steps * gradient / (1.0 - f64::from(momentum))
            }
        }
    }

    fn check(&self) -> Result<(), PlanError> {
        range("training steps", f64::from(self.steps), 1.0..=1e6)?;
        range("training batch", f64::from(self.batch), 1.0..=1e6)?;
        let rate = f64::from(self.learning_rate);
        range("training learning_rate", rate, 1e-9..=1e3)?;
        if let LocalOptimizer::Sgd { momentum } = self.optimizer {
            range("training momentum", f64::from(momentum), 0.0..=0.999)?;
        }
        // A step takes away rate × decay of a value: more than all of it makes no sense.
        range("training weight_decay", f64::from(self.weight_decay), 0.0..=1.0 / rate)?;
        range("training warmup", f64::from(self.warmup), 0.0..=1e6)?;
        range("training clip_norm", f64::from(self.clip_norm), 0.0..=1e9)?;
        // Nor does a gradient step that leads back beyond where the round began.
        range("training proximal", f64::from(self.proximal), 0.0..=1.0 / rate)
    }
}

/// What makes a plan buffered (FedBuff: Nguyen et al., AISTATS 2022).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Buffered {
    /// Workers that may be at work at once.
    pub concurrency: u32,
    /// Versions that the base of an update may be behind the head.
    pub staleness_max: u32,
    /// What an update against an older base counts for.
    pub staleness_weight: StalenessWeight,
}

/// A plan before it is checked.
#[derive(Clone, Debug, PartialEq)]
pub struct RawPlan {
    /// The run's name on the wire.
    pub run: RunId,
    /// Where all of the run's randomness comes from.
    pub seed: Seed,
    /// BLAKE3 of the base model's file.
    pub base: Digest,
    /// The adapted matrices.
    pub layers: Vec<LayerSpec>,
    /// For each of them, the power of two that the rate is multiplied by.
    pub rate_exponents: Vec<i8>,
    /// Packing of the words, up and down.
    pub profile: Profile,
    /// Commits after which the run is finished.
    pub rounds: u64,
    /// Most examples that an update may claim.
    pub examples_max: u32,
    /// Local training.
    pub training: Training,
    /// Workers to wait for before a cohort is drawn.
    pub selection: Phase,
    /// Who may be drawn.
    pub eligibility: Eligibility,
    /// When those come back that are not needed.
    pub pace: Pace,
    /// What misbehaviour leads to.
    pub strikes: Strikes,
    /// Updates to wait for.
    pub reporting: Phase,
    /// Workers drawn beyond the reporting goal, so that stragglers need not be waited for.
    pub over_selection: u32,
    /// How accepted updates become one delta.
    pub aggregation: Aggregation,
    /// Workers are assigned whenever they are free, and a commit takes the next `reporting.goal` updates of any; nobody
    /// is selected.
    pub buffered: Option<Buffered>,
    /// The server optimizer.
    pub optimizer: ServerOptimizer,
    /// Quantization levels that the root mean square of a step spans on the way down.
    pub levels: f64,
    /// Steps that are remembered, to bring late workers up to date.
    pub history: u32,
}

/// A checked plan.
#[derive(Clone, Debug, PartialEq)]
pub struct RunPlan {
    raw: RawPlan,
    layout: Arc<Layout>,
}

/// Why a plan cannot be run.
#[derive(Debug, Clone, PartialEq, Error)]
pub enum PlanError {
    /// The layer list is not a layout.
    #[error(transparent)]
    Layout(#[from] LayoutError),
    /// A number is outside its bounds.
    #[error("{name} is {value}, allowed is {min} to {max}")]
    Range {
        /// Which number.
        name: &'static str,
        /// Its value.
        value: f64,
        /// Least allowed.
        min: f64,
        /// Most allowed.
        max: f64,
    },
    /// Fewer updates than the aggregation rule needs.
    #[error("reporting min is {min}, allowed is {needed} or more under aggregation {rule}: {why}")]
    Cohort {
        /// The rule.
        rule: &'static str,
        /// Where the bound comes from.
        why: String,
        /// Fewest updates of a round.
        min: usize,
        /// Fewest that the rule takes.
        needed: usize,
    },
    /// A rule that compares the updates of one window, for a run whose versions are of several.
    #[error("aggregation {rule} compares updates against one base, a buffered run has several; take mean, or rounds")]
    BufferedRule {
        /// The rule.
        rule: &'static str,
    },
    /// A server-optimizer parameter is outside its bounds.
    #[error("server optimizer: {0}")]
    Optimizer(String),
}

impl RunPlan {
    /// Checks a plan and cuts its layers into blocks.
    ///
    /// # Errors
    /// If a number is out of bounds; the error names it, its value and the bound.
    pub fn new(raw: RawPlan) -> Result<Self, PlanError> {
        check_numbers(&raw)?;
        if let Some(fault) = raw.optimizer.fault() {
            return Err(PlanError::Optimizer(fault));
        }
        let layout = Arc::new(Layout::new(&raw.seed, raw.layers.clone())?);
        Ok(Self { raw, layout })
    }

    /// A run's name on the wire: a hash of what a person calls it and of everything that its numbers mean.
    #[must_use]
    pub fn run_id(name: &str, seed: &Seed, base: &Digest, layout: &Layout) -> RunId {
        let mut bytes = name.as_bytes().to_vec();
        for part in [seed.bytes(), &base.0, &layout.digest().0] {
            bytes.extend_from_slice(part);
        }
        let [id @ .., _, _, _, _, _, _, _, _, _, _, _, _, _, _, _, _] = Digest::of(&bytes).0;
        RunId(id)
    }

    /// The plan as it was given.
    #[must_use]
    pub const fn raw(&self) -> &RawPlan {
        &self.raw
    }

    /// The model's blocks.
    #[must_use]
    pub const fn layout(&self) -> &Arc<Layout> {
        &self.layout
    }

    /// Bytes of the adapted matrices if every parameter were an f32 value.
    #[must_use]
    pub fn dense_bytes(&self) -> u64 {
        let parameters = |layer: &LayerSpec| (layer.rows as u64).saturating_mul(layer.cols as u64);
        self.raw.layers.iter().map(parameters).sum::<u64>().saturating_mul(4)
    }

    /// Digest of the layout, as the wire has it.
    #[must_use]
    pub fn layout_digest(&self) -> Digest {
        Digest(self.layout.digest().0)
    }

    /// Workers drawn for a round.
    #[must_use]
    pub const fn cohort(&self) -> u32 {
        self.raw.reporting.goal.saturating_add(self.raw.over_selection)
    }

    /// What the head needs to know.
    #[must_use]
    pub fn head(&self) -> HeadPlan {
        HeadPlan {
            profile: self.raw.profile,
            optimizer: self.raw.optimizer,
            levels: self.raw.levels,
            history: usize::try_from(self.raw.history).unwrap_or(usize::MAX),
        }
    }

    /// Scales of the first round: as far as a lane is expected to move fits.
    #[must_use]
    pub fn first_scales(&self) -> Vec<Scales> {
        let reach = self.raw.training.reach();
        let exponent = |lane, rate: i8| {
            let max = f64::from(self.raw.profile.lane_max(lane));
            let fits = |&e: &i8| 2f64.powi(e.into()) * max >= reach * 2f64.powi(rate.into());
            Scales::EXPONENTS.into_iter().find(fits).unwrap_or(*Scales::EXPONENTS.end())
        };
        let of_layer =
            |&rate: &i8| Scales { wave: exponent(0, rate), residual: exponent(packfed_codec::WAVE_LANES, rate) };
        self.raw.rate_exponents.iter().map(of_layer).collect()
    }

    /// The plan as a worker is told it.
    ///
    /// # Panics
    /// Never: every size was checked against the wire's width.
    #[must_use]
    pub fn message(&self) -> Plan {
        let raw = &self.raw;
        let layer = |(spec, &rate_exponent): (&LayerSpec, &i8)| LayerPlan {
            name: spec.name.clone(),
            rows: narrow(spec.rows),
            cols: narrow(spec.cols),
            block: u16::try_from(spec.block).expect("a block edge is at most 512"),
            residual: u16::try_from(spec.residual).expect("checked to be at most 65,535"),
            gain_exponent: spec.gain_exponent,
            rate_exponent,
        };
        Plan {
            run: raw.run,
            seed: *raw.seed.bytes(),
            base: raw.base,
            layout: self.layout_digest(),
            profile: raw.profile.number(),
            rounds: raw.rounds,
            examples_max: raw.examples_max,
            layers: raw.layers.iter().zip(&raw.rate_exponents).map(layer).collect(),
        }
    }
}

fn narrow(size: usize) -> u32 {
    u32::try_from(size).expect("an edge is below 2^22")
}

/// A layer learns at most 2 to this times faster or slower than the rate.
const RATE_EXPONENT_MAX: f64 = 16.0;

fn check_numbers(raw: &RawPlan) -> Result<(), PlanError> {
    range("number of layers", raw.layers.len() as f64, 1.0..=LAYERS_MAX as f64)?;
    for layer in &raw.layers {
        range("residual", layer.residual as f64, 0.0..=f64::from(u16::MAX))?;
    }
    let rates = raw.rate_exponents.len() as f64;
    range("number of rate exponents", rates, raw.layers.len() as f64..=raw.layers.len() as f64)?;
    for &exponent in &raw.rate_exponents {
        range("rate_exponent", f64::from(exponent), -RATE_EXPONENT_MAX..=RATE_EXPONENT_MAX)?;
    }
    range("rounds", raw.rounds as f64, 1.0..=1e12)?;
    range("examples_max", f64::from(raw.examples_max), 1.0..=f64::from(1u32 << 24))?;
    raw.training.check()?;
    if let Some(buffered) = &raw.buffered {
        range("buffered concurrency", f64::from(buffered.concurrency), 1.0..=1e4)?;
        range("buffered staleness_max", f64::from(buffered.staleness_max), 0.0..=1e3)?;
        range("reporting over_selection of a buffered run", f64::from(raw.over_selection), 0.0..=0.0)?;
        if let Rule::Robust(_) = raw.aggregation.rule {
            return Err(PlanError::BufferedRule { rule: raw.aggregation.name() });
        }
    }
    range("levels", raw.levels, 0.125..=64.0)?;
    range("history", f64::from(raw.history), 0.0..=1e6)?;
    range("reporting over_selection", f64::from(raw.over_selection), 0.0..=1e6)?;
    check_phase(["selection goal", "selection min", "selection timeout_ms"], &raw.selection)?;
    check_phase(["reporting goal", "reporting min", "reporting timeout_ms"], &raw.reporting)?;
    raw.aggregation.check(&raw.reporting)?;
    raw.eligibility.check_bounds()?;
    raw.strikes.check()?;
    raw.pace.check(held_min(raw))?;
    let drawn = f64::from(raw.reporting.goal) + f64::from(raw.over_selection);
    range("selection goal", f64::from(raw.selection.goal), drawn..=1e6)?;
    range("selection min", f64::from(raw.selection.min), f64::from(raw.reporting.min)..=1e6)
}

/// Workers that have to be held at once, so that nobody who is needed is sent away: in a buffered run those who may be
/// at work, beside those whose update of the same version waits.
fn held_min(raw: &RawPlan) -> u64 {
    let buffered = raw.buffered.map_or(0, |buffered| buffered.concurrency.saturating_add(raw.reporting.goal));
    raw.selection.goal.max(buffered).into()
}

fn check_phase([goal, min, timeout_ms]: [&'static str; 3], phase: &Phase) -> Result<(), PlanError> {
    range(goal, f64::from(phase.goal), 1.0..=1e6)?;
    range(min, f64::from(phase.min), 1.0..=f64::from(phase.goal))?;
    range(timeout_ms, phase.timeout_ms as f64, 1.0..=30.0 * 24.0 * 3.6e6)
}

pub(crate) fn range(name: &'static str, value: f64, bounds: RangeInclusive<f64>) -> Result<(), PlanError> {
    if bounds.contains(&value) {
        return Ok(());
    }
    Err(PlanError::Range { name, value, min: *bounds.start(), max: *bounds.end() })
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    /// A small valid plan: three workers selected of three, two reports suffice.
    pub(crate) fn raw() -> RawPlan {
        let spec = LayerSpec { name: "w".into(), rows: 8, cols: 8, block: 4, residual: 16, gain_exponent: 4 };
        RawPlan {
            run: RunId([7; 16]),
            seed: Seed::from_number(1),
            base: Digest([1; 32]),
            layers: vec![spec],
            rate_exponents: vec![0],
            profile: Profile::Plain,
            rounds: 2,
            examples_max: 100,
            training: Training::adam(10, 8, 0.1),
            selection: Phase { goal: 3, min: 2, timeout_ms: 1_000 },
            eligibility: Eligibility::ANYBODY,
            pace: Pace::DEFAULT,
            strikes: Strikes { suspend_at: 3, suspended_ms: 2_000 },
            reporting: Phase { goal: 3, min: 2, timeout_ms: 5_000 },
            over_selection: 0,
            aggregation: Aggregation::MEAN,
            buffered: None,
            optimizer: ServerOptimizer::FedAvg { rate: 1.0 },
            levels: 2.0,
            history: 8,
        }
    }

    #[test]
    fn the_first_scales_hold_what_adam_can_move() {
        let plan = RunPlan::new(raw()).unwrap();
        let scales = plan.first_scales()[0];
        for (lane, exponent) in [(0, scales.wave), (2, scales.residual)] {
            let reach = 2f64.powi(exponent.into()) * f64::from(Profile::Plain.lane_max(lane));
            assert!((1.0..2.1).contains(&reach), "{reach}");
        }
    }

    fn buffered(concurrency: u32, staleness_max: u32) -> Option<Buffered> {
        Some(Buffered { concurrency, staleness_max, staleness_weight: StalenessWeight::Constant })
    }

    #[test]
    fn numbers_out_of_bounds_are_named_with_their_bound() {
        let error = |change: fn(&mut RawPlan)| {
            let mut raw = raw();
            change(&mut raw);
            RunPlan::new(raw).unwrap_err().to_string()
        };
        assert_eq!(error(|raw| raw.reporting.min = 4), "reporting min is 4, allowed is 1 to 3");
        assert_eq!(error(|raw| raw.pace.held_max = 2), "pace held_max is 2, allowed is 3 to 1000000");
        assert!(error(|raw| raw.strikes.suspended_ms = u64::MAX).starts_with("strikes suspended_ms is 1844"));
        assert!(error(|raw| raw.eligibility.separation_ms = u64::MAX).starts_with("selection separation_ms is 1844"));
        assert_eq!(error(|raw| raw.over_selection = 1), "selection goal is 3, allowed is 4 to 1000000");
        assert_eq!(
            error(|raw| raw.training.learning_rate = f32::NAN),
            "training learning_rate is NaN, allowed is 0.000000001 to 1000"
        );
        assert!(
            error(|raw| raw.training.weight_decay = 11.0)
                .starts_with("training weight_decay is 11, allowed is 0 to 9.99")
        );
        assert!(
            error(|raw| raw.training.optimizer = LocalOptimizer::Sgd { momentum: 1.0 })
                .starts_with("training momentum is 1, allowed is 0 to")
        );
        assert!(error(|raw| raw.training.clip_norm = -1.0).starts_with("training clip_norm is -1, allowed is 0 to"));
        assert!(error(|raw| raw.training.proximal = 11.0).starts_with("training proximal is 11, allowed is 0 to 9.99"));
        assert!(error(|raw| raw.training.warmup = 2_000_000).starts_with("training warmup is 2000000, allowed is 0"));
        assert!(error(|raw| raw.buffered = buffered(0, 1)).starts_with("buffered concurrency is 0, allowed is 1"));
        assert!(error(|raw| raw.buffered = buffered(1, 1_001)).starts_with("buffered staleness_max is 1001"));
        let both: fn(&mut RawPlan) = |raw| (raw.buffered, raw.over_selection) = (buffered(1, 1), 1);
        let robust: fn(&mut RawPlan) = |raw| {
            raw.buffered = buffered(1, 1);
            raw.aggregation.rule = Rule::Robust(crate::aggregation::RobustRule::Median);
        };
        assert!(error(robust).starts_with("aggregation median compares updates against one base"));
        assert_eq!(error(both), "reporting over_selection of a buffered run is 1, allowed is 0 to 0");
        assert!(error(|raw| raw.layers[0].block = 0).contains("block is 0"));
        assert!(error(|raw| raw.optimizer = ServerOptimizer::FedAvg { rate: -1.0 }).contains("rate is -1"));
    }
}
