//! The one owner of engine and store: takes what arrives, and does what the engine says, in order.
//!
//! ```text
//!   all arrivals that are there ──► engine ──► writes ──► one durable group ──┐ stored
//!                                        └───► answers ───────────────────────┴──► workers
//! ```
//!
//! It never waits for a peer: a queue that is full costs its worker the connection. A group that cannot be
//! stored ends it, before anything is sent that depends on a write.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use packfed_protocol::{Digest, Message, Rejection, ReleaseRef, Target, Timestamp, Verdict, WorkerId};
use tokio::sync::{mpsc, oneshot, watch};

use super::clock::Stopwatch;
use super::control::Said;
use super::metrics::Shown;
use super::releases::Releases;
use super::report::Report;
use super::shared::Shared;
use super::{Arrival, CLOSED, Sender, ServerError, now};
use crate::aggregation::AggregationTask;
use crate::audit::AuditLog;
use crate::engine::Engine;
use crate::event::{Effect, Event, Ticket, Write};
use crate::picture::{PastRound, Picture, RELEASES_MAX, ROLLOUTS_MAX, Rollout, Seen};
use crate::status::Status;
use crate::store::Store;

mod orders;

use orders::Ordered;

/// When the owner lets the server end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Ending {
    /// When nobody can reach it any more.
    WhenAsked,
    /// When the run is finished and every worker has left, or nothing was sent to or fro for [`GRACE_MS`].
    WhenFinished,
}

/// The way to one worker. Most queues are empty, and an empty one has room for 32 of what it carries.
pub(super) struct Link {
    from: Sender,
    queue: mpsc::Sender<Box<Message>>,
    connection: quinn::Connection,
}

impl Link {
    pub(super) fn new(from: Sender, queue: mpsc::Sender<Box<Message>>, connection: quinn::Connection) -> Self {
        Self { from, queue, connection }
    }
}

/// A link, and what its connection is told about the worker's standing.
struct Connected {
    link: Link,
    admission: watch::Sender<Result<(), Rejection>>,
}

pub(super) struct Owner {
    engine: Engine,
    store: Box<dyn Store + Send>,
    /// Is told of everything before the engine is.
    audit: Option<AuditLog>,
    releases: Releases,
    shared: Arc<Shared>,
    connected: BTreeMap<WorkerId, Connected>,
    verdicts: BTreeMap<Ticket, oneshot::Sender<Verdict>>,
    /// Orders that the engine was given.
    ordered: BTreeMap<Ticket, Ordered>,
    next_ticket: u64,
    pending: Pending,
    farewell: Option<Farewell>,
}

/// The end of a finished run, in which workers fetch the last model.
struct Farewell {
    began: Timestamp,
    /// Bytes of rounds that were seen to have moved, and when the last did.
    moved: u64,
    last_move: Timestamp,
}

impl Farewell {
    /// When it is over, if nothing more moves.
    fn end(&self) -> Timestamp {
        self.last_move.plus(GRACE_MS).min(self.began.plus(FAREWELL_MS_MAX))
    }
}

/// What the engine has asked for since the last flush.
#[derive(Default)]
struct Pending {
    writes: Vec<Write>,
    answers: Vec<Answer>,
}

/// What is done once the writes before it are durable.
enum Answer {
    Send { worker: WorkerId, message: Box<Message> },
    Verdict { ticket: Ticket, verdict: Verdict },
    Aggregate(Box<AggregationTask>),
    Ordered { ticket: Ticket, result: Result<u64, Rejection> },
    Offer { worker: WorkerId, target: Option<ReleaseRef>, runs: Option<ReleaseRef> },
}

impl Pending {
    fn push(&mut self, effect: Effect) {
        match effect {
            Effect::Store(write) => self.writes.push(write),
            Effect::Send { worker, message } => self.answers.push(Answer::Send { worker, message: Box::new(message) }),
            Effect::Verdict { ticket, verdict } => self.answers.push(Answer::Verdict { ticket, verdict }),
            Effect::Aggregate(task) => self.answers.push(Answer::Aggregate(task)),
            Effect::Ordered { ticket, result } => self.answers.push(Answer::Ordered { ticket, result }),
            Effect::Offer { worker, target, runs } => self.answers.push(Answer::Offer { worker, target, runs }),
            // See `Owner::wake`.
            Effect::Wake(_) => {}
        }
    }
}

