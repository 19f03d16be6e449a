//! The part of a worker's device that follows releases: the worker's own pure machine, a folder that outlives the
//! process, and evaluations that are drawn from the seed.
//!
//! As in the client: what is to be saved is saved whole or not at all and answered at once, what takes long comes back
//! later, and a fetch ends with its connection. The folder is a set of names: that a real one is never half of
//! anything is shown where its files are written.

use std::collections::{BTreeSet, VecDeque};

use packfed_codec::{Seed, Stream};
use packfed_protocol::{Payload, PayloadId, ReleaseOutcome, ReleaseRef, SignedRelease};
use packfed_worker::evaluation::{Found, Score};
use packfed_worker::follower::{Broken, Effect, Event, Follower, Held, NotStored, Pinned, Source, Standing};

use super::invariants::Seen;
use super::network::ConnectionId;
use super::rollouts::Follows;
use super::sabotage::Sabotage;
use super::shelf::named;
use super::world::{Happening, World};

/// See the module.
pub(super) struct Following {
    follows: Follows,
    stream: Stream,
    /// As the disk has it.
    standing: Standing,
    /// Releases that lie on the disk whole.
    folder: BTreeSet<ReleaseRef>,
    follower: Option<Follower>,
}

/// What becomes of a write to the folder.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fate {
    Kept,
    Refused,
    DiesBefore,
    DiesAfter,
}

/// Longest time that a fetch or an evaluation takes once nothing is slow any more.
const CALM_MS: u64 = 100;
/// Examples that a worker holds out.
const HELD_OUT: u32 = 12;
/// How much the losses of two models differ from one example to the next beside what they differ in the mean.
const NOISE: f64 = 0.004;

impl Following {
    pub(super) fn new(seed: &Seed, number: u64, follows: Follows) -> Self {
        let stream = seed.derive("packfed/chaos/following/1", &[number]).stream();
        Self { follows, stream, standing: Standing::default(), folder: BTreeSet::new(), follower: None }
    }

    /// What the disk says that runs.
    pub(super) fn runs(&self) -> Option<ReleaseRef> {
        self.standing.current.map(|held| held.release)
    }

    /// Whether the last release that it tried is this one, and failed: then it need not run it, unless it is to go back
    /// to it.
    fn has_failed(&self, release: ReleaseRef) -> bool {
        let failed = |outcome| matches!(outcome, ReleaseOutcome::Failed(_));
        let goes_back = self.runs().is_some_and(|runs| runs.number > release.number);
        !goes_back && self.standing.tried.is_some_and(|tried| tried.release == release && failed(tried.outcome))
    }

    /// The process is gone.
    pub(super) fn die(&mut self) {
        self.follower = None;
    }

    fn begin(&mut self, pinned: Pinned) -> Vec<Effect> {
        let (follower, effects) = Follower::new(pinned, self.follows.loss_increase_max, self.standing.clone());
        self.follower = Some(follower);
        effects
    }

    fn store(&mut self, signed: &SignedRelease, source: &Source) -> Result<Held, NotStored> {
        let manifest = signed.unverified();
        let held = Held::of(manifest);
        match source {
            Source::Folder if self.folder.contains(&held.release) => Ok(held),
            Source::Whole(body) if body.id() == manifest.adapter => {
                self.folder.insert(held.release);
                Ok(held)
            }
            Source::Folder | Source::Whole(_) | Source::From(..) => {
                Err(NotStored::Missing("it is not there".to_owned()))
            }
        }
    }

    fn keep(&mut self, standing: &Standing) {
        self.standing = standing.clone();
        self.folder.retain(|release| standing.find(*release).is_some());
    }
}

impl World {
    pub(super) fn start_follower(&mut self, worker: usize) {
        let pinned = self.shelf.pinned();
        let Some(following) = &mut self.devices[worker].following else { return };
        let effects = following.begin(pinned);
        let runs = following.runs();
        self.see(&Seen::FollowerStarts { worker, runs });
        let events = self.follow_up(worker, effects);
        events.into_iter().for_each(|event| self.follow(worker, event));
    }

