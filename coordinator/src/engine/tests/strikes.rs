//! What counts against a worker, and what the operator says of one.

use packfed_protocol::{Rejection, RejectionCode, Timestamp};

use super::fleet::{Fleet, unreadable};
use crate::event::Event;
use crate::registry::{FOREVER, Standing};

/// Three workers in an open round.
fn opened() -> Fleet {
    let mut fleet = Fleet::of(3, |_| {});
    fleet.check_in_all(0..3);
    fleet
}

fn forge(fleet: &mut Fleet, i: usize) -> Vec<String> {
    let (worker, arrived) = (fleet.id(i), fleet.engine.counters().arrived);
    fleet.handle(unreadable(worker, arrived))
}

#[test]
fn three_forged_updates_suspend_a_worker_for_its_time() {
    let mut fleet = opened();
    let struck = ["store members 1", "verdict rejected bad-signature"];
    for _ in 0..2 {
        assert_eq!(forge(&mut fleet, 1), struck, "stored before it is told");
    }
    assert_eq!(forge(&mut fleet, 1), [struck[0], "store open 1", struck[1]], "nobody waits for it");
    assert_eq!(fleet.engine.counters().suspended, 1);
    assert_eq!(forge(&mut fleet, 1), struck[1..], "nothing more counts against it");
    assert_eq!(fleet.report(1), ["verdict rejected suspended"], "though it was drawn");
    assert_eq!(fleet.check_in(1), ["send 1 come-back suspended"]);
    fleet.restart();
    assert_eq!(fleet.check_in(1), ["send 1 come-back suspended"], "a restart forgives nothing");
    fleet.now = Timestamp(2_000);
    assert_eq!(fleet.check_in(1), [""; 0], "it waits for the next round");
    assert_eq!(fleet.free(), [1]);
}

#[test]
fn a_round_goes_on_without_a_worker_that_is_revoked() {
    let mut fleet = opened();
    fleet.report(0);
    fleet.report(2);
    let worker = fleet.id(1);
    let said = fleet.stand(worker, Standing::Revoked);
    let revoked = ["store members 1", "store open 1", "send 1 refused revoked"];
    assert_eq!(said[..3], revoked);
    assert_eq!(said[3..], ["store commit 1 as version 1", "wake 1000"], "all that are left have reported");
}

#[test]
fn what_a_revoked_worker_has_reported_counts() {
    let mut fleet = opened();
    fleet.report(1);
    let worker = fleet.id(1);
    let said = fleet.stand(worker, Standing::Revoked);
    assert_eq!(said, ["store members 1", "send 1 refused revoked"]);
    fleet.report(0);
    fleet.report(2);
    assert_eq!(fleet.disk.stored.last.unwrap().updates, 3);
}

#[test]
fn a_round_that_too_few_are_left_in_is_abandoned_at_once() {
    let mut fleet = opened();
    fleet.report(0);
    let mut said = Vec::new();
    for i in [1, 2] {
        let worker = fleet.id(i);
        said = fleet.stand(worker, Standing::Revoked);
    }
    assert_eq!(said[3..], ["store abandon 1", "wake 1000"]);
}

#[test]
fn what_an_honest_worker_may_send_counts_against_nobody() {
    let mut fleet = opened();
    let update = fleet.update(0);
    fleet.send(update.clone());
    for _ in 0..5 {
        assert_eq!(fleet.send(update.clone()), ["verdict rejected duplicate"]);
    }
    for code in [RejectionCode::UnknownVersion, RejectionCode::Truncated, RejectionCode::Unexpected] {
        let message = |worker| Event::BadMessage { worker, rejection: Rejection::new(code, "an older worker") };
        for _ in 0..5 {
            let worker = fleet.id(0);
            assert_eq!(fleet.handle(message(worker)), [format!("send 0 refused {code}")]);
        }
    }
    assert_eq!(fleet.engine.registry().members()[&fleet.id(0)].strikes, 0);
}

#[test]
fn a_free_worker_that_is_suspended_is_told_so_and_not_drawn() {
    let mut fleet = Fleet::of(3, |_| {});
    fleet.check_in_all([0, 1]);
    let struck = ["store members 0", "verdict rejected bad-signature"];
    for _ in 0..2 {
        assert_eq!(forge(&mut fleet, 0), struck);
    }
    assert_eq!(
        forge(&mut fleet, 0),
        [struck[0], "send 0 come-back suspended", struck[1]],
        "it waits to be told something, and asks for nothing by itself"
    );
    assert_eq!(fleet.free(), [1]);
}

#[test]
fn the_operators_word_holds_until_the_next() {
    let mut fleet = Fleet::of(3, |_| {});
    fleet.check_in_all([0, 1]);
    let stand = |fleet: &mut Fleet, i: usize, standing| {
        let worker = fleet.id(i);
        fleet.stand(worker, standing)
    };
    let revoked = ["store members 0", "send 0 refused revoked"];
    assert_eq!(stand(&mut fleet, 0, Standing::Revoked), revoked);
    assert_eq!(stand(&mut fleet, 0, Standing::Revoked), [""; 0], "it is already");
    assert_eq!(stand(&mut fleet, 1, Standing::Suspended(FOREVER)), ["store members 1", "send 1 come-back suspended"]);
    assert_eq!(fleet.free(), [0; 0], "neither is drawn any more");
    assert_eq!(fleet.check_in(0), ["send 0 refused revoked"]);
    fleet.now = Timestamp(u64::MAX / 2);
    let said = fleet.check_in(1);
    assert_eq!(said.last().map(String::as_str), Some("send 1 come-back suspended"), "time does not end it");
    assert_eq!(stand(&mut fleet, 1, Standing::Admitted), ["store members 1"]);
    assert_eq!(fleet.check_in(1).first().map(String::as_str), Some("store members 1"), "it is seen again");
    let unknown = fleet.suspended() + 1;
    assert_eq!(stand(&mut fleet, unknown, Standing::Admitted), [""; 0]);
}
