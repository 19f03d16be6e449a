//! Without rounds: who is assigned when, what a buffer adds up to, and who goes on when it commits.

use std::collections::BTreeSet;

use packfed_protocol::{Digest, LaneScales, Verified};

use super::fleet::Fleet;
use crate::event::Event;
use crate::head::HeadRecord;
use crate::plan::{Buffered, RawPlan};
use crate::staleness::StalenessWeight;

/// A buffered fleet of so many workers that commits every `goal` updates; all may be at work.
pub(super) fn buffered(workers: u32, goal: u32, change: impl FnOnce(&mut RawPlan, &mut Buffered)) -> Fleet {
    Fleet::of(workers, |raw| {
        let staleness_weight = StalenessWeight::InverseSqrt;
        let mut buffered = Buffered { concurrency: workers, staleness_max: 5, staleness_weight };
        (raw.rounds, raw.reporting.goal, raw.reporting.min) = (100, goal, 1);
        change(raw, &mut buffered);
        raw.buffered = Some(buffered);
    })
}

fn plain(workers: u32, goal: u32) -> Fleet {
    let mut fleet = buffered(workers, goal, |_, _| {});
    fleet.check_in_all(0..workers as usize);
    fleet
}

fn at_work(fleet: &Fleet) -> u64 {
    serde_json::to_value(fleet.engine.status()).unwrap()["at_work"].as_u64().unwrap()
}

#[test]
fn a_free_worker_is_assigned_the_head_at_once_after_that_is_stored() {
    let mut fleet = buffered(3, 2, |_, _| {});
    assert_eq!(fleet.check_in(1), ["store open 1", "send 1 assignment 1", "wake 5000"]);
    fleet.now.0 = 70;
    assert_eq!(fleet.check_in(0), ["store open 1", "send 0 assignment 1", "wake 5070"]);
    assert_eq!(fleet.drawn(), [0, 1]);
}

#[test]
fn no_more_are_at_work_than_the_plan_allows_and_an_update_makes_room() {
    let mut fleet = buffered(4, 3, |_, buffered| buffered.concurrency = 2);
    fleet.check_in_all([3, 1]);
    assert_eq!(fleet.check_in(0), [""; 0]);
    let next = ["store accept 3 into 1", "verdict accepted", "store open 1", "send 0 assignment 1", "wake 5000"];
    assert_eq!(fleet.report(3), next);
    assert_eq!(fleet.check_in(3), [""; 0], "it has trained this version");
    assert_eq!(at_work(&fleet), 2);
}

#[test]
fn the_goal_commits_at_once_and_whoever_is_at_work_goes_on() {
    let mut fleet = plain(4, 2);
    fleet.report(2);
    assert_eq!(fleet.report(0)[2..], ["store commit 1 as version 1"]);
    assert_eq!(fleet.disk.stored.open[0].0.cohort.len(), 2, "two have not reported");
    assert_eq!(fleet.report(1), ["store accept 1 into 1", "verdict accepted"], "against the older base");
    let assigned = ["store open 2", "send 2 catch-up 0 to 1", "send 2 assignment 2", "wake 5000"];
    assert_eq!(fleet.check_in(2), assigned, "against the head");
    assert_eq!(fleet.report(2)[2..], ["store commit 2 as version 2"]);
    let summary = fleet.disk.stored.last.unwrap();
    assert_eq!((summary.updates, summary.examples), (2, 10 + 17), "one of either base");
}

#[test]
fn free_workers_that_have_trained_the_head_are_assigned_when_it_moves() {
    let mut fleet = plain(3, 2);
    fleet.report(2);
    assert_eq!(fleet.check_in(2), [""; 0]);
    let last = fleet.report(0);
    let moved = ["store open 2", "send 2 catch-up 0 to 1", "send 2 assignment 2", "wake 5000"];
    assert_eq!(last[3..], moved);
}

#[test]
fn an_update_counts_once_whoever_sends_it_again() {
    let mut fleet = plain(4, 2);
    let (first, second) = (fleet.update(2), fleet.update(0));
    fleet.send(first.clone());
    assert_eq!(fleet.send(first.clone()), ["verdict rejected duplicate"], "in the buffer");
    fleet.send(second);
    assert_eq!(fleet.send(first.clone()), ["verdict rejected replayed"], "in a committed version");
    fleet.report(1);
    fleet.report(3);
    assert_eq!(fleet.send(first), ["verdict rejected replayed"], "of a round that is over");
}

