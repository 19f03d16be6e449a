//! What the engine's effects are made durable by. Two stores exist: a file (`redb_store`), and memory for
//! simulations and tests.

use std::fmt;
use std::path::PathBuf;

use packfed_protocol::{Round, RunId, WorkerId};
use serde::{Deserialize, Serialize};
use thiserror::Error;

use crate::event::{Stored, Write};
use crate::ledger::Ledger;
use crate::plan::RunPlan;
use crate::registry::Registry;

/// A durable home for one run.
pub trait Store {
    /// Makes the store this plan's. As long as no round was opened, any plan may take it over.
    ///
    /// # Errors
    /// If a round of another plan was opened in it, or the claim could not be made durable.
    fn claim(&mut self, plan: &RunPlan) -> Result<(), StoreError>;

    /// Makes changes durable in their order, all of them or none: what a group of events asks for costs
    /// one flush of the disk.
    ///
    /// # Errors
    /// If the changes could not be made durable; then the process must not act as if they were.
    fn write_all(&mut self, writes: &[Write]) -> Result<(), StoreError>;

    /// Makes one change durable, whole or not at all.
    ///
    /// # Errors
    /// As [`Store::write_all`].
    fn write(&mut self, write: &Write) -> Result<(), StoreError> {
        self.write_all(std::slice::from_ref(write))
    }

    /// Reads of the journalled frame of an update the bytes from `before_end` before its end on, without holding much
    /// more of it than is asked for.
    ///
    /// # Errors
    /// If the store cannot be read or the journal has no such bytes.
    fn read_update(
        &self,
        round: Round,
        worker: &WorkerId,
        before_end: usize,
        bytes: &mut [u8],
    ) -> Result<(), StoreError>;

    /// Enrolled workers and unused tokens.
    ///
    /// # Errors
    /// If the store cannot be read.
    fn registry(&self) -> Result<Registry, StoreError>;

    /// What is kept beside the run.
    ///
    /// # Errors
    /// If the store cannot be read.
    fn ledger(&self) -> Result<Ledger, StoreError>;

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
    /// The store holds less than it was seen to hold.
    #[error(
        "the store is at write {group}, its mark {} has seen write {seen}: it was set back by damage or replaced by an older copy; restore it, or remove the mark to go on without what is missing",
        mark.display()
    )]
    SetBack {
        /// The mark's file.
        mark: PathBuf,
        /// Group of writes that the store held.
        seen: u64,
        /// Group of writes that it holds.
        group: u64,
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

/// What binds a store to a plan: what the words in it mean.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Claim {
    run: RunId,
    profile: u8,
}

impl Claim {
    /// The claim that a plan makes.
    pub(crate) fn of(plan: &RunPlan) -> Self {
        Self { run: plan.raw().run, profile: plan.raw().profile.number() }
    }

    /// Refuses a store that is claimed by another plan, or by none.
    pub(crate) fn check(self, found: Option<Self>) -> Result<(), StoreError> {
        match found {
            Some(found) if found == self => Ok(()),
            Some(found) => Err(StoreError::OtherRun { found: found.to_string(), expected: self.to_string() }),
            None => Err(StoreError::Corrupt { what: "claim", why: "a round was opened, but by no plan".to_owned() }),
        }
    }
}

impl fmt::Display for Claim {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} with words of profile {}", self.run, self.profile)
    }
}

/// Where in a frame of so many bytes the part begins that [`Store::read_update`] asks for.
pub(crate) fn part_start(
    length: Option<u64>,
    worker: &WorkerId,
    before_end: usize,
    bytes: usize,
) -> Result<u64, StoreError> {
    let corrupt = |why: String| StoreError::Corrupt { what: "journal", why };
    let length = length.ok_or_else(|| corrupt(format!("it has no update of worker {worker}")))?;
    let start = length.checked_sub(before_end as u64).filter(|_| bytes <= before_end);
    start.ok_or_else(|| {
        corrupt(format!(
            "the update of worker {worker} has {length} bytes, {bytes} from {before_end} before its end on are asked for"
        ))
    })
}
