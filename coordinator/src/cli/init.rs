//! `coordinator init`: everything that a run needs before its first round.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::{Context, Result, bail};
use clap::Args;
use packfed_coordinator::config::CoordinatorFile;
use packfed_coordinator::redb_store::RedbStore;
use packfed_coordinator::registry::{Registry, token_digest};
use packfed_protocol::{Identity, Token};
use serde_json::json;

use super::advise;
use super::base_model::BaseModel;
use super::layers_file::LayersFile;
use super::template;

/// Make a new folder with a configuration, a key, and a store that holds one-time tokens.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  coordinator init run1                                   placeholder layers, to be edited
  coordinator init run1 --base model.safetensors          layers of a perceptron
  coordinator init run1 --layers layers.toml              layers of a transformer, as `worker layers` printed them
  coordinator init run1 --tokens 50 --json > secrets.json tokens for fifty workers

The tokens are printed once: the store keeps their hashes. Each admits one worker.")]
pub(super) struct Init {
    /// The folder to make; one that is there must be empty.
    directory: PathBuf,
    /// One-time tokens, one for each worker that may enrol.
    #[arg(long, default_value_t = 8, value_parser = clap::value_parser!(u32).range(0..=100_000))]
    tokens: u32,
    /// A base model (safetensors): its digest and its two-dimensional F32 tensors go into the configuration.
    #[arg(long, value_name = "FILE")]
    base: Option<PathBuf>,
    /// The base model's digest and its adapted matrices, as `worker layers` prints them.
    #[arg(long, value_name = "FILE", conflicts_with = "base")]
    layers: Option<PathBuf>,
    /// Print one JSON object.
    #[arg(long)]
    json: bool,
}

impl Init {
    pub(super) fn run(&self) -> Result<ExitCode> {
        let given = match (&self.base, &self.layers) {
            (Some(base), _) => Some(BaseModel::read(base)?.layers()),
            (None, Some(layers)) => Some(LayersFile::read(layers)?),
            (None, None) => None,
        };
        let text = given.as_ref().map_or_else(|| template::PLACEHOLDER.to_owned(), template::for_layers);
        let config = CoordinatorFile::parse(&text).context("the configuration for this base model")?;
        let checked = config.check(&self.directory).map_err(|e| advise(e, "leave tensors out of the base model"))?;
        let tokens: Vec<Token> = (0..self.tokens).map(|_| Token::generate()).collect::<Result<_, _>>()?;
        let identity = Identity::generate()?;

        make_empty(&self.directory)?;
        identity.save(&checked.identity)?;
        let hashes: BTreeSet<_> = tokens.iter().map(token_digest).collect();
        RedbStore::create(&checked.store, &Registry::new(BTreeMap::new(), hashes))?;
        let path = self.directory.join("coordinator.toml");
        fs::write(&path, text).with_context(|| format!("write {}", path.display()))?;
        let layers = given.map(|_| checked.plan.raw().layers.len());
        self.print(&path, &identity, &tokens, layers)?;
        Ok(ExitCode::SUCCESS)
    }

    fn print(&self, config: &Path, identity: &Identity, tokens: &[Token], layers: Option<usize>) -> io::Result<()> {
        let mut out = io::stdout().lock();
        let (tokens, key): (Vec<String>, _) = (tokens.iter().map(Token::to_string).collect(), identity.id());
        if self.json {
            let object = json!({ "config": config, "public_key": key, "tokens": tokens, "layers": layers });
            return writeln!(out, "{object}");
        }
        let (directory, config) = (self.directory.display(), config.display());
        writeln!(out, "made {directory} with coordinator.toml, coordinator.key and coordinator.redb")?;
        writeln!(out, "public key: {key}")?;
        writeln!(out, "tokens (shown this once; each enrols one worker):")?;
        for token in tokens {
            writeln!(out, "  {token}")?;
        }
        match layers {
            Some(layers) => writeln!(out, "next: check rounds, goals and the {layers} layers in {config}, then")?,
            None => writeln!(out, "next: set base and [[layers]] in {config}, which are placeholders, then")?,
        }
        writeln!(out, "  coordinator serve --config {config}")
    }
}

fn make_empty(directory: &Path) -> Result<()> {
    fs::create_dir_all(directory).with_context(|| format!("make folder {}", directory.display()))?;
    let mut entries = fs::read_dir(directory).with_context(|| format!("read folder {}", directory.display()))?;
    if entries.next().is_some() {
        bail!("folder {} is not empty; name another one, nothing was written", directory.display());
    }
    Ok(())
}
