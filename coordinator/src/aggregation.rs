//! The aggregation rule of a plan: how many updates become one delta, and how many of them may lie.
//!
//! ```text
//!                        clip_norm            rule
//!   accepted updates ─────────────► shrunk ─────────► one delta ─► server optimizer
//! ```
//!
//! | rule | counts an update | reads the journal | bears |
//! |---|---|---|---|
//! | mean | by its examples, up to the plan's cap | no: an exact sum in place | nobody who lies |
//! | median | as one | once | fewer than half |
//! | trimmed mean | as one | once | the share that is trimmed at each end |
//! | multi-Krum | as one | twice | `malicious_max` |
//!
//! A claimed number of examples is what a liar is free to choose, so every rule but the mean ignores it. Where
//! updates may lie, what they say about clipping is not believed either: see [`Aggregation::doubts`]. Median and
//! trimmed mean: Yin et al., ICML 2018; Krum: Blanchard et al., NeurIPS 2017; norm clipping: Sun et al., 2019.

mod journal;
mod task;

use packfed_codec::robust::UPDATES_MAX;

use crate::plan::{Phase, PlanError, range};
pub use journal::JournalError;
pub use task::{Aggregated, AggregationError, AggregationTask, Counted};

/// How accepted updates become one delta.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Rule {
    /// The mean, weighted by examples.
    Mean,
    /// One that bears liars.
    Robust(RobustRule),
}

/// A rule that bears liars.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum RobustRule {
    /// The median of every lane.
    Median,
    /// The mean of every lane without its smallest and its largest values.
    TrimmedMean {
        /// The share that is cut off at each end, below a half; of 10 updates 0.2 cuts off 2 and 2.
        trim: f64,
    },
    /// The mean of the updates that lie closest to the others.
    MultiKrum {
        /// Most updates of a round that may lie.
        malicious_max: u32,
        /// Updates that are averaged; `None` takes all but `malicious_max`.
        selected: Option<u32>,
    },
}

/// A rule, and what is done to an update before.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Aggregation {
    /// The rule.
    pub rule: Rule,
    /// The longest that an update may be, in units of an orthonormal coefficient, which is the Frobenius norm of
    /// its delta; a longer one is shrunk to it.
    pub clip_norm: Option<f64>,
}

impl Aggregation {
    /// The mean of updates as they come.
    pub const MEAN: Self = Self { rule: Rule::Mean, clip_norm: None };

    /// Whether every update is taken at its word.
    #[must_use]
    pub const fn is_trusting(&self) -> bool {
        matches!(self, Self { rule: Rule::Mean, clip_norm: None })
    }

    /// Of so many updates, how many are not believed in what they say of themselves.
    #[must_use]
    pub fn doubts(&self, updates: usize) -> usize {
        match self.rule {
            Rule::Mean if self.is_trusting() => 0,
            Rule::Mean => minority(updates),
            Rule::Robust(rule) => rule.bears(updates),
        }
    }

    /// Fewest updates with which the rule keeps what it promises.
    #[must_use]
    pub fn updates_min(&self) -> usize {
        match self.rule {
            Rule::Mean => 1,
            Rule::Robust(rule) => rule.updates_min(),
        }
    }

    /// The rule's name.
    #[must_use]
    pub const fn name(&self) -> &'static str {
        match self.rule {
            Rule::Mean => "mean",
            Rule::Robust(RobustRule::Median) => "median",
            Rule::Robust(RobustRule::TrimmedMean { .. }) => "trimmed-mean",
            Rule::Robust(RobustRule::MultiKrum { .. }) => "multi-krum",
        }
    }

    /// Whether the numbers are within their bounds and a round has enough updates, and not too many.
    pub(crate) fn check(&self, reporting: &Phase) -> Result<(), PlanError> {
        if let Some(norm) = self.clip_norm {
            range("aggregation clip_norm", norm, 1e-9..=1e9)?;
        }
        let Rule::Robust(rule) = self.rule else { return Ok(()) };
        rule.check()?;
        let (goal, most) = (f64::from(reporting.goal), UPDATES_MAX as f64);
        range("reporting goal under a robust aggregation rule", goal, 1.0..=most)?;
        let (needed, min) = (rule.updates_min(), reporting.min as usize);
        if min < needed {
            return Err(PlanError::Cohort { rule: self.name(), why: rule.needs(), min, needed });
        }
        Ok(())
    }
}

impl RobustRule {
    /// Most liars among so many updates that the rule bears.
    #[must_use]
    pub fn bears(&self, updates: usize) -> usize {
        let most = minority(updates);
        match *self {
            Self::Median => most,
            Self::TrimmedMean { trim } => trimmed(trim, updates).min(most),
            Self::MultiKrum { malicious_max, .. } => (malicious_max as usize).min(most),
        }
    }

    fn updates_min(self) -> usize {
        match self {
            // Of two, neither is in the middle.
            Self::Median => 3,
            Self::TrimmedMean { trim } => (1..=UPDATES_MAX).find(|&n| trimmed(trim, n) > 0).unwrap_or(UPDATES_MAX),
            Self::MultiKrum { malicious_max, selected } => {
                let (malicious, selected) = (malicious_max as usize, selected.unwrap_or(0) as usize);
                (2 * malicious + 3).max(malicious + selected)
            }
        }
    }

