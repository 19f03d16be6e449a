//! Who is in a stage: a hash of release and worker against a threshold that stands for the stage's share.
//!
//! A worker's place does not depend on the stage, so who is in a stage is in every larger one, and nobody moves when
//! workers come or go. It depends on the release, so that not always the same ones go first. A threshold is set when its
//! stage begins: as many of those who are enrolled then are below it as the share comes to, one at least. A share of a
//! small fleet is so what it says, where a hash against the bare share might find nobody.

use packfed_protocol::{Digest, WorkerId};

/// The share of everybody, in millionths.
pub const WHOLE: u32 = 1_000_000;

/// Where a worker stands among all.
#[must_use]
pub fn place(release: &Digest, worker: &WorkerId) -> u64 {
    let mut hasher = blake3::Hasher::new_derive_key("packfed/rollout/1");
    hasher.update(&release.0);
    hasher.update(&worker.0);
    let mut number = [0; 8];
    number.copy_from_slice(&hasher.finalize().as_bytes()[..8]);
    u64::from_le_bytes(number)
}

/// The last place within a share, in millionths, of workers with these places.
pub(super) fn threshold(share: u32, mut places: Vec<u64>) -> u64 {
    if share >= WHOLE {
        return u64::MAX;
    }
    let count = (places.len() as u64 * u64::from(share)).div_ceil(u64::from(WHOLE));
    let Some(last) = usize::try_from(count).ok().and_then(|count| count.checked_sub(1)) else {
        // Nobody is there yet; who comes is measured by the share itself.
        return (u64::MAX / u64::from(WHOLE)) * u64::from(share);
    };
    *places.select_nth_unstable(last).1
}

#[cfg(test)]
mod tests {
    use super::*;

    fn worker(n: u32) -> WorkerId {
        let mut key = [0; 32];
        key[..4].copy_from_slice(&n.to_le_bytes());
        WorkerId(key)
    }

    fn places(release: u8, workers: std::ops::Range<u32>) -> Vec<u64> {
        workers.map(|n| place(&Digest([release; 32]), &worker(n))).collect()
    }

    fn within(threshold: u64, places: &[u64]) -> usize {
        places.iter().filter(|place| **place <= threshold).count()
    }

    #[test]
    fn a_share_is_what_it_says_and_one_worker_at_least() {
        for release in 0..20 {
            let places = places(release, 0..20);
            let counts =
                [1, 50_000, 250_000, 500_000, WHOLE].map(|share| within(threshold(share, places.clone()), &places));
            assert_eq!(counts, [1, 1, 5, 10, 20]);
        }
    }

    #[test]
    fn workers_that_come_later_are_taken_in_by_the_same_share() {
        let (there, later) = (places(1, 0..50_000), places(1, 50_000..150_000));
        for share in [10_000, 50_000, 250_000, 500_000] {
            let found = within(threshold(share, there.clone()), &later) as f64 / 1e5;
            let asked = f64::from(share) / f64::from(WHOLE);
            assert!((found - asked).abs() < 0.01, "{found} of {asked}");
        }
        assert_eq!(within(threshold(250_000, Vec::new()), &later) / 1000, 25);
    }

    #[test]
    fn another_release_begins_with_others() {
        let first = |release| {
            let places = places(release, 0..10_000);
            let last = threshold(WHOLE / 10, places.clone());
            places.into_iter().map(move |place| place <= last)
        };
        let both = first(1).zip(first(2)).filter(|(one, other)| *one && *other).count();
        assert!((50..200).contains(&both), "{both} of 1,000 come first twice");
    }
}
