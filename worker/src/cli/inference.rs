//! `worker evaluate`, `worker predict` and `worker generate`: a worker's models at work.

use std::io::{BufRead, Write};
use std::path::PathBuf;

use anyhow::{Context, Result, bail, ensure};
use clap::Args;
use packfed_codec::Seed;
use packfed_worker::data::TokenExample;
use packfed_worker::generate::{Generation, Request, Sampling};
use packfed_worker::loss::softmax;
use packfed_worker::pretrained::Body;
use packfed_worker::text::Marks;
use serde_json::json;

use super::texts::{Texts, Which};

#[derive(Debug, Args)]
pub(super) struct Evaluate {
    /// The worker's configuration file.
    #[arg(long)]
    config: PathBuf,
    /// Print one JSON object.
    #[arg(long)]
    json: bool,
}

impl Evaluate {
    pub(super) fn run(self) -> Result<()> {
        let texts = Texts::load(&self.config)?;
        let (_, held_out) = texts.datasets()?;
        let examples = &held_out.examples;
        ensure!(!examples.is_empty(), "no text is held out; raise texts.held_out or add texts");
        let mut rows = Vec::new();
        for which in texts.there()? {
            let linears = texts.linears(which)?;
            rows.push((which.name(), texts.model.evaluate_all(&linears, examples)?));
        }
        if self.json {
            let models = rows.iter().map(|(name, found)| {
                let (accuracy, loss) = (found.accuracy(), found.mean_loss());
                json!({ "name": name, "targets": found.targets, "accuracy": accuracy, "loss": loss })
            });
            println!("{}", json!({ "examples": examples.len(), "models": models.collect::<Vec<_>>() }));
            return Ok(());
        }
        let what = if texts.is_encoder() { "accuracy" } else { "perplexity" };
        println!("{} texts held out", examples.len());
        for (name, found) in rows {
            let value = if texts.is_encoder() { found.accuracy() } else { found.mean_loss().exp() };
            println!("{name:<9} {what} {value:.4}  loss {:.4}", found.mean_loss());
        }
        Ok(())
    }
}

#[derive(Debug, Args)]
pub(super) struct Predict {
    /// The worker's configuration file.
    #[arg(long)]
    config: PathBuf,
    /// Which model; the last that is there if it is left out.
    #[arg(long, value_enum)]
    model: Option<Which>,
    /// How many labels, the likeliest first.
    #[arg(long, default_value_t = 3)]
    top: usize,
    /// Print one JSON object a text.
    #[arg(long)]
    json: bool,
    /// The texts; without any, each line of standard input is one.
    texts: Vec<String>,
}

impl Predict {
    pub(super) fn run(self) -> Result<()> {
        let texts = Texts::load(&self.config)?;
        let Some(labels) = &texts.labels else {
            bail!("this model has no labels; name them in texts.classes, or use `worker generate`")
        };
        let linears = texts.linears(self.model.map_or_else(|| texts.latest(), Ok)?)?;
        let mut given = self.texts.clone().into_iter().map(Ok);
        let mut lines = std::io::stdin().lock().lines();
        let source: &mut dyn Iterator<Item = std::io::Result<String>> =
            if self.texts.is_empty() { &mut lines } else { &mut given };
        for text in source {
            let text = text.context("standard input")?;
            let ids = texts.tokenizer.encode(&text, Marks::Around, texts.tokens_max())?;
            let logits = texts.model.logits(&linears, &[&TokenExample { ids, label: None }])?;
            let mut p: Vec<f64> = logits.flatten_all()?.to_vec1::<f32>()?.into_iter().map(f64::from).collect();
            softmax(&mut p);
            let mut likely: Vec<(usize, f64)> = p.into_iter().enumerate().collect();
            likely.sort_by(|a, b| b.1.total_cmp(&a.1));
            likely.truncate(self.top.max(1));
            let named = |&(n, p): &(usize, f64)| (labels.names()[n].clone(), p);
            let likely: Vec<(String, f64)> = likely.iter().map(named).collect();
            if self.json {
                let labels: Vec<_> = likely.iter().map(|(label, p)| json!({ "label": label, "p": p })).collect();
                println!("{}", json!({ "text": text, "labels": labels }));
            } else {
                let labels: Vec<String> = likely.iter().map(|(label, p)| format!("{label} {p:.3}")).collect();
                println!("{text}\n  {}", labels.join("  "));
            }
        }
        Ok(())
    }
}

#[derive(Debug, Args)]
pub(super) struct Generate {
    /// The worker's configuration file.
    #[arg(long)]
    config: PathBuf,
    /// Which model; the last that is there if it is left out.
    #[arg(long, value_enum)]
    model: Option<Which>,
    /// Divides the logits; 0 takes the likeliest token each time.
    #[arg(long, default_value_t = 0.8)]
    temperature: f64,
    /// Tokens are drawn from the likeliest that together have this probability.
    #[arg(long, default_value_t = 0.95)]
    top_p: f64,
    /// Most tokens.
    #[arg(long, default_value_t = 128)]
    tokens: usize,
    /// The number that the choice of tokens follows from.
    #[arg(long, default_value_t = 0)]
    seed: u64,
    /// The text to continue.
    prompt: String,
}

impl Generate {
    pub(super) fn run(self) -> Result<()> {
        let texts = Texts::load(&self.config)?;
        let Body::Llama(llama) = texts.model.body() else {
            bail!("this model labels texts and continues none; use `worker predict`")
        };
        let linears = texts.linears(self.model.map_or_else(|| texts.latest(), Ok)?)?;
        let request = Request {
            prompt: texts.tokenizer.encode(&self.prompt, Marks::Around, usize::MAX)?,
            sampling: Sampling::new(self.temperature, self.top_p)?,
            tokens_max: self.tokens,
            stop: texts.tokenizer.special().eos.clone(),
        };
        let generation = Generation::new(llama, &*linears, request, &Seed::from_number(self.seed))?;
        let mut out = std::io::stdout();
        write!(out, "{}", self.prompt)?;
        for piece in generation.text(&texts.tokenizer) {
            write!(out, "{}", piece?)?;
            out.flush()?;
        }
        writeln!(out)?;
        Ok(())
    }
}