    /// Where the least number of updates comes from.
    fn needs(self) -> String {
        match self {
            Self::Median => "fewer cannot outvote one liar".to_owned(),
            Self::TrimmedMean { trim } => format!("trim = {trim} cuts nothing off fewer"),
            Self::MultiKrum { malicious_max: f, selected: Some(m) } if m > f + 3 => {
                format!("malicious_max + selected = {f} + {m}")
            }
            Self::MultiKrum { malicious_max: f, .. } => format!("2·malicious_max + 3 with malicious_max = {f}"),
        }
    }

    fn check(self) -> Result<(), PlanError> {
        match self {
            Self::Median => Ok(()),
            Self::TrimmedMean { trim } => range("aggregation trim", trim, TRIM_MIN..=0.499),
            Self::MultiKrum { malicious_max, selected } => {
                let most = (UPDATES_MAX / 2 - 2) as f64;
                range("aggregation malicious_max", f64::from(malicious_max), 0.0..=most)?;
                let most = (UPDATES_MAX - malicious_max as usize) as f64;
                range("aggregation selected", f64::from(selected.unwrap_or(1)), 1.0..=most)
            }
        }
    }
}

/// Fewer than half of so many.
fn minority(updates: usize) -> usize {
    updates.saturating_sub(1) / 2
}

/// The least share that is worth trimming: one update of as many as a rule takes.
const TRIM_MIN: f64 = 1.0 / UPDATES_MAX as f64;

/// How many of `updates` a share of them is, rounded down; a product that is whole but for rounding is whole.
fn trimmed(trim: f64, updates: usize) -> usize {
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a share of a small number")]
    let cut = (trim * updates as f64 + 1e-9).floor() as usize;
    cut
}

#[cfg(test)]
mod tests {
    use super::*;

    fn phase(min: u32) -> Phase {
        Phase { goal: 20, min, timeout_ms: 1 }
    }

    fn robust(rule: RobustRule) -> Aggregation {
        Aggregation { rule: Rule::Robust(rule), clip_norm: None }
    }

    fn error(rule: RobustRule, min: u32) -> String {
        robust(rule).check(&phase(min)).unwrap_err().to_string()
    }

    #[test]
    fn too_few_updates_for_a_rule_are_named_with_what_it_needs() {
        assert_eq!(
            error(RobustRule::Median, 2),
            "reporting min is 2, allowed is 3 or more under aggregation median: fewer cannot outvote one liar"
        );
        assert_eq!(
            error(RobustRule::TrimmedMean { trim: 0.2 }, 4),
            "reporting min is 4, allowed is 5 or more under aggregation trimmed-mean: trim = 0.2 cuts nothing off fewer"
        );
        assert_eq!(
            error(RobustRule::MultiKrum { malicious_max: 2, selected: None }, 6),
            "reporting min is 6, allowed is 7 or more under aggregation multi-krum: \
             2·malicious_max + 3 with malicious_max = 2"
        );
        assert_eq!(
            error(RobustRule::MultiKrum { malicious_max: 2, selected: Some(9) }, 7),
            "reporting min is 7, allowed is 11 or more under aggregation multi-krum: malicious_max + selected = 2 + 9"
        );
        for (rule, min) in [
            (RobustRule::Median, 3),
            (RobustRule::TrimmedMean { trim: 0.2 }, 5),
            (RobustRule::MultiKrum { malicious_max: 2, selected: None }, 7),
        ] {
            assert_eq!(Aggregation { clip_norm: Some(1.0), ..robust(rule) }.check(&phase(min)), Ok(()));
        }
    }

    #[test]
    fn numbers_out_of_bounds_are_named() {
        assert!(
            error(RobustRule::TrimmedMean { trim: 0.5 }, 9).starts_with("aggregation trim is 0.5, allowed is 0.0009")
        );
        assert_eq!(
            error(RobustRule::MultiKrum { malicious_max: 0, selected: Some(0) }, 9),
            "aggregation selected is 0, allowed is 1 to 1024"
        );
        assert_eq!(
            error(RobustRule::MultiKrum { malicious_max: 511, selected: None }, 9),
            "aggregation malicious_max is 511, allowed is 0 to 510"
        );
        let clip = |norm| Aggregation { rule: Rule::Mean, clip_norm: Some(norm) }.check(&phase(1)).unwrap_err();
        assert_eq!(clip(-1.0).to_string(), "aggregation clip_norm is -1, allowed is 0.000000001 to 1000000000");
        assert!(clip(f64::NAN).to_string().starts_with("aggregation clip_norm is NaN"));
        let many = Phase { goal: 2_000, min: 3, timeout_ms: 1 };
        let error = robust(RobustRule::Median).check(&many).unwrap_err();
        assert_eq!(error.to_string(), "reporting goal under a robust aggregation rule is 2000, allowed is 1 to 1024");
    }

    #[test]
    fn a_share_of_updates_is_rounded_down_but_not_by_rounding_errors() {
        assert_eq!([9, 10, 14, 15].map(|n| trimmed(0.2, n)), [1, 2, 2, 3]);
        assert_eq!(trimmed(0.29, 100), 29);
        assert_eq!(robust(RobustRule::TrimmedMean { trim: 0.1 }).doubts(10), 1);
        assert_eq!([4, 5].map(|n| robust(RobustRule::Median).doubts(n)), [1, 2]);
        assert_eq!(robust(RobustRule::MultiKrum { malicious_max: 9, selected: None }).doubts(5), 2);
        assert_eq!(Aggregation::MEAN.doubts(100), 0);
    }
}
