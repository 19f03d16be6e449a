//! The releases of a run: real manifests, signed with the coordinator's key, over a few bytes that stand for a model.

use std::collections::BTreeMap;

use packfed_codec::Seed;
use packfed_coordinator::plan::RunPlan;
use packfed_protocol::{
    Digest, Identity, Manifest, Payload, PayloadId, ReleaseBody, ReleaseRef, SignedRelease, Target, Timestamp, Version,
};
use packfed_worker::follower::Pinned;

/// See the module.
#[derive(Debug)]
pub(super) struct Shelf {
    identity: Identity,
    pinned: Pinned,
    layout: Digest,
    worth: Seed,
    bad: f64,
    made: BTreeMap<u64, Made>,
}

#[derive(Debug)]
struct Made {
    release: ReleaseRef,
    signed: SignedRelease,
    body: Payload,
    loss: f64,
}

/// Loss of the base model, and about that of every release that is no worse.
const LOSS: f64 = 1.0;
/// How much worse a bad release is.
const WORSE: f64 = 0.9;

impl Shelf {
    /// A shelf without a release, of which so many will be bad.
    pub(super) fn new(seed: &Seed, plan: &RunPlan, bad: f64) -> Self {
        let identity = Identity::from_seed(*seed.derive("packfed/chaos/coordinator/1", &[]).bytes());
        let pinned = Pinned { coordinator: identity.id(), run: plan.raw().run, base: plan.raw().base };
        let worth = seed.derive("packfed/chaos/release/1", &[]);
        Self { identity, pinned, layout: plan.layout_digest(), worth, bad, made: BTreeMap::new() }
    }

    /// What a worker is sure of.
    pub(super) const fn pinned(&self) -> Pinned {
        self.pinned
    }

    /// Makes the next release.
    pub(super) fn make(&mut self) -> Option<ReleaseRef> {
        let number = self.made.last_key_value().map_or(1, |(last, _)| last + 1);
        let body = Payload::new(format!("the model of release {number}").into_bytes());
        let manifest = Manifest {
            number,
            run: self.pinned.run,
            base: self.pinned.base,
            layout: self.layout,
            state: Digest::of(&number.to_le_bytes()),
            version: Version(number),
            adapter: body.id(),
            created: Timestamp(number),
            notes: String::new(),
            metrics: BTreeMap::new(),
        };
        let release = ReleaseRef { number, digest: manifest.digest() };
        let mut stream = self.worth.derive("packfed/chaos/release/loss/1", &[number]).stream();
        let loss = LOSS + 0.01 * (stream.unit() - 0.5) + if stream.unit() < self.bad { WORSE } else { 0.0 };
        let signed = SignedRelease::new(&self.identity, manifest).ok()?;
        self.made.insert(number, Made { release, signed, body, loss });
        Some(release)
    }

    /// Releases so far.
    pub(super) fn len(&self) -> u64 {
        self.made.len() as u64
    }

    /// A release by its number.
    pub(super) fn find(&self, number: u64) -> Option<ReleaseRef> {
        self.made.get(&number).map(|made| made.release)
    }

    /// What a worker that runs one release is told of another, as the server tells it.
    pub(super) fn target(&self, release: Option<ReleaseRef>, runs: Option<ReleaseRef>) -> Option<Target> {
        let Some(release) = release else { return Some(Target::Base) };
        let made = self.made.get(&release.number).filter(|made| made.release == release)?;
        let back = runs.is_some_and(|runs| runs.number > release.number);
        Some(Target::Release { signed: made.signed.to_bytes(), back, body: ReleaseBody::Whole })
    }

    /// A body.
    pub(super) fn body(&self, payload: PayloadId) -> Option<Payload> {
        self.made.values().find(|made| made.body.id() == payload).map(|made| made.body.clone())
    }

    /// Mean loss of a release; none is the base model.
    pub(super) fn loss(&self, release: Option<ReleaseRef>) -> f64 {
        release.and_then(|release| self.made.get(&release.number)).map_or(LOSS, |made| made.loss)
    }
}

/// The release that a target names; none is the base model.
pub(super) fn named(target: &Target) -> Option<ReleaseRef> {
    match target {
        Target::Base => None,
        Target::Release { signed, .. } => {
            let signed = SignedRelease::from_bytes(signed).ok()?;
            let manifest = signed.unverified();
            Some(ReleaseRef { number: manifest.number, digest: manifest.digest() })
        }
    }
}
