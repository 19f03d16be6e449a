//! Any sequence of events into the engine, with a store that is read again after each: what has to hold always, holds.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, LazyLock};

use packfed_codec::{LayerSpec, Profile, Seed};
use packfed_coordinator::aggregation::Aggregation;
use packfed_coordinator::change::Change;
use packfed_coordinator::eligibility::Eligibility;
use packfed_coordinator::engine::Engine;
use packfed_coordinator::event::{Effect, Event, OpenRound, Ticket, Write};
use packfed_coordinator::memory_store::MemoryStore;
use packfed_coordinator::optimizer::ServerOptimizer;
use packfed_coordinator::pace::Pace;
use packfed_coordinator::plan::{Phase, RawPlan, RunPlan, Training};
use packfed_coordinator::registry::{FOREVER, Member, Registry, Standing, token_digest};
use packfed_coordinator::resume::resume;
use packfed_coordinator::store::Store;
use packfed_coordinator::strikes::Strikes;
use packfed_protocol::{
    CheckIn, Conditions, Digest, Enroll, Identity, LaneClips, Outcome, Rejection, RejectionCode, Round, RunId, Signed,
    Timestamp, Token, UpdateHeader, Verified, Version,
};

/// Bytes of one event.
const STEP_BYTES: usize = 3;
/// Events of a sequence that are played; the rest is ignored.
const STEPS_MAX: usize = 200;
/// Workers: four are admitted, one is suspended, one comes with a token, one is unknown.
const WORKERS: u8 = 7;

/// `Engine::handle`: `[kind][worker][argument]` again and again. Accepted is a sequence that led to a commit.
pub fn events(input: &[u8]) -> bool {
    let mut play = Play::new(MemoryStore::new(registry()));
    for step in input.as_chunks::<STEP_BYTES>().0.iter().take(STEPS_MAX) {
        play.step(*step);
        play.check_restart();
    }
    play.version > 0
}

/// Two rounds to their commits, and one in which a process dies.
pub fn samples() -> Vec<Vec<u8>> {
    let all = |kind: u8, argument: u8| (0..4).map(move |worker| [kind, worker, argument]);
    let round = || all(0, 0).chain(all(2, 0));
    let twice: Vec<_> = round().chain(round()).collect();
    let dies: Vec<_> =
        all(0, 0).chain(all(2, 0).take(2)).chain([[9, 0, 0]]).chain(all(0, 0)).chain(all(2, 0)).collect();
    [twice, dies].map(|steps| steps.concat()).to_vec()
}

/// An engine, its store, and the books that are kept beside them.
pub struct Play<S> {
    engine: Engine,
    /// Where the run is kept.
    pub store: S,
    now: Timestamp,
    open: Option<OpenRound>,
    journal: BTreeSet<Digest>,
    version: u64,
    sent: Vec<Verified>,
    /// Arrived, accepted, rejected, discarded, since the process began.
    counts: [u64; 4],
}

/// Three rounds of two layers whose blocks use every lane of a word.
pub fn plan() -> Arc<RunPlan> {
    static PLAN: LazyLock<Arc<RunPlan>> = LazyLock::new(|| {
        let spec =
            |name: &str, rows| LayerSpec { name: name.into(), rows, cols: 8, block: 4, residual: 16, gain_exponent: 4 };
        let raw = RawPlan {
            run: RunId([7; 16]),
            seed: Seed::from_number(1),
            base: Digest([1; 32]),
            layers: vec![spec("a", 8), spec("b", 4)],
            rate_exponents: vec![0, 0],
            profile: Profile::Plain,
            rounds: 3,
            examples_max: 100,
            training: Training::adam(10, 8, 0.1),
            selection: Phase { goal: 4, min: 2, timeout_ms: 1_000 },
            eligibility: Eligibility { separation_ms: 100, ..Eligibility::ANYBODY },
            pace: Pace { held_max: 4, ..Pace::DEFAULT },
            strikes: Strikes { suspend_at: 2, suspended_ms: 1_000 },
            reporting: Phase { goal: 3, min: 2, timeout_ms: 5_000 },
            over_selection: 1,
            aggregation: Aggregation::MEAN,
            buffered: None,
            optimizer: ServerOptimizer::FedAvgM { rate: 1.0, momentum: 0.5 },
            levels: 2.0,
            history: 2,
        };
        Arc::new(RunPlan::new(raw).expect("every number is in bounds"))
    });
    PLAN.clone()
}

