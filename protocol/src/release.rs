//! A release: a model that was frozen under a number, and signed.
//!
//! ```text
//!   "pfrelea1" │ manifest, wire bytes │ signature, 64      a file, and what a worker is given
//!                ▲ signed, after RELEASE_DOMAIN
//! ```
//!
//! The manifest names everything that the model is: the run and base that it belongs to, the layout of its blocks, the
//! digest of its lanes, and the packed adapter's file by digest and length. Who has verified a manifest and then finds
//! these digests has the model, wherever the bytes came from. Nothing here knows what an adapter's bytes mean.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use thiserror::Error;

use crate::id::{CoordinatorId, Digest, RunId, Version};
use crate::identity::{self, Identity};
use crate::payload::PayloadId;
use crate::timestamp::Timestamp;
use crate::update::SIGNATURE_BYTES;
use crate::wire::{self, DecodeError};

/// What the signature of a release begins with, so that it is a signature of nothing else.
pub const RELEASE_DOMAIN: &str = "packfed/release/1";
/// Bytes of a release's notes.
pub const NOTES_BYTES_MAX: usize = 4096;
/// Figures that go with a release.
pub const METRICS_MAX: usize = 64;
/// Bytes of a figure's name.
pub const METRIC_NAME_BYTES_MAX: usize = 64;

const MAGIC: [u8; 8] = *b"pfrelea1";

/// What a release is.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Manifest {
    /// Its number, from 1: a later release has a larger one.
    pub number: u64,
    /// The run that it came from.
    pub run: RunId,
    /// The base model's files.
    pub base: Digest,
    /// The layout of blocks.
    pub layout: Digest,
    /// Every lane.
    pub state: Digest,
    /// The version of the global model that it was; 0 if it came from a file.
    pub version: Version,
    /// The packed adapter.
    pub adapter: PayloadId,
    /// When it was made.
    pub created: Timestamp,
    /// What the operator says of it.
    pub notes: String,
    /// Figures by name.
    pub metrics: BTreeMap<String, f64>,
}

/// A manifest with the coordinator's signature, not verified yet.
#[derive(Clone, Debug, PartialEq)]
pub struct SignedRelease {
    manifest: Manifest,
    signature: [u8; SIGNATURE_BYTES],
}

/// Why a release is not taken.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum ReleaseError {
    /// The bytes are no release.
    #[error("it is no release: {0}")]
    Decode(#[from] DecodeError),
    /// They begin otherwise.
    #[error("it is no release: it begins with {found:02x?}")]
    Magic {
        /// What they begin with.
        found: Vec<u8>,
    },
    /// A field breaks its bound.
    #[error("the release's {field} {why}")]
    Field {
        /// Which.
        field: &'static str,
        /// What is wrong.
        why: String,
    },
    /// Somebody else signed it, or nobody.
    #[error("release {number} is not signed by coordinator {expected}")]
    Signature {
        /// Its number.
        number: u64,
        /// Whose signature it should have.
        expected: CoordinatorId,
    },
}

impl Manifest {
    /// What the release is known by beside its number.
    pub fn digest(&self) -> Digest {
        Digest::of(&wire::to_bytes(self))
    }

    /// Checks every bound.
    ///
    /// # Errors
    /// The field, its value and the bound.
    pub fn check(&self) -> Result<(), ReleaseError> {
        let field = |field, why: String| Err(ReleaseError::Field { field, why });
        if self.number == 0 {
            return field("number", "is 0, the first is 1".to_owned());
        }
        if self.notes.len() > NOTES_BYTES_MAX {
            return field("notes", format!("have {} bytes, allowed are {NOTES_BYTES_MAX}", self.notes.len()));
        }
        if let Some(at) = self.notes.chars().position(|c| c.is_control() && c != '\n') {
            return field("notes", format!("have a control character at position {at}"));
        }
        if self.metrics.len() > METRICS_MAX {
            return field("metrics", format!("are {}, allowed are {METRICS_MAX}", self.metrics.len()));
        }
        for (name, value) in &self.metrics {
            if name.len() > METRIC_NAME_BYTES_MAX || name.chars().any(char::is_control) {
                let why = format!("have a name of {} bytes, allowed are {METRIC_NAME_BYTES_MAX} to print", name.len());
                return field("metrics", why);
            }
            if !value.is_finite() {
                return field("metrics", format!("have {value} for {name}, which is no finite number"));
            }
        }
        Ok(())
    }

    fn signed_bytes(&self) -> Vec<u8> {
        let mut bytes = RELEASE_DOMAIN.as_bytes().to_vec();
        wire::append(self, &mut bytes);
        bytes
    }
}

impl SignedRelease {
    /// Signs a manifest with the coordinator's key.
    ///
    /// # Errors
    /// If a field breaks its bound.
    pub fn new(identity: &Identity, manifest: Manifest) -> Result<SignedRelease, ReleaseError> {
        manifest.check()?;
        Ok(SignedRelease { signature: identity.sign(&manifest.signed_bytes()), manifest })
    }

