//! A worker's side of a run as a pure state machine: events in, effects out, time passed in.
//!
//! ```text
//!             Connected            Assignment          Trained            Verdict
//!   (start) ───────────► Waiting ─────────────► Training ───────► Uploading ───────┐
//!                           ▲  │ Finished          │ fault                         │
//!                           │  └─────► Done        └──► Resting ── time ──┐        │
//!                           └──── check-in ◄──────────────────────────────┴────────┘
//! ```
//!
//! Who checks in is assigned at once, later or told to come back: then it leaves, and connects again at that time.
//!
//! Whether there is a connection is a second, independent fact: training goes on without one, and an
//! update that could not be delivered is sent again over the next. The session names no socket, file,
//! clock or random generator, and does not know how training works.

use std::sync::Arc;

use packfed_codec::{Encoder, Scales, Seed, State, Window};
use packfed_protocol::{
    Assignment, CheckIn, ComeBack, Conditions, Digest, Finished, Identity, LaneClips, Message, Outcome, Rejection,
    RejectionCode, Round, RunId, Signed, Timestamp, UpdateHeader, Verdict, Version, WorkerId,
};
use thiserror::Error;

use crate::adopted::{AdoptError, Adopted};
use crate::local::{LocalOptimizer, LocalSteps};
use crate::replica::Replica;
use crate::task::{Job, Trained};

/// Something that happened to a worker.
#[derive(Clone, Debug)]
pub enum Event {
    /// A connection stands, its control stream is open.
    Connected,
    /// The connection is gone, or could not be made.
    Disconnected,
    /// The machine is in this state now. As long as nothing is said of it, it is there for nothing else.
    Conditions(Conditions),
    /// The coordinator said something on the control stream.
    Message(Box<Message>),
    /// Training of a round ended; a fault is told in words.
    Trained {
        /// The round.
        round: Round,
        /// The delta, or why there is none.
        result: Result<Trained, String>,
    },
    /// The coordinator answered the update.
    Verdict(Verdict),
    /// Time has passed.
    Tick,
}

/// Something to be done.
#[derive(Clone, Debug)]
pub enum Effect {
    /// Connect at this time, not before; a connection that stands is given up at once.
    Connect(Timestamp),
    /// Send on the control stream.
    Send(Message),
    /// Train, and report as [`Event::Trained`].
    Train {
        /// The round.
        round: Round,
        /// What to do.
        job: Box<Job>,
    },
    /// The last round that was trained is over: what was kept of its training is of no more use.
    RoundOver,
    /// Send on a stream of its own, and report the answer as [`Event::Verdict`].
    Upload(Box<Message>),
    /// Give the session an [`Event::Tick`] at this time, or soon after.
    Wake(Timestamp),
    /// The session is over.
    Stop(Ending),
}

/// How a session ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Ending {
    /// The run is finished and the replica is the final model.
    Finished {
        /// The last version.
        version: Version,
        /// Its digest.
        digest: Digest,
    },
    /// The session cannot go on.
    Failed(SessionError),
}

/// Why a session cannot go on.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum SessionError {
    /// The plan cannot be followed here.
    #[error(transparent)]
    Plan(#[from] AdoptError),
    /// The coordinator does not let this worker take part.
    #[error("the coordinator refused this worker ({}): {}", .0.code, .0.detail)]
    Refused(Rejection),
    /// Catch-ups do not lead to the head, again and again.
    #[error("{0} catch-ups in a row did not lead to the head's digest")]
    Diverged(u32),
}

/// What a worker is doing.
#[derive(Clone, Debug)]
enum Phase {
    Waiting,
    Training(Assignment),
    Uploading(Box<Message>),
    Resting { until: Timestamp },
    Done,
}

