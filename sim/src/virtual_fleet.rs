//! A fleet in virtual time: the real engine and the real sessions, joined by a network and devices that
//! this file makes up.
//!
//! Every message is encoded, carried as bytes and decoded again, every update is signed and verified; what
//! runs here is what ships. One queue of happenings, ordered by (time, number), drives everything, so a
//! run is the same on any machine and number of threads: training jobs that are under way at once are
//! computed in parallel, and their results take their place in virtual time.

use std::collections::{BTreeMap, VecDeque};

use packfed_codec::{Seed, State};
use packfed_coordinator::engine::Engine;
use packfed_coordinator::event::{Effect as EngineEffect, Event as EngineEvent, Ticket};
use packfed_coordinator::memory_store::MemoryStore;
use packfed_coordinator::store::{Store, StoreError};
use packfed_protocol::{Identity, Message, Round, Timestamp, WorkerId};
use packfed_worker::local::host::Unattended;
use packfed_worker::session::{Effect, Ending, Event, Session};
use packfed_worker::task::{Job, LocalTask};
use thiserror::Error;

use crate::attack::Attack;
use crate::carry::{self, Pipe};
use crate::parallel;
use crate::speed::{Spread, Tail};

/// How devices and their links behave.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Devices {
    /// One way, in milliseconds.
    pub latency_ms: u64,
    /// From a worker, in bytes per second.
    pub up_bytes_per_s: u64,
    /// To a worker, in bytes per second.
    pub down_bytes_per_s: u64,
    /// A local step on the fastest ordinary device, in milliseconds.
    pub step_ms: u64,
    /// How much longer others take.
    pub spread: Spread,
}

/// A phone on a home network: 20 ms away, 1 MB/s up, 4 MB/s down, 10 to 40 ms a step.
pub const PHONES: Devices = Devices {
    latency_ms: 20,
    up_bytes_per_s: 1_000_000,
    down_bytes_per_s: 4_000_000,
    step_ms: 10,
    spread: Spread::Even,
};
/// The same with a few very slow phones among them, and jobs that straggle on any; steps of a larger model, so that
/// training and not the network is what takes time.
pub const HEAVY_TAILED: Devices = Devices { step_ms: 100, spread: Spread::HeavyTailed(Tail::USUAL), ..PHONES };

const UP: usize = 0;
const DOWN: usize = 1;

/// Why a simulated run did not come to its end.
#[derive(Debug, Error)]
pub enum FleetError {
    /// Nothing is left to happen, and the run is not finished.
    #[error("the fleet stalled at version {version} of {rounds}: nothing is left to happen")]
    Stalled {
        /// Commits so far.
        version: u64,
        /// Commits of the plan.
        rounds: u64,
    },
    /// A worker gave up.
    #[error("worker {worker} gave up: {why}")]
    Worker {
        /// Its number.
        worker: usize,
        /// What it said.
        why: String,
    },
    /// The coordinator's store failed.
    #[error("the coordinator's store failed: {0}")]
    Store(#[from] StoreError),
}

/// What a run looks like after a commit.
#[derive(Debug)]
pub struct Committed<'a> {
    /// Commits so far.
    pub version: u64,
    /// The model.
    pub state: &'a State,
    /// Bytes that workers have sent.
    pub bytes_up: u64,
    /// Bytes that workers have received.
    pub bytes_down: u64,
    /// Virtual seconds since the start.
    pub virtual_s: f64,
}

enum Happening {
    AtCoordinator { worker: usize, frame: Vec<u8>, ticket: Option<Ticket> },
    AtWorker { worker: usize, event: Event },
    Tick,
}

struct Training {
    ends: Timestamp,
    number: u64,
    worker: usize,
    round: Round,
    job: Job,
}

/// See the module.
pub struct VirtualFleet<T> {
    engine: Engine,
    store: MemoryStore,
    /// What each worker that lies does to its updates, and the key that it signs them with.
    liars: BTreeMap<usize, (Attack, Identity)>,
    sessions: Vec<Session>,
    tasks: Vec<T>,
    /// By what each device's steps take longer than `step_ms`.
    slowness: Vec<f64>,
    seed: Seed,
    workers: BTreeMap<WorkerId, usize>,
    queue: BTreeMap<(Timestamp, u64), Happening>,
    training: Vec<Training>,
    devices: Devices,
    threads: usize,
    now: Timestamp,
    number: u64,
    bytes_up: u64,
    bytes_down: u64,
    finished: usize,
    /// Each worker's link, up and down.
    pipes: Vec<[Pipe; 2]>,
}

