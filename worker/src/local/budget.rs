//! How a step fits into a budget of memory: cut into micro-batches, or with activations computed twice.
//!
//! It reckons with what a task estimates; it measures nothing and knows no model.

use thiserror::Error;

use crate::model::Activations;

/// What training takes, in bytes, as its task estimates it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MemoryNeed {
    /// However a step is cut: model, variables, gradients, optimizer state, data.
    pub fixed: u64,
    /// For every example that is in the model at once, with its activations kept.
    pub kept: u64,
    /// The same with activations recomputed, where the model can do that.
    pub recomputed: Option<u64>,
}

/// How a step is done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MemoryFit {
    /// Most examples that are in the model at once.
    pub micro_batch: u32,
    /// What becomes of activations between forward and backward pass.
    pub activations: Activations,
}

/// Not even one example fits.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[error("the memory budget is {budget} bytes, training takes at least {least}: {fixed} and one example")]
pub struct MemoryError {
    /// The budget in bytes.
    pub budget: u64,
    /// The least that would do.
    pub least: u64,
    /// The part that no cut makes smaller.
    pub fixed: u64,
}

impl MemoryNeed {
    /// The cheapest way to do a step of `batch` examples in `budget` bytes; without a budget, all at once.
    ///
    /// Cutting costs next to nothing and recomputing a third of a step, so activations are kept as long as one example
    /// fits. Micro-batches are as few as fit, and then as even as can be.
    ///
    /// # Errors
    /// If one example does not fit.
    pub fn fit(&self, batch: u32, budget: Option<u64>) -> Result<MemoryFit, MemoryError> {
        let Some(budget) = budget else {
            return Ok(MemoryFit { micro_batch: batch, activations: Activations::Kept });
        };
        let room = budget.checked_sub(self.fixed);
        let fit = |example: u64, activations| {
            let most = u32::try_from(room? / example.max(1)).unwrap_or(u32::MAX).min(batch);
            let parts = (most > 0).then(|| batch.div_ceil(most))?;
            Some(MemoryFit { micro_batch: batch.div_ceil(parts), activations })
        };
        let recomputed = || fit(self.recomputed?, Activations::Recomputed);
        fit(self.kept, Activations::Kept).or_else(recomputed).ok_or_else(|| {
            let example = self.recomputed.map_or(self.kept, |recomputed| recomputed.min(self.kept));
            MemoryError { budget, least: self.fixed.saturating_add(example), fixed: self.fixed }
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NEED: MemoryNeed = MemoryNeed { fixed: 1_000, kept: 100, recomputed: Some(30) };

    fn fit(budget: u64) -> (u32, Activations) {
        let MemoryFit { micro_batch, activations } = NEED.fit(32, Some(budget)).unwrap();
        (micro_batch, activations)
    }

    #[test]
    fn a_batch_that_fits_is_not_cut_and_one_that_does_not_is_cut_evenly() {
        assert_eq!(NEED.fit(32, None).unwrap().micro_batch, 32);
        assert_eq!(fit(u64::MAX), (32, Activations::Kept));
        assert_eq!(fit(4_200), (32, Activations::Kept));
        assert_eq!(fit(4_199), (16, Activations::Kept), "two of 16, not 31 and one");
        assert_eq!(fit(2_200), (11, Activations::Kept), "three parts of at most 12");
        assert_eq!(fit(1_100), (1, Activations::Kept));
    }

    #[test]
    fn activations_are_recomputed_only_where_one_example_does_not_fit_else() {
        assert_eq!(fit(1_099), (3, Activations::Recomputed));
        assert_eq!(fit(1_030), (1, Activations::Recomputed));
    }

    #[test]
    fn every_fit_is_within_its_budget_and_the_least_need_is_enough() {
        for budget in 900..4_300 {
            match NEED.fit(32, Some(budget)) {
                Ok(fit) => {
                    let example = if fit.activations == Activations::Kept { 100 } else { 30 };
                    assert!(fit.micro_batch > 0 && 1_000 + u64::from(fit.micro_batch) * example <= budget);
                }
                Err(error) => {
                    assert_eq!(error, MemoryError { budget, least: 1_030, fixed: 1_000 });
                    assert!(budget < error.least && NEED.fit(32, Some(error.least)).is_ok());
                }
            }
        }
        let error = MemoryNeed { recomputed: None, ..NEED }.fit(32, Some(1_099)).unwrap_err();
        let said = "the memory budget is 1099 bytes, training takes at least 1100: 1000 and one example";
        assert_eq!(error.to_string(), said);
    }
}