#[test]
fn work_for_a_round_that_the_worker_is_not_in_is_rejected() {
    let mut fleet = buffered(3, 2, |_, buffered| buffered.concurrency = 1);
    fleet.check_in(1);
    let assignment = fleet.workers[1].assignment.clone().unwrap();
    let uninvited = fleet.uninvited(0, &assignment);
    assert_eq!(fleet.send(uninvited), ["verdict rejected not-selected"]);
    let ahead = fleet.mangled(1, |header, _| header.round = header.round.next());
    assert_eq!(fleet.send(ahead), ["verdict rejected not-selected"]);
    let other_base = fleet.mangled(1, |header, _| header.base.0 = 3);
    assert_eq!(fleet.send(other_base), ["verdict rejected stale-base"], "a round has one base");
    assert_eq!(fleet.report(1)[1], "verdict accepted");
}

#[test]
fn beyond_the_bound_an_update_is_discarded_counted_and_makes_room() {
    let mut fleet = buffered(4, 1, |_, buffered| (buffered.staleness_max, buffered.concurrency) = (1, 3));
    fleet.check_in_all(0..3);
    assert_eq!(fleet.report(0)[2], "store commit 1 as version 1");
    assert_eq!(fleet.report(1)[2], "store commit 1 as version 2", "one version behind");
    assert_eq!(at_work(&fleet), 0, "the third one's base is two versions behind by now");
    assert_eq!(fleet.report(2), ["verdict discarded"]);
    let counters = fleet.engine.counters();
    assert_eq!((counters.arrived, counters.accepted, counters.discarded), (3, 2, 1));
}

/// By how much the last of four updates of one base moves the model, each of them a commit of its own.
fn moved_by_the_fourth(staleness_weight: StalenessWeight) -> Vec<f64> {
    // 16 levels, so that the way down is finer than what is looked for.
    let mut fleet = buffered(4, 1, |raw, buffered| {
        (raw.levels, buffered.staleness_weight) = (16.0, staleness_weight);
    });
    fleet.check_in_all(0..4);
    (0..3).for_each(|i| drop(fleet.report(i)));
    let lanes = |fleet: &Fleet| -> Vec<f64> {
        let state = fleet.engine.head().state();
        (0..state.lanes().len()).map(|lane| state.value(lane)).collect()
    };
    let before = lanes(&fleet);
    fleet.report(3);
    lanes(&fleet).iter().zip(before).map(|(after, before)| after - before).collect()
}

#[test]
fn an_update_that_is_three_versions_behind_counts_for_half() {
    let [half, whole] = [StalenessWeight::InverseSqrt, StalenessWeight::Constant].map(moved_by_the_fourth);
    let largest = whole.iter().fold(0.0f64, |largest, value| largest.max(value.abs()));
    assert!(largest > 0.1, "{largest}");
    for (half, whole) in half.iter().zip(whole) {
        assert!((half - whole / 2.0).abs() < 0.1 * largest, "{half} {whole}");
    }
}

/// The head and the next scales after a buffer of two bases whose updates arrive in an order, one lane of one of them
/// moved by one unit.
fn committed(order: [usize; 4], changed: Option<usize>) -> (HeadRecord, Vec<LaneScales>, Digest) {
    let mut fleet = buffered(6, 4, |raw, _| raw.levels = 32.0);
    fleet.check_in_all(0..6);
    let quiet = |fleet: &Fleet, i: usize| -> Verified {
        // So little that the scales of the next base are finer.
        fleet.mangled(i, |_, payload| payload.iter_mut().for_each(|byte| *byte = u8::from(*byte > 250)))
    };
    for i in 2..6 {
        let update = quiet(&fleet, i);
        fleet.send(update);
    }
    fleet.check_in_all([2, 3]);
    let scales = |i: usize| fleet.workers[i].assignment.as_ref().unwrap().scales.clone();
    assert_ne!(scales(0), scales(2), "bases have scales of their own");
    assert_ne!(fleet.workers[0].assignment.as_ref().unwrap().turn, fleet.workers[2].assignment.as_ref().unwrap().turn);
    for i in order {
        let update = fleet.mangled(i, |_, payload| {
            if changed == Some(i) {
                payload[4] = payload[4].wrapping_add(1);
            }
        });
        fleet.send(update);
    }
    let summary = fleet.disk.stored.last.unwrap();
    assert_eq!((summary.version, summary.updates, summary.examples), (2, 4, 3 + 10 + 17 + 24));
    (fleet.disk.stored.head, fleet.disk.stored.scales, summary.digest)
}