/// See the module.
#[derive(Debug)]
pub struct Session {
    identity: Identity,
    run: RunId,
    base: Digest,
    examples: u32,
    plan: Option<(Adopted, Replica)>,
    phase: Phase,
    online: bool,
    conditions: Conditions,
    /// Milliseconds that it waits if it finds nobody, by what it was told when it was last sent away; 0 once it had work.
    again_ms: u64,
    /// Connections lost or refused since one last did some good.
    failures: u32,
    /// Catch-ups in a row that did not lead to the head.
    diverged: u32,
    /// Releases are followed: there is a reason to stay connected when the run is over.
    follows: bool,
}

/// First delay of a reconnection, in milliseconds; it doubles with every failure.
const BACKOFF_FIRST_MS: u64 = 250;
/// Longest delay of a reconnection, in milliseconds.
const BACKOFF_MAX_MS: u64 = 30_000;
/// Longest that a worker stays away because it is told to, in milliseconds: a year.
const AWAY_MAX_MS: u64 = 366 * 24 * 3_600_000;
/// Longest that a worker waits when it finds nobody, in milliseconds: two days.
const AGAIN_MAX_MS: u64 = 48 * 3_600_000;
/// Catch-ups in a row that may fail before the session gives up.
const DIVERGED_MAX: u32 = 3;

/// Where the order of a worker's examples in a round comes from; every method of a comparison uses it.
#[must_use]
pub fn training_seed(run: &Seed, round: Round, worker: &WorkerId) -> Seed {
    run.derive("packfed/training/1", &[round.0]).derive_for_key("packfed/worker/1", &worker.0)
}

fn rounding_seed(run: &Seed, round: Round, worker: &WorkerId) -> Seed {
    run.derive("packfed/rounding/1", &[round.0]).derive_for_key("packfed/worker/1", &worker.0)
}

/// An assignment's numbers as the local loop has them.
fn local_steps(assignment: &Assignment) -> LocalSteps {
    let &Assignment { steps, batch, learning_rate, weight_decay, warmup, clip_norm, proximal, .. } = assignment;
    let optimizer = match assignment.optimizer {
        packfed_protocol::LocalOptimizer::AdamW => LocalOptimizer::AdamW { weight_decay },
        packfed_protocol::LocalOptimizer::Sgd { momentum } => LocalOptimizer::Sgd { momentum, weight_decay },
    };
    let clip_norm = (clip_norm != 0.0).then_some(clip_norm);
    LocalSteps { steps, batch, learning_rate, optimizer, warmup, clip_norm, proximal }
}

impl Session {
    /// A session of a worker that enrolled in `run`, has the base model with this digest and this many
    /// examples. Its first effect is a connection at once.
    #[must_use]
    pub fn new(identity: Identity, run: RunId, base: Digest, examples: u32, now: Timestamp) -> (Self, Vec<Effect>) {
        let session = Self {
            identity,
            run,
            base,
            examples,
            plan: None,
            phase: Phase::Waiting,
            online: false,
            conditions: Conditions::ALL,
            again_ms: 0,
            failures: 0,
            diverged: 0,
            follows: false,
        };
        (session, vec![Effect::Connect(now)])
    }

    /// The same, for a worker that follows releases: it stays connected when the run is finished, but takes no further
    /// part in it.
    #[must_use]
    pub fn following(self) -> Self {
        Self { follows: true, ..self }
    }

    /// The worker's key.
    #[must_use]
    pub fn id(&self) -> WorkerId {
        self.identity.id()
    }

    /// The replica, once there is a plan.
    #[must_use]
    pub fn replica(&self) -> Option<&Replica> {
        self.plan.as_ref().map(|(_, replica)| replica)
    }

    /// The run's seed and the model as it was last seen, once there is a plan.
    #[must_use]
    pub fn model(&self) -> Option<(Seed, Arc<State>)> {
        self.plan.as_ref().map(|(adopted, replica)| (adopted.seed, replica.state().clone()))
    }

    /// Digest of the plan's layout, and the most examples that a report may claim, once there is a plan.
    #[must_use]
    pub fn planned(&self) -> Option<(Digest, u32)> {
        self.plan.as_ref().map(|(adopted, _)| (Digest(adopted.layout.digest().0), adopted.examples_max))
    }

