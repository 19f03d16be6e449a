//! What the reports of many workers come to.
//!
//! A worker evaluates the release and the one before on the same held-out examples, so what is judged is the mean of
//! *differences*: what is hard for both cancels. Its precision is that of the examples, or of the workers where they
//! differ more than their examples do (the linearized variance of a ratio over clusters: Cochran, Sampling Techniques,
//! 3rd ed., §11), whichever is worse; of one worker alone only the first is known.

use packfed_protocol::Paired;
use serde::{Deserialize, Serialize};

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
}
