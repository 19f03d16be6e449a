//! The replica: this worker's copy of the global model, integers that agree with the head by digest.

use std::sync::Arc;

use packfed_codec::{CatchUpError, Layout, Profile, State, decode_catch_up};
use packfed_protocol::{CatchUp, Digest, Version};
use thiserror::Error;

/// A copy of one version of the model.
#[derive(Clone, Debug)]
pub struct Replica {
    profile: Profile,
    version: Version,
    state: Arc<State>,
}

/// Why a catch-up was not taken over; the replica is as it was.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum ReplicaError {
    /// It applies to another version.
    #[error("the catch-up is from version {}, the replica is at {}", found.0, expected.0)]
    Version {
        /// Version that it applies to.
        found: Version,
        /// Version of the replica.
        expected: Version,
    },
    /// Its bytes do not fit the layout.
    #[error("the catch-up cannot be read: {0}")]
    Body(#[from] CatchUpError),
    /// What it leads to is not the head.
    #[error("the catch-up leads to digest {found}, the head has {expected}")]
    Digest {
        /// Digest found.
        found: Digest,
        /// Digest of the head.
        expected: Digest,
    },
}

impl Replica {
    /// Version 0: Δ is zero.
    #[must_use]
    pub fn new(layout: Arc<Layout>, profile: Profile) -> Self {
        Self { profile, version: Version(0), state: Arc::new(State::zero(layout)) }
    }

    /// The version that it is a copy of.
    #[must_use]
    pub const fn version(&self) -> Version {
        self.version
    }

    /// The model.
    #[must_use]
    pub const fn state(&self) -> &Arc<State> {
        &self.state
    }

    /// Digest of the model.
    #[must_use]
    pub fn digest(&self) -> Digest {
        Digest(self.state.digest().0)
    }

    /// Goes on to a later version; one from version 0 replaces whatever is here.
    ///
    /// # Errors
    /// If it does not apply or does not lead to the head; the replica is then as it was.
    pub fn apply(&mut self, catch_up: &CatchUp) -> Result<(), ReplicaError> {
        let mut state = if catch_up.from == Version(0) {
            State::zero(self.state.layout().clone())
        } else if catch_up.from == self.version {
            State::clone(&self.state)
        } else {
            return Err(ReplicaError::Version { found: catch_up.from, expected: self.version });
        };
        decode_catch_up(&mut state, self.profile, catch_up.body.bytes())?;
        let found = Digest(state.digest().0);
        if found != catch_up.digest {
            return Err(ReplicaError::Digest { found, expected: catch_up.digest });
        }
        (self.version, self.state) = (catch_up.to, Arc::new(state));
        Ok(())
    }

    /// Forgets everything: the next catch-up is a checkpoint.
    pub fn reset(&mut self) {
        *self = Self::new(self.state.layout().clone(), self.profile);
    }
}
