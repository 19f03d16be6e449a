//! The encoding of control messages, and the only place that names bincode.
//!
//! Fixed-width integers, little-endian, lengths as u64, enum variants as u32, floats by their
//! bits, what is optional behind one byte, 0 or 1: each value has exactly one encoding. bincode stands at `=2.0.1` (its
//! 3.0.0 is a tombstone, see RUSTSEC-2025-0141); its defaults have no limit and ignore left-over
//! bytes, so both are set here. This module knows no message.

use bincode::config::{Configuration, Fixint, Limit, LittleEndian};
use serde::Serialize;
use serde::de::DeserializeOwned;
use thiserror::Error;

use crate::frame::FrameError;
use crate::id::Digest;

/// Bytes that decoding one value may claim, whatever its lengths say. The largest plan that the
/// field bounds allow fits.
pub const WIRE_BYTES_MAX: usize = 1 << 20;

type WireConfig = Configuration<LittleEndian, Fixint, Limit<WIRE_BYTES_MAX>>;

const CONFIG: WireConfig =
    bincode::config::standard().with_little_endian().with_fixed_int_encoding().with_limit::<WIRE_BYTES_MAX>();

/// Why bytes are not a message.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum DecodeError {
    /// The frame's header is wrong.
    #[error(transparent)]
    Frame(#[from] FrameError),
    /// The bytes end too early.
    #[error("{part} has {found} bytes, needs at least {needed}")]
    Truncated {
        /// Which part of the frame.
        part: &'static str,
        /// Bytes found.
        found: u64,
        /// Bytes needed, as far as could be read.
        needed: u64,
    },
    /// The bytes go on after the end.
    #[error("{part} has {found} bytes, needs {needed}: {} left over", found - needed)]
    LeftOver {
        /// Which part of the frame.
        part: &'static str,
        /// Bytes found.
        found: u64,
        /// Bytes needed.
        needed: u64,
    },
    /// A field has more entries, characters or bytes than the protocol allows.
    #[error("{field} has length {found}, bound is {bound}")]
    TooLong {
        /// Which field.
        field: &'static str,
        /// Its length, in the unit of its bound.
        found: usize,
        /// The bound.
        bound: usize,
    },
    /// The lengths inside the body claim more than may ever be decoded.
    #[error("body claims more bytes than the bound of {bound}")]
    OverLimit {
        /// The bound in bytes.
        bound: usize,
    },
    /// The payload is not the one that was announced.
    #[error("payload has digest {found}, announced is {announced}")]
    PayloadDigest {
        /// The digest of what came.
        found: Digest,
        /// The digest that was announced.
        announced: Digest,
    },
    /// The bytes are enough, but no value of the type.
    #[error("{reason}")]
    Malformed {
        /// What is wrong, in words.
        reason: String,
    },
}

/// The encoding of `value`.
///
/// # Panics
/// If `value` cannot be encoded: a sequence that does not know its length, or an impl of
/// `Serialize` that fails by itself. Derived impls over sized fields do neither.
pub fn to_bytes<T: Serialize + ?Sized>(value: &T) -> Vec<u8> {
    let mut bytes = Vec::new();
    append(value, &mut bytes);
    bytes
}

/// Appends the encoding of `value`; panics as [`to_bytes`] does.
pub(crate) fn append<T: Serialize + ?Sized>(value: &T, bytes: &mut Vec<u8>) {
    bincode::serde::encode_into_std_write(value, bytes, CONFIG)
        .expect("a derived Serialize over sized fields cannot fail, nor can writing to a Vec");
}

/// The value that these bytes, all of them, encode.
///
/// # Errors
/// [`DecodeError`] if the bytes are too few, too many, or no value of the type.
pub fn from_bytes<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, DecodeError> {
    let (value, rest) = from_bytes_and_rest(bytes)?;
    if !rest.is_empty() {
        return Err(left_over("body", bytes.len(), bytes.len() - rest.len()));
    }
    Ok(value)
}

/// The value that these bytes begin with, and the bytes after it.
///
/// # Errors
/// [`DecodeError`] if the bytes are too few, or no value of the type.
pub fn from_bytes_and_rest<T: DeserializeOwned>(bytes: &[u8]) -> Result<(T, &[u8]), DecodeError> {
    let (value, read) =
        bincode::serde::decode_from_slice(bytes, CONFIG).map_err(|error| explain(error, bytes.len()))?;
    Ok((value, &bytes[read..]))
}

/// Too few bytes, from lengths in memory.
pub(crate) fn truncated(part: &'static str, found: usize, needed: usize) -> DecodeError {
    DecodeError::Truncated { part, found: wide(found), needed: wide(needed) }
}

/// Too many bytes, from lengths in memory.
pub(crate) fn left_over(part: &'static str, found: usize, needed: usize) -> DecodeError {
    DecodeError::LeftOver { part, found: wide(found), needed: wide(needed) }
}

/// Says which of our failures this failure of bincode is.
fn explain(error: bincode::error::DecodeError, found: usize) -> DecodeError {
    use bincode::error::DecodeError as Bincode;
    let reason = match error {
        Bincode::UnexpectedEnd { additional } => {
            return truncated("body", found, found.saturating_add(additional));
        }
        Bincode::LimitExceeded => {
            let bound = WIRE_BYTES_MAX;
            return DecodeError::OverLimit { bound };
        }
        Bincode::InvalidBooleanValue(value) => format!("boolean is {value}, needs 0 or 1"),
        Bincode::Utf8 { inner } => format!("text is not utf-8: {inner}"),
        Bincode::OutsideUsizeRange(value) => format!("length {value} does not fit this machine"),
        Bincode::OtherString(text) => text,
        Bincode::Other(text) => text.to_owned(),
        other => format!("not a value of its type: {other:?}").to_lowercase(),
    };
    DecodeError::Malformed { reason }
}

fn wide(length: usize) -> u64 {
    u64::try_from(length).expect("usize has at most 64 bits")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn integers_are_fixed_and_little_endian() {
        assert_eq!(to_bytes(&0x0102_0304_u32), [4, 3, 2, 1]);
        assert_eq!(to_bytes("a"), [1, 0, 0, 0, 0, 0, 0, 0, b'a']);
    }

    #[test]
    fn one_byte_too_many_is_counted() {
        let error = from_bytes::<u32>(&[0; 5]);
        assert_eq!(error, Err(left_over("body", 5, 4)));
        let text = left_over("body", 5, 4).to_string();
        assert_eq!(text, "body has 5 bytes, needs 4: 1 left over");
    }

    #[test]
    fn one_byte_too_few_is_counted() {
        assert_eq!(from_bytes::<u32>(&[0; 3]), Err(truncated("body", 3, 4)));
    }

    #[test]
    fn a_length_that_lies_is_refused_before_it_is_believed() {
        let bytes = to_bytes(&u64::MAX);
        let error = DecodeError::OverLimit { bound: WIRE_BYTES_MAX };
        assert_eq!(from_bytes::<String>(&bytes), Err(error));
    }

    #[test]
    fn the_rest_is_handed_back_untouched() {
        assert_eq!(from_bytes_and_rest::<u16>(&[1, 0, 7, 8]), Ok((1, &[7, 8][..])));
    }

    #[test]
    fn a_boolean_of_two_is_named() {
        let error = from_bytes::<bool>(&[2]).map_err(|error| error.to_string());
        assert_eq!(error, Err("boolean is 2, needs 0 or 1".to_owned()));
    }
}
