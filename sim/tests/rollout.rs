//! Rollouts over 100,000 virtual workers that come and go: the machine that ships, in virtual time.
//!
//! ```text
//!   worker:  away ──► there: asks what to run ──► told ──► fetches ──► evaluates, runs, reports ──► asks again …
//!              ▲                                                            │
//!              └──────────────── goes at any moment ◄───────────────────────┘
//! ```
//!
//! A message takes its time, a worker that goes while it fetches is back where it was, and new ones enrol all along.

#![expect(clippy::unwrap_used, reason = "a test")]

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet, BinaryHeap};

use packfed_codec::{Seed, Stream};
use packfed_coordinator::rollout::{
    Book, Effect, Evaluation, Fleet, Gates, Labels, OnFailure, Outcome, Paired, Phase, ReleaseRef, Report, Spec, Stage,
    Target, Verb, WHOLE,
};
use packfed_protocol::{Digest, Timestamp, WorkerId};

const WORKERS: u32 = 100_000;
const HOUR_MS: u64 = 3_600_000;
const EXAMPLES_MAX: u32 = 1_000;

/// What happens to a worker.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Happening {
    Comes,
    Goes,
    /// Its question arrives at the coordinator.
    Asks,
    /// The answer arrives at the worker.
    Told(Option<u64>),
    /// It runs what it fetched.
    Runs(u64),
    /// Its report arrives at the coordinator.
    Reports(u64),
}

#[derive(Clone, Debug, Default)]
struct Worker {
    there: bool,
    running: Option<u64>,
    fetching: Option<u64>,
    /// When it asks next.
    asks: u64,
    /// Whether the end of the aborted rollout has reached it.
    knows_of_the_end: bool,
}

struct World {
    now: u64,
    /// Workers at the beginning.
    first: u32,
    stream: Stream,
    queue: BinaryHeap<Reverse<(u64, u32, Happening)>>,
    workers: Vec<Worker>,
    fleet: Fleet,
    book: Book,
    /// What a release does to the loss.
    increase: BTreeMap<u64, f64>,
    /// Who was ever told to run a release.
    exposed: BTreeMap<u64, BTreeSet<u32>>,
    ended: Option<u64>,
}

fn id(worker: u32) -> WorkerId {
    let mut key = [0; 32];
    key[..4].copy_from_slice(&worker.to_le_bytes());
    WorkerId(key)
}

fn release(number: u64) -> ReleaseRef {
    ReleaseRef { number, digest: Digest::of(&number.to_le_bytes()) }
}

/// Of a fleet of so many.
fn spec(workers: u32) -> Spec {
    let stage = |share, reports_min| Stage { share, soak_ms: 6 * HOUR_MS, reports_min };
    Spec {
        channel: "stable".to_owned(),
        target: Target::default(),
        stages: vec![
            stage(10_000, workers / 500),
            stage(100_000, workers / 100),
            stage(500_000, workers / 20),
            stage(WHOLE, workers / 20),
        ],
        gates: Gates::default(),
        on_failure: OnFailure::RollBack,
        patience_ms: 48 * HOUR_MS,
    }
}

impl World {
    fn new(seed: u64, workers: u32) -> Self {
        let mut world = Self {
            now: 0,
            first: workers,
            stream: Seed::from_number(seed).stream(),
            queue: BinaryHeap::new(),
            workers: Vec::new(),
            fleet: Fleet::new(),
            book: Book::default(),
            increase: BTreeMap::new(),
            exposed: BTreeMap::new(),
            ended: None,
        };
        (0..workers).for_each(|_| world.enroll());
        world
    }

    fn enroll(&mut self) {
        let worker = u32::try_from(self.workers.len()).unwrap();
        self.workers.push(Worker::default());
        self.fleet.insert(id(worker), Labels::new());
        let after = self.stream.below(8 * HOUR_MS);
        self.after(after, worker, Happening::Comes);
    }

    fn after(&mut self, ms: u64, worker: u32, happening: Happening) {
        self.queue.push(Reverse((self.now + ms, worker, happening)));
    }

