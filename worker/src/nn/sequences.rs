//! Where each sequence of a batch begins: sequences lie end to end, so no token is padding.

use std::ops::Range;

/// The lengths of a batch's sequences, as offsets into its tokens.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Sequences {
    /// Ascending, one more than there are sequences, the first 0.
    ends: Vec<usize>,
}

impl Sequences {
    /// Sequences of these lengths.
    #[must_use]
    pub fn new(lengths: &[usize]) -> Self {
        let mut ends = vec![0];
        for &length in lengths {
            ends.push(ends[ends.len() - 1] + length);
        }
        Self { ends }
    }

    /// Number of sequences.
    #[must_use]
    pub fn len(&self) -> usize {
        self.ends.len() - 1
    }

    /// Whether there is no sequence.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Tokens of all sequences together.
    #[must_use]
    pub fn tokens(&self) -> usize {
        self.ends[self.ends.len() - 1]
    }

    /// The tokens of sequence `n`.
    ///
    /// # Panics
    /// If there is no such sequence.
    #[must_use]
    pub fn range(&self, n: usize) -> Range<usize> {
        self.ends[n]..self.ends[n + 1]
    }

    /// The tokens of every sequence, first to last.
    pub fn iter(&self) -> impl Iterator<Item = Range<usize>> + '_ {
        self.ends.windows(2).map(|pair| pair[0]..pair[1])
    }

    /// Every token's place in its sequence, from 0.
    pub fn positions(&self) -> impl Iterator<Item = usize> + '_ {
        self.iter().flat_map(|range| 0..range.len())
    }
}
