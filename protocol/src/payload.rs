//! Payloads: bytes of any length that follow a frame, known beforehand by digest and length.
//!
//! ```text
//!   PayloadId ── Prefix::new ──► Prefix ── push, push, … ──► Prefix ── finish ──► Payload
//!   digest, length               the bytes so far, hashed as they come             proven whole
//! ```
//!
//! A prefix outlives the stream it came on: whoever kept it says its offset, and the rest is sent from
//! there. Nothing here knows what the bytes mean, or how long a prefix is worth keeping.

use std::cmp::Ordering;
use std::fmt;

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use crate::id::{Digest, Hasher};
use crate::wire::DecodeError;

/// What a payload is known by before it is there.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PayloadId {
    /// Its digest.
    pub digest: Digest,
    /// Its length.
    pub bytes: u64,
}

impl PayloadId {
    /// What is wrong with a payload that ends early.
    #[cfg(feature = "quic")]
    pub(crate) fn truncated(&self, found: u64) -> DecodeError {
        DecodeError::Truncated { part: "payload", found, needed: self.bytes }
    }

    /// Checks that a payload has this length.
    pub(crate) fn check_length(&self, found: usize) -> Result<(), DecodeError> {
        let (part, needed) = ("payload", self.bytes);
        let found = u64::try_from(found).unwrap_or(u64::MAX);
        match found.cmp(&needed) {
            Ordering::Less => Err(DecodeError::Truncated { part, found, needed }),
            Ordering::Equal => Ok(()),
            Ordering::Greater => Err(DecodeError::LeftOver { part, found, needed }),
        }
    }
}

/// A whole payload, whose digest was computed and not believed. A clone shares the bytes.
#[derive(Clone, PartialEq, Eq)]
pub struct Payload {
    digest: Digest,
    bytes: Bytes,
}

impl Payload {
    /// Hashes the bytes.
    pub fn new(bytes: impl Into<Bytes>) -> Payload {
        let bytes = bytes.into();
        Payload { digest: Digest::of(&bytes), bytes }
    }

    /// What it is known by.
    pub fn id(&self) -> PayloadId {
        PayloadId { digest: self.digest, bytes: wide(self.bytes.len()) }
    }

    /// The bytes.
    pub fn bytes(&self) -> &Bytes {
        &self.bytes
    }

    /// The bytes, without a copy if nobody shares them.
    pub fn into_vec(self) -> Vec<u8> {
        self.bytes.into()
    }

    /// The bytes from an offset on, shared; `None` if it ends before that.
    pub fn rest(&self, offset: u64) -> Option<Bytes> {
        let offset = usize::try_from(offset).ok().filter(|&offset| offset <= self.bytes.len())?;
        Some(self.bytes.slice(offset..))
    }
}

impl fmt::Debug for Payload {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Payload").field("digest", &self.digest).field("bytes", &self.bytes.len()).finish()
    }
}

/// What has come of a payload. The buffer grows with the bytes, so that a claimed length costs nothing.
pub struct Prefix {
    id: PayloadId,
    bytes: Vec<u8>,
    /// Of the bytes before `hashed`.
    hasher: Hasher,
    hashed: usize,
}

impl Prefix {
    /// Nothing yet.
    pub fn new(id: PayloadId) -> Prefix {
        Prefix { id, bytes: Vec::new(), hasher: Hasher::default(), hashed: 0 }
    }

    /// The payload that it is of.
    pub fn id(&self) -> &PayloadId {
        &self.id
    }

    /// Bytes that are there: where to go on.
    pub fn offset(&self) -> u64 {
        wide(self.bytes.len())
    }

    /// Bytes that are missing.
    pub fn missing(&self) -> u64 {
        self.id.bytes - self.offset()
    }

    /// Takes the next bytes.
    ///
    /// # Errors
    /// [`DecodeError::LeftOver`] if they go on after the payload's end; then none is taken.
    pub fn push(&mut self, next: &[u8]) -> Result<(), DecodeError> {
        let found = self.bytes.len() + next.len();
        if wide(found) > self.id.bytes {
            self.id.check_length(found)?;
        }
        if found > self.bytes.capacity() {
            // Doubles, but never beyond the end.
            let grown = wide(self.bytes.len().max(GROWTH_BYTES_MIN)).min(self.missing());
            self.bytes.reserve_exact(usize::try_from(grown).unwrap_or(usize::MAX).max(next.len()));
        }
        self.bytes.extend_from_slice(next);
        if self.bytes.len() - self.hashed >= HASHED_BYTES_MIN {
            self.hash();
        }
        Ok(())
    }

