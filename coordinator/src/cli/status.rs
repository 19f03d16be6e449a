//! `coordinator status`: asks the coordinator that serves, or reads the store if none does.

use std::io::Write;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use clap::Args;
use packfed_coordinator::config::CoordinatorConfig;
use packfed_coordinator::redb_store::RedbStore;
use packfed_coordinator::resume::resume;
use packfed_coordinator::server::{Report, now};
use packfed_protocol::quic::{QuicError, client, read_message, write_message};
use packfed_protocol::{Identity, Limits, Message};

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
        let identity = Identity::load(&config.identity)?;
        let runtime =
            tokio::runtime::Builder::new_current_thread().enable_all().build().context("start the runtime")?;
        let address = reachable(self.address.unwrap_or(config.listen));
        let (json, code) = match runtime.block_on(ask(&identity, address))? {
            Some(json) => (json, ExitCode::SUCCESS),
            None => {
                eprintln!("no coordinator answers at {address}; this is what the store holds");
                (stored(&config, address)?, ExitCode::from(NOT_SERVING))
            }
        };
        let text = if self.json { json } else { report_table::render(&json)? };
        writeln!(std::io::stdout(), "{text}")?;
        Ok(code)
    }
}

/// What a coordinator says; `None` if none answers.
async fn ask(identity: &Identity, address: SocketAddr) -> Result<Option<String>> {
    if address.port() == 0 {
        return Ok(None);
    }
    let client = client(identity)?;
    let connection = match tokio::time::timeout(CONNECT, client.connect(address, &identity.id())).await {
        Ok(Ok(connection)) => connection,
        Err(_) | Ok(Err(QuicError::Connection(quinn::ConnectionError::TimedOut))) => return Ok(None),
        Ok(Err(error)) => return Err(advise(error, format!("is {address} this run's coordinator?"))),
    };
    let exchange = async {
        let (mut send, mut recv) = connection.open_bi().await?;
        write_message(&mut send, &Message::StatusRequest).await?;
        anyhow::Ok(read_message(&mut recv, &Limits::default()).await?)
    };
    let answer = tokio::time::timeout(ANSWER, exchange).await.context("the coordinator did not answer in time")??;
    client.close();
    client.wait_idle().await;
    match answer {
        Some((Message::Status(status), _)) => Ok(Some(status.json)),
        Some((Message::Refused(refused), _)) => bail!("the coordinator refused: {}", refused.rejection),
        Some((other, _)) => bail!("the coordinator answered with {}", other.frame_type()),
        None => bail!("the coordinator did not answer"),
    }
}

fn stored(config: &CoordinatorConfig, address: SocketAddr) -> Result<String> {
    let store = RedbStore::open(&config.store)
        .map_err(|error| advise(error, format!("if a coordinator runs, it does not answer at {address}")))?;
    let engine = resume(Arc::clone(&config.plan), &store, now())?;
    Ok(Report::stored(engine.status()).to_json())
}

/// An address that stands for every interface is asked on the loopback one.
fn reachable(mut address: SocketAddr) -> SocketAddr {
    if address.ip().is_unspecified() {
        address.set_ip(match address {
            SocketAddr::V4(_) => IpAddr::V4(Ipv4Addr::LOCALHOST),
            SocketAddr::V6(_) => IpAddr::V6(Ipv6Addr::LOCALHOST),
        });
    }
    address
}

/// How long a handshake may take; a coordinator's network tasks are never busy for so long.
const CONNECT: Duration = Duration::from_secs(5);
/// How long an answer may take: the engine may be in the middle of an aggregation.
const ANSWER: Duration = Duration::from_secs(30);
/// Exit code if no coordinator answers.
const NOT_SERVING: u8 = 3;
