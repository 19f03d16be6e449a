//! One connection, from its handshake to its close.
//!
//! ```text
//!            ┌─ listen: control stream up ──► Arrival::Said ─┐
//!   accept ──┼─ speak: queue ──► control stream down         ├──► closed, Arrival::Gone
//!            └─ later streams: an update up or a body down ──┘
//! ```

use std::sync::Arc;
use std::time::Duration;

use packfed_protocol::quic::{self, ReadError};
use packfed_protocol::{Frame, Message, Offer, Rejection, RejectionCode, WorkerId};
use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinSet;
use tokio::time::Instant;
use tracing::Instrument;

use super::gate::Shaking;
use super::owner::Link;
use super::peer::Peer;
use super::shared::Shared;
use super::stream::{bad, read_body, read_header, write};
use super::{Arrival, CLOSED, Sender, control, fetch, operator, update};

/// Serves a connection until it is closed.
pub(super) async fn serve(
    incoming: quinn::Incoming,
    place: Shaking,
    shared: Arc<Shared>,
    inbox: mpsc::Sender<Arrival>,
) {
    let address = incoming.remote_address();
    let connection = match tokio::time::timeout(shared.handshake_time, incoming).await {
        Ok(Ok(connection)) => connection,
        Ok(Err(error)) => return tracing::debug!(%address, %error, "no handshake"),
        Err(_) => return tracing::debug!(%address, "no handshake in time"),
    };
    drop(place);
    match quic::peer(&connection) {
        Ok(peer) => match shared.admins.get(&peer) {
            Some(admin) => operator::serve(&connection, admin, &shared, &inbox).await,
            None => {
                let span = tracing::info_span!("connection", worker = %peer);
                serve_worker(&connection, peer, &shared, &inbox).instrument(span).await;
            }
        },
        Err(error) => tracing::debug!(%address, %error, "no key"),
    }
    connection.close(CLOSED, b"closed");
}

async fn serve_worker(
    connection: &quinn::Connection,
    worker: WorkerId,
    shared: &Arc<Shared>,
    inbox: &mpsc::Sender<Arrival>,
) {
    let from = Sender { worker, connection: shared.next_connection() };
    let (queue, messages) = mpsc::channel(shared.queue_max);
    let (admission, admitted) = oneshot::channel();
    let link = Link::new(from, queue, connection.clone());
    if inbox.send(Arrival::Connected { link, admission }).await.is_err() {
        return;
    }
    let Ok(admission) = admitted.await else { return };
    tracing::debug!(address = %connection.remote_address(), admitted = admission.borrow().is_ok(), "connected");
    if admission.borrow().is_err() {
        shared.strangers.enter(from.connection, connection.clone());
    }
    let peer = Arc::new(Peer::new(from, connection.clone(), admission));
    tokio::select! {
        () = converse(messages, &peer, shared, inbox) => {}
        () = outstay(&peer, shared) => connection.close(CLOSED, b"not admitted in time"),
    }
    shared.strangers.leave(from.connection);
    // The owner may know already; it forgets this connection only.
    let _ = inbox.send(Arrival::Gone { from }).await;
    tracing::debug!("gone");
}

/// Both directions of the control stream, and payloads beside it.
async fn converse(
    messages: mpsc::Receiver<Box<Message>>,
    peer: &Arc<Peer>,
    shared: &Arc<Shared>,
    inbox: &mpsc::Sender<Arrival>,
) {
    // Streams come in the order in which they were opened, so the first is control.
    let Ok((send, recv)) = peer.connection.accept_bi().await else { return };
    let listen = async {
        control::listen(recv, peer, shared, inbox).await;
        // The owner lets go of the queue, and `speak` ends when it is empty.
        let _ = inbox.send(Arrival::Gone { from: peer.from }).await;
    };
    tokio::select! {
        _ = async { tokio::join!(listen, speak(send, messages, peer, shared)) } => {}
        () = later_streams(peer, shared, inbox) => {}
    }
}

/// Serves every stream after the first, a few at a time; the others wait unread.
async fn later_streams(peer: &Arc<Peer>, shared: &Arc<Shared>, inbox: &mpsc::Sender<Arrival>) {
    let mut streams = JoinSet::new();
    while let Ok((send, recv)) = peer.connection.accept_bi().await {
        let (peer, shared, inbox) = (Arc::clone(peer), Arc::clone(shared), inbox.clone());
        let serve = async move { payload_stream(send, recv, &peer, &shared, &inbox).await };
        streams.spawn(serve.in_current_span());
        if streams.len() >= STREAMS_MAX {
            streams.join_next().await;
        }
        while streams.try_join_next().is_some() {}
    }
}

