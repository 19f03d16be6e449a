//! Which release a worker runs and what it has tried, as it outlives the process.

use packfed_protocol::{Digest, Failure, Manifest, ReleaseOutcome, ReleaseRef, ReleaseState, Tried};
use serde::{Deserialize, Serialize};

/// A release that lies here whole.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Held {
    /// Which.
    pub release: ReleaseRef,
    /// Digest of its lanes, from which a difference may start.
    pub state: Digest,
    /// Digest of its adapter's file.
    pub adapter: Digest,
}

impl Held {
    /// What a manifest says, once all that it names lies here.
    #[must_use]
    pub fn of(manifest: &Manifest) -> Self {
        let release = ReleaseRef { number: manifest.number, digest: manifest.digest() };
        Self { release, state: manifest.state, adapter: manifest.adapter.digest }
    }
}

/// A release that is being evaluated.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Trying {
    /// Which.
    pub held: Held,
    /// Evaluations that were begun and not ended: as many processes died in one.
    pub attempts: u32,
}

/// What is known of releases; the default is a worker that runs its base model and has tried nothing.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Standing {
    /// What runs; none is the base model.
    pub current: Option<Held>,
    /// What ran before, to be run again if the current one is damaged; none is the base model.
    pub previous: Option<Held>,
    /// The last release that was tried.
    pub tried: Option<Tried>,
    /// Why that one failed, in words.
    pub why: Option<String>,
    /// What is being tried now.
    pub trying: Option<Trying>,
}

impl Standing {
    /// As the coordinator is told.
    #[must_use]
    pub fn state(&self) -> ReleaseState {
        ReleaseState { runs: self.current.map(|held| held.release), tried: self.tried }
    }

    /// A release that lies here.
    #[must_use]
    pub fn find(&self, release: ReleaseRef) -> Option<Held> {
        self.held().find(|held| held.release == release)
    }

    /// The release whose lanes have this digest.
    #[must_use]
    pub fn with_state(&self, state: Digest) -> Option<ReleaseRef> {
        self.held().find(|held| held.state == state).map(|held| held.release)
    }

    /// Everything that is to lie here.
    pub fn held(&self) -> impl Iterator<Item = Held> {
        [self.current, self.previous, self.trying.map(|trying| trying.held)].into_iter().flatten()
    }

    /// Evaluations of a release in which a process died.
    pub(super) fn attempts(&self, release: ReleaseRef) -> u32 {
        self.trying.filter(|trying| trying.held.release == release).map_or(0, |trying| trying.attempts)
    }

    /// Whether a release was tried and failed.
    pub(super) fn has_failed(&self, release: ReleaseRef) -> bool {
        self.tried.is_some_and(|tried| tried.release == release && matches!(tried.outcome, ReleaseOutcome::Failed(_)))
    }

    /// Without what is being tried.
    pub(super) fn settled(&self) -> Self {
        Self { trying: None, ..self.clone() }
    }

    /// After a release was found good.
    pub(super) fn swapped(&self, held: Held, outcome: ReleaseOutcome) -> Self {
        let tried = Some(Tried { release: held.release, outcome });
        Self { current: Some(held), previous: self.current, tried, why: None, trying: None }
    }

    /// After going back to an older release. What was left is not kept as the one before: nobody wants it any more.
    pub(super) fn back(&self, held: Held) -> Self {
        let older = |previous: &Held| previous.release.number < held.release.number;
        Self { current: Some(held), previous: self.previous.filter(older), ..self.settled() }
    }

    /// After going back to the base model.
    pub(super) fn base(&self) -> Self {
        Self { current: None, previous: None, ..self.settled() }
    }

    /// After a release failed.
    pub(super) fn failed(&self, release: ReleaseRef, failure: Failure, why: String) -> Self {
        let tried = Some(Tried { release, outcome: ReleaseOutcome::Failed(failure) });
        Self { tried, why: Some(why), ..self.settled() }
    }
}
