//! One run: a queue of happenings, what takes part in it, and the faults that befall it.
//!
//! Everything that is to happen has a true time and a number, and happens in that order; nothing else decides.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use packfed_codec::{Seed, Stream};
use packfed_coordinator::event::Write;
use packfed_coordinator::store::StoreError;
use packfed_protocol::{PayloadId, Round, Timestamp};
use packfed_worker::follower;
use packfed_worker::task::Trained;

use super::clock::Clock;
use super::coordinator::Process;
use super::counts::Counts;
use super::device::Device;
use super::disk::Disk;
use super::invariants::{Invariants, Seen};
use super::network::{ConnectionId, Network, idle_ms};
use super::operator::Operator;
use super::sabotage::Sabotage;
use super::scenario::{Member, Scenario, offset};
use super::shelf::Shelf;
use super::trace::Trace;

/// Something that is to happen.
#[derive(Clone, Debug)]
pub(super) enum Happening {
    /// The coordinator's process begins.
    CoordinatorStarts,
    /// A wait of a coordinator's process is over, unless it waits for something else by now.
    CoordinatorAlarm { process: u64, alarm: u64 },
    /// A connection stands, at the coordinator's side.
    Joined(ConnectionId),
    /// A frame reaches the coordinator on a control stream.
    Said { connection: ConnectionId, frame: Vec<u8> },
    /// An update reaches the coordinator, on a stream of its own.
    Delivered { connection: ConnectionId, frame: Vec<u8> },
    /// The coordinator notices that a connection is broken.
    Gone(ConnectionId),
    /// A worker's process begins.
    WorkerStarts { worker: usize },
    /// A wait of a worker's process is over.
    WorkerAlarm { worker: usize, life: u64 },
    /// A worker's process tries to connect.
    Dial { worker: usize, life: u64, link: u64 },
    /// A connection stands, at the worker's side; or it could not be made.
    Linked { worker: usize, life: u64, link: u64, connection: Option<ConnectionId> },
    /// A frame reaches a worker.
    Heard { connection: ConnectionId, frame: Vec<u8> },
    /// A worker notices that a connection is broken.
    Lost(ConnectionId),
    /// A worker's training ends.
    Trained { worker: usize, life: u64, round: Round, result: Result<Trained, String> },
    /// Something that a worker's follower waits for.
    Followed { worker: usize, life: u64, event: Box<follower::Event> },
    /// A worker's fetch of a release ends.
    FetchEnds { worker: usize, life: u64, connection: ConnectionId, turn: u64, payload: PayloadId },
    /// The operator may order something.
    Operates,
    /// Something goes wrong.
    Fault(Fault),
    /// Nothing goes wrong any more.
    Heal,
}

/// What goes wrong again and again, until it is healed.
#[derive(Clone, Copy, Debug)]
pub(super) enum Fault {
    Break,
    Partition,
    WorkerCrash,
    CoordinatorCrash,
    ClockSet,
}

impl Fault {
    const ALL: [Self; 5] = [Self::Break, Self::Partition, Self::WorkerCrash, Self::CoordinatorCrash, Self::ClockSet];
}

/// See the module.
pub struct World {
    pub(super) scenario: Scenario,
    pub(super) now: Timestamp,
    pub(super) network: Network,
    pub(super) devices: Vec<Device>,
    pub(super) process: Option<Process>,
    /// Coordinator processes so far.
    pub(super) processes: u64,
    pub(super) clock: Clock,
    pub(super) disk: Disk,
    pub(super) trace: Trace,
    pub(super) invariants: Invariants,
    pub(super) counts: Counts,
    pub(super) healed: bool,
    /// Rounds that are open by what is durable.
    pub(super) open_rounds: BTreeSet<Round>,
    /// Rollouts that are not over by what is durable.
    pub(super) open_rollouts: BTreeSet<u64>,
    /// How much was done to each rollout by what is durable.
    pub(super) histories: BTreeMap<u64, usize>,
    /// Writes that failed together, and may be durable all the same.
    pub(super) in_doubt: Vec<Write>,
    /// Effects that the coordinator's process carries out before it dies, if it is to.
    pub(super) dies_after: Option<u64>,
    pub(super) sabotage: Option<Sabotage>,
    /// Updates that went over the wire, the last ones.
    pub(super) overheard: VecDeque<Vec<u8>>,
    pub(super) luck: Stream,
    pub(super) operator: Operator,
    pub(super) shelf: Shelf,
    queue: BTreeMap<(Timestamp, u64), Happening>,
    /// What a partition keeps from happening, by its number, and until when.
    held_up: BTreeMap<u64, Timestamp>,
    number: u64,
}

