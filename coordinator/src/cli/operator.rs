//! The line to the coordinator that serves: whom to ask, and as whom.
//!
//! ```text
//!   --config coordinator.toml   as the coordinator itself, on its machine; the store answers if nobody serves
//!   --admin admin.toml          as an admin, from anywhere
//! ```

use std::cell::{OnceCell, RefCell};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, ToSocketAddrs};
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use clap::Args;
use packfed_coordinator::config::CoordinatorConfig;
use packfed_coordinator::engine::Engine;
use packfed_coordinator::redb_store::RedbStore;
use packfed_coordinator::resume::resume;
use packfed_coordinator::server::now;
use packfed_protocol::quic::{Client, QuicError, client, read_message, write_message};
use packfed_protocol::{CoordinatorId, Identity, Limits, Message, Order, RejectionCode, Request};
use serde::de::DeserializeOwned;

use super::admin_file::AdminFile;
use super::exit::{NOT_SERVING, Refused, Usage};
use super::{advise, load};

/// Which coordinator is asked, by whom, and how the answer is printed.
#[derive(Debug, Args)]
pub(super) struct Whom {
    /// The coordinator's configuration: asks with the coordinator's own key, which may everything.
    #[arg(long, value_name = "FILE", global = true, help_heading = HEADING)]
    config: Option<PathBuf>,
    /// An admin's file, as `coordinator admin init` writes it, in place of --config: works from any machine.
    #[arg(long, value_name = "FILE", global = true, help_heading = HEADING)]
    admin: Option<PathBuf>,
    /// Where to ask; otherwise where the file says.
    #[arg(long, value_name = "HOST:PORT", global = true, help_heading = HEADING)]
    address: Option<String>,
    /// Print JSON; `coordinator schema` has the schemas.
    #[arg(long, global = true, help_heading = HEADING)]
    pub(super) json: bool,
}

/// The line.
pub(super) struct Operator {
    identity: Identity,
    coordinator: CoordinatorId,
    config: Option<CoordinatorConfig>,
    /// Where is asked.
    pub(super) address: SocketAddr,
    runtime: tokio::runtime::Runtime,
    /// A connection on which questions were answered.
    line: RefCell<Option<Line>>,
    /// The store, once it had to answer.
    stored: OnceCell<Engine>,
}

/// A connection, and the stream on which is asked.
struct Line {
    client: Client,
    _connection: quinn::Connection,
    send: quinn::SendStream,
    recv: quinn::RecvStream,
}

impl Whom {
    /// The line that is meant.
    pub(super) fn operator(&self) -> Result<Operator> {
        let (identity, coordinator, config, address) = match (&self.config, &self.admin) {
            (Some(path), None) => {
                let config = load(path)?;
                let identity = Identity::load(&config.identity)?;
                (identity.clone(), identity.id(), Some(config.clone()), config.listen.to_string())
            }
            (None, Some(path)) => {
                let file = AdminFile::load(path)?;
                (Identity::load(&file.identity)?, file.coordinator_key, None, file.address)
            }
            (None, None) => return Err(missing("is missing")),
            (Some(_), Some(_)) => return Err(missing("are both there")),
        };
        let address = reachable(resolved(self.address.as_ref().unwrap_or(&address))?);
        let runtime =
            tokio::runtime::Builder::new_current_thread().enable_all().build().context("start the runtime")?;
        let (line, stored) = (RefCell::new(None), OnceCell::new());
        Ok(Operator { identity, coordinator, config, address, runtime, line, stored })
    }
}

fn missing(what: &str) -> anyhow::Error {
    let next = "name either the coordinator's file with --config FILE or an admin's with --admin FILE";
    Usage(format!("--config and --admin {what}; {next}")).into()
}

impl Operator {
    /// The coordinator's configuration, without which this cannot be done.
    pub(super) fn config(&self, what: &str) -> Result<&CoordinatorConfig> {
        let next = "run it on the coordinator's machine with --config FILE in place of --admin";
        let missing = || Usage(format!("{what} needs the coordinator's own files; {next}")).into();
        self.config.as_ref().ok_or_else(missing)
    }

    /// Whether the coordinator's own files are here.
    pub(super) const fn is_local(&self) -> bool {
        self.config.is_some()
    }

    /// The key with which is asked.
    pub(super) const fn identity(&self) -> &Identity {
        &self.identity
    }

    /// The coordinator's key.
    pub(super) const fn coordinator(&self) -> CoordinatorId {
        self.coordinator
    }

    /// What the coordinator says to a question, which is JSON; `None` if none answers.
    pub(super) fn ask(&self, question: &Message) -> Result<Option<String>> {
        self.runtime.block_on(async {
            let kept = self.line.take();
            if let Some(mut line) = kept
                && let Ok(answer) = line.exchange(question).await
            {
                return self.heard(line, answer).map(Some);
            }
            // None was kept, or it was lost meanwhile; a question may be asked twice.
            self.ask_anew(question).await
        })
    }

    /// What the coordinator tells, or the store if none answers.
    pub(super) fn read<T: DeserializeOwned>(
        &self,
        order: Order,
        stored: impl FnOnce(&Engine) -> Result<T>,
    ) -> Result<T> {
        match self.ask(&question(order))? {
            Some(json) => parsed(&json),
            None => stored(self.stored()?),
        }
    }

    /// What the coordinator tells; without one this cannot be answered.
    pub(super) fn tell<T: DeserializeOwned>(&self, order: Order) -> Result<Option<T>> {
        self.ask(&question(order))?.map(|json| parsed(&json)).transpose()
    }