impl Owner {
    pub(super) fn new(
        engine: Engine,
        store: Box<dyn Store + Send>,
        audit: Option<AuditLog>,
        releases: Releases,
        shared: Arc<Shared>,
    ) -> Self {
        Self {
            engine,
            store,
            audit,
            releases,
            shared,
            connected: BTreeMap::new(),
            verdicts: BTreeMap::new(),
            ordered: BTreeMap::new(),
            next_ticket: 0,
            pending: Pending::default(),
            farewell: None,
        }
    }

    /// Owns until nobody is left who could send anything, or the run is over if that is the end.
    pub(super) async fn run(
        mut self,
        mut arrivals: mpsc::Receiver<Arrival>,
        ending: Ending,
    ) -> Result<Status, ServerError> {
        while !self.over(ending) {
            tokio::select! {
                biased;
                arrival = arrivals.recv() => match arrival {
                    Some(arrival) => self.take_group(arrival, &mut arrivals)?,
                    None => break,
                },
                () = wait_until(self.wake()) => self.give(Event::Tick)?,
                // Settling draws it.
                () = wait_until(self.shared.dashboard.due()) => {}
            }
            self.settle()?;
        }
        if let Some(audit) = &mut self.audit {
            audit.end(now())?;
        }
        Ok(self.engine.status())
    }

    /// Shows how things stand to whoever watches.
    fn show(&mut self) -> Result<(), ServerError> {
        let metrics = &self.shared.metrics;
        if let Some(audit) = &mut self.audit {
            audit.flush()?;
            metrics.audit_bytes.set(i64::try_from(audit.segment_bytes()).unwrap_or(i64::MAX));
        }
        metrics.show(|| Shown { status: self.engine.status(), connected: self.connected.len() });
        self.draw(now());
        Ok(())
    }

    /// Draws the picture of the dashboard, if it is time and anybody can look.
    pub(super) fn draw(&self, now: Timestamp) {
        self.shared.dashboard.show(now, || self.picture(now));
    }

    /// Takes an arrival and those that wait behind it, as far as a group goes.
    fn take_group(&mut self, first: Arrival, arrivals: &mut mpsc::Receiver<Arrival>) -> Result<(), ServerError> {
        self.take(first)?;
        for _ in 1..GROUP_MAX {
            let Ok(arrival) = arrivals.try_recv() else { break };
            self.take(arrival)?;
        }
        Ok(())
    }

    fn over(&mut self, ending: Ending) -> bool {
        if ending == Ending::WhenAsked || !self.engine.finished() {
            return false;
        }
        let (now, bytes) = (now(), self.shared.traffic.bytes());
        let moved = bytes.bytes_up + bytes.bytes_down;
        let farewell = self.farewell.get_or_insert(Farewell { began: now, moved, last_move: now });
        if farewell.moved != moved {
            (farewell.moved, farewell.last_move) = (moved, now);
        }
        self.connected.is_empty() || now >= farewell.end()
    }

    /// When something is to be done though nothing arrives. The engine's own wish to be woken is asked
    /// for here, so that it holds after a restart as well.
    fn wake(&self) -> Option<Timestamp> {
        self.engine.deadline().or(self.farewell.as_ref().map(Farewell::end))
    }

    fn take(&mut self, arrival: Arrival) -> Result<(), ServerError> {
        match arrival {
            Arrival::Connected { link, admission } => self.connect(link, admission),
            Arrival::Gone { from } => self.disconnect(from),
            Arrival::Said { from, said } if self.is_current(from) => self.give(match said {
                Said::Enroll(enroll) => Event::Enroll { worker: from.worker, enroll },
                Said::ReleaseState(state) => Event::ReleaseState { worker: from.worker, state },
                Said::CheckIn(check_in) => Event::CheckIn { worker: from.worker, check_in },
                Said::Bad(rejection) => Event::BadMessage { worker: from.worker, rejection },
            }),
            // Said before its worker connected anew; the new connection speaks for itself.
            Arrival::Said { .. } => Ok(()),
            Arrival::Update { worker, update, verdict } => {
                let ticket = self.ticket();
                self.verdicts.insert(ticket, verdict);
                self.give(match update {
                    Ok(update) => Event::Update { ticket, update },
                    Err(rejection) => Event::BadUpdate { ticket, worker, rejection },
                })
            }
            Arrival::Status { report } => {
                // It tells of nothing that is not stored.
                self.settle()?;
                // Whoever asked may have left.
                let _ = report.send(Report::serving(self.engine.status(), &self.shared.traffic).to_json());
                Ok(())
            }
            Arrival::Order { by, request, answer } => self.request(&by, *request, answer),
        }
    }

