//! `worker enroll` and `worker run`: this machine in a federation.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::{Context, Result};
use clap::Args;
use indicatif::MultiProgress;
use packfed_codec::{Adapter, BaseDigest, Seed};
use packfed_protocol::{Digest, Identity, IdentityError, Token};
use packfed_worker::client::{self, Address, Ended, Following, Part};
use packfed_worker::conditions::{Charging, Stated};
use packfed_worker::config::{DataConfig, Enrolment, TextsConfig, WorkerConfig};
use packfed_worker::examples::Examples;
use packfed_worker::export::{Existing, write_adapter};
use packfed_worker::files::ModelFiles;
use packfed_worker::idx::{parse_images, parse_labels};
use packfed_worker::machine::Machine;
use packfed_worker::mlp::Mlp;
use packfed_worker::session::Ending;
use packfed_worker::task::LocalTask;
use packfed_worker::text_task::TextTask;
use packfed_worker::trainer::{Base, Trainer};

use super::texts::{SPLIT, Texts, releases};

#[derive(Debug, Args)]
pub(super) struct Enroll {
    /// The worker's configuration file.
    #[arg(long)]
    config: PathBuf,
    /// A one-time token, as `coordinator init` printed it.
    #[arg(long)]
    token: Token,
}

#[derive(Debug, Args)]
pub(super) struct Run {
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
    /// Whether this machine is charging; instead of the configuration's.
    #[arg(long, value_enum)]
    charging: Option<Charging>,
    /// Whether its network does not cost by the byte; instead of the configuration's.
    #[arg(long, value_enum)]
    unmetered: Option<Stated>,
    /// Whether nobody uses it; instead of the configuration's.
    #[arg(long, value_enum)]
    idle: Option<Stated>,
}

impl Run {
    pub(super) async fn run(self, bars: MultiProgress) -> Result<()> {
        let mut config = WorkerConfig::load(&self.config)?;
        let limits = &mut config.limits;
        limits.time_budget_s = self.time_budget_s.or(limits.time_budget_s);
        limits.memory_budget_bytes = self.memory_budget_bytes.or(limits.memory_budget_bytes);
        let conditions = &mut config.conditions;
        conditions.charging = self.charging.unwrap_or(conditions.charging);
        conditions.unmetered = self.unmetered.unwrap_or(conditions.unmetered);
        conditions.idle = self.idle.unwrap_or(conditions.idle);
        let identity = Identity::load(&config.identity).context("no key here; run `worker enroll` first")?;
        let enrolment = Enrolment::load(&config).context("not enrolled; run `worker enroll` first")?;
        let federation = Federation { address: address(&config, identity), enrolment, bars, json: self.json };
        match (&config.data, &config.texts) {
            (Some(data), _) => {
                let (task, base) = perceptron(&config, data)?;
                federation.run(&config, base, task).await
            }
            (None, Some(texts)) => {
                let (task, base) = transformer(&config, texts)?;
                federation.run(&config, base, task).await
            }
            (None, None) => unreachable!("a configuration has one table of examples"),
        }
    }
}

/// A run with all that is needed to take part in it, but for what is trained.
struct Federation {
    address: Address,
    enrolment: Enrolment,
    bars: MultiProgress,
    json: bool,
}

impl Federation {
    async fn run(self, config: &WorkerConfig, base: Digest, task: impl LocalTask + Clone + 'static) -> Result<()> {
        tracing::info!(worker = %self.address.identity.id(), examples = task.examples(), "ready");
        let limits = &config.limits;
        let machine = Machine::new(limits.budgets(), limits.snapshot.clone(), self.bars);
        let following = config.releases.as_ref().map(|found| -> Result<Following> {
            let (releases, personal) = (releases(config, found, base)?, config.model.personal.clone());
            Ok(Following { releases, loss_increase_max: found.loss_increase_max, personal })
        });
        let following = following.transpose()?;
        let part = Part { address: self.address, run: self.enrolment.run, base, following };
        let mut finish = |ended: Ended| Ok(finish(config, base, ended, self.json)?);
        Ok(client::run(part, task, machine, config.conditions, &mut finish, interrupted()).await?)
    }
}

/// Writes the global model, and says where the run ended.
fn finish(config: &WorkerConfig, base: Digest, ended: Ended, json: bool) -> Result<()> {
    let Ended { ending, model } = ended;
    let Ending::Finished { version, digest } = ending else { return Ok(()) };
    if let Some((seed, state)) = model {
        let adapter = Adapter::new(BaseDigest(base.0), seed, (*state).clone(), BTreeMap::new())?;
        write_adapter(&adapter, &config.model.global, Existing::Replaced)?;
    }
    if json {
        println!(r#"{{"version":{},"digest":"{digest}"}}"#, version.0);
    } else {
        println!("finished at version {} with digest {digest}", version.0);
    }
    Ok(())
}

/// Digest of a configuration's base model.
pub(super) fn base_digest(config: &WorkerConfig) -> Result<Digest> {
    Ok(match config.texts {
        Some(_) => Digest(ModelFiles::open(&config.model.base)?.digest()?.0),
        None => Digest::of(&read(&config.model.base)?),
    })
}

fn perceptron(config: &WorkerConfig, data: &DataConfig) -> Result<(Trainer, Digest)> {
    let base_file = read(&config.model.base)?;
    let base = Mlp::from_safetensors(&base_file).with_context(|| config.model.base.display().to_string())?;
    let (training, held_out) = examples(data)?.split(&Seed::from_number(SPLIT), data.held_out);
    let training = training.with_context(|| {
        format!("{}: every image is held out; lower data.held_out or add images", data.images.display())
    })?;
    let trainer = Trainer::new(Arc::new(Base::new(Arc::new(base))), Arc::new(training));
    Ok((trainer.holding_out(held_out.map(Arc::new)), Digest::of(&base_file)))
}

fn transformer(config: &WorkerConfig, texts: &TextsConfig) -> Result<(TextTask, Digest)> {
    let model = Texts::open(config, texts)?;
    let (training, held_out) = model.datasets()?;
    let task = TextTask::new(model.model.clone(), Arc::new(training)).holding_out(Arc::new(held_out));
    Ok((task, Digest(model.digest.0)))
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

impl Enroll {
    pub(super) async fn run(self) -> Result<()> {
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

fn read(path: &Path) -> Result<Vec<u8>> {
    std::fs::read(path).with_context(|| path.display().to_string())
}

async fn interrupted() {
    if tokio::signal::ctrl_c().await.is_err() {
        // Without a handler Ctrl-C ends the process by itself.
        std::future::pending::<()>().await;
    }
}
