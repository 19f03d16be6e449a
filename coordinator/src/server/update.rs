//! A stream that carries one update up and its verdict down.
//!
//! ```text
//!   offer ── signature, size ──► permit ──► Resume ──► words ── digest ──► Arrival::Update ──► Verdict
//!     └──────── refused ────────────────────────────────────────┴──────────────────────────────┘
//! ```

use packfed_protocol::{FrameType, Message, Outcome, Prefix, ProvenOffer, Rejection, Resume, UpdateOffer, Verified};
use tokio::sync::{mpsc, oneshot};

use super::clock::Stopwatch;
use super::peer::Peer;
use super::shared::Shared;
use super::stream::{Unread, read_end, read_payload, write};
use super::{Arrival, CLOSED};

/// Asks for the words of an update that is worth it, hands it to the owner and brings the verdict back.
pub(super) async fn take(
    mut send: quinn::SendStream,
    mut recv: quinn::RecvStream,
    offer: UpdateOffer,
    peer: &Peer,
    shared: &Shared,
    inbox: &mpsc::Sender<Arrival>,
) {
    let proven = match proven(offer, peer, shared) {
        Ok(proven) => proven,
        Err(rejection) => return answer(send, Err(rejection), peer, shared, inbox).await,
    };
    // A worker's streams come one after another here, and only then to the queue for a permit.
    let mut arriving = shared.partials.take_up(peer.worker(), proven.payload()).await;
    // The permit is held until the verdict is there: so many updates are in memory, and no more.
    let Ok(_permit) = shared.updates.acquire().await else { return };
    let offset = arriving.prefix().offset();
    if offset > 0 {
        tracing::info!(offset, bytes = proven.payload().bytes, "an update goes on");
    }
    if !write(&mut send, &Message::Resume(Resume { offset }), shared).await {
        return;
    }
    let read = match read_payload(&mut recv, arriving.prefix(), FrameType::Update, shared).await {
        Ok(()) => read_end(&mut recv, shared).await.map_err(Unread::from),
        Err(unread) => Err(unread),
    };
    let update = match read {
        Ok(()) => complete(proven, arriving.into_prefix()),
        Err(Unread::Refused(rejection)) => {
            // It is over for this update, so nothing of it is kept.
            drop(arriving.into_prefix());
            Err(rejection)
        }
        Err(Unread::Lost(error)) => return tracing::debug!(%error, "an update was broken off"),
        Err(Unread::TooSlow { offset }) => {
            tracing::warn!(offset, bytes = proven.payload().bytes, "does not send its update, disconnected");
            return peer.connection.close(CLOSED, b"too slow");
        }
    };
    answer(send, update, peer, shared, inbox).await;
}

/// An update that is worth its words.
fn proven(offer: UpdateOffer, peer: &Peer, shared: &Shared) -> Result<ProvenOffer, Rejection> {
    let proven = offer.prove(&peer.worker())?;
    shared.check_words(proven.header())?;
    Ok(proven)
}

fn complete(proven: ProvenOffer, prefix: Prefix) -> Result<Verified, Rejection> {
    proven.complete(prefix.finish()?)
}

/// Hands over an update, or what should have been one, and brings the verdict back.
pub(super) async fn answer(
    mut send: quinn::SendStream,
    update: Result<Verified, Rejection>,
    peer: &Peer,
    shared: &Shared,
    inbox: &mpsc::Sender<Arrival>,
) {
    let (watch, (verdict, answer)) = (Stopwatch::start(), oneshot::channel());
    if inbox.send(Arrival::Update { worker: peer.worker(), update, verdict }).await.is_err() {
        return;
    }
    let Ok(verdict) = answer.await else { return };
    shared.metrics.verdict_seconds.observe(watch.elapsed().as_secs_f64());
    tracing::debug!(round = verdict.round.0, outcome = ?verdict.outcome, "verdict");
    let refused = matches!(verdict.outcome, Outcome::Rejected(_));
    if write(&mut send, &Message::Verdict(verdict), shared).await {
        // An error means that the connection is gone, and then nobody waits for it.
        let _ = send.finish();
    }
    if refused {
        peer.refused(shared);
    }
}