    fn ask_after(&mut self, ms: u64, worker: u32) {
        self.workers[worker as usize].asks = self.now + ms;
        self.after(ms, worker, Happening::Asks);
    }

    fn start(&mut self, number: u64, increase: f64) -> u64 {
        self.increase.insert(number, increase);
        let now = Timestamp(self.now);
        self.book.start(release(number), spec(self.first), "sim", String::new(), &self.fleet, now).unwrap().0
    }

    /// Lets everything happen until a moment; the fleet grows by one worker a minute meanwhile.
    fn pass_to(&mut self, end: u64) {
        while let Some(Reverse((at, worker, happening))) = self.queue.peek().copied().filter(|next| next.0.0 <= end) {
            self.queue.pop();
            if at / 60_000 > self.now / 60_000 {
                self.enroll();
                self.now = at;
                let effects = self.book.tick(&self.fleet, Timestamp(at));
                self.look_at(&effects);
            }
            self.now = at;
            self.happens(worker, happening);
        }
        self.now = end;
    }

    fn happens(&mut self, worker: u32, happening: Happening) {
        let there = self.workers[worker as usize].there;
        match happening {
            Happening::Comes => {
                self.workers[worker as usize].there = true;
                let (stay, latency) = (HOUR_MS / 4 + self.stream.below(6 * HOUR_MS), self.latency());
                self.after(stay, worker, Happening::Goes);
                self.ask_after(latency, worker);
            }
            Happening::Goes => {
                let state = &mut self.workers[worker as usize];
                (state.there, state.fetching) = (false, None);
                let away = HOUR_MS / 2 + self.stream.below(12 * HOUR_MS);
                self.after(away, worker, Happening::Comes);
            }
            Happening::Asks if !there || self.workers[worker as usize].asks != self.now => {}
            Happening::Asks => {
                let desired = self.book.desired(&id(worker), &Labels::new()).map(|release| release.number);
                if let Some(number) = desired {
                    assert!(Some(number) != self.ended, "nobody is told to run what was ended");
                    self.exposed.entry(number).or_default().insert(worker);
                }
                let latency = self.latency();
                self.after(latency, worker, Happening::Told(desired));
            }
            Happening::Told(desired) if there => self.told(worker, desired),
            Happening::Runs(number) if there && self.workers[worker as usize].fetching == Some(number) => {
                let state = &mut self.workers[worker as usize];
                assert!(!(state.knows_of_the_end && Some(number) == self.ended), "it knows better");
                (state.running, state.fetching) = (Some(number), None);
                let latency = self.latency();
                self.after(latency, worker, Happening::Reports(number));
            }
            Happening::Reports(number) => self.reports(worker, number),
            Happening::Told(_) | Happening::Runs(_) => {}
        }
    }

    fn told(&mut self, worker: u32, desired: Option<u64>) {
        let fetch = 1_000 + self.stream.below(120_000);
        let again = HOUR_MS + self.stream.below(HOUR_MS);
        let ended = self.ended;
        let state = &mut self.workers[worker as usize];
        state.knows_of_the_end |= ended.is_some() && desired != ended;
        if state.running != desired {
            match desired {
                // What it ran before is kept, and so is the base.
                None => state.running = None,
                Some(number) if state.running > Some(number) => state.running = Some(number),
                Some(number) => {
                    state.fetching = Some(number);
                    self.after(fetch, worker, Happening::Runs(number));
                }
            }
        }
        self.ask_after(again, worker);
    }

    fn reports(&mut self, worker: u32, number: u64) {
        let examples = 10 + u32::try_from(self.stream.below(90)).unwrap();
        let increase = self.increase[&number] + 0.05 * (self.stream.unit() - 0.5);
        let loss =
            Paired { before: 1.0, after: 1.0 + increase, squares: f64::from(examples) * (increase * increase + 0.01) };
        let outcome = Outcome::Evaluated(Evaluation { examples, loss, accuracy: None, latency_ms: None });
        let now = Timestamp(self.now);
        // It may have been told something else since; then what it says is of no interest.
        let labels = Labels::new();
        let report = Report { worker: id(worker), labels: &labels, release: release(number), outcome: &outcome };
        let told = self.book.report(&report, EXAMPLES_MAX, &self.fleet, now);
        self.look_at(&told.unwrap_or_default());
    }

