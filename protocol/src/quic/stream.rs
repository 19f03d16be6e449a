//! Messages on a stream.
//!
//! A frame is judged by its header before its body is read, and the body's buffer grows with what
//! arrives, so a claim costs nothing. Nothing here is safe to cancel half-way, and nothing here
//! keeps time: whoever calls decides how long a slow peer is worth waiting for.

use thiserror::Error;

use super::QuicError;
use crate::frame::{FrameError, FrameHeader, HEADER_BYTES};
use crate::limits::Limits;
use crate::message::Message;
use crate::rejection::Rejection;
use crate::wire::DecodeError;

/// Reads the next message, and how many bytes its frame took; `None` if the peer finished the
/// stream at the end of a frame.
///
/// # Errors
/// [`ReadError::BadFrame`] if what came is no message within the limits; the stream is of no more
/// use then. [`ReadError::Lost`] if nothing more can come.
pub async fn read_message(
    recv: &mut quinn::RecvStream,
    limits: &Limits,
) -> Result<Option<(Message, usize)>, ReadError> {
    let Some(header) = read_header(recv).await? else {
        return Ok(None);
    };
    let header = FrameHeader::decode(&header, limits)?;
    let body = read_body(recv, header.length).await?;
    let message = Message::decode(header, &body)?;
    Ok(Some((message, HEADER_BYTES + body.len())))
}

/// Writes a message, and says how many bytes its frame took. The stream stays open.
///
/// # Errors
/// [`QuicError::Write`] if the peer stopped reading or is gone.
pub async fn write_message(send: &mut quinn::SendStream, message: &Message) -> Result<usize, QuicError> {
    let frame = message.encode();
    send.write_all(&frame).await?;
    Ok(frame.len())
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
