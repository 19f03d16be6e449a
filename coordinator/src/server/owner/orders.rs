//! What operators ask and order: questions are answered from what is stored, orders once they are.

use packfed_protocol::{Order, Rejection, RejectionCode, ReleaseRef, Request, WorkerId};
use tokio::sync::oneshot;

use super::Owner;
use crate::admin::Admin;
use crate::change::Change;
use crate::event::{Event, Ticket};
use crate::registry::{FOREVER, Standing};
use crate::rollout::Spec;
use crate::server::{Roster, Row, ServerError, There, now};
use crate::view::{self, Releases, RolloutDetail, Rollouts, Rounds, Run};

/// What an operator is answered.
pub(in crate::server) type Answer = Result<String, Rejection>;

/// An order that was given to the engine.
pub(super) struct Ordered {
    then: Then,
    answer: oneshot::Sender<Answer>,
}

/// What is told of an order that was done.
enum Then {
    Worker(WorkerId),
    Tokens(usize),
    Round,
    Run,
    Release(String),
    Rollout,
}

impl Owner {
    /// Answers a question, or gives an order to the engine.
    pub(super) fn request(
        &mut self,
        by: &Admin,
        request: Request,
        answer: oneshot::Sender<Answer>,
    ) -> Result<(), ServerError> {
        let Request { why, order } = request;
        // Whoever asks may have left, here and below.
        if let Err(rejection) = by.may(&order) {
            let _ = answer.send(Err(rejection));
            return Ok(());
        }
        match self.resolve(order) {
            Err(rejection) => drop(answer.send(Err(rejection))),
            Ok(Resolved::Question(question)) => {
                // It is told of nothing that is not stored.
                self.settle()?;
                let _ = answer.send(self.tell(question));
            }
            Ok(Resolved::Order(change, then)) => {
                let ticket = self.ticket();
                self.ordered.insert(ticket, Ordered { then, answer });
                self.give(Event::Ordered { ticket, by: by.name.clone(), why, change: Box::new(change) })?;
            }
            Ok(Resolved::Release { version, notes }) => self.release(by, why, (version, notes), answer)?,
        }
        Ok(())
    }

    /// Freezes a model between two groups: what is released is stored. The log knows of it afterwards.
    fn release(
        &mut self,
        by: &Admin,
        why: String,
        (version, notes): (Option<u64>, String),
        answer: oneshot::Sender<Answer>,
    ) -> Result<(), ServerError> {
        self.settle()?;
        match self.releases.make(&self.engine, version, notes, now()) {
            Err(why) => {
                let _ = answer.send(Err(Rejection::new(RejectionCode::NotPossible, why.to_string())));
            }
            Ok(manifest) => {
                let ticket = self.ticket();
                let release = ReleaseRef { number: manifest.number, digest: manifest.digest() };
                let then = Then::Release(view::to_json(&manifest));
                self.ordered.insert(ticket, Ordered { then, answer });
                let change = Box::new(Change::Released(release));
                self.give(Event::Ordered { ticket, by: by.name.clone(), why, change })?;
            }
        }
        Ok(())
    }

