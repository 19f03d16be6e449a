//! A batch of token ids, sequences end to end.

use candle_core::{Result, bail};

use crate::nn::sequences::Sequences;

/// A batch of sequences; none is padded.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tokens {
    ids: Vec<u32>,
    sequences: Sequences,
}

impl Tokens {
    /// The batch of these sequences.
    #[must_use]
    pub fn new<T: AsRef<[u32]>>(sequences: &[T]) -> Self {
        let lengths: Vec<usize> = sequences.iter().map(|ids| ids.as_ref().len()).collect();
        let ids = sequences.iter().flat_map(|ids| ids.as_ref()).copied().collect();
        Self { ids, sequences: Sequences::new(&lengths) }
    }

    /// All ids, sequence after sequence.
    #[must_use]
    pub fn ids(&self) -> &[u32] {
        &self.ids
    }

    /// Where each sequence is.
    #[must_use]
    pub const fn sequences(&self) -> &Sequences {
        &self.sequences
    }

    /// For every token the one after it in its sequence: the targets of language modelling.
    #[must_use]
    pub fn next(&self) -> Vec<Option<u32>> {
        let after = |range: std::ops::Range<usize>| {
            let end = range.end;
            range.map(move |at| (at + 1 < end).then(|| self.ids[at + 1]))
        };
        self.sequences.iter().flat_map(after).collect()
    }

    /// That no sequence is longer than the model's positions, and that there is a token.
    pub(crate) fn check(&self, positions: usize) -> Result<()> {
        if self.ids.is_empty() {
            bail!("a batch without a token");
        }
        match self.sequences.iter().enumerate().find(|(_, range)| range.len() > positions) {
            Some((n, range)) => bail!("sequence {n} has {} tokens, the model takes {positions}", range.len()),
            None => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_token_of_a_sequence_has_no_next() {
        let tokens = Tokens::new(&[vec![5, 6, 7], vec![8], vec![9, 1]]);
        assert_eq!(tokens.next(), [Some(6), Some(7), None, None, Some(1), None]);
    }

    #[test]
    fn a_sequence_that_is_too_long_is_an_error() {
        let error = Tokens::new(&[vec![1], vec![1, 2, 3]]).check(2).unwrap_err().to_string();
        assert!(error.contains("sequence 1 has 3 tokens, the model takes 2"), "{error}");
        assert!(Tokens::new::<Vec<u32>>(&[]).check(2).is_err());
    }
}
