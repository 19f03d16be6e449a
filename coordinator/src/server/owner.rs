//! The one owner of engine and store: takes what arrives, and does what the engine says, in order.
//!
//! It never waits for a peer: a queue that is full costs its worker the connection. A write that fails
//! ends it, before anything is sent that depends on the write.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use packfed_protocol::{Message, Rejection, Timestamp, Verdict, WorkerId};
use tokio::sync::{mpsc, oneshot, watch};

use super::control::Said;
use super::report::Report;
use super::shared::Shared;
use super::{Arrival, CLOSED, Sender, ServerError, now};
use crate::engine::Engine;
use crate::event::{Effect, Event, Ticket, Write};
use crate::status::Status;
use crate::store::Store;

/// When the owner lets the server end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Ending {
    /// When nobody can reach it any more.
    WhenAsked,
    /// When the run is finished and every worker has left, or [`GRACE_MS`] later.
    WhenFinished,
}

/// The way to one worker.
pub(super) struct Link {
    from: Sender,
    queue: mpsc::Sender<Message>,
    connection: quinn::Connection,
}

impl Link {
    pub(super) fn new(from: Sender, queue: mpsc::Sender<Message>, connection: quinn::Connection) -> Self {
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
    shared: Arc<Shared>,
    connected: BTreeMap<WorkerId, Connected>,
    verdicts: BTreeMap<Ticket, oneshot::Sender<Verdict>>,
    next_ticket: u64,
    finished_at: Option<Timestamp>,
}

impl Owner {
    pub(super) fn new(engine: Engine, store: Box<dyn Store + Send>, shared: Arc<Shared>) -> Self {
        Self {
            engine,
            store,
            shared,
            connected: BTreeMap::new(),
            verdicts: BTreeMap::new(),
            next_ticket: 0,
            finished_at: None,
        }
    }

    /// Owns until nobody is left who could send anything, or the run is over if that is the end.
    pub(super) async fn run(
        mut self,
        mut arrivals: mpsc::Receiver<Arrival>,
        ending: Ending,
    ) -> Result<Status, ServerError> {
        loop {
            if self.over(ending) {
                return Ok(self.engine.status());
            }
            tokio::select! {
                biased;
                arrival = arrivals.recv() => match arrival {
                    Some(arrival) => self.take(arrival)?,
                    None => return Ok(self.engine.status()),
                },
                () = wait_until(self.wake()) => self.give(Event::Tick)?,
            }
        }
    }

    fn over(&mut self, ending: Ending) -> bool {
        if ending == Ending::WhenAsked || !self.engine.finished() {
            return false;
        }
        let now = now();
        let finished_at = *self.finished_at.get_or_insert(now);
        self.connected.is_empty() || now.since(finished_at) >= GRACE_MS
    }

    /// When something is to be done though nothing arrives. The engine's own wish to be woken is asked
    /// for here, so that it holds after a restart as well.
    fn wake(&self) -> Option<Timestamp> {
        self.engine.deadline().or(self.finished_at.map(|at| at.plus(GRACE_MS)))
    }

    fn take(&mut self, arrival: Arrival) -> Result<(), ServerError> {
        match arrival {
            Arrival::Connected { link, admission } => self.connect(link, admission),
            Arrival::Gone { from } => self.disconnect(from),
            Arrival::Said { from, said } if self.is_current(from) => self.give(match said {
                Said::Enroll(enroll) => Event::Enroll { worker: from.worker, enroll },
                Said::CheckIn(check_in) => Event::CheckIn { worker: from.worker, check_in },
                Said::Bad(rejection) => Event::BadMessage { worker: from.worker, rejection },
            }),
            // Said before its worker connected anew; the new connection speaks for itself.
            Arrival::Said { .. } => Ok(()),
            Arrival::Update { update, verdict } => {
                let ticket = Ticket(self.next_ticket);
                self.next_ticket += 1;
                self.verdicts.insert(ticket, verdict);
                self.give(match update {
                    Ok(update) => Event::Update { ticket, update },
                    Err(rejection) => Event::BadUpdate { ticket, rejection },
                })
            }
            Arrival::Status { report } => {
                // Whoever asked may have left.
                let _ = report.send(Report::serving(self.engine.status(), &self.shared.traffic).to_json());
                Ok(())
            }
        }
    }

    /// A worker's newest connection is the one that counts.
    fn connect(
        &mut self,
        link: Link,
        admission: oneshot::Sender<watch::Receiver<Result<(), Rejection>>>,
    ) -> Result<(), ServerError> {
        let worker = link.from.worker;
        let (sender, receiver) = watch::channel(self.engine.registry().admitted(&worker));
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
        self.connected.remove(&from.worker);
        self.give(Event::Disconnected { worker: from.worker })
    }

    fn is_current(&self, from: Sender) -> bool {
        self.connected.get(&from.worker).is_some_and(|connected| connected.link.from == from)
    }

    /// Tells the engine, and does what it says; a worker that is lost on the way is an event as well.
    fn give(&mut self, event: Event) -> Result<(), ServerError> {
        let mut events = VecDeque::from([event]);
        while let Some(event) = events.pop_front() {
            for effect in self.engine.handle(event, now()) {
                events.extend(self.carry_out(effect)?);
            }
        }
        Ok(())
    }

    /// Does one thing; returns what happened over it.
    fn carry_out(&mut self, effect: Effect) -> Result<Option<Event>, ServerError> {
        match effect {
            Effect::Store(write) => {
                self.store.write(&write)?;
                self.tell_admission(&write);
                Ok(None)
            }
            Effect::Send { worker, message } => {
                Ok(self.send(worker, message).map(|worker| Event::Disconnected { worker }))
            }
            Effect::Verdict { ticket, verdict } => {
                if let Some(answer) = self.verdicts.remove(&ticket) {
                    // Its worker may have left; the update counts all the same.
                    let _ = answer.send(verdict);
                }
                Ok(None)
            }
            Effect::Aggregate(task) => Ok(Some(task.answer(&*self.store))),
            // See `wake`.
            Effect::Wake(_) => Ok(None),
        }
    }

    fn tell_admission(&self, write: &Write) {
        match write {
            Write::Enroll { worker, .. } => {
                if let Some(connected) = self.connected.get(worker) {
                    // What it was before is of no interest.
                    let _ = connected.admission.send_replace(self.engine.registry().admitted(worker));
                }
            }
            Write::Open(_) | Write::Accept { .. } | Write::Abandon { .. } | Write::Commit(_) => {}
        }
    }

    fn send(&mut self, worker: WorkerId, message: Message) -> Option<WorkerId> {
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

/// Waits until a moment of the wall clock, or for ever. A clock that jumps ahead is noticed at the next
/// arrival or at the end of the wait; one that jumps back only makes a tick too many.
async fn wait_until(moment: Option<Timestamp>) {
    match moment {
        Some(moment) => tokio::time::sleep(Duration::from_millis(moment.since(now()))).await,
        None => std::future::pending().await,
    }
}

/// How long workers may take to hear of the end of the run.
const GRACE_MS: u64 = 5_000;
