//! Rollouts among workers that come and go: who is told to run what.

use packfed_protocol::{
    Digest, Evaluation, Failure, Paired, ReleaseOutcome, ReleaseRef, ReleaseState, RolloutVerb, Tried,
};

use super::fleet::Fleet;
use crate::change::Change;
use crate::event::Event;
use crate::registry::Standing;
use crate::resume::resume;
use crate::rollout::{Gates, OnFailure, Spec, Stage, Target, WHOLE};

fn release(number: u64) -> ReleaseRef {
    ReleaseRef { number, digest: Digest([u8::try_from(number).unwrap(); 32]) }
}

fn spec(shares: &[u32]) -> Spec {
    Spec {
        channel: "stable".to_owned(),
        target: Target::default(),
        stages: shares.iter().map(|&share| Stage { share, soak_ms: 100, reports_min: 1 }).collect(),
        gates: Gates::default(),
        on_failure: OnFailure::RollBack,
        patience_ms: 1_000,
    }
}

fn start(number: u64, shares: &[u32]) -> Change {
    Change::Start { release: release(number), spec: spec(shares) }
}

fn evaluated(increase: f64) -> ReleaseOutcome {
    let pairs: Vec<_> = (0..40).map(|n| (1.0, 1.0 + increase + 0.001 * f64::from(n % 2))).collect();
    let loss = Paired::of(&pairs).unwrap();
    ReleaseOutcome::Evaluated(Evaluation { examples: 40, loss, accuracy: None, latency_ms: None })
}

impl Fleet {
    /// A worker says what it runs and what it tried.
    fn says(&mut self, i: usize, runs: Option<u64>, tried: Option<(u64, ReleaseOutcome)>) -> Vec<String> {
        let tried = tried.map(|(number, outcome)| Tried { release: release(number), outcome });
        let state = ReleaseState { runs: runs.map(release), tried };
        let mut said = self.handle(Event::ReleaseState { worker: self.id(i), state });
        said.retain(|line| line.starts_with("offer"));
        said
    }

    fn offers(&mut self, change: Change) -> Vec<String> {
        let mut said = self.order(change);
        said.retain(|line| line.starts_with("offer"));
        said
    }
}

#[test]
fn a_release_reaches_who_is_there_and_who_comes_later() {
    let mut fleet = Fleet::of(3, |_| {});
    assert_eq!(fleet.says(0, None, None), [""; 0], "there is no rollout");
    assert_eq!(fleet.offers(start(1, &[WHOLE])), ["offer 0 release 1"]);
    assert_eq!(fleet.says(1, None, None), ["offer 1 release 1"]);
    assert_eq!(fleet.says(1, Some(1), Some((1, evaluated(0.0)))), [""; 0], "it runs it");
    let suspended = fleet.suspended();
    assert_eq!(fleet.says(suspended, None, None), [""; 0], "it may not take part");
    fleet.tick_to(100);
    assert_eq!(fleet.engine.rollouts().records()[&1].phase.name(), "completed");
    assert_eq!(fleet.says(2, None, None), ["offer 2 release 1"], "everybody gets it");
}

#[test]
fn a_worker_that_was_told_of_an_aborted_release_is_told_to_stay() {
    let mut fleet = Fleet::of(3, |_| {});
    (0..3).for_each(|i| drop(fleet.says(i, None, None)));
    let offered = fleet.offers(start(1, &[WHOLE]));
    assert_eq!(offered, ["offer 0 release 1", "offer 1 release 1", "offer 2 release 1"]);
    fleet.says(1, Some(1), Some((1, evaluated(0.0))));
    let abort = Change::Steer { rollout: 1, verb: RolloutVerb::Abort };
    assert_eq!(fleet.offers(abort), ["offer 0 base", "offer 1 base", "offer 2 base"]);
    assert_eq!(fleet.says(0, None, None), [""; 0]);
    assert_eq!(fleet.says(1, None, Some((1, evaluated(0.0)))), [""; 0]);
}

#[test]
fn a_worker_that_failed_is_not_given_the_release_again() {
    let mut fleet = Fleet::of(3, |_| {});
    fleet.done(start(1, &[WHOLE])).unwrap();
    assert_eq!(fleet.says(0, None, None), ["offer 0 release 1"]);
    let failed = (1, ReleaseOutcome::Failed(Failure::Download));
    assert_eq!(fleet.says(0, None, Some(failed)), [""; 0]);
    assert_eq!(fleet.says(0, None, Some(failed)), [""; 0], "nor when it comes again");
    let record = &fleet.engine.rollouts().records()[&1];
    assert_eq!((record.found.not_fetched, record.in_stage), (1, 1), "it counts once");
}

