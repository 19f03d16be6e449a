//! `coordinator worker`: who is enrolled, and who may take part.

use std::io::Write;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::{Context, Result, bail};
use clap::{Args, Subcommand};
use comfy_table::{Table, presets};
use packfed_coordinator::config::CoordinatorConfig;
use packfed_coordinator::redb_store::RedbStore;
use packfed_coordinator::server::{Roster, Row, There, now};
use packfed_coordinator::store::Store;
use packfed_protocol::{Message, Order, Request, WorkerId};

use super::operator::Operator;
use super::{advise, load};

/// Say who is enrolled, or say who may take part.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  coordinator worker list --config run1/coordinator.toml --json | jq '.[] | select(.strikes > 0)'
  coordinator worker suspend kitchen-tablet --config run1/coordinator.toml
  coordinator worker revoke 3d40…660c --config run1/coordinator.toml

A worker is named by its key, or by its name if no other has it. Only the coordinator that serves changes a
standing: an order is in its store and in its audit log when it answers.
Exit codes: 0 done, 3 none serves and the list is what the store holds, 1 failed.")]
pub(super) struct WorkerCommand {
    #[command(subcommand)]
    verb: Verb,
    /// The configuration.
    #[arg(long, value_name = "FILE", global = true)]
    config: Option<PathBuf>,
    /// Where to ask; otherwise where the configuration says that it listens.
    #[arg(long, value_name = "ADDRESS", global = true)]
    address: Option<SocketAddr>,
    /// Print JSON.
    #[arg(long, global = true)]
    json: bool,
}

#[derive(Debug, Subcommand)]
enum Verb {
    /// Say who is enrolled, connected and in good standing.
    List,
    /// Let a worker take part again; nothing counts against it.
    Admit(Named),
    /// Let a worker take no part until it is admitted again.
    Suspend(Named),
    /// Disconnect a worker and never let its key take part again, unless it is admitted.
    Revoke(Named),
}

#[derive(Debug, Args)]
struct Named {
    /// The worker's key, or its name if no other has it.
    #[arg(value_name = "NAME_OR_KEY")]
    worker: String,
}

impl WorkerCommand {
    pub(super) fn run(&self) -> Result<ExitCode> {
        let config = load(self.config.as_deref().context("--config FILE is missing; name the coordinator's file")?)?;
        let operator = Operator::of(&config, self.address)?;
        match &self.verb {
            Verb::List => self.list(&config, &operator),
            Verb::Admit(named) => self.order(&operator, named, Order::Admit),
            Verb::Suspend(named) => self.order(&operator, named, Order::Suspend),
            Verb::Revoke(named) => self.order(&operator, named, Order::Revoke),
        }
    }

    fn list(&self, config: &CoordinatorConfig, operator: &Operator) -> Result<ExitCode> {
        let (rows, code) = match asked(operator)? {
            Some(rows) => (rows, ExitCode::SUCCESS),
            None => {
                let address = operator.address;
                eprintln!("no coordinator answers at {address}; this is what the store holds");
                (stored(config, address)?, ExitCode::from(NOT_SERVING))
            }
        };
        self.print(&rows, serde_json::to_string(&rows)?)?;
        Ok(code)
    }

    fn order(&self, operator: &Operator, named: &Named, order: impl Fn(WorkerId) -> Order) -> Result<ExitCode> {
        let Some(rows) = asked(operator)? else { bail!(NOBODY.replace("{}", &operator.address.to_string())) };
        let key = found(&rows, &named.worker)?;
        let Some(json) = operator.ask(&Message::Order(Box::new(Request { why: String::new(), order: order(key) })))?
        else {
            bail!("the coordinator is gone")
        };
        let row: Row = serde_json::from_str(&json).context("the coordinator's answer is no worker")?;
        self.print(&[row], json)?;
        Ok(ExitCode::SUCCESS)
    }

    fn print(&self, rows: &[Row], json: String) -> Result<()> {
        let text = if self.json { json } else { render(rows) };
        Ok(writeln!(std::io::stdout(), "{text}")?)
    }
}

