//! A worker's side of releases as a pure state machine beside the [`Session`](crate::session::Session): events in,
//! effects out, time passed in.
//!
//! ```text
//!            Target                Fetched             Stored              Evaluated
//!   (still) ────────► Fetching ───────────► Storing ───────────► Evaluating ───────► Saving ──► (still)
//!      ▲                │   ▲ Target                                 │ unhealthy       ▲
//!      │                ▼   │                                        └─────────────────┘
//!      │              Resting, asks again; given up after some tries ──────────────────┘
//!      └── another Target, at any time: what is under way is cancelled
//! ```
//!
//! What runs changes in one place, an [`Effect::Save`] of the whole [`Standing`], and is told to the coordinator only
//! when that is done. That a release is being evaluated is saved before it is begun, so that one that ends the process
//! is not tried for ever. Going back to an older release is not evaluated. A release that failed is not tried again:
//! it never changes, and what is mended comes under another number.
//!
//! The follower names no file, socket or clock, and does not know how an evaluation works.

mod event;
mod refusal;
mod standing;
mod unpack;

use packfed_protocol::{
    Failure, Manifest, Message, Payload, ReleaseBody, ReleaseRef, SignedRelease, Target, Timestamp,
};

pub use event::{Broken, Effect, Event, NotStored, Pinned, Planned, Source};
pub use refusal::{RELEASE_BYTES_MAX, Refusal};
pub use standing::{Held, Standing, Trying};
pub use unpack::{Unpacked, read, unpack};

use crate::evaluation::Found;

/// A release on its way.
#[derive(Clone, Debug)]
struct Work {
    signed: Box<SignedRelease>,
    release: ReleaseRef,
    manifest: Box<Manifest>,
    body: ReleaseBody,
    /// It is older than what runs, and meant to be.
    back: bool,
    /// Fetches in a row that brought nothing.
    tries: u32,
    /// The next one that is broken off is this worker's own doing.
    excused: bool,
}

#[derive(Clone, Debug)]
enum Phase {
    Still,
    Fetching(Work),
    /// The coordinator is asked again at this time, or has been.
    Resting(Work, Option<Timestamp>),
    Storing(Work),
    Evaluating(Work, Held),
    Saving(Box<Standing>, Then),
}

/// What follows when a standing is saved.
#[derive(Clone, Debug)]
enum Then {
    Nothing,
    Say,
    Begin(Work),
    Evaluate(Work, Held),
}

/// See the module.
#[derive(Debug)]
pub struct Follower {
    pinned: Pinned,
    loss_increase_max: Option<f64>,
    standing: Standing,
    planned: Option<Planned>,
    online: bool,
    turn: u64,
    phase: Phase,
}

/// Fetches in a row that may bring nothing before a release is given up.
const TRIES_MAX: u32 = 5;
/// First pause before a fetch is asked for again, in milliseconds; it doubles with every one that brings nothing.
const AGAIN_FIRST_MS: u64 = 1_000;
/// Pause before a standing that could not be saved is saved again, in milliseconds.
const SAVE_AGAIN_MS: u64 = 30_000;
/// Processes that may die in the evaluation of a release before it is held to be the reason.
const ATTEMPTS_MAX: u32 = 3;
/// Examples that are evaluated at most, where the run says nothing or allows more.
const EXAMPLES_MAX: u32 = 10_000;

impl Follower {
    /// A follower whose folder says `standing`.
    #[must_use]
    pub fn new(pinned: Pinned, loss_increase_max: Option<f64>, standing: Standing) -> (Self, Vec<Effect>) {
        let (planned, phase) = (None, Phase::Still);
        let mut follower = Self { pinned, loss_increase_max, standing, planned, online: false, turn: 0, phase };
        let mut effects = Vec::new();
        let deadly = follower.standing.trying.filter(|trying| trying.attempts >= ATTEMPTS_MAX);
        if let Some(Trying { held, attempts }) = deadly {
            follower.deadly(held.release, attempts, &mut effects);
        }
        (follower, effects)
    }

    /// What runs, and what was tried.
    #[must_use]
    pub const fn standing(&self) -> &Standing {
        &self.standing
    }

    /// Takes one event and returns what is to be done, in order.
    pub fn handle(&mut self, event: Event, now: Timestamp) -> Vec<Effect> {
        let mut effects = Vec::new();
        match event {
            Event::Connected => {
                self.online = true;
                self.say(&mut effects);
            }
            Event::Disconnected => self.online = false,
            Event::Left => self.left(),
            Event::Planned(planned) => self.planned = Some(planned),
            Event::Target(target) => self.told(target, &mut effects),
            Event::Fetched { turn, result } if turn == self.turn => self.fetched(result, now, &mut effects),
            Event::Stored { turn, result } if turn == self.turn => self.stored(result, now, &mut effects),
            Event::Evaluated { turn, result } if turn == self.turn => self.evaluated(result, &mut effects),
            Event::Fetched { .. } | Event::Stored { .. } | Event::Evaluated { .. } => {}
            Event::Saved(result) => self.saved(result, now, &mut effects),
            Event::Tick => self.tick(now, &mut effects),
            Event::Stopping => self.stopping(&mut effects),
        }
        effects
    }

