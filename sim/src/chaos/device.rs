//! The workers' side of the world: processes that own a session each, and do what its effects say, in order.
//!
//! As in the client: what happens on a connection counts only while it is the current one, a session that begins
//! anew remembers nothing, and training goes on whatever the network does.

use packfed_codec::Seed;
use packfed_protocol::{Digest, Identity, Message, Round, Target, WorkerId};
use packfed_worker::follower;
use packfed_worker::local::host::Unattended;
use packfed_worker::session::{Effect, Ending, Event, Session};
use packfed_worker::task::{Job, LocalTask, Trained};

use super::brief::frame_name;
use super::clock::Clock;
use super::following::Following;
use super::invariants::Seen;
use super::malice;
use super::network::{ConnectionId, Way, idle_ms};
use super::sabotage::Sabotage;
use super::scenario::{BASE, Member};
use super::stand_in::StandIn;
use super::world::{Happening, World};
use crate::carry;

/// A worker's device.
pub struct Device {
    identity: Identity,
    task: StandIn,
    step_ms: u64,
    malicious: bool,
    pub(super) clock: Clock,
    session: Option<Session>,
    /// Processes so far.
    life: u64,
    /// Attempts of this device to connect so far; the last one counts.
    links: u64,
    connection: Option<ConnectionId>,
    /// What it has beside its session, if it follows releases.
    pub(super) following: Option<Following>,
    /// Whether it came to the final model; its process ended then unless it follows releases.
    pub(super) finished: bool,
}

/// Milliseconds of a local step once nothing is slow any more.
const CALM_STEP_MS: u64 = 10;
/// How long a process that gave up stays away.
const GAVE_UP_MS: u64 = 2_000;

impl Device {
    /// A device whose process has not begun.
    #[must_use]
    pub fn new(seed: &Seed, number: u64, member: &Member) -> Self {
        let mut clock = Clock::RIGHT;
        clock.set(member.clock_ms);
        Self {
            identity: member.identity.clone(),
            task: StandIn::new(seed, number, member.examples),
            step_ms: member.step_ms,
            malicious: member.malicious,
            clock,
            session: None,
            life: 0,
            links: 0,
            connection: None,
            following: member.follows.map(|follows| Following::new(seed, number, follows)),
            finished: false,
        }
    }

    /// Its key.
    #[must_use]
    pub fn id(&self) -> WorkerId {
        self.identity.id()
    }

    /// Its processes so far.
    pub(super) const fn life(&self) -> u64 {
        self.life
    }

    /// Its connection, as far as it knows.
    pub(super) const fn connection(&self) -> Option<ConnectionId> {
        self.connection
    }
}

impl World {
    pub(super) fn start_worker(&mut self, worker: usize) {
        let run = self.scenario.plan.raw().run;
        let device = &mut self.devices[worker];
        if device.session.is_some() {
            return;
        }
        device.life += 1;
        device.finished = false;
        let now = device.clock.shows(self.now);
        let (session, effects) = Session::new(device.identity.clone(), run, BASE, device.task.examples(), now);
        device.session = Some(if device.following.is_some() { session.following() } else { session });
        self.say(format_args!("w{worker} starts"));
        self.start_follower(worker);
        if self.devices[worker].session.is_some() {
            self.do_all(worker, effects);
        }
    }

    pub(super) fn crash_worker(&mut self, worker: usize) {
        let device = &mut self.devices[worker];
        if device.session.take().is_none() && !device.finished {
            return;
        }
        device.finished = false;
        device.following.iter_mut().for_each(Following::die);
        self.counts.worker_crashes += 1;
        self.say(format_args!("fault: w{worker} dies"));
        self.hang_up(worker);
        let down = 1 + self.luck.below(self.scenario.faults.down_ms_max);
        self.after(down, Happening::WorkerStarts { worker });
    }

    /// The worker's process is gone from its connection.
    fn hang_up(&mut self, worker: usize) {
        if let Some(id) = self.devices[worker].connection.take() {
            let noticed = self.network.noticed_ms();
            self.break_connection(id, [noticed, 0]);
        }
    }

    pub(super) fn worker_alarm(&mut self, worker: usize, life: u64) {
        if self.devices[worker].life == life {
            self.tell(worker, Event::Tick);
        }
    }