fn worker(number: u8) -> Identity {
    Identity::from_seed([number + 1; 32])
}

/// Who takes part, before anybody enrols.
pub fn registry() -> Registry {
    let member = |number: u8| {
        let standing = if number < 4 { Standing::Admitted } else { Standing::Suspended(FOREVER) };
        (worker(number).id(), Member::new(format!("w{number}"), standing))
    };
    Registry::new((0..5).map(member).collect::<BTreeMap<_, _>>(), BTreeSet::from([token_digest(&Token([9; 16]))]))
}

impl<S: Store> Play<S> {
    /// A run that has not begun, in this store.
    pub fn new(mut store: S) -> Self {
        store.claim(&plan()).expect("no round was opened in it");
        let engine = resume(plan(), &store, Timestamp(0)).expect("the store is new");
        Self {
            engine,
            store,
            now: Timestamp(0),
            open: None,
            journal: BTreeSet::new(),
            version: 0,
            sent: Vec::new(),
            counts: [0; 4],
        }
    }

    /// Plays one event.
    pub fn step(&mut self, [kind, number, argument]: [u8; STEP_BYTES]) {
        let identity = worker(number % WORKERS);
        let id = identity.id();
        match kind % 12 {
            0 => self.give(Event::CheckIn { worker: id, check_in: self.check_in() }),
            1 => {
                let version = Version(u64::from(argument % 8));
                let check_in = CheckIn { version, planned: argument < 128, ..self.check_in() };
                self.give(Event::CheckIn { worker: id, check_in });
            }
            2 => {
                if let Some(update) = self.update(&identity, argument) {
                    self.sent.push(update.clone());
                    self.send(update);
                }
            }
            3 => {
                if let Some(update) = self.sent.get(usize::from(argument) % self.sent.len().max(1)).cloned() {
                    self.send(update);
                }
            }
            4 => {
                let rejection = Rejection::new(RejectionCode::BadSignature, "it does not verify");
                self.counts[0] += 1;
                self.give(Event::BadUpdate { ticket: Ticket(self.counts[0]), worker: id, rejection });
            }
            5 => {
                let rejection = Rejection::new(RejectionCode::Unexpected, "it has no place here");
                self.give(Event::BadMessage { worker: id, rejection });
            }
            6 => self.give(Event::Disconnected { worker: id }),
            7 => self.tick(self.now.plus(u64::from(argument) * 64)),
            8 => self.tick(Timestamp(self.now.0.saturating_sub(u64::from(argument) * 16))),
            9 => {
                self.engine = resume(plan(), &self.store, self.now).expect("what was stored can be taken up");
                self.counts = [0; 4];
            }
            10 => {
                let until = self.now.plus(u64::from(argument) * 8);
                let standing = match argument % 4 {
                    0 => Standing::Suspended(until),
                    1 => Standing::Revoked,
                    _ => Standing::Admitted,
                };
                let change = Box::new(Change::Stand { worker: id, standing });
                self.give(Event::Ordered { ticket: Ticket(0), by: "ann".to_owned(), why: String::new(), change });
            }
            _ => {
                let enroll = Enroll { token: Token([argument; 16]), name: "late".to_owned() };
                self.give(Event::Enroll { worker: id, enroll });
            }
        }
    }

    fn tick(&mut self, now: Timestamp) {
        self.now = now;
        self.give(Event::Tick);
    }

    fn check_in(&self) -> CheckIn {
        let (version, digest) = (Version(self.engine.head().version()), Digest(self.engine.head().digest().0));
        CheckIn { run: plan().raw().run, version, digest, examples: 5, conditions: Conditions::ALL, planned: true }
    }

    fn send(&mut self, update: Verified) {
        self.counts[0] += 1;
        self.give(Event::Update { ticket: Ticket(self.counts[0]), update });
    }