    fn say(&self, effects: &mut Vec<Effect>) {
        if self.online {
            effects.push(Effect::Send(Message::ReleaseState(self.standing.state())));
        }
    }

    fn left(&mut self) {
        self.online = false;
        if let Phase::Fetching(work) = &mut self.phase {
            work.excused = true;
        }
    }

    fn told(&mut self, target: Target, effects: &mut Vec<Effect>) {
        let (signed, back, body) = match target {
            Target::Base => return self.told_base(effects),
            Target::Release { signed, back, body } => match SignedRelease::from_bytes(&signed) {
                Ok(signed) => (signed, back, body),
                // It has no number under which it could be reported.
                Err(error) => return tracing::error!(%error, "a release is refused"),
            },
        };
        let manifest = signed.unverified().clone();
        let release = ReleaseRef { number: manifest.number, digest: manifest.digest() };
        if self.is_under_way(release, body) {
            return;
        }
        let tries = self.tries(release);
        self.supersede(effects);
        let runs = self.standing.current.map(|held| held.release);
        if runs == Some(release) || (!back && self.standing.has_failed(release)) {
            return self.forget_other(None, Then::Nothing, effects);
        }
        if let Some(runs) = runs.filter(|runs| !back && manifest.number < runs.number) {
            // It was said to whom this worker was before its last swap, and says nothing of the release: what runs now
            // has been told, or is at the next connection, and is answered with a way back.
            tracing::warn!(release = manifest.number, runs = runs.number, "an older release is not taken");
            return self.forget_other(None, Then::Nothing, effects);
        }
        let back = back && runs.is_some_and(|runs| manifest.number < runs.number);
        if let Err(refusal) = self.check(&signed, &manifest, release, back, body) {
            return self.failed(release, Failure::Verify, refusal.to_string(), effects);
        }
        tracing::info!(release = release.number, back, "a release is to be run");
        let (signed, manifest) = (Box::new(signed), Box::new(manifest));
        let work = Work { signed, release, manifest, body, back, tries, excused: false };
        self.forget_other(Some(release), Then::Begin(work), effects);
    }

    fn told_base(&mut self, effects: &mut Vec<Effect>) {
        self.supersede(effects);
        if self.standing.current.is_none() {
            return self.forget_other(None, Then::Nothing, effects);
        }
        tracing::info!("the base model is to be run");
        self.save(self.standing.base(), Then::Say, effects);
    }

    /// Whether this very release is on its way; one that rests takes a new body.
    fn is_under_way(&self, release: ReleaseRef, body: ReleaseBody) -> bool {
        match &self.phase {
            Phase::Still | Phase::Resting(..) | Phase::Saving(_, Then::Nothing | Then::Say) => false,
            Phase::Fetching(work) => work.release == release && work.body == body,
            Phase::Storing(work) | Phase::Evaluating(work, _) => work.release == release,
            Phase::Saving(_, Then::Begin(work) | Then::Evaluate(work, _)) => work.release == release,
        }
    }

    /// Fetches of this release that brought nothing so far.
    fn tries(&self, release: ReleaseRef) -> u32 {
        match &self.phase {
            Phase::Fetching(work) | Phase::Resting(work, _) if work.release == release => work.tries,
            Phase::Still | Phase::Fetching(_) | Phase::Resting(..) | Phase::Storing(_) => 0,
            Phase::Evaluating(..) | Phase::Saving(..) => 0,
        }
    }

    /// Drops what is under way.
    fn supersede(&mut self, effects: &mut Vec<Effect>) {
        match std::mem::replace(&mut self.phase, Phase::Still) {
            Phase::Still | Phase::Saving(..) | Phase::Resting(..) => {}
            Phase::Fetching(work) | Phase::Storing(work) | Phase::Evaluating(work, _) => {
                tracing::info!(release = work.release.number, "not wanted any more");
                effects.push(Effect::Cancel(self.turn));
            }
        }
        self.turn += 1;
    }

    /// Goes on, without what was being tried before if that is another release.
    fn forget_other(&mut self, release: Option<ReleaseRef>, then: Then, effects: &mut Vec<Effect>) {
        match self.standing.trying.map(|trying| trying.held.release) {
            Some(trying) if Some(trying) != release => self.save(self.standing.settled(), then, effects),
            _ => self.go_on(then, effects),
        }
    }

