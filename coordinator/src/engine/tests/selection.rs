//! From check-ins to an open round.

use std::collections::BTreeSet;

use packfed_protocol::{Enroll, RunId, Token};

use super::fleet::Fleet;
use crate::engine::Engine;
use crate::event::Event;
use crate::registry::{Registry, token_digest};

#[test]
fn an_empty_selection_is_abandoned_and_a_new_one_begins() {
    let mut fleet = Fleet::of(3, |_| {});
    assert_eq!(fleet.tick_to(999), [""; 0]);
    assert_eq!(fleet.tick_to(1_000), ["wake 2000"]);
    assert_eq!(fleet.tick_to(2_500), ["wake 3500"]);
    assert_eq!(fleet.engine.counters().abandoned["too-few-checked-in"], 2);
    assert_eq!(fleet.open_round(), None);
}

#[test]
fn with_the_minimum_a_selection_opens_at_its_time_out_with_those_who_are_there() {
    let mut fleet = Fleet::of(3, |_| {});
    assert_eq!(fleet.check_in(0), [""; 0]);
    assert_eq!(fleet.tick_to(1_000), ["wake 2000"], "one is too few");
    assert_eq!(fleet.check_in(2), [""; 0], "the time is not up");
    let opened = ["store open 1", "send 0 assignment 1", "send 2 assignment 1", "wake 7000"];
    assert_eq!(fleet.tick_to(2_000), opened, "whoever came in an abandoned selection still counts");
}

#[test]
fn the_goal_opens_at_once() {
    let mut fleet = Fleet::of(3, |_| {});
    fleet.now.0 = 17;
    fleet.check_in_all([2, 0]);
    let opened = ["store open 1", "send 0 assignment 1", "send 1 assignment 1", "send 2 assignment 1", "wake 5017"];
    assert_eq!(fleet.check_in(1), opened);
}

#[test]
fn a_worker_is_told_the_plan_only_if_it_does_not_hold_it() {
    let mut fleet = Fleet::of(3, |_| {});
    fleet.workers[1].planned = false;
    assert_eq!(fleet.check_in(0), [""; 0]);
    assert_eq!(fleet.check_in(1), ["send 1 plan"]);
    assert_eq!(fleet.check_in(1), [""; 0], "it holds it now");
}

#[test]
fn a_cohort_is_caught_up_where_it_is_behind_and_assigned_after_the_round_is_stored() {
    let mut fleet = Fleet::of(3, |_| {});
    fleet.whole_round();
    assert_eq!((fleet.workers[0].version, fleet.engine.head().version()), (0, 1));
    fleet.check_in_all([0, 1]);
    fleet.workers[2].version = 1;
    fleet.workers[2].replica = fleet.engine.head().state().clone();
    let opened = [
        "store open 2",
        "send 0 catch-up 0 to 1",
        "send 0 assignment 2",
        "send 1 catch-up 0 to 1",
        "send 1 assignment 2",
        "send 2 assignment 2",
        "wake 5000",
    ];
    assert_eq!(fleet.check_in(2), opened);
}

#[test]
fn whoever_is_not_drawn_is_there_for_the_next_round() {
    let mut fleet = Fleet::of(5, |raw| raw.reporting.goal = 3);
    fleet.check_in_all(0..5);
    let first = fleet.drawn();
    assert_eq!(first.len(), 3);
    for i in first.clone() {
        fleet.report(i);
    }
    assert_eq!(fleet.engine.status().idle, 2);
    fleet.check_in_all(first);
    assert_eq!(fleet.open_round(), Some(2));
}

#[test]
fn who_came_first_has_no_say_in_who_is_drawn() {
    let drawn = |order: [usize; 5]| {
        let mut fleet = Fleet::of(5, |raw| {
            raw.reporting.goal = 2;
            raw.over_selection = 1;
        });
        fleet.check_in_all(order);
        fleet.drawn()
    };
    assert_eq!(drawn([0, 1, 2, 3, 4]), drawn([4, 2, 0, 3, 1]));
    assert_eq!(drawn([0, 1, 2, 3, 4]).len(), 3, "the goal and the over-selection");
}

#[test]
fn a_worker_that_is_gone_is_not_drawn() {
    let mut fleet = Fleet::of(3, |_| {});
    fleet.check_in_all([0, 1]);
    let worker = fleet.id(0);
    assert_eq!(fleet.handle(Event::Disconnected { worker }), [""; 0]);
    assert_eq!(fleet.check_in(2), [""; 0], "two are there, three are waited for");
    fleet.tick_to(1_000);
    assert_eq!(fleet.drawn(), [1, 2]);
}

#[test]
fn a_worker_that_may_not_take_part_is_refused_and_counted() {
    let mut fleet = Fleet::of(3, |_| {});
    let suspended = fleet.suspended();
    assert_eq!(fleet.check_in(suspended), [format!("send {suspended} come-back suspended")]);
    assert_eq!(fleet.check_in(suspended + 1), [format!("send {} refused unknown-worker", suspended + 1)]);
    let mut check_in = fleet.check_in_of(0);
    check_in.run = RunId([9; 16]);
    let worker = fleet.id(0);
    assert_eq!(fleet.handle(Event::CheckIn { worker, check_in }), ["send 0 refused wrong-run"]);
    let refused: Vec<_> = fleet.engine.counters().refused.values().copied().collect();
    assert_eq!((refused, fleet.engine.status().idle), (vec![1, 1, 1], 0));
}

#[test]
fn an_enrolment_is_stored_before_it_is_told_and_only_once() {
    let mut fleet = Fleet::of(3, |_| {});
    let (token, stranger) = (Token([5; 16]), fleet.suspended() + 1);
    let members = fleet.engine.registry.members().clone();
    let registry = Registry::new(members, BTreeSet::from([token_digest(&token)]));
    fleet.engine = Engine::new(fleet.engine.plan().clone(), registry, fleet.now);
    let enroll = Event::Enroll { worker: fleet.id(stranger), enroll: Enroll { token, name: "late".into() } };
    let told = format!("send {stranger} enrolled");
    assert_eq!(fleet.handle(enroll.clone()), [format!("store enroll {stranger}"), told.clone()]);
    assert_eq!(fleet.handle(enroll), [told], "its first answer may have been lost");
    assert_eq!(fleet.check_in(stranger), [""; 0]);
    assert_eq!(fleet.engine.status().idle, 1);
}
