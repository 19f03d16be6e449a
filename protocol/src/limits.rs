//! Every bound on what a peer may send, by name.
//!
//! A bound is checked before anything of that size is allocated. Frame bounds are a program's
//! choice ([`Limits`]); bounds on single fields are the protocol's and the same for everybody.

use crate::wire::DecodeError;

/// Bounds on frames, which the reader chooses. Payloads follow frames and are bounded by nothing but
/// the length that was announced: whoever takes one decides whether to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Bytes of the body of a frame. At most [`wire::WIRE_BYTES_MAX`](crate::wire::WIRE_BYTES_MAX)
    /// is ever decoded, whatever stands here.
    pub control_bytes_max: u32,
}

impl Default for Limits {
    /// 1 MiB: the largest plan that the bounds on fields allow.
    fn default() -> Self {
        Limits { control_bytes_max: 1 << 20 }
    }
}

/// Characters of a worker's chosen name.
pub const NAME_CHARS_MAX: usize = 64;

/// Bytes of the detail of a [`Rejection`](crate::Rejection).
pub const DETAIL_BYTES_MAX: usize = 256;

/// Bytes of the name of a layer.
pub const LAYER_NAME_BYTES_MAX: usize = 128;

/// Layers of a plan, and so of everything that has one entry per layer.
pub const LAYERS_MAX: usize = 4096;

/// Bytes of one word: the unit of an update's payload.
pub const WORD_BYTES: u64 = 16;

/// Refuses more than `bound` of something.
pub(crate) fn check_length(field: &'static str, found: usize, bound: usize) -> Result<(), DecodeError> {
    if found > bound {
        return Err(DecodeError::TooLong { field, found, bound });
    }
    Ok(())
}

/// Refuses control characters, which could rewrite the terminal of whoever prints the text.
pub(crate) fn check_printable(field: &'static str, text: &str) -> Result<(), DecodeError> {
    match text.chars().position(char::is_control) {
        Some(position) => {
            Err(DecodeError::Malformed { reason: format!("{field} has a control character at position {position}") })
        }
        None => Ok(()),
    }
}