#[test]
fn a_bad_release_goes_back_by_itself_and_a_restart_knows_of_it() {
    let mut fleet = Fleet::of(3, |_| {});
    fleet.done(start(1, &[WHOLE])).unwrap();
    (0..3).for_each(|i| drop(fleet.says(i, Some(1), Some((1, evaluated(0.0))))));
    fleet.tick_to(200);
    fleet.done(start(2, &[10_000, WHOLE])).unwrap();
    let given: Vec<usize> = (0..3).filter(|&i| !fleet.says(i, Some(1), None).is_empty()).collect();
    let [first] = given[..] else { panic!("one worker is a hundredth of three: {given:?}") };
    let back = fleet.says(first, Some(2), Some((2, evaluated(0.9))));
    assert_eq!(back, [format!("offer {first} release 1")]);
    assert_eq!(fleet.engine.rollouts().records()[&2].phase.name(), "rolled back");
    let resumed = resume(fleet.engine.plan().clone(), &fleet.disk.journal, fleet.now).unwrap();
    assert_eq!(resumed.rollouts(), fleet.engine.rollouts());
}

#[test]
fn who_could_not_fetch_the_way_back_is_told_again() {
    let mut fleet = Fleet::of(3, |_| {});
    fleet.done(start(1, &[WHOLE])).unwrap();
    (0..3).for_each(|i| drop(fleet.says(i, Some(1), Some((1, evaluated(0.0))))));
    fleet.tick_to(200);
    fleet.done(start(2, &[WHOLE])).unwrap();
    fleet.says(0, Some(2), Some((2, evaluated(0.0))));
    fleet.done(Change::Steer { rollout: 2, verb: RolloutVerb::RollBack }).unwrap();
    let failed = |failure| Some((1, ReleaseOutcome::Failed(failure)));
    assert_eq!(fleet.says(0, Some(2), failed(Failure::Download)), ["offer 0 release 1"]);
    assert_eq!(fleet.says(0, Some(2), failed(Failure::Verify)), [""; 0], "it would say the same without end");
    assert_eq!(fleet.says(0, None, failed(Failure::Download)), [""; 0], "it has not run anything later");
}

#[test]
fn a_restart_looks_at_the_time_that_went_by() {
    let mut fleet = Fleet::of(3, |_| {});
    fleet.done(start(1, &[WHOLE])).unwrap();
    fleet.says(0, Some(1), Some((1, evaluated(0.0))));
    let mut resumed = resume(fleet.engine.plan().clone(), &fleet.disk.journal, fleet.now.plus(500)).unwrap();
    assert!(resumed.deadline().is_some_and(|at| at <= fleet.now));
    resumed.handle(Event::Tick, fleet.now.plus(500));
    assert_eq!(resumed.rollouts().records()[&1].phase.name(), "completed");
}

#[test]
fn who_may_not_take_part_is_told_when_to_come_and_say_again_what_it_runs() {
    let mut fleet = Fleet::of(3, |_| {});
    fleet.done(start(1, &[WHOLE])).unwrap();
    let until = fleet.now.plus(500);
    let (worker, state) = (fleet.id(0), ReleaseState { runs: None, tried: None });
    assert_eq!(fleet.says(0, None, None), ["offer 0 release 1"]);
    fleet.stand(worker, Standing::Suspended(until));
    let said = fleet.handle(Event::ReleaseState { worker, state });
    assert_eq!(said, ["send 0 come-back suspended"]);
    assert_eq!(fleet.offers(Change::Steer { rollout: 1, verb: RolloutVerb::Abort }), [""; 0], "it is not there");
    fleet.done(start(2, &[WHOLE])).unwrap();
    fleet.tick_to(501);
    assert_eq!(fleet.says(0, None, None), ["offer 0 release 2"]);
}

#[test]
fn a_label_leads_to_another_channel_at_once() {
    let mut fleet = Fleet::of(3, |_| {});
    let beta = Spec { channel: "beta".to_owned(), ..spec(&[WHOLE]) };
    (0..2).for_each(|i| drop(fleet.says(i, None, None)));
    assert_eq!(fleet.offers(Change::Start { release: release(1), spec: beta }), [""; 0]);
    let (worker, labels) = (fleet.id(1), vec![("channel".to_owned(), "beta".to_owned())]);
    assert_eq!(fleet.offers(Change::Label { worker, labels }), ["offer 1 release 1"]);
    let labels = vec![("channel".to_owned(), String::new())];
    assert_eq!(fleet.offers(Change::Label { worker, labels }), ["offer 1 base"]);
}