/// Effects of the coordinator within which an announced crash comes.
const EFFECTS_MAX: u64 = 12;
/// Updates that a lying worker may send again.
const OVERHEARD_MAX: usize = 16;

impl World {
    /// The world of a seed, before anything happened.
    ///
    /// # Errors
    /// If the coordinator's store cannot be made.
    pub fn new(
        seed: &Seed,
        scenario: Scenario,
        sabotage: Option<Sabotage>,
        readable: bool,
    ) -> Result<Self, StoreError> {
        let network = Network::new(seed, scenario.faults, scenario.members.len());
        let devices: Vec<Device> =
            (0..).zip(&scenario.members).map(|(number, member)| Device::new(seed, number, member)).collect();
        let registry = super::coordinator::registry(&scenario.members);
        let disk = Disk::new(scenario.store, &registry, seed, scenario.faults.refused_write)?;
        let mut clock = Clock::RIGHT;
        clock.set(scenario.clock_ms);
        let mut world = Self {
            now: Timestamp(0),
            network,
            devices,
            process: None,
            processes: 0,
            clock,
            disk,
            trace: Trace::new(readable),
            invariants: Invariants::of(&scenario),
            counts: Counts::default(),
            healed: false,
            open_rounds: BTreeSet::new(),
            open_rollouts: BTreeSet::new(),
            histories: BTreeMap::new(),
            in_doubt: Vec::new(),
            dies_after: None,
            sabotage,
            overheard: VecDeque::new(),
            luck: seed.derive("packfed/chaos/luck/1", &[]).stream(),
            operator: Operator::new(seed, scenario.rollouts.order_ms),
            shelf: Shelf::new(seed, &scenario.plan, scenario.rollouts.bad),
            queue: BTreeMap::new(),
            held_up: BTreeMap::new(),
            number: 0,
            scenario,
        };
        world.begin();
        Ok(world)
    }

    fn begin(&mut self) {
        self.describe();
        self.after(0, Happening::CoordinatorStarts);
        for worker in 0..self.devices.len() {
            let joins = self.luck.below(2_000);
            self.after(joins, Happening::WorkerStarts { worker });
        }
        for fault in Fault::ALL {
            self.plan_fault(fault);
        }
        self.at(Timestamp(self.scenario.heals_at_ms), Happening::Heal);
        self.plan_order();
    }

    /// What the seed stands for, as the first lines of the trace.
    fn describe(&mut self) {
        let Scenario { plan, members, faults, heals_at_ms, store, .. } = &self.scenario;
        let (raw, now) = (plan.raw(), self.now);
        let (selection, reporting) = (raw.selection, raw.reporting);
        self.trace.line(now, format_args!("store {store:?}, {} rounds of {:?}", raw.rounds, raw.profile));
        self.trace.line(now, format_args!("selection {selection:?}, reporting {reporting:?} + {}", raw.over_selection));
        self.trace.line(now, format_args!("aggregation {:?}, buffered {:?}", raw.aggregation, raw.buffered));
        self.trace.line(now, format_args!("until {heals_at_ms} ms: {faults:?}"));
        self.trace.line(now, format_args!("{:?}", self.scenario.rollouts));
        for (number, Member { malicious, step_ms, examples, follows, .. }) in members.iter().enumerate() {
            let kind = if *malicious { "lying" } else { "honest" };
            let follows = if follows.is_some() { ", follows releases" } else { "" };
            self.trace
                .line(now, format_args!("w{number} is {kind}, {examples} examples, {step_ms} ms a step{follows}"));
        }
    }

