//! The coordinator's side of the world: a process that owns an engine, and does what its effects say, in order.
//!
//! As in the server: a worker's newest connection is the one that counts, what an earlier one said on its control
//! stream is dropped, and an update that was read counts whatever became of its connection. A write that fails ends
//! the process.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;

use packfed_coordinator::aggregation::Aggregation;
use packfed_coordinator::engine::Engine;
use packfed_coordinator::event::{Effect, Event, Ticket, Write};
use packfed_coordinator::plan::RunPlan;
use packfed_coordinator::registry::{Member as Enrolled, Registry, Standing};
use packfed_coordinator::resume::{ResumeError, resume};
use packfed_protocol::{Message, Outcome, ReleaseRef, Verdict, WorkerId};

use super::brief::{brief_event, brief_write};
use super::doubt::are_there;
use super::invariants::Seen;
use super::network::{ConnectionId, Way};
use super::sabotage::{RottenJournal, Sabotage};
use super::scenario::Member;
use super::world::{Happening, World};
use crate::carry;

/// A coordinator process.
#[derive(Debug)]
pub struct Process {
    life: u64,
    engine: Engine,
    /// The newest connection of each worker.
    current: BTreeMap<WorkerId, ConnectionId>,
    /// On whose connection an update came.
    tickets: BTreeMap<Ticket, ConnectionId>,
    next_ticket: u64,
    /// Number of the wait that it is in.
    alarm: u64,
}

impl Process {
    /// Which process it is.
    #[must_use]
    pub const fn life(&self) -> u64 {
        self.life
    }

    /// Its engine.
    #[must_use]
    pub const fn engine(&self) -> &Engine {
        &self.engine
    }

    /// The name of a question that nobody has asked yet.
    pub(super) fn ticket(&mut self) -> Ticket {
        let ticket = Ticket(self.next_ticket);
        self.next_ticket += 1;
        ticket
    }
}

/// A registry that knows a whole fleet.
pub(super) fn registry(members: &[Member]) -> Registry {
    let enrolled = |(number, member): (usize, &Member)| {
        (member.identity.id(), Enrolled::new(format!("w{number}"), Standing::Admitted))
    };
    Registry::new(members.iter().enumerate().map(enrolled).collect(), BTreeSet::new())
}

impl World {
    /// The plan as the coordinator has it.
    fn coordinator_plan(&self) -> Arc<RunPlan> {
        let plan = &self.scenario.plan;
        if self.sabotage != Some(Sabotage::OneUpdateSuffices) {
            return plan.clone();
        }
        let mut raw = plan.raw().clone();
        (raw.reporting.goal, raw.reporting.min, raw.aggregation) = (1, 1, Aggregation::MEAN);
        RunPlan::new(raw).map_or_else(|_| plan.clone(), Arc::new)
    }

    pub(super) fn start_coordinator(&mut self) {
        if self.process.is_some() {
            return;
        }
        match self.take_up() {
            Ok(()) => self.set_alarm(),
            Err(_) if self.disk.has_no_power() => {
                self.say(format_args!("coordinator dies as it starts"));
                self.power_cut();
            }
            Err(error) => {
                let error = error.to_string();
                self.say(format_args!("coordinator cannot start: {error}"));
                self.see(&Seen::CannotStart { error: &error });
            }
        }
    }

    fn take_up(&mut self) -> Result<(), ResumeError> {
        let (plan, now) = (self.coordinator_plan(), self.clock.shows(self.now));
        let rots = self.sabotage == Some(Sabotage::JournalRots);
        if self.sabotage == Some(Sabotage::DiskLies) {
            self.disk.lie();
        }
        let store = self.disk.store()?;
        store.claim(&plan)?;
        let (stored, ledger) = (store.load(&plan)?, store.ledger()?);
        let engine = if rots { resume(plan, &RottenJournal(store), now)? } else { resume(plan, store, now)? };
        let in_doubt = std::mem::take(&mut self.in_doubt);
        if are_there(&in_doubt, stored.as_ref(), &ledger) {
            in_doubt.iter().for_each(|write| self.stored(write));
        }
        self.processes += 1;
        let version = engine.head().version();
        self.say(format_args!("coordinator starts at version {version}"));
        for (open, frames) in stored.iter().flat_map(|stored| &stored.open) {
            self.say(format_args!("round {} is open with {} updates", open.round, frames.len()));
        }
        self.see(&Seen::Started { engine: &engine, stored: stored.as_ref() });
        self.process = Some(Process {
            life: self.processes,
            engine,
            current: BTreeMap::new(),
            tickets: BTreeMap::new(),
            next_ticket: 0,
            alarm: 0,
        });
        Ok(())
    }