    fn ticket(&mut self) -> Ticket {
        let ticket = Ticket(self.next_ticket);
        self.next_ticket += 1;
        ticket
    }

    /// What a worker is told to run; the body of a release is held ready. A release that is not whole on the shelf is
    /// told to nobody.
    fn offer(&mut self, target: Option<ReleaseRef>, runs: Option<ReleaseRef>) -> Option<Target> {
        let Some(release) = target else { return Some(Target::Base) };
        match self.releases.offer(release, runs) {
            Ok(offered) => {
                self.shared.bodies.keep(&offered.body, now());
                Some(offered.target)
            }
            Err(error) => {
                tracing::error!(release = release.number, %error, "a release cannot be given out");
                None
            }
        }
    }

    /// Everything at once.
    fn picture(&self, now: Timestamp) -> Picture {
        let (status, bytes) = (self.engine.status(), self.shared.traffic.bytes());
        let seen = Seen {
            now,
            status: &status,
            registry: self.engine.registry(),
            connected: self.connected.len(),
            bytes_up: bytes.bytes_up,
            bytes_down: bytes.bytes_down,
            dense_bytes: self.engine.plan().dense_bytes(),
        };
        let past = self.engine.past().values().map(PastRound::of).collect();
        let records = self.engine.rollouts().records().values().rev().take(ROLLOUTS_MAX);
        // What is wrong with the shelf is told to whoever asks for releases.
        let mut releases = self.releases.list().unwrap_or_default();
        releases.truncate(RELEASES_MAX);
        Picture {
            paused: status.paused,
            history: past,
            rollouts: records.map(Rollout::of).collect(),
            releases,
            ..Picture::of(seen)
        }
    }

    /// A worker's newest connection is the one that counts. What was meant for an older one goes there first.
    fn connect(
        &mut self,
        link: Link,
        admission: oneshot::Sender<watch::Receiver<Result<(), Rejection>>>,
    ) -> Result<(), ServerError> {
        self.settle()?;
        let worker = link.from.worker;
        let (sender, receiver) = watch::channel(self.engine.registry().admitted(&worker, now()));
        let replaced = self.connected.insert(worker, Connected { link, admission: sender });
        let _ = admission.send(receiver);
        if let Some(old) = replaced {
            tracing::info!(%worker, "replaced by a newer connection");
            old.link.connection.close(CLOSED, b"replaced by a newer connection");
            return self.give(Event::Disconnected { worker });
        }
        Ok(())
    }

    fn disconnect(&mut self, from: Sender) -> Result<(), ServerError> {
        if !self.is_current(from) {
            return Ok(());
        }
        self.settle()?;
        self.connected.remove(&from.worker);
        self.give(Event::Disconnected { worker: from.worker })
    }

    fn is_current(&self, from: Sender) -> bool {
        self.connected.get(&from.worker).is_some_and(|connected| connected.link.from == from)
    }

    /// Tells the engine; what it asks for waits for [`Owner::settle`].
    fn give(&mut self, event: Event) -> Result<(), ServerError> {
        let now = now();
        if let Some(audit) = &mut self.audit {
            audit.told(&event, now)?;
        }
        self.engine.handle(event, now).into_iter().for_each(|effect| self.pending.push(effect));
        Ok(())
    }