    /// Lets the next thing happen; whether there was one.
    pub fn step(&mut self) -> bool {
        let Some(((now, number), happening)) = self.queue.pop_first() else { return false };
        if let Some(until) = self.is_held_up(&happening, now) {
            // Under its own number, so that what was sent first still arrives first.
            self.queue.insert((until, number), happening);
            self.held_up.insert(number, until);
            return true;
        }
        self.held_up.remove(&number);
        self.now = now;
        match happening {
            Happening::CoordinatorStarts => self.start_coordinator(),
            Happening::CoordinatorAlarm { process, alarm } => self.coordinator_alarm(process, alarm),
            Happening::Joined(connection) => self.joined(connection),
            Happening::Said { connection, frame } => self.said(connection, &frame),
            Happening::Delivered { connection, frame } => self.delivered(connection, &frame),
            Happening::Gone(connection) => self.gone(connection),
            Happening::WorkerStarts { worker } => self.start_worker(worker),
            Happening::WorkerAlarm { worker, life } => self.worker_alarm(worker, life),
            Happening::Dial { worker, life, link } => self.dial(worker, life, link),
            Happening::Linked { worker, life, link, connection } => self.linked(worker, life, link, connection),
            Happening::Heard { connection, frame } => self.heard(connection, &frame),
            Happening::Lost(connection) => self.lost(connection),
            Happening::Trained { worker, life, round, result } => self.trained(worker, life, round, result),
            Happening::Followed { worker, life, event } => self.followed(worker, life, *event),
            Happening::FetchEnds { worker, life, connection, turn, payload } => {
                self.fetch_ends(worker, life, connection, (turn, payload));
            }
            Happening::Operates => self.operates(),
            Happening::Fault(fault) => self.fault(fault),
            Happening::Heal => self.heal(),
        }
        true
    }

    /// Whether nothing goes wrong any more, everybody holds the final model, and nobody waits for a release.
    #[must_use]
    pub fn over(&self) -> bool {
        self.healed && self.unfinished() == 0 && self.releases_rest()
    }

    /// Workers that do not hold the final model.
    #[must_use]
    pub fn unfinished(&self) -> usize {
        self.devices.iter().filter(|device| !device.finished).count()
    }

    /// Lets something happen at a time.
    pub(super) fn at(&mut self, time: Timestamp, happening: Happening) {
        self.number += 1;
        self.queue.insert((time, self.number), happening);
    }

    /// Lets something happen so many milliseconds from now.
    pub(super) fn after(&mut self, ms: u64, happening: Happening) {
        self.at(self.now.plus(ms), happening);
    }

    pub(super) fn see(&mut self, seen: &Seen<'_>) {
        self.invariants.see(seen, self.now);
    }

    pub(super) fn say(&mut self, text: std::fmt::Arguments<'_>) {
        self.trace.line(self.now, text);
    }

    /// Remembers an update that went over the wire.
    pub(super) fn overhear(&mut self, frame: &[u8]) {
        if self.overheard.len() == OVERHEARD_MAX {
            self.overheard.pop_front();
        }
        self.overheard.push_back(frame.to_vec());
    }

    /// A connection carries nothing any more; each side notices in its own time.
    pub(super) fn break_connection(&mut self, id: ConnectionId, [coordinator_ms, worker_ms]: [u64; 2]) {
        if self.network.break_off(id) {
            self.counts.broken_connections += 1;
            self.after(coordinator_ms, Happening::Gone(id));
            self.after(worker_ms, Happening::Lost(id));
        }
    }

    /// Until when a partition keeps something from arriving.
    fn is_held_up(&self, happening: &Happening, now: Timestamp) -> Option<Timestamp> {
        let connection = match happening {
            Happening::Said { connection, .. }
            | Happening::Delivered { connection, .. }
            | Happening::Heard { connection, .. }
            | Happening::Joined(connection) => self.network.get(*connection)?,
            Happening::CoordinatorStarts
            | Happening::CoordinatorAlarm { .. }
            | Happening::Gone(_)
            | Happening::WorkerStarts { .. }
            | Happening::WorkerAlarm { .. }
            | Happening::Dial { .. }
            | Happening::Linked { .. }
            | Happening::Lost(_)
            | Happening::Trained { .. }
            | Happening::Followed { .. }
            | Happening::FetchEnds { .. }
            | Happening::Operates
            | Happening::Fault(_)
            | Happening::Heal => return None,
        };
        self.network.cut_until(connection.worker, now)
    }

