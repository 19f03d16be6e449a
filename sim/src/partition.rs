//! How a data set is spread over workers: evenly at random, or unevenly by label.

use packfed_codec::Seed;
use rand_distr::{Distribution, Gamma};
use thiserror::Error;

/// A way to spread examples.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Partition {
    /// Shuffled and dealt out.
    Iid,
    /// For every label, shares drawn from a symmetric Dirichlet distribution (Hsu et al., 2019).
    Dirichlet {
        /// Concentration: small is uneven.
        alpha: f64,
    },
}

/// Why a data set could not be spread.
#[derive(Debug, Clone, PartialEq, Error)]
pub enum PartitionError {
    /// Fewer examples than workers need.
    #[error("{examples} examples cannot give {workers} workers {LEAST} each")]
    TooFew {
        /// Examples there are.
        examples: usize,
        /// Workers there are.
        workers: usize,
    },
    /// The concentration is not usable.
    #[error("Dirichlet concentration is {0}, it must be above 0 and finite")]
    Alpha(f64),
    /// Every draw left some worker with too little.
    #[error(
        "{DRAWS} draws each left a worker with fewer than {LEAST} examples; raise the concentration or lower the number of workers"
    )]
    Starved,
}

/// Least examples of a worker.
const LEAST: usize = 4;
/// Draws before giving up.
const DRAWS: u64 = 500;

impl Partition {
    /// For every worker, the indices of its examples, ascending.
    ///
    /// # Errors
    /// If there are too few examples, or no draw gives every worker enough.
    pub fn split(self, labels: &[u32], workers: usize, seed: &Seed) -> Result<Vec<Vec<usize>>, PartitionError> {
        if workers == 0 || labels.len() < workers * LEAST {
            return Err(PartitionError::TooFew { examples: labels.len(), workers });
        }
        match self {
            Self::Iid => Ok(deal(labels.len(), workers, seed)),
            Self::Dirichlet { alpha } => {
                let gamma = Gamma::new(alpha, 1.0).map_err(|_| PartitionError::Alpha(alpha))?;
                (0..DRAWS)
                    .map(|draw| by_label(labels, workers, gamma, &seed.derive("packfed/partition/1", &[draw])))
                    .find(|shards| shards.iter().all(|shard| shard.len() >= LEAST))
                    .ok_or(PartitionError::Starved)
            }
        }
    }
}

fn deal(examples: usize, workers: usize, seed: &Seed) -> Vec<Vec<usize>> {
    let mut order: Vec<usize> = (0..examples).collect();
    seed.stream().shuffle(&mut order);
    let cut = |worker: usize| worker * examples / workers;
    (0..workers).map(|worker| sorted(order[cut(worker)..cut(worker + 1)].to_vec())).collect()
}

fn by_label(labels: &[u32], workers: usize, gamma: Gamma<f64>, seed: &Seed) -> Vec<Vec<usize>> {
    let mut stream = seed.stream();
    let mut shards = vec![Vec::new(); workers];
    for label in 0..=labels.iter().copied().max().unwrap_or(0) {
        let mut own: Vec<usize> = (0..labels.len()).filter(|&i| labels[i] == label).collect();
        stream.shuffle(&mut own);
        let shares: Vec<f64> = (0..workers).map(|_| gamma.sample(&mut stream)).collect();
        let total: f64 = shares.iter().sum();
        let (mut sum, mut start) = (0.0, 0);
        for (shard, share) in shards.iter_mut().zip(&shares) {
            sum += share;
            #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a share of a count")]
            let end = ((sum / total * own.len() as f64).round() as usize).clamp(start, own.len());
            shard.extend_from_slice(&own[start..end]);
            start = end;
        }
        if let Some(last) = shards.last_mut() {
            last.extend_from_slice(&own[start..]);
        }
    }
    shards.into_iter().map(sorted).collect()
}

fn sorted(mut indices: Vec<usize>) -> Vec<usize> {
    indices.sort_unstable();
    indices
}

#[cfg(test)]
mod tests {
    use super::*;

    fn labels() -> Vec<u32> {
        (0..4_000).map(|n| n % 10).collect()
    }

    /// Mean over workers of the share of their most frequent label.
    fn skew(shards: &[Vec<usize>]) -> f64 {
        let top = |shard: &Vec<usize>| {
            let counts = (0..10).map(|c| shard.iter().filter(|&&i| i % 10 == c).count());
            counts.max().unwrap() as f64 / shard.len() as f64
        };
        shards.iter().map(top).sum::<f64>() / shards.len() as f64
    }

    #[test]
    fn every_example_goes_to_exactly_one_worker() {
        for partition in [Partition::Iid, Partition::Dirichlet { alpha: 0.3 }] {
            let shards = partition.split(&labels(), 50, &Seed::from_number(1)).unwrap();
            assert_eq!(shards.len(), 50);
            assert_eq!(sorted(shards.concat()), (0..4_000).collect::<Vec<_>>());
        }
    }

    #[test]
    fn a_small_concentration_is_uneven() {
        let seed = Seed::from_number(1);
        let even = skew(&Partition::Iid.split(&labels(), 50, &seed).unwrap());
        let uneven = skew(&Partition::Dirichlet { alpha: 0.3 }.split(&labels(), 50, &seed).unwrap());
        assert!(even < 0.25 && uneven > 0.35, "{even} {uneven}");
    }

    #[test]
    fn what_cannot_be_split_is_an_error() {
        let seed = Seed::from_number(1);
        assert!(matches!(Partition::Iid.split(&[0; 7], 2, &seed), Err(PartitionError::TooFew { .. })));
        let bad = Partition::Dirichlet { alpha: -1.0 }.split(&labels(), 2, &seed);
        assert_eq!(bad, Err(PartitionError::Alpha(-1.0)));
        let starved = Partition::Dirichlet { alpha: 1e-3 }.split(&labels(), 900, &seed);
        assert_eq!(starved, Err(PartitionError::Starved));
    }
}
