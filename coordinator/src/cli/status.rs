//! `coordinator status`: asks the coordinator that serves, or reads the store if none does.

use std::io::Write;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;

use anyhow::Result;
use clap::Args;
use packfed_coordinator::config::CoordinatorConfig;
use packfed_coordinator::redb_store::RedbStore;
use packfed_coordinator::resume::resume;
use packfed_coordinator::server::{Report, now};
use packfed_protocol::Message;

use super::operator::Operator;
use super::{advise, load, report_table};

/// Say how the run stands, over the network with the coordinator's own key.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  coordinator status --config run1/coordinator.toml
  coordinator status --config run1/coordinator.toml --json | jq .counters

Exit codes: 0 a coordinator answered, 3 none listens and the store was read (\"serving\": false), 1 failed.")]
pub(super) struct StatusCommand {
    /// The configuration.
    #[arg(long, value_name = "FILE")]
    config: PathBuf,
    /// Where to ask; otherwise where the configuration says that it listens.
    #[arg(long, value_name = "ADDRESS")]
    address: Option<SocketAddr>,
    /// Print one JSON object.
    #[arg(long)]
    json: bool,
}

impl StatusCommand {
    pub(super) fn run(&self) -> Result<ExitCode> {
        let config = load(&self.config)?;
        let operator = Operator::of(&config, self.address)?;
        let (json, code) = match operator.ask(&Message::StatusRequest)? {
            Some(json) => (json, ExitCode::SUCCESS),
            None => {
                let address = operator.address;
                eprintln!("no coordinator answers at {address}; this is what the store holds");
                (stored(&config, address)?, ExitCode::from(NOT_SERVING))
            }
        };
        let text = if self.json { json } else { report_table::render(&json)? };
        writeln!(std::io::stdout(), "{text}")?;
        Ok(code)
    }
}

fn stored(config: &CoordinatorConfig, address: SocketAddr) -> Result<String> {
    let store = RedbStore::open(&config.store)
        .map_err(|error| advise(error, format!("if a coordinator runs, it does not answer at {address}")))?;
    let engine = resume(Arc::clone(&config.plan), &store, now())?;
    Ok(Report::stored(engine.status()).to_json())
}

/// Exit code if no coordinator answers.
const NOT_SERVING: u8 = 3;
