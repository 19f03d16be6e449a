//! An update on its way: claimed, then proven.
//!
//! A [`Signed`] is what a peer says; a [`Verified`] can only be made by checking one, so whoever
//! takes a `Verified` cannot forget to. Verified means: these bytes are that worker's, for that
//! run, round, base and layout. Whether the round wants them is the coordinator's business, and
//! what the words mean is the codec's.
//!
//! ```text
//!  body of an Update frame
//!      ┌──────────────────────────┬───────────────┬─────────────────────────┐
//!      │ UpdateHeader, wire bytes │ signature, 64 │ payload, words × 16     │
//!      └──────────────────────────┴───────────────┴─────────────────────────┘
//!        ▲ signed, after UPDATE_DOMAIN              ▲ its digest is in the header
//! ```

use std::cmp::Ordering;
use std::fmt;

use serde::{Deserialize, Serialize};

use crate::frame::{self, FrameType};
use crate::id::{Digest, Round, RunId, Version, WorkerId};
use crate::identity::{self, Identity};
use crate::limits::{self, LAYERS_MAX, WORD_BYTES};
use crate::rejection::{Rejection, RejectionCode};
use crate::wire::{self, DecodeError};

/// What the signature of an update begins with, so that it is a signature of nothing else.
pub const UPDATE_DOMAIN: &str = "packfed/update/1";

/// Bytes of an Ed25519 signature.
pub const SIGNATURE_BYTES: usize = 64;

/// Everything about an update but its words. All of it is signed, which binds the words to one
/// worker, run, round, base and layout: sent anywhere else, they are refused.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct UpdateHeader {
    /// Who trained.
    pub worker: WorkerId,
    /// For which run.
    pub run: RunId,
    /// For which round.
    pub round: Round,
    /// From which state of the global model.
    pub base: Version,
    /// The layout of blocks and words that the payload follows.
    pub layout: Digest,
    /// How many local examples it was trained on: its weight in the mean, capped by the plan.
    pub examples: u32,
    /// Mean training loss over the round's local steps.
    pub train_loss: f32,
    /// Lanes that did not fit their scale, one entry per layer.
    pub clipped: Vec<LaneClips>,
    /// Words in the payload, 16 bytes each.
    pub words: u32,
    /// The digest of the payload.
    pub payload: Digest,
}

/// How many lanes of a layer were clipped to their range.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct LaneClips {
    /// Of the wave's lanes, x and y.
    pub wave: u32,
    /// Of the residual's lanes.
    pub residual: u32,
}

impl UpdateHeader {
    fn check_bounds(&self) -> Result<(), DecodeError> {
        limits::check_length("clipped", self.clipped.len(), LAYERS_MAX)
    }

    /// Checks that the payload has as many words as the header says.
    fn check_payload(&self, found: usize) -> Result<(), DecodeError> {
        let needed = u64::from(self.words) * WORD_BYTES;
        let found = u64::try_from(found).unwrap_or(u64::MAX);
        let part = "payload";
        match found.cmp(&needed) {
            Ordering::Less => Err(DecodeError::Truncated { part, found, needed }),
            Ordering::Equal => Ok(()),
            Ordering::Greater => Err(DecodeError::LeftOver { part, found, needed }),
        }
    }

    /// What the signature is over.
    fn signed_bytes(&self) -> Vec<u8> {
        let mut bytes = UPDATE_DOMAIN.as_bytes().to_vec();
        wire::append(self, &mut bytes);
        bytes
    }
}

/// An update as a peer claims it. `Debug` shows the size of the payload, not the bytes.
#[derive(Clone, PartialEq)]
pub struct Signed {
    /// What it is.
    pub header: UpdateHeader,
    /// The worker's signature over domain and header.
    pub signature: [u8; SIGNATURE_BYTES],
    /// The words.
    pub payload: Vec<u8>,
}

impl Signed {
    /// Signs an update. The digest of the payload is filled in here; everything else in the
    /// header, `words` included, is the caller's.
    pub fn new(identity: &Identity, header: UpdateHeader, payload: Vec<u8>) -> Signed {
        let header = UpdateHeader { payload: Digest::of(&payload), ..header };
        Signed { signature: identity.sign(&header.signed_bytes()), header, payload }
    }

    /// Proves the claim: the sender is the worker of the header, the signature is that worker's
    /// (by the strict rules), and the payload is the one that was signed.
    ///
    /// # Errors
    /// A [`Rejection`]: `BadSignature`, `PayloadDigest`, or `Truncated` and `LeftOver` if the
    /// payload has not the length that the header says.
    pub fn verify(self, sender: &WorkerId) -> Result<Verified, Rejection> {
        let header = &self.header;
        header.check_payload(self.payload.len())?;
        if header.worker != *sender {
            let detail = format!("update is of worker {}, sent by {sender}", header.worker);
            return Err(Rejection::new(RejectionCode::BadSignature, detail));
        }
        if !identity::is_signed_by(sender, &header.signed_bytes(), &self.signature) {
            let detail = format!("signature of worker {sender} does not verify");
            return Err(Rejection::new(RejectionCode::BadSignature, detail));
        }
        let found = Digest::of(&self.payload);
        if found != header.payload {
            let detail = format!("payload has digest {found}, signed is {}", header.payload);
            return Err(Rejection::new(RejectionCode::PayloadDigest, detail));
        }
        Ok(Verified { signed: self })
    }

    pub(crate) fn append_to(&self, body: &mut Vec<u8>) {
        wire::append(&self.header, body);
        body.reserve_exact(SIGNATURE_BYTES + self.payload.len());
        body.extend_from_slice(&self.signature);
        body.extend_from_slice(&self.payload);
    }

    pub(crate) fn decode(body: &[u8]) -> Result<Signed, DecodeError> {
        let (header, rest) = wire::from_bytes_and_rest::<UpdateHeader>(body)?;
        header.check_bounds()?;
        let Some((signature, payload)) = rest.split_first_chunk() else {
            let needed = body.len() - rest.len() + SIGNATURE_BYTES;
            return Err(wire::truncated("body", body.len(), needed));
        };
        header.check_payload(payload.len())?;
        Ok(Signed { header, signature: *signature, payload: payload.to_vec() })
    }
}

impl fmt::Debug for Signed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Signed")
            .field("header", &self.header)
            .field("payload_bytes", &self.payload.len())
            .finish_non_exhaustive()
    }
}

/// An update that is proven to be its worker's. Made by [`Signed::verify`] alone.
#[derive(Clone, Debug, PartialEq)]
pub struct Verified {
    signed: Signed,
}

impl Verified {
    /// What it is.
    pub fn header(&self) -> &UpdateHeader {
        &self.signed.header
    }

    /// The words.
    pub fn payload(&self) -> &[u8] {
        &self.signed.payload
    }

    /// Header and words, when the proof is no longer needed.
    pub fn into_parts(self) -> (UpdateHeader, Vec<u8>) {
        (self.signed.header, self.signed.payload)
    }

    /// The frame it came in, byte for byte: what a journal keeps, and verifies again on loading.
    pub fn to_frame(&self) -> Vec<u8> {
        frame::build(FrameType::Update, |body| self.signed.append_to(body))
    }
}
