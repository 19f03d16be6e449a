//! `worker personalize`: private lanes over the global model.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;

use anyhow::Result;
use clap::Args;
use indicatif::MultiProgress;
use packfed_codec::{Adapter, Seed};
use packfed_protocol::Round;
use packfed_worker::export::{Existing, write_adapter};
use packfed_worker::local::LocalSteps;
use packfed_worker::machine::Machine;
use packfed_worker::patterns::Blocks;
use packfed_worker::personal::Personalization;

use super::texts::Texts;

#[derive(Debug, Args)]
pub(super) struct Personalize {
    /// The worker's configuration file.
    #[arg(long)]
    config: PathBuf,
    /// Optimizer steps.
    #[arg(long, default_value_t = 100, value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    steps: u32,
    /// Examples of one step.
    #[arg(long, default_value_t = 16, value_parser = clap::value_parser!(u32).range(1..=100_000))]
    batch: u32,
    /// Adam's rate, in orthonormal-coefficient units; a few pages of text are learned by heart at much more.
    #[arg(long, default_value_t = 0.001)]
    learning_rate: f32,
    /// Edge of the blocks of attention and feed-forward matrices.
    #[arg(long, default_value_t = 64, value_parser = clap::value_parser!(u16).range(1..=512))]
    block: u16,
    /// Private residual lanes of a block.
    #[arg(long, default_value_t = 28, value_parser = clap::value_parser!(u16).range(0..=4096))]
    residual: u16,
    /// The number that positions and the order of the texts follow from.
    #[arg(long, default_value_t = 0)]
    seed: u64,
}

impl Personalize {
    pub(super) fn run(self, bars: MultiProgress) -> Result<()> {
        let texts = Texts::load(&self.config)?;
        let limits = texts.limits();
        let (training, _) = texts.datasets()?;
        let global = texts.global()?;
        let plan = Personalization {
            blocks: Blocks { block: self.block.into(), residual: self.residual.into(), ..Blocks::DEFAULT },
            local: LocalSteps::adam(self.steps, self.batch, self.learning_rate),
        };
        let seed = Seed::from_number(self.seed);
        let snapshot = limits.snapshot.with_extension("personal");
        let machine = Machine::new(limits.budgets(), snapshot, bars);
        let mut host = machine.round(Round(0));
        let private = plan.train(&texts.model, global.state(), &Arc::new(training), &seed, &mut host)?;
        machine.over();
        let seed = Personalization::seed(&seed);
        let adapter = Adapter::new(texts.digest, seed, private, BTreeMap::new())?;
        write_adapter(&adapter, texts.private_path(), Existing::Replaced)?;
        println!("personal model written to {}", texts.private_path().display());
        println!("`worker evaluate` compares it with the others");
        Ok(())
    }
}
