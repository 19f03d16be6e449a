//! Why a release is not taken: which of its claims does not hold here, with both sides of the difference.

use packfed_codec::{AdapterError, CatchUpError};
use packfed_protocol::{Digest, ReleaseError, RunId};
use thiserror::Error;

/// Bytes of the largest release or difference that is fetched: 4 GiB.
pub const RELEASE_BYTES_MAX: u64 = 4 << 30;

/// What is wrong with a release.
#[derive(Clone, Debug, PartialEq, Error)]
pub enum Refusal {
    /// It is no release, one of its fields breaks its bound, or another key signed it.
    #[error(transparent)]
    Release(#[from] ReleaseError),
    /// It is of another run.
    #[error("release {number} is of run {found}, this worker enrolled in run {expected}")]
    Run {
        /// Its number.
        number: u64,
        /// Its run.
        found: RunId,
        /// Run of the enrolment.
        expected: RunId,
    },
    /// It is for another base model.
    #[error("release {number} is for a base model with digest {found}, the one here has {expected}")]
    Base {
        /// Its number.
        number: u64,
        /// Base that it names.
        found: Digest,
        /// Digest of the files here.
        expected: Digest,
    },
    /// Its blocks are not the run's.
    #[error("release {number} has layout {found}, the run has {expected}")]
    Layout {
        /// Its number.
        number: u64,
        /// Its layout.
        found: Digest,
        /// The run's.
        expected: Digest,
    },
    /// The base model here has no place for its layers.
    #[error("release {number} does not fit the base model here: {why}")]
    Unfit {
        /// Its number.
        number: u64,
        /// What does not fit.
        why: String,
    },
    /// It is not newer than what runs, and was not meant to be.
    #[error("release {number} is not newer than release {runs}, which runs here")]
    Older {
        /// Its number.
        number: u64,
        /// The number of what runs.
        runs: u64,
    },
    /// It starts from a model that is not here.
    #[error("release {number} comes as a difference from state {state}, which is not here")]
    MissingState {
        /// Its number.
        number: u64,
        /// The state that it starts from.
        state: Digest,
    },
    /// It is too large.
    #[error("release {number} has {bytes} bytes, allowed are {RELEASE_BYTES_MAX}")]
    Size {
        /// Its number.
        number: u64,
        /// Bytes to be fetched or kept.
        bytes: u64,
    },
    /// What was fetched is no adapter.
    #[error("release {number} is no adapter: {source}")]
    Adapter {
        /// Its number.
        number: u64,
        /// What is wrong.
        source: AdapterError,
    },
    /// What was fetched is no difference from the state that it names.
    #[error("release {number} is no difference from the state that it names: {source}")]
    Difference {
        /// Its number.
        number: u64,
        /// What is wrong.
        source: CatchUpError,
    },
    /// What was fetched is not what was signed.
    #[error("the {what} of release {number} is {found}, signed is {signed}")]
    NotSigned {
        /// Its number.
        number: u64,
        /// Which.
        what: &'static str,
        /// As it was fetched.
        found: Digest,
        /// As the manifest says.
        signed: Digest,
    },
}
