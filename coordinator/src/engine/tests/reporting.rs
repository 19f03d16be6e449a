//! From an open round to its end.

use std::collections::BTreeSet;

use packfed_protocol::Digest;

use super::fleet::{Fleet, unreadable};
use crate::event::Event;
use crate::head::HeadRecord;

/// A fleet whose whole cohort is drawn for round 1.
fn opened(n: u32) -> Fleet {
    let mut fleet = Fleet::of(n, |_| {});
    fleet.check_in_all(0..n as usize);
    assert_eq!(fleet.drawn().len(), n as usize);
    fleet
}

#[test]
fn an_update_is_stored_before_its_verdict_and_the_goal_commits_at_once() {
    let mut fleet = opened(3);
    fleet.now.0 = 40;
    assert_eq!(fleet.report(1), ["store accept 1 into 1", "verdict accepted"]);
    assert_eq!(fleet.report(2), ["store accept 2 into 1", "verdict accepted"]);
    let last = ["store accept 0 into 1", "verdict accepted", "store commit 1 as version 1", "wake 1040"];
    assert_eq!(fleet.report(0), last);
    let summary = fleet.disk.stored.last.unwrap();
    assert_eq!((summary.updates, summary.examples), (3, 3 + 10 + 17));
    let loss = (3.0 + 10.0 * f64::from(0.5f32) + 17.0 * f64::from(1.0f32 / 3.0)) / 30.0;
    assert!((summary.train_loss - loss).abs() < 1e-12, "weighted by examples");
}

#[test]
fn what_is_not_accepted_is_not_stored() {
    let mut fleet = opened(3);
    let bad = fleet.mangled(0, |header, _| header.examples = 0);
    assert_eq!(fleet.send(bad), ["store members 0", "verdict rejected example-cap"]);
    let stranger = fleet.id(fleet.suspended() + 1);
    assert_eq!(fleet.handle(unreadable(stranger, 1)), ["verdict rejected bad-signature"]);
    assert!(fleet.disk.stored.open[0].1.is_empty());
}

#[test]
fn a_cohort_smaller_than_the_goal_commits_when_it_is_complete() {
    let mut fleet = Fleet::of(3, |_| {});
    fleet.check_in_all([0, 2]);
    fleet.tick_to(1_000);
    fleet.report(2);
    let last = ["store accept 0 into 1", "verdict accepted", "store commit 1 as version 1", "wake 2000"];
    assert_eq!(fleet.report(0), last);
}

#[test]
fn with_the_minimum_a_round_commits_at_its_time_out() {
    let mut fleet = opened(4);
    fleet.report(3);
    fleet.report(1);
    assert_eq!(fleet.tick_to(4_999), [""; 0]);
    assert_eq!(fleet.tick_to(5_000), ["store commit 1 as version 1", "wake 6000"]);
    assert_eq!(fleet.disk.stored.last.unwrap().updates, 2);
}

#[test]
fn below_the_minimum_a_round_is_abandoned_and_the_next_one_has_the_same_base() {
    let mut fleet = opened(4);
    let before = fleet.engine.head().record().clone();
    fleet.report(3);
    assert_eq!(fleet.tick_to(5_000), ["store abandon 1", "wake 6000"]);
    assert_eq!(fleet.engine.head().record(), &before);
    assert_eq!(fleet.engine.counters().abandoned["too-few-updates"], 1);
    fleet.check_in_all(0..4);
    let open = &fleet.disk.stored.open[0].0;
    assert_eq!((open.round.0, open.base, open.turn), (2, 0, 0));
    for i in 0..4 {
        fleet.report(i);
    }
    assert_eq!(fleet.engine.head().version(), 1);
}

#[test]
fn a_late_update_of_a_drawn_worker_is_discarded_not_rejected() {
    let mut fleet = opened(4);
    let (late, later) = (fleet.update(0), fleet.update(2));
    fleet.report(3);
    fleet.report(1);
    fleet.tick_to(5_000);
    assert_eq!(fleet.send(late), ["verdict discarded"], "between two rounds");
    fleet.check_in_all(0..4);
    assert_eq!(fleet.open_round(), Some(2));
    assert_eq!(fleet.send(later), ["verdict discarded"], "while the next one is open");
    let counters = fleet.engine.counters();
    assert_eq!((counters.arrived, counters.accepted, counters.discarded), (4, 2, 2));
    assert!(counters.rejected.is_empty());
}

#[test]
fn a_late_update_of_an_abandoned_round_is_discarded() {
    let mut fleet = opened(4);
    let (late, replayed) = (fleet.update(0), fleet.update(3));
    fleet.report(3);
    fleet.tick_to(5_000);
    assert_eq!(fleet.send(late), ["verdict discarded"]);
    assert_eq!(fleet.send(replayed), ["verdict rejected replayed"]);
}

