//! `worker export` and `worker import`: models for other tools, and from them.

use std::collections::BTreeMap;
use std::path::PathBuf;

use anyhow::{Result, bail};
use clap::{Args, ValueEnum};
use packfed_codec::{Adapter, Seed, State};
use packfed_worker::export::{Existing, Floats, MergedModel, write_adapter};
use packfed_worker::files::ModelFiles;
use packfed_worker::import::{Deltas, DenseDelta, Imported, LayerReport, LoraAdapter, import};
use packfed_worker::nn::pool::Pooling;
use packfed_worker::patterns::Blocks;

use super::texts::{Texts, Which};

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum FloatName {
    /// 32-bit.
    F32,
    /// IEEE 754 half precision.
    F16,
    /// The upper half of 32 bits.
    Bf16,
}

#[derive(Debug, Args)]
pub(super) struct Export {
    /// The worker's configuration file.
    #[arg(long)]
    config: PathBuf,
    /// Which model.
    #[arg(long, value_enum, default_value_t = Which::Global)]
    model: Which,
    /// The directory to write, or with --packed the file.
    #[arg(long)]
    out: PathBuf,
    /// How merged weights are written.
    #[arg(long, value_enum, default_value_t = FloatName::F32)]
    floats: FloatName,
    /// Write the global model's packed adapter alone.
    #[arg(long)]
    packed: bool,
    /// Replace what is there.
    #[arg(long)]
    force: bool,
}

impl Export {
    pub(super) fn run(self) -> Result<()> {
        let texts = Texts::load(&self.config)?;
        let existing = if self.force { Existing::Replaced } else { Existing::Kept };
        let out = self.out.display();
        if self.packed {
            if self.model != Which::Global {
                bail!("--packed is of the global model; private lanes stay on this machine");
            }
            write_adapter(&texts.global()?, &self.out, existing)?;
            println!("packed adapter written to {out}");
            return Ok(());
        }
        let states = texts.states(self.model)?;
        let merged = MergedModel {
            files: &texts.files,
            states: &states.iter().collect::<Vec<&State>>(),
            labels: texts.labels.as_ref().map_or(&[], |labels| labels.names()),
            pooling: Pooling::Mean,
            floats: match self.floats {
                FloatName::F32 => Floats::F32,
                FloatName::F16 => Floats::F16,
                FloatName::Bf16 => Floats::Bf16,
            },
        };
        let written = merged.write(&self.out, existing)?;
        println!("{} tensors, {} bytes of weights written to {out}", written.tensors, written.bytes);
        Ok(())
    }
}

#[derive(Debug, Args)]
pub(super) struct Import {
    /// The worker's configuration file.
    #[arg(long)]
    config: PathBuf,
    /// A directory of a PEFT LoRA adapter.
    #[arg(long, conflicts_with = "tuned", required_unless_present = "tuned")]
    lora: Option<PathBuf>,
    /// A fine-tuned model of the base's shape.
    #[arg(long)]
    tuned: Option<PathBuf>,
    /// Share of every matrix's energy to keep, as far as --residual allows.
    #[arg(long, default_value_t = 0.9)]
    target: f64,
    /// Edge of a block; a classifier's is 4.
    #[arg(long, default_value_t = 64, value_parser = clap::value_parser!(u16).range(1..=512))]
    block: u16,
    /// Most residual coefficients of a block.
    #[arg(long, default_value_t = 4096)]
    residual: u16,
    /// The number that the positions follow from.
    #[arg(long, default_value_t = 0)]
    seed: u64,
    /// The packed adapter to write.
    #[arg(long)]
    out: PathBuf,
    /// Replace what is there.
    #[arg(long)]
    force: bool,
}

impl Import {
    pub(super) fn run(self) -> Result<()> {
        let texts = Texts::load(&self.config)?;
        let block = usize::from(self.block);
        let blocks = Blocks { block, residual: usize::from(self.residual).min(block * block), ..Blocks::DEFAULT };
        let specs = blocks.layers(texts.model.matrices());
        let seed = Seed::from_number(self.seed);
        let pack = |deltas: &dyn Deltas| import(&seed, specs, deltas, self.target);
        let imported = match (&self.lora, &self.tuned) {
            (Some(path), _) => pack(&LoraAdapter::open(path, &texts.files)?)?,
            (None, Some(path)) => {
                let tuned = ModelFiles::open(path)?;
                pack(&DenseDelta::of_models(&texts.files, &tuned)?)?
            }
            (None, None) => bail!("name --lora or --tuned"),
        };
        report(&imported);
        let metrics = imported.captured().map(|captured| ("captured".to_owned(), captured));
        let adapter =
            Adapter::new(texts.digest, seed, imported.state, metrics.into_iter().collect::<BTreeMap<_, _>>())?;
        write_adapter(&adapter, &self.out, if self.force { Existing::Replaced } else { Existing::Kept })?;
        println!("packed adapter written to {}", self.out.display());
        Ok(())
    }
}

/// What was kept and what was lost.
fn report(imported: &Imported) {
    for LayerReport { name, residual, positions, captured, rmse, packed_bytes, dense_bytes, .. } in &imported.layers {
        let share = captured.map_or("–".to_owned(), |share| format!("{share:.4}"));
        println!(
            "{name}: {share} of its energy with K = {residual} of {positions}, RMSE {rmse:.2e}, {packed_bytes} bytes for {dense_bytes}"
        );
    }
    for left in &imported.left_out {
        println!("{}: no packed layer takes it; its delta of energy {:.3e} is lost", left.name, left.energy);
    }
    let share = imported.captured().map_or("no energy to keep".to_owned(), |share| format!("{share:.4} of all energy"));
    println!("in all: {share}");
}
