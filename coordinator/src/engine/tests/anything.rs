//! Any sequence of events, in order or not: what has to hold always, holds. The fleet checks most of it
//! while it carries out effects.

use packfed_protocol::{Digest, Rejection, RejectionCode, Round, RunId, Verified, Version};
use proptest::prelude::*;

use super::buffered::buffered;
use super::fleet::{Fleet, unreadable};
use crate::event::Event;

#[derive(Clone, Debug)]
enum Step {
    CheckIn(usize),
    ForgetfulCheckIn { worker: usize, version: u64 },
    Report(usize),
    Mangled { worker: usize, how: u8 },
    SendAgain(usize),
    Unreadable(usize),
    BadMessage(usize),
    Disconnect(usize),
    Wait(u64),
    ClockSetBack(u64),
    Restart,
}

const WORKERS: usize = 5;

fn step() -> impl Strategy<Value = Step> {
    // Two more than are admitted: one is suspended, one unknown.
    let worker = || 0..WORKERS + 2;
    prop_oneof![
        8 => worker().prop_map(Step::CheckIn),
        1 => (worker(), 0..6u64).prop_map(|(worker, version)| Step::ForgetfulCheckIn { worker, version }),
        10 => worker().prop_map(Step::Report),
        3 => (worker(), 0..8u8).prop_map(|(worker, how)| Step::Mangled { worker, how }),
        2 => any::<prop::sample::Index>().prop_map(|index| Step::SendAgain(index.index(1 << 16))),
        1 => worker().prop_map(Step::Unreadable),
        1 => worker().prop_map(Step::BadMessage),
        1 => worker().prop_map(Step::Disconnect),
        2 => prop::sample::select(vec![0, 1, 400, 1_000, 5_000, 1 << 40]).prop_map(Step::Wait),
        1 => (0..3_000u64).prop_map(Step::ClockSetBack),
        1 => Just(Step::Restart),
    ]
}

fn take(fleet: &mut Fleet, sent: &mut Vec<Verified>, step: &Step) {
    match *step {
        Step::CheckIn(i) => drop(fleet.check_in(i)),
        Step::ForgetfulCheckIn { worker, version } => {
            if version == 0 {
                fleet.workers[worker].forget();
            }
            let mut check_in = fleet.check_in_of(worker);
            check_in.version = Version(version);
            check_in.planned = false;
            let worker = fleet.id(worker);
            fleet.handle(Event::CheckIn { worker, check_in });
        }
        Step::Report(i) => send(fleet, sent, i, 0),
        Step::Mangled { worker, how } => send(fleet, sent, worker, how),
        Step::SendAgain(n) => {
            if let Some(update) = sent.get(n % sent.len().max(1)).cloned() {
                fleet.send(update);
            }
        }
        Step::Unreadable(i) => {
            let arrived = fleet.engine.counters().arrived;
            let worker = fleet.id(i);
            fleet.handle(unreadable(worker, arrived));
        }
        Step::BadMessage(i) => {
            let rejection = Rejection::new(RejectionCode::Unexpected, "an assignment from a worker");
            let worker = fleet.id(i);
            fleet.handle(Event::BadMessage { worker, rejection });
        }
        Step::Disconnect(i) => {
            let worker = fleet.id(i);
            fleet.handle(Event::Disconnected { worker });
        }
        Step::Wait(ms) => drop(fleet.tick_to(fleet.now.0 + ms)),
        Step::ClockSetBack(ms) => drop(fleet.tick_to(fleet.now.0.saturating_sub(ms))),
        Step::Restart => fleet.restart(),
    }
}

