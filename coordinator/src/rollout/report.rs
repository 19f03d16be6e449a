//! What a worker says of a release that it took over, and what the reports of many come to.
//!
//! A worker evaluates the release and the one before on the same held-out examples, so what is judged is the mean of
//! *differences*: what is hard for both cancels. Its precision is that of the examples, or of the workers where they
//! differ more than their examples do (the linearized variance of a ratio over clusters: Cochran, Sampling Techniques,
//! 3rd ed., §11), whichever is worse; of one worker alone only the first is known.

use serde::{Deserialize, Serialize};
use thiserror::Error;

/// What became of a release on a worker.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Outcome {
    /// It runs, and was evaluated beside the one before.
    Evaluated(Evaluation),
    /// The worker went back to the one before by itself, or never left it.
    Failed(Failure),
}

/// Why a worker does not run a release.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Failure {
    /// It could not be fetched whole.
    Download,
    /// Its signature, digest or layout is wrong.
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

/// Why a report is not counted.
#[derive(Clone, Debug, PartialEq, Error)]
pub enum ReportError {
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
    pub fn check(&self, examples_max: u32) -> Result<(), ReportError> {
        if !(1..=examples_max).contains(&self.examples) {
            return Err(ReportError::Examples { found: self.examples, max: examples_max });
        }
        self.loss.check("loss", self.examples, f64::MAX)?;
        self.accuracy.map_or(Ok(()), |accuracy| accuracy.check("accuracy", self.examples, 1.0))?;
        self.latency_ms.map_or(Ok(()), |latency| latency.check("latency", self.examples, f64::MAX))
    }
}

impl Paired {
    fn check(&self, what: &'static str, examples: u32, max: f64) -> Result<(), ReportError> {
        let &Self { before, after, squares } = self;
        let range = 0.0..=max;
        let least = f64::from(examples) * (after - before).powi(2);
        // Cauchy and Schwarz: a mean difference has at least these squares.
        let holds = squares.is_finite() && squares >= least * (1.0 - SLACK) - f64::EPSILON;
        if range.contains(&before) && range.contains(&after) && holds {
            return Ok(());
        }
        Err(ReportError::Figure { what, before, after, squares })
    }
}

/// What sums of squares may have lost to rounding.
const SLACK: f64 = 1e-6;

/// One figure over many workers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Sums {
    workers: u32,
    examples: f64,
    before: f64,
    difference: f64,
    squares: f64,
    /// Over workers: the square of the difference's sum, that times the examples, and the square of these.
    clusters: [f64; 3],
}

impl Sums {
    /// Adds what one worker found.
    pub fn add(&mut self, examples: u32, of: &Paired) {
        let examples = f64::from(examples);
        let difference = examples * (of.after - of.before);
        self.workers += 1;
        self.examples += examples;
        self.before += examples * of.before;
        self.difference += difference;
        self.squares += of.squares;
        let [a, b, c] = &mut self.clusters;
        *a += difference * difference;
        *b += difference * examples;
        *c += examples * examples;
    }

    /// Workers.
    #[must_use]
    pub const fn workers(&self) -> u32 {
        self.workers
    }

    /// Mean of the release before; `None` if nobody reported.
    #[must_use]
    pub fn before(&self) -> Option<f64> {
        (self.examples > 0.0).then(|| self.before / self.examples)
    }

    /// Mean difference, after less before, and its standard error; `None` if nobody reported.
    #[must_use]
    pub fn difference(&self) -> Option<(f64, f64)> {
        if self.examples <= 0.0 {
            return None;
        }
        let mean = self.difference / self.examples;
        let within = (self.squares / self.examples - mean * mean).max(0.0) / (self.examples - 1.0).max(1.0);
        let [a, b, c] = self.clusters;
        let between = match self.workers {
            0 | 1 => 0.0,
            workers => {
                let spread = (a - 2.0 * mean * b + mean * mean * c).max(0.0);
                f64::from(workers) / f64::from(workers - 1) * spread / (self.examples * self.examples)
            }
        };
        Some((mean, within.max(between).sqrt()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn paired(differences: &[f64]) -> Paired {
        let mean = differences.iter().sum::<f64>() / differences.len() as f64;
        Paired { before: 1.0, after: 1.0 + mean, squares: differences.iter().map(|d| d * d).sum() }
    }

    fn sums(workers: &[&[f64]]) -> Sums {
        let mut sums = Sums::default();
        workers.iter().for_each(|of| sums.add(u32::try_from(of.len()).unwrap(), &paired(of)));
        sums
    }

    #[test]
    fn one_workers_precision_is_that_of_its_examples() {
        let (mean, error) = sums(&[&[0.1, 0.3, 0.2, 0.4]]).difference().unwrap();
        assert!((mean - 0.25).abs() < 1e-12);
        // The standard error of the mean of four: their deviation over two.
        let deviation = ((0.15f64.powi(2) + 0.05f64.powi(2)) * 2.0 / 3.0).sqrt();
        assert!((error - deviation / 2.0).abs() < 1e-9, "{error}");
    }

    #[test]
    fn workers_that_differ_more_than_their_examples_make_it_less_precise() {
        let (mean, error) = sums(&[&[0.5; 100], &[0.1; 100], &[0.3; 100]]).difference().unwrap();
        assert!((mean - 0.3).abs() < 1e-12);
        // Of three means 0.5, 0.1 and 0.3.
        assert!((error - 0.2 / 3f64.sqrt()).abs() < 1e-9, "{error}");
    }

    #[test]
    fn a_worker_with_more_examples_counts_for_more() {
        let (mean, _) = sums(&[&[1.0; 30], &[0.0; 10]]).difference().unwrap();
        assert!((mean - 0.75).abs() < 1e-12);
        assert_eq!(sums(&[]).difference(), None);
    }

    #[test]
    fn figures_that_cannot_be_are_refused() {
        let good = Evaluation { examples: 4, loss: paired(&[0.1, 0.2, 0.3, 0.4]), accuracy: None, latency_ms: None };
        assert_eq!(good.check(100), Ok(()));
        assert_eq!(good.check(3), Err(ReportError::Examples { found: 4, max: 3 }));
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
            assert!(matches!(loss(change), Err(ReportError::Figure { what: "loss", .. })));
        }
        let more_than_all = Evaluation { accuracy: Some(Paired { before: 0.5, after: 1.5, squares: 9.0 }), ..good };
        assert!(matches!(more_than_all.check(100), Err(ReportError::Figure { what: "accuracy", .. })));
    }
}
