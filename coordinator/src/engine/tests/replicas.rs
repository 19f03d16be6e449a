//! What a worker is sent so that its replica is the head. That what it is sent applies and leads to the
//! head's digest, the fleet checks at every delivery.

use packfed_codec::State;
use packfed_protocol::Version;

use super::fleet::Fleet;
use crate::event::Event;

/// Four workers with the model of version 1; then the first was away while the others committed some rounds
/// more, and they are waiting for it now.
fn away_for(rounds: u64, history: u32) -> Fleet {
    let mut fleet = Fleet::of(4, |raw| {
        raw.rounds = 20;
        raw.history = history;
    });
    fleet.whole_round();
    fleet.check_in_all(0..4);
    for i in 0..4 {
        fleet.report(i);
    }
    for _ in 1..rounds {
        fleet.check_in_all(1..4);
        let selection_ends = fleet.engine.deadline().unwrap().0;
        fleet.tick_to(selection_ends);
        for i in 1..4 {
            fleet.report(i);
        }
    }
    fleet.check_in_all(1..4);
    assert_eq!((fleet.engine.head().version(), fleet.workers[0].version), (1 + rounds, 1));
    fleet
}

#[test]
fn a_replica_that_missed_some_rounds_gets_exactly_those() {
    for missed in 1..=4 {
        let mut fleet = away_for(missed, 4);
        let told = fleet.check_in(0);
        assert_eq!(told[1], format!("send 0 catch-up 1 to {}", 1 + missed));
        assert_eq!(told[2], format!("send 0 assignment {}", 2 + missed));
    }
}

#[test]
fn a_replica_older_than_what_is_remembered_starts_anew() {
    assert_eq!(away_for(4, 4).check_in(0)[1], "send 0 catch-up 1 to 5");
    assert_eq!(away_for(4, 3).check_in(0)[1], "send 0 catch-up 0 to 5");
}

#[test]
fn a_replica_that_waits_while_rounds_pass_is_caught_up_from_where_it_was() {
    let catch_ups = |history: u32| {
        let mut fleet = Fleet::of(4, |raw| {
            raw.rounds = 9;
            raw.reporting.goal = 2;
            raw.history = history;
        });
        fleet.check_in_all(0..4);
        let mut told = Vec::new();
        while !fleet.engine.finished() {
            let drawn = fleet.drawn();
            let reports: Vec<_> = drawn.iter().flat_map(|&i| fleet.report(i)).collect();
            let check_ins = drawn.iter().flat_map(|&i| fleet.check_in(i));
            told.extend(reports.into_iter().chain(check_ins));
        }
        told.retain(|line| line.contains("catch-up"));
        told
    };
    let (long, short) = (catch_ups(9), catch_ups(1));
    assert!(long.contains(&"send 0 catch-up 1 to 7".into()), "{long:?}");
    assert!(short.contains(&"send 0 catch-up 0 to 7".into()), "{short:?}");
}

#[test]
fn a_replica_with_another_digest_starts_anew() {
    let mut fleet = away_for(2, 8);
    fleet.workers[0].version = 2;
    assert_eq!(fleet.check_in(0)[1], "send 0 catch-up 0 to 3", "the model of version 1 under the number 2");
}

#[test]
fn a_replica_of_the_current_version_with_another_digest_starts_anew() {
    let mut fleet = Fleet::of(3, |_| {});
    fleet.whole_round();
    fleet.workers[0].version = 1;
    assert_eq!(fleet.workers[0].replica, State::zero(fleet.engine.plan().layout().clone()));
    fleet.check_in_all([1, 2]);
    assert_eq!(fleet.check_in(0)[1], "send 0 catch-up 0 to 1");
}

#[test]
fn a_replica_from_the_future_starts_anew() {
    for version in [4, u64::MAX] {
        let mut fleet = away_for(2, 8);
        let check_in = packfed_protocol::CheckIn { version: Version(version), ..fleet.check_in_of(0) };
        let worker = fleet.id(0);
        assert_eq!(fleet.handle(Event::CheckIn { worker, check_in })[1], "send 0 catch-up 0 to 3");
    }
}
