//! `coordinator release`: models that are frozen, numbered and signed.

use std::fs;
use std::io::{IsTerminal, Write};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;

use anyhow::{Context, Result, bail};
use clap::{Args, Subcommand};
use comfy_table::{Table, presets};
use packfed_codec::Adapter;
use packfed_coordinator::config::CoordinatorConfig;
use packfed_coordinator::redb_store::RedbStore;
use packfed_coordinator::release::{Difference, Held, Made, Shelf};
use packfed_coordinator::resume::resume;
use packfed_coordinator::server::now;
use packfed_coordinator::store::Store;
use packfed_protocol::{CoordinatorId, Identity, Manifest, Message, Order, Request, Version};
use serde_json::{Value, json};

use super::operator::Operator;
use super::{advise, load};

/// Freeze models as releases, and look at them.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  coordinator release create --config run1/coordinator.toml --notes 'better on cards'
  coordinator release create --config run1/coordinator.toml --from packed.packfed
  coordinator release list   --config run1/coordinator.toml --json | jq '.[-1].number'
  coordinator release diff 3 4 --config run1/coordinator.toml
  coordinator release export 4 --config run1/coordinator.toml --out global.packfed

A release never changes and its number is never used again. `create` asks the coordinator that serves, or reads the
store if none does; the others read the folder `releases` beside the store.
Exit codes: 0 done, 1 failed; stderr says why and what to do next.")]
pub(super) struct ReleaseCommand {
    #[command(subcommand)]
    verb: Verb,
    /// The configuration.
    #[arg(long, value_name = "FILE", global = true)]
    config: Option<PathBuf>,
    /// Print JSON.
    #[arg(long, global = true)]
    json: bool,
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
    /// Delete a release.
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
    /// Where to ask; otherwise where the configuration says that the coordinator listens.
    #[arg(long, value_name = "ADDRESS")]
    address: Option<SocketAddr>,
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
    /// Do not ask.
    #[arg(long)]
    yes: bool,
}

/// A coordinator's shelf, and the key that signed what is on it.
struct Place {
    config: CoordinatorConfig,
    identity: Identity,
    shelf: Shelf,
}

impl Place {
    fn key(&self) -> CoordinatorId {
        self.identity.id()
    }

    fn read(&self, number: u64) -> Result<Held> {
        Ok(self.shelf.read(number, &self.key())?)
    }
}

impl ReleaseCommand {
    pub(super) fn run(self) -> Result<ExitCode> {
        let config = load(self.config.as_deref().context("--config FILE is missing; name the coordinator's file")?)?;
        let (identity, shelf) = (Identity::load(&config.identity)?, Shelf::beside(&config.store));
        let (place, json) = (Place { config, identity, shelf }, self.json);
        match self.verb {
            Verb::Create(create) => create.run(&place, json),
            Verb::List => list(&place, json),
            Verb::Show(Numbered { number }) => show(&place, number, json),
            Verb::Diff { from, to } => diff(&place, from, to, json),
            Verb::Verify { number } => verify(&place, number, json),
            Verb::Export(export) => export.run(&place, json),
            Verb::Delete(delete) => delete.run(&place, json),
        }
    }
}

impl Create {
    fn run(self, place: &Place, json: bool) -> Result<ExitCode> {
        let manifest = match &self.from {
            Some(path) => {
                let adapter = read_adapter(path)?;
                let made = Made::of_file(&place.config.plan, adapter, self.notes.clone(), now())
                    .with_context(|| path.display().to_string())?;
                place.shelf.make(&place.identity, &made)?
            }
            None => self.of_run(place)?,
        };
        if json {
            return print(&serde_json::to_string(&manifest)?);
        }
        let Manifest { number, version, state, adapter, .. } = &manifest;
        let from = if version.0 == 0 { "a file".to_owned() } else { format!("version {}", version.0) };
        print(&format!(
            "release {number} is {from} with state {state}, {} bytes in {}",
            adapter.bytes,
            place.shelf.adapter_path(&adapter.digest).display()
        ))
    }

    /// Of the coordinator that serves, or of the store if none does.
    fn of_run(&self, place: &Place) -> Result<Manifest> {
        let operator = Operator::of(&place.config, self.address)?;
        let order = Order::Release { version: self.from_round.map(Version), notes: self.notes.clone() };
        if let Some(json) = operator.ask(&Message::Order(Box::new(Request { why: String::new(), order })))? {
            return serde_json::from_str(&json).context("the coordinator's answer is no release");
        }
        let store = RedbStore::open(&place.config.store).map_err(|error| {
            advise(error, format!("if a coordinator runs, it does not answer at {}", operator.address))
        })?;
        let last = store.load(&place.config.plan)?.and_then(|stored| stored.last);
        let engine = resume(Arc::clone(&place.config.plan), &store, now())?;
        let plan = &place.config.plan;
        let made = Made::of_head(plan, engine.head(), last.as_ref(), self.from_round, self.notes.clone(), now())?;
        Ok(place.shelf.make(&place.identity, &made)?)
    }
}

impl Export {
    fn run(self, place: &Place, json: bool) -> Result<ExitCode> {
        let held = place.read(self.number)?;
        if self.out.exists() && !self.force {
            bail!("{} is there; name another file, or add --force to replace it", self.out.display());
        }
        let part = self.out.with_extension("part");
        let written = fs::write(&part, held.adapter.to_bytes()).and_then(|()| fs::rename(&part, &self.out));
        written.with_context(|| format!("write {}", self.out.display()))?;
        let Manifest { number, state, adapter, .. } = held.manifest;
        if json {
            return print(
                &json!({ "number": number, "out": self.out, "bytes": adapter.bytes, "state": state }).to_string(),
            );
        }
        print(&format!("release {number} written to {}, {} bytes", self.out.display(), adapter.bytes))
    }
}