    /// Tells a worker's follower, if its process lives and has one, and does what it says.
    pub(super) fn follow(&mut self, worker: usize, event: Event) {
        let mut events = VecDeque::from([event]);
        while let Some(event) = events.pop_front() {
            let device = &mut self.devices[worker];
            let now = device.clock.shows(self.now);
            let Some(follower) = device.following.as_mut().and_then(|following| following.follower.as_mut()) else {
                return;
            };
            if let Event::Target(target) = &event {
                let target = named(target);
                self.invariants.see(&Seen::Told { worker, target }, self.now);
                if target.is_none() && self.sabotage == Some(Sabotage::TargetGoesUnheard) {
                    continue;
                }
            }
            let effects = follower.handle(event, now);
            events.extend(self.follow_up(worker, effects));
        }
    }

    pub(super) fn followed(&mut self, worker: usize, life: u64, event: Event) {
        if self.devices[worker].life() == life {
            self.follow(worker, event);
        }
    }

    /// A fetch ends, with all that was to be fetched or without.
    pub(super) fn fetch_ends(&mut self, worker: usize, life: u64, id: ConnectionId, (turn, payload): (u64, PayloadId)) {
        let whole = self.network.lives(id) && self.network.cut_until(worker, self.now).is_none();
        let chance = if self.healed { 0.0 } else { self.scenario.rollouts.broken_fetch };
        let Some(following) = &mut self.devices[worker].following else { return };
        let result = if whole && following.stream.unit() >= chance {
            let missing = || Broken { gained: 0, why: "nobody has it".to_owned() };
            self.shelf.body(payload).ok_or_else(missing)
        } else {
            Err(Broken { gained: following.stream.below(2), why: "the connection broke".to_owned() })
        };
        self.followed(worker, life, Event::Fetched { turn, result });
    }

    /// Workers that follow releases and do not run the one that they are to run, though it has not failed there.
    pub(super) fn astray(&self) -> usize {
        let Some(engine) = self.process.as_ref().map(super::coordinator::Process::engine) else {
            return self.devices.len();
        };
        let is_astray = |device: &&super::device::Device| {
            let Some(following) = &device.following else { return false };
            let labels = engine.registry().followers().get(&device.id());
            let desired = labels.and_then(|labels| engine.rollouts().desired(&device.id(), labels));
            following.runs() != desired && !desired.is_some_and(|desired| following.has_failed(desired))
        };
        self.devices.iter().filter(is_astray).count()
    }

    /// Does what a follower says, in order; what is to be reported at once comes back.
    fn follow_up(&mut self, worker: usize, effects: Vec<Effect>) -> Vec<Event> {
        let mut events = Vec::new();
        for effect in effects {
            let life = self.devices[worker].life();
            match effect {
                Effect::Send(message) => self.send_up(worker, &message),
                Effect::Fetch { turn, payload } => self.fetch(worker, turn, payload),
                Effect::Store { turn, signed, source } => {
                    let Some(following) = &mut self.devices[worker].following else { return events };
                    let (result, ms) = (following.store(&signed, &source), 1 + following.stream.below(20));
                    self.after(
                        ms,
                        Happening::Followed { worker, life, event: Box::new(Event::Stored { turn, result }) },
                    );
                }
                Effect::Evaluate { turn, before, after, examples_max } => {
                    self.say(format_args!("w{worker} evaluates release {}", after.number));
                    let (ms, result) = self.evaluate(worker, [before, Some(after)], examples_max);
                    let event = Box::new(Event::Evaluated { turn, result });
                    self.after(ms, Happening::Followed { worker, life, event });
                }
                // What comes of it all the same has a turn that nobody waits for.
                Effect::Cancel(_) => {}
                Effect::Save(standing) => match self.save(worker, &standing) {
                    Some(event) => events.push(event),
                    None => return Vec::new(),
                },
                Effect::Wake(moment) => {
                    let rings = self.devices[worker].clock.wait_until(moment, self.now);
                    self.at(rings, Happening::Followed { worker, life, event: Box::new(Event::Tick) });
                }
            }
        }
        events
    }