    /// Whether a release may be fetched at all.
    fn check(
        &self,
        signed: &SignedRelease,
        manifest: &Manifest,
        release: ReleaseRef,
        back: bool,
        body: ReleaseBody,
    ) -> Result<(), Refusal> {
        let Pinned { coordinator, run, base } = self.pinned;
        let number = manifest.number;
        signed.verify(&coordinator)?;
        if manifest.run != run {
            return Err(Refusal::Run { number, found: manifest.run, expected: run });
        }
        if manifest.base != base {
            return Err(Refusal::Base { number, found: manifest.base, expected: base });
        }
        if let Some(planned) = self.planned.filter(|planned| planned.layout != manifest.layout) {
            return Err(Refusal::Layout { number, found: manifest.layout, expected: planned.layout });
        }
        if let Some(runs) = self.standing.current.map(|held| held.release.number)
            && number <= runs
            && !back
        {
            return Err(Refusal::Older { number, runs });
        }
        let fetched = match body {
            ReleaseBody::Whole => 0,
            ReleaseBody::From { payload, .. } => payload.bytes,
        };
        let bytes = fetched.max(manifest.adapter.bytes);
        if bytes > RELEASE_BYTES_MAX {
            return Err(Refusal::Size { number, bytes });
        }
        match body {
            ReleaseBody::From { state, .. }
                if self.standing.find(release).is_none() && self.standing.with_state(state).is_none() =>
            {
                Err(Refusal::MissingState { number, state })
            }
            ReleaseBody::Whole | ReleaseBody::From { .. } => Ok(()),
        }
    }

    /// Does what follows when nothing is left to be saved.
    fn go_on(&mut self, then: Then, effects: &mut Vec<Effect>) {
        self.phase = Phase::Still;
        match then {
            Then::Nothing => {}
            Then::Say => self.say(effects),
            Then::Begin(work) if self.standing.find(work.release).is_some() => {
                self.store(work, Source::Folder, effects);
            }
            Then::Begin(work) => self.fetch(work, effects),
            Then::Evaluate(work, held) => {
                let examples_max = self.planned.map_or(EXAMPLES_MAX, |planned| planned.examples_max.min(EXAMPLES_MAX));
                let before = self.standing.current.map(|held| held.release);
                effects.push(Effect::Evaluate { turn: self.turn, before, after: work.release, examples_max });
                self.phase = Phase::Evaluating(work, held);
            }
        }
    }

    fn fetch(&mut self, work: Work, effects: &mut Vec<Effect>) {
        let payload = match work.body {
            ReleaseBody::Whole => work.manifest.adapter,
            ReleaseBody::From { payload, .. } => payload,
        };
        effects.push(Effect::Fetch { turn: self.turn, payload });
        self.phase = Phase::Fetching(work);
    }

    fn store(&mut self, work: Work, source: Source, effects: &mut Vec<Effect>) {
        effects.push(Effect::Store { turn: self.turn, signed: work.signed.clone(), source });
        self.phase = Phase::Storing(work);
    }

    fn fetched(&mut self, result: Result<Payload, Broken>, now: Timestamp, effects: &mut Vec<Effect>) {
        let work = match std::mem::replace(&mut self.phase, Phase::Still) {
            Phase::Fetching(work) => work,
            other => return self.phase = other,
        };
        match (result, work.body) {
            (Ok(payload), ReleaseBody::Whole) => self.store(work, Source::Whole(payload), effects),
            (Ok(payload), ReleaseBody::From { state, .. }) => match self.standing.with_state(state) {
                Some(over) => self.store(work, Source::From(over, payload), effects),
                None => {
                    let refusal = Refusal::MissingState { number: work.release.number, state };
                    self.failed(work.release, Failure::Verify, refusal.to_string(), effects);
                }
            },
            (Err(broken), _) => self.rest(work, broken, now, effects),
        }
    }

    /// Waits before it asks again, or gives the release up.
    fn rest(&mut self, mut work: Work, broken: Broken, now: Timestamp, effects: &mut Vec<Effect>) {
        let Broken { gained, why } = broken;
        work.tries = match gained {
            0 => work.tries + u32::from(!std::mem::take(&mut work.excused)),
            _ => 0,
        };
        if work.tries >= TRIES_MAX {
            let why = format!("{TRIES_MAX} fetches in a row brought nothing, the last one: {why}");
            return self.failed(work.release, Failure::Download, why, effects);
        }
        tracing::warn!(release = work.release.number, gained, why, tries = work.tries, "the release is not here yet");
        // What the coordinator offers next is another effect, or none.
        self.turn += 1;
        let until = now.plus(AGAIN_FIRST_MS << work.tries.saturating_sub(1));
        effects.push(Effect::Wake(until));
        self.phase = Phase::Resting(work, Some(until));
    }

