//! A rollout from its start to each of its ends.

use packfed_protocol::{Digest, Timestamp, WorkerId};

use super::*;

const MAX: u32 = 1000;

fn worker(n: u32) -> WorkerId {
    let mut key = [0; 32];
    key[..4].copy_from_slice(&n.to_le_bytes());
    WorkerId(key)
}

fn release(number: u64) -> ReleaseRef {
    ReleaseRef { number, digest: Digest([u8::try_from(number).unwrap(); 32]) }
}

fn labels(pairs: &[(&str, &str)]) -> Labels {
    pairs.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect()
}

fn spec() -> Spec {
    let stage = |share, reports_min| Stage { share, soak_ms: 100, reports_min };
    Spec {
        channel: STABLE.to_owned(),
        target: Target::default(),
        stages: vec![stage(50_000, 1), stage(250_000, 2), stage(WHOLE, 4)],
        gates: Gates::default(),
        on_failure: OnFailure::RollBack,
        patience_ms: 500,
    }
}

fn evaluated(increase: f64) -> Outcome {
    let paired = |before: f64, change: f64| Paired {
        before,
        after: before + change,
        squares: 50.0 * (change * change + 0.0001),
    };
    Outcome::Evaluated(Evaluation {
        examples: 50,
        loss: paired(1.0, increase),
        accuracy: Some(paired(0.8, 0.0)),
        latency_ms: None,
    })
}

/// A book and a fleet of 20 whose clock the test owns.
struct Story {
    book: Book,
    fleet: Fleet,
    now: u64,
}

impl Story {
    fn new() -> Self {
        Self { book: Book::default(), fleet: (0..20).map(|n| (worker(n), Labels::new())).collect(), now: 1000 }
    }

    fn start(&mut self, number: u64, spec: Spec) -> Result<u64, Refusal> {
        let started = self.book.start(release(number), spec, "ann", "better".into(), &self.fleet, Timestamp(self.now));
        started.map(|(number, _)| number)
    }

    fn order(&mut self, number: u64, verb: Verb) -> Result<Vec<Effect>, Refusal> {
        self.book.order(number, verb, "ann", "because".into(), &self.fleet, Timestamp(self.now))
    }

    fn pass(&mut self, ms: u64) {
        self.now += ms;
        self.book.tick(&self.fleet, Timestamp(self.now));
    }

    /// Who is to run a release.
    fn on(&self, number: u64) -> Vec<WorkerId> {
        let runs = |(worker, labels): (&WorkerId, &Labels)| {
            (self.book.desired(worker, labels) == Some(release(number))).then_some(*worker)
        };
        self.fleet.iter().filter_map(runs).collect()
    }

    fn report(&mut self, worker: WorkerId, number: u64, outcome: &Outcome) -> Result<Vec<Effect>, Refusal> {
        let labels = self.fleet[&worker].clone();
        let report = Report { worker, labels: &labels, release: release(number), outcome };
        self.book.report(&report, MAX, &self.fleet, Timestamp(self.now))
    }

    /// All that are to run it say that it is no worse.
    fn report_all(&mut self, number: u64) {
        for worker in self.on(number) {
            self.report(worker, number, &evaluated(0.001)).unwrap();
        }
    }

    fn phase(&self, number: u64) -> &'static str {
        self.book.records()[&number].phase.name()
    }

    fn why(&self, number: u64) -> String {
        self.book.records()[&number].history.last().unwrap().why.clone()
    }

    /// Goes through all stages.
    fn complete(&mut self, number: u64) -> u64 {
        let rollout = self.start(number, spec()).unwrap();
        for _ in 0..3 {
            self.report_all(number);
            self.pass(100);
        }
        assert_eq!(self.phase(rollout), "completed");
        rollout
    }
}

#[test]
fn a_good_release_goes_stage_by_stage_to_everybody() {
    let mut story = Story::new();
    let rollout = story.start(1, spec()).unwrap();
    let mut before = Vec::new();
    for expected in [1, 5, 20] {
        let on = story.on(1);
        assert_eq!(on.len(), expected);
        assert!(before.iter().all(|worker| on.contains(worker)), "stages nest");
        story.report_all(1);
        story.pass(99);
        assert_eq!(story.on(1), on, "it soaks");
        story.pass(1);
        before = on;
    }
    assert_eq!(story.phase(rollout), "completed");
    assert_eq!(story.book.active(STABLE), None);
    let history: Vec<_> = story.book.records()[&rollout]
        .history
        .iter()
        .map(|change| (change.what.as_str(), change.by.as_str()))
        .collect();
    assert_eq!(
        history,
        [("start", "ann"), ("stage passed", BY_ITSELF), ("stage passed", BY_ITSELF), ("stage passed", BY_ITSELF)]
    );
}