    /// Stores what is pending in one group and then gives the answers that depend on it; what happens on the
    /// way is told to the engine as well.
    fn settle(&mut self) -> Result<(), ServerError> {
        loop {
            let Pending { writes, answers } = std::mem::take(&mut self.pending);
            if !writes.is_empty() {
                self.store(&writes)?;
                writes.iter().for_each(|write| self.tell_admission(write));
            }
            // Whoever has an answer finds it in the metrics.
            self.show()?;
            let events: Vec<Event> = answers.into_iter().filter_map(|answer| self.answer(answer)).collect();
            if events.is_empty() {
                return Ok(());
            }
            for event in events {
                self.give(event)?;
            }
        }
    }

    /// Makes a group of writes durable; the log knows of it before the store does.
    fn store(&mut self, writes: &[Write]) -> Result<(), ServerError> {
        if let Some(audit) = &mut self.audit {
            let head = self.engine.head();
            audit.group(head.version(), Digest(head.digest().0), now())?;
        }
        let watch = Stopwatch::start();
        self.store.write_all(writes)?;
        self.shared.metrics.journalled(watch.elapsed(), writes.len(), writes.iter().map(journal_bytes).sum());
        Ok(())
    }

    /// Does one thing; returns what happened over it.
    fn answer(&mut self, answer: Answer) -> Option<Event> {
        match answer {
            Answer::Send { worker, message } => self.send(worker, message).map(|worker| Event::Disconnected { worker }),
            Answer::Verdict { ticket, verdict } => {
                if let Some(stream) = self.verdicts.remove(&ticket) {
                    // Its worker may have left; the update counts all the same.
                    let _ = stream.send(verdict);
                }
                None
            }
            Answer::Aggregate(task) => Some(task.answer(&*self.store)),
            Answer::Ordered { ticket, result } => {
                self.answer_order(ticket, result);
                None
            }
            Answer::Offer { worker, target, runs } => {
                let target = self.offer(target, runs)?;
                let message = Box::new(Message::Target(target));
                self.send(worker, message).map(|worker| Event::Disconnected { worker })
            }
        }
    }

    fn tell_admission(&self, write: &Write) {
        match write {
            Write::Enroll { worker, .. } => self.tell_admitted(worker),
            Write::Members(entries) => entries.iter().for_each(|(worker, _)| self.tell_admitted(worker)),
            Write::Open(_) | Write::Accept { .. } | Write::Abandon { .. } | Write::Commit(_) | Write::Note(_) => {}
        }
    }

    fn tell_admitted(&self, worker: &WorkerId) {
        if let Some(connected) = self.connected.get(worker) {
            // What it was before is of no interest.
            let _ = connected.admission.send_replace(self.engine.registry().admitted(worker, now()));
        }
    }

    fn send(&mut self, worker: WorkerId, message: Box<Message>) -> Option<WorkerId> {
        let connected = self.connected.get(&worker)?;
        let frame = message.frame_type();
        if connected.link.queue.try_send(message).is_ok() {
            return None;
        }
        tracing::warn!(%worker, %frame, "does not keep up, disconnected");
        connected.link.connection.close(CLOSED, b"too slow");
        self.connected.remove(&worker);
        Some(worker)
    }
}

/// Bytes of an accepted update.
fn journal_bytes(write: &Write) -> usize {
    match write {
        Write::Accept { frame, .. } => frame.bytes(),
        Write::Enroll { .. }
        | Write::Members(_)
        | Write::Open(_)
        | Write::Abandon { .. }
        | Write::Commit(_)
        | Write::Note(_) => 0,
    }
}

/// Waits until a moment of the wall clock, or for ever. A clock that jumps ahead is noticed at the next
/// arrival or at the end of the wait; one that jumps back only makes a tick too many.
async fn wait_until(moment: Option<Timestamp>) {
    match moment {
        Some(moment) => tokio::time::sleep(Duration::from_millis(moment.since(now()))).await,
        None => std::future::pending().await,
    }
}

/// How long workers may be silent before the server of a finished run ends without them.
const GRACE_MS: u64 = 5_000;
/// How long a server of a finished run goes on at most, whoever keeps talking.
const FAREWELL_MS_MAX: u64 = 600_000;
/// Arrivals that are stored and answered together at most, so that the first does not wait for long.
const GROUP_MAX: usize = 256;

#[cfg(test)]
mod tests;
