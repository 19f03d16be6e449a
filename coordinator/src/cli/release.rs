//! `coordinator release`: models that are frozen, numbered and signed.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;

use anyhow::{Context, Result, bail};
use clap::{Args, Subcommand};
use packfed_codec::Adapter;
use packfed_coordinator::redb_store::RedbStore;
use packfed_coordinator::release::{Held, Made, Shelf};
use packfed_coordinator::resume::resume;
use packfed_coordinator::rollout::Phase;
use packfed_coordinator::server::now;
use packfed_coordinator::store::Store;
use packfed_protocol::{CoordinatorId, Manifest, Order, Version};
use serde_json::json;

use super::confirm::{Sure, Why};
use super::operator::{Operator, Whom};
use super::output::{print, show};
use super::{advise, rollout};

mod look;

/// Freeze models as releases, and look at them.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  coordinator release create --config run1/coordinator.toml --notes 'better on cards'
  coordinator release create --config run1/coordinator.toml --from packed.packfed
  coordinator release list   --admin admin.toml --json | jq '.[-1].number'
  coordinator release diff 3 4 --config run1/coordinator.toml
  coordinator release export 4 --config run1/coordinator.toml --out global.packfed

A release never changes and its number is never used again. `create` asks the coordinator that serves, or reads the
store if none does, and needs the role operator; `list` asks if it is given --admin. The others, and `create --from`,
read and write the folder `releases` beside the store, so they need --config.
Exit codes: 0 done, 6 the role does not allow it, 1 failed; stderr says why and what to do next.")]
pub(super) struct ReleaseCommand {
    #[command(subcommand)]
    verb: Verb,
    #[command(flatten)]
    whom: Whom,
}

#[derive(Debug, Subcommand)]
enum Verb {
    /// Freeze the global model, a remembered version of it, or a packed adapter.
    Create(Create),
    /// Say which releases there are.
    List,
    /// Say all of one release.
    Show(Numbered),
    /// Say what changed from one release to another, and what it costs to ship.
    Diff {
        /// The first.
        from: u64,
        /// The second.
        to: u64,
    },
    /// Check signature and model of one release, or of all.
    Verify {
        /// Its number; all if it is not given.
        number: Option<u64>,
    },
    /// Write a release's packed adapter, which `worker predict` and the other tools read as global model.
    Export(Export),
    /// Delete a release that no rollout needs.
    Delete(Delete),
}

#[derive(Debug, Args)]
struct Create {
    /// The round whose commit led to the model, which is its version; the current one if it is not given.
    #[arg(long, value_name = "N")]
    from_round: Option<u64>,
    /// A packed adapter, as `worker import` or `worker export --packed` writes.
    #[arg(long, value_name = "FILE", conflicts_with = "from_round")]
    from: Option<PathBuf>,
    /// What is said of it.
    #[arg(long, default_value = "")]
    notes: String,
    #[command(flatten)]
    why: Why,
}

#[derive(Debug, Args)]
struct Numbered {
    /// Its number.
    number: u64,
}

#[derive(Debug, Args)]
struct Export {
    /// Its number.
    number: u64,
    /// The file to write.
    #[arg(long)]
    out: PathBuf,
    /// Replace what is there.
    #[arg(long)]
    force: bool,
}

#[derive(Debug, Args)]
struct Delete {
    /// Its number.
    number: u64,
    #[command(flatten)]
    sure: Sure,
}

/// A coordinator's shelf, and the key that signed what is on it.
struct Place {
    shelf: Shelf,
    key: CoordinatorId,
}

impl Place {
    fn of(operator: &Operator, what: &str) -> Result<Self> {
        let config = operator.config(what)?;
        Ok(Self { shelf: Shelf::beside(&config.store), key: operator.coordinator() })
    }

    fn read(&self, number: u64) -> Result<Held> {
        Ok(self.shelf.read(number, &self.key)?)
    }
}

impl ReleaseCommand {
    pub(super) fn run(&self) -> Result<ExitCode> {
        let (operator, json) = (self.whom.operator()?, self.whom.json);
        match &self.verb {
            Verb::Create(create) => create.run(&operator, json)?,
            Verb::List => look::list(&operator, json)?,
            Verb::Show(Numbered { number }) => look::show(&Place::of(&operator, "release show")?, *number, json)?,
            Verb::Diff { from, to } => look::diff(&Place::of(&operator, "release diff")?, *from, *to, json)?,
            Verb::Verify { number } => {
                return look::verify(&Place::of(&operator, "release verify")?, *number, json);
            }
            Verb::Export(export) => export.run(&Place::of(&operator, "release export")?, json)?,
            Verb::Delete(delete) => delete.run(&operator, json)?,
        }
        Ok(ExitCode::SUCCESS)
    }
}

