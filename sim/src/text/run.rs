//! The run of a task of text: which matrices are adapted and how, and how rounds are trained and joined.

use packfed_codec::LayerSpec;
use packfed_coordinator::config::{
    AggregationTable, LayerTable, ReportingTable, RunConfig, RunTable, SelectionTable, TrainingTable,
};
use packfed_coordinator::optimizer::ServerOptimizer;
use packfed_coordinator::pace::Pace;
use packfed_coordinator::strikes::Strikes;
use packfed_protocol::Digest;
use packfed_worker::model::MatrixSpec;
use packfed_worker::patterns::Blocks;
use packfed_worker::personal::Personalization;

use super::personal::PERSONAL;
use crate::options::Options;

/// How packfed trains a transformer.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct TextRun {
    /// Name of the task.
    pub name: &'static str,
    /// How matrices are cut.
    pub blocks: Blocks,
    /// Local training of a round.
    pub training: TrainingTable,
    /// The server optimizer.
    pub optimizer: ServerOptimizer,
    /// Levels of a step's root mean square on the way down.
    pub levels: f64,
    /// Private lanes that every worker trains over the final model.
    pub personal: Option<Personalization>,
    /// What dense FedAvg tries.
    pub dense: Rates,
    /// What LoRA FedAvg tries.
    pub lora: Rates,
}

/// Learning rates to try.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Rates {
    /// The rates.
    pub rates: &'static [f32],
    /// A classifier, which begins at zero, learns this many times faster.
    pub head_factor: f32,
}

/// Larger blocks of the classifier than usual: four times fewer words, and better accuracy on banking77.
pub(super) const BLOCKS: Blocks = Blocks { head_block: 8, ..Blocks::DEFAULT };

/// 77 intents on a small encoder.
pub const BANKING77: TextRun = TextRun {
    name: "banking77",
    blocks: BLOCKS,
    training: TrainingTable::adam(6, 32, 0.01),
    optimizer: ServerOptimizer::FedAvgM { rate: 1.0, momentum: 0.5 },
    levels: 1.0,
    personal: None,
    dense: Rates { rates: &[1e-4, 2e-4, 4e-4], head_factor: 16.0 },
    lora: Rates { rates: &[1e-3, 2e-3, 4e-3], head_factor: 4.0 },
};

/// Plays on a small decoder.
pub const SHAKESPEARE: TextRun = TextRun {
    name: "shakespeare",
    blocks: BLOCKS,
    training: TrainingTable::adam(8, 2, 0.005),
    optimizer: ServerOptimizer::FedAvgM { rate: 1.0, momentum: 0.5 },
    levels: 1.0,
    personal: Some(PERSONAL),
    dense: Rates { rates: &[2e-5, 5e-5, 1e-4], head_factor: 1.0 },
    lora: Rates { rates: &[2e-4, 5e-4, 1e-3], head_factor: 1.0 },
};

/// Steps that the coordinator remembers.
const HISTORY: u32 = 64;
/// Time-outs: long, so that only a dead worker meets them.
const TIMEOUT_MS: u64 = 600_000;

impl TextRun {
    /// The run on a base with these matrices.
    #[must_use]
    pub fn config(&self, options: &Options, matrices: &[MatrixSpec], base: Digest) -> RunConfig {
        let layer = |LayerSpec { name, rows, cols, block, residual, gain_exponent }| LayerTable {
            name,
            rows,
            cols,
            block,
            residual,
            gain_exponent,
            rate_exponent: 0,
        };
        RunConfig {
            run: RunTable {
                name: self.name.into(),
                seed: options.seed,
                base,
                rounds: options.rounds,
                examples_max: 1 << 16,
                profile: options.profile,
                levels: self.levels,
                history: HISTORY,
            },
            layers: self.blocks.layers(matrices).into_iter().map(layer).collect(),
            training: self.training,
            selection: SelectionTable::of(options.workers, options.cohort, TIMEOUT_MS),
            pace: Pace::DEFAULT,
            strikes: Strikes::DEFAULT,
            reporting: ReportingTable {
                goal: options.cohort,
                min: options.cohort.div_ceil(2),
                timeout_ms: TIMEOUT_MS,
                over_selection: 0,
            },
            aggregation: AggregationTable::default(),
            buffered: None,
            server_optimizer: self.optimizer,
        }
    }
}
