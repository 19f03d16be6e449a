//! The shell's part that follows releases: does what a [`Follower`] says with the folder, the connection and the task.
//!
//! What takes long runs on threads of its own and comes back as an input. An evaluation and a round's training never run
//! at the same time: each may take the machine's memory.

use std::collections::VecDeque;
use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, PoisonError};
use std::time::Instant;

use packfed_codec::{Layout, State};
use packfed_protocol::{PayloadId, Prefix, ReleaseRef, SignedRelease};
use tokio::sync::{Mutex, mpsc};
use tokio::task::AbortHandle;

use super::{ClientError, Input, Owner, now, transfer};
use crate::evaluation::{Found, Watch};
use crate::follower::{Broken, Effect, Event, Follower, NotStored, Source, Standing};
use crate::releases::{Releases, keep_or_set_aside};
use crate::task::LocalTask;

/// What a worker that follows releases has beside its run.
#[derive(Debug)]
pub struct Following {
    /// Where they lie.
    pub releases: Releases,
    /// Most that a release's loss may be above that of the one before, in nats.
    pub loss_increase_max: Option<f64>,
    /// The file of this worker's private lanes.
    pub personal: PathBuf,
}

/// The follower and what it works with.
pub(super) struct Follow {
    follower: Follower,
    releases: Arc<Releases>,
    personal: PathBuf,
    inputs: mpsc::Sender<Input>,
    /// What came of a release before its connection was lost.
    kept: Arc<Mutex<Option<Prefix>>>,
    /// The fetch under way.
    fetching: Option<AbortHandle>,
    /// Whatever has a turn below this is not wanted any more.
    wanted_from: Arc<AtomicU64>,
}

