//! Messages on a stream.
//!
//! A frame is judged by its header before its body is read, and the body's buffer grows with what
//! arrives, so a claim costs nothing. Payloads pass in pieces, one a call, so that whoever calls can
//! watch the progress. Frames are not safe to cancel half-way, a piece of a payload is; and nothing here
//! keeps time: whoever calls decides how long a slow peer is worth waiting for.

use bytes::Bytes;
use thiserror::Error;

use super::QuicError;
use crate::frame::{FrameError, FrameHeader, HEADER_BYTES};
use crate::limits::Limits;
use crate::message::{Frame, Message};
use crate::payload::Prefix;
use crate::rejection::{Rejection, RejectionCode};
use crate::wire::DecodeError;

/// Bytes that one call of [`write_piece`] or [`read_piece`] moves, at most.
pub const PIECE_BYTES_MAX: usize = 64 << 10;

/// Reads the next frame, and how many bytes it took; `None` if the peer finished the stream at the end
/// of a frame.
///
/// # Errors
/// [`ReadError::BadFrame`] if what came is no frame within the limits; the stream is of no more
/// use then. [`ReadError::Lost`] if nothing more can come.
pub async fn read_frame(recv: &mut quinn::RecvStream, limits: &Limits) -> Result<Option<(Frame, usize)>, ReadError> {
    let Some(header) = read_header(recv).await? else {
        return Ok(None);
    };
    let header = FrameHeader::decode(&header, limits)?;
    let body = read_body(recv, header.length).await?;
    Ok(Some((Frame::decode(header, &body)?, HEADER_BYTES + body.len())))
}

/// Reads the next frame where only a message without a payload has a place.
///
/// # Errors
/// As [`read_frame`]; an offer is a bad frame.
pub async fn read_message(
    recv: &mut quinn::RecvStream,
    limits: &Limits,
) -> Result<Option<(Message, usize)>, ReadError> {
    match read_frame(recv, limits).await? {
        Some((Frame::Message(message), bytes)) => Ok(Some((message, bytes))),
        Some((Frame::Offer(offer), _)) => {
            let detail = format!("a {} of {} bytes has no place here", offer.frame_type(), offer.payload().bytes);
            Err(ReadError::BadFrame(Rejection::new(RejectionCode::Unexpected, detail)))
        }
        None => Ok(None),
    }
}

/// Writes a message's frame, and says how many bytes it took; a payload is not sent, only announced. The
/// stream stays open.
///
/// # Errors
/// [`QuicError::Write`] if the peer stopped reading or is gone.
pub async fn write_message(send: &mut quinn::SendStream, message: &Message) -> Result<usize, QuicError> {
    let frame = message.frame();
    send.write_all(&frame).await?;
    Ok(frame.len())
}

/// Reads the next bytes of a payload, and says how many; 0 when it is whole. Safe to cancel.
///
/// # Errors
/// [`ReadError::BadFrame`] if the stream ends before the payload does, [`ReadError::Lost`] if nothing more
/// can come; the prefix keeps what it has.
pub async fn read_piece(recv: &mut quinn::RecvStream, prefix: &mut Prefix) -> Result<usize, ReadError> {
    let wanted = usize::try_from(prefix.missing()).unwrap_or(usize::MAX).min(PIECE_BYTES_MAX);
    if wanted == 0 {
        return Ok(0);
    }
    match recv.read_chunk(wanted, true).await? {
        Some(chunk) => {
            prefix.push(&chunk.bytes)?;
            Ok(chunk.bytes.len())
        }
        None => Err(prefix.id().truncated(prefix.offset()).into()),
    }
}

/// Reads the end of a stream that has nothing more to carry. Whoever lets go of a stream before its end
/// tells the peer to stop, though everything may be there.
///
/// # Errors
/// [`ReadError::BadFrame`] if the stream goes on, [`ReadError::Lost`] if its end cannot come any more.
pub async fn read_end(recv: &mut quinn::RecvStream) -> Result<(), ReadError> {
    match recv.read_chunk(1, true).await? {
        None => Ok(()),
        Some(_) => {
            let detail = "the stream goes on after its end";
            Err(ReadError::BadFrame(Rejection::new(RejectionCode::LeftOver, detail)))
        }
    }
}

/// Writes the next bytes of what is left of a payload, and says how many; 0 when nothing is left.
///
/// # Errors
/// [`QuicError::Write`] if the peer stopped reading or is gone.
pub async fn write_piece(send: &mut quinn::SendStream, rest: &mut Bytes) -> Result<usize, QuicError> {
    let piece = rest.split_to(rest.len().min(PIECE_BYTES_MAX));
    let bytes = piece.len();
    if bytes > 0 {
        send.write_chunk(piece).await?;
    }
    Ok(bytes)
}

/// The next eight bytes, or `None` if the stream ends before the first of them.
async fn read_header(recv: &mut quinn::RecvStream) -> Result<Option<[u8; HEADER_BYTES]>, ReadError> {
    let mut header = [0; HEADER_BYTES];
    let mut found = 0;
    while found < HEADER_BYTES {
        match recv.read(&mut header[found..]).await? {
            Some(read) => found += read,
            None if found == 0 => return Ok(None),
            None => return Err(FrameError::Truncated { found }.into()),
        }
    }
    Ok(Some(header))
}

/// The next `length` bytes, or fewer if the stream ends; the decoder counts them.
async fn read_body(recv: &mut quinn::RecvStream, length: u32) -> Result<Vec<u8>, ReadError> {
    let length = usize::try_from(length).unwrap_or(usize::MAX);
    let mut body = Vec::new();
    while body.len() < length {
        match recv.read_chunk(length - body.len(), true).await? {
            Some(chunk) => body.extend_from_slice(&chunk.bytes),
            None => break,
        }
    }
    Ok(body)
}

/// Why there is no next message.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum ReadError {
    /// The peer sent something that is no message, and may be told so.
    #[error("bad frame: {0}")]
    BadFrame(Rejection),
    /// The stream was reset, or the connection is gone.
    #[error("stream lost: {0}")]
    Lost(#[from] quinn::ReadError),
}

impl ReadError {
    /// What to tell the peer, if it is the peer's fault and there is still somebody to tell.
    pub fn rejection(&self) -> Option<&Rejection> {
        match self {
            ReadError::BadFrame(rejection) => Some(rejection),
            ReadError::Lost(_) => None,
        }
    }
}

impl From<FrameError> for ReadError {
    fn from(error: FrameError) -> Self {
        ReadError::BadFrame(error.into())
    }
}

impl From<DecodeError> for ReadError {
    fn from(error: DecodeError) -> Self {
        ReadError::BadFrame(error.into())
    }
}
