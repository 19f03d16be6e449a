//! What operators order of rounds, runs and workers.

use packfed_protocol::{Digest, RejectionCode, Round, Settings, Token};

use super::fleet::Fleet;
use crate::change::Change;
use crate::ledger::RoundOutcome;
use crate::registry::{Standing, token_digest};
use crate::resume::resume;

fn settings(change: impl FnOnce(&mut Settings)) -> Change {
    let mut settings = Settings::default();
    change(&mut settings);
    Change::Set(settings)
}

#[test]
fn a_paused_run_opens_no_round_until_it_is_resumed() {
    let mut fleet = Fleet::of(3, |_| {});
    assert!(fleet.done(Change::Pause).is_ok());
    fleet.check_in_all([0, 1, 2]);
    assert_eq!((fleet.open_round(), fleet.engine.deadline()), (None, None));
    assert_eq!(fleet.tick_to(90_000), [""; 0], "time abandons nothing");
    assert!(fleet.engine.status().paused);
    let again = fleet.done(Change::Pause).unwrap_err();
    assert_eq!(again.code, RejectionCode::NotPossible);
    assert!(fleet.done(Change::Unpause).is_ok());
    assert_eq!(fleet.open_round(), Some(1), "who waited is drawn at once");
}

#[test]
fn the_open_round_of_a_paused_run_goes_on_to_its_end() {
    let mut fleet = Fleet::of(3, |_| {});
    fleet.check_in_all([0, 1, 2]);
    assert!(fleet.done(Change::Pause).is_ok());
    (0..3).for_each(|i| drop(fleet.report(i)));
    assert_eq!(fleet.engine.head().version(), 1);
    fleet.check_in_all([0, 1, 2]);
    assert_eq!(fleet.open_round(), None);
}

#[test]
fn a_round_that_the_operator_ends_leaves_the_model_as_it_was() {
    let mut fleet = Fleet::of(3, |_| {});
    let none = fleet.done(Change::Abandon).unwrap_err();
    assert!(none.detail.starts_with("no round is open"), "{none}");
    fleet.check_in_all([0, 1, 2]);
    fleet.report(1);
    let digest = fleet.digest();
    assert_eq!(fleet.done(Change::Abandon), Ok(1));
    assert_eq!((fleet.open_round(), fleet.digest()), (None, digest));
    let past = &fleet.engine.past()[&Round(1)];
    assert_eq!((past.cohort, past.reports), (3, 1));
    assert_eq!(past.outcome, RoundOutcome::Abandoned("operator".to_owned()));
}

#[test]
fn what_is_set_shapes_the_next_round_and_not_the_open_one() {
    let mut fleet = Fleet::of(3, |_| {});
    fleet.check_in_all([0, 1, 2]);
    assert!(fleet.done(settings(|settings| settings.steps = Some(77))).is_ok());
    assert_ne!(fleet.engine.plan().raw().training.steps, 77);
    (0..3).for_each(|i| drop(fleet.report(i)));
    assert_eq!(fleet.engine.plan().raw().training.steps, 77);
    let wrong = fleet.done(settings(|settings| settings.learning_rate = Some(-1.0))).unwrap_err();
    assert!(wrong.detail.contains("learning_rate is -1"), "{wrong}");
    let resumed = resume(fleet.engine.plan().clone(), &fleet.disk.journal, fleet.now).unwrap();
    assert_eq!(resumed.plan().raw().training.steps, 77, "a restart has it as well");
    assert_eq!((resumed.conduct(), resumed.past()), (fleet.engine.conduct(), fleet.engine.past()));
}

#[test]
fn a_finished_run_goes_on_when_it_is_given_more_rounds() {
    let mut fleet = Fleet::of(3, |raw| raw.rounds = 1);
    fleet.whole_round();
    assert!(fleet.engine.finished());
    let fewer = fleet.done(settings(|settings| settings.rounds = Some(0))).unwrap_err();
    assert_eq!(fewer.code, RejectionCode::NotPossible);
    assert!(fleet.done(settings(|settings| settings.rounds = Some(2))).is_ok());
    fleet.check_in_all([0, 1, 2]);
    assert_eq!(fleet.open_round(), Some(2));
}

#[test]
fn tokens_that_are_added_enrol_and_labels_are_kept_by_a_worker_that_is_revoked_for_a_while() {
    let mut fleet = Fleet::of(3, |_| {});
    let token = token_digest(&Token([9; 16]));
    assert!(fleet.done(Change::Tokens(vec![token])).is_ok());
    assert!(fleet.engine.registry().tokens().contains(&token));
    let worker = fleet.id(0);
    let label = |name: &str, value: &str| Change::Label { worker, labels: vec![(name.into(), value.into())] };
    assert!(fleet.done(label("channel", "beta")).is_ok());
    assert!(fleet.done(label("region", "eu")).is_ok());
    assert!(fleet.done(label("channel", "")).is_ok());
    let labels = fleet.engine.registry().labels_of(&worker).unwrap().clone();
    assert_eq!(labels, [("region".to_owned(), "eu".to_owned())].into());
    fleet.stand(worker, Standing::Revoked);
    assert!(!fleet.engine.registry().followers().contains_key(&worker));
    fleet.stand(worker, Standing::Admitted);
    assert_eq!(fleet.engine.registry().followers()[&worker], labels);
    let nameless = fleet.done(label("", "x")).unwrap_err();
    assert!(nameless.detail.contains("empty name"), "{nameless}");
    let resumed = resume(fleet.engine.plan().clone(), &fleet.disk.journal, fleet.now).unwrap();
    assert_eq!(resumed.registry().labels_of(&worker), Some(&labels));
    assert_eq!(Digest(token.0), token);
}
