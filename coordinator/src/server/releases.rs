//! The shelf of releases as the server has it: what is frozen, what is told of, and what a worker needs of it.

use std::cell::RefCell;
use std::collections::{BTreeMap, VecDeque};
use std::path::Path;

use anyhow::Result;
use packfed_codec::encode_catch_up;
use packfed_protocol::{
    CoordinatorId, Identity, Manifest, Payload, Rejection, RejectionCode, ReleaseBody, ReleaseRef, SignedRelease,
    Target, Timestamp,
};

use crate::engine::Engine;
use crate::picture::Release;
use crate::release::{Made, Shelf, ShelfError};

/// A shelf, and the key that signs what comes on it.
pub(super) struct Releases {
    identity: Identity,
    shelf: Shelf,
    /// What was offered of late: a stage's workers mostly come from one release to one other.
    offered: VecDeque<((ReleaseRef, Option<ReleaseRef>), Offered)>,
    /// What was last found on the shelf: a release never changes, so the same numbers are the same releases.
    listed: RefCell<(BTreeMap<u64, bool>, Vec<Release>)>,
}

/// What a worker is told of a release, and what it then fetches.
#[derive(Clone)]
pub(super) struct Offered {
    pub(super) target: Target,
    pub(super) body: Payload,
}

impl Releases {
    pub(super) fn new(identity: Identity, store: &Path) -> Self {
        Self { identity, shelf: Shelf::beside(store), offered: VecDeque::new(), listed: RefCell::default() }
    }

    fn key(&self) -> CoordinatorId {
        self.identity.id()
    }

    /// Makes a release of a version of the head, the current one unless another is asked for.
    pub(super) fn make(
        &mut self,
        engine: &Engine,
        version: Option<u64>,
        notes: String,
        now: Timestamp,
    ) -> Result<Manifest> {
        let last = engine.status().last;
        let made = Made::of_head(engine.plan(), engine.head(), last.as_ref(), version, notes, now)?;
        let manifest = self.shelf.make(&self.identity, &made)?;
        tracing::info!(release = manifest.number, version = manifest.version.0, state = %manifest.state, "released");
        Ok(manifest)
    }

    /// A release that is there and whole, by its number.
    pub(super) fn find(&self, number: u64) -> Result<ReleaseRef, Rejection> {
        let held = self.shelf.read(number, &self.key()).map_err(|error| refused(&error))?;
        Ok(ReleaseRef { number, digest: held.manifest.digest() })
    }

    /// All that are there, the latest first.
    pub(super) fn list(&self) -> Result<Vec<Release>, Rejection> {
        let numbers = self.shelf.numbers().map_err(|error| refused(&error))?;
        let mut listed = self.listed.borrow_mut();
        if listed.0 != numbers {
            let there = numbers.iter().rev().filter(|(_, there)| **there);
            let manifest = |(number, _): (&u64, _)| self.shelf.manifest(*number, &self.key());
            let release = |there| manifest(there).map(|manifest| Release::of(&manifest));
            let releases = there.map(release).collect::<Result<_, _>>().map_err(|error| refused(&error))?;
            *listed = (numbers, releases);
        }
        Ok(listed.1.clone())
    }

    /// What a worker that runs one release is told of another: the words that differ, if they are fewer.
    pub(super) fn offer(&mut self, target: ReleaseRef, runs: Option<ReleaseRef>) -> Result<Offered, ShelfError> {
        let key = (target, runs);
        if let Some((_, offered)) = self.offered.iter().find(|(known, _)| *known == key) {
            return Ok(offered.clone());
        }
        let offered = self.made(target, runs)?;
        self.offered.push_back((key, offered.clone()));
        if self.offered.len() > OFFERED_MAX {
            self.offered.pop_front();
        }
        Ok(offered)
    }

    fn made(&self, target: ReleaseRef, runs: Option<ReleaseRef>) -> Result<Offered, ShelfError> {
        let held = self.shelf.read(target.number, &self.key())?;
        let signed = SignedRelease::new(&self.identity, held.manifest.clone())?.to_bytes();
        let state = held.adapter.state();
        // A release that is gone from the shelf is nothing to start from.
        let from = runs.and_then(|runs| {
            self.shelf
                .read(runs.number, &self.key())
                .ok()
                .filter(|from| from.manifest.digest() == runs.digest && from.manifest.layout == held.manifest.layout)
        });
        let step = from.map(|from| (from.manifest.state, encode_catch_up(from.adapter.state(), state)));
        let step = step.filter(|(_, step)| (step.len() as u64) < held.manifest.adapter.bytes);
        let back = runs.is_some_and(|runs| runs.number > target.number);
        let (body, payload) = match step {
            Some((state, step)) => {
                let payload = Payload::new(step);
                (ReleaseBody::From { state, payload: payload.id() }, payload)
            }
            None => (ReleaseBody::Whole, Payload::new(held.adapter.to_bytes())),
        };
        Ok(Offered { target: Target::Release { signed, back, body }, body: payload })
    }
}

fn refused(error: &ShelfError) -> Rejection {
    Rejection::new(RejectionCode::NotPossible, error.to_string())
}

/// Offers that are kept; each holds a model.
const OFFERED_MAX: usize = 4;
