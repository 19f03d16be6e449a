//! The QUIC shell around the engine.
//!
//! ```text
//!   connection tasks ──Arrival──► owner (Engine + Store, one thread) ──Message──► connection tasks
//!     frames, signatures            effects in order, writes first               one bounded queue each
//! ```
//!
//! A worker's first stream is its control stream: enrolments and check-ins go up, everything the
//! coordinator has to say comes down. Payloads have streams of their own: an update goes up and its
//! verdict down, a catch-up that was told of is fetched. Either is gone on with where it was broken off.
//! The shell decides nothing about rounds; what it decides is how much of a peer it bears.

use std::future::Future;
use std::net::{SocketAddr, TcpListener};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use packfed_protocol::quic::{self, QuicError};
use packfed_protocol::{
    CoordinatorId, Identity, IdentityError, Rejection, Request, Timestamp, Verdict, Verified, WorkerId,
};
use quinn::VarInt;
use thiserror::Error;
use tokio::runtime::Handle;
use tokio::sync::{mpsc, oneshot};
use tokio::task::{JoinError, JoinHandle, JoinSet};

use crate::admin::Admin;
use crate::audit::{AuditError, AuditLog};
use crate::config::CoordinatorConfig;
use crate::redb_store::RedbStore;
use crate::resume::{ResumeError, resume};
use crate::status::{Status, StatusStage};
use crate::store::{Store, StoreError};

mod bodies;
mod clock;
mod connection;
mod control;
mod dashboard;
mod fetch;
mod gate;
mod metrics;
mod operator;
mod owner;
mod partials;
mod peer;
mod releases;
mod report;
mod roster;
mod shared;
mod strangers;
mod stream;
mod traffic;
mod update;

pub use clock::now;
use gate::{Address, Gate, Judgement};
use owner::{Ending, Owner};
pub use report::Report;
pub use roster::{Roster, Row, There};
use shared::Shared;
pub use traffic::Bytes;

/// A coordinator that is bound to its port and has taken up its run.
pub struct Server {
    endpoint: quinn::Endpoint,
    local_addr: SocketAddr,
    owner: Owner,
    status: Status,
    shared: Arc<Shared>,
    metrics: Option<TcpListener>,
    dashboard: Option<TcpListener>,
    /// Its size is a metric.
    store: Option<PathBuf>,
    inbox_max: usize,
    connections_max: usize,
    gate: Gate,
}

/// A round that is gone on with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ResumedRound {
    /// Its number.
    pub round: u64,
    /// Workers drawn.
    pub cohort: usize,
    /// Updates that it has.
    pub reports: u32,
}

/// How serving ended.
#[derive(Clone, Debug, PartialEq)]
pub struct Outcome {
    /// The last picture of the run.
    pub report: Report,
    /// Whether every round of the plan is committed.
    pub finished: bool,
}

