//! Who is held, who is told to come back, and when.

use packfed_protocol::{Conditions, Message, RejectionCode, Timestamp};

use super::buffered::buffered;
use super::fleet::Fleet;
use crate::event::{Effect, Event};

/// What a worker is told that states these conditions, which is one thing.
fn told(fleet: &mut Fleet, i: usize, conditions: Conditions) -> packfed_protocol::ComeBack {
    let mut check_in = fleet.check_in_of(i);
    check_in.conditions = conditions;
    let worker = fleet.id(i);
    let effects = fleet.engine.handle(Event::CheckIn { worker, check_in }, fleet.now);
    match &effects.iter().filter(|effect| !matches!(effect, Effect::Wake(_))).collect::<Vec<_>>()[..] {
        [Effect::Send { worker: to, message: Message::ComeBack(come_back) }] if *to == worker => come_back.clone(),
        other => panic!("{other:?}"),
    }
}

#[test]
fn free_workers_are_held_up_to_a_number_and_others_come_back_at_their_moment() {
    let mut fleet = Fleet::of(5, |raw| {
        (raw.selection.goal, raw.reporting.goal, raw.pace.held_max) = (3, 2, 3);
        (raw.selection.min, raw.reporting.min) = (2, 2);
    });
    fleet.check_in_all([0, 1]);
    assert_eq!(fleet.check_in(1), [""; 0], "whoever is held is held");
    fleet.check_in(2);
    let drawn = fleet.drawn();
    assert_eq!((drawn.len(), fleet.free().len()), (2, 1));
    fleet.check_in_all([3, 4]);
    assert_eq!(fleet.free().len(), 3, "there is room until then");
    let last = drawn[0];
    fleet.report(last);
    fleet.workers[last].planned = false;
    assert_eq!(fleet.check_in(last), [format!("send {last} come-back not-needed")], "and no plan");
    fleet.workers[last].planned = true;
    let come_back = told(&mut fleet, last, Conditions::ALL);
    let (pace, seed) = (fleet.engine.plan().raw().pace, fleet.engine.plan().raw().seed);
    // The unknown worker is not of the fleet.
    let moment = pace.moment(&seed, &fleet.id(last), 6, fleet.now);
    assert_eq!((come_back.after_ms, come_back.again_ms), (moment.since(fleet.now), 0));
    assert_eq!(fleet.engine.counters().refused["not-needed"], 2);
    fleet.report(drawn[1]);
    assert_eq!(fleet.open_round(), Some(2), "those who are held are drawn at once");
    assert_eq!(fleet.check_in(last), [""; 0]);
}

#[test]
fn a_worker_is_told_which_condition_failed_and_leaves_those_who_are_held() {
    let mut fleet = Fleet::of(3, |raw| {
        raw.eligibility.conditions = Conditions { charging: true, unmetered: true, idle: false };
        raw.eligibility.examples_min = 10;
    });
    let all = Conditions { idle: false, ..Conditions::ALL };
    fleet.check_in(0);
    let why = told(&mut fleet, 0, Conditions { unmetered: false, ..all }).why;
    assert_eq!(why.code, RejectionCode::Ineligible);
    assert_eq!(why.detail, "the run requires unmetered, the worker states charging");
    assert_eq!(fleet.free(), [0; 0], "what it said before does not hold any more");
    let mut check_in = fleet.check_in_of(0);
    (check_in.conditions, check_in.examples) = (all, 9);
    let worker = fleet.id(0);
    let few = Event::CheckIn { worker, check_in: check_in.clone() };
    assert_eq!(fleet.handle(few), ["send 0 come-back ineligible"]);
    check_in.examples = 10;
    assert_eq!(fleet.handle(Event::CheckIn { worker, check_in }), [""; 0]);
    assert_eq!(fleet.free(), [0]);
}

#[test]
fn whoever_was_drawn_goes_on_whatever_it_states_then() {
    let mut fleet = Fleet::of(3, |raw| raw.eligibility.conditions = Conditions::ALL);
    fleet.check_in_all(0..3);
    let mut check_in = fleet.check_in_of(1);
    check_in.conditions = Conditions::NONE;
    let worker = fleet.id(1);
    assert_eq!(fleet.handle(Event::CheckIn { worker, check_in }), ["send 1 assignment 1"]);
    assert_eq!(fleet.report(1), ["store accept 1 into 1", "verdict accepted"]);
    assert_eq!(told(&mut fleet, 1, Conditions::NONE).why.code, RejectionCode::Ineligible, "but it is not drawn again");
}

#[test]
fn a_worker_rests_between_two_rounds_also_over_a_restart() {
    let mut fleet = Fleet::of(3, |raw| {
        raw.eligibility.separation_ms = 90_000;
        raw.selection.min = 2;
    });
    fleet.now = Timestamp(5);
    fleet.check_in_all([0, 1]);
    let opened = ["store members 0 1", "store open 1", "send 0 assignment 1", "send 1 assignment 1", "wake 6000"];
    assert_eq!(fleet.tick_to(1_000), opened, "who was drawn is in the same group");
    for i in [0, 1] {
        fleet.report(i);
    }
    fleet.restart();
    fleet.now = Timestamp(30_000);
    let come_back = told(&mut fleet, 0, Conditions::ALL);
    assert_eq!(come_back.why.code, RejectionCode::TooSoon);
    assert_eq!(come_back.why.detail, "90000 ms lie between two rounds of a worker, 61000 ms are left");
    let back = fleet.now.plus(come_back.after_ms);
    assert!((120_000..120_100).contains(&back.0), "the fleet meets every minute: {back}");
    fleet.check_in(2);
    assert_eq!(fleet.free(), [2], "it did not take part");
    fleet.now = back;
    assert!(fleet.check_in(0).contains(&"store members 0".to_owned()), "it is seen again");
    fleet.tick_to(back.0 + 1_000);
    assert_eq!(fleet.drawn(), [0, 2], "it may be drawn again");
}

#[test]
fn a_buffered_run_holds_enough_to_go_on() {
    let least = |raw: &mut crate::plan::RawPlan, buffered: &mut crate::plan::Buffered| {
        (buffered.concurrency, raw.rounds) = (1, 6);
        (raw.selection.goal, raw.selection.min, raw.pace.held_max) = (2, 2, 3);
    };
    let mut fleet = buffered(5, 2, least);
    for _ in 0..20 {
        fleet.whole_round();
    }
    assert!(fleet.engine.finished(), "{:?}", fleet.engine.status());
}

#[test]
fn a_finished_run_sends_nobody_away() {
    let mut fleet = Fleet::of(3, |raw| (raw.rounds, raw.pace.held_max) = (1, 3));
    fleet.whole_round();
    assert!(fleet.engine.finished());
    let mut check_in = fleet.check_in_of(2);
    check_in.conditions = Conditions::NONE;
    let worker = fleet.id(2);
    assert_eq!(fleet.handle(Event::CheckIn { worker, check_in }), ["send 2 catch-up 0 to 1", "send 2 finished"]);
}