impl Create {
    fn run(&self, operator: &Operator, json: bool) -> Result<()> {
        let manifest = match &self.from {
            Some(path) => self.of_file(operator, path)?,
            None => self.of_run(operator)?,
        };
        show(json, &manifest, || {
            let Manifest { number, version, state, adapter, .. } = &manifest;
            let from = if version.0 == 0 { "a file".to_owned() } else { format!("version {}", version.0) };
            format!("release {number} is {from} with state {state}, {} bytes", adapter.bytes)
        })
    }

    fn of_file(&self, operator: &Operator, path: &Path) -> Result<Manifest> {
        let config = operator.config("release create --from")?;
        let bytes = fs::read(path).with_context(|| format!("read {}", path.display()))?;
        let adapter = Adapter::from_bytes(&bytes).with_context(|| path.display().to_string())?;
        let made = Made::of_file(&config.plan, adapter, self.notes.clone(), now())
            .with_context(|| path.display().to_string())?;
        Ok(Shelf::beside(&config.store).make(operator.identity(), &made)?)
    }

    /// Of the coordinator that serves, or of the store if none does.
    fn of_run(&self, operator: &Operator) -> Result<Manifest> {
        let order = Order::Release { version: self.from_round.map(Version), notes: self.notes.clone() };
        if !operator.is_local() {
            return operator.order(&self.why.text, order);
        }
        if let Some(manifest) = operator.try_order(&self.why.text, order)? {
            return Ok(manifest);
        }
        let config = operator.config("release create")?;
        let store = RedbStore::open(&config.store).map_err(|error| {
            advise(error, format!("if a coordinator runs, it does not answer at {}", operator.address))
        })?;
        let plan = &config.plan;
        let last = store.load(plan)?.and_then(|stored| stored.last);
        let engine = resume(Arc::clone(plan), &store, now())?;
        let made = Made::of_head(plan, engine.head(), last.as_ref(), self.from_round, self.notes.clone(), now())?;
        Ok(Shelf::beside(&config.store).make(operator.identity(), &made)?)
    }
}

impl Export {
    fn run(&self, place: &Place, json: bool) -> Result<()> {
        let held = place.read(self.number)?;
        if self.out.exists() && !self.force {
            bail!("{} is there; name another file, or add --force to replace it", self.out.display());
        }
        let part = self.out.with_extension("part");
        let written = fs::write(&part, held.adapter.to_bytes()).and_then(|()| fs::rename(&part, &self.out));
        written.with_context(|| format!("write {}", self.out.display()))?;
        let Manifest { number, state, adapter, .. } = held.manifest;
        let told = json!({ "number": number, "out": self.out, "bytes": adapter.bytes, "state": state });
        show(json, &told, || format!("release {number} written to {}, {} bytes", self.out.display(), adapter.bytes))
    }
}

impl Delete {
    fn run(&self, operator: &Operator, json: bool) -> Result<()> {
        let place = Place::of(operator, "release delete")?;
        let Manifest { number, notes, .. } = place.shelf.manifest(self.number, &place.key)?;
        if let Some(why) = in_use(operator, number)? {
            bail!("release {number} is not deleted: {why}");
        }
        self.sure.about(&format!("delete release {number} ({notes})"), "it cannot be taken back")?;
        place.shelf.delete(number, &place.key)?;
        print(&if json { json!({ "deleted": number }).to_string() } else { format!("release {number} deleted") })
    }
}

/// What needs a release: a rollout that is not over, or the one that a channel's workers have last been brought to.
fn in_use(operator: &Operator, release: u64) -> Result<Option<String>> {
    let rollouts = rollout::history(operator, usize::MAX)?.rollouts;
    let mut brought = Vec::new();
    for rollout in &rollouts {
        let (number, channel) = (rollout.number, &rollout.channel);
        let completed = rollout.phase == Phase::Completed.name();
        let is_last = completed && !brought.contains(&channel);
        if completed {
            brought.push(channel);
        }
        if rollout.release != release {
            continue;
        }
        // Whoever is in a stage has the release, and a rollout without a stage is over.
        if rollout.stage.is_some() {
            let next = format!("`coordinator rollout abort {number}` ends it");
            return Ok(Some(format!("rollout {number} to {channel} is {} with it; {next}", rollout.phase)));
        }
        if is_last {
            let next = "complete a rollout of a newer release first";
            return Ok(Some(format!("channel {channel} has it, by rollout {number}; {next}")));
        }
    }
    Ok(None)
}