/// Why there is no server, or no more of it.
#[derive(Debug, Error)]
pub enum ServerError {
    /// The coordinator's key cannot be had.
    #[error(transparent)]
    Identity(#[from] IdentityError),
    /// The port cannot be had.
    #[error(transparent)]
    Quic(#[from] QuicError),
    /// The run cannot be taken up.
    #[error(transparent)]
    Resume(#[from] ResumeError),
    /// The store failed. Nothing that depended on the write was done.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The audit log cannot be taken up or written. Nothing that it was not told was done.
    #[error(transparent)]
    Audit(#[from] AuditError),
    /// The port for metrics cannot be had.
    #[error("cannot serve metrics at {address}: {why}")]
    Metrics {
        /// The address that was asked for.
        address: SocketAddr,
        /// What the system said.
        why: std::io::Error,
    },
    /// The port for the dashboard cannot be had.
    #[error("cannot serve the dashboard at {address}: {why}")]
    Dashboard {
        /// The address that was asked for.
        address: SocketAddr,
        /// What the system said.
        why: std::io::Error,
    },
    /// The thread that owns the engine is gone.
    #[error("the engine's thread ended: {0}")]
    Owner(#[from] JoinError),
    /// The network ended under the server.
    #[error("the endpoint closed by itself")]
    Endpoint,
}

/// What connection tasks tell the owner.
enum Arrival {
    /// A worker's connection is there.
    Connected { link: owner::Link, admission: oneshot::Sender<shared::Admission> },
    /// It said something on its control stream.
    Said { from: Sender, said: control::Said },
    /// An update came, or what should have been one.
    Update { worker: WorkerId, update: Result<Verified, Rejection>, verdict: oneshot::Sender<Verdict> },
    /// The connection will say no more.
    Gone { from: Sender },
    /// The operator asks.
    Status { report: oneshot::Sender<String> },
    /// The operator wants to know of workers, or to change what one may do.
    Order { by: Arc<Admin>, request: Box<Request>, answer: oneshot::Sender<Result<String, Rejection>> },
}

/// A worker, by one of its connections: a later one replaces it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Sender {
    worker: WorkerId,
    connection: u64,
}

impl Server {
    /// Loads the key, opens the store, takes up the run and binds the port. The store has to be there;
    /// see [`RedbStore::create`].
    ///
    /// # Errors
    /// If the key, the store or the port cannot be had, or the store is another plan's.
    pub fn bind(config: &CoordinatorConfig) -> Result<Self, ServerError> {
        let identity = Identity::load(&config.identity)?;
        let mut store = RedbStore::open(&config.store)?;
        if let Some(tidied) = store.tidy()? {
            tracing::info!(before = tidied.before, after = tidied.after, "store compacted");
        }
        store.claim(&config.plan)?;
        let (at, run) = (now(), config.plan.raw().run);
        let log = |policy| AuditLog::open(policy, &config.store, run, store.group(), at);
        let audit = config.audit.clone().map(log).transpose()?;
        let server = Self::over(config, &identity, Box::new(store), audit, at)?;
        Ok(Self { store: Some(config.store.clone()), ..server })
    }

    /// As [`Server::bind`], with a key and a store that are there already, and without an audit log.
    ///
    /// # Errors
    /// If the port cannot be had, or the store is another plan's.
    pub fn bind_with(
        config: &CoordinatorConfig,
        identity: &Identity,
        mut store: Box<dyn Store + Send>,
    ) -> Result<Self, ServerError> {
        store.claim(&config.plan)?;
        Self::over(config, identity, store, None, now())
    }

    /// Takes up a run whose store is claimed, at the moment at which the audit log begins.
    fn over(
        config: &CoordinatorConfig,
        identity: &Identity,
        store: Box<dyn Store + Send>,
        audit: Option<AuditLog>,
        at: Timestamp,
    ) -> Result<Self, ServerError> {
        let engine = resume(Arc::clone(&config.plan), store.as_ref(), at)?;
        let metrics = config.metrics.map(metrics::bind).transpose()?;
        let dashboard = config.dashboard.map(dashboard::bind).transpose()?;
        let endpoint = quic::server(identity, config.listen)?;
        let local_addr = endpoint
            .local_addr()
            .map_err(|error| ServerError::Quic(QuicError::Bind { addr: config.listen, reason: error.to_string() }))?;
        let shared = Arc::new(Shared::new(
            identity.id(),
            &config.admins,
            &config.plan,
            &config.limits,
            metrics::Metrics::new(metrics.is_some()),
            dashboard::Dashboard::new(dashboard.is_some()),
        ));
        let releases = releases::Releases::new(identity.clone(), &config.store);
        shared.metrics.show(|| metrics::Shown { status: engine.status(), connected: 0 });
        let (status, owner) = (engine.status(), Owner::new(engine, store, audit, releases, Arc::clone(&shared)));
        owner.draw(at);
        Ok(Self {
            endpoint,
            local_addr,
            status,
            owner,
            shared,
            metrics,
            dashboard,
            store: None,
            inbox_max: usize::try_from(config.limits.inbox_max).unwrap_or(usize::MAX),
            connections_max: usize::try_from(config.limits.connections_max).unwrap_or(usize::MAX),
            gate: Gate::new(&config.limits, now()),
        })
    }

    /// Where it listens; the port is the real one if 0 was asked for.
    #[must_use]
    pub const fn local_addr(&self) -> SocketAddr {
        self.local_addr
    }

    /// Where metrics are served, if they are.
    #[must_use]
    pub fn metrics_addr(&self) -> Option<SocketAddr> {
        self.metrics.as_ref().and_then(|listener| listener.local_addr().ok())
    }

    /// Where the dashboard is served, if it is.
    #[must_use]
    pub fn dashboard_addr(&self) -> Option<SocketAddr> {
        self.dashboard.as_ref().and_then(|listener| listener.local_addr().ok())
    }

    /// The key that workers pin.
    #[must_use]
    pub fn id(&self) -> CoordinatorId {
        self.shared.own
    }

    /// The run as the store had it.
    #[must_use]
    pub const fn resumed(&self) -> &Status {
        &self.status
    }

    /// The round that a restart found open.
    #[must_use]
    pub const fn resumed_round(&self) -> Option<ResumedRound> {
        match self.status.stage {
            StatusStage::Reporting { round, cohort, reports } => Some(ResumedRound { round, cohort, reports }),
            StatusStage::Buffering { round, at_work, reports, .. } if round > 0 => {
                Some(ResumedRound { round, cohort: at_work, reports })
            }
            StatusStage::Selecting { .. }
            | StatusStage::Aggregating { .. }
            | StatusStage::Buffering { .. }
            | StatusStage::Finished => None,
        }
    }

    /// Serves until `shutdown` is ready; the run may finish meanwhile, workers are told so for ever.
    ///
    /// # Errors
    /// If the store fails; nothing that depended on the failed write was done.
    pub async fn run(self, shutdown: impl Future<Output = ()>) -> Result<Outcome, ServerError> {
        self.serve(Ending::WhenAsked, shutdown).await
    }

    /// Serves until the run is finished and every connected worker was told so and has left, or no
    /// byte has moved for 5 s; or until `shutdown` is ready.
    ///
    /// # Errors
    /// As [`Server::run`].
    pub async fn run_until_finished(self, shutdown: impl Future<Output = ()>) -> Result<Outcome, ServerError> {
        self.serve(Ending::WhenFinished, shutdown).await
    }

    async fn serve(self, ending: Ending, shutdown: impl Future<Output = ()>) -> Result<Outcome, ServerError> {
        let (inbox, arrivals) = mpsc::channel(self.inbox_max);
        let (owner, runtime) = (self.owner, Handle::current());
        // Its own thread, so that a disk's flush or an aggregation holds up no connection.
        let mut owner = tokio::task::spawn_blocking(move || runtime.block_on(owner.run(arrivals, ending)));
        // Ends with the runtime's interest in it: a scrape that is cut off harms nobody.
        let mut watchers = JoinSet::new();
        if let Some(listener) = self.metrics {
            watchers.spawn(metrics::serve(listener, Arc::clone(&self.shared), self.store));
        }
        if let Some(listener) = self.dashboard {
            watchers.spawn(dashboard::serve(listener, self.shared.dashboard.pictures()));
        }
        let accepting = Accepting {
            endpoint: self.endpoint.clone(),
            shared: Arc::clone(&self.shared),
            inbox,
            connections_max: self.connections_max,
            gate: self.gate,
        };
        let ended = accepting.until(shutdown, &mut owner).await;
        self.endpoint.close(CLOSED, b"the coordinator stops");
        let status = match ended {
            Ended::Shutdown => owner.await??,
            Ended::Owner(status) => (*status)??,
            Ended::Endpoint => return Err(ServerError::Endpoint),
        };
        let _ = tokio::time::timeout(LAST_PACKETS, self.endpoint.wait_idle()).await;
        let finished = status.stage == StatusStage::Finished;
        let report = Report { serving: false, ..Report::serving(status, &self.shared.traffic) };
        Ok(Outcome { report, finished })
    }
}

/// The loop that takes connections.
struct Accepting {
    endpoint: quinn::Endpoint,
    shared: Arc<Shared>,
    inbox: mpsc::Sender<Arrival>,
    connections_max: usize,
    gate: Gate,
}

/// Why no more connections are taken.
enum Ended {
    Shutdown,
    Owner(Box<Result<Result<Status, ServerError>, JoinError>>),
    Endpoint,
}

impl Accepting {
    /// Takes connections until somebody says stop; then closes all of them and waits for their tasks.
    async fn until(
        self,
        shutdown: impl Future<Output = ()>,
        owner: &mut JoinHandle<Result<Status, ServerError>>,
    ) -> Ended {
        let mut connections = JoinSet::new();
        tokio::pin!(shutdown);
        let ended = loop {
            tokio::select! {
                () = &mut shutdown => break Ended::Shutdown,
                status = &mut *owner => break Ended::Owner(Box::new(status)),
                incoming = self.endpoint.accept() => match incoming {
                    Some(incoming) => self.welcome(incoming, &mut connections),
                    None => break Ended::Endpoint,
                },
                Some(_) = connections.join_next() => {}
            }
            self.shared.metrics.connections.set(i64::try_from(connections.len()).unwrap_or(i64::MAX));
        };
        self.endpoint.close(CLOSED, b"the coordinator stops");
        while connections.join_next().await.is_some() {}
        ended
    }

    fn welcome(&self, incoming: quinn::Incoming, connections: &mut JoinSet<()>) {
        let address = incoming.remote_address();
        if connections.len() >= self.connections_max {
            tracing::warn!(%address, max = self.connections_max, "too many connections");
            self.shared.metrics.connections_refused.inc();
            return incoming.refuse();
        }
        let proven = if incoming.remote_address_validated() { Address::Proven } else { Address::Claimed };
        match self.gate.judge(address.ip(), proven, now()) {
            Judgement::Shake(place) => {
                let (shared, inbox) = (Arc::clone(&self.shared), self.inbox.clone());
                connections.spawn(connection::serve(incoming, place, shared, inbox));
                self.shared.metrics.connections_taken.inc();
            }
            Judgement::Prove => {
                tracing::debug!(%address, "is to prove its address");
                if let Err(error) = incoming.retry() {
                    tracing::debug!(%address, %error, "cannot be asked to");
                }
            }
            Judgement::NotNow => {
                tracing::debug!(%address, "is not let in now");
                incoming.ignore();
            }
        }
    }
}

/// QUIC application error code of every close: the reason is in words.
const CLOSED: VarInt = VarInt::from_u32(0);
/// How long peers may take to hear that the endpoint closes.
const LAST_PACKETS: Duration = Duration::from_secs(3);
