//! One connection, from its handshake to its close.
//!
//! ```text
//!            ┌─ listen: control stream up ──► Arrival::Said ─┐
//!   accept ──┼─ speak: queue ──► control stream down         ├──► closed, Arrival::Gone
//!            └─ updates: later streams, one after another ───┘
//! ```

use std::sync::Arc;

use packfed_protocol::quic;
use packfed_protocol::{Message, WorkerId};
use tokio::sync::{mpsc, oneshot};
use tracing::Instrument;

use super::owner::Link;
use super::shared::{Admission, Shared};
use super::stream::write;
use super::{Arrival, CLOSED, Sender, control, operator, update};

/// Serves a connection until it is closed.
pub(super) async fn serve(incoming: quinn::Incoming, shared: Arc<Shared>, inbox: mpsc::Sender<Arrival>) {
    let address = incoming.remote_address();
    let connection = match incoming.await {
        Ok(connection) => connection,
        Err(error) => return tracing::debug!(%address, %error, "no handshake"),
    };
    match quic::peer(&connection) {
        Ok(peer) if peer == shared.own => operator::serve(&connection, &shared, &inbox).await,
        Ok(worker) => {
            let span = tracing::info_span!("connection", %worker);
            serve_worker(&connection, worker, &shared, &inbox).instrument(span).await;
        }
        Err(error) => tracing::debug!(%address, %error, "no key"),
    }
    connection.close(CLOSED, b"closed");
}

async fn serve_worker(
    connection: &quinn::Connection,
    worker: WorkerId,
    shared: &Shared,
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
    tokio::select! {
        () = converse(connection, from, messages, shared, inbox, &admission) => {}
        () = outstay(admission.clone(), shared) => connection.close(CLOSED, b"not admitted in time"),
    }
    // The owner may know already; it forgets this connection only.
    let _ = inbox.send(Arrival::Gone { from }).await;
    tracing::debug!("gone");
}

/// Both directions of the control stream, and updates beside it.
async fn converse(
    connection: &quinn::Connection,
    from: Sender,
    messages: mpsc::Receiver<Message>,
    shared: &Shared,
    inbox: &mpsc::Sender<Arrival>,
    admission: &Admission,
) {
    // Streams come in the order in which they were opened, so the first is control.
    let Ok((send, recv)) = connection.accept_bi().await else { return };
    let listen = async {
        control::listen(recv, from, shared, inbox).await;
        // The owner lets go of the queue, and `speak` ends when it is empty.
        let _ = inbox.send(Arrival::Gone { from }).await;
    };
    let updates = async {
        while let Ok(stream) = connection.accept_bi().await {
            update::take(stream, from.worker, admission, shared, inbox).await;
        }
    };
    tokio::select! {
        _ = async { tokio::join!(listen, speak(connection, send, messages, shared)) } => {}
        () = updates => {}
    }
}

/// Sends what is queued, until the owner lets go of the queue or the worker does not keep up.
async fn speak(
    connection: &quinn::Connection,
    mut send: quinn::SendStream,
    mut messages: mpsc::Receiver<Message>,
    shared: &Shared,
) {
    while let Some(message) = messages.recv().await {
        if !write(&mut send, &message, shared).await {
            return connection.close(CLOSED, b"too slow");
        }
    }
    let _ = send.finish();
    // Closing at once would drop what is on its way.
    let _ = tokio::time::timeout(shared.frame_time, send.stopped()).await;
    connection.close(CLOSED, b"nothing more to say");
}

/// Returns when a peer has been there for too long without being admitted.
async fn outstay(mut admission: Admission, shared: &Shared) {
    let late = tokio::time::timeout(shared.frame_time, admission.wait_for(Result::is_ok)).await.is_err();
    if !late {
        std::future::pending::<()>().await;
    }
    tracing::info!("not admitted in time");
}
