//! Who is drawn for a round: a seeded order of keys, so that arrival order has no say.

use packfed_codec::Seed;
use packfed_protocol::{Round, WorkerId};

/// The `size` workers of a round, ascending by key; all of them if there are no more.
///
/// Every key gets a hash of (run seed, round, key) and the smallest are drawn: a uniform sample that
/// depends on the set of keys alone.
#[must_use]
pub fn draw(seed: &Seed, round: Round, available: impl Iterator<Item = WorkerId>, size: usize) -> Vec<WorkerId> {
    let round_seed = seed.derive("packfed/cohort/1", &[round.0]);
    let mut ranked: Vec<_> = available.map(|w| (round_seed.derive_for_key("packfed/member/1", &w.0), w)).collect();
    ranked.sort_unstable();
    let mut drawn: Vec<WorkerId> = ranked.into_iter().take(size).map(|(_, worker)| worker).collect();
    drawn.sort_unstable();
    drawn
}

#[cfg(test)]
mod tests {
    use super::*;

    fn workers() -> Vec<WorkerId> {
        (0..20).map(|n| WorkerId([n; 32])).collect()
    }

    #[test]
    fn the_order_of_arrival_has_no_say() {
        let seed = Seed::from_number(1);
        let forward = draw(&seed, Round(3), workers().into_iter(), 6);
        let backward = draw(&seed, Round(3), workers().into_iter().rev(), 6);
        assert_eq!(forward, backward);
        assert_eq!(forward.len(), 6);
    }

    #[test]
    fn every_worker_gets_its_turns() {
        let mut turns = [0; 20];
        for round in 0..500 {
            for worker in draw(&Seed::from_number(1), Round(round), workers().into_iter(), 5) {
                turns[usize::from(worker.0[0])] += 1;
            }
        }
        assert!(turns.iter().all(|&n| (85..165).contains(&n)), "{turns:?}");
    }
}