    /// As the server does: asks anew after everything that happens, and waits in true time.
    fn set_alarm(&mut self) {
        let Some(process) = &mut self.process else { return };
        process.alarm += 1;
        let (life, alarm) = (process.life, process.alarm);
        if let Some(deadline) = process.engine.deadline() {
            let rings = self.clock.wait_until(deadline, self.now);
            self.at(rings, Happening::CoordinatorAlarm { process: life, alarm });
        }
    }

    pub(super) fn coordinator_alarm(&mut self, life: u64, alarm: u64) {
        if self.process.as_ref().is_some_and(|process| (process.life, process.alarm) == (life, alarm)) {
            self.give(Event::Tick);
        }
    }

    pub(super) fn joined(&mut self, id: ConnectionId) {
        let Some(worker) = self.owner(id) else { return };
        let key = self.devices[worker].id();
        let Some(process) = &mut self.process else { return };
        if let Some(old) = process.current.insert(key, id) {
            let noticed = self.network.latency_ms();
            self.break_connection(old, [noticed, noticed]);
            self.give(Event::Disconnected { worker: key });
        }
    }

    pub(super) fn said(&mut self, id: ConnectionId, frame: &[u8]) {
        let Some(worker) = self.owner(id) else {
            self.counts.lost_frames += 1;
            return;
        };
        if !self.is_current(id) {
            return;
        }
        let event = carry::at_coordinator(self.devices[worker].id(), frame, None);
        self.say(format_args!("coordinator ← w{worker}: {}", brief_event(&event)));
        // Where one frame is wrong, nobody knows where the next begins; a question that may not be asked has an end.
        let ends = matches!(event, Event::BadMessage { .. }) && frame != Message::StatusRequest.encode();
        self.give(event);
        if ends {
            let noticed = self.network.latency_ms();
            self.break_connection(id, [0, noticed]);
        }
    }

    pub(super) fn delivered(&mut self, id: ConnectionId, frame: &[u8]) {
        let Some(connection) = self.network.get(id) else { return };
        let (worker, broken, of) = (connection.worker, connection.broken, connection.process);
        if self.process.as_ref().is_none_or(|process| process.life != of) || broken && !self.network.is_read_late() {
            self.counts.lost_frames += 1;
            return;
        }
        self.counts.late_updates += u64::from(broken);
        let Some(process) = &mut self.process else { return };
        let ticket = process.ticket();
        process.tickets.insert(ticket, id);
        let event = carry::at_coordinator(self.devices[worker].id(), frame, Some(ticket));
        let late = if broken { ", late" } else { "" };
        self.say(format_args!("coordinator ← w{worker}: {}{late}", brief_event(&event)));
        self.counts.arrived += 1;
        let header = match &event {
            Event::Update { update, .. } => Some(update.header()),
            _ => None,
        };
        self.see(&Seen::Arrived { ticket, header });
        self.give(event);
    }

    pub(super) fn gone(&mut self, id: ConnectionId) {
        if !self.is_current(id) {
            return;
        }
        let Some(worker) = self.network.get(id).map(|connection| self.devices[connection.worker].id()) else { return };
        if let Some(process) = &mut self.process {
            process.current.remove(&worker);
        }
        self.give(Event::Disconnected { worker });
    }

    /// Whose connection to this process it is, if it carries anything.
    fn owner(&self, id: ConnectionId) -> Option<usize> {
        let connection = self.network.get(id).filter(|connection| !connection.broken)?;
        let life = self.process.as_ref()?.life;
        (connection.process == life).then_some(connection.worker)
    }

    fn is_current(&self, id: ConnectionId) -> bool {
        self.process.as_ref().is_some_and(|process| process.current.values().any(|&current| current == id))
    }

    /// Tells the engine, and does what it says until that is done or the process dies over it.
    pub(super) fn give(&mut self, event: Event) {
        let mut events = VecDeque::from([event]);
        while let Some(event) = events.pop_front() {
            events.extend(self.give_one(event));
        }
        self.set_alarm();
    }

    /// Returns what the engine is to be told next.
    fn give_one(&mut self, event: Event) -> Option<Event> {
        let mut next = None;
        let now = self.clock.shows(self.now);
        let asked = self.process.as_mut()?.engine.handle(event, now);
        let effects: Vec<Effect> = match self.sabotage {
            Some(sabotage) => asked.into_iter().flat_map(|effect| sabotage.pass(effect)).collect(),
            None => asked,
        };
        let mut effects = effects.into_iter().peekable();
        while let Some(effect) = effects.next() {
            if !self.power_lasts() {
                self.crash_coordinator();
                return None;
            }
            match effect {
                Effect::Store(write) => {
                    let mut group = vec![write];
                    while let Some(Effect::Store(write)) = effects.next_if(|next| matches!(next, Effect::Store(_))) {
                        group.push(write);
                    }
                    if !self.store(group) {
                        return None;
                    }
                }
                Effect::Send { worker, message } => self.send_down(worker, &message),
                Effect::Verdict { ticket, verdict } => self.answer(ticket, &verdict),
                Effect::Aggregate(task) => {
                    let store = self.disk.store().ok()?;
                    next = Some(task.answer(store));
                    self.say(format_args!("coordinator aggregates round {} by {:?}", task.round, task.rule));
                }
                Effect::Ordered { ticket, result } => self.ordered(ticket, &result),
                Effect::Offer { worker, target, runs } => self.offer(worker, target, runs),
                // The alarm is set anew below, from the engine's own deadline.
                Effect::Wake(_) => {}
            }
        }
        if let Some(process) = &self.process {
            self.invariants.see(&Seen::Settled { engine: &process.engine }, self.now);
        }
        next
    }