impl Delete {
    fn run(self, place: &Place, json: bool) -> Result<ExitCode> {
        let Manifest { number, notes, .. } = place.shelf.manifest(self.number, &place.key())?;
        if !self.yes {
            if !std::io::stdin().is_terminal() {
                bail!("deleting release {number} cannot be taken back; add --yes to do it without a question");
            }
            eprint!("delete release {number} ({notes})? it cannot be taken back [y/N] ");
            let mut answer = String::new();
            std::io::stdin().read_line(&mut answer)?;
            if !answer.trim().eq_ignore_ascii_case("y") {
                bail!("release {number} was kept");
            }
        }
        place.shelf.delete(number, &place.key())?;
        print(&if json { json!({ "deleted": number }).to_string() } else { format!("release {number} deleted") })
    }
}

fn list(place: &Place, json: bool) -> Result<ExitCode> {
    let there = place.shelf.numbers()?.into_iter().filter(|(_, there)| *there);
    let releases: Vec<Manifest> =
        there.map(|(number, _)| place.shelf.manifest(number, &place.key())).collect::<Result<_, _>>()?;
    if json {
        return print(&serde_json::to_string(&releases)?);
    }
    let mut table = Table::new();
    table.load_style(presets::NOTHING);
    table.set_header(["release", "version", "made", "bytes", "state", "notes"]);
    for Manifest { number, version, created, adapter, state, notes, .. } in releases {
        let made = format!("{} min ago", now().since(created) / 60_000);
        let (state, notes) =
            (format!("{:.12}", state.to_string()), notes.lines().next().unwrap_or_default().to_owned());
        table.add_row([number.to_string(), version.0.to_string(), made, adapter.bytes.to_string(), state, notes]);
    }
    print(&table.trim_fmt())
}

fn show(place: &Place, number: u64, json: bool) -> Result<ExitCode> {
    let manifest = place.shelf.manifest(number, &place.key())?;
    let digest = manifest.digest();
    let mut value = serde_json::to_value(&manifest)?;
    value["digest"] = json!(digest);
    if json {
        return print(&value.to_string());
    }
    let mut table = Table::new();
    table.load_style(presets::NOTHING);
    for (key, value) in value.as_object().into_iter().flatten() {
        let text = value.as_str().map_or_else(|| value.to_string(), ToOwned::to_owned);
        table.add_row([key, &text]);
    }
    print(&table.trim_fmt())
}

fn diff(place: &Place, from: u64, to: u64, json: bool) -> Result<ExitCode> {
    let found = Difference::of(&place.read(from)?, &place.read(to)?);
    if json {
        return print(&serde_json::to_string(&found)?);
    }
    let mut table = Table::new();
    table.load_style(presets::NOTHING);
    table.set_header(["layer", "lanes", "changed", "norm before", "norm after", "distance"]);
    for layer in found.layers.iter().flatten() {
        let [before, after, between] = layer.norms.map(|norm| format!("{norm:.4}"));
        table.add_row([&layer.name, &layer.lanes.to_string(), &layer.changed.to_string(), &before, &after, &between]);
    }
    let shipped = match found.delta_bytes {
        Some(delta) => format!("a worker on {from} needs {delta} bytes, one on the base {}", found.whole_bytes),
        None => format!("the layouts differ: every worker needs {} bytes", found.whole_bytes),
    };
    let figure = |value: &Option<f64>| value.map_or("–".to_owned(), |value| value.to_string());
    let figures =
        found.metrics.iter().map(|(name, [a, b])| format!("{name}: {} before, {} after", figure(a), figure(b)));
    let lines: Vec<String> = std::iter::once(table.trim_fmt()).chain([shipped]).chain(figures).collect();
    print(&lines.join("\n"))
}

fn verify(place: &Place, number: Option<u64>, json: bool) -> Result<ExitCode> {
    let numbers: Vec<u64> = match number {
        Some(number) => vec![number],
        None => place.shelf.numbers()?.into_iter().filter_map(|(number, there)| there.then_some(number)).collect(),
    };
    let mut wrong = Vec::new();
    let mut verified = Vec::new();
    for number in numbers {
        match place.shelf.read(number, &place.key()) {
            Ok(_) => verified.push(number),
            Err(error) => wrong.push((number, error.to_string())),
        }
    }
    if json {
        let wrong: Vec<Value> = wrong.iter().map(|(number, why)| json!({ "number": number, "why": why })).collect();
        print(&json!({ "verified": verified, "wrong": wrong }).to_string())?;
    } else {
        print(&format!("{} releases are whole and signed by {}", verified.len(), place.key()))?;
        wrong.iter().for_each(|(_, why)| eprintln!("{why}"));
    }
    Ok(if wrong.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

fn read_adapter(path: &Path) -> Result<Adapter> {
    let bytes = fs::read(path).with_context(|| format!("read {}", path.display()))?;
    Adapter::from_bytes(&bytes).with_context(|| path.display().to_string())
}

fn print(text: &str) -> Result<ExitCode> {
    writeln!(std::io::stdout(), "{text}")?;
    Ok(ExitCode::SUCCESS)
}