/// What a stream is for is said by its first frame. Who is not admitted delivers and gets no payload.
async fn payload_stream(
    send: quinn::SendStream,
    mut recv: quinn::RecvStream,
    peer: &Peer,
    shared: &Shared,
    inbox: &mpsc::Sender<Arrival>,
) {
    let header = tokio::time::timeout(shared.frame_time, read_header(&mut recv, shared)).await;
    let header = header.unwrap_or_else(|_| Err(bad(RejectionCode::Truncated, "the stream stays empty")));
    let admitted = peer.admission.borrow().clone();
    let frame = match (admitted, header) {
        (Err(rejection), _) => Err(ReadError::BadFrame(rejection)),
        (Ok(()), Ok(Some(header))) => read_body(&mut recv, header, shared).await,
        (Ok(()), Ok(None)) => Err(bad(RejectionCode::Truncated, "the stream is empty")),
        (Ok(()), Err(error)) => Err(error),
    };
    let rejection = match frame {
        Ok(Frame::Offer(Offer::Update(offer))) => return update::take(send, recv, offer, peer, shared, inbox).await,
        Ok(Frame::Message(Message::Fetch(fetch))) => return fetch::give(send, fetch, peer, shared).await,
        Ok(other) => {
            let detail = format!("a {} on a stream for payloads", other.frame_type());
            Rejection::new(RejectionCode::Unexpected, detail)
        }
        Err(ReadError::BadFrame(rejection)) => rejection,
        Err(ReadError::Lost(error)) => {
            tracing::debug!(%error, "a stream said nothing");
            return peer.refused(shared);
        }
    };
    update::answer(send, Err(rejection), peer, shared, inbox).await;
}

/// Sends what is queued, until that is over for the worker, the owner lets go of the queue or the worker does not keep up. Of a
/// catch-up only the offer: its body waits until the worker fetches it, but not for ever.
async fn speak(mut send: quinn::SendStream, mut messages: mpsc::Receiver<Box<Message>>, peer: &Peer, shared: &Shared) {
    let connection = &peer.connection;
    let fetch_time = tokio::time::sleep(shared.frame_time);
    tokio::pin!(fetch_time);
    loop {
        let message = tokio::select! {
            message = messages.recv() => message,
            () = &mut fetch_time, if peer.owes_a_fetch() => {
                tracing::warn!("does not fetch its catch-up, disconnected");
                return connection.close(CLOSED, b"too slow");
            }
        };
        let Some(message) = message else { break };
        if let Message::CatchUp(catch_up) = &*message {
            peer.tell(catch_up.body.clone(), shared);
            fetch_time.as_mut().reset(Instant::now() + shared.frame_time);
        }
        if !write(&mut send, &message, shared).await {
            return connection.close(CLOSED, b"too slow");
        }
        if is_last(&message) {
            break;
        }
    }
    let _ = send.finish();
    // Closing at once would drop what is on its way.
    let _ = tokio::time::timeout(shared.frame_time, send.stopped()).await;
    // A release that it was told of just before is fetched to its end.
    while tokio::time::timeout(LINGER, connection.closed()).await.is_err() && peer.fetches() {}
    connection.close(CLOSED, b"nothing more to say");
}

/// Whether there is nothing to be said after it: a worker that is not needed holds no place.
fn is_last(message: &Message) -> bool {
    match message {
        Message::ComeBack(_) => true,
        Message::Refused(refused) => refused.rejection.code == RejectionCode::Revoked,
        _ => false,
    }
}

/// Returns when a peer has been there for too long without being admitted.
async fn outstay(peer: &Peer, shared: &Shared) {
    let mut admission = peer.admission.clone();
    let late = tokio::time::timeout(shared.frame_time, admission.wait_for(Result::is_ok)).await.is_err();
    if !late {
        shared.strangers.leave(peer.from.connection);
        std::future::pending::<()>().await;
    }
    tracing::info!("not admitted in time");
}

/// How long a worker that is sent away may take to ask for a release that it was told of.
const LINGER: Duration = Duration::from_secs(1);
/// Streams of one worker that are served at once: an update and a catch-up.
const STREAMS_MAX: usize = 2;
