//! Many connections from few sockets.

use std::net::SocketAddr;
use std::sync::Arc;

use anyhow::{Context, Result, ensure};
use packfed_protocol::quic::{Client, QuicError, client};
use packfed_protocol::{CoordinatorId, Identity};
use tokio::sync::Semaphore;
use tokio::task::JoinSet;

use crate::usage;

/// Sockets that connections are spread over.
pub(crate) struct Fleet {
    sockets: Vec<Client>,
}

impl Fleet {
    /// As many sockets as so many connections take.
    ///
    /// # Errors
    /// If the process may not open so many files, which the error says.
    pub(crate) fn new(connections: u32) -> Result<Self> {
        let count = connections.div_ceil(CONNECTIONS_PER_SOCKET);
        let (needed, allowed) = (u64::from(count) + FILES_BESIDE, usage::files_max()?);
        ensure!(
            needed <= allowed,
            "{connections} connections take {needed} open files, this process may have {allowed}; \
             raise it with `ulimit -n {needed}`"
        );
        // The first identity is replaced with every connection's own.
        let nobody = Identity::from_seed([0; 32]);
        let sockets = (0..count).map(|_| client(&nobody)).collect::<Result<_, _>>().context("open sockets")?;
        Ok(Self { sockets })
    }

    /// One connection for each identity, in their order. A server takes only so many handshakes at once, so they
    /// are begun a few at a time, and again if nobody answered.
    pub(crate) async fn connect(
        &self,
        identities: &[Identity],
        address: SocketAddr,
        server: CoordinatorId,
    ) -> Result<Vec<quinn::Connection>> {
        let permits = Arc::new(Semaphore::new(HANDSHAKES_MAX));
        let connect = |(identity, socket): (&Identity, &Client)| {
            let (client, permits) = (socket.with_identity(identity), Arc::clone(&permits));
            async move {
                let _permit = permits.acquire().await?;
                connected(&client, address, &server).await
            }
        };
        together(identities.iter().zip(self.sockets.iter().cycle()).map(connect)).await
    }

    /// Closes all connections and waits until their peers know.
    pub(crate) async fn close(self) {
        self.sockets.iter().for_each(Client::close);
        for socket in &self.sockets {
            socket.wait_idle().await;
        }
    }
}

/// Does everything at once, each in a task; results are in order.
pub(crate) async fn together<T: Send + 'static>(
    all: impl Iterator<Item = impl Future<Output = Result<T>> + Send + 'static>,
) -> Result<Vec<T>> {
    let mut tasks = JoinSet::new();
    for (n, one) in all.enumerate() {
        tasks.spawn(async move { (n, one.await) });
    }
    let mut done = Vec::with_capacity(tasks.len());
    while let Some(task) = tasks.join_next().await {
        let (n, one) = task?;
        done.push((n, one.with_context(|| format!("worker {}", n + 1))?));
    }
    done.sort_by_key(|&(n, _)| n);
    Ok(done.into_iter().map(|(_, one)| one).collect())
}

async fn connected(client: &Client, address: SocketAddr, server: &CoordinatorId) -> Result<quinn::Connection> {
    let mut attempt = 1;
    loop {
        match client.connect(address, server).await {
            Ok(connection) => return Ok(connection),
            Err(QuicError::Connection(error)) if attempt < ATTEMPTS => {
                tracing::debug!(attempt, %error, "connects again");
                attempt += 1;
            }
            Err(error) => return Err(error).with_context(|| format!("connect, attempt {attempt} of {ATTEMPTS}")),
        }
    }
}

/// A worker has a socket of its own; with a hundred connections one loses what they are told at once.
const CONNECTIONS_PER_SOCKET: u32 = 16;
/// What a process has open beside its sockets.
const FILES_BESIDE: u64 = 64;
/// Handshakes that are begun at once.
const HANDSHAKES_MAX: usize = 64;
/// Times that a connection is tried.
const ATTEMPTS: u32 = 5;
