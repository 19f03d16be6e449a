//! Batches without end: pass after pass, each shuffled anew, with texts of like length together.
//!
//! A batch of like lengths keeps the attention kernels evenly busy, and pads little on devices that pad; here
//! sequences lie end to end. A pass is shuffled and cut into pools of a few batches; a pool is sorted by length and
//! cut into batches, and the batches of a pass are shuffled. All of it follows from the seed and the lengths.

use packfed_codec::{Seed, Stream};

/// Batches that one pool is sorted over: more are more alike in length and mix less.
const POOL_BATCHES: usize = 16;

/// The order in which examples are shown.
#[derive(Clone)]
pub struct Batches {
    stream: Stream,
    lengths: Vec<usize>,
    size: usize,
    /// Batches of this pass that are still to come, last first.
    pass: Vec<Vec<usize>>,
}

impl Batches {
    /// Batches of at most `size` of the examples with these lengths. A pass shows every example once, in as few
    /// batches as that takes, whose sizes differ by at most one.
    ///
    /// # Panics
    /// If there are no examples or `size` is 0.
    #[must_use]
    pub fn new(seed: &Seed, lengths: Vec<usize>, size: usize) -> Self {
        assert!(!lengths.is_empty() && size > 0, "batches of at least one of at least one example");
        Self { stream: seed.stream(), lengths, size, pass: Vec::new() }
    }

    /// Batches of one pass.
    #[must_use]
    pub fn per_pass(&self) -> usize {
        self.lengths.len().div_ceil(self.size)
    }

    /// Examples of the next batch, by index.
    pub fn next_indices(&mut self) -> Vec<usize> {
        loop {
            match self.pass.pop() {
                Some(batch) => return batch,
                None => self.refill(),
            }
        }
    }

    fn refill(&mut self) {
        let mut order: Vec<usize> = (0..self.lengths.len()).collect();
        self.stream.shuffle(&mut order);
        let mut left = self.per_pass();
        let mut rest = order.as_mut_slice();
        while left > 0 {
            let batches = left.min(POOL_BATCHES);
            // As large a share of what is left as its batches are of those left, so that sizes stay even.
            let (pool, after) = rest.split_at_mut(even_end(rest.len(), left, batches));
            // The order of arrival decides between equal lengths, so the sort must keep it.
            pool.sort_by_key(|&example| self.lengths[example]);
            let ends = (0..=batches).map(|n| even_end(pool.len(), batches, n)).collect::<Vec<_>>();
            self.pass.extend(ends.windows(2).map(|ends| pool[ends[0]..ends[1]].to_vec()));
            (rest, left) = (after, left - batches);
        }
        self.stream.shuffle(&mut self.pass);
    }
}

/// Where the first `n` of `parts` even parts of `length` things end.
const fn even_end(length: usize, parts: usize, n: usize) -> usize {
    length / parts * n + (length % parts * n) / parts
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lengths(n: usize) -> Vec<usize> {
        let mut stream = Seed::from_number(9).stream();
        (0..n).map(|_| 1 + stream.index(100)).collect()
    }

    #[test]
    fn a_pass_shows_every_example_once_in_even_batches() {
        for (n, size) in [(1, 1), (1, 8), (5, 8), (10, 3), (257, 16), (1_000, 32), (1_000, 7)] {
            let mut batches = Batches::new(&Seed::from_number(1), lengths(n), size);
            for pass in 0..3 {
                let shown: Vec<_> = (0..batches.per_pass()).map(|_| batches.next_indices()).collect();
                let sizes = shown.iter().map(Vec::len);
                let (least, most) = (sizes.clone().min().unwrap(), sizes.max().unwrap());
                assert!(most <= size && most - least <= 1 && least > 0, "{n} by {size}: {least} to {most}");
                let mut all = shown.concat();
                all.sort_unstable();
                assert_eq!(all, (0..n).collect::<Vec<_>>(), "{n} by {size}, pass {pass}");
            }
        }
    }

    #[test]
    fn the_order_follows_from_the_seed_alone() {
        let order = |seed| {
            let mut batches = Batches::new(&Seed::from_number(seed), lengths(300), 16);
            (0..60).map(|_| batches.next_indices()).collect::<Vec<_>>()
        };
        assert_eq!(order(1), order(1));
        assert_ne!(order(1), order(2));
        assert_ne!(order(1)[..19], order(1)[19..38], "passes differ");
    }

    #[test]
    fn texts_of_like_length_share_a_batch_and_short_ones_do_not_come_first() {
        let lengths = lengths(1_024);
        let mut batches = Batches::new(&Seed::from_number(1), lengths.clone(), 16);
        let shown: Vec<_> = (0..batches.per_pass()).map(|_| batches.next_indices()).collect();
        let longest = |batch: &Vec<usize>| batch.iter().map(|&i| lengths[i]).max().unwrap();
        let padded: usize = shown.iter().map(|batch| batch.len() * longest(batch)).sum();
        let tokens: usize = lengths.iter().sum();
        assert!(padded * 100 < tokens * 115, "{padded} positions for {tokens} tokens");
        let firsts: usize = shown[..32].iter().map(longest).sum();
        let lasts: usize = shown[32..].iter().map(longest).sum();
        assert!(firsts.abs_diff(lasts) * 5 < firsts, "{firsts} {lasts}");
    }
}