    fn plan_fault(&mut self, fault: Fault) {
        let faults = &self.scenario.faults;
        let mean = match fault {
            Fault::Break => faults.break_ms,
            Fault::Partition => faults.partition_ms,
            Fault::WorkerCrash => faults.worker_crash_ms,
            Fault::CoordinatorCrash => faults.coordinator_crash_ms,
            Fault::ClockSet => faults.clock_ms,
        };
        if mean > 0 {
            let wait = 1 + self.luck.below(2 * mean);
            self.after(wait, Happening::Fault(fault));
        }
    }

    fn fault(&mut self, fault: Fault) {
        if self.healed {
            return;
        }
        match fault {
            Fault::Break => self.break_some_connection(),
            Fault::Partition => self.cut_some_off(),
            Fault::WorkerCrash => {
                let worker = self.luck.index(self.devices.len());
                self.crash_worker(worker);
            }
            Fault::CoordinatorCrash => {
                if self.luck.below(2) == 0 {
                    self.disk.fail_soon();
                } else {
                    self.dies_after = Some(self.luck.below(EFFECTS_MAX));
                }
            }
            Fault::ClockSet => self.set_some_clock(),
        }
        self.plan_fault(fault);
    }

    fn break_some_connection(&mut self) {
        let living: Vec<ConnectionId> = self.network.living().map(|(id, _)| id).collect();
        if living.is_empty() {
            return;
        }
        let id = living[self.luck.index(living.len())];
        let worker = self.network.get(id).map_or(0, |connection| connection.worker);
        self.say(format_args!("fault: the connection of w{worker} breaks"));
        let noticed = [self.network.noticed_ms(), self.network.noticed_ms()];
        self.break_connection(id, noticed);
    }

    fn cut_some_off(&mut self) {
        let ms = 1 + self.luck.below(self.scenario.faults.partition_ms_max);
        let all = self.luck.below(3) == 0;
        let cut: Vec<usize> = (0..self.devices.len()).filter(|_| all || self.luck.below(3) == 0).collect();
        self.say(format_args!("fault: {cut:?} are cut off for {ms} ms"));
        self.counts.partitions += 1;
        for &worker in &cut {
            self.network.cut(worker, self.now.plus(ms));
        }
        if ms >= idle_ms() {
            let living = self.network.living().filter(|(_, connection)| cut.contains(&connection.worker));
            for id in living.map(|(id, _)| id).collect::<Vec<_>>() {
                self.break_connection(id, [idle_ms(), idle_ms()]);
            }
        }
    }

    fn set_some_clock(&mut self) {
        let ms = offset(&mut self.luck, self.scenario.faults.clock_ms_max);
        self.counts.clocks_set += 1;
        match self.luck.index(self.devices.len() + 1).checked_sub(1) {
            None => {
                self.say(format_args!("fault: the coordinator's clock is set to {ms} ms"));
                self.clock.set(ms);
            }
            Some(worker) => {
                self.say(format_args!("fault: the clock of w{worker} is set to {ms} ms"));
                self.devices[worker].clock.set(ms);
            }
        }
    }

    fn heal(&mut self) {
        self.say(format_args!("nothing goes wrong any more"));
        self.healed = true;
        self.dies_after = None;
        self.network.calm_down();
        // Now, and not when the partition would have ended: what is sent from here on must not overtake it.
        for (number, until) in std::mem::take(&mut self.held_up) {
            if let Some(happening) = self.queue.remove(&(until, number)) {
                self.queue.insert((self.now, number), happening);
            }
        }
        self.disk.calm_down();
        self.see(&Seen::Healed);
    }
}
