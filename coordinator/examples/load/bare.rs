//! The same bytes over the same endpoints with nothing behind them: what QUIC alone takes.

use std::net::{Ipv4Addr, SocketAddr};
use std::path::Path;

use anyhow::{Result, ensure};
use packfed_protocol::quic::{self, PIECE_BYTES_MAX};
use packfed_protocol::{Identity, Message};
use tokio::task::JoinHandle;

use crate::process::{Launch, Process};
use crate::run;

/// A bare server that runs.
pub(crate) enum Running {
    /// In a process of its own.
    Apart(Box<Process>),
    /// In this one: then nobody knows what it takes.
    Here(JoinHandle<()>),
}

impl Running {
    /// Starts it with the coordinator's key, in this process if there is nothing to launch; says where it listens.
    pub(crate) async fn start(launch: Option<&Launch>, folder: &Path) -> Result<(Self, SocketAddr)> {
        let Some(launch) = launch else {
            let endpoint = endpoint(&run::coordinator())?;
            let address = endpoint.local_addr()?;
            return Ok((Self::Here(tokio::spawn(serve(endpoint))), address));
        };
        let key = folder.join("bare.key");
        run::coordinator().save(&key)?;
        let mut process = Process::start(launch, &key)?;
        let address = process.listening().await?.address;
        Ok((Self::Apart(Box::new(process)), address))
    }

    /// What the system calls it, if it has a process of its own.
    pub(crate) fn id(&self) -> Result<Option<u32>> {
        match self {
            Self::Apart(process) => process.id().map(Some),
            Self::Here(_) => Ok(None),
        }
    }

    pub(crate) async fn stop(self) -> Result<()> {
        match self {
            Self::Apart(process) => {
                ensure!(process.kill().await?, "the bare server ended by itself");
            }
            Self::Here(task) => task.abort(),
        }
        Ok(())
    }
}

/// Sends what an update consists of and waits for the answer.
pub(crate) async fn send(connection: &quinn::Connection, update: &Message) -> Result<()> {
    let (mut send, mut recv) = connection.open_bi().await?;
    send.write_all(&update.frame()).await?;
    send.write_all(update.payload()).await?;
    send.finish()?;
    let answer = recv.read_to_end(ANSWER.len()).await?;
    ensure!(answer == ANSWER, "the bare server answered {} bytes", answer.len());
    Ok(())
}

/// A server's endpoint, as the coordinator has it.
pub(crate) fn endpoint(identity: &Identity) -> Result<quinn::Endpoint> {
    Ok(quic::server(identity, SocketAddr::from((Ipv4Addr::LOCALHOST, 0)))?)
}

/// Serves for as long as somebody asks for it.
pub(crate) async fn serve(endpoint: quinn::Endpoint) {
    while let Some(incoming) = endpoint.accept().await {
        tokio::spawn(async move {
            let Ok(connection) = incoming.await else { return };
            while let Ok((send, recv)) = connection.accept_bi().await {
                tokio::spawn(throw_away(send, recv));
            }
        });
    }
}

/// Reads a stream to its end and says so. Whoever is gone wants no answer.
async fn throw_away(mut send: quinn::SendStream, mut recv: quinn::RecvStream) {
    while let Ok(Some(_)) = recv.read_chunk(PIECE_BYTES_MAX, true).await {}
    if send.write_all(&ANSWER).await.is_ok() {
        // An error means that the peer is gone.
        let _ = send.finish();
    }
}

const ANSWER: [u8; 1] = [1];