#[test]
fn the_order_of_arrival_in_a_buffer_does_not_change_the_model() {
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
    for i in 0..4 {
        assert_ne!(committed([0, 1, 2, 3], Some(i)).0, expected.0, "one unit of one lane of worker {i} shows");
    }
}

#[test]
fn who_came_first_has_no_say_in_who_is_assigned_when_the_head_moves() {
    let assigned = |order: [usize; 4]| {
        let mut fleet = buffered(6, 2, |_, buffered| buffered.concurrency = 2);
        fleet.check_in_all([4, 5]);
        fleet.check_in_all(order);
        fleet.report(4);
        fleet.report(5);
        fleet.drawn()
    };
    assert_eq!(assigned([0, 1, 2, 3]), assigned([3, 1, 0, 2]));
}

#[test]
fn with_the_minimum_a_buffer_commits_at_its_time_out_and_the_late_are_discarded() {
    let mut fleet = plain(3, 3);
    let late = fleet.update(0);
    fleet.report(1);
    assert_eq!(fleet.tick_to(4_999), [""; 0]);
    assert_eq!(fleet.tick_to(5_000), ["store commit 1 as version 1"]);
    assert_eq!((at_work(&fleet), fleet.send(late)), (0, vec!["verdict discarded".to_owned()]));
}

#[test]
fn below_the_minimum_a_buffer_keeps_what_it_has_and_its_workers_may_come_again() {
    let mut fleet = buffered(3, 3, |raw, _| raw.reporting.min = 2);
    fleet.check_in_all(0..3);
    fleet.report(1);
    assert_eq!(fleet.tick_to(5_000), ["wake 10000", "store open 1"], "one update waits for another");
    assert_eq!(fleet.drawn(), [1]);
    assert_eq!(fleet.check_in(0), ["store open 1", "send 0 assignment 1", "wake 10000"]);
    assert_eq!(fleet.report(0), ["store accept 0 into 1", "verdict accepted"]);
    assert_eq!(fleet.report(2), ["verdict discarded"], "its time was up and it was not assigned again");
    assert_eq!(fleet.tick_to(10_000), ["store commit 1 as version 1"]);
}

#[test]
fn a_round_that_nobody_reports_to_is_abandoned_and_its_workers_are_free() {
    let mut fleet = plain(2, 2);
    assert_eq!(fleet.tick_to(5_000), ["store abandon 1"]);
    assert_eq!(fleet.engine.counters().abandoned["no-updates"], 1);
    assert_eq!(fleet.engine.deadline(), None);
    assert_eq!(fleet.check_in(1), ["store open 2", "send 1 assignment 2", "wake 10000"], "of the same version");
    let late = fleet.update(0);
    assert_eq!(fleet.send(late), ["verdict discarded"]);
}

#[test]
fn dead_workers_hold_their_place_until_their_time_is_up_or_their_base_too_old() {
    let mut fleet = buffered(4, 1, |_, buffered| (buffered.concurrency, buffered.staleness_max) = (2, 1));
    fleet.check_in_all(0..2);
    let worker = fleet.id(1);
    assert_eq!(fleet.handle(Event::Disconnected { worker }), [""; 0]);
    fleet.report(0);
    assert_eq!(fleet.check_in(2)[1..], ["send 2 catch-up 0 to 1", "send 2 assignment 2", "wake 5000"]);
    assert_eq!(fleet.check_in(3), [""; 0], "one may still come");
    let last = fleet.report(2);
    assert_eq!(last[2], "store commit 2 as version 2");
    assert_eq!(last[5], "send 3 assignment 3", "{last:?}");
}

