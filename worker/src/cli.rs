//! Flags and subcommands of `worker`, and what each prints.

mod exchange;
mod federation;
mod inference;
mod layers;
mod personalize;
mod release;
mod texts;

use std::io::Write;

use anyhow::Result;
use clap::{Parser, Subcommand, ValueEnum};
use indicatif::MultiProgress;
use tracing_subscriber::EnvFilter;

use exchange::{Export, Import};
use federation::{Enroll, Run};
use inference::{Evaluate, Generate, Predict};
use layers::Layers;
use personalize::Personalize;
use release::Release;

/// Fine-tune a shared model on data that stays on this machine.
#[derive(Debug, Parser)]
#[command(version, after_help = "Logs go to stderr; RUST_LOG=debug shows more.")]
pub(crate) struct Cli {
    #[command(subcommand)]
    command: Command,
    /// How logs are written.
    #[arg(long, global = true, value_enum, default_value_t = LogFormat::Text)]
    log_format: LogFormat,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum LogFormat {
    /// For people.
    Text,
    /// One JSON object a line.
    Json,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Make this worker's key, if it has none, and enrol it with a one-time token.
    #[command(after_help = "Example: worker enroll --config worker.toml --token 00112233445566778899aabbccddeeff")]
    Enroll(Enroll),
    /// Take part until the run is finished, then follow releases if there is a table `releases`; reconnects by itself,
    /// Ctrl-C stops it.
    #[command(after_help = "Example: worker run --config worker.toml")]
    Run(Run),
    /// Print what of a model a run adapts, for `coordinator init --layers`.
    #[command(after_help = "Example: worker layers --model models/minilm --classes intents.txt > layers.toml")]
    Layers(Layers),
    /// The coordinator's releases on this machine.
    #[command(subcommand)]
    Release(Release),
    /// Train private lanes over the global model on this worker's texts; they stay on this machine.
    #[command(after_help = "Example: worker personalize --config worker.toml --steps 100")]
    Personalize(Personalize),
    /// Compare base, global and personal model on the texts that are held out.
    #[command(after_help = "Example: worker evaluate --config worker.toml --json")]
    Evaluate(Evaluate),
    /// Label texts, with probabilities.
    #[command(after_help = "Example: worker predict --config worker.toml \"Where is my card?\"")]
    Predict(Predict),
    /// Continue a text, token by token as they come.
    #[command(after_help = "Example: worker generate --config worker.toml \"ROMEO:\" --temperature 0.8 --top-p 0.95")]
    Generate(Generate),
    /// Write the merged model for other tools, or its packed adapter.
    #[command(after_help = "Example: worker export --config worker.toml --out merged --floats f16")]
    Export(Export),
    /// Bring a LoRA adapter or a fine-tuned model into packed form, and say what was lost.
    #[command(
        after_help = "Example: worker import --config worker.toml --lora adapter --target 0.9 --out global.packfed"
    )]
    Import(Import),
}

impl Cli {
    pub(crate) fn run(self) -> Result<()> {
        let bars = MultiProgress::new();
        log_to_stderr(self.log_format, bars.clone());
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        match self.command {
            Command::Enroll(enroll) => runtime.block_on(enroll.run()),
            Command::Run(run) => runtime.block_on(run.run(bars)),
            Command::Layers(layers) => layers.run(),
            Command::Release(release) => release.run(),
            Command::Personalize(personalize) => personalize.run(bars),
            Command::Evaluate(evaluate) => evaluate.run(),
            Command::Predict(predict) => predict.run(),
            Command::Generate(generate) => generate.run(),
            Command::Export(export) => export.run(),
            Command::Import(import) => import.run(),
        }
    }
}

/// Stderr, without tearing the bars that may be drawn there.
struct BesideBars(MultiProgress);

impl Write for BesideBars {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.suspend(|| std::io::stderr().write(bytes))
    }

    fn flush(&mut self) -> std::io::Result<()> {
        std::io::stderr().flush()
    }
}

fn log_to_stderr(format: LogFormat, bars: MultiProgress) {
    let filter = EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new("info"));
    let subscriber = tracing_subscriber::fmt().with_env_filter(filter).with_writer(move || BesideBars(bars.clone()));
    match format {
        LogFormat::Text => subscriber.init(),
        LogFormat::Json => subscriber.json().init(),
    }
}
