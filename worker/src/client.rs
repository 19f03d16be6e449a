//! The QUIC shell around a [`Session`]: one task owns the session and does what its effects say.
//!
//! ```text
//!   control stream   worker ── Enroll, CheckIn ──►   ◄── Plan, CatchUp, Assignment, Finished, Refused ──
//!   other streams    one an update and its verdict, one a catch-up's body; see `transfer`
//! ```
//!
//! A [`Follower`](crate::follower::Follower) of releases shares the control stream; its part of the shell is `follow`.
//!
//! It decides nothing about rounds or releases. What happens on a connection is numbered with it, so that news of a lost
//! connection cannot be taken for news of the next.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use packfed_codec::{Seed, State};
use packfed_protocol::quic::{self, Client as Quic, QuicError, ReadError};
use packfed_protocol::{
    CoordinatorId, Digest, Enroll, Frame, Identity, Limits, Message, Offer, Rejection, RunId, Timestamp, Token,
};
use thiserror::Error;
use tokio::sync::{Mutex, mpsc};
use tokio::task::JoinSet;

use crate::conditions::ConditionsConfig;
use crate::follower;
use crate::machine::Machine;
use crate::releases::ReleasesError;
use crate::session::{Effect, Ending, Event, Session};
use crate::task::LocalTask;

mod follow;
mod transfer;

pub use follow::Following;

/// Whom to speak to, and as whom.
#[derive(Clone, Debug)]
pub struct Address {
    /// Where the coordinator listens.
    pub coordinator: SocketAddr,
    /// Its public key.
    pub coordinator_key: CoordinatorId,
    /// This worker's secret key.
    pub identity: Identity,
}

