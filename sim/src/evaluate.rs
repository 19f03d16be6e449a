//! Accuracy on the test set, on several threads.

use packfed_worker::examples::Examples;
use packfed_worker::mlp::Mlp;

use crate::digits::Labelled;
use crate::parallel;

/// A test set, cut into one part a thread.
#[derive(Clone, Debug)]
pub struct TestSet {
    parts: Vec<Examples>,
}

impl TestSet {
    /// Cuts a test set for a number of threads.
    ///
    /// # Panics
    /// If the set is empty.
    #[must_use]
    pub fn new(test: &Labelled, threads: usize) -> Self {
        let count = test.labels.len();
        let size = count.div_ceil(threads.max(1)).max(1);
        let part = |start: usize| {
            let part = test.pick(&(start..(start + size).min(count)).collect::<Vec<_>>());
            Examples::from_images(&part.images, &part.labels).expect("a part of a valid set is valid")
        };
        Self { parts: (0..count).step_by(size).map(part).collect() }
    }

    /// Share of the test set that a model labels rightly.
    #[must_use]
    pub fn accuracy(&self, model: &Mlp) -> f64 {
        let scores =
            parallel::map(&self.parts, self.parts.len(), |part| model.score(part).accuracy * part.len() as f64);
        scores.iter().sum::<f64>() / self.parts.iter().map(Examples::len).sum::<usize>() as f64
    }
}
