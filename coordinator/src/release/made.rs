//! What a release is made of: a version of the global model, or a packed adapter from elsewhere.

use packfed_codec::{Adapter, AdapterError, BaseDigest};
use packfed_protocol::{Digest, RunId, Timestamp, Version};
use thiserror::Error;

use crate::event::Summary;
use crate::head::Head;
use crate::plan::RunPlan;

/// A model that is to be released.
#[derive(Clone, Debug, PartialEq)]
pub struct Made {
    /// The run.
    pub run: RunId,
    /// The version of the global model that it is; 0 if it is from a file.
    pub version: Version,
    /// The model, and figures that go with it.
    pub adapter: Adapter,
    /// What the operator says of it.
    pub notes: String,
    /// The moment.
    pub created: Timestamp,
}

/// Why a model cannot be released.
#[derive(Clone, Debug, PartialEq, Error)]
pub enum NotMade {
    /// Version 0 is the base model.
    #[error("nothing is committed yet: version 0 is the base model itself")]
    Nothing,
    /// The version is not remembered.
    #[error(
        "version {asked} is not remembered, only {oldest} to {newest}; run.history in the configuration says how many are"
    )]
    Version {
        /// What was asked for.
        asked: u64,
        /// The oldest that is remembered.
        oldest: u64,
        /// The current one.
        newest: u64,
    },
    /// It makes no adapter.
    #[error(transparent)]
    Adapter(#[from] AdapterError),
    /// It belongs to another base model, or to other layers.
    #[error("the file's {what} is {found}, the run's is {expected}")]
    Other {
        /// What differs.
        what: &'static str,
        /// As the file has it.
        found: Digest,
        /// As the run has it.
        expected: Digest,
    },
}

impl Made {
    /// A version of a run's global model, the current one unless another is asked for.
    ///
    /// # Errors
    /// If there is none, or it is not remembered.
    pub fn of_head(
        plan: &RunPlan,
        head: &Head,
        last: Option<&Summary>,
        version: Option<u64>,
        notes: String,
        created: Timestamp,
    ) -> Result<Self, NotMade> {
        let newest = head.version();
        let asked = version.unwrap_or(newest);
        if newest == 0 {
            return Err(NotMade::Nothing);
        }
        let oldest = newest - (head.record().past.len() as u64).min(newest - 1);
        let state = head.state_of(asked).filter(|_| asked > 0).ok_or(NotMade::Version { asked, oldest, newest })?;
        let last = last.filter(|summary| summary.version == asked);
        let metrics = last.map(|summary| ("train_loss".to_owned(), summary.train_loss)).into_iter().collect();
        let adapter = Adapter::new(BaseDigest(plan.raw().base.0), plan.raw().seed, state, metrics)?;
        Ok(Self { run: plan.raw().run, version: Version(asked), adapter, notes, created })
    }

    /// A packed adapter of the run's base and layers.
    ///
    /// # Errors
    /// If it is of others.
    pub fn of_file(plan: &RunPlan, adapter: Adapter, notes: String, created: Timestamp) -> Result<Self, NotMade> {
        let found = [adapter.base().0, adapter.state().layout().digest().0].map(Digest);
        let expected = [plan.raw().base, plan.layout_digest()];
        for (what, (found, expected)) in ["base model", "layout"].into_iter().zip(found.into_iter().zip(expected)) {
            if found != expected {
                return Err(NotMade::Other { what, found, expected });
            }
        }
        Ok(Self { run: plan.raw().run, version: Version(0), adapter, notes, created })
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;
    use crate::memory_store::first_head;
    use crate::redb_store::tests::plan;

    #[test]
    fn what_is_not_there_is_not_released() {
        let plan = plan();
        let head = Head::restore(plan.head(), first_head(&plan)).unwrap();
        let made = Made::of_head(&plan, &head, None, None, String::new(), Timestamp(0));
        assert_eq!(made, Err(NotMade::Nothing));
    }

    #[test]
    fn a_file_of_another_base_is_refused() {
        let plan = plan();
        let adapter = |base| {
            let state = packfed_codec::State::zero(plan.layout().clone());
            Adapter::new(BaseDigest(base), plan.raw().seed, state, BTreeMap::new()).unwrap()
        };
        assert!(Made::of_file(&plan, adapter(plan.raw().base.0), String::new(), Timestamp(0)).is_ok());
        let other = Made::of_file(&plan, adapter([9; 32]), String::new(), Timestamp(0));
        let expected = NotMade::Other { what: "base model", found: Digest([9; 32]), expected: plan.raw().base };
        assert_eq!(other, Err(expected));
    }
}
