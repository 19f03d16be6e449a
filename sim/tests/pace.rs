//! A fleet of 100,000 workers, the engine and the sessions that ship, in virtual time: what arrives in a second.
//!
//! Few are needed and few are held, so nearly all that a worker does is to check in and be told when to come back. A
//! connection stands at once or, while nobody is there, fails at once, and a message takes no time: what is counted is
//! what the pace makes of it.

#![expect(clippy::panic, reason = "what has no place in this fleet fails the test")]

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet, BinaryHeap};
use std::sync::Arc;

use packfed_codec::{LayerSpec, Profile, Seed};
use packfed_coordinator::aggregation::Aggregation;
use packfed_coordinator::eligibility::Eligibility;
use packfed_coordinator::engine::Engine;
use packfed_coordinator::event::{Effect as Asked, Event as Told};
use packfed_coordinator::memory_store::MemoryStore;
use packfed_coordinator::optimizer::ServerOptimizer;
use packfed_coordinator::pace::Pace;
use packfed_coordinator::plan::{Phase, RawPlan, RunPlan, Training};
use packfed_coordinator::registry::{Member, Registry, Standing};
use packfed_coordinator::resume::resume;
use packfed_coordinator::store::Store;
use packfed_coordinator::strikes::Strikes;
use packfed_protocol::{Digest, Identity, Message, RunId, Timestamp, WorkerId};
use packfed_worker::session::{Effect, Event, Session};

const WORKERS: usize = 100_000;
const PER_SECOND: u32 = 100;
/// Seconds in which each of the fleet comes once, at the rate.
const WINDOW_S: u64 = WORKERS as u64 / PER_SECOND as u64;
/// A Poisson count of this mean is larger in one second of some 200,000.
const PEAK_MAX: u64 = 150;

fn plan() -> Arc<RunPlan> {
    let month = 30 * 24 * 3_600_000;
    let layer = LayerSpec { name: "w".into(), rows: 4, cols: 4, block: 4, residual: 4, gain_exponent: 4 };
    let raw = RawPlan {
        run: RunId([7; 16]),
        seed: Seed::from_number(1),
        base: Digest([1; 32]),
        layers: vec![layer],
        rate_exponents: vec![0],
        profile: Profile::Plain,
        rounds: 10,
        examples_max: 100,
        training: Training::adam(10, 8, 0.1),
        selection: Phase { goal: 50, min: 50, timeout_ms: month },
        eligibility: Eligibility::ANYBODY,
        pace: Pace { per_second: PER_SECOND, held_max: 200, ..Pace::DEFAULT },
        strikes: Strikes::DEFAULT,
        reporting: Phase { goal: 50, min: 50, timeout_ms: month },
        over_selection: 0,
        aggregation: Aggregation::MEAN,
        buffered: None,
        optimizer: ServerOptimizer::FedAvg { rate: 1.0 },
        levels: 2.0,
        history: 2,
    };
    Arc::new(RunPlan::new(raw).expect("every number is in bounds"))
}

struct Fleet {
    plan: Arc<RunPlan>,
    sessions: Vec<Session>,
    numbers: BTreeMap<WorkerId, usize>,
    /// When who connects; of a worker the last one counts.
    dials: BinaryHeap<Reverse<(u64, usize)>>,
    due: Vec<u64>,
    connected: BTreeSet<usize>,
    engine: Option<Engine>,
    store: MemoryStore,
    now: u64,
    /// Connections that stood, by second.
    arrivals: BTreeMap<u64, u64>,
}

impl Fleet {
    /// All of a fleet's processes begin within the first second.
    fn new() -> Self {
        let plan = plan();
        let (run, base) = (plan.raw().run, plan.raw().base);
        let mut fleet = Self {
            sessions: Vec::new(),
            numbers: BTreeMap::new(),
            dials: BinaryHeap::new(),
            due: vec![0; WORKERS],
            connected: BTreeSet::new(),
            engine: None,
            store: MemoryStore::default(),
            now: 0,
            arrivals: BTreeMap::new(),
            plan,
        };
        let mut members = BTreeMap::new();
        for n in 0..WORKERS {
            let identity = Identity::from_seed(*Seed::from_number(n as u64).bytes());
            members.insert(identity.id(), Member::new(format!("w{n}"), Standing::Admitted));
            fleet.numbers.insert(identity.id(), n);
            let starts = Timestamp(n as u64 % 1_000);
            let (session, effects) = Session::new(identity, run, base, 10, starts);
            fleet.sessions.push(session);
            fleet.carry_out(n, effects);
        }
        fleet.store = MemoryStore::new(Registry::new(members, BTreeSet::new()));
        fleet.store.claim(&fleet.plan).expect("no round was opened in it");
        fleet.start();
        fleet
    }

