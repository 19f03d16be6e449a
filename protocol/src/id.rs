//! Names for things: runs, workers, digests, rounds, versions.
//!
//! Newtypes, so that a round is never added to a version. They are plain values: none knows
//! whether what it names exists. Byte ids are hex to people (text, TOML, JSON) and raw bytes on
//! the wire.

use std::fmt;

use serde::{Deserialize, Serialize};
use thiserror::Error;

/// Defines the parts that every byte id shares; `Debug` is each type's own.
macro_rules! byte_id {
    ($(#[$meta:meta])* $name:ident, $bytes:literal, $what:literal) => {
        $(#[$meta])*
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name(pub [u8; $bytes]);

        impl std::fmt::Display for $name {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str(&hex::encode(self.0))
            }
        }

        impl std::str::FromStr for $name {
            type Err = $crate::id::HexError;

            fn from_str(text: &str) -> Result<Self, Self::Err> {
                let mut bytes = [0; $bytes];
                $crate::id::parse_hex($what, text, &mut bytes)?;
                Ok(Self(bytes))
            }
        }

        impl serde::Serialize for $name {
            fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                if serializer.is_human_readable() {
                    serializer.collect_str(self)
                } else {
                    self.0.serialize(serializer)
                }
            }
        }

        impl<'de> serde::Deserialize<'de> for $name {
            fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                if deserializer.is_human_readable() {
                    let text = String::deserialize(deserializer)?;
                    text.parse().map_err(serde::de::Error::custom)
                } else {
                    Ok(Self(serde::Deserialize::deserialize(deserializer)?))
                }
            }
        }
    };
}
pub(crate) use byte_id;

byte_id! {
    /// One federated run: a plan, and the rounds that follow from it.
    RunId, 16, "run id"
}

byte_id! {
    /// A worker: its Ed25519 public key, which is its identity everywhere.
    WorkerId, 32, "worker id"
}

byte_id! {
    /// A BLAKE3 hash of some bytes.
    Digest, 32, "digest"
}

/// A coordinator: an Ed25519 public key like a worker's, pinned by whoever connects to it.
pub type CoordinatorId = WorkerId;

impl Digest {
    /// The digest of these bytes.
    pub fn of(bytes: &[u8]) -> Digest {
        Digest(*blake3::hash(bytes).as_bytes())
    }
}

/// The digest of bytes that come piece by piece.
#[derive(Clone, Debug, Default)]
pub struct Hasher(blake3::Hasher);

impl Hasher {
    /// Takes the next bytes.
    pub fn update(&mut self, bytes: &[u8]) {
        self.0.update(bytes);
    }

    /// The digest of all bytes so far.
    pub fn finish(&self) -> Digest {
        Digest(*self.0.finalize().as_bytes())
    }
}

impl fmt::Debug for RunId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "RunId({self})")
    }
}

impl fmt::Debug for WorkerId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "WorkerId({self})")
    }
}

impl fmt::Debug for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Digest({self})")
    }
}

/// The number of a round within its run, from 1; 0 names none.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Round(pub u64);

impl Round {
    /// The round after this one.
    pub fn next(self) -> Round {
        Round(self.0.saturating_add(1))
    }
}

impl fmt::Display for Round {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// The number of a state of the global model: how many commits lie behind it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Version(pub u64);

impl Version {
    /// The version that the next commit makes.
    pub fn next(self) -> Version {
        Version(self.0.saturating_add(1))
    }
}

impl fmt::Display for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// Why a text is not the hex of an id.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum HexError {
    /// Too few or too many digits.
    #[error("{what} has {found} hex digits, needs {needed}")]
    Length {
        /// What was being read.
        what: &'static str,
        /// Bytes of text found.
        found: usize,
        /// Digits needed.
        needed: usize,
    },
    /// The right length, but not hex.
    #[error("{what} has a character that is not a hex digit at position {position}")]
    Digit {
        /// What was being read.
        what: &'static str,
        /// Where it stands, from 0. The character itself is left out: the text may be a secret.
        position: usize,
    },
}

/// Fills `bytes` from exactly twice as many hex digits.
pub(crate) fn parse_hex(what: &'static str, text: &str, bytes: &mut [u8]) -> Result<(), HexError> {
    let needed = bytes.len() * 2;
    if text.len() != needed {
        let found = text.len();
        return Err(HexError::Length { what, found, needed });
    }
    hex::decode_to_slice(text, bytes).map_err(|_| {
        let position = text.bytes().position(|byte| !byte.is_ascii_hexdigit()).unwrap_or(0);
        HexError::Digit { what, position }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_and_bytes_of_an_id_are_the_same_id() {
        let id = WorkerId([0xab; 32]);
        assert_eq!(id.to_string(), "ab".repeat(32));
        assert_eq!(id.to_string().parse(), Ok(id));
        assert_eq!("AB".repeat(32).parse(), Ok(id));
    }

    #[test]
    fn a_short_id_names_the_length_found_and_needed() {
        let error = "abc".parse::<RunId>().unwrap_err();
        assert_eq!(error.to_string(), "run id has 3 hex digits, needs 32");
    }

    #[test]
    fn a_wrong_digit_is_named_by_its_position() {
        let error = format!("{}g0", "0".repeat(30)).parse::<RunId>().unwrap_err();
        assert_eq!(error, HexError::Digit { what: "run id", position: 30 });
    }

    #[test]
    fn ids_are_hex_in_json() {
        let text = serde_json::to_string(&RunId([1; 16])).unwrap();
        assert_eq!(text, format!("\"{}\"", "01".repeat(16)));
        assert_eq!(serde_json::from_str::<RunId>(&text).unwrap(), RunId([1; 16]));
    }

    #[test]
    fn a_digest_is_blake3() {
        // The first official test vector of BLAKE3: no input.
        assert_eq!(Digest::of(b"").to_string(), "af1349b9f5f9a1a6a0404dea36dcc9499bcb25c9adc112b7cc9a93cae41f3262");
    }

    #[test]
    fn the_last_round_has_no_successor_but_itself() {
        assert_eq!(Round(1).next(), Round(2));
        assert_eq!(Version(u64::MAX).next(), Version(u64::MAX));
    }
}
