//! What a simulated run is asked for, and the run that follows from it.

use packfed_codec::Seed;
use packfed_coordinator::config::{
    AggregationTable, LayerTable, ProfileName, ReportingTable, RunConfig, RunTable, SelectionTable, TrainingTable,
};
use packfed_coordinator::optimizer::ServerOptimizer;
use packfed_coordinator::pace::Pace;
use packfed_coordinator::strikes::Strikes;
use packfed_protocol::{Digest, Identity};
use packfed_worker::mlp::{Dense, Mlp};

use crate::partition::Partition;

/// Sizes and seed of a run.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Options {
    /// Rounds to commit.
    pub rounds: u64,
    /// Workers of the fleet.
    pub workers: u32,
    /// Workers of a round.
    pub cohort: u32,
    /// The number that all randomness follows from.
    pub seed: u64,
    /// How the examples are spread over the workers.
    pub partition: Partition,
    /// How packfed's words are packed.
    pub profile: ProfileName,
    /// Threads to compute on; the results do not depend on it.
    pub threads: usize,
}

/// The task's own partition: uneven by label.
pub const UNEVEN: Partition = Partition::Dirichlet { alpha: 0.3 };

/// Local steps of a round.
pub const STEPS: u32 = 10;
/// Examples of a step.
pub const BATCH: u32 = 32;
/// The server optimizer of every method: with ten of fifty non-IID workers a round, averaging over rounds
/// as well as over workers steadies each of them.
pub const SERVER_OPTIMIZER: ServerOptimizer = ServerOptimizer::FedAvgM { rate: 0.5, momentum: 0.5 };
/// packfed's local rate, in orthonormal-coefficient units.
const LEARNING_RATE: f32 = 0.02;
/// Block edge of the hidden layers.
const BLOCK: usize = 28;
/// Residual positions of their blocks: four turns of the window.
const RESIDUAL: usize = 48;
/// Block edge of the head, whose blocks use all their positions.
const HEAD_BLOCK: usize = 4;
/// A wave stays below 2^6, far above what training reaches.
const GAIN_EXPONENT: i8 = 6;
/// Levels of a step's root mean square on the way down: one bit and a sign, the rest is made good later.
const LEVELS: f64 = 1.0;
/// Steps that the coordinator remembers.
const HISTORY: u32 = 64;
/// Time-outs: long, so that only a dead worker meets them.
const SELECTION_MS: u64 = 60_000;
const REPORTING_MS: u64 = 60_000;

impl Options {
    /// The seed as the run has it.
    #[must_use]
    pub fn run_seed(&self) -> Seed {
        Seed::from_number(self.seed)
    }

    /// The workers' keys, the same in a simulation and in a fleet of processes.
    #[must_use]
    pub fn identities(&self) -> Vec<Identity> {
        let identity = |n| Identity::from_seed(*self.run_seed().derive("packfed/identity/1", &[n]).bytes());
        (0..u64::from(self.workers)).map(identity).collect()
    }
}

/// The run of the `digits` task: B = 28 for the hidden layers, B = 4 for the head; biases stay frozen.
#[must_use]
pub fn digits_run(options: &Options, base: &Mlp, base_digest: Digest) -> RunConfig {
    let last = base.layers.len() - 1;
    let layer = |(n, layer): (usize, &Dense)| LayerTable {
        name: format!("layers.{n}.weight"),
        rows: layer.outputs(),
        cols: layer.inputs,
        block: if n < last { BLOCK } else { HEAD_BLOCK },
        residual: RESIDUAL,
        gain_exponent: GAIN_EXPONENT,
        rate_exponent: 0,
    };
    RunConfig {
        run: RunTable {
            name: "digits".into(),
            seed: options.seed,
            base: base_digest,
            rounds: options.rounds,
            examples_max: 1 << 16,
            profile: options.profile,
            levels: LEVELS,
            history: HISTORY,
        },
        layers: base.layers.iter().enumerate().map(layer).collect(),
        training: TrainingTable::adam(STEPS, BATCH, LEARNING_RATE),
        selection: SelectionTable::of(options.workers, options.cohort, SELECTION_MS),
        pace: Pace::DEFAULT,
        strikes: Strikes::DEFAULT,
        reporting: ReportingTable {
            goal: options.cohort,
            min: options.cohort.div_ceil(2),
            timeout_ms: REPORTING_MS,
            over_selection: 0,
        },
        aggregation: AggregationTable::default(),
        buffered: None,
        server_optimizer: SERVER_OPTIMIZER,
    }
}