#[test]
fn a_bad_release_goes_back_by_itself_after_the_first_stage() {
    let mut story = Story::new();
    story.complete(1);
    let rollout = story.start(2, spec()).unwrap();
    let first = story.on(2);
    assert_eq!((first.len(), story.on(1).len()), (1, 19));
    story.report(first[0], 2, &evaluated(4.0)).unwrap();
    assert_eq!((story.phase(rollout), story.on(2).len(), story.on(1).len()), ("rolled back", 0, 20));
    assert!(story.why(rollout).starts_with("loss is worse by 3.99"), "{}", story.why(rollout));
}

#[test]
fn a_failed_gate_may_pause_instead() {
    let mut story = Story::new();
    let rollout = story.start(1, Spec { on_failure: OnFailure::Pause, ..spec() }).unwrap();
    let first = story.on(1);
    story.report(first[0], 1, &evaluated(4.0)).unwrap();
    assert_eq!((story.phase(rollout), story.on(1)), ("paused", first.clone()), "who has it keeps it");
    story.pass(10_000);
    assert_eq!(story.phase(rollout), "paused");
    story.order(rollout, Verb::Resume).unwrap();
    story.report(first[0], 1, &evaluated(0.0)).unwrap();
    story.pass(100);
    assert_eq!(story.on(1).len(), 5, "it is judged anew");
}

#[test]
fn silence_pauses_a_rollout_and_says_why() {
    let mut story = Story::new();
    let rollout = story.start(1, spec()).unwrap();
    assert_eq!(story.book.deadline(Timestamp(story.now)), Some(Timestamp(1100)));
    story.pass(599);
    assert_eq!(story.book.deadline(Timestamp(story.now)), Some(Timestamp(1600)));
    assert_eq!(story.phase(rollout), "soaking");
    story.pass(1);
    assert_eq!((story.phase(rollout), story.why(rollout).as_str()), ("paused", "0 workers reported in time, 1 must"));
}

#[test]
fn a_gate_that_nothing_decides_pauses_in_the_end() {
    let mut story = Story::new();
    let rollout = story.start(1, spec()).unwrap();
    // Worse by what is allowed, give or take.
    story.report(story.on(1)[0], 1, &evaluated(0.0499)).unwrap();
    story.pass(100);
    assert_eq!(story.phase(rollout), "soaking");
    story.pass(500);
    assert_eq!(story.phase(rollout), "paused");
    assert!(story.why(rollout).starts_with("undecided in time: loss is worse by 0.04"), "{}", story.why(rollout));
}

#[test]
fn crashes_take_a_release_back() {
    let mut story = Story::new();
    let rollout = story.start(1, spec()).unwrap();
    story.report(story.on(1)[0], 1, &Outcome::Failed(Failure::Crash)).unwrap();
    assert_eq!((story.phase(rollout), story.on(1).len()), ("rolled back", 0));
    assert!(story.why(rollout).starts_with("crash rate is worse by 0.26"), "{}", story.why(rollout));
}

#[test]
fn every_verb_is_done_where_it_can_be_and_refused_elsewhere() {
    use Verb::{Abort, Pause, Promote, Resume, RollBack, Undo};
    let mut story = Story::new();
    let rollout = story.start(1, spec()).unwrap();
    let refused = |story: &mut Story, verbs: &[Verb]| {
        for &verb in verbs {
            assert!(
                matches!(story.order(rollout, verb), Err(Refusal::Phase { .. })),
                "{verb:?} while {}",
                story.phase(rollout)
            );
        }
    };
    refused(&mut story, &[Resume, Undo]);
    story.order(rollout, Pause).unwrap();
    refused(&mut story, &[Pause]);
    story.order(rollout, Promote).unwrap();
    assert_eq!((story.phase(rollout), story.on(1).len()), ("soaking", 5), "whatever the gates say");
    story.order(rollout, Undo).unwrap();
    assert_eq!((story.phase(rollout), story.on(1).len()), ("paused", 1));
    story.order(rollout, Abort).unwrap();
    assert_eq!((story.phase(rollout), story.on(1).len()), ("aborted", 0));
    refused(&mut story, &[Abort, Pause, Resume, Promote, RollBack]);
    story.order(rollout, Undo).unwrap();
    assert_eq!((story.phase(rollout), story.on(1).len()), ("paused", 1));
    (0..3).for_each(|_| drop(story.order(rollout, Promote).unwrap()));
    refused(&mut story, &[Promote, Pause, Resume, Abort]);
    story.order(rollout, RollBack).unwrap();
    assert_eq!((story.phase(rollout), story.on(1).len()), ("rolled back", 0));
    story.order(rollout, Undo).unwrap();
    assert_eq!((story.phase(rollout), story.on(1).len()), ("completed", 20));
    assert_eq!(story.order(7, Pause), Err(Refusal::Unknown(7)));
    assert_eq!(story.order(7, Pause).unwrap_err().to_string(), "there is no rollout 7; `rollout history` lists them");
}

