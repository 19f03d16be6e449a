//! A run small enough to follow by hand, and a coordinator that serves it.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::time::Duration;

use packfed_coordinator::config::{
    AggregationTable, CoordinatorConfig, CoordinatorFile, LayerTable, ProfileName, ReportingTable, RunConfig, RunTable,
    SelectionTable, TrainingTable,
};
use packfed_coordinator::memory_store::MemoryStore;
use packfed_coordinator::optimizer::ServerOptimizer;
use packfed_coordinator::pace::Pace;
use packfed_coordinator::registry::{Member, Registry, Standing, token_digest};
use packfed_coordinator::server::{Outcome, Server, ServerError};
use packfed_coordinator::store::Store;
use packfed_coordinator::strikes::Strikes;
use packfed_protocol::quic::{client, read_message, write_message};
use packfed_protocol::{CoordinatorId, Digest, Identity, Limits, Message, Order, Rejection, Request, Token};
use serde_json::Value;
use tokio::sync::oneshot;
use tokio::task::JoinHandle;

/// The one unused token of [`registry`].
pub(crate) const TOKEN: Token = Token([9; 16]);

/// Two layers, four words and one; `workers` of them are drawn and all of them waited for.
pub(crate) fn file(workers: u32, rounds: u64) -> CoordinatorFile {
    let layer = |name: &str, cols| LayerTable {
        name: name.to_owned(),
        rows: 8,
        cols,
        block: 4,
        residual: 14,
        gain_exponent: 4,
        rate_exponent: 0,
    };
    let run = RunConfig {
        run: RunTable {
            name: "test".to_owned(),
            seed: 1,
            base: Digest([1; 32]),
            rounds,
            examples_max: 100,
            profile: ProfileName::Plain,
            levels: 8.0,
            history: 4,
        },
        layers: vec![layer("a", 8), layer("b", 4)],
        training: TrainingTable::adam(10, 8, 0.1),
        selection: SelectionTable::of(workers, workers, 600_000),
        pace: Pace::DEFAULT,
        strikes: Strikes::DEFAULT,
        buffered: None,
        reporting: ReportingTable { goal: workers, min: workers, timeout_ms: 600_000, over_selection: 0 },
        aggregation: AggregationTable::default(),
        server_optimizer: ServerOptimizer::FedAvgM { rate: 1.0, momentum: 0.5 },
    };
    let listen = SocketAddr::from((Ipv4Addr::LOCALHOST, 0));
    CoordinatorFile::new(listen, PathBuf::from("coordinator.key"), PathBuf::from("coordinator.redb"), run)
}

pub(crate) fn config(file: &CoordinatorFile) -> CoordinatorConfig {
    file.check(Path::new("")).unwrap()
}

/// The coordinator's key.
pub(crate) fn coordinator() -> Identity {
    Identity::from_seed([0xc0; 32])
}

/// Worker `n`'s key.
pub(crate) fn worker(n: u8) -> Identity {
    Identity::from_seed([n; 32])
}

/// Workers 1 to `workers` are admitted; [`TOKEN`] admits one more.
pub(crate) fn registry(workers: u8) -> Registry {
    let member = |n| (worker(n).id(), Member::new(format!("w{n}"), Standing::Admitted));
    Registry::new((1..=workers).map(member).collect::<BTreeMap<_, _>>(), BTreeSet::from([token_digest(&TOKEN)]))
}

/// A coordinator in this process.
pub(crate) struct Serving {
    pub(crate) address: SocketAddr,
    pub(crate) metrics: Option<SocketAddr>,
    pub(crate) dashboard: Option<SocketAddr>,
    pub(crate) config: CoordinatorConfig,
    stop: oneshot::Sender<()>,
    task: JoinHandle<Result<Outcome, ServerError>>,
}

impl Serving {
    /// Serves over memory; ends with its run.
    pub(crate) fn start(file: &CoordinatorFile, workers: u8) -> Self {
        Self::over(file, Box::new(MemoryStore::new(registry(workers))))
    }

    pub(crate) fn over(file: &CoordinatorFile, store: Box<dyn Store + Send>) -> Self {
        let config = config(file);
        Self::of(Server::bind_with(&config, &coordinator(), store).unwrap(), &config)
    }

    pub(crate) fn of(server: Server, config: &CoordinatorConfig) -> Self {
        let config = config.clone();
        let (metrics, dashboard) = (server.metrics_addr(), server.dashboard_addr());
        let (address, (stop, stopped)) = (server.local_addr(), oneshot::channel::<()>());
        let shutdown = async { stopped.await.unwrap_or(()) };
        Self { address, metrics, dashboard, config, stop, task: tokio::spawn(server.run_until_finished(shutdown)) }
    }

    /// How it ended, when it has.
    pub(crate) async fn outcome(self) -> Result<Outcome, ServerError> {
        let outcome = self.task.await.unwrap();
        drop(self.stop);
        outcome
    }

    /// How it ended, now that it is told to stop.
    pub(crate) async fn stopped(self) -> Result<Outcome, ServerError> {
        self.stop.send(()).unwrap();
        self.task.await.unwrap()
    }
}

/// Asks for the status as the operator does.
pub(crate) async fn status(address: SocketAddr) -> Value {
    match ask_status(&coordinator(), address, &coordinator().id()).await {
        Message::Status(status) => serde_json::from_str(&status.json).unwrap(),
        other => panic!("{other:?}"),
    }
}

/// Gives an order as the operator does.
pub(crate) async fn order(address: SocketAddr, order: Order) -> Result<Value, Rejection> {
    match ask(
        &coordinator(),
        address,
        &coordinator().id(),
        &Message::Order(Box::new(Request { why: String::new(), order })),
    )
    .await
    {
        Message::Status(status) => Ok(serde_json::from_str(&status.json).unwrap()),
        Message::Refused(refused) => Err(refused.rejection),
        other => panic!("{other:?}"),
    }
}

/// Asks for the status under any key.
pub(crate) async fn ask_status(identity: &Identity, address: SocketAddr, pinned: &CoordinatorId) -> Message {
    ask(identity, address, pinned, &Message::StatusRequest).await
}

/// Asks something on a connection of its own.
pub(crate) async fn ask(
    identity: &Identity,
    address: SocketAddr,
    pinned: &CoordinatorId,
    question: &Message,
) -> Message {
    let client = client(identity).unwrap();
    let connection = client.connect(address, pinned).await.unwrap();
    let (mut send, mut recv) = connection.open_bi().await.unwrap();
    write_message(&mut send, question).await.unwrap();
    read_message(&mut recv, &Limits::default()).await.unwrap().unwrap().0
}

/// A test that hangs fails; nothing in it waits for this.
pub(crate) async fn in_time<T>(test: impl Future<Output = T>) -> T {
    tokio::time::timeout(Duration::from_secs(60), test).await.expect("the test hangs")
}
