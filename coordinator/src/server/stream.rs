//! Frames and payloads on a stream, with a time for each: a header first, its body only if it is wanted,
//! and a payload only as long as it makes progress.

use std::time::Duration;

use bytes::Bytes;
use packfed_protocol::quic::{self, ReadError, read_piece, write_message, write_piece};
use packfed_protocol::{
    Frame, FrameError, FrameHeader, FrameType, HEADER_BYTES, Message, Prefix, Rejection, RejectionCode,
};
use tokio::time::Instant;

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

/// What the frame of a header says. The buffer grows with what arrives, so a claim costs nothing.
pub(super) async fn read_body(
    recv: &mut quinn::RecvStream,
    header: FrameHeader,
    shared: &Shared,
) -> Result<Frame, ReadError> {
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
    Ok(Frame::decode(header, &body)?)
}

/// Why a payload was not read.
pub(super) enum Unread {
    /// What came is not in order, and the peer may be told so.
    Refused(Rejection),
    /// Nothing more can come.
    Lost(quinn::ReadError),
    /// The peer is slower than the shell bears.
    TooSlow {
        /// Bytes that came.
        offset: u64,
    },
}

impl From<ReadError> for Unread {
    fn from(error: ReadError) -> Self {
        match error {
            ReadError::BadFrame(rejection) => Unread::Refused(rejection),
            ReadError::Lost(error) => Unread::Lost(error),
        }
    }
}

/// Reads what is missing of a payload; what came stays in the prefix, however it ends.
pub(super) async fn read_payload(
    recv: &mut quinn::RecvStream,
    prefix: &mut Prefix,
    frame: FrameType,
    shared: &Shared,
) -> Result<(), Unread> {
    let end = Instant::now() + shared.payload_time(prefix.missing());
    loop {
        let piece_end = end.min(Instant::now() + shared.frame_time);
        match tokio::time::timeout_at(piece_end, read_piece(recv, prefix)).await {
            Ok(Ok(0)) => return Ok(()),
            Ok(Ok(bytes)) => shared.traffic.up(Some(frame), bytes),
            Ok(Err(error)) => return Err(error.into()),
            Err(_) => return Err(Unread::TooSlow { offset: prefix.offset() }),
        }
    }
}

/// How the writing of a payload ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Written {
    /// The peer has everything.
    Whole,
    /// The peer wants no more of it, or is gone.
    Stopped,
    /// The peer is slower than the shell bears.
    TooSlow,
}

/// Writes the rest of a payload and waits until the peer has it.
pub(super) async fn write_payload(
    send: &mut quinn::SendStream,
    mut rest: Bytes,
    frame: FrameType,
    shared: &Shared,
) -> Written {
    let bytes = u64::try_from(rest.len()).unwrap_or(u64::MAX);
    let all = async {
        loop {
            // A peer that reads nothing shows here: quinn takes no more than its window.
            match tokio::time::timeout(shared.frame_time, write_piece(send, &mut rest)).await {
                Ok(Ok(0)) => break,
                Ok(Ok(bytes)) => shared.traffic.down(frame, bytes),
                Ok(Err(_)) => return Written::Stopped,
                Err(_) => return Written::TooSlow,
            }
        }
        // `None` is the peer's word that it has everything.
        match (send.finish(), send.stopped().await) {
            (Ok(()), Ok(None)) => Written::Whole,
            _ => Written::Stopped,
        }
    };
    tokio::time::timeout(shared.payload_time(bytes), all).await.unwrap_or(Written::TooSlow)
}

/// Refuses bytes after all that a stream has to carry.
pub(super) async fn read_end(recv: &mut quinn::RecvStream, shared: &Shared) -> Result<(), ReadError> {
    in_time(shared.frame_time, quic::read_end(recv)).await
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
