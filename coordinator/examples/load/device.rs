//! A worker without a model: it believes the versions and digests that it is told, and sends words of no meaning.

use std::sync::Arc;

use anyhow::{Context, Result, bail, ensure};
use packfed_codec::Seed;
use packfed_coordinator::plan::RunPlan;
use packfed_protocol::quic::{read_frame, write_message};
use packfed_protocol::{Assignment, CheckIn, Digest, Frame, Identity, Limits, Message, Offer, Outcome, Signed};
use tokio::time::Instant;

use crate::exchange::{check_in, exchange, fetched, signed};

pub(crate) struct Device {
    identity: Identity,
    plan: Arc<RunPlan>,
    connection: quinn::Connection,
    send: quinn::SendStream,
    recv: quinn::RecvStream,
    version: u64,
    digest: Digest,
}

/// When an update was on its way, and when its verdict was there.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Uploaded {
    pub(crate) sent: Instant,
    pub(crate) answered: Instant,
}

impl Device {
    /// Opens the control stream, checks in and waits for the plan: then the coordinator knows of it.
    pub(crate) async fn open(identity: Identity, plan: Arc<RunPlan>, connection: quinn::Connection) -> Result<Self> {
        let (send, recv) = connection.open_bi().await?;
        let mut device = Self { identity, plan, connection, send, recv, version: 0, digest: Digest([0; 32]) };
        device.say(CheckIn { planned: false, ..check_in(&device.plan, 0, device.digest) }).await?;
        match device.told().await? {
            Message::Plan(_) => Ok(device),
            other => bail!("a {} where the plan belongs", other.frame_type()),
        }
    }

    pub(crate) fn connection(&self) -> &quinn::Connection {
        &self.connection
    }

    /// Is ready for the next round.
    pub(crate) async fn check_in(&mut self) -> Result<()> {
        self.say(check_in(&self.plan, self.version, self.digest)).await
    }

    /// Waits for an assignment.
    pub(crate) async fn assigned(&mut self) -> Result<Assignment> {
        match self.told().await? {
            Message::Assignment(assignment) => {
                let (base, own) = (assignment.base.0, self.version);
                ensure!(base == own, "an assignment begins at version {base}, the device was told of {own}");
                Ok(assignment)
            }
            other => bail!("a {} where an assignment belongs", other.frame_type()),
        }
    }

    /// The update of an assignment, signed: words that follow from key and round.
    pub(crate) fn update(&self, assignment: &Assignment) -> Result<Signed> {
        let seed = Seed::from_number(7).derive_for_key("load/device", &self.identity.id().0);
        let mut words = vec![0; 4 * self.plan.layout().blocks()];
        seed.derive("load/round", &[assignment.round.0]).stream().fill_32(&mut words);
        signed(&self.identity, &self.plan, assignment, words.into_iter().flat_map(u32::to_le_bytes).collect())
    }

    async fn say(&mut self, check_in: CheckIn) -> Result<()> {
        write_message(&mut self.send, &Message::CheckIn(check_in)).await?;
        Ok(())
    }

    /// The next message; catch-ups on the way are fetched.
    async fn told(&mut self) -> Result<Message> {
        loop {
            let frame = read_frame(&mut self.recv, &Limits::default()).await?;
            match frame.context("the coordinator closed the control stream")?.0 {
                Frame::Offer(Offer::CatchUp(offer)) => {
                    let catch_up = fetched(&self.connection, offer).await?.context("a catch-up was broken off")?;
                    (self.version, self.digest) = (catch_up.to.0, catch_up.digest);
                }
                Frame::Message(message) => return Ok(message),
                Frame::Offer(other) => bail!("a worker was offered a {}", other.frame_type()),
            }
        }
    }
}

/// Sends an update; an error unless it is accepted.
pub(crate) async fn upload(connection: &quinn::Connection, update: &Message) -> Result<Uploaded> {
    let mut sent = None;
    let said = exchange(connection, update, || sent = Some(Instant::now())).await;
    let answered = Instant::now();
    match (said.context("the connection was lost over an update")?, sent) {
        (Message::Verdict(verdict), Some(sent)) if verdict.outcome == Outcome::Accepted => {
            Ok(Uploaded { sent, answered })
        }
        (other, _) => bail!("an update was answered with {other:?}"),
    }
}