    /// Takes one event and returns what is to be done, in order.
    pub fn handle(&mut self, event: Event, now: Timestamp) -> Vec<Effect> {
        let mut effects = Vec::new();
        match (&self.phase, event) {
            (Phase::Done, event) => self.done(event, now, &mut effects),
            (_, Event::Connected) => self.connected(&mut effects),
            (_, Event::Disconnected) => self.disconnected(now, &mut effects),
            (_, Event::Conditions(conditions)) => self.is_in(conditions, &mut effects),
            (_, Event::Message(message)) => self.message(*message, now, &mut effects),
            (_, Event::Trained { round, result }) => self.trained(round, result, now, &mut effects),
            (_, Event::Verdict(verdict)) => self.verdict(&verdict, &mut effects),
            (Phase::Resting { until }, Event::Tick) if now >= *until => self.wait(&mut effects),
            // The clock was set back while the shell waited.
            (Phase::Resting { until }, Event::Tick) => effects.push(Effect::Wake(*until)),
            (Phase::Waiting | Phase::Training(_) | Phase::Uploading(_), Event::Tick) => {}
        }
        effects
    }

    /// After the run: whoever follows releases stays connected, and leaves when it is told to.
    fn done(&mut self, event: Event, now: Timestamp, effects: &mut Vec<Effect>) {
        if !self.follows {
            return;
        }
        match event {
            Event::Connected => self.online = true,
            Event::Disconnected => self.disconnected(now, effects),
            Event::Message(message) => {
                self.failures = 0;
                match *message {
                    Message::Refused(refused) => self.refused(refused.rejection, effects),
                    Message::ComeBack(come_back) => self.leave(&come_back, now, effects),
                    other => tracing::debug!(kind = %other.frame_type(), "the run is over here"),
                }
            }
            Event::Conditions(_) | Event::Trained { .. } | Event::Verdict(_) | Event::Tick => {}
        }
    }

    fn connected(&mut self, effects: &mut Vec<Effect>) {
        self.online = true;
        match &self.phase {
            Phase::Waiting => self.wait(effects),
            Phase::Uploading(update) => effects.push(Effect::Upload(update.clone())),
            Phase::Training(_) | Phase::Resting { .. } | Phase::Done => {}
        }
    }

    fn disconnected(&mut self, now: Timestamp, effects: &mut Vec<Effect>) {
        self.online = false;
        let delay = self.backoff_ms();
        self.failures = self.failures.saturating_add(1);
        tracing::info!(delay, failures = self.failures, "no connection");
        effects.push(Effect::Connect(now.plus(delay)));
    }

    /// Exponential, with a jitter of a half that spreads a fleet after its coordinator came back. A worker that was told
    /// to wait for longer does, the second time and later about so long, so that a fleet stays spread while nobody is
    /// there.
    fn backoff_ms(&self) -> u64 {
        let full = BACKOFF_FIRST_MS.saturating_mul(1 << self.failures.min(16)).min(BACKOFF_MAX_MS);
        let seed = Seed::from_bytes(self.identity.id().0).derive("packfed/backoff/1", &[self.failures.into()]);
        match self.again_ms.min(AGAIN_MAX_MS) {
            again if again > full && self.failures == 0 => again,
            again if again > full => again / 2 + seed.stream().below(again + 1),
            _ => full / 2 + seed.stream().below(full / 2 + 1),
        }
    }

    /// Says so if this worker is waiting: what it said before may have been all that kept it from being drawn, or have
    /// let it be drawn.
    fn is_in(&mut self, conditions: Conditions, effects: &mut Vec<Effect>) {
        let before = std::mem::replace(&mut self.conditions, conditions);
        if before != conditions && matches!(self.phase, Phase::Waiting) {
            self.wait(effects);
        }
    }

