//! What a worker without a model says to its coordinator, and what it hears: check-ins, updates and catch-ups.

use anyhow::{Context, Result, bail};
use packfed_coordinator::plan::RunPlan;
use packfed_protocol::quic::{read_end, read_message, read_piece, write_message};
use packfed_protocol::{
    Assignment, CatchUp, CatchUpOffer, CheckIn, Conditions, Digest, Fetch, Identity, LaneClips, Limits, Message,
    Prefix, Signed, UpdateHeader, Version,
};

/// Ready for work, with this replica and the plan.
pub(crate) fn check_in(plan: &RunPlan, version: u64, digest: Digest) -> CheckIn {
    let (run, version) = (plan.raw().run, Version(version));
    CheckIn { run, version, digest, examples: 50, conditions: Conditions::ALL, planned: true }
}

/// An assignment's update with these words.
pub(crate) fn signed(identity: &Identity, plan: &RunPlan, assignment: &Assignment, words: Vec<u8>) -> Result<Signed> {
    let [n, ..] = identity.id().0;
    let header = UpdateHeader {
        worker: identity.id(),
        run: plan.raw().run,
        round: assignment.round,
        base: assignment.base,
        layout: plan.layout_digest(),
        examples: 1 + u32::from(n % 50),
        train_loss: 0.5,
        clipped: vec![LaneClips::default(); assignment.scales.len()],
        words: u32::try_from(plan.layout().blocks())?,
        payload: Digest([0; 32]),
    };
    Ok(Signed::new(identity, header, words))
}

/// Offers an update and sends its words from where they are wanted; `sent` is told when the last of them is on its
/// way. The last that is said, or nothing if the connection ends.
pub(crate) async fn exchange(connection: &quinn::Connection, update: &Message, sent: impl FnOnce()) -> Option<Message> {
    let (mut send, mut recv) = connection.open_bi().await.ok()?;
    write_message(&mut send, update).await.ok()?;
    let offset = match read_message(&mut recv, &Limits::default()).await.ok().flatten()?.0 {
        Message::Resume(resume) => usize::try_from(resume.offset).ok()?,
        other => return Some(other),
    };
    send.write_all(update.payload().get(offset..)?).await.ok()?;
    send.finish().ok()?;
    sent();
    Some(read_message(&mut recv, &Limits::default()).await.ok().flatten()?.0)
}

/// The catch-up of an offer; none if the connection ends.
pub(crate) async fn fetched(connection: &quinn::Connection, offer: CatchUpOffer) -> Result<Option<CatchUp>> {
    let Ok((mut send, mut recv)) = connection.open_bi().await else { return Ok(None) };
    let fetch = Message::Fetch(Fetch { payload: offer.body.digest, offset: 0 });
    if write_message(&mut send, &fetch).await.is_err() {
        return Ok(None);
    }
    match read_message(&mut recv, &Limits::default()).await {
        Ok(Some((Message::Resume(_), _))) => {}
        Ok(Some((other, _))) => bail!("a {} where a body belongs", other.frame_type()),
        Ok(None) | Err(_) => return Ok(None),
    }
    let mut prefix = Prefix::new(offer.body);
    while prefix.missing() > 0 {
        if read_piece(&mut recv, &mut prefix).await.is_err() {
            return Ok(None);
        }
    }
    if read_end(&mut recv).await.is_err() {
        return Ok(None);
    }
    let body = prefix.finish().context("a body is not the one that was offered")?;
    Ok(Some(offer.complete(body).context("a body is of another offer")?))
}