    /// A rollout that moved to another stage has taken in whom it should.
    fn look_at(&mut self, effects: &[Effect]) {
        let Some(Effect::Store(record)) = effects.iter().rfind(|effect| matches!(effect, Effect::Store(_))) else {
            return;
        };
        if !effects.contains(&Effect::Changed) {
            return;
        }
        let number = record.release.number;
        let on = self.on(number);
        match record.phase {
            Phase::Soaking { .. } => {
                let share = f64::from(record.stage().unwrap().share) / f64::from(WHOLE);
                let found = on.len() as f64 / self.workers.len() as f64;
                assert!((found - share).abs() < 0.01, "{found} of {share}");
                let before = self.exposed.get(&number).into_iter().flatten();
                assert!(before.into_iter().all(|worker| on.contains(worker)), "stages nest");
            }
            Phase::Paused { .. } | Phase::Completed => {}
            Phase::Aborted | Phase::RolledBack => {
                assert!(on.is_empty());
                self.ended = Some(number);
            }
        }
    }

    /// Who is to run a release.
    fn on(&self, number: u64) -> BTreeSet<u32> {
        let desired = |worker: &u32| self.book.desired(&id(*worker), &Labels::new()).map(|release| release.number);
        (0..u32::try_from(self.workers.len()).unwrap()).filter(|worker| desired(worker) == Some(number)).collect()
    }

    fn running(&self, number: u64) -> usize {
        self.workers.iter().filter(|worker| worker.running == Some(number)).count()
    }

    fn latency(&mut self) -> u64 {
        20 + self.stream.below(400)
    }

    fn phase(&self, rollout: u64) -> &'static str {
        self.book.records()[&rollout].phase.name()
    }
}

/// A good release reaches everybody, then a bad one hardly anybody.
fn good_then_bad(seed: u64, workers: u32) -> World {
    let mut world = World::new(seed, workers);
    let good = world.start(1, 0.0);
    world.pass_to(50 * HOUR_MS);
    assert_eq!(world.phase(good), "completed");
    assert!(world.running(1) > workers as usize / 10 * 9, "{} run it", world.running(1));
    let bad = world.start(2, 0.4);
    world.pass_to(90 * HOUR_MS);
    assert_eq!(world.phase(bad), "rolled back");
    world
}

#[test]
fn a_bad_release_is_seen_by_its_first_stage_alone_and_leaves_nobody_behind() {
    let world = good_then_bad(1, WORKERS);
    let exposed = world.exposed[&2].len();
    assert!(exposed > 100 && exposed <= world.workers.len() / 90, "{exposed} were told of it");
    assert_eq!(world.running(2), 0);
}

#[test]
fn nobody_gets_an_aborted_release_once_the_abort_has_reached_it() {
    let mut world = World::new(2, WORKERS);
    let rollout = world.start(1, 0.0);
    // In the middle of the third stage, with many on their way.
    world.pass_to(15 * HOUR_MS);
    assert_eq!(world.book.records()[&rollout].phase.stage(), Some(2));
    let (fleet, now) = (world.fleet.clone(), Timestamp(world.now));
    let effects = world.book.order(rollout, Verb::Abort, "sim", "a test".to_owned(), &fleet, now).unwrap();
    let (running, fetching) =
        (world.running(1), world.workers.iter().filter(|worker| worker.fetching.is_some()).count());
    assert!(running > 10_000 && fetching > 10, "{running} run it, {fetching} fetch it");
    world.look_at(&effects);
    world.pass_to(60 * HOUR_MS);
    assert_eq!(world.running(1), 0);
}

#[test]
fn one_seed_is_one_run() {
    let [one, other] = [1, 1].map(|seed| good_then_bad(seed, WORKERS / 10));
    assert_eq!(one.book, other.book);
    assert_eq!(one.exposed, other.exposed);
}
