//! A stream on which a worker fetches a catch-up that it was told of.

use packfed_protocol::{Fetch, FrameType, Message, Payload, Refused, Rejection, RejectionCode, Resume};

use super::CLOSED;
use super::peer::Peer;
use super::shared::Shared;
use super::stream::{Written, write, write_payload};

/// Sends the rest of a payload; a worker that does not keep up is sent away.
pub(super) async fn give(mut send: quinn::SendStream, fetch: Fetch, peer: &Peer, shared: &Shared) {
    let _fetching = peer.fetching();
    let Fetch { payload, offset } = fetch;
    let rest = match found(fetch, peer, shared) {
        Ok(body) => body.rest(offset),
        Err(rejection) => {
            if write(&mut send, &Message::Refused(Refused { rejection }), shared).await {
                // An error means that the connection is gone.
                let _ = send.finish();
            }
            return peer.refused(shared);
        }
    };
    let Some(rest) = rest else { return };
    // Held until the worker has everything: so much is in send buffers, and no more.
    let Ok(_permit) = shared.downloads.acquire().await else { return };
    let bytes = rest.len();
    if !write(&mut send, &Message::Resume(Resume { offset }), shared).await {
        return;
    }
    match write_payload(&mut send, rest, FrameType::CatchUp, shared).await {
        Written::Whole => tracing::debug!(%payload, offset, bytes, "catch-up sent"),
        // It costs nothing, so the peer may: it asks again for what it wants.
        Written::Stopped => tracing::debug!(%payload, offset, bytes, "catch-up broken off"),
        Written::TooSlow => {
            tracing::warn!(%payload, offset, bytes, "does not read its catch-up, disconnected");
            peer.connection.close(CLOSED, b"too slow");
        }
    }
}

fn found(fetch: Fetch, peer: &Peer, shared: &Shared) -> Result<Payload, Rejection> {
    peer.admission.borrow().clone()?;
    let Fetch { payload, offset } = fetch;
    let gone = || Rejection::new(RejectionCode::PayloadGone, format!("payload {payload} is not kept; check in again"));
    let body = peer.fetched(payload, shared).ok_or_else(gone)?;
    let bytes = body.id().bytes;
    if offset > bytes {
        let detail = format!("payload {payload} has {bytes} bytes, asked for is byte {offset}");
        return Err(Rejection::new(RejectionCode::Oversized, detail));
    }
    Ok(body)
}
