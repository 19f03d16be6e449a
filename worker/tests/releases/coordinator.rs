//! A coordinator that says what a test wants it to, over a real connection.

use std::net::SocketAddr;

use bytes::Bytes;
use packfed_protocol::quic::{read_message, server, write_message};
use packfed_protocol::{Fetch, Identity, Limits, Message, ReleaseState, Resume};

pub(crate) fn identity() -> Identity {
    Identity::from_seed([1; 32])
}

/// Where workers connect.
pub(crate) struct Coordinator(quinn::Endpoint);

/// One worker's connection and control stream.
pub(crate) struct Worker {
    connection: quinn::Connection,
    send: quinn::SendStream,
    recv: quinn::RecvStream,
}

impl Coordinator {
    pub(crate) fn listen() -> Self {
        Self(server(&identity(), SocketAddr::from(([127, 0, 0, 1], 0))).unwrap())
    }

    pub(crate) fn address(&self) -> SocketAddr {
        self.0.local_addr().unwrap()
    }

    pub(crate) async fn accept(&self) -> Worker {
        let connection = self.0.accept().await.unwrap().await.unwrap();
        let (send, recv) = connection.accept_bi().await.unwrap();
        Worker { connection, send, recv }
    }
}

impl Worker {
    pub(crate) async fn say(&mut self, message: Message) {
        write_message(&mut self.send, &message).await.unwrap();
    }

    pub(crate) async fn hear(&mut self) -> Message {
        read_message(&mut self.recv, &Limits::default()).await.unwrap().unwrap().0
    }

    /// What it says of releases next; check-ins on the way are passed over.
    pub(crate) async fn release_state(&mut self) -> ReleaseState {
        loop {
            match self.hear().await {
                Message::ReleaseState(state) => return state,
                Message::CheckIn(_) => {}
                other => panic!("{other:?}"),
            }
        }
    }

    /// Answers a fetch with so many bytes of what was asked for, and ends the stream; the offset that it began at.
    pub(crate) async fn serve(&self, payload: &Bytes, bytes: usize) -> usize {
        let (mut send, mut recv) = self.connection.accept_bi().await.unwrap();
        let (fetch, _) = read_message(&mut recv, &Limits::default()).await.unwrap().unwrap();
        let Message::Fetch(Fetch { offset, .. }) = fetch else { panic!("{fetch:?}") };
        write_message(&mut send, &Message::Resume(Resume { offset })).await.unwrap();
        let offset = usize::try_from(offset).unwrap();
        let end = payload.len().min(offset + bytes);
        send.write_chunk(payload.slice(offset..end)).await.unwrap();
        send.finish().unwrap();
        let _ = send.stopped().await;
        offset
    }

    pub(crate) fn hang_up(self) {
        self.connection.close(0u32.into(), b"restarts");
    }
}