#[test]
fn a_channel_has_one_rollout_at_a_time_and_only_newer_releases() {
    let mut story = Story::new();
    let first = story.start(2, spec()).unwrap();
    assert!(matches!(story.start(3, spec()), Err(Refusal::Busy { active: 1, .. })));
    let beta = story.start(3, Spec { channel: "beta".into(), ..spec() }).unwrap();
    assert_eq!((first, beta), (1, 2), "another channel is free");
    (0..3).for_each(|_| drop(story.order(first, Verb::Promote).unwrap()));
    assert!(matches!(story.start(2, spec()), Err(Refusal::Older { newest: 2, release: 2, .. })));
    let again = story.start(3, spec()).unwrap();
    assert_eq!(story.order(first, Verb::RollBack), Err(Refusal::Overtaken { number: first, later: again }));
}

#[test]
fn labels_say_who_is_meant() {
    let mut story = Story::new();
    for n in 0..10 {
        story.fleet.insert(worker(n), labels(&[("region", "eu")]));
    }
    story.fleet.insert(worker(0), labels(&[("region", "eu"), ("channel", "beta")]));
    let target = Target { only: labels(&[("region", "eu")]), except: Labels::new() };
    let rollout = story.start(1, Spec { target, ..spec() }).unwrap();
    (0..3).for_each(|_| drop(story.order(rollout, Verb::Promote).unwrap()));
    assert_eq!(story.on(1), (1..10).map(worker).collect::<Vec<_>>());
}

#[test]
fn reports_that_are_not_asked_for_count_for_nothing() {
    let mut story = Story::new();
    let rollout = story.start(1, spec()).unwrap();
    let (first, other) = (story.on(1)[0], *story.fleet.keys().find(|worker| !story.on(1).contains(worker)).unwrap());
    assert_eq!(story.report(other, 1, &evaluated(9.0)), Err(Refusal::NotIts(1)));
    let forged = ReleaseRef { digest: Digest([9; 32]), ..release(1) };
    let labels = Labels::new();
    let outcome = evaluated(9.0);
    let report = Report { worker: first, labels: &labels, release: forged, outcome: &outcome };
    let told = story.book.report(&report, MAX, &story.fleet, Timestamp(story.now));
    assert_eq!(told, Err(Refusal::NotIts(1)));
    let nan = Paired { before: 1.0, after: f64::NAN, squares: 1.0 };
    let nonsense = Outcome::Evaluated(Evaluation { examples: 5, loss: nan, accuracy: None, latency_ms: None });
    assert!(matches!(story.report(first, 1, &nonsense), Err(Refusal::Report(_))));
    story.report(first, 1, &evaluated(0.0)).unwrap();
    assert_eq!(story.report(first, 1, &evaluated(9.0)), Ok(Vec::new()), "once is enough");
    assert_eq!((story.phase(rollout), story.book.records()[&rollout].found.reports()), ("soaking", 1));
}

#[test]
fn what_is_stored_makes_the_same_book() {
    let mut story = Story::new();
    let (mut records, mut reported) =
        (std::collections::BTreeMap::new(), std::collections::BTreeMap::<u64, std::collections::BTreeSet<_>>::new());
    let mut keep = |effects: Vec<Effect>| {
        for effect in effects {
            match effect {
                Effect::Store(record) => drop(records.insert(record.number, *record)),
                Effect::Reported { rollout, worker } => drop(reported.entry(rollout).or_default().insert(worker)),
                Effect::Forget { rollout } => drop(reported.remove(&rollout)),
                Effect::Changed => {}
            }
        }
    };
    let (_, effects) =
        story.book.start(release(1), spec(), "ann", String::new(), &story.fleet, Timestamp(1000)).unwrap();
    keep(effects);
    for _ in 0..2 {
        for worker in story.on(1) {
            keep(story.report(worker, 1, &evaluated(0.0)).unwrap());
        }
        story.now += 100;
        keep(story.book.tick(&story.fleet, Timestamp(story.now)));
    }
    for verb in [Verb::Pause, Verb::Resume] {
        keep(story.order(1, verb).unwrap());
    }
    for worker in story.on(1) {
        keep(story.report(worker, 1, &evaluated(0.0)).unwrap());
    }
    assert_eq!(story.book.records()[&1].in_stage, 20, "it is judged by all of them anew");
    assert_eq!(Book::new(records, reported), story.book);
    assert_eq!(story.book.records()[&1].phase.stage(), Some(2));
}