    pub(super) fn dial(&mut self, worker: usize, life: u64, link: u64) {
        if !self.is_latest(worker, life, link) {
            return;
        }
        // A handshake is repeated until it is answered or the peer counts as gone.
        let cut = self.network.cut_until(worker, self.now);
        if let Some(until) = cut.filter(|until| until.since(self.now) < idle_ms()) {
            return self.at(until, Happening::Dial { worker, life, link });
        }
        let up = self.process.as_ref().map(super::coordinator::Process::life).filter(|_| cut.is_none());
        let Some(process) = up else {
            let waits = self.network.noticed_ms();
            return self.after(waits, Happening::Linked { worker, life, link, connection: None });
        };
        let id = self.network.open(worker, life, process);
        let there = self.network.latency_ms();
        let back = self.network.latency_ms();
        self.after(there, Happening::Joined(id));
        self.after(there + back, Happening::Linked { worker, life, link, connection: Some(id) });
    }

    fn is_latest(&self, worker: usize, life: u64, link: u64) -> bool {
        let device = &self.devices[worker];
        device.session.is_some() && (device.life, device.links) == (life, link)
    }

    pub(super) fn linked(&mut self, worker: usize, life: u64, link: u64, connection: Option<ConnectionId>) {
        let standing = connection.filter(|&id| self.network.lives(id));
        if !self.is_latest(worker, life, link) {
            if let Some(id) = standing {
                let noticed = self.network.noticed_ms();
                self.break_connection(id, [noticed, 0]);
            }
            return;
        }
        self.devices[worker].connection = standing;
        match standing {
            Some(_) => self.tell(worker, Event::Connected),
            None => self.tell(worker, Event::Disconnected),
        }
    }

    pub(super) fn lost(&mut self, id: ConnectionId) {
        let Some(worker) = self.network.get(id).map(|connection| connection.worker) else { return };
        if self.devices[worker].connection == Some(id) {
            self.devices[worker].connection = None;
            self.say(format_args!("w{worker} has lost its connection"));
            self.tell(worker, Event::Disconnected);
        }
    }

    pub(super) fn heard(&mut self, id: ConnectionId, frame: &[u8]) {
        let Some(connection) = self.network.get(id) else { return };
        let worker = connection.worker;
        if connection.broken {
            self.counts.lost_frames += 1;
            return;
        }
        if self.devices[worker].connection != Some(id) {
            return;
        }
        self.say(format_args!("w{worker} ← {}", frame_name(frame)));
        match carry::at_worker(frame) {
            Ok(event) => {
                let target = match &event {
                    Event::Message(message) => target_of(message),
                    _ => None,
                };
                self.tell(worker, event);
                target.into_iter().for_each(|target| self.follow(worker, follower::Event::Target(target)));
            }
            Err(error) => unreachable!("the coordinator encodes what can be decoded: {error}"),
        }
    }

    pub(super) fn trained(&mut self, worker: usize, life: u64, round: Round, result: Result<Trained, String>) {
        if self.devices[worker].life == life {
            self.say(format_args!("w{worker} has trained round {round}"));
            self.tell(worker, Event::Trained { round, result });
        }
    }

    /// Tells a worker's session, if its process lives, and does what it says; its follower hears what concerns it too.
    fn tell(&mut self, worker: usize, event: Event) {
        let also = match &event {
            Event::Connected => Some(follower::Event::Connected),
            Event::Disconnected => Some(follower::Event::Disconnected),
            Event::Message(_) | Event::Conditions(_) | Event::Trained { .. } | Event::Verdict(_) | Event::Tick => None,
        };
        let device = &mut self.devices[worker];
        let now = device.clock.shows(self.now);
        let Some(session) = &mut device.session else { return };
        let before = session.planned();
        let effects = session.handle(event, now);
        let planned = session.planned().filter(|planned| Some(*planned) != before);
        if let Some(replica) = session.replica() {
            let (version, digest) = (replica.version().0, Digest(replica.state().digest().0));
            self.see(&Seen::Replica { worker, version, digest });
        }
        self.do_all(worker, effects);
        if let Some((layout, examples_max)) = planned {
            self.follow(worker, follower::Event::Planned(follower::Planned { layout, examples_max }));
        }
        also.into_iter().for_each(|event| self.follow(worker, event));
    }

