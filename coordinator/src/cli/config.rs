//! `coordinator config`: whether a configuration holds, and everything that it names.

use std::fs::{self, OpenOptions};
use std::io;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;

use anyhow::Result;
use clap::{Args, Subcommand};
use packfed_coordinator::config::CoordinatorConfig;
use packfed_coordinator::redb_store::RedbStore;
use packfed_coordinator::resume::resume;
use packfed_coordinator::server::now;
use packfed_protocol::Identity;
use serde::Serialize;

use super::output::{show, table};

/// Check a configuration and what it names.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  coordinator config check --config run1/coordinator.toml
  coordinator config check --json | jq '.checks[] | select(.ok | not)'

Nothing is changed. A store that a coordinator serves from is in order. An error names the file, the key, the value and
what is allowed. Exit codes: 0 everything holds, 1 something does not.")]
pub(super) struct ConfigCommand {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Debug, Subcommand)]
enum Verb {
    /// Check every key, the key file, the store and the folder of the audit log.
    Check(Check),
}

#[derive(Debug, Args)]
struct Check {
    /// The configuration.
    #[arg(long, value_name = "FILE", default_value = "coordinator.toml")]
    config: PathBuf,
    /// Print one JSON object.
    #[arg(long)]
    json: bool,
}

/// What was checked.
#[derive(Debug, Serialize)]
struct Checked {
    config: PathBuf,
    ok: bool,
    checks: Vec<One>,
}

/// One thing that was checked.
#[derive(Debug, Serialize)]
struct One {
    check: &'static str,
    ok: bool,
    detail: String,
}

impl ConfigCommand {
    pub(super) fn run(&self) -> Result<ExitCode> {
        let Verb::Check(Check { config, json }) = &self.verb;
        let mut checks = Vec::new();
        let mut note = |check, found: Result<String, String>| {
            let ok = found.is_ok();
            checks.push(One { check, ok, detail: found.unwrap_or_else(|why| why) });
        };
        match CoordinatorConfig::load(config) {
            Err(error) => note("configuration", Err(format!("{error}; coordinator.example.toml explains every key"))),
            Ok(config) => {
                let admins = config.admins.len();
                note("configuration", Ok(format!("run {}, {admins} admins", config.plan.raw().run)));
                note("identity", identity(&config));
                note("store", store(&config));
                note("audit", audit(&config));
            }
        }
        let checked = Checked { config: config.clone(), ok: checks.iter().all(|one| one.ok), checks };
        show(*json, &checked, || {
            let mut table = table(&["check", "", "found"]);
            for One { check, ok, detail } in &checked.checks {
                table.add_row([*check, if *ok { "ok" } else { "WRONG" }, detail.as_str()]);
            }
            table.trim_fmt()
        })?;
        Ok(if checked.ok { ExitCode::SUCCESS } else { ExitCode::FAILURE })
    }
}

fn identity(config: &CoordinatorConfig) -> Result<String, String> {
    let identity = Identity::load(&config.identity);
    let found = identity.map(|identity| format!("public key {}", identity.id()));
    found.map_err(|error| format!("{error}; restore it, or `coordinator init DIR` makes a folder with a key"))
}

/// Whether the store is there and is this run's.
fn store(config: &CoordinatorConfig) -> Result<String, String> {
    let store = match RedbStore::open(&config.store) {
        Ok(store) => store,
        Err(error) if error.to_string().contains(IN_USE) => {
            return Ok(format!("{} is in use by a process, which is in order if it serves", config.store.display()));
        }
        Err(error) => {
            return Err(format!("{error}; restore it, or `coordinator init DIR` makes a folder with a store"));
        }
    };
    let engine = resume(Arc::clone(&config.plan), &store, now()).map_err(|error| error.to_string())?;
    let status = engine.status();
    Ok(format!("version {} of {}, {} workers enrolled", status.version, status.rounds, status.enrolled))
}

/// Whether the audit log's folder can be written.
fn audit(config: &CoordinatorConfig) -> Result<String, String> {
    let Some(audit) = &config.audit else { return Ok("no [audit] in the configuration, no log is kept".to_owned()) };
    let folder = &audit.folder;
    // A folder that is not there yet is made in the first one above it that is.
    let there = folder.ancestors().map(|above| if above.as_os_str().is_empty() { Path::new(".") } else { above });
    let Some(there) = there.into_iter().find(|above| above.exists()) else {
        return Err(format!("audit directory {}: no folder above it is there", folder.display()));
    };
    let next = "give this user write access to it, or name another folder";
    match probe(there) {
        Ok(()) => Ok(format!("{} can be written", folder.display())),
        Err(error) => Err(format!("audit directory {}: {}: {error}; {next}", folder.display(), there.display())),
    }
}

/// Writes a file into a folder and removes it.
fn probe(folder: &Path) -> io::Result<()> {
    let path = folder.join(format!(".packfed-check-{}", std::process::id()));
    OpenOptions::new().write(true).create_new(true).open(&path)?;
    fs::remove_file(&path)
}

/// What the storage engine says of a file that another process has open.
const IN_USE: &str = "already open";