    fn fetch(&mut self, worker: usize, turn: u64, payload: PayloadId) {
        let longest = if self.healed { CALM_MS } else { self.scenario.rollouts.fetch_ms_max };
        let device = &mut self.devices[worker];
        let (life, connection) = (device.life(), device.connection());
        let Some(following) = &mut device.following else { return };
        let ms = 1 + following.stream.below(longest);
        match connection {
            Some(id) => self.after(ms, Happening::FetchEnds { worker, life, connection: id, turn, payload }),
            None => {
                let result: Result<Payload, Broken> =
                    Err(Broken { gained: 0, why: "there is no connection".to_owned() });
                self.after(1, Happening::Followed { worker, life, event: Box::new(Event::Fetched { turn, result }) });
            }
        }
    }

    /// What comes of an evaluation, and when.
    fn evaluate(
        &mut self,
        worker: usize,
        models: [Option<ReleaseRef>; 2],
        examples_max: u32,
    ) -> (u64, Result<Found, String>) {
        let rollouts = self.scenario.rollouts;
        let (longest, fault) = if self.healed { (CALM_MS, 0.0) } else { (rollouts.evaluate_ms_max, rollouts.fault) };
        let losses = models.map(|model| self.shelf.loss(model));
        let Some(Following { stream, follows, .. }) = &mut self.devices[worker].following else {
            return (1, Err("it follows nothing".to_owned()));
        };
        let ms = 1 + stream.below(longest);
        if stream.unit() < fault {
            return (ms, Err("the loss is NaN".to_owned()));
        }
        let mut score = |loss: f64| Score { loss: loss + NOISE * stream.unit(), right: f64::from(loss < 1.5), ms: 2.0 };
        let found = match follows.holds_out {
            true => Found::HeldOut((0..HELD_OUT.min(examples_max)).map(|_| losses.map(&mut score)).collect()),
            false => Found::Healthy(score(losses[1])),
        };
        (ms, Ok(found))
    }

    /// Writes down what runs; `None` if the process died over it.
    fn save(&mut self, worker: usize, standing: &Standing) -> Option<Event> {
        let fate = self.fate(worker);
        let following = self.devices[worker].following.as_mut()?;
        let (runs, tried) = (following.runs(), following.standing.tried);
        if matches!(fate, Fate::Kept | Fate::DiesAfter) {
            following.keep(standing);
            let to = following.runs();
            if standing.tried != tried
                && matches!(standing.tried.map(|tried| tried.outcome), Some(ReleaseOutcome::Failed(_)))
            {
                self.counts.releases_failed += 1;
                let why = standing.why.clone().unwrap_or_default();
                self.say(format_args!(
                    "w{worker} does not run release {}: {why}",
                    standing.tried.map_or(0, |tried| tried.release.number)
                ));
            }
            if to != runs {
                self.counts.releases_swapped += 1;
                self.say(format_args!(
                    "w{worker} runs {}",
                    to.map_or("the base".to_owned(), |to| format!("release {}", to.number))
                ));
                self.see(&Seen::Swapped { worker, to });
            }
        }
        match fate {
            Fate::Kept => Some(Event::Saved(Ok(()))),
            Fate::Refused => {
                self.say(format_args!("w{worker} cannot write down what runs"));
                Some(Event::Saved(Err("the disk is full".to_owned())))
            }
            Fate::DiesBefore | Fate::DiesAfter => {
                self.counts.crashes_in_a_swap += 1;
                self.crash_worker(worker);
                None
            }
        }
    }

    fn fate(&mut self, worker: usize) -> Fate {
        let rollouts = self.scenario.rollouts;
        let Some(following) = self.devices[worker].following.as_mut().filter(|_| !self.healed) else {
            return Fate::Kept;
        };
        if following.stream.unit() < rollouts.death_in_save {
            return [Fate::DiesBefore, Fate::DiesAfter][following.stream.index(2)];
        }
        if following.stream.unit() < rollouts.refused_save { Fate::Refused } else { Fate::Kept }
    }
}
