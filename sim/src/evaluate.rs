//! Accuracy and loss on the test set, on several threads.

use packfed_worker::examples::Examples;
use packfed_worker::mlp::Mlp;

use crate::digits::Labelled;
use crate::parallel;
use crate::results::Score;

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

    /// How a model does on the test set.
    #[must_use]
    pub fn score(&self, model: &Mlp) -> Score {
        let scores = parallel::map(&self.parts, self.parts.len(), |part| (model.score(part), part.len() as f64));
        let mut whole = Score::default();
        let total: f64 = scores.iter().map(|(_, count)| count).sum();
        for (part, count) in scores {
            whole.accuracy += part.accuracy * count;
            whole.loss += part.loss * count;
        }
        Score { accuracy: whole.accuracy / total, loss: whole.loss / total }
    }
}