    fn start(&mut self) {
        let engine = resume(Arc::clone(&self.plan), &self.store, Timestamp(self.now));
        self.engine = Some(engine.expect("what was stored can be taken up"));
    }

    /// The coordinator is gone, and with it all connections.
    fn crash(&mut self) {
        self.engine = None;
        for n in std::mem::take(&mut self.connected) {
            let effects = self.sessions[n].handle(Event::Disconnected, Timestamp(self.now));
            self.carry_out(n, effects);
        }
    }

    fn run_to(&mut self, end_s: u64) {
        while let Some(&Reverse((at, n))) = self.dials.peek() {
            if at >= 1_000 * end_s {
                break;
            }
            self.dials.pop();
            self.now = at;
            if self.due[n] == at {
                self.dial(n);
            }
        }
        self.now = 1_000 * end_s;
    }

    fn dial(&mut self, n: usize) {
        let now = Timestamp(self.now);
        let event = match self.engine {
            Some(_) => {
                *self.arrivals.entry(self.now / 1_000).or_default() += 1;
                self.connected.insert(n);
                Event::Connected
            }
            None => Event::Disconnected,
        };
        let effects = self.sessions[n].handle(event, now);
        self.carry_out(n, effects);
    }

    fn carry_out(&mut self, n: usize, effects: Vec<Effect>) {
        for effect in effects {
            match effect {
                Effect::Connect(at) => {
                    if self.connected.remove(&n) {
                        self.tell(Told::Disconnected { worker: self.sessions[n].id() });
                    }
                    self.due[n] = at.0;
                    self.dials.push(Reverse((at.0, n)));
                }
                Effect::Send(Message::CheckIn(check_in)) => {
                    self.tell(Told::CheckIn { worker: self.sessions[n].id(), check_in });
                }
                // The round that is open when the coordinator dies is open for a month.
                Effect::Train { .. } => {}
                other => panic!("{other:?}"),
            }
        }
    }

    fn tell(&mut self, event: Told) {
        let Some(engine) = &mut self.engine else { return };
        for asked in engine.handle(event, Timestamp(self.now)) {
            match asked {
                Asked::Store(write) => self.store.write(&write).expect("memory takes every write"),
                Asked::Send { worker, message } => {
                    let n = self.numbers[&worker];
                    let effects = self.sessions[n].handle(Event::Message(Box::new(message)), Timestamp(self.now));
                    self.carry_out(n, effects);
                }
                Asked::Wake(_) => {}
                other => panic!("{other:?}"),
            }
        }
    }

    /// The most that arrived in one of these seconds, and how many did in all.
    fn peak(&self, from_s: u64, to_s: u64) -> (u64, u64) {
        let counts = || self.arrivals.range(from_s..to_s).map(|(_, count)| *count);
        (counts().max().unwrap_or(0), counts().sum())
    }
}

#[test]
fn a_fleet_of_100_000_arrives_at_the_rate_whatever_becomes_of_its_coordinator() {
    let mut fleet = Fleet::new();
    let windows = |n: u64| n * WINDOW_S;

    // Everybody comes at once, which nobody can help; after that they are spread.
    fleet.run_to(windows(3));
    assert_eq!(fleet.peak(0, 1), (WORKERS as u64, WORKERS as u64));
    let (peak, all) = fleet.peak(1, windows(3));
    assert!(peak <= PEAK_MAX, "{peak} in a second");
    assert!(all > 195 * 1_000 && all <= 200_000, "each comes once a window: {all} in two");
    assert_eq!(fleet.connected.len(), 250, "50 are drawn and 200 are held");

    // It is away for ten minutes, in which 60,000 find nobody.
    fleet.crash();
    let (down, up) = (windows(3), windows(3) + 600);
    fleet.run_to(up);
    assert_eq!(fleet.peak(down, up), (0, 0));
    fleet.start();
    fleet.run_to(windows(6));
    let (peak, all) = fleet.peak(up, windows(6));
    assert!(peak <= PEAK_MAX, "{peak} in a second after the restart");
    let expected = (windows(6) - up) * u64::from(PER_SECOND);
    assert!(all > expected * 9 / 10 && all < expected * 11 / 10, "{all} came, {expected} at the rate");
    println!("after a restart at most {peak} arrive in a second, {PER_SECOND} on average are configured");
}