    fn stored(&mut self, result: Result<Held, NotStored>, now: Timestamp, effects: &mut Vec<Effect>) {
        let work = match std::mem::replace(&mut self.phase, Phase::Still) {
            Phase::Storing(work) => work,
            other => return self.phase = other,
        };
        match result {
            Ok(held) if work.back => self.save(self.standing.back(held), Then::Say, effects),
            Ok(held) => self.try_out(work, held, effects),
            Err(NotStored::Refused(refusal)) => {
                self.failed(work.release, Failure::Verify, refusal.to_string(), effects);
            }
            Err(NotStored::Missing(why)) => {
                tracing::warn!(release = work.release.number, why, "a release that was here is fetched anew");
                self.fetch(work, effects);
            }
            Err(NotStored::Failed(why)) => self.rest(work, Broken { gained: 0, why }, now, effects),
        }
    }

    /// Saves that the release is being tried, and then does so.
    fn try_out(&mut self, work: Work, held: Held, effects: &mut Vec<Effect>) {
        let attempts = self.standing.attempts(work.release);
        if attempts >= ATTEMPTS_MAX {
            return self.deadly(work.release, attempts, effects);
        }
        let trying = Some(Trying { held, attempts: attempts + 1 });
        self.save(Standing { trying, ..self.standing.clone() }, Then::Evaluate(work, held), effects);
    }

    fn deadly(&mut self, release: ReleaseRef, attempts: u32, effects: &mut Vec<Effect>) {
        let why = format!("{attempts} processes in a row ended while it was evaluated");
        self.failed(release, Failure::Crash, why, effects);
    }

    fn evaluated(&mut self, result: Result<Found, String>, effects: &mut Vec<Effect>) {
        let (work, held) = match std::mem::replace(&mut self.phase, Phase::Still) {
            Phase::Evaluating(work, held) => (work, held),
            other => return self.phase = other,
        };
        let healthy =
            result.and_then(|found| found.outcome(self.loss_increase_max).map_err(|unhealthy| unhealthy.to_string()));
        match healthy {
            Ok(outcome) => self.save(self.standing.swapped(held, outcome), Then::Say, effects),
            Err(why) => self.failed(work.release, Failure::Crash, why, effects),
        }
    }

    fn failed(&mut self, release: ReleaseRef, failure: Failure, why: String, effects: &mut Vec<Effect>) {
        tracing::error!(release = release.number, ?failure, why, "a release is not run");
        self.save(self.standing.failed(release, failure, why), Then::Say, effects);
    }

    fn save(&mut self, standing: Standing, then: Then, effects: &mut Vec<Effect>) {
        let standing = Box::new(standing);
        effects.push(Effect::Save(standing.clone()));
        self.phase = Phase::Saving(standing, then);
    }

    fn saved(&mut self, result: Result<(), String>, now: Timestamp, effects: &mut Vec<Effect>) {
        let (standing, then) = match std::mem::replace(&mut self.phase, Phase::Still) {
            Phase::Saving(standing, then) => (standing, then),
            other => return self.phase = other,
        };
        match result {
            Ok(()) => {
                if self.standing.current != standing.current {
                    let number = standing.current.map_or(0, |held| held.release.number);
                    tracing::info!(release = number, "the model is another one now");
                }
                self.standing = *standing;
                self.go_on(then, effects);
            }
            Err(why) => {
                tracing::error!(why, again_ms = SAVE_AGAIN_MS, "what runs cannot be written down, and stays as it was");
                effects.push(Effect::Wake(now.plus(SAVE_AGAIN_MS)));
                self.phase = Phase::Saving(standing, then);
            }
        }
    }

    fn tick(&mut self, now: Timestamp, effects: &mut Vec<Effect>) {
        match &mut self.phase {
            Phase::Still | Phase::Fetching(_) | Phase::Storing(_) | Phase::Evaluating(..) => {}
            Phase::Resting(_, None) => {}
            Phase::Resting(_, until @ Some(_)) if until.is_some_and(|until| now >= until) => {
                *until = None;
                self.say(effects);
            }
            // The clock was set back while the shell waited.
            Phase::Resting(_, Some(until)) => effects.push(Effect::Wake(*until)),
            Phase::Saving(standing, _) => effects.push(Effect::Save(standing.clone())),
        }
    }

    /// An evaluation that is broken off on purpose does not count as one that ended the process.
    fn stopping(&mut self, effects: &mut Vec<Effect>) {
        if let Phase::Evaluating(..) = self.phase
            && let Some(Trying { held, attempts }) = self.standing.trying
        {
            effects.push(Effect::Cancel(self.turn));
            self.turn += 1;
            let trying = Some(Trying { held, attempts: attempts.saturating_sub(1) });
            self.save(Standing { trying, ..self.standing.clone() }, Then::Nothing, effects);
        }
    }
}

#[cfg(test)]
pub(crate) mod tests;
