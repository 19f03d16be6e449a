//! `worker layers`: what of a model a run adapts, for `coordinator init --layers`.

use std::path::PathBuf;

use anyhow::{Context, Result};
use clap::Args;
use packfed_worker::data::Labels;
use packfed_worker::files::ModelFiles;
use packfed_worker::patterns::{self, Blocks, Rule};
use packfed_worker::pretrained::Pretrained;
use serde::Serialize;

#[derive(Debug, Args)]
pub(super) struct Layers {
    /// The base model: a Hugging Face folder or a GGUF file.
    #[arg(long)]
    model: PathBuf,
    /// File of the labels' names, one a line, where the model gets a classifier.
    #[arg(long)]
    classes: Option<PathBuf>,
    /// Matrices whose names fit the pattern, with their blocks; the first that fits counts, the rest stay frozen. Without
    /// any, all matrices of attention and feed-forward layers in blocks of 64 and a classifier in blocks of 4.
    #[arg(long, value_name = "PATTERN=BLOCK:RESIDUAL")]
    adapt: Vec<String>,
}

/// The file that `coordinator init --layers` reads.
#[derive(Serialize)]
struct LayersFile {
    base: String,
    layers: Vec<Layer>,
}

#[derive(Serialize)]
struct Layer {
    name: String,
    rows: usize,
    cols: usize,
    block: usize,
    residual: usize,
    gain_exponent: i8,
}

impl Layers {
    pub(super) fn run(self) -> Result<()> {
        let files = ModelFiles::open(&self.model)?;
        let labels = self.classes.as_deref().map(Labels::load).transpose()?;
        let model = Pretrained::open(&files, labels.as_ref().map(Labels::len))?;
        let rules = self.adapt.iter().map(|rule| Rule::parse(rule)).collect::<Result<Vec<_>, _>>()?;
        let specs = if rules.is_empty() {
            Blocks::DEFAULT.layers(model.matrices())
        } else {
            patterns::layers(model.matrices(), &rules)?
        };
        let layers = specs.into_iter().map(|spec| Layer {
            name: spec.name,
            rows: spec.rows,
            cols: spec.cols,
            block: spec.block,
            residual: spec.residual,
            gain_exponent: spec.gain_exponent,
        });
        let file = LayersFile { base: files.digest()?.to_string(), layers: layers.collect() };
        print!("{}", toml::to_string(&file).context("write the layers as TOML")?);
        Ok(())
    }
}