    fn do_all(&mut self, worker: usize, effects: Vec<Effect>) {
        for effect in effects {
            let (device, true_time) = (&mut self.devices[worker], self.now);
            let life = device.life;
            match effect {
                Effect::Connect(_) if device.links > 0 && self.sabotage == Some(Sabotage::NobodyReconnects) => {}
                Effect::Connect(moment) => {
                    // If there is a connection yet, the worker was told to come back on another.
                    if device.connection.is_some() {
                        self.follow(worker, follower::Event::Left);
                    }
                    self.hang_up(worker);
                    let device = &mut self.devices[worker];
                    device.links += 1;
                    let (link, dials) = (device.links, device.clock.wait_until(moment, true_time));
                    self.at(dials, Happening::Dial { worker, life, link });
                }
                Effect::Wake(moment) => {
                    let rings = device.clock.wait_until(moment, true_time);
                    self.at(rings, Happening::WorkerAlarm { worker, life });
                }
                Effect::Send(message) => self.send_up(worker, &message),
                Effect::Upload(message) => self.upload(worker, &message),
                Effect::Train { round, job } => self.train(worker, round, &job),
                Effect::RoundOver => {}
                Effect::Stop(ending) => self.stop(worker, &ending),
            }
        }
    }

    pub(super) fn send_up(&mut self, worker: usize, message: &Message) {
        let Some(id) = self.devices[worker].connection else { return };
        let mut frames = vec![message.encode()];
        if self.lies(worker) {
            let lie = malice::in_place_of_control(&frames[0], &mut self.luck);
            self.say_lie(worker, &lie);
            frames = lie.frames;
        }
        for frame in frames {
            let arrives = self.network.on_control(id, Way::Up, self.now, frame.len());
            self.at(arrives, Happening::Said { connection: id, frame });
        }
    }

    fn upload(&mut self, worker: usize, message: &Message) {
        let Some(id) = self.devices[worker].connection else { return };
        let honest = message.encode();
        self.overhear(&honest);
        let frames = if self.lies(worker) {
            let identity = self.devices[worker].identity.clone();
            let overheard = self.overheard.make_contiguous();
            let lie = malice::in_place_of_update(&honest, &identity, overheard, &mut self.luck);
            self.say_lie(worker, &lie);
            lie.frames
        } else {
            vec![honest]
        };
        for frame in frames {
            let arrives = self.network.on_own_stream(self.now, frame.len());
            self.at(arrives, Happening::Delivered { connection: id, frame });
        }
    }

    fn lies(&self, worker: usize) -> bool {
        self.devices[worker].malicious && !self.healed
    }

    fn say_lie(&mut self, worker: usize, lie: &malice::Lie) {
        self.counts.lies += u64::from(lie.name != malice::HONEST);
        self.say(format_args!("w{worker} sends {}", lie.name));
    }

    fn train(&mut self, worker: usize, round: Round, job: &Job) {
        let faults = !self.healed && self.luck.unit() < self.scenario.faults.training;
        let device = &mut self.devices[worker];
        let step_ms = if self.healed { CALM_STEP_MS.min(device.step_ms) } else { device.step_ms };
        let result = if faults {
            self.counts.training_faults += 1;
            Err("the loss is NaN in step 3".to_owned())
        } else {
            device.task.train(job, &mut Unattended).map_err(|error| error.to_string())
        };
        let life = device.life;
        self.after(step_ms * u64::from(job.local.steps), Happening::Trained { worker, life, round, result });
    }

    fn stop(&mut self, worker: usize, ending: &Ending) {
        let device = &mut self.devices[worker];
        match ending {
            Ending::Finished { version, .. } => {
                device.finished = true;
                let stays = device.following.is_some();
                self.say(format_args!("w{worker} is finished at version {version}"));
                if !stays {
                    self.devices[worker].session = None;
                    self.hang_up(worker);
                }
            }
            Ending::Failed(error) => {
                device.session = None;
                device.following.iter_mut().for_each(Following::die);
                self.hang_up(worker);
                let why = error.to_string();
                self.say(format_args!("w{worker} gives up: {why}"));
                // A lie may lead to this after its time.
                if !self.devices[worker].malicious {
                    self.see(&Seen::GaveUp { worker, why: &why });
                }
                self.after(GAVE_UP_MS, Happening::WorkerStarts { worker });
            }
        }
    }
}

/// What a message says that a worker is to run, if it is of that.
fn target_of(message: &Message) -> Option<Target> {
    match message {
        Message::Target(target) => Some(target.clone()),
        _ => None,
    }
}
