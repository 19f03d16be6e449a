//! What counts against a worker, and for how much of it it is suspended.
//!
//! A strike is for what no honest worker sends, however old its software, late its update or bad its connection: a
//! signature that does not hold, words that are not those that were signed, numbers beyond what the plan told it.

use packfed_protocol::RejectionCode;
use serde::{Deserialize, Serialize};

use crate::plan::{PlanError, range};

/// `[strikes]`: what misbehaviour leads to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Strikes {
    /// With so many a worker is suspended and begins anew; 0 suspends nobody. Default 8.
    pub suspend_at: u32,
    /// Milliseconds for which it is; 0 until the operator admits it. Default an hour.
    pub suspended_ms: u64,
}

impl Default for Strikes {
    fn default() -> Self {
        Self::DEFAULT
    }
}

impl Strikes {
    /// The defaults.
    pub const DEFAULT: Self = Self { suspend_at: 8, suspended_ms: 3_600_000 };

    pub(crate) fn check(&self) -> Result<(), PlanError> {
        range("strikes suspend_at", f64::from(self.suspend_at), 0.0..=1e6)?;
        range("strikes suspended_ms", self.suspended_ms as f64, 0.0..=366.0 * 24.0 * 3.6e6)
    }
}

/// Whether what was rejected shows that its sender means harm or is broken.
#[must_use]
pub const fn is_misbehaviour(code: RejectionCode) -> bool {
    match code {
        RejectionCode::Oversized
        | RejectionCode::LeftOver
        | RejectionCode::Malformed
        | RejectionCode::BadSignature
        | RejectionCode::PayloadDigest
        | RejectionCode::WrongLayout
        | RejectionCode::WrongBlockCount
        | RejectionCode::ExampleCap => true,
        // Of a connection that broke, or of other software.
        RejectionCode::Truncated
        | RejectionCode::UnknownType
        | RejectionCode::UnknownVersion
        | RejectionCode::Unexpected
        | RejectionCode::PayloadGone
        // Of a worker that comes late, again, or from another run, after a restart on either side.
        | RejectionCode::WrongRun
        | RejectionCode::Replayed
        | RejectionCode::StaleBase
        | RejectionCode::Duplicate
        | RejectionCode::NotSelected
        // Of an operator.
        | RejectionCode::Forbidden
        | RejectionCode::NotPossible
        // A loss that ran away is trouble of its own.
        | RejectionCode::NotFinite
        // Of who it is and how things are, not of what it sent.
        | RejectionCode::UnknownWorker
        | RejectionCode::Suspended
        | RejectionCode::Revoked
        | RejectionCode::BadToken
        | RejectionCode::Ineligible
        | RejectionCode::TooSoon
        | RejectionCode::NotNeeded => false,
    }
}
