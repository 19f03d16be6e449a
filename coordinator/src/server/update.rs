//! A stream that carries one update up and its verdict down.

use packfed_protocol::quic::ReadError;
use packfed_protocol::{FrameHeader, FrameType, Message, Rejection, RejectionCode, Verified, WorkerId};
use tokio::sync::{mpsc, oneshot};

use super::Arrival;
use super::shared::{Admission, Shared};
use super::stream::{bad, read_body, read_end, read_header, write};

/// Reads an update, verifies it, hands it to the owner and brings the verdict back.
pub(super) async fn take(
    (mut send, mut recv): (quinn::SendStream, quinn::RecvStream),
    worker: WorkerId,
    admission: &Admission,
    shared: &Shared,
    inbox: &mpsc::Sender<Arrival>,
) {
    // The permit is held until the verdict is there: so many payloads are in memory, and no more.
    let (update, _permit) = match announced(&mut recv, admission, shared).await {
        Ok(header) => {
            let permit = shared.updates.acquire().await.ok();
            (read(&mut recv, header, worker, shared).await, permit)
        }
        Err(error) => (Err(error), None),
    };
    let update = match update {
        Ok(update) => Ok(update),
        Err(ReadError::BadFrame(rejection)) => Err(rejection),
        Err(ReadError::Lost(error)) => return tracing::debug!(%error, "an update was broken off"),
    };
    let (verdict, answer) = oneshot::channel();
    if inbox.send(Arrival::Update { update, verdict }).await.is_err() {
        return;
    }
    let Ok(verdict) = answer.await else { return };
    tracing::debug!(round = verdict.round.0, outcome = ?verdict.outcome, "verdict");
    if write(&mut send, &Message::Verdict(verdict), shared).await {
        // An error means that the connection is gone, and then nobody waits for it.
        let _ = send.finish();
    }
}

/// The header of an update that is worth reading: who is not admitted delivers no payload at all.
async fn announced(
    recv: &mut quinn::RecvStream,
    admission: &Admission,
    shared: &Shared,
) -> Result<FrameHeader, ReadError> {
    let header = tokio::time::timeout(shared.frame_time, read_header(recv, shared)).await;
    let header = header.unwrap_or_else(|_| Err(bad(RejectionCode::Truncated, "the stream stays empty")));
    admission.borrow().clone().map_err(ReadError::BadFrame)?;
    match header? {
        Some(header) if header.frame_type == FrameType::Update => Ok(header),
        Some(header) => {
            let detail = format!("a {} on a stream for an update", header.frame_type);
            Err(bad(RejectionCode::Unexpected, detail))
        }
        None => Err(bad(RejectionCode::Truncated, "the stream is empty")),
    }
}

async fn read(
    recv: &mut quinn::RecvStream,
    header: FrameHeader,
    worker: WorkerId,
    shared: &Shared,
) -> Result<Verified, ReadError> {
    let message = read_body(recv, header, shared).await?;
    read_end(recv, shared).await?;
    verify(message, &worker).map_err(ReadError::BadFrame)
}

fn verify(message: Message, worker: &WorkerId) -> Result<Verified, Rejection> {
    match message {
        Message::Update(signed) => signed.verify(worker),
        other => Err(Rejection::new(RejectionCode::Unexpected, format!("a {} is no update", other.frame_type()))),
    }
}
