//! Flags and subcommands of `worker`, and what each prints.

use std::io::Write;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::{Context, Result};
use clap::{Args, Parser, Subcommand, ValueEnum};
use indicatif::MultiProgress;
use packfed_protocol::{Digest, Identity, IdentityError, Token};
use packfed_worker::client::{self, Address};
use packfed_worker::config::{DataConfig, Enrolment, WorkerConfig};
use packfed_worker::examples::Examples;
use packfed_worker::idx::{parse_images, parse_labels};
use packfed_worker::machine::Machine;
use packfed_worker::mlp::Mlp;
use packfed_worker::session::Ending;
use packfed_worker::trainer::{Base, Trainer};
use tracing_subscriber::EnvFilter;

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
    /// Take part until the run is finished; reconnects by itself, Ctrl-C stops it.
    #[command(after_help = "Example: worker run --config worker.toml")]
    Run(Run),
}

#[derive(Debug, Args)]
struct Enroll {
    /// The worker's configuration file.
    #[arg(long)]
    config: PathBuf,
    /// A one-time token, as `coordinator init` printed it.
    #[arg(long)]
    token: Token,
}

#[derive(Debug, Args)]
struct Run {
    /// The worker's configuration file.
    #[arg(long)]
    config: PathBuf,
    /// Print the final version and digest as one JSON object.
    #[arg(long)]
    json: bool,
    /// Seconds after which a round ends with the steps done; instead of the configuration's.
    #[arg(long, value_name = "SECONDS")]
    time_budget_s: Option<u64>,
    /// Bytes that training may take; instead of the configuration's.
    #[arg(long, value_name = "BYTES")]
    memory_budget_bytes: Option<u64>,
}

impl Cli {
    pub(crate) fn run(self) -> Result<()> {
        let bars = MultiProgress::new();
        log_to_stderr(self.log_format, bars.clone());
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        match self.command {
            Command::Enroll(enroll) => runtime.block_on(enroll.run()),
            Command::Run(run) => runtime.block_on(run.run(bars)),
        }
    }
}

impl Enroll {
    async fn run(self) -> Result<()> {
        let config = WorkerConfig::load(&self.config)?;
        let identity = match Identity::load(&config.identity) {
            Err(IdentityError::Read { kind: std::io::ErrorKind::NotFound, .. }) => {
                let identity = Identity::generate()?;
                identity.save(&config.identity)?;
                identity
            }
            loaded => loaded?,
        };
        let address = address(&config, identity);
        let run = client::enroll(&address, self.token, &config.name).await?;
        Enrolment { run, coordinator_key: config.coordinator_key }.save(&config.enrolment)?;
        println!("enrolled {} as {} in run {run}", config.name, address.identity.id());
        Ok(())
    }
}

impl Run {
    async fn run(self, bars: MultiProgress) -> Result<()> {
        let mut config = WorkerConfig::load(&self.config)?;
        let limits = &mut config.limits;
        limits.time_budget_s = self.time_budget_s.or(limits.time_budget_s);
        limits.memory_budget_bytes = self.memory_budget_bytes.or(limits.memory_budget_bytes);
        let identity = Identity::load(&config.identity).context("no key here; run `worker enroll` first")?;
        let enrolment = Enrolment::load(&config).context("not enrolled; run `worker enroll` first")?;
        let base_file = read(&config.model.base)?;
        let base = Mlp::from_safetensors(&base_file).with_context(|| config.model.base.display().to_string())?;
        let examples = examples(&config.data)?;
        tracing::info!(worker = %identity.id(), examples = examples.len(), "ready");
        let trainer = Trainer::new(Arc::new(Base::new(Arc::new(base))), Arc::new(examples));
        let address = address(&config, identity);
        let machine = Machine::new(config.limits.budgets(), config.limits.snapshot, bars);
        let base = Digest::of(&base_file);
        let ending = client::run(address, enrolment.run, base, trainer, machine, interrupted()).await?;
        if let Ending::Finished { version, digest } = ending {
            if self.json {
                println!(r#"{{"version":{},"digest":"{digest}"}}"#, version.0);
            } else {
                println!("finished at version {} with digest {digest}", version.0);
            }
        }
        Ok(())
    }
}

fn address(config: &WorkerConfig, identity: Identity) -> Address {
    Address { coordinator: config.coordinator, coordinator_key: config.coordinator_key, identity }
}

fn examples(data: &DataConfig) -> Result<Examples> {
    let named = |path: &Path| path.display().to_string();
    let images = parse_images(&read(&data.images)?).with_context(|| named(&data.images))?;
    let labels = parse_labels(&read(&data.labels)?).with_context(|| named(&data.labels))?;
    Examples::from_images(&images, &labels)
        .with_context(|| format!("{} and {}", named(&data.images), named(&data.labels)))
}

fn read(path: &Path) -> Result<Vec<u8>> {
    std::fs::read(path).with_context(|| path.display().to_string())
}

async fn interrupted() {
    if tokio::signal::ctrl_c().await.is_err() {
        // Without a handler Ctrl-C ends the process by itself.
        std::future::pending::<()>().await;
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
