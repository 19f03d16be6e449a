//! How a release reaches the fleet: stage by stage, as a pure state machine beside the rounds'.
//!
//! ```text
//!             soaked, enough reports, every gate passes
//!                ┌──────────────────────────────┐
//!   start ──► Soaking(stage) ◄──────────────────┘ ── after the last stage ──► Completed
//!                │        ▲
//!    a gate fails│        │ resume, promote
//!    or pause    ▼        │
//!              Paused ────┘
//!
//!   Soaking, Paused ── abort ──► Aborted        ── rollback, or a gate fails ──► RolledBack
//! ```
//!
//! Which release a worker is to run follows from the book of all rollouts, the worker's key and its labels alone:
//! nobody is assigned, so nothing is lost when a process dies. The machine is told of verbs, reports and time, and says
//! what is to be stored and when it wants to be woken. It knows no connection and no file of a release.

mod book;
mod gate;
mod member;
mod record;
mod report;
mod spec;
mod target;

pub use book::{Book, Effect, Fleet, Refusal, Report};
pub use gate::{Gates, Judgement, Measure, Verdict};
pub use member::{WHOLE, place};
pub use packfed_protocol::{
    Evaluation, EvaluationError, Failure, Paired, ReleaseOutcome as Outcome, ReleaseRef, RolloutVerb as Verb,
};
pub use record::{BY_ITSELF, Before, Change, Phase, Record};
pub use report::Sums;
pub use spec::{OnFailure, Spec, SpecError, Stage};
pub use target::{CHANNEL, Labels, STABLE, Target, channel};

#[cfg(test)]
mod tests;