#[test]
fn a_worker_that_reconnects_with_its_replica_gets_its_assignment_again() {
    let mut fleet = plain(3, 2);
    fleet.report(0);
    fleet.report(1);
    fleet.now.0 = 1_200;
    assert_eq!(fleet.check_in(2), ["send 2 assignment 1"], "though the head has moved");
    assert_eq!(fleet.workers[2].assignment.as_ref().unwrap().deadline_ms, 3_800, "the time that is left");
    assert_eq!(fleet.report(2), ["store accept 2 into 1", "verdict accepted"]);
}

#[test]
fn a_worker_that_lost_its_replica_is_assigned_the_head_instead() {
    let mut fleet = plain(4, 2);
    (0..2).for_each(|i| drop(fleet.report(i)));
    fleet.check_in_all(0..2);
    (0..2).for_each(|i| drop(fleet.report(i)));
    assert_eq!(fleet.engine.head().version(), 2);
    fleet.check_in(0);
    // Worker 0 is at work on version 2, worker 2 on version 0; both lose everything, and the head moves.
    let lost = fleet.update(0);
    fleet.report(2);
    fleet.report(3);
    fleet.workers[0].forget();
    let again = ["store abandon 3", "store open 4", "send 0 catch-up 0 to 3", "send 0 assignment 4", "wake 5000"];
    assert_eq!(fleet.check_in(0), again);
    assert_eq!(fleet.send(lost), ["verdict discarded"], "its earlier assignment does not count any more");
    assert_eq!(fleet.report(0)[1], "verdict accepted");
}

#[test]
fn a_finished_run_tells_the_free_and_discards_the_late() {
    let mut fleet = buffered(4, 2, |raw, _| raw.rounds = 1);
    fleet.check_in_all(0..4);
    fleet.report(0);
    fleet.check_in(0);
    let last = fleet.report(1);
    assert_eq!(last[2..], ["store commit 1 as version 1", "send 0 catch-up 0 to 1", "send 0 finished"]);
    assert!(fleet.engine.finished() && fleet.disk.stored.open.is_empty());
    assert_eq!(fleet.report(2), ["verdict discarded"]);
    assert_eq!(fleet.check_in(2), ["send 2 catch-up 0 to 1", "send 2 finished"]);
}

/// Twelve updates in turn, each worker checking in after its own; the process dies before some of them.
fn at_the_end(dies_before: impl Fn(usize) -> bool) -> String {
    let mut fleet = buffered(5, 3, |_, buffered| buffered.staleness_max = 2);
    fleet.check_in_all(0..5);
    // Worker 4 is slow: its updates are stale.
    for (n, i) in [2, 0, 1, 3, 0, 4, 2, 1, 0, 3, 2, 4].into_iter().enumerate() {
        if dies_before(n) {
            let (before, free) = (fleet.engine.status(), fleet.free());
            fleet.restart();
            // Whoever waited says so again.
            fleet.check_in_all(free);
            let after = fleet.engine.status();
            assert_eq!((after.stage, after.digest), (before.stage, before.digest), "the same buffer goes on");
        }
        assert_eq!(fleet.report(i)[1], "verdict accepted", "update {n}");
        fleet.check_in(i);
    }
    assert_eq!(fleet.engine.head().version(), 4);
    format!("{:?} {:?} {:?}", fleet.disk.stored.head, fleet.disk.stored.last, fleet.disk.stored.open)
}

#[test]
fn a_buffer_goes_on_with_what_it_had_and_ends_in_the_same_model() {
    let undisturbed = at_the_end(|_| false);
    for update in 0..12 {
        assert_eq!(at_the_end(|n| n == update), undisturbed, "died before update {update}");
    }
    assert_eq!(at_the_end(|_| true), undisturbed, "died before every update");
}

#[test]
fn after_a_restart_an_update_in_the_buffer_is_a_duplicate_and_a_committed_one_does_not_count() {
    let mut fleet = plain(4, 2);
    let (counted, gathered) = (fleet.update(0), fleet.update(2));
    fleet.report(0);
    fleet.report(1);
    fleet.report(2);
    fleet.restart();
    assert_eq!(fleet.send(gathered), ["verdict rejected duplicate"]);
    assert_eq!(fleet.send(counted), ["verdict rejected not-selected"], "it is not awaited any more");
    assert_eq!(fleet.report(3)[2], "store commit 1 as version 2");
}