#[test]
fn a_straggler_of_two_rounds_ago_is_late_as_well() {
    let mut fleet = opened(4);
    let late = fleet.update(0);
    for i in 1..4 {
        fleet.report(i);
    }
    fleet.tick_to(5_000);
    fleet.check_in_all(1..4);
    fleet.tick_to(6_000);
    for i in 1..4 {
        fleet.report(i);
    }
    assert_eq!((fleet.engine.head().version(), fleet.open_round()), (2, None));
    assert_eq!(fleet.send(late), ["verdict discarded"]);
}

/// The head after one round of four updates that arrive in an order, one lane of one of them moved by one unit.
fn committed(order: [usize; 4], changed: Option<usize>) -> (HeadRecord, Digest) {
    // 32 levels, so that the way down is about as fine as the way up.
    let mut fleet = Fleet::of(4, |raw| raw.levels = 32.0);
    fleet.check_in_all(0..4);
    for i in order {
        let update = fleet.mangled(i, |_, payload| {
            if changed == Some(i) {
                payload[4] = payload[4].wrapping_add(1);
            }
        });
        fleet.send(update);
    }
    let summary = fleet.disk.stored.last.unwrap();
    assert_eq!((summary.updates, summary.examples), (4, 3 + 10 + 17 + 24));
    (fleet.disk.stored.head, summary.digest)
}

#[test]
fn the_order_of_arrival_does_not_change_the_model() {
    let expected = committed([0, 1, 2, 3], None);
    let mut orders = BTreeSet::new();
    for n in 0..256usize {
        let order = [n % 4, n / 4 % 4, n / 16 % 4, n / 64];
        if BTreeSet::from(order).len() == 4 {
            orders.insert(order);
            assert_eq!(committed(order, None), expected, "{order:?}");
        }
    }
    assert_eq!(orders.len(), 24);
}

#[test]
fn one_unit_of_one_lane_of_one_update_changes_the_model() {
    let (head, digest) = committed([0, 1, 2, 3], None);
    for i in 0..4 {
        assert_ne!(committed([0, 1, 2, 3], Some(i)).0, head, "worker {i}: at least what the encoding lost differs");
    }
    assert_ne!(committed([0, 1, 2, 3], Some(3)).1, digest);
}

#[test]
fn a_worker_that_reconnects_into_its_round_gets_its_assignment_again() {
    let mut fleet = opened(3);
    let worker = fleet.id(1);
    fleet.handle(Event::Disconnected { worker });
    fleet.now.0 = 1_200;
    assert_eq!(fleet.check_in(1), ["send 1 assignment 1"]);
    assert_eq!(fleet.workers[1].assignment.as_ref().unwrap().deadline_ms, 3_800, "the time that is left");
    assert_eq!(fleet.report(1), ["store accept 1 into 1", "verdict accepted"]);
    assert_eq!(fleet.check_in(1), [""; 0], "it has reported and waits for the next round");
    assert_eq!(fleet.engine.status().idle, 1);
}

#[test]
fn a_check_in_after_the_deadline_waits_for_the_next_round() {
    let mut fleet = opened(4);
    fleet.report(3);
    fleet.now.0 = 5_000;
    assert_eq!(fleet.check_in(1), ["store abandon 1", "wake 6000"], "its round is over");
    assert_eq!(fleet.engine.status().idle, 1, "it is free");
}

#[test]
fn an_update_after_the_deadline_is_late() {
    let mut fleet = opened(4);
    fleet.report(3);
    fleet.now.0 = 5_000;
    assert_eq!(fleet.report(1), ["store abandon 1", "wake 6000", "verdict discarded"]);
}

#[test]
fn a_run_is_finished_after_its_last_round_and_everybody_is_told() {
    let mut fleet = Fleet::of(4, |raw| raw.reporting.goal = 3);
    fleet.whole_round();
    let mut absent = 0;
    fleet.check_in_all(0..4);
    let drawn = fleet.drawn();
    for i in 0..4 {
        if !drawn.contains(&i) {
            absent = i;
        }
    }
    fleet.report(drawn[0]);
    fleet.report(drawn[1]);
    let last = fleet.report(drawn[2]);
    assert_eq!(last[2], "store commit 2 as version 2");
    assert_eq!(last.last().unwrap(), &format!("send {absent} finished"), "the idle worker is told");
    assert!(fleet.engine.finished());
    let i = drawn[0];
    let told = [format!("send {i} catch-up 1 to 2"), format!("send {i} finished")];
    assert_eq!(fleet.check_in(i), told);
    assert_eq!(fleet.check_in(i), [format!("send {i} finished")], "it is up to date by now");
    fleet.check_in_all(0..4);
    assert_eq!(fleet.tick_to(1_000_000), [""; 0], "no round opens any more");
    assert_eq!(fleet.engine.deadline(), None);
    let again = fleet.update(drawn[1]);
    assert_eq!(fleet.send(again), ["verdict rejected replayed"]);
}

#[test]
fn a_plan_without_history_commits_as_well() {
    let mut fleet = Fleet::of(3, |raw| raw.history = 0);
    fleet.whole_round();
    assert_eq!(fleet.engine.counters().committed, 1);
    fleet.whole_round();
    assert!(fleet.engine.finished());
}