    /// Gives an order, with its reason; what is answered once it is done.
    pub(super) fn order<T: DeserializeOwned>(&self, why: &str, order: Order) -> Result<T> {
        match self.try_order(why, order)? {
            Some(answer) => Ok(answer),
            None => {
                let next = "only the one that serves changes anything: start it with `coordinator serve`";
                bail!("no coordinator answers at {}; {next}", self.address)
            }
        }
    }

    /// As [`Operator::order`]; `None` if nobody answers.
    pub(super) fn try_order<T: DeserializeOwned>(&self, why: &str, order: Order) -> Result<Option<T>> {
        let order = Message::Order(Box::new(Request { why: why.to_owned(), order }));
        // On a connection of its own: one that was lost meanwhile could not tell whether it was done.
        self.line.take();
        let answer = self.runtime.block_on(self.ask_anew(&order))?;
        answer.map(|json| parsed(&json)).transpose()
    }

    /// The store's engine; says once that it answers in the coordinator's place.
    pub(super) fn stored(&self) -> Result<&Engine> {
        if let Some(engine) = self.stored.get() {
            return Ok(engine);
        }
        let address = self.address;
        let Some(config) = &self.config else {
            bail!("no coordinator answers at {address}; is it serving there, and is the port open for UDP?")
        };
        eprintln!("no coordinator answers at {address}; this is what the store holds");
        let store = RedbStore::open(&config.store)
            .map_err(|error| advise(error, format!("if a coordinator runs, it does not answer at {address}")))?;
        let engine = resume(Arc::clone(&config.plan), &store, now())?;
        Ok(self.stored.get_or_init(|| engine))
    }

    /// Done, and whether the store had to answer.
    pub(super) fn code(&self) -> ExitCode {
        self.stored.get().map_or(ExitCode::SUCCESS, |_| ExitCode::from(NOT_SERVING))
    }

    /// Waits, and keeps the line alive.
    pub(super) fn wait(&self, time: Duration) {
        // A timer is made where the runtime is.
        self.runtime.block_on(async { tokio::time::sleep(time).await });
    }

    async fn ask_anew(&self, question: &Message) -> Result<Option<String>> {
        let Some(mut line) = Line::open(&self.identity, self.address, &self.coordinator).await? else {
            return Ok(None);
        };
        let answer = line.exchange(question).await?;
        self.heard(line, answer).map(Some)
    }

    fn heard(&self, line: Line, answer: Option<Message>) -> Result<String> {
        match answer {
            Some(Message::Status(status)) => {
                self.line.replace(Some(line));
                Ok(status.json)
            }
            Some(Message::Refused(refused)) => {
                let (why, key) = (refused.rejection, self.identity.id());
                let is_stranger = !self.is_local() && why.code == RejectionCode::Unexpected;
                Err(if is_stranger { Refused::Stranger { why, key } } else { Refused::Told(why) }.into())
            }
            Some(other) => bail!("the coordinator answered with {}", other.frame_type()),
            None => bail!("the coordinator did not answer"),
        }
    }
}

impl Drop for Operator {
    /// Says goodbye, so that the coordinator does not wait for the time-out.
    fn drop(&mut self) {
        if let Some(line) = self.line.take() {
            self.runtime.block_on(async {
                line.client.close();
                let _ = tokio::time::timeout(GOODBYE, line.client.wait_idle()).await;
            });
        }
    }
}

impl Line {
    /// A connection to the coordinator; `None` if none answers.
    async fn open(identity: &Identity, address: SocketAddr, coordinator: &CoordinatorId) -> Result<Option<Self>> {
        if address.port() == 0 {
            return Ok(None);
        }
        let client = client(identity)?;
        let connection = match tokio::time::timeout(CONNECT, client.connect(address, coordinator)).await {
            Ok(Ok(connection)) => connection,
            Err(_) | Ok(Err(QuicError::Connection(quinn::ConnectionError::TimedOut))) => return Ok(None),
            Ok(Err(error)) => return Err(advise(error, format!("is {address} this run's coordinator?"))),
        };
        let (send, recv) = connection.open_bi().await?;
        Ok(Some(Self { client, _connection: connection, send, recv }))
    }

    async fn exchange(&mut self, question: &Message) -> Result<Option<Message>> {
        let exchange = async {
            write_message(&mut self.send, question).await?;
            anyhow::Ok(read_message(&mut self.recv, &Limits::default()).await?)
        };
        let answer =
            tokio::time::timeout(ANSWER, exchange).await.context("the coordinator did not answer in time")??;
        Ok(answer.map(|(message, _)| message))
    }
}

fn question(order: Order) -> Message {
    Message::Order(Box::new(Request { why: String::new(), order }))
}

fn parsed<T: DeserializeOwned>(json: &str) -> Result<T> {
    serde_json::from_str(json).context("the coordinator's answer cannot be read; is it of another version of packfed?")
}

/// The first address of a name.
fn resolved(address: &str) -> Result<SocketAddr> {
    let unresolved = || format!("address {address:?} cannot be resolved; write HOST:PORT, such as 192.0.2.7:4600");
    let mut found = address.to_socket_addrs().with_context(unresolved)?;
    found.next().with_context(unresolved)
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

/// Where help lists whom to ask.
const HEADING: &str = "Whom to ask, and how to print";
/// How long a handshake may take; a coordinator's network tasks are never busy for so long.
const CONNECT: Duration = Duration::from_secs(5);
/// How long an answer may take: the engine may be in the middle of an aggregation.
const ANSWER: Duration = Duration::from_secs(30);
/// How long the last packets may take.
const GOODBYE: Duration = Duration::from_secs(1);