/// An update of a worker for its last assignment, or for the open round if it has none; mangled in one of seven ways.
fn send(fleet: &mut Fleet, sent: &mut Vec<Verified>, i: usize, how: u8) {
    if fleet.workers[i].assignment.is_none() {
        let open = fleet.drawn().first().and_then(|&drawn| fleet.workers[drawn].assignment.clone());
        fleet.workers[i].assignment = open;
    }
    if fleet.workers[i].assignment.is_none() {
        return;
    }
    let update = fleet.mangled(i, |header, payload| match how {
        0 => {}
        1 => header.round = Round(header.round.0 + 1),
        2 => header.base = Version(header.base.0 + 1),
        3 => header.examples = 0,
        4 => header.layout = Digest([3; 32]),
        5 => header.run = RunId([3; 16]),
        6 => header.clipped.truncate(1),
        _ => *payload.last_mut().unwrap() = 1,
    });
    sent.push(update.clone());
    fleet.send(update);
}

proptest! {
    #[test]
    fn nor_of_a_buffered_plan(
        steps in prop::collection::vec(step(), 1..150),
        (goal, min) in (2..=4u32).prop_flat_map(|goal| (Just(goal), 1..=goal)),
        (concurrency, staleness_max) in (1..=5u32, 0..4u32),
        history in 1..4u32,
    ) {
        let mut fleet = buffered(5, goal, |raw, buffered| {
            (raw.rounds, raw.selection.min, raw.reporting.min, raw.history) = (6, min, min, history);
            (buffered.concurrency, buffered.staleness_max) = (concurrency, staleness_max);
        });
        let mut sent = Vec::new();
        for step in &steps {
            let version = fleet.engine.head().version();
            take(&mut fleet, &mut sent, step);
            prop_assert!(fleet.engine.head().version() - version <= 1, "one thing at a time");
            prop_assert_eq!(fleet.engine.finished(), fleet.engine.head().version() == 6);
        }
        // Faults off: nobody is suspended any more, the run heals and finishes.
        fleet.tick_to(fleet.now.0 + 1_000_000);
        for _ in 0..60 {
            if !fleet.engine.finished() {
                fleet.tick_to(fleet.now.0 + 5_000);
                fleet.whole_round();
            }
        }
        prop_assert!(fleet.engine.finished());
        let digest = fleet.digest();
        for i in 0..WORKERS {
            fleet.check_in(i);
            prop_assert_eq!(Digest(fleet.workers[i].replica.digest().0), digest);
        }
    }

    #[test]
    fn nothing_that_may_happen_breaks_a_promise(
        steps in prop::collection::vec(step(), 1..150),
        goal in 2..=5u32,
        history in 1..4u32,
    ) {
        let mut fleet = Fleet::of(5, |raw| {
            raw.rounds = 6;
            raw.selection.goal = 5;
            raw.reporting.goal = goal.min(4);
            raw.over_selection = u32::from(goal == 5);
            raw.history = history;
        });
        let mut sent = Vec::new();
        for step in &steps {
            let (version, opened) = (fleet.engine.head().version(), fleet.disk.stored.next_round);
            let committed = fleet.engine.counters().committed;
            take(&mut fleet, &mut sent, step);
            let counted = fleet.engine.counters().committed.saturating_sub(committed);
            prop_assert_eq!(fleet.engine.head().version(), version + counted);
            prop_assert!(counted <= 1 && fleet.disk.stored.next_round.0 - opened.0 <= 1, "one thing at a time");
            prop_assert_eq!(fleet.engine.finished(), fleet.engine.head().version() == 6);
        }
        // Faults off: nobody is suspended any more, the run heals and finishes.
        fleet.tick_to(fleet.now.0 + 1_000_000);
        for _ in 0..12 {
            for ms in [5_000, 1_000] {
                fleet.tick_to(fleet.now.0 + ms);
            }
            if !fleet.engine.finished() {
                fleet.whole_round();
            }
        }
        prop_assert!(fleet.engine.finished());
        let digest = fleet.digest();
        for i in 0..WORKERS {
            fleet.check_in(i);
            prop_assert_eq!(Digest(fleet.workers[i].replica.digest().0), digest);
        }
    }
}
