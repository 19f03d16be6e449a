//! What a run requires of a worker before it may be drawn.

use packfed_protocol::{CheckIn, Conditions, Rejection, RejectionCode};

use crate::plan::{PlanError, range};

/// What a worker has to state; see [`Eligibility::check`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Eligibility {
    /// The state that its machine has to be in.
    pub conditions: Conditions,
    /// Fewest local examples.
    pub examples_min: u32,
    /// Milliseconds between two times that it is drawn.
    pub separation_ms: u64,
}

impl Eligibility {
    /// Everybody is, always.
    pub const ANYBODY: Self = Self { conditions: Conditions::NONE, examples_min: 0, separation_ms: 0 };

    /// Whether what a worker states is enough.
    ///
    /// # Errors
    /// [`RejectionCode::Ineligible`], with the condition that does not hold.
    pub fn check(&self, check_in: &CheckIn) -> Result<(), Rejection> {
        let ineligible = |detail| Err(Rejection::new(RejectionCode::Ineligible, detail));
        if let Some(condition) = check_in.conditions.lacks(self.conditions) {
            let stated = check_in.conditions;
            return ineligible(format!("the run requires {condition}, the worker states {stated}"));
        }
        if check_in.examples < self.examples_min {
            let (has, min) = (check_in.examples, self.examples_min);
            return ineligible(format!("the worker has {has} examples, the run requires {min} or more"));
        }
        Ok(())
    }

    pub(crate) fn check_bounds(&self) -> Result<(), PlanError> {
        range("selection examples_min", f64::from(self.examples_min), 0.0..=f64::from(u32::MAX))?;
        range("selection separation_ms", self.separation_ms as f64, 0.0..=366.0 * 24.0 * 3.6e6)
    }
}

#[cfg(test)]
mod tests {
    use packfed_protocol::{Digest, RunId, Version};

    use super::*;

    #[test]
    fn what_is_missing_is_named_with_what_is_required() {
        let eligibility = Eligibility {
            conditions: Conditions { idle: false, ..Conditions::ALL },
            examples_min: 8,
            separation_ms: 0,
        };
        let of = |conditions, examples| {
            let (run, version, digest) = (RunId([1; 16]), Version(0), Digest([0; 32]));
            let check_in = CheckIn { run, version, digest, examples, conditions, planned: true };
            eligibility.check(&check_in).map_err(|rejection| rejection.to_string())
        };
        let busy = Conditions { idle: false, ..Conditions::ALL };
        assert_eq!((of(Conditions::ALL, 8), of(busy, 9)), (Ok(()), Ok(())));
        let metered = "ineligible: the run requires unmetered, the worker states charging";
        assert_eq!(of(Conditions { unmetered: false, ..busy }, 8).unwrap_err(), metered);
        let few = "ineligible: the worker has 7 examples, the run requires 8 or more";
        assert_eq!(of(Conditions::ALL, 7).unwrap_err(), few);
    }
}