    /// Work for the open round; wrong in some way if the argument says so.
    fn update(&self, identity: &Identity, argument: u8) -> Option<Verified> {
        let open = self.open.as_ref()?;
        let plan = plan();
        let blocks = plan.layout().blocks();
        let mut payload = vec![argument & 0x7f; blocks * 16];
        let mut header = UpdateHeader {
            worker: identity.id(),
            run: plan.raw().run,
            round: open.round,
            base: Version(open.base),
            layout: plan.layout_digest(),
            examples: u32::from(argument) % 100 + 1,
            train_loss: f32::from(argument),
            clipped: vec![LaneClips::default(); 2],
            words: u32::try_from(blocks).ok()?,
            payload: Digest([0; 32]),
        };
        match argument.checked_sub(240) {
            None => {}
            Some(0) => header.round = Round(u64::from(argument)),
            Some(1) => header.round = Round(header.round.0 - 1),
            Some(2) => header.base = header.base.next(),
            Some(3) => header.examples = 0,
            Some(4) => header.examples = 101,
            Some(5) => header.layout = Digest([3; 32]),
            Some(6) => header.run = RunId([3; 16]),
            Some(7) => header.clipped.clear(),
            Some(8) => header.clipped[1].wave = u32::MAX,
            Some(9) => header.train_loss = f32::INFINITY,
            Some(10) => payload[0..16].fill(0x80),
            Some(_) => {
                header.words += 1;
                payload.extend([0; 16]);
            }
        }
        Signed::new(identity, header, payload).verify(&identity.id()).ok()
    }

    /// Tells the engine, does what it says, and looks at what came of it.
    fn give(&mut self, event: Event) {
        for effect in self.engine.handle(event, self.now) {
            match effect {
                Effect::Store(write) => {
                    self.look_at(&write);
                    self.store.write(&write).expect("memory takes every write");
                }
                Effect::Verdict { verdict, .. } => {
                    self.counts[match verdict.outcome {
                        Outcome::Accepted => 1,
                        Outcome::Rejected(_) => 2,
                        Outcome::Discarded => 3,
                    }] += 1;
                }
                // The mean is in the engine's own hands.
                Effect::Aggregate(_)
                | Effect::Send { .. }
                | Effect::Ordered { .. }
                | Effect::Offer { .. }
                | Effect::Wake(_) => {}
            }
        }
        let counters = self.engine.counters();
        let counted = [counters.arrived, counters.accepted, counters.rejected_in_all(), counters.discarded];
        assert_eq!(counted, self.counts);
        assert_eq!(self.counts[0], self.counts[1..].iter().sum::<u64>());
        assert_eq!(self.engine.head().version(), self.version);
    }

    fn look_at(&mut self, write: &Write) {
        match write {
            Write::Members(entries) => {
                assert!(entries.iter().all(|(worker, _)| self.engine.registry().members().contains_key(worker)));
            }
            Write::Enroll { token, .. } => assert_eq!(*token, token_digest(&Token([9; 16]))),
            Write::Open(open) if self.open.as_ref().is_some_and(|known| known.round == open.round) => {
                let left = |worker| self.open.iter().any(|known| known.cohort.contains(worker));
                assert!(open.cohort.iter().all(left), "an open round takes in nobody");
                self.open = Some(open.clone());
            }
            Write::Open(open) => {
                assert!(self.open.is_none() && open.base == self.version, "{open:?}");
                self.journal.clear();
                self.open = Some(open.clone());
            }
            Write::Accept { round, worker, frame } => {
                let open = self.open.as_ref().expect("an open round accepts");
                assert!(open.round == *round && open.cohort.contains(worker));
                assert!(self.journal.insert(Digest::of(&frame.to_vec())), "an update is accepted once");
            }
            Write::Abandon { round } => assert_eq!(self.open.take().map(|open| open.round), Some(*round)),
            Write::Note(_) => {}
            Write::Commit(commit) => {
                assert_eq!(self.open.take().map(|open| open.round), Some(commit.round));
                assert!(self.journal.len() >= plan().raw().reporting.min as usize);
                assert_eq!(commit.summary.updates as usize, self.journal.len());
                assert_eq!(commit.head.version, self.version + 1);
                self.version += 1;
            }
        }
    }

    /// What a restart would find is what there is.
    pub fn check_restart(&self) {
        let again = resume(plan(), &self.store, self.now).expect("what was stored can be taken up");
        assert_eq!(again.head().record(), self.engine.head().record());
        assert_eq!(again.registry(), self.engine.registry());
        assert_eq!(again.finished(), self.engine.finished());
        let stored = self.store.load(&plan()).expect("it can be read");
        let frames: usize = stored.iter().flat_map(|stored| &stored.open).map(|(_, frames)| frames.len()).sum();
        assert_eq!(frames, if self.open.is_some() { self.journal.len() } else { 0 });
    }
}
