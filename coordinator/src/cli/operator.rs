//! The operator's line to the coordinator that serves: its own key, over the network.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::Duration;

use anyhow::{Context, Result, bail};
use packfed_coordinator::config::CoordinatorConfig;
use packfed_protocol::quic::{QuicError, client, read_message, write_message};
use packfed_protocol::{Identity, Limits, Message};

use super::advise;

/// Whom to ask, and as whom.
pub(super) struct Operator {
    identity: Identity,
    /// Where is asked.
    pub(super) address: SocketAddr,
    runtime: tokio::runtime::Runtime,
}

impl Operator {
    /// The operator of this coordinator, who asks where it listens unless another address is given.
    pub(super) fn of(config: &CoordinatorConfig, address: Option<SocketAddr>) -> Result<Self> {
        let identity = Identity::load(&config.identity)?;
        let runtime =
            tokio::runtime::Builder::new_current_thread().enable_all().build().context("start the runtime")?;
        Ok(Self { identity, address: reachable(address.unwrap_or(config.listen)), runtime })
    }

    /// What the coordinator says, which is JSON; `None` if none answers.
    pub(super) fn ask(&self, question: &Message) -> Result<Option<String>> {
        self.runtime.block_on(ask(&self.identity, self.address, question))
    }
}

async fn ask(identity: &Identity, address: SocketAddr, question: &Message) -> Result<Option<String>> {
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
        write_message(&mut send, question).await?;
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