impl Follow {
    /// Opens the folder; also says what is to be done at once.
    pub(super) fn new(
        following: Following,
        task: &(impl LocalTask + Clone + 'static),
        inputs: mpsc::Sender<Input>,
    ) -> Result<(Self, Vec<Effect>), ClientError> {
        let Following { releases, loss_increase_max, personal } = following;
        let standing = releases.open()?;
        let number = standing.current.map_or(0, |held| held.release.number);
        tracing::info!(release = number, "follows releases; 0 is the base model");
        let (follower, effects) = Follower::new(*releases.pinned(), loss_increase_max, standing);
        let releases = Arc::new(releases);
        let follow = Self {
            follower,
            releases,
            personal,
            inputs,
            kept: Arc::default(),
            fetching: None,
            wanted_from: Arc::default(),
        };
        // The last process may have ended between a swap and this.
        follow.look_after_lanes(task);
        Ok((follow, effects))
    }

    fn report(&self, event: Event) -> impl Future<Output = ()> + Send + use<> {
        let inputs = self.inputs.clone();
        async move {
            let _ = inputs.send(Input::Follower(event)).await;
        }
    }

    fn fetch(&mut self, turn: u64, payload: PayloadId, connection: Option<quinn::Connection>) {
        let Some(connection) = connection else {
            let why = "there is no connection".to_owned();
            tokio::spawn(self.report(Event::Fetched { turn, result: Err(Broken { gained: 0, why }) }));
            return;
        };
        let (kept, inputs) = (Arc::clone(&self.kept), self.inputs.clone());
        let fetching = tokio::spawn(async move {
            let mut kept = kept.lock().await;
            let there = |kept: &Option<Prefix>| {
                kept.as_ref().filter(|prefix| *prefix.id() == payload).map_or(0, Prefix::offset)
            };
            let before = there(&kept);
            let fetched = transfer::fetch(&connection, payload, &mut kept).await;
            let gained = there(&kept).saturating_sub(before);
            drop(kept);
            let result = fetched.map_err(|error| Broken { gained, why: error.to_string() });
            let _ = inputs.send(Input::Follower(Event::Fetched { turn, result })).await;
        });
        self.fetching = Some(fetching.abort_handle());
    }

    /// What has this turn, or an earlier one, is not wanted any more. What came of a fetch is kept.
    fn cancel(&mut self, turn: u64) {
        self.wanted_from.store(turn + 1, Ordering::Relaxed);
        if let Some(fetching) = self.fetching.take() {
            fetching.abort();
        }
    }

    fn store(&self, turn: u64, signed: Box<SignedRelease>, source: Source, task: &(impl LocalTask + Clone + 'static)) {
        let (releases, task) = (Arc::clone(&self.releases), task.clone());
        let fits = move |layout: &Arc<Layout>| task.fits(layout).map_err(|error| error.to_string());
        let job = move || releases.store(&signed, &source, &fits);
        self.on_a_thread(job, move |stored| {
            let result = stored.unwrap_or_else(|panic| Err(NotStored::Failed(panic)));
            Event::Stored { turn, result }
        });
    }

    /// Does something on a thread of its own and reports what comes of it, be it a panic.
    fn on_a_thread<R: Send + 'static>(
        &self,
        job: impl FnOnce() -> R + Send + 'static,
        event: impl FnOnce(Result<R, String>) -> Event + Send + 'static,
    ) {
        let (inputs, running) = (self.inputs.clone(), tokio::task::spawn_blocking(job));
        tokio::spawn(async move {
            let result = running.await.map_err(|error| error.to_string());
            let _ = inputs.send(Input::Follower(event(result))).await;
        });
    }

    fn save(&self, standing: &Standing, task: &(impl LocalTask + Clone + 'static)) -> Event {
        let swaps = standing.current != self.follower.standing().current;
        let saved = self.releases.save(standing);
        if swaps && saved.is_ok() {
            let release = standing.current.map(|held| held.release.number);
            self.look_after_lanes_over(release, task);
        }
        Event::Saved(saved.map_err(|error| error.to_string()))
    }

    fn look_after_lanes(&self, task: &(impl LocalTask + Clone + 'static)) {
        let current = self.follower.standing().current;
        self.look_after_lanes_over(current.map(|held| held.release.number), task);
    }

    /// Keeps private lanes that fit, sets others aside; over the base model nobody looks at them.
    fn look_after_lanes_over(&self, release: Option<u64>, task: &(impl LocalTask + Clone + 'static)) {
        let Some(release) = release else { return };
        let (task, file, base) = (task.clone(), self.personal.clone(), self.releases.pinned().base);
        tokio::task::spawn_blocking(move || {
            let fits = |layout: &Arc<Layout>| task.fits(layout).map_err(|error| error.to_string());
            if let Err(error) = keep_or_set_aside(&file, base, &fits, release) {
                tracing::error!(file = %file.display(), %error, "the private lanes cannot be looked after");
            }
        });
    }
}

impl<T: LocalTask + Clone + 'static> Owner<T> {
    /// Gives the follower an event, if there is one, and does what it says.
    pub(super) async fn follow(&mut self, event: Event) {
        let mut events = VecDeque::from([event]);
        while let Some(event) = events.pop_front() {
            let Some(follow) = &mut self.follow else { return };
            let effects = follow.follower.handle(event, now());
            events.extend(self.carry_out_once(effects).await);
        }
    }

    /// Does what the follower says before anything has happened.
    pub(super) async fn carry_out_for_follower(&mut self, effects: Vec<Effect>) {
        for event in self.carry_out_once(effects).await {
            self.follow(event).await;
        }
    }

    /// Does what effects say, in order; what is to be reported at once comes back.
    async fn carry_out_once(&mut self, effects: Vec<Effect>) -> Vec<Event> {
        let mut events = Vec::new();
        for effect in effects {
            let Some(follow) = &mut self.follow else { break };
            match effect {
                Effect::Send(message) => self.send(&message).await,
                Effect::Fetch { turn, payload } => {
                    let connection = self.link.as_ref().map(|(connection, _)| connection.clone());
                    follow.fetch(turn, payload, connection);
                }
                Effect::Store { turn, signed, source } => follow.store(turn, signed, source, &self.task),
                Effect::Evaluate { turn, before, after, examples_max } => {
                    self.evaluate(turn, before, after, examples_max);
                }
                Effect::Cancel(turn) => follow.cancel(turn),
                Effect::Save(standing) => events.push(follow.save(&standing, &self.task)),
                Effect::Wake(time) => self.later(time, Input::Follower(Event::Tick)),
            }
        }
        events
    }

    fn evaluate(&self, turn: u64, before: Option<ReleaseRef>, after: ReleaseRef, examples_max: u32) {
        let Some(follow) = &self.follow else { return };
        let (releases, busy, mut task) = (Arc::clone(&follow.releases), Arc::clone(&self.busy), self.task.clone());
        let mut watch = Stopwatch { begun: instant(), turn, wanted_from: Arc::clone(&follow.wanted_from) };
        let job = move || {
            let _busy = busy.lock().unwrap_or_else(PoisonError::into_inner);
            evaluate(&releases, &mut task, before, after, examples_max, &mut watch)
        };
        follow.on_a_thread(job, move |result| Event::Evaluated { turn, result: result.unwrap_or_else(Err) });
    }
}

fn evaluate(
    releases: &Releases,
    task: &mut impl LocalTask,
    before: Option<ReleaseRef>,
    after: ReleaseRef,
    examples_max: u32,
    watch: &mut Stopwatch,
) -> Result<Found, String> {
    let after = releases.read(after).map_err(|error| error.to_string())?.adapter;
    let after = after.state();
    let before = match before.map(|before| releases.read(before)).transpose() {
        Ok(Some(before)) => before.adapter.state().clone(),
        Ok(None) => State::zero(after.layout().clone()),
        Err(error) => {
            tracing::warn!(%error, "what runs is damaged: the release is looked at by itself");
            let found = task.evaluate([after, after], examples_max, watch).map_err(|error| error.to_string())?;
            return Ok(found.alone());
        }
    };
    task.evaluate([&before, after], examples_max, watch).map_err(|error| error.to_string())
}

/// The clock of one evaluation.
struct Stopwatch {
    begun: Instant,
    turn: u64,
    wanted_from: Arc<AtomicU64>,
}

impl Watch for Stopwatch {
    fn ms(&mut self) -> f64 {
        instant().saturating_duration_since(self.begun).as_secs_f64() * 1e3
    }

    fn is_wanted(&self) -> bool {
        self.turn >= self.wanted_from.load(Ordering::Relaxed)
    }
}

#[expect(clippy::disallowed_methods, reason = "a shell: how long an example takes is measured here")]
fn instant() -> Instant {
    Instant::now()
}