    /// Makes durable what is asked for in a row, all of it or nothing, as the server does; whether the process lives.
    fn store(&mut self, group: Vec<Write>) -> bool {
        if let Err(error) = self.disk.write_all(&group) {
            self.counts.failed_writes += 1;
            let briefs: Vec<String> = group.iter().map(brief_write).collect();
            self.say(format_args!("coordinator cannot store {}: {error}", briefs.join(", ")));
            self.in_doubt = group;
            self.crash_coordinator();
            return false;
        }
        group.iter().for_each(|write| self.stored(write));
        true
    }

    /// Whether the process lives to carry out one more effect.
    fn power_lasts(&mut self) -> bool {
        match &mut self.dies_after {
            None => true,
            Some(0) => {
                self.dies_after = None;
                false
            }
            Some(left) => {
                *left -= 1;
                true
            }
        }
    }

    fn stored(&mut self, write: &Write) {
        self.say(format_args!("stored: {}", brief_write(write)));
        match write {
            Write::Open(open) => {
                self.counts.rounds += u64::from(self.open_rounds.insert(open.round));
            }
            Write::Abandon { round } => {
                self.open_rounds.remove(round);
                self.counts.abandoned += 1;
            }
            Write::Commit(commit) => {
                self.open_rounds = commit.open.iter().map(|open| open.round).collect();
                self.counts.commits += 1;
                self.counts.commits_after_faults += u64::from(self.healed);
            }
            Write::Note(note) => self.count_rollouts(note),
            Write::Enroll { .. } | Write::Members(_) | Write::Accept { .. } => {}
        }
        self.see(&Seen::Durable(write));
    }

    fn send_down(&mut self, worker: WorkerId, message: &Message) {
        let Some(&id) = self.process.as_ref().and_then(|process| process.current.get(&worker)) else { return };
        let frame = message.encode();
        let arrives = self.network.on_control(id, Way::Down, self.now, frame.len());
        self.at(arrives, Happening::Heard { connection: id, frame });
    }

    /// Tells a worker which release to run.
    fn offer(&mut self, worker: WorkerId, target: Option<ReleaseRef>, runs: Option<ReleaseRef>) {
        self.see(&Seen::Offered { worker, target });
        if let Some(target) = self.shelf.target(target, runs) {
            self.send_down(worker, &Message::Target(target));
        }
    }

    fn answer(&mut self, ticket: Ticket, verdict: &Verdict) {
        match &verdict.outcome {
            Outcome::Accepted => self.counts.accepted += 1,
            Outcome::Discarded => self.counts.discarded += 1,
            Outcome::Rejected(rejection) => {
                *self.counts.rejected.entry(rejection.code.to_string()).or_default() += 1;
            }
        }
        self.see(&Seen::Answered { ticket, verdict });
        let Some(id) = self.process.as_mut().and_then(|process| process.tickets.remove(&ticket)) else { return };
        let frame = Message::Verdict(verdict.clone()).encode();
        let arrives = self.network.on_own_stream(self.now, frame.len());
        self.at(arrives, Happening::Heard { connection: id, frame });
    }

    /// The process dies where it stands, and its disk with what was not synced.
    fn crash_coordinator(&mut self) {
        let Some(process) = self.process.take() else { return };
        self.counts.coordinator_crashes += 1;
        self.counts.crashes_in_a_round += u64::from(!self.open_rounds.is_empty());
        self.counts.crashes_in_a_rollout += u64::from(!self.open_rollouts.is_empty());
        self.say(format_args!("coordinator dies"));
        self.dies_after = None;
        self.see(&Seen::Died);
        let lost: Vec<ConnectionId> =
            self.network.living().filter(|(_, c)| c.process == process.life).map(|(id, _)| id).collect();
        for id in lost {
            let noticed = self.network.noticed_ms();
            self.break_connection(id, [0, noticed]);
        }
        self.power_cut();
    }

    /// The disk forgets what was not synced; the next process begins in a while.
    fn power_cut(&mut self) {
        self.disk.power_cut();
        self.counts.forgotten_sectors = self.disk.forgotten() as u64;
        let down = 1 + self.luck.below(self.scenario.faults.down_ms_max);
        self.after(down, Happening::CoordinatorStarts);
    }
}
