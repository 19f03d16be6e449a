//! Who lies closest to the others: the scores of Krum (Blanchard et al., NeurIPS 2017).

use super::Distances;

impl Distances {
    /// The score of every update: the sum of its squared distances to the `n − malicious − 2` nearest others, in units
    /// of a squared quantum.
    #[must_use]
    pub fn scores(&self, malicious: usize) -> Vec<u128> {
        let nearest = self.updates().saturating_sub(malicious.saturating_add(2));
        let score = |update: usize| {
            let others = (0..self.updates()).filter(|&other| other != update);
            let mut squared: Vec<u128> = others.map(|other| self.squared(update, other)).collect();
            squared.sort_unstable();
            squared.iter().take(nearest).sum()
        };
        (0..self.updates()).map(score).collect()
    }

    /// The numbers of the `selected` updates with the least scores, ascending; of two equal scores the update with the
    /// smaller number comes first.
    #[must_use]
    pub fn closest(&self, malicious: usize, selected: usize) -> Vec<usize> {
        let scores = self.scores(malicious);
        let mut numbers: Vec<usize> = (0..self.updates()).collect();
        numbers.sort_by_key(|&number| (scores[number], number));
        numbers.truncate(selected);
        numbers.sort_unstable();
        numbers
    }
}