impl<T: LocalTask + Clone + Sync> VirtualFleet<T> {
    /// A fleet of one session and one task a worker; `seed` draws the devices' speeds.
    #[must_use]
    pub fn new(
        engine: Engine,
        members: Vec<(Session, Vec<Effect>, T)>,
        devices: Devices,
        seed: &Seed,
        threads: usize,
    ) -> Self {
        let workers = members.iter().enumerate().map(|(n, (session, ..))| (session.id(), n)).collect();
        let pipes = vec![[Pipe::default(); 2]; members.len()];
        let slowness = devices.spread.devices(seed, members.len());
        let mut fleet = Self {
            pipes,
            store: MemoryStore::new(engine.registry().clone()),
            liars: BTreeMap::new(),
            engine,
            sessions: Vec::new(),
            tasks: Vec::new(),
            slowness,
            seed: *seed,
            workers,
            queue: BTreeMap::new(),
            training: Vec::new(),
            devices,
            threads,
            now: Timestamp(0),
            number: 0,
            bytes_up: 0,
            bytes_down: 0,
            finished: 0,
        };
        for (worker, (session, effects, task)) in members.into_iter().enumerate() {
            fleet.sessions.push(session);
            fleet.tasks.push(task);
            // The first effect of a session is a connection, and a virtual one always stands at once.
            debug_assert!(matches!(effects[..], [Effect::Connect(_)]), "a session begins by connecting");
            fleet.at(Timestamp(0), Happening::AtWorker { worker, event: Event::Connected });
        }
        fleet
    }

    /// Makes a liar of a worker: its updates are changed on their way out, and signed with its key.
    pub fn corrupt(&mut self, worker: usize, attack: Attack, identity: Identity) {
        self.liars.insert(worker, (attack, identity));
    }

    /// The coordinator's side.
    #[must_use]
    pub const fn engine(&self) -> &Engine {
        &self.engine
    }

    /// Bytes that workers have sent and received, frames and all.
    #[must_use]
    pub const fn bytes(&self) -> (u64, u64) {
        (self.bytes_up, self.bytes_down)
    }