    /// The manifest, if it is this coordinator's.
    ///
    /// # Errors
    /// If it is not, or a field breaks its bound.
    pub fn verify(&self, coordinator: &CoordinatorId) -> Result<&Manifest, ReleaseError> {
        self.manifest.check()?;
        match identity::is_signed_by(coordinator, &self.manifest.signed_bytes(), &self.signature) {
            true => Ok(&self.manifest),
            false => Err(ReleaseError::Signature { number: self.manifest.number, expected: *coordinator }),
        }
    }

    /// What it says of itself, which nobody has proven: to name what is refused.
    pub const fn unverified(&self) -> &Manifest {
        &self.manifest
    }

    /// A release's bytes.
    pub fn to_bytes(&self) -> Vec<u8> {
        let mut bytes = MAGIC.to_vec();
        wire::append(&self.manifest, &mut bytes);
        bytes.extend_from_slice(&self.signature);
        bytes
    }

    /// The inverse of [`SignedRelease::to_bytes`]; what it says is not proven.
    ///
    /// # Errors
    /// If the bytes are no release.
    pub fn from_bytes(bytes: &[u8]) -> Result<SignedRelease, ReleaseError> {
        let Some(body) = bytes.strip_prefix(&MAGIC) else {
            return Err(ReleaseError::Magic { found: bytes.iter().take(MAGIC.len()).copied().collect() });
        };
        let (manifest, rest) = wire::from_bytes_and_rest::<Manifest>(body)?;
        let needed = body.len() - rest.len() + SIGNATURE_BYTES;
        match rest.split_first_chunk() {
            Some((&signature, [])) => Ok(SignedRelease { manifest, signature }),
            Some(_) => Err(wire::left_over("release", body.len(), needed).into()),
            None => Err(wire::truncated("release", body.len(), needed).into()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn manifest() -> Manifest {
        Manifest {
            number: 3,
            run: RunId([1; 16]),
            base: Digest([2; 32]),
            layout: Digest([3; 32]),
            state: Digest([4; 32]),
            version: Version(12),
            adapter: PayloadId { digest: Digest([5; 32]), bytes: 700 },
            created: Timestamp(1_700_000_000_000),
            notes: "better on\nquestions of cards".to_owned(),
            metrics: BTreeMap::from([("accuracy".to_owned(), 0.86)]),
        }
    }

    fn identity() -> Identity {
        Identity::from_seed([7; 32])
    }

    #[test]
    fn what_was_signed_is_verified_by_that_key_alone() {
        let signed = SignedRelease::new(&identity(), manifest()).unwrap();
        assert_eq!(signed.verify(&identity().id()), Ok(&manifest()));
        let other = Identity::from_seed([8; 32]).id();
        let error = signed.verify(&other).unwrap_err();
        assert_eq!(error, ReleaseError::Signature { number: 3, expected: other });
    }

    #[test]
    fn no_byte_of_a_release_can_change() {
        let bytes = SignedRelease::new(&identity(), manifest()).unwrap().to_bytes();
        assert!(SignedRelease::from_bytes(&bytes).unwrap().verify(&identity().id()).is_ok());
        for at in 0..bytes.len() {
            let mut changed = bytes.clone();
            changed[at] ^= 1;
            let verified = SignedRelease::from_bytes(&changed).map(|release| release.verify(&identity().id()).is_ok());
            assert!(!matches!(verified, Ok(true)), "byte {at}");
            assert!(SignedRelease::from_bytes(&bytes[..at]).is_err(), "cut at {at}");
        }
        assert!(SignedRelease::from_bytes(&[bytes.as_slice(), &[0]].concat()).is_err());
    }

    #[test]
    fn the_digest_is_of_all_that_the_manifest_says() {
        let digest = manifest().digest();
        assert_ne!(Manifest { notes: String::new(), ..manifest() }.digest(), digest);
        assert_ne!(Manifest { number: 4, ..manifest() }.digest(), digest);
        assert_eq!(manifest().digest(), digest);
    }

    #[test]
    fn fields_out_of_bounds_are_not_signed() {
        let refused = |manifest: Manifest| SignedRelease::new(&identity(), manifest).unwrap_err().to_string();
        assert_eq!(refused(Manifest { number: 0, ..manifest() }), "the release's number is 0, the first is 1");
        let long = Manifest { notes: "x".repeat(5000), ..manifest() };
        assert_eq!(refused(long), "the release's notes have 5000 bytes, allowed are 4096");
        let bell = Manifest { notes: "\u{7}".to_owned(), ..manifest() };
        assert_eq!(refused(bell), "the release's notes have a control character at position 0");
        let nan = Manifest { metrics: BTreeMap::from([("loss".to_owned(), f64::NAN)]), ..manifest() };
        assert_eq!(refused(nan), "the release's metrics have NaN for loss, which is no finite number");
    }
}
