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

use packfed_protocol::{Digest, Message, Order, Rejection, RejectionCode, Timestamp, Verdict, WorkerId};
use tokio::sync::{mpsc, oneshot, watch};

use super::clock::Stopwatch;
use super::control::Said;
use super::metrics::Shown;
use super::past::Past;
use super::releases::Releases;
use super::report::Report;
use super::roster::{Roster, Row};
use super::shared::Shared;
use super::{Arrival, CLOSED, Sender, ServerError, now};
use crate::aggregation::AggregationTask;
use crate::audit::AuditLog;
use crate::engine::Engine;
use crate::event::{Effect, Event, Ticket, Write};
use crate::picture::{Picture, Seen};
use crate::registry::{FOREVER, Standing};
use crate::status::Status;
use crate::store::Store;

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
    next_ticket: u64,
    pending: Pending,
    farewell: Option<Farewell>,
    past: Past,
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
}

impl Pending {
    fn push(&mut self, effect: Effect) {
        match effect {
            Effect::Store(write) => self.writes.push(write),
            Effect::Send { worker, message } => self.answers.push(Answer::Send { worker, message: Box::new(message) }),
            Effect::Verdict { ticket, verdict } => self.answers.push(Answer::Verdict { ticket, verdict }),
            Effect::Aggregate(task) => self.answers.push(Answer::Aggregate(task)),
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
            next_ticket: 0,
            pending: Pending::default(),
            farewell: None,
            past: Past::default(),
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

    fn picture(&self, now: Timestamp) -> Picture {
        let bytes = self.shared.traffic.bytes();
        let picture = Picture::of(Seen {
            now,
            status: &self.engine.status(),
            registry: self.engine.registry(),
            connected: self.connected.len(),
            bytes_up: bytes.bytes_up,
            bytes_down: bytes.bytes_down,
            dense_bytes: self.engine.plan().dense_bytes(),
        });
        Picture { history: self.past.rounds(), ..picture }
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
                Said::ReleaseState(_) => Event::Tick,
                Said::CheckIn(check_in) => Event::CheckIn { worker: from.worker, check_in },
                Said::Bad(rejection) => Event::BadMessage { worker: from.worker, rejection },
            }),
            // Said before its worker connected anew; the new connection speaks for itself.
            Arrival::Said { .. } => Ok(()),
            Arrival::Update { worker, update, verdict } => {
                let ticket = Ticket(self.next_ticket);
                self.next_ticket += 1;
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
            Arrival::Order { order, answer } => {
                let result = self.order(order)?;
                let _ = answer.send(result);
                Ok(())
            }
        }
    }

    /// Does what the operator orders; what is answered is stored.
    fn order(&mut self, order: Order) -> Result<Result<String, Rejection>, ServerError> {
        let (worker, standing) = match order {
            Order::List(after) => {
                self.settle()?;
                let connected = |worker: &WorkerId| self.connected.contains_key(worker);
                return Ok(Ok(Roster::page(self.engine.registry().members(), after, now(), connected).to_json()));
            }
            Order::Release { version, notes } => {
                self.settle()?;
                return Ok(self.release(version.map(|version| version.0), notes));
            }
            Order::Admit(worker) => (worker, Standing::Admitted),
            _ => return Ok(Err(Rejection::new(RejectionCode::NotPossible, "not yet".to_owned()))),
            Order::Suspend(worker) => (worker, Standing::Suspended(FOREVER)),
            Order::Revoke(worker) => (worker, Standing::Revoked),
        };
        let connected = self.connected.contains_key(&worker);
        self.give(Event::Stand { worker, standing })?;
        self.settle()?;
        let member = self.engine.registry().members().get(&worker);
        let row = member.map(|member| Row::of(&worker, member, now(), connected).to_json());
        Ok(row.ok_or_else(|| Rejection::new(RejectionCode::UnknownWorker, format!("no worker has key {worker}"))))
    }

    fn release(&self, version: Option<u64>, notes: String) -> Result<String, Rejection> {
        let made = self.releases.make(&self.engine, version, notes, now());
        made.map_err(|why| Rejection::new(RejectionCode::Malformed, why.to_string()))
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
                writes.iter().for_each(|write| self.past.note(write, now()));
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
        }
    }

    fn tell_admission(&self, write: &Write) {
        match write {
            Write::Enroll { worker, .. } => self.tell_admitted(worker),
            Write::Members(entries) => entries.iter().for_each(|(worker, _)| self.tell_admitted(worker)),
            Write::Open(_) | Write::Accept { .. } | Write::Abandon { .. } | Write::Commit(_) => {}
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
        Write::Enroll { .. } | Write::Members(_) | Write::Open(_) | Write::Abandon { .. } | Write::Commit(_) => 0,
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
