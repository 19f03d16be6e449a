//! A worker without a model, which goes on whatever happens to its coordinator.
//!
//! Its updates follow from its key, the round and the base, so two runs with the same rounds send the same
//! words. It keeps a ledger of what it was told and holds the coordinator to it.

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::sync::Arc;

use anyhow::{Context, Result, bail, ensure};
use packfed_codec::{Encoder, Scales, Seed, State, Window, decode_catch_up};
use packfed_coordinator::plan::RunPlan;
use packfed_protocol::quic::{Client, client, read_frame, write_message};
use packfed_protocol::{
    Assignment, CatchUp, CheckIn, CoordinatorId, Digest, Frame, Identity, Limits, Message, Offer, Outcome,
    RejectionCode, Signed, Version,
};
use tokio::sync::watch;

use crate::exchange::{self, exchange, fetched};

/// Where the coordinator listens now, and in which of its lives.
pub(crate) type Whereabouts = watch::Receiver<Option<(SocketAddr, u64)>>;

pub(crate) struct Device {
    identity: Identity,
    plan: Arc<RunPlan>,
    coordinator: CoordinatorId,
    replica: State,
    version: u64,
    ledger: Ledger,
}

/// What a device was told.
#[derive(Clone, Debug, Default)]
pub(crate) struct Ledger {
    /// Rounds whose update was sent at least once.
    pub(crate) sent: BTreeSet<u64>,
    /// Rounds whose update was acknowledged.
    pub(crate) acknowledged: BTreeSet<u64>,
    /// Rounds whose update was there already when it was sent again: its verdict was lost.
    pub(crate) known: BTreeSet<u64>,
    /// Digest of the last model, and its version.
    pub(crate) finished: Option<(u64, Digest)>,
}

/// Why a conversation ended.
enum Ended {
    /// The run is finished.
    Finished,
    /// The connection is gone.
    Lost,
}

impl Device {
    pub(crate) fn new(identity: Identity, plan: Arc<RunPlan>, coordinator: CoordinatorId) -> Self {
        let replica = State::zero(plan.layout().clone());
        Self { identity, plan, coordinator, replica, version: 0, ledger: Ledger::default() }
    }

    /// Takes part until the run is finished.
    pub(crate) async fn run(mut self, mut whereabouts: Whereabouts) -> Result<Ledger> {
        loop {
            let here = *whereabouts.borrow_and_update();
            let Some((address, _)) = here else {
                whereabouts.changed().await.context("the campaign is over")?;
                continue;
            };
            let client = client(&self.identity)?;
            let ended = tokio::select! {
                ended = self.converse(&client, address) => ended?,
                changed = whereabouts.changed() => {
                    changed.context("the campaign is over")?;
                    Ended::Lost
                }
            };
            client.close();
            match ended {
                Ended::Finished => {
                    client.wait_idle().await;
                    return Ok(self.ledger);
                }
                Ended::Lost => {
                    // Nobody answers here until it listens anew.
                    let same = |now: &Option<(SocketAddr, u64)>| *now != here;
                    whereabouts.wait_for(same).await.context("the campaign is over")?;
                }
            }
        }
    }

    async fn converse(&mut self, client: &Client, address: SocketAddr) -> Result<Ended> {
        let Ok(connection) = client.connect(address, &self.coordinator).await else { return Ok(Ended::Lost) };
        let Ok((mut send, mut recv)) = connection.open_bi().await else { return Ok(Ended::Lost) };
        if write_message(&mut send, &Message::CheckIn(self.check_in())).await.is_err() {
            return Ok(Ended::Lost);
        }
        loop {
            let Ok(Some((frame, _))) = read_frame(&mut recv, &Limits::default()).await else {
                return Ok(Ended::Lost);
            };
            match frame {
                Frame::Offer(Offer::CatchUp(offer)) => match fetched(&connection, offer).await? {
                    Some(catch_up) => self.apply(&catch_up)?,
                    None => return Ok(Ended::Lost),
                },
                Frame::Message(Message::Assignment(assignment)) => {
                    if !self.upload(&connection, &assignment).await? {
                        return Ok(Ended::Lost);
                    }
                    if write_message(&mut send, &Message::CheckIn(self.check_in())).await.is_err() {
                        return Ok(Ended::Lost);
                    }
                }
                Frame::Message(Message::Finished(finished)) => {
                    let own = (self.version, self.digest());
                    ensure!(own == (finished.version.0, finished.digest), "the last model is another one");
                    self.ledger.finished = Some(own);
                    return Ok(Ended::Finished);
                }
                other => bail!("an unexpected {}", other.frame_type()),
            }
        }
    }

    /// Takes the replica on.
    fn apply(&mut self, catch_up: &CatchUp) -> Result<()> {
        if catch_up.from == Version(0) {
            self.replica = State::zero(self.plan.layout().clone());
        }
        decode_catch_up(&mut self.replica, self.plan.raw().profile, catch_up.body.bytes())?;
        self.version = catch_up.to.0;
        ensure!(self.digest() == catch_up.digest, "a catch-up leads to another model");
        Ok(())
    }

    /// Sends the update of an assignment; whether there was a verdict.
    async fn upload(&mut self, connection: &quinn::Connection, assignment: &Assignment) -> Result<bool> {
        let round = assignment.round.0;
        ensure!(
            !self.ledger.acknowledged.contains(&round),
            "the update of round {round} was acknowledged and is asked for again"
        );
        ensure!(assignment.base.0 == self.version, "round {round} begins at a version that the device has not");
        let update = self.update(assignment)?;
        let again = !self.ledger.sent.insert(round);
        let verdict = match exchange(connection, &Message::Update(update), || ()).await {
            None => return Ok(false),
            Some(Message::Verdict(verdict)) => verdict,
            Some(other) => bail!("a {} where a verdict belongs", other.frame_type()),
        };
        match verdict.outcome {
            Outcome::Accepted => {
                self.ledger.acknowledged.insert(round);
            }
            Outcome::Rejected(rejection)
                if again && matches!(rejection.code, RejectionCode::Duplicate | RejectionCode::Replayed) =>
            {
                self.ledger.known.insert(round);
            }
            other => bail!("round {round}: {other:?}"),
        }
        Ok(true)
    }

    fn check_in(&self) -> CheckIn {
        exchange::check_in(&self.plan, self.version, self.digest())
    }

    fn digest(&self) -> Digest {
        Digest(self.replica.digest().0)
    }

    fn update(&self, assignment: &Assignment) -> Result<Signed> {
        let scales: Vec<Scales> =
            assignment.scales.iter().map(|s| Scales { wave: s.wave, residual: s.residual }).collect();
        let (layout, profile) = (self.plan.layout(), self.plan.raw().profile);
        let window = Window::new(profile, assignment.turn);
        let mut values = vec![0.0; layout.blocks() * window.width()];
        let seed = Seed::from_number(7).derive_for_key("crash-points/device", &self.identity.id().0);
        let mut stream = seed.derive("crash-points/round", &[assignment.round.0, assignment.base.0]).stream();
        window.for_each_slot(layout, |slot| {
            let quantum = 2f64.powi(scales[slot.layer].exponent(slot.wave).into());
            values[slot.index] = (stream.unit() * 200.0 - 90.0).round() * quantum;
        });
        let words = Encoder::new(layout, profile, assignment.turn, &scales)?.nearest(&values)?.words;
        exchange::signed(&self.identity, &self.plan, assignment, words)
    }
}
