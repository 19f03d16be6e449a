//! A worker's control stream, as it is read.

use std::time::Duration;

use packfed_protocol::quic::ReadError;
use packfed_protocol::{
    CheckIn, Enroll, Frame, FrameHeader, FrameType, Message, Rejection, RejectionCode, ReleaseState,
};
use tokio::sync::mpsc;
use tokio::time::Instant;

use super::Arrival;
use super::peer::Peer;
use super::shared::Shared;
use super::stream::{bad, read_body, read_header};

/// What a worker may say on its control stream.
#[derive(Debug)]
pub(super) enum Said {
    Enroll(Enroll),
    CheckIn(CheckIn),
    ReleaseState(ReleaseState),
    /// Something else, which is refused.
    Bad(Rejection),
}

/// Tells the owner everything that a worker says, until it has no more to say. What comes faster than any
/// worker has reason to is read no faster than [`INTERVAL`] allows.
pub(super) async fn listen(mut recv: quinn::RecvStream, peer: &Peer, shared: &Shared, inbox: &mpsc::Sender<Arrival>) {
    let from = peer.from;
    let mut due = Instant::now();
    loop {
        let (said, more) = match next(&mut recv, shared).await {
            Ok(Some(said)) => (said, true),
            Ok(None) | Err(ReadError::Lost(_)) => return,
            // Where one frame is wrong, nobody knows where the next begins.
            Err(ReadError::BadFrame(rejection)) => (Said::Bad(rejection), false),
        };
        if matches!(said, Said::Bad(_)) {
            peer.refused(shared);
        }
        if inbox.send(Arrival::Said { from, said }).await.is_err() || !more {
            return;
        }
        let now = Instant::now();
        due = due.max(now) + INTERVAL;
        tokio::time::sleep_until(due.checked_sub(INTERVAL * BURST).unwrap_or(now)).await;
    }
}

async fn next(recv: &mut quinn::RecvStream, shared: &Shared) -> Result<Option<Said>, ReadError> {
    let Some(header) = read_header(recv, shared).await? else { return Ok(None) };
    match header.frame_type {
        FrameType::Enroll | FrameType::CheckIn | FrameType::ReleaseState => {}
        // Read to its end, so that the stream goes on; it has next to no body.
        FrameType::StatusRequest | FrameType::Order => {
            read_body(recv, header, shared).await?;
            return Ok(Some(Said::Bad(unexpected(header))));
        }
        FrameType::Update
        | FrameType::Fetch
        | FrameType::Enrolled
        | FrameType::Plan
        | FrameType::Assignment
        | FrameType::CatchUp
        | FrameType::Verdict
        | FrameType::Finished
        | FrameType::Refused
        | FrameType::Status
        | FrameType::Resume
        | FrameType::ComeBack
        | FrameType::Target => return Err(ReadError::BadFrame(unexpected(header))),
    }
    match read_body(recv, header, shared).await? {
        Frame::Message(Message::Enroll(enroll)) => Ok(Some(Said::Enroll(enroll))),
        Frame::Message(Message::CheckIn(check_in)) => Ok(Some(Said::CheckIn(check_in))),
        Frame::Message(Message::ReleaseState(state)) => Ok(Some(Said::ReleaseState(state))),
        other => Err(bad(RejectionCode::Unexpected, format!("{} was announced as another", other.frame_type()))),
    }
}

fn unexpected(header: FrameHeader) -> Rejection {
    let detail = match header.frame_type {
        FrameType::Update | FrameType::Fetch => format!("{} has a stream of its own", header.frame_type),
        FrameType::StatusRequest => "only the coordinator's own key may ask for the status".to_owned(),
        FrameType::Order => "only the coordinator's own key may give orders".to_owned(),
        other => format!("a worker does not send {other}"),
    };
    Rejection::new(RejectionCode::Unexpected, detail)
}

/// A worker may say so many things at once on its control stream,
const BURST: u32 = 16;
/// and then one in this time. A round takes it two or three.
const INTERVAL: Duration = Duration::from_millis(100);