/// Why a worker could not do as asked.
#[derive(Debug, Error)]
pub enum ClientError {
    /// The transport failed.
    #[error(transparent)]
    Quic(#[from] QuicError),
    /// The answer could not be read.
    #[error("the coordinator's answer could not be read: {0}")]
    Read(#[from] ReadError),
    /// The coordinator said no.
    #[error("the coordinator refused ({}): {}", .0.code, .0.detail)]
    Refused(Rejection),
    /// The coordinator said something else, or nothing.
    #[error("expected {expected} from the coordinator, got {found}")]
    Answer {
        /// What was expected.
        expected: &'static str,
        /// What came.
        found: String,
    },
    /// The session ended early.
    #[error(transparent)]
    Session(#[from] crate::session::SessionError),
    /// The folder of releases is of no use.
    #[error(transparent)]
    Releases(#[from] ReleasesError),
    /// What was to be done with the finished model could not be done.
    #[error(transparent)]
    Unfinished(Box<dyn std::error::Error + Send + Sync>),
    /// The worker was told to stop.
    #[error("stopped before the run was finished; start again to go on")]
    Interrupted,
}

/// Uses a one-time token to enrol this worker's key, and returns the run that it now belongs to.
///
/// # Errors
/// If the coordinator cannot be reached, is another than named, or refuses the token.
pub async fn enroll(address: &Address, token: Token, name: &str) -> Result<RunId, ClientError> {
    let client = quic::client(&address.identity)?;
    let connection = client.connect(address.coordinator, &address.coordinator_key).await?;
    let (mut send, mut recv) = connection.open_bi().await.map_err(QuicError::from)?;
    let enroll = Message::Enroll(Enroll { token, name: name.to_owned() });
    quic::write_message(&mut send, &enroll).await?;
    let answer = quic::read_message(&mut recv, &Limits::default()).await?;
    client.close();
    client.wait_idle().await;
    match answer.map(|(message, _)| message) {
        Some(Message::Enrolled(enrolled)) => Ok(enrolled.run),
        Some(Message::Refused(refused)) => Err(ClientError::Refused(refused.rejection)),
        other => Err(ClientError::Answer {
            expected: "enrolled",
            found: other.map_or("nothing".into(), |message| message.frame_type().to_string()),
        }),
    }
}

/// How a run ended for this worker.
#[derive(Debug)]
pub struct Ended {
    /// What the session said.
    pub ending: Ending,
    /// The run's seed and the global model as it was last seen.
    pub model: Option<(Seed, Arc<State>)>,
}

/// In what a worker takes part.
#[derive(Debug)]
pub struct Part {
    /// Whom to speak to, and as whom.
    pub address: Address,
    /// The run that it was enrolled in.
    pub run: RunId,
    /// Digest of its base model.
    pub base: Digest,
    /// Where its releases lie; without them it has no part in any.
    pub following: Option<Following>,
}

/// What is done with a finished run.
pub type Finish<'a> = dyn FnMut(Ended) -> Result<(), Box<dyn std::error::Error + Send + Sync>> + Send + 'a;

/// Takes part in a run until it is finished, reconnecting as often as it takes; trains on `machine`, whose state is
/// what `conditions` say. `finish` is given the end. Who follows releases goes on with that until `shutdown` ends.
///
/// # Errors
/// If this worker cannot take part, `finish` fails, or `shutdown` ends before the run does.
pub async fn run(
    part: Part,
    task: impl LocalTask + Clone + 'static,
    machine: Machine,
    conditions: ConditionsConfig,
    finish: &mut Finish<'_>,
    shutdown: impl Future<Output = ()>,
) -> Result<(), ClientError> {
    let Part { address, run, base, following } = part;
    let quic = quic::client(&address.identity)?;
    let (mut session, mut effects) = Session::new(address.identity.clone(), run, base, task.examples(), now());
    let (inputs, inbox) = mpsc::channel(QUEUE);
    let follow = following.map(|following| follow::Follow::new(following, &task, inputs.clone())).transpose()?;
    let (follow, releasing) = follow.unzip();
    if follow.is_some() {
        session = session.following();
    }
    effects.extend(session.handle(Event::Conditions(conditions.now()), now()));
    let mut watch = JoinSet::new();
    if conditions.may_change() {
        watch.spawn(watch_conditions(conditions, inputs.clone()));
    }
    let (partial, busy) = (Arc::default(), Arc::default());
    let mut owner =
        Owner { session, follow, task, machine, quic, address, link: None, links: 0, inputs, partial, busy };
    let mut finished = false;
    let ended = tokio::select! {
        ended = owner.drive(effects, releasing.unwrap_or_default(), inbox, finish, &mut finished) => ended,
        () = shutdown => Err(ClientError::Interrupted),
    };
    owner.follow(follower::Event::Stopping).await;
    owner.machine.interrupt();
    owner.quic.close();
    owner.quic.wait_idle().await;
    match ended {
        Err(ClientError::Interrupted) if finished => Ok(()),
        ended => ended,
    }
}

/// Tells the session again and again which state the machine is in, until nobody wants to know.
async fn watch_conditions(conditions: ConditionsConfig, inputs: mpsc::Sender<Input>) {
    loop {
        tokio::time::sleep(LOOK_EVERY).await;
        if inputs.send(Input::Session(Event::Conditions(conditions.now()))).await.is_err() {
            return;
        }
    }
}

/// Inputs that may wait for the owner.
const QUEUE: usize = 64;
/// How often the machine's state is looked at.
const LOOK_EVERY: Duration = Duration::from_secs(30);
/// How long one message may take to be written.
const WRITE_TIMEOUT: Duration = Duration::from_secs(60);

/// Something for the owner of the session; the number is the connection's.
enum Input {
    Link(u64, Result<Link, QuicError>),
    Message(u64, Box<Message>),
    Verdict(u64, Box<Message>),
    Lost(u64),
    Session(Event),
    Follower(follower::Event),
}

/// What an input means, and to whom.
enum Happened {
    ToSession(Event),
    ToFollower(follower::Event),
    /// The coordinator's word on releases, which also shows that it is there.
    Told(Box<Message>, follower::Event),
}

struct Link {
    connection: quinn::Connection,
    control: quinn::SendStream,
    replies: quinn::RecvStream,
}

struct Owner<T> {
    session: Session,
    follow: Option<follow::Follow>,
    task: T,
    machine: Machine,
    quic: Quic,
    address: Address,
    link: Option<(quinn::Connection, quinn::SendStream)>,
    /// Number of the current or coming connection.
    links: u64,
    inputs: mpsc::Sender<Input>,
    /// What came of a catch-up before its connection was lost; the listener of one connection has it.
    partial: Arc<Mutex<Option<transfer::Partial>>>,
    /// Held by whoever trains or evaluates: a machine's memory is for one of them.
    busy: Arc<std::sync::Mutex<()>>,
}

impl<T: LocalTask + Clone + 'static> Owner<T> {
    async fn drive(
        &mut self,
        effects: Vec<Effect>,
        releasing: Vec<follower::Effect>,
        mut inbox: mpsc::Receiver<Input>,
        finish: &mut Finish<'_>,
        finished: &mut bool,
    ) -> Result<(), ClientError> {
        self.carry_out_for_follower(releasing).await;
        let mut ending = self.carry_out(effects).await;
        loop {
            match ending {
                None => {}
                Some(Ending::Failed(error)) => return Err(error.into()),
                Some(ending) => {
                    *finished = true;
                    finish(Ended { ending, model: self.session.model() }).map_err(ClientError::Unfinished)?;
                    if self.follow.is_none() {
                        return Ok(());
                    }
                    tracing::info!("the run is over; releases are followed until this is stopped");
                }
            }
            let Some(input) = inbox.recv().await else { return Err(ClientError::Interrupted) };
            if let Input::Link(_, Err(error @ QuicError::WrongKey { .. })) = input {
                return Err(error.into());
            }
            ending = match self.happened(input) {
                None => None,
                Some(Happened::ToSession(event)) => self.tell_session(event).await,
                Some(Happened::ToFollower(event)) => {
                    self.follow(event).await;
                    None
                }
                Some(Happened::Told(message, event)) => {
                    let ending = self.tell_session(Event::Message(message)).await;
                    self.follow(event).await;
                    ending
                }
            };
        }
    }

    /// Gives the session an event; the follower hears what concerns it as well.
    async fn tell_session(&mut self, event: Event) -> Option<Ending> {
        let also = match &event {
            Event::Connected => Some(follower::Event::Connected),
            Event::Disconnected => Some(follower::Event::Disconnected),
            Event::Message(_) | Event::Conditions(_) | Event::Trained { .. } | Event::Verdict(_) | Event::Tick => None,
        };
        let planned = self.session.planned();
        let effects = self.session.handle(event, now());
        let ending = self.carry_out(effects).await;
        if let Some((layout, examples_max)) = self.session.planned().filter(|now| Some(*now) != planned) {
            self.follow(follower::Event::Planned(follower::Planned { layout, examples_max })).await;
        }
        if let Some(event) = also {
            self.follow(event).await;
        }
        ending
    }

    /// What an input means; news of an earlier connection means nothing.
    fn happened(&mut self, input: Input) -> Option<Happened> {
        let event = match input {
            Input::Session(event) => event,
            Input::Follower(event) => return Some(Happened::ToFollower(event)),
            Input::Link(number, link) if number == self.links => self.linked(link),
            Input::Message(number, message) if number == self.links => match (&*message, &self.follow) {
                (Message::Target(target), Some(_)) => {
                    let event = follower::Event::Target(target.clone());
                    return Some(Happened::Told(message, event));
                }
                _ => Event::Message(message),
            },
            Input::Verdict(number, message) if number == self.links => match *message {
                Message::Verdict(verdict) => Event::Verdict(verdict),
                other => self.lost(&format!("a {} for a verdict", other.frame_type())),
            },
            Input::Lost(number) if number == self.links && self.link.is_some() => self.lost("the stream ended"),
            Input::Link(..) | Input::Message(..) | Input::Verdict(..) | Input::Lost(_) => return None,
        };
        Some(Happened::ToSession(event))
    }

    fn linked(&mut self, link: Result<Link, QuicError>) -> Event {
        match link {
            Ok(Link { connection, control, replies }) => {
                let listener = Listener { connection: connection.clone(), replies, partial: Arc::clone(&self.partial) };
                tokio::spawn(listener.listen(self.links, self.inputs.clone()));
                self.link = Some((connection, control));
                Event::Connected
            }
            Err(error) => {
                tracing::warn!(%error, "cannot connect");
                Event::Disconnected
            }
        }
    }

    fn lost(&mut self, why: &str) -> Event {
        tracing::warn!(why, "connection lost");
        if let Some((connection, _)) = self.link.take() {
            connection.close(0u32.into(), b"lost");
        }
        Event::Disconnected
    }

    /// Does what effects say, in order, until the session ends.
    async fn carry_out(&mut self, effects: Vec<Effect>) -> Option<Ending> {
        for effect in effects {
            match effect {
                Effect::Connect(time) => self.connect(time).await,
                Effect::Send(message) => self.send(&message).await,
                Effect::Upload(message) => self.upload(*message).await,
                Effect::Train { round, job } => {
                    let (mut task, inputs, busy) = (self.task.clone(), self.inputs.clone(), Arc::clone(&self.busy));
                    let mut host = self.machine.round(round);
                    tokio::task::spawn_blocking(move || {
                        let _busy = busy.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
                        let result = task.train(&job, &mut host).map_err(|error| error.to_string());
                        // The owner is gone only when the session has ended; then nobody wants the result.
                        let _ = inputs.blocking_send(Input::Session(Event::Trained { round, result }));
                    });
                }
                Effect::RoundOver => self.machine.over(),
                Effect::Wake(time) => self.later(time, Input::Session(Event::Tick)),
                Effect::Stop(ending) => return Some(ending),
            }
        }
        None
    }

    async fn connect(&mut self, time: Timestamp) {
        if let Some((connection, _)) = self.link.take() {
            // Before what is on its way breaks off.
            self.follow(follower::Event::Left).await;
            connection.close(0u32.into(), b"comes back later");
        }
        self.links += 1;
        let (number, inputs) = (self.links, self.inputs.clone());
        let (quic, address) = (self.quic.clone(), self.address.clone());
        tokio::spawn(async move {
            tokio::time::sleep(until(time)).await;
            let link = link(&quic, &address).await;
            let _ = inputs.send(Input::Link(number, link)).await;
        });
    }

    fn later(&self, time: Timestamp, input: Input) {
        let inputs = self.inputs.clone();
        tokio::spawn(async move {
            tokio::time::sleep(until(time)).await;
            let _ = inputs.send(input).await;
        });
    }

    async fn send(&mut self, message: &Message) {
        let Some((_, control)) = &mut self.link else { return };
        let written = tokio::time::timeout(WRITE_TIMEOUT, quic::write_message(control, message)).await;
        if !matches!(written, Ok(Ok(_))) {
            self.report(Input::Lost(self.links));
        }
    }

    async fn upload(&mut self, message: Message) {
        let (Some((connection, _)), Message::Update(update)) = (&self.link, message) else { return };
        let (connection, number, inputs) = (connection.clone(), self.links, self.inputs.clone());
        tokio::spawn(async move {
            let input = match transfer::upload(&connection, update).await {
                Ok(message) => Input::Verdict(number, Box::new(message)),
                Err(error) => {
                    tracing::debug!(%error, "an update was broken off");
                    Input::Lost(number)
                }
            };
            let _ = inputs.send(input).await;
        });
    }

    /// Queues an input without waiting for room, which the owner itself must not do.
    fn report(&self, input: Input) {
        let inputs = self.inputs.clone();
        tokio::spawn(async move {
            let _ = inputs.send(input).await;
        });
    }
}

async fn link(quic: &Quic, address: &Address) -> Result<Link, QuicError> {
    let connection = quic.connect(address.coordinator, &address.coordinator_key).await?;
    let (control, replies) = connection.open_bi().await?;
    Ok(Link { connection, control, replies })
}

/// The reading half of a connection's control stream.
struct Listener {
    connection: quinn::Connection,
    replies: quinn::RecvStream,
    partial: Arc<Mutex<Option<transfer::Partial>>>,
}

impl Listener {
    /// Hands everything that the coordinator says to the owner, in its order.
    async fn listen(mut self, number: u64, inputs: mpsc::Sender<Input>) {
        loop {
            let input = match self.next().await {
                Ok(Some(message)) => Input::Message(number, Box::new(message)),
                Ok(None) => Input::Lost(number),
                Err(error) => {
                    tracing::debug!(%error, "control stream");
                    Input::Lost(number)
                }
            };
            let last = matches!(input, Input::Lost(_));
            if inputs.send(input).await.is_err() || last {
                return;
            }
        }
    }

    /// The next message, whole: what is said after a catch-up waits until its body is there.
    async fn next(&mut self) -> Result<Option<Message>, ClientError> {
        Ok(match quic::read_frame(&mut self.replies, &Limits::default()).await? {
            Some((Frame::Message(message), _)) => Some(message),
            Some((Frame::Offer(Offer::CatchUp(offer)), _)) => {
                let mut partial = self.partial.lock().await;
                Some(Message::CatchUp(transfer::download(&self.connection, offer, &mut partial).await?))
            }
            Some((Frame::Offer(Offer::Update(_)), _)) => {
                return Err(ClientError::Answer { expected: "a coordinator's message", found: "an update".into() });
            }
            None => None,
        })
    }
}

#[expect(clippy::disallowed_methods, reason = "the shell reads the clock, the session is told")]
fn now() -> Timestamp {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    Timestamp(u64::try_from(since.as_millis()).unwrap_or(u64::MAX))
}

fn until(time: Timestamp) -> Duration {
    Duration::from_millis(time.since(now()))
}
