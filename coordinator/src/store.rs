//! What the engine's effects are made durable by. Two stores exist: a file (`redb_store`), and memory for
//! simulations and tests.

use thiserror::Error;

use crate::event::{Stored, Write};
use crate::plan::RunPlan;
use crate::registry::Registry;

/// A durable home for one run.
pub trait Store {
    /// Makes one change durable, whole or not at all.
    ///
    /// # Errors
    /// If the change could not be made durable; then the process must not act as if it were.
    fn write(&mut self, write: &Write) -> Result<(), StoreError>;

    /// Enrolled workers and unused tokens.
    ///
    /// # Errors
    /// If the store cannot be read.
    fn registry(&self) -> Result<Registry, StoreError>;

    /// The run as it stands; `None` if no round was ever opened.
    ///
    /// # Errors
    /// If the store cannot be read or holds another plan's run.
    fn load(&self, plan: &RunPlan) -> Result<Option<Stored>, StoreError>;
}

/// Why a store could not do as asked.
#[derive(Debug, Error)]
pub enum StoreError {
    /// The storage engine failed.
    #[error("{doing}: {why}")]
    Engine {
        /// What was being done, with the path.
        doing: String,
        /// What the engine said.
        why: String,
    },
    /// Stored bytes do not mean what they should.
    #[error("the store's {what} cannot be read: {why}")]
    Corrupt {
        /// Which record.
        what: &'static str,
        /// What is wrong with it.
        why: String,
    },
    /// The store was made for another plan.
    #[error("the store belongs to run {found}, the plan is run {expected}; use another store or restore the plan")]
    OtherRun {
        /// Run in the store.
        found: String,
        /// Run of the plan.
        expected: String,
    },
}
