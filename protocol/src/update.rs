//! An update on its way: claimed, then proven.
//!
//! A [`Signed`] is what a peer says; a [`Verified`] can only be made by checking one, so whoever
//! takes a `Verified` cannot forget to. Verified means: these bytes are that worker's, for that
//! run, round, base and layout. Whether the round wants them is the coordinator's business, and
//! what the words mean is the codec's.
//!
//! ```text
//!  body of an Update frame                      payload
//!      ┌──────────────────────────┬───────────────┐ ┌ ─ ─ ─ ─ ─ ─ ┐
//!      │ UpdateHeader, wire bytes │ signature, 64 │   words × 16
//!      └──────────────────────────┴───────────────┘ └ ─ ─ ─ ─ ─ ─ ┘
//!        ▲ signed, after UPDATE_DOMAIN                ▲ its digest is in the header
//!
//!   Signed ─────────────────── verify ───────────────────► Verified       all at once
//!   UpdateOffer ── prove ──► ProvenOffer ── complete ────► Verified       the words later
//! ```

use std::fmt;

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use crate::frame::{self, FrameType};
use crate::id::{Digest, Round, RunId, Version, WorkerId};
use crate::identity::{self, Identity};
use crate::limits::{self, LAYERS_MAX, WORD_BYTES};
use crate::payload::{self, Payload, PayloadId};
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
        let Signed { header, signature, payload } = self;
        let offer = UpdateOffer { header, signature };
        offer.payload().check_length(payload.len())?;
        offer.prove(sender)?.complete(Payload::new(payload))
    }

    pub(crate) fn append_offer_to(&self, body: &mut Vec<u8>) {
        append_offer(&self.header, &self.signature, body);
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

/// An update as it is announced: everything but its words.
#[derive(Clone, PartialEq)]
pub struct UpdateOffer {
    /// What it is.
    pub header: UpdateHeader,
    /// The worker's signature over domain and header.
    pub signature: [u8; SIGNATURE_BYTES],
}

impl UpdateOffer {
    /// What its words are known by.
    pub fn payload(&self) -> PayloadId {
        PayloadId { digest: self.header.payload, bytes: u64::from(self.header.words) * WORD_BYTES }
    }

    /// Proves everything that can be without the words: the sender is the worker of the header, and the
    /// signature is that worker's, by the strict rules.
    ///
    /// # Errors
    /// `BadSignature`.
    pub fn prove(self, sender: &WorkerId) -> Result<ProvenOffer, Rejection> {
        let header = &self.header;
        if header.worker != *sender {
            let detail = format!("update is of worker {}, sent by {sender}", header.worker);
            return Err(Rejection::new(RejectionCode::BadSignature, detail));
        }
        if !identity::is_signed_by(sender, &header.signed_bytes(), &self.signature) {
            let detail = format!("signature of worker {sender} does not verify");
            return Err(Rejection::new(RejectionCode::BadSignature, detail));
        }
        Ok(ProvenOffer { offer: self })
    }

    pub(crate) fn decode(body: &[u8]) -> Result<UpdateOffer, DecodeError> {
        let (header, rest) = wire::from_bytes_and_rest::<UpdateHeader>(body)?;
        header.check_bounds()?;
        let needed = body.len() - rest.len() + SIGNATURE_BYTES;
        match rest.split_first_chunk() {
            Some((&signature, [])) => Ok(UpdateOffer { header, signature }),
            Some(_) => Err(wire::left_over("body", body.len(), needed)),
            None => Err(wire::truncated("body", body.len(), needed)),
        }
    }
}

impl fmt::Debug for UpdateOffer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("UpdateOffer").field("header", &self.header).finish_non_exhaustive()
    }
}

/// An announced update that is proven to be its worker's. Made by [`UpdateOffer::prove`] alone.
#[derive(Clone, Debug, PartialEq)]
pub struct ProvenOffer {
    offer: UpdateOffer,
}

impl ProvenOffer {
    /// What it is.
    pub fn header(&self) -> &UpdateHeader {
        &self.offer.header
    }

    /// What its words are known by.
    pub fn payload(&self) -> PayloadId {
        self.offer.payload()
    }

    /// The update, now that its words are there.
    ///
    /// # Errors
    /// `PayloadDigest` if they are not the ones that were signed, `Truncated` or `LeftOver` if they are
    /// not as many.
    pub fn complete(self, payload: Payload) -> Result<Verified, Rejection> {
        let announced = self.payload();
        announced.check_length(payload.bytes().len())?;
        payload::check_digest(payload.id().digest, announced.digest)?;
        Ok(Verified { offer: Box::new(self.offer), payload })
    }
}

/// An update that is proven to be its worker's. Made by [`ProvenOffer::complete`] alone. A clone shares the words.
#[derive(Clone, Debug, PartialEq)]
pub struct Verified {
    /// Boxed, as updates are handed on more often than looked at.
    offer: Box<UpdateOffer>,
    payload: Payload,
}

impl Verified {
    /// What it is.
    pub fn header(&self) -> &UpdateHeader {
        &self.offer.header
    }

    /// The words.
    pub fn payload(&self) -> &[u8] {
        self.payload.bytes()
    }

    /// Header and words, when the proof is no longer needed.
    pub fn into_parts(self) -> (UpdateHeader, Vec<u8>) {
        (self.offer.header, self.payload.into_vec())
    }

    /// What a journal keeps, and verifies again on loading; it shares the words.
    pub fn frame(&self) -> UpdateFrame {
        let UpdateOffer { header, signature } = &*self.offer;
        let head = frame::build(FrameType::Update, |body| append_offer(header, signature, body));
        UpdateFrame { head, payload: self.payload.bytes().clone() }
    }
}

/// The frame in which a verified update came, and its payload, byte for byte. A clone shares the payload.
#[derive(Clone, PartialEq, Eq)]
pub struct UpdateFrame {
    head: Vec<u8>,
    payload: Bytes,
}

impl UpdateFrame {
    /// Its bytes, in two parts.
    pub fn parts(&self) -> [&[u8]; 2] {
        [&self.head, &self.payload]
    }

    /// How many bytes it has.
    pub fn bytes(&self) -> usize {
        self.head.len() + self.payload.len()
    }

    /// A copy of its bytes.
    pub fn to_vec(&self) -> Vec<u8> {
        self.parts().concat()
    }
}

impl From<Vec<u8>> for UpdateFrame {
    /// The bytes in one part, whatever they are: nothing is proven until they are read and verified.
    fn from(bytes: Vec<u8>) -> UpdateFrame {
        UpdateFrame { head: Vec::new(), payload: bytes.into() }
    }
}

impl fmt::Debug for UpdateFrame {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("UpdateFrame").field("bytes", &self.bytes()).finish_non_exhaustive()
    }
}

fn append_offer(header: &UpdateHeader, signature: &[u8; SIGNATURE_BYTES], body: &mut Vec<u8>) {
    wire::append(header, body);
    body.extend_from_slice(signature);
}