    /// What an order comes to.
    fn resolve(&self, order: Order) -> Result<Resolved, Rejection> {
        let stand = |worker, standing| Resolved::Order(Change::Stand { worker, standing }, Then::Worker(worker));
        Ok(match order {
            Order::List(after) => Resolved::Question(Question::Workers(after)),
            Order::Rounds(before) => Resolved::Question(Question::Rounds(before.0)),
            Order::Run => Resolved::Question(Question::Run),
            Order::Releases => Resolved::Question(Question::Releases),
            Order::Rollouts(before) => Resolved::Question(Question::Rollouts(before)),
            Order::Rollout(number) => Resolved::Question(Question::Rollout(number)),
            Order::Picture => Resolved::Question(Question::Picture),
            Order::Admit(worker) => stand(worker, Standing::Admitted),
            Order::Suspend(worker) => stand(worker, Standing::Suspended(FOREVER)),
            Order::Revoke(worker) => stand(worker, Standing::Revoked),
            Order::Label { worker, labels } => Resolved::Order(Change::Label { worker, labels }, Then::Worker(worker)),
            Order::Tokens(tokens) => {
                let count = tokens.len();
                Resolved::Order(Change::Tokens(tokens), Then::Tokens(count))
            }
            Order::Abandon => Resolved::Order(Change::Abandon, Then::Round),
            Order::Pause => Resolved::Order(Change::Pause, Then::Run),
            Order::Unpause => Resolved::Order(Change::Unpause, Then::Run),
            Order::Set(settings) => Resolved::Order(Change::Set(settings), Then::Run),
            Order::Release { version, notes } => Resolved::Release { version: version.map(|version| version.0), notes },
            Order::Start { release, spec } => {
                let spec: Spec = serde_json::from_str(&spec).map_err(|error| {
                    Rejection::new(RejectionCode::Malformed, format!("the rollout cannot be read: {error}"))
                })?;
                let release = self.releases.find(release)?;
                Resolved::Order(Change::Start { release, spec }, Then::Rollout)
            }
            Order::Steer { rollout, verb } => Resolved::Order(Change::Steer { rollout, verb }, Then::Rollout),
        })
    }

    /// The answer to a question.
    fn tell(&self, question: Question) -> Answer {
        Ok(match question {
            Question::Workers(after) => {
                Roster::page(self.engine.registry(), after, now(), |worker| self.there(worker)).to_json()
            }
            Question::Rounds(before) => view::to_json(&Rounds::before(&self.engine, before)),
            Question::Run => view::to_json(&Run::of(&self.engine)),
            Question::Releases => view::to_json(&Releases { releases: self.releases.list()? }),
            Question::Rollouts(before) => view::to_json(&Rollouts::before(&self.engine, before)),
            Question::Rollout(number) => self.rollout(number)?,
            Question::Picture => self.picture(now()).to_json(),
        })
    }

    fn there(&self, worker: &WorkerId) -> There {
        let release = self.engine.follower(worker).and_then(|state| state.runs).map(|runs| runs.number);
        There { connected: self.connected.contains_key(worker), release }
    }

    fn rollout(&self, number: u64) -> Answer {
        let detail = RolloutDetail::of(&self.engine, number);
        let unknown = || {
            let detail = format!("there is no rollout {number}; `rollout history` lists them");
            Rejection::new(RejectionCode::NotPossible, detail)
        };
        detail.map(|detail| view::to_json(&detail)).ok_or_else(unknown)
    }

    /// Answers an order that the engine has done or refused.
    pub(super) fn answer_order(&mut self, ticket: Ticket, result: Result<u64, Rejection>) {
        let Some(Ordered { then, answer }) = self.ordered.remove(&ticket) else { return };
        let _ = answer.send(result.and_then(|number| self.done(then, number)));
    }

    fn done(&self, then: Then, number: u64) -> Answer {
        match then {
            Then::Worker(worker) => {
                let row = Row::of(self.engine.registry(), &worker, now(), self.there(&worker));
                let unknown = || Rejection::new(RejectionCode::UnknownWorker, format!("no worker has key {worker}"));
                row.map(|row| row.to_json()).ok_or_else(unknown)
            }
            Then::Tokens(tokens) => Ok(serde_json::json!({ "tokens": tokens }).to_string()),
            Then::Round => Ok(serde_json::json!({ "abandoned": number }).to_string()),
            Then::Run => Ok(view::to_json(&Run::of(&self.engine))),
            Then::Release(manifest) => Ok(manifest),
            Then::Rollout => self.rollout(number),
        }
    }
}

/// A request, with everything in it found.
#[expect(clippy::large_enum_variant, reason = "it is taken apart as soon as it is made")]
enum Resolved {
    Question(Question),
    Order(Change, Then),
    Release { version: Option<u64>, notes: String },
}

#[derive(Clone, Copy)]
enum Question {
    Workers(WorkerId),
    Rounds(u64),
    Run,
    Releases,
    Rollouts(u64),
    Rollout(u64),
    Picture,
}