    /// Gives back the room for bytes that do not come for now.
    pub fn shrink(&mut self) {
        self.bytes.shrink_to_fit();
    }

    fn hash(&mut self) {
        self.hasher.update(&self.bytes[self.hashed..]);
        self.hashed = self.bytes.len();
    }

    /// The payload, if this is all of it.
    ///
    /// # Errors
    /// [`DecodeError::Truncated`] if bytes are missing, [`DecodeError::PayloadDigest`] if they are not the
    /// ones that were announced.
    pub fn finish(mut self) -> Result<Payload, DecodeError> {
        self.id.check_length(self.bytes.len())?;
        self.hash();
        let digest = self.hasher.finish();
        check_digest(digest, self.id.digest)?;
        Ok(Payload { digest, bytes: self.bytes.into() })
    }
}

impl fmt::Debug for Prefix {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Prefix").field("id", &self.id).field("offset", &self.offset()).finish_non_exhaustive()
    }
}

pub(crate) fn check_digest(found: Digest, announced: Digest) -> Result<(), DecodeError> {
    match found == announced {
        true => Ok(()),
        false => Err(DecodeError::PayloadDigest { found, announced }),
    }
}

fn wide(length: usize) -> u64 {
    u64::try_from(length).expect("usize has at most 64 bits")
}

/// The first buffer of a payload that is at least as long.
const GROWTH_BYTES_MIN: usize = 512 << 10;
/// BLAKE3 hashes many KiB side by side, but a packet's worth one after the other: bytes wait until they are as many.
const HASHED_BYTES_MIN: usize = 32 << 10;

#[cfg(test)]
mod tests {
    use super::*;

    fn bytes() -> Vec<u8> {
        (0..200_000_u32).flat_map(u32::to_le_bytes).collect()
    }

    #[test]
    fn pieces_of_any_size_are_the_payload() {
        let whole = Payload::new(bytes());
        for piece in [1, 7, 65_536, 800_000] {
            let mut prefix = Prefix::new(whole.id());
            for bytes in whole.bytes().chunks(piece) {
                prefix.push(bytes).unwrap();
            }
            assert_eq!((prefix.offset(), prefix.missing()), (800_000, 0));
            assert_eq!(prefix.finish().unwrap(), whole);
        }
    }

    #[test]
    fn what_is_missing_is_the_rest_from_the_offset() {
        let whole = Payload::new(bytes());
        let mut prefix = Prefix::new(whole.id());
        prefix.push(&whole.bytes()[..1000]).unwrap();
        prefix.push(&whole.rest(prefix.offset()).unwrap()).unwrap();
        assert_eq!(prefix.finish().unwrap(), whole);
        assert_eq!(whole.rest(800_000).unwrap().len(), 0);
        assert_eq!(whole.rest(800_001), None);
    }

    #[test]
    fn half_a_payload_is_truncated() {
        let mut prefix = Prefix::new(Payload::new(bytes()).id());
        prefix.push(&[0; 3]).unwrap();
        assert_eq!(prefix.finish().unwrap_err().to_string(), "payload has 3 bytes, needs at least 800000");
    }

    #[test]
    fn one_byte_too_many_is_left_over_and_not_taken() {
        let mut prefix = Prefix::new(Payload::new(vec![1, 2]).id());
        prefix.push(&[1]).unwrap();
        let error = DecodeError::LeftOver { part: "payload", found: 3, needed: 2 };
        assert_eq!(prefix.push(&[2, 3]), Err(error));
        prefix.push(&[2]).unwrap();
        prefix.finish().unwrap();
    }

    #[test]
    fn other_bytes_are_another_payload() {
        let mut prefix = Prefix::new(Payload::new(vec![1, 2]).id());
        prefix.push(&[1, 3]).unwrap();
        assert!(matches!(prefix.finish(), Err(DecodeError::PayloadDigest { .. })));
    }

    #[test]
    fn a_claim_costs_nothing_and_a_buffer_is_never_longer_than_the_payload() {
        let mut prefix = Prefix::new(PayloadId { digest: Digest([0; 32]), bytes: u64::MAX });
        prefix.push(&[0; 100]).unwrap();
        assert!(prefix.bytes.capacity() <= GROWTH_BYTES_MIN);
        let mut prefix = Prefix::new(PayloadId { digest: Digest([0; 32]), bytes: 70_000 });
        for _ in 0..70 {
            prefix.push(&[0; 1000]).unwrap();
        }
        assert_eq!(prefix.bytes.capacity(), 70_000);
    }
}
