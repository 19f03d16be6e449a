//! What a worker found of a release: figures of it and of the one before on the same held-out examples, or a failure.
//!
//! Figures are paired, example by example, so that what differs between workers does not blur what differs between
//! releases. That they can be so is checked here; what they mean for a rollout is not known here.

use serde::{Deserialize, Serialize};
use thiserror::Error;

/// What became of a release on a worker.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum ReleaseOutcome {
    /// It runs, and was evaluated beside the one before.
    Evaluated(Evaluation),
    /// It runs and is in good health, on a worker without held-out examples.
    Healthy,
    /// The worker went back to the one before by itself, or never left it.
    Failed(Failure),
}

/// Why a worker does not run a release.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Failure {
    /// It could not be fetched whole.
    Download,
    /// Its signature, number, digest, base or layout is wrong.
    Verify,
    /// It ended the process, or its own health check does not hold.
    Crash,
}

/// Figures of a release and the one before, on the same examples.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Evaluation {
    /// Held-out examples.
    pub examples: u32,
    /// Cross-entropy, in nats.
    pub loss: Paired,
    /// Share that is right, where that is a question.
    pub accuracy: Option<Paired>,
    /// Milliseconds an example.
    pub latency_ms: Option<Paired>,
}

/// One figure before and after.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Paired {
    /// Mean of the release before.
    pub before: f64,
    /// Mean of the release.
    pub after: f64,
    /// Sum over the examples of the squared differences.
    pub squares: f64,
}

/// Why figures are not counted.
#[derive(Clone, Debug, PartialEq, Error)]
pub enum EvaluationError {
    /// Too few or too many examples.
    #[error("the evaluation is of {found} examples, allowed are 1 to {max}")]
    Examples {
        /// As claimed.
        found: u32,
        /// Most that count.
        max: u32,
    },
    /// A number that is none, or out of its range.
    #[error("{what} is {before} before and {after} after, with squares of {squares}: that cannot be")]
    Figure {
        /// Which.
        what: &'static str,
        /// As claimed.
        before: f64,
        /// As claimed.
        after: f64,
        /// As claimed.
        squares: f64,
    },
}

impl Evaluation {
    /// Checks that the figures can be those of so many examples.
    ///
    /// # Errors
    /// What cannot be.
    pub fn check(&self, examples_max: u32) -> Result<(), EvaluationError> {
        if !(1..=examples_max).contains(&self.examples) {
            return Err(EvaluationError::Examples { found: self.examples, max: examples_max });
        }
        self.loss.check("loss", self.examples, f64::MAX)?;
        self.accuracy.map_or(Ok(()), |accuracy| accuracy.check("accuracy", self.examples, 1.0))?;
        self.latency_ms.map_or(Ok(()), |latency| latency.check("latency", self.examples, f64::MAX))
    }
}

impl Paired {
    /// The figures of examples, each before and after; `None` of no example.
    #[must_use]
    pub fn of(examples: &[(f64, f64)]) -> Option<Paired> {
        let count = examples.len() as f64;
        let mean = |of: fn(&(f64, f64)) -> f64| examples.iter().map(of).sum::<f64>() / count;
        let squares = examples.iter().map(|(before, after)| (after - before).powi(2)).sum();
        (!examples.is_empty()).then(|| Paired { before: mean(|of| of.0), after: mean(|of| of.1), squares })
    }

    fn check(&self, what: &'static str, examples: u32, max: f64) -> Result<(), EvaluationError> {
        let &Self { before, after, squares } = self;
        let range = 0.0..=max;
        let least = f64::from(examples) * (after - before).powi(2);
        // Cauchy and Schwarz: a mean difference has at least these squares.
        let holds = squares.is_finite() && squares >= least * (1.0 - SLACK) - SLACK * SLACK;
        if range.contains(&before) && range.contains(&after) && holds {
            return Ok(());
        }
        Err(EvaluationError::Figure { what, before, after, squares })
    }
}

/// What sums of squares may have lost to rounding.
const SLACK: f64 = 1e-6;

#[cfg(test)]
mod tests {
    use super::*;

    fn paired(differences: &[f64]) -> Paired {
        let pairs: Vec<_> = differences.iter().map(|difference| (1.0, 1.0 + difference)).collect();
        Paired::of(&pairs).unwrap()
    }

    #[test]
    fn figures_that_cannot_be_are_refused() {
        let good = Evaluation { examples: 4, loss: paired(&[0.1, 0.2, 0.3, 0.4]), accuracy: None, latency_ms: None };
        assert_eq!(good.check(100), Ok(()));
        assert_eq!(good.check(3), Err(EvaluationError::Examples { found: 4, max: 3 }));
        let loss = |change: fn(&mut Paired)| {
            let mut bad = good;
            change(&mut bad.loss);
            bad.check(100)
        };
        for change in [
            |loss: &mut Paired| loss.squares = 0.0,
            |loss: &mut Paired| loss.squares = f64::NAN,
            |loss: &mut Paired| loss.after = f64::INFINITY,
            |loss: &mut Paired| loss.before = -1.0,
        ] {
            assert!(matches!(loss(change), Err(EvaluationError::Figure { what: "loss", .. })));
        }
        let more_than_all = Evaluation { accuracy: Some(Paired { before: 0.5, after: 1.5, squares: 9.0 }), ..good };
        assert!(matches!(more_than_all.check(100), Err(EvaluationError::Figure { what: "accuracy", .. })));
    }

    #[test]
    fn what_examples_come_to_can_be() {
        let figures = Paired::of(&[(0.7, 0.2), (0.1, 0.1), (1.5, 3.0)]).unwrap();
        let evaluation = Evaluation { examples: 3, loss: figures, accuracy: None, latency_ms: Some(figures) };
        assert_eq!(evaluation.check(3), Ok(()));
        let same = Evaluation { loss: Paired::of(&[(0.3, 0.3); 3]).unwrap(), ..evaluation };
        assert_eq!((same.check(3), same.loss.squares), (Ok(()), 0.0));
        assert_eq!(Paired::of(&[]), None);
    }
}
