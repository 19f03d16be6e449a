//! A process that dies and starts again with what it had stored.

use packfed_protocol::{CheckIn, Message, RejectionCode, Timestamp};

use super::fleet::Fleet;
use crate::engine::{Engine, RestoreError};
use crate::event::Stored;
use crate::head::HeadError;
use crate::plan::{RawPlan, RunPlan};

/// Two rounds of four updates; the process dies before the update of this number, counted from 0.
fn digest_at_the_end(dies_before: Option<usize>) -> String {
    let mut fleet = Fleet::of(4, |_| {});
    let mut updates = 0;
    for _ in 0..2 {
        fleet.check_in_all(0..4);
        for i in [2, 0, 3, 1] {
            if dies_before == Some(updates) {
                let accepted = fleet.engine.status().stage;
                fleet.restart();
                assert_eq!(fleet.engine.status().stage, accepted, "the same round with the same accepted set");
            }
            assert_eq!(fleet.report(i)[1], "verdict accepted");
            updates += 1;
        }
    }
    assert!(fleet.engine.finished());
    format!("{:?} {:?}", fleet.disk.stored.head, fleet.disk.stored.last)
}

#[test]
fn a_round_goes_on_with_what_it_had_and_ends_in_the_same_model() {
    let undisturbed = digest_at_the_end(None);
    for update in 0..8 {
        assert_eq!(digest_at_the_end(Some(update)), undisturbed, "died before update {update}");
    }
}

#[test]
fn a_worker_that_had_reported_does_not_report_again() {
    let mut fleet = opened_with_two_reports();
    fleet.restart();
    let again = fleet.update(2);
    assert_eq!(fleet.send(again), ["verdict rejected duplicate"]);
    assert_eq!(fleet.check_in(2), [""; 0], "it waits for the next round");
    assert_eq!(fleet.check_in(1), ["send 1 assignment 1"], "this one is awaited");
    assert_eq!(fleet.engine.deadline(), Some(Timestamp(5_000)), "the deadline is the one that was told");
}

#[test]
fn a_goal_that_was_met_before_the_commit_was_stored_commits_at_the_first_event() {
    let mut fleet = opened_with_two_reports();
    fleet.report(1);
    let last = fleet.update(3);
    let (open, frames) = &mut fleet.disk.stored.open[0];
    assert_eq!(open.cohort.len(), 4);
    frames.push(last.frame().to_vec());
    fleet.restart();
    assert_eq!(fleet.tick_to(10), ["store commit 1 as version 1", "wake 1010"]);
}

#[test]
fn between_rounds_and_at_the_end_nothing_is_lost_either() {
    let mut fleet = Fleet::of(3, |_| {});
    fleet.whole_round();
    fleet.restart();
    assert_eq!((fleet.engine.head().version(), fleet.open_round()), (1, None));
    fleet.whole_round();
    let digest = fleet.digest();
    fleet.restart();
    assert!(fleet.engine.finished());
    assert_eq!(
        (fleet.digest(), fleet.check_in(0)),
        (digest, vec!["send 0 catch-up 1 to 2".into(), "send 0 finished".into()])
    );
}

#[test]
fn a_round_number_is_not_used_again() {
    let mut fleet = opened_with_two_reports();
    fleet.tick_to(5_000);
    fleet.restart();
    fleet.check_in_all(0..4);
    assert_eq!(fleet.open_round(), Some(2));
}

#[test]
fn a_late_update_of_a_round_that_ended_before_a_restart_is_called_replayed() {
    // Ended rounds are remembered by the process alone; without that memory late and replayed look alike.
    let mut fleet = opened_with_two_reports();
    let late = fleet.update(1);
    fleet.tick_to(5_000);
    fleet.restart();
    assert_eq!(fleet.send(late), ["verdict rejected replayed"]);
}

#[test]
fn a_tampered_journal_is_an_error_that_names_the_update() {
    let fleet = opened_with_two_reports();
    let length = fleet.disk.stored.open[0].1[1].len();
    // The last byte of the words, one of the signature, the frame's magic.
    let signature = length - 16 * fleet.engine.plan().layout().blocks() - 1;
    for (byte, code) in [
        (length - 1, RejectionCode::PayloadDigest),
        (signature, RejectionCode::BadSignature),
        (0, RejectionCode::Malformed),
    ] {
        let (rejection, text) = journal_error(&fleet, |frames| frames[1][byte] ^= 1);
        assert_eq!(rejection, code);
        assert!(text.starts_with("journalled update 1 of round 1 does not verify: "), "{text}");
    }
}

#[test]
fn a_journal_that_is_cut_short_doubled_or_of_other_messages_is_an_error() {
    let fleet = opened_with_two_reports();
    let cut = |frames: &mut Vec<Vec<u8>>| frames[1].truncate(30);
    assert_eq!(journal_error(&fleet, cut).0, RejectionCode::Truncated);
    let doubled = |frames: &mut Vec<Vec<u8>>| frames[1] = frames[0].clone();
    assert_eq!(journal_error(&fleet, doubled).0, RejectionCode::Duplicate);
    let check_in: CheckIn = fleet.check_in_of(0);
    let other = |frames: &mut Vec<Vec<u8>>| frames[1] = Message::CheckIn(check_in.clone()).encode();
    assert_eq!(journal_error(&fleet, other).0, RejectionCode::Unexpected);
}

#[test]
fn a_head_that_does_not_fit_the_plan_is_an_error() {
    let mut fleet = Fleet::of(3, |_| {});
    fleet.whole_round();
    let mut stored = fleet.disk.stored.clone();
    stored.head.past[0][0].words.truncate(16);
    let error = restored(&fleet, fleet.engine.plan().raw().clone(), stored).unwrap_err();
    assert!(matches!(error, RestoreError::Head(HeadError::State(_))), "{error}");
}

#[test]
fn a_head_of_another_server_optimizer_is_an_error() {
    let fleet = opened_with_two_reports();
    let mut raw = fleet.engine.plan().raw().clone();
    raw.optimizer = crate::optimizer::ServerOptimizer::FedAvgM { rate: 1.0, momentum: 0.5 };
    assert!(restored(&fleet, raw, fleet.disk.stored.clone()).is_err(), "it has no velocity");
}

fn restored(fleet: &Fleet, raw: RawPlan, stored: Stored) -> Result<Engine, RestoreError> {
    let plan = std::sync::Arc::new(RunPlan::new(raw).unwrap());
    Engine::restore(plan, fleet.engine.registry.clone(), stored, fleet.now)
}

/// Why a journal is refused whose frames were changed.
fn journal_error(fleet: &Fleet, change: impl FnOnce(&mut Vec<Vec<u8>>)) -> (RejectionCode, String) {
    let mut stored = fleet.disk.stored.clone();
    change(&mut stored.open[0].1);
    let error = restored(fleet, fleet.engine.plan().raw().clone(), stored).unwrap_err();
    let text = error.to_string();
    match error {
        RestoreError::Journal { index: 1, rejection, .. } => (rejection.code, text),
        other => panic!("{other}"),
    }
}

fn opened_with_two_reports() -> Fleet {
    let mut fleet = Fleet::of(4, |raw| (raw.selection.min, raw.reporting.min) = (3, 3));
    fleet.check_in_all(0..4);
    fleet.report(2);
    fleet.report(0);
    fleet
}
