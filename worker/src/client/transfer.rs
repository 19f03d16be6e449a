//! Payloads between this worker and its coordinator: each goes on where a broken connection left it.
//!
//! ```text
//!   up      offer ──►  ◄── Resume ──  ── words from there ──►  ◄── Verdict      (or a Verdict at once)
//!   down    ── Fetch from here ──►    ◄── Resume ──  ◄── body from there        (or Refused)
//! ```
//!
//! What is kept of an update is the coordinator's to say, what is kept of a catch-up or a release is ours. A transfer
//! may take as long as it makes progress.

use std::time::Duration;

use bytes::Bytes;
use packfed_protocol::quic::{self, QuicError, read_end, read_message, read_piece, write_message, write_piece};
use packfed_protocol::{CatchUp, CatchUpOffer, Fetch, Limits, Message, Payload, PayloadId, Prefix, Signed};
use tokio::time::timeout;

use super::ClientError;

/// How long one piece of a payload may take, either way.
const PIECE_TIMEOUT: Duration = Duration::from_secs(60);
/// How long an offered update may wait until its words are asked for: a coordinator takes a few at a time.
const RESUME_TIMEOUT: Duration = Duration::from_secs(600);
/// How long an update that was sent may wait for its verdict.
const VERDICT_TIMEOUT: Duration = Duration::from_secs(120);

/// Sends an update on a stream of its own and returns the answer.
pub(super) async fn upload(connection: &quinn::Connection, update: Signed) -> Result<Message, ClientError> {
    let (mut send, mut recv) = connection.open_bi().await.map_err(QuicError::from)?;
    let update = Message::Update(update);
    in_time(PIECE_TIMEOUT, "an update's offer to be taken", write_message(&mut send, &update)).await??;
    let answer = answer(&mut recv, RESUME_TIMEOUT, "resume").await?;
    let (Message::Resume(resume), Message::Update(update)) = (&answer, update) else { return Ok(answer) };
    let words = Bytes::from(update.payload);
    let found = || format!("resume at byte {} of {}", resume.offset, words.len());
    let offset = usize::try_from(resume.offset).ok().filter(|&offset| offset <= words.len());
    let offset =
        offset.ok_or_else(|| ClientError::Answer { expected: "an offset within the update", found: found() })?;
    if offset > 0 {
        tracing::info!(offset, bytes = words.len(), "the update goes on");
    }
    send_rest(&mut send, words.slice(offset..)).await?;
    self::answer(&mut recv, VERDICT_TIMEOUT, "verdict").await
}

/// The coordinator may answer before it has read everything, and stop the stream: then the answer counts.
async fn send_rest(send: &mut quinn::SendStream, mut rest: Bytes) -> Result<(), ClientError> {
    loop {
        match in_time(PIECE_TIMEOUT, "a piece of an update to be taken", write_piece(send, &mut rest)).await? {
            Ok(0) => break,
            Ok(_) => {}
            Err(QuicError::Write(quinn::WriteError::Stopped(_))) => return Ok(()),
            Err(error) => return Err(error.into()),
        }
    }
    let _ = send.finish();
    Ok(())
}

/// A catch-up whose download was broken off.
#[derive(Debug)]
pub(super) struct Partial {
    offer: CatchUpOffer,
    prefix: Prefix,
}

/// Fetches what was announced, and keeps what came in `partial` until it is whole.
///
/// An earlier catch-up that applies to the same replica is gone on with, as long as the coordinator has it:
/// what was committed since is little beside a checkpoint, and is asked for with the next check-in.
pub(super) async fn download(
    connection: &quinn::Connection,
    offer: CatchUpOffer,
    partial: &mut Option<Partial>,
) -> Result<CatchUp, ClientError> {
    if partial.as_ref().is_some_and(|partial| partial.offer.from == offer.from && partial.offer != offer) {
        match go_on(connection, partial).await {
            Err(ClientError::Refused(rejection)) => {
                tracing::info!(%rejection, "an earlier catch-up is gone, the newest is fetched");
                *partial = None;
            }
            other => return other,
        }
    }
    if partial.as_ref().is_none_or(|partial| partial.offer != offer) {
        *partial = Some(Partial { offer, prefix: Prefix::new(offer.body) });
    }
    let fetched = go_on(connection, partial).await;
    if matches!(fetched, Err(ClientError::Refused(_))) {
        *partial = None;
    }
    fetched
}

/// Fetches the rest of a partial catch-up.
async fn go_on(connection: &quinn::Connection, slot: &mut Option<Partial>) -> Result<CatchUp, ClientError> {
    let partial = slot.as_mut().expect("`download` begins one before it goes on");
    rest(connection, &mut partial.prefix).await?;
    let Partial { offer, prefix } = slot.take().expect("it was there before");
    let body = prefix.finish().map_err(quic::ReadError::from)?;
    offer.complete(body).ok_or(ClientError::Answer { expected: "the announced body", found: "another".into() })
}

/// Fetches a payload, and keeps what came in `kept` until it is whole; one that is kept of another payload is dropped.
pub(super) async fn fetch(
    connection: &quinn::Connection,
    id: PayloadId,
    kept: &mut Option<Prefix>,
) -> Result<Payload, ClientError> {
    if kept.as_ref().is_none_or(|prefix| *prefix.id() != id) {
        *kept = Some(Prefix::new(id));
    }
    let prefix = kept.as_mut().expect("one was begun above where there was none");
    rest(connection, prefix).await?;
    let prefix = kept.take().expect("it was there before");
    Ok(prefix.finish().map_err(quic::ReadError::from)?)
}

/// Fetches what a prefix lacks, on a stream of its own.
async fn rest(connection: &quinn::Connection, prefix: &mut Prefix) -> Result<(), ClientError> {
    let (mut send, mut recv) = connection.open_bi().await.map_err(QuicError::from)?;
    let PayloadId { digest: payload, bytes } = *prefix.id();
    let offset = prefix.offset();
    if offset > 0 {
        tracing::info!(offset, bytes, "a payload goes on");
    }
    let fetch = Message::Fetch(Fetch { payload, offset });
    in_time(PIECE_TIMEOUT, "a fetch to be taken", write_message(&mut send, &fetch)).await??;
    let _ = send.finish();
    match answer(&mut recv, RESUME_TIMEOUT, "resume").await? {
        Message::Resume(resume) if resume.offset == offset => {}
        Message::Refused(refused) => return Err(ClientError::Refused(refused.rejection)),
        other => return Err(ClientError::Answer { expected: "resume", found: format!("{other:?}") }),
    }
    while in_time(PIECE_TIMEOUT, "a piece of a payload", read_piece(&mut recv, prefix)).await?? > 0 {}
    in_time(PIECE_TIMEOUT, "the end of a payload", read_end(&mut recv)).await??;
    Ok(())
}

async fn answer(recv: &mut quinn::RecvStream, time: Duration, expected: &'static str) -> Result<Message, ClientError> {
    match in_time(time, expected, read_message(recv, &Limits::default())).await?? {
        Some((message, _)) => Ok(message),
        None => Err(ClientError::Answer { expected, found: "the end of the stream".into() }),
    }
}

async fn in_time<T>(time: Duration, expected: &'static str, what: impl Future<Output = T>) -> Result<T, ClientError> {
    let late = |_| ClientError::Answer { expected, found: format!("nothing within {} s", time.as_secs()) };
    timeout(time, what).await.map_err(late)
}