/// Every enrolled worker, as the coordinator tells; `None` if none answers.
fn asked(operator: &Operator) -> Result<Option<Vec<Row>>> {
    let (mut rows, mut after) = (Vec::new(), FIRST);
    loop {
        let Some(json) =
            operator.ask(&Message::Order(Box::new(Request { why: String::new(), order: Order::List(after) })))?
        else {
            return Ok(None);
        };
        let page: Roster = serde_json::from_str(&json).context("the coordinator's answer is no list of workers")?;
        rows.extend(page.workers);
        match rows.last() {
            Some(last) if page.more => after = last.key,
            _ => return Ok(Some(rows)),
        }
    }
}

fn stored(config: &CoordinatorConfig, address: SocketAddr) -> Result<Vec<Row>> {
    let store = RedbStore::open(&config.store)
        .map_err(|error| advise(error, format!("if a coordinator runs, it does not answer at {address}")))?;
    let (mut registry, now) = (store.registry()?, now());
    store.ledger()?.labels.into_iter().for_each(|(worker, labels)| registry.label(worker, labels));
    let row = |worker| Row::of(&registry, worker, now, There::default());
    Ok(registry.members().keys().filter_map(row).collect())
}

/// The one worker that is meant.
fn found(rows: &[Row], worker: &str) -> Result<WorkerId> {
    if let Ok(key) = worker.parse() {
        return Ok(key);
    }
    let meant: Vec<&Row> = rows.iter().filter(|row| row.name == worker).collect();
    match meant[..] {
        [row] => Ok(row.key),
        [] => bail!("no worker is named {worker:?}; `coordinator worker list` says who is enrolled"),
        _ => {
            let keys: Vec<String> = meant.iter().map(|row| row.key.to_string()).collect();
            bail!("{} workers are named {worker:?}; name one by its key: {}", meant.len(), keys.join(", "))
        }
    }
}

fn render(rows: &[Row]) -> String {
    let mut table = Table::new();
    table.load_style(presets::NOTHING);
    table.set_header(["name", "standing", "strikes", "connected", "seen", "key"]);
    for row in rows {
        let seen =
            row.seen_ms.map_or("never".to_owned(), |ms| format!("{} min ago", now().0.saturating_sub(ms) / 60_000));
        let connected = if row.connected { "yes" } else { "no" };
        let (strikes, key) = (row.strikes.to_string(), row.key.to_string());
        table.add_row([&row.name, &row.standing, &strikes, connected, &seen, &key]);
    }
    table.trim_fmt()
}

/// No worker's key: the list begins after it.
const FIRST: WorkerId = WorkerId([0; 32]);
/// Exit code if no coordinator answers.
const NOT_SERVING: u8 = 3;
const NOBODY: &str =
    "no coordinator answers at {}; only the one that serves changes a standing: start it with `coordinator serve`";

#[cfg(test)]
mod tests {
    use packfed_coordinator::registry::{Member, Registry, Standing};
    use packfed_protocol::Timestamp;

    use super::*;

    #[test]
    fn a_worker_is_meant_by_its_key_or_by_a_name_that_no_other_has() {
        let row = |n: u8, name: &str| {
            let members = [(WorkerId([n; 32]), Member::new(name.into(), Standing::Admitted))].into();
            let registry = Registry::new(members, [].into());
            Row::of(&registry, &WorkerId([n; 32]), Timestamp(0), There::default()).unwrap()
        };
        let rows = [row(1, "a"), row(2, "b"), row(3, "b")];
        assert_eq!(found(&rows, "a").unwrap(), WorkerId([1; 32]));
        assert_eq!(found(&rows, &WorkerId([3; 32]).to_string()).unwrap(), WorkerId([3; 32]));
        assert!(found(&rows, "c").unwrap_err().to_string().starts_with("no worker is named \"c\""));
        let several = found(&rows, "b").unwrap_err().to_string();
        assert!(several.starts_with("2 workers are named \"b\"; name one by its key: 0202"), "{several}");
    }
}