    /// Runs until every worker holds the final model; `committed` sees each version.
    ///
    /// # Errors
    /// If the run stalls or a worker gives up.
    pub fn run(&mut self, mut committed: impl FnMut(&Committed<'_>)) -> Result<(), FleetError> {
        while self.finished < self.sessions.len() {
            self.train_what_ends_next();
            let Some(((now, _), happening)) = self.queue.pop_first() else {
                let (version, rounds) = (self.engine.head().version(), self.engine.plan().raw().rounds);
                return Err(FleetError::Stalled { version, rounds });
            };
            self.now = now;
            let before = self.engine.head().version();
            match happening {
                Happening::AtCoordinator { worker, frame, ticket } => self.at_coordinator(worker, &frame, ticket)?,
                Happening::AtWorker { worker, event } => self.at_worker(worker, event)?,
                Happening::Tick => self.engine_event(EngineEvent::Tick)?,
            }
            let head = self.engine.head();
            if head.version() > before {
                committed(&Committed {
                    version: head.version(),
                    state: head.state(),
                    bytes_up: self.bytes_up,
                    bytes_down: self.bytes_down,
                    virtual_s: self.now.0 as f64 / 1_000.0,
                });
            }
        }
        Ok(())
    }

    fn at(&mut self, time: Timestamp, happening: Happening) {
        self.number += 1;
        self.queue.insert((time, self.number), happening);
    }

    /// If some training ends before anything else happens, computes all that is under way.
    fn train_what_ends_next(&mut self) {
        let next = self.queue.first_key_value().map(|((time, _), _)| *time);
        let due = |training: &Training| next.is_none_or(|next| training.ends <= next);
        if !self.training.iter().any(due) {
            return;
        }
        let under_way = std::mem::take(&mut self.training);
        let tasks = &self.tasks;
        let results = parallel::map(&under_way, self.threads, |training| {
            tasks[training.worker].clone().train(&training.job, &mut Unattended).map_err(|error| error.to_string())
        });
        for (training, result) in under_way.into_iter().zip(results) {
            let event = Event::Trained { round: training.round, result };
            self.queue.insert((training.ends, training.number), Happening::AtWorker { worker: training.worker, event });
        }
    }

    fn at_coordinator(&mut self, worker: usize, frame: &[u8], ticket: Option<Ticket>) -> Result<(), FleetError> {
        self.bytes_up += frame.len() as u64;
        let id = self.sessions[worker].id();
        let event = carry::at_coordinator(id, frame, ticket);
        self.engine_event(event)
    }

    fn engine_event(&mut self, event: EngineEvent) -> Result<(), FleetError> {
        for effect in self.engine.handle(event, self.now) {
            match effect {
                EngineEffect::Store(write) => self.store.write(&write)?,
                EngineEffect::Aggregate(task) => {
                    let answer = task.answer(&self.store);
                    self.engine_event(answer)?;
                }
                EngineEffect::Send { worker, message } => {
                    if let Some(&worker) = self.workers.get(&worker) {
                        self.send_down(worker, &message);
                    }
                }
                EngineEffect::Verdict { ticket, verdict } => {
                    let worker = usize::try_from(ticket.0).unwrap_or(usize::MAX);
                    self.send_down(worker, &Message::Verdict(verdict));
                }
                // A simulated run has no operator, and its workers follow no releases.
                EngineEffect::Ordered { .. } | EngineEffect::Offer { .. } => {}
                EngineEffect::Wake(time) => self.at(time, Happening::Tick),
            }
        }
        Ok(())
    }

    /// Carries a message to a worker as bytes.
    fn send_down(&mut self, worker: usize, message: &Message) {
        let frame = message.encode();
        self.bytes_down += frame.len() as u64;
        let arrives = self.arrival(worker, DOWN, frame.len(), self.devices.down_bytes_per_s);
        let event = match carry::at_worker(&frame) {
            Ok(event) => event,
            Err(error) => unreachable!("the coordinator encodes what can be decoded: {error}"),
        };
        self.at(arrives, Happening::AtWorker { worker, event });
    }

    fn arrival(&mut self, worker: usize, direction: usize, bytes: usize, bytes_per_s: u64) -> Timestamp {
        self.pipes[worker][direction].arrival(self.now, bytes, bytes_per_s, self.devices.latency_ms)
    }

    fn at_worker(&mut self, worker: usize, event: Event) -> Result<(), FleetError> {
        let mut effects = VecDeque::from(self.sessions[worker].handle(event, self.now));
        while let Some(effect) = effects.pop_front() {
            match effect {
                Effect::Connect(time) => self.at(time, Happening::AtWorker { worker, event: Event::Connected }),
                Effect::Send(message) => self.send_up(worker, &message, None),
                Effect::Upload(message) => {
                    let message = self.as_sent(worker, *message);
                    self.send_up(worker, &message, Some(Ticket(worker as u64)));
                }
                Effect::Train { round, job } => self.begin_training(worker, round, *job),
                Effect::RoundOver => {}
                Effect::Wake(time) => self.at(time, Happening::AtWorker { worker, event: Event::Tick }),
                Effect::Stop(Ending::Finished { .. }) => self.finished += 1,
                Effect::Stop(Ending::Failed(error)) => {
                    return Err(FleetError::Worker { worker, why: error.to_string() });
                }
            }
        }
        Ok(())
    }

    /// An upload as its worker lets it out.
    fn as_sent(&self, worker: usize, message: Message) -> Message {
        match (self.liars.get(&worker), message) {
            (Some((attack, identity)), Message::Update(honest)) => {
                Message::Update(attack.tampered(&honest, identity, self.engine.plan()))
            }
            (_, message) => message,
        }
    }

    fn send_up(&mut self, worker: usize, message: &Message, ticket: Option<Ticket>) {
        let frame = message.encode();
        let arrives = self.arrival(worker, UP, frame.len(), self.devices.up_bytes_per_s);
        self.at(arrives, Happening::AtCoordinator { worker, frame, ticket });
    }

    fn begin_training(&mut self, worker: usize, round: Round, job: Job) {
        let factor = self.slowness[worker] * self.devices.spread.job(&self.seed, worker, round);
        #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a duration in milliseconds")]
        let duration = (f64::from(job.local.steps) * self.devices.step_ms as f64 * factor) as u64;
        self.number += 1;
        let ends = self.now.plus(duration);
        self.training.push(Training { ends, number: self.number, worker, round, job });
    }
}
