//! A run as its store has it: a fresh engine for a fresh store, or the same round again.
//!
//! Every shell starts here, the server's and a simulation's. It only reads; see [`Store::claim`].

use std::sync::Arc;

use packfed_protocol::Timestamp;
use thiserror::Error;

use crate::engine::{Engine, RestoreError};
use crate::ledger::Conduct;
use crate::plan::{PlanError, RunPlan};
use crate::store::{Store, StoreError};

/// Why a run cannot be taken up.
#[derive(Debug, Error)]
pub enum ResumeError {
    /// The store cannot be read, or is another plan's.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// What operators have set does not fit the plan any more.
    #[error("by what `run set` has set, {0}; put the configuration back")]
    Settings(#[source] PlanError),
    /// What the store holds does not hold together.
    #[error(transparent)]
    Restore(#[from] RestoreError),
}

/// Takes up the plan's run where the store left it.
///
/// # Errors
/// If the store cannot be read, is another plan's, or holds something that does not verify.
pub fn resume<S: Store + ?Sized>(plan: Arc<RunPlan>, store: &S, now: Timestamp) -> Result<Engine, ResumeError> {
    let (registry, ledger) = (store.registry()?, store.ledger()?);
    let plan = match ledger.conduct == Conduct::default() {
        true => plan,
        false => Arc::new(plan.with(&ledger.conduct.settings).map_err(ResumeError::Settings)?),
    };
    let engine = match store.load(&plan)? {
        Some(stored) => Engine::restore(plan, registry, stored, now)?,
        None => Engine::new(plan, registry, now),
    };
    Ok(engine.with_ledger(ledger))
}
