//! How the process ends: codes for scripts, and the errors that have one of their own.

use packfed_protocol::{Rejection, RejectionCode, WorkerId};
use thiserror::Error;

/// It failed.
pub(crate) const FAILED: u8 = 1;
/// The command line is wrong.
pub(crate) const USAGE: u8 = 2;
/// Nobody serves; the store was read.
pub(crate) const NOT_SERVING: u8 = 3;
/// A rollout that was watched was rolled back or aborted.
pub(crate) const TAKEN_BACK: u8 = 4;
/// A rollout that was watched is paused.
pub(crate) const PAUSED: u8 = 5;
/// The key may ask, but not order this.
pub(crate) const FORBIDDEN: u8 = 6;

/// The command line is wrong in a way that only shows when it is looked at as a whole.
#[derive(Debug, Error)]
#[error("{0}")]
pub(crate) struct Usage(pub(crate) String);

/// What the coordinator says to an order or a question that it does not take.
#[derive(Debug, Error)]
pub(crate) enum Refused {
    /// It says why.
    #[error("the coordinator refused: {0}")]
    Told(Rejection),
    /// It takes whoever asks for a worker.
    #[error("the coordinator refused: {why}; it does not know key {key} as an admin: add it to its [[admins]]")]
    Stranger {
        /// What it says.
        why: Rejection,
        /// Who asked.
        key: WorkerId,
    },
}

/// The exit code of an error.
pub(crate) fn code(error: &anyhow::Error) -> u8 {
    if error.is::<Usage>() {
        return USAGE;
    }
    match error.downcast_ref::<Refused>() {
        Some(Refused::Told(why)) if why.code == RejectionCode::Forbidden => FORBIDDEN,
        Some(Refused::Stranger { .. }) => FORBIDDEN,
        Some(Refused::Told(_)) | None => FAILED,
    }
}

#[cfg(test)]
mod tests {
    use anyhow::Context;

    use super::*;

    #[test]
    fn an_error_keeps_its_code_under_a_context() {
        let told = |code| anyhow::Error::from(Refused::Told(Rejection::new(code, "no")));
        assert_eq!(code(&told(RejectionCode::Forbidden)), FORBIDDEN);
        assert_eq!(code(&told(RejectionCode::NotPossible)), FAILED);
        let inner: anyhow::Result<()> = Err(told(RejectionCode::Forbidden));
        assert_eq!(code(&inner.context("doing it").unwrap_err()), FORBIDDEN);
        assert_eq!(code(&Usage("wrong".to_owned()).into()), USAGE);
        assert_eq!(code(&anyhow::anyhow!("else")), FAILED);
    }
}
