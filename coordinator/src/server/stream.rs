//! Frames on a stream, with a time for each: a header first, and its body only if it is wanted.

use std::time::Duration;

use packfed_protocol::quic::{ReadError, write_message};
use packfed_protocol::{FrameError, FrameHeader, HEADER_BYTES, Message, Rejection, RejectionCode};

use super::shared::Shared;

/// The next header; `None` if the stream ends before it. The first byte may take as long as it likes.
pub(super) async fn read_header(
    recv: &mut quinn::RecvStream,
    shared: &Shared,
) -> Result<Option<FrameHeader>, ReadError> {
    let mut bytes = [0; HEADER_BYTES];
    let Some(mut found) = recv.read(&mut bytes).await? else { return Ok(None) };
    let rest = async {
        while found < HEADER_BYTES {
            match recv.read(&mut bytes[found..]).await? {
                Some(read) => found += read,
                None => return Err(FrameError::Truncated { found }.into()),
            }
        }
        Ok(())
    };
    in_time(shared.frame_time, rest).await?;
    let header = FrameHeader::decode(&bytes, &shared.limits);
    shared.traffic.up(header.as_ref().ok().map(|header| header.frame_type), HEADER_BYTES);
    Ok(Some(header?))
}

/// The message of a header. The buffer grows with what arrives, so a claim costs nothing.
pub(super) async fn read_body(
    recv: &mut quinn::RecvStream,
    header: FrameHeader,
    shared: &Shared,
) -> Result<Message, ReadError> {
    let length = usize::try_from(header.length).unwrap_or(usize::MAX);
    let mut body = Vec::new();
    let all = async {
        while body.len() < length {
            match recv.read_chunk(length - body.len(), true).await? {
                Some(chunk) => body.extend_from_slice(&chunk.bytes),
                None => break,
            }
        }
        Ok(())
    };
    let read = in_time(shared.frame_time, all).await;
    shared.traffic.up(Some(header.frame_type), body.len());
    read?;
    Ok(Message::decode(header, &body)?)
}

/// Refuses bytes after the one frame of a stream.
pub(super) async fn read_end(recv: &mut quinn::RecvStream, shared: &Shared) -> Result<(), ReadError> {
    let mut byte = [0];
    match in_time(shared.frame_time, async { Ok(recv.read(&mut byte).await?) }).await? {
        None => Ok(()),
        Some(_) => Err(bad(RejectionCode::LeftOver, "the stream goes on after its one frame")),
    }
}

/// Writes a message; whether it was taken in time.
pub(super) async fn write(send: &mut quinn::SendStream, message: &Message, shared: &Shared) -> bool {
    match tokio::time::timeout(shared.frame_time, write_message(send, message)).await {
        Ok(Ok(bytes)) => {
            shared.traffic.down(message.frame_type(), bytes);
            true
        }
        Ok(Err(error)) => {
            tracing::debug!(%error, frame = %message.frame_type(), "not sent");
            false
        }
        Err(_) => {
            tracing::warn!(frame = %message.frame_type(), "the peer does not read");
            false
        }
    }
}

pub(super) fn bad(code: RejectionCode, detail: impl Into<String>) -> ReadError {
    ReadError::BadFrame(Rejection::new(code, detail))
}

async fn in_time<T>(time: Duration, read: impl Future<Output = Result<T, ReadError>>) -> Result<T, ReadError> {
    let late = |_| bad(RejectionCode::Truncated, format!("no whole frame within {} ms", time.as_millis()));
    tokio::time::timeout(time, read).await.map_err(late)?
}