    /// Tells the coordinator, if it is there, that this worker is free.
    fn wait(&mut self, effects: &mut Vec<Effect>) {
        self.phase = Phase::Waiting;
        if !self.online {
            return;
        }
        let replica = self.replica();
        let check_in = CheckIn {
            run: self.run,
            version: replica.map_or(Version(0), Replica::version),
            digest: replica.map_or(Digest([0; 32]), Replica::digest),
            examples: self.examples,
            conditions: self.conditions,
            planned: self.plan.is_some(),
        };
        effects.push(Effect::Send(Message::CheckIn(check_in)));
    }

    fn message(&mut self, message: Message, now: Timestamp, effects: &mut Vec<Effect>) {
        self.failures = 0;
        match message {
            Message::Plan(plan) => match Adopted::new(&plan, self.run, self.base) {
                Ok(adopted) => {
                    let replica = Replica::new(adopted.layout.clone(), adopted.profile);
                    self.plan = Some((adopted, replica));
                }
                Err(error) => self.fail(error.into(), effects),
            },
            Message::CatchUp(catch_up) => {
                let Some((_, replica)) = &mut self.plan else { return };
                match replica.apply(&catch_up) {
                    Ok(()) => self.diverged = 0,
                    Err(error) => {
                        tracing::warn!(%error, "catch-up refused, starting anew");
                        replica.reset();
                        self.diverged += 1;
                        if self.diverged >= DIVERGED_MAX {
                            self.fail(SessionError::Diverged(self.diverged), effects);
                        }
                    }
                }
            }
            Message::Assignment(assignment) => self.assigned(assignment, effects),
            Message::Finished(finished) => self.finished(&finished, effects),
            Message::Refused(refused) => self.refused(refused.rejection, effects),
            Message::ComeBack(come_back) => self.sent_away(&come_back, now, effects),
            // The follower's.
            Message::Target(_) if self.follows => {}
            other => tracing::warn!(kind = %other.frame_type(), "a message that has no place here"),
        }
    }

    fn assigned(&mut self, assignment: Assignment, effects: &mut Vec<Effect>) {
        let Some((adopted, replica)) = &self.plan else { return };
        if replica.version() != assignment.base {
            return self.wait(effects);
        }
        if matches!(&self.phase, Phase::Training(running) if running.round == assignment.round) {
            return;
        }
        if matches!(self.phase, Phase::Training(_) | Phase::Uploading(_)) {
            effects.push(Effect::RoundOver);
        }
        let job = Job {
            factors: adopted.factors.clone(),
            state: replica.state().clone(),
            window: Window::new(adopted.profile, assignment.turn),
            local: local_steps(&assignment),
            seed: training_seed(&adopted.seed, assignment.round, &self.identity.id()),
        };
        tracing::info!(round = assignment.round.0, base = assignment.base.0, "training");
        self.again_ms = 0;
        effects.push(Effect::Train { round: assignment.round, job: Box::new(job) });
        self.phase = Phase::Training(assignment);
    }

    fn trained(&mut self, round: Round, result: Result<Trained, String>, now: Timestamp, effects: &mut Vec<Effect>) {
        let Phase::Training(assignment) = &self.phase else { return };
        if assignment.round != round {
            return;
        }
        let update = result.and_then(|trained| self.update(assignment, &trained));
        match update {
            Ok(update) => {
                let update = Box::new(Message::Update(update));
                if self.online {
                    effects.push(Effect::Upload(update.clone()));
                }
                self.phase = Phase::Uploading(update);
            }
            Err(fault) => {
                tracing::error!(round = round.0, fault, "nothing is shipped this round");
                let until = now.plus(assignment.deadline_ms);
                self.phase = Phase::Resting { until };
                effects.push(Effect::RoundOver);
                effects.push(Effect::Wake(until));
            }
        }
    }

    /// Quantizes, packs and signs a delta.
    fn update(&self, assignment: &Assignment, trained: &Trained) -> Result<Signed, String> {
        let Some((adopted, _)) = &self.plan else { return Err("there is no plan".into()) };
        let scales: Vec<Scales> =
            assignment.scales.iter().map(|s| Scales { wave: s.wave, residual: s.residual }).collect();
        let worker = self.identity.id();
        let seed = rounding_seed(&adopted.seed, assignment.round, &worker);
        let encoded = Encoder::new(&adopted.layout, adopted.profile, assignment.turn, &scales)
            .and_then(|encoder| encoder.stochastic(&trained.delta, &seed))
            .map_err(|error| error.to_string())?;
        let header = UpdateHeader {
            worker,
            run: adopted.run,
            round: assignment.round,
            base: assignment.base,
            layout: Digest(adopted.layout.digest().0),
            examples: self.examples.min(adopted.examples_max),
            train_loss: trained.loss,
            clipped: encoded.clips.iter().map(|c| LaneClips { wave: c.wave, residual: c.residual }).collect(),
            words: u32::try_from(adopted.layout.blocks()).map_err(|error| error.to_string())?,
            payload: Digest([0; 32]),
        };
        Ok(Signed::new(&self.identity, header, encoded.words))
    }

    fn verdict(&mut self, verdict: &Verdict, effects: &mut Vec<Effect>) {
        if !matches!(self.phase, Phase::Uploading(_)) {
            return;
        }
        match &verdict.outcome {
            Outcome::Accepted => tracing::info!(round = verdict.round.0, "update accepted"),
            Outcome::Discarded => tracing::info!(round = verdict.round.0, "update came too late"),
            Outcome::Rejected(rejection) if rejection.code == RejectionCode::Duplicate => {
                tracing::info!(round = verdict.round.0, "update had been accepted before");
            }
            Outcome::Rejected(rejection) => {
                tracing::warn!(round = verdict.round.0, code = %rejection.code, detail = rejection.detail, "update rejected");
            }
        }
        self.failures = 0;
        effects.push(Effect::RoundOver);
        self.wait(effects);
    }

    fn finished(&mut self, finished: &Finished, effects: &mut Vec<Effect>) {
        if self.replica().is_some_and(|replica| replica.digest() == finished.digest) {
            let &Finished { version, digest } = finished;
            if matches!(self.phase, Phase::Training(_) | Phase::Uploading(_)) {
                effects.push(Effect::RoundOver);
            }
            self.phase = Phase::Done;
            effects.push(Effect::Stop(Ending::Finished { version, digest }));
        } else {
            self.wait(effects);
        }
    }

    /// Drops what it does, and leaves.
    fn sent_away(&mut self, come_back: &ComeBack, now: Timestamp, effects: &mut Vec<Effect>) {
        if matches!(self.phase, Phase::Training(_) | Phase::Uploading(_)) {
            effects.push(Effect::RoundOver);
        }
        self.phase = Phase::Waiting;
        self.leave(come_back, now, effects);
    }

    /// Comes back when it is told to.
    fn leave(&mut self, come_back: &ComeBack, now: Timestamp, effects: &mut Vec<Effect>) {
        let &ComeBack { after_ms, again_ms, ref why } = come_back;
        tracing::info!(after_ms, code = %why.code, detail = why.detail, "not needed for now");
        (self.online, self.again_ms) = (false, again_ms);
        effects.push(Effect::Connect(now.plus(after_ms.min(AWAY_MAX_MS))));
    }

    fn refused(&mut self, rejection: Rejection, effects: &mut Vec<Effect>) {
        let ours = [
            RejectionCode::UnknownWorker,
            RejectionCode::Revoked,
            RejectionCode::WrongRun,
            RejectionCode::UnknownVersion,
        ];
        if ours.contains(&rejection.code) {
            self.fail(SessionError::Refused(rejection), effects);
        } else {
            tracing::warn!(code = %rejection.code, detail = rejection.detail, "refused");
        }
    }

    fn fail(&mut self, error: SessionError, effects: &mut Vec<Effect>) {
        self.phase = Phase::Done;
        effects.push(Effect::Stop(Ending::Failed(error)));
    }
}

#[cfg(test)]
mod tests;
