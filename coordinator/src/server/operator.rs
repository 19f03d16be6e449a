//! An operator's connection: whoever proves the coordinator's own key, or that of an admin, may ask and order what the
//! role allows.

use std::sync::Arc;

use packfed_protocol::quic::ReadError;
use packfed_protocol::{Frame, FrameType, Message, Refused, Rejection, RejectionCode, Request, Status};
use tokio::sync::{mpsc, oneshot};

use super::Arrival;
use super::shared::Shared;
use super::stream::{bad, read_body, read_header, write};
use crate::admin::Admin;

/// What the operator may say.
enum Asked {
    Status,
    Order(Box<Request>),
}

/// Answers the operator until it leaves.
pub(super) async fn serve(
    connection: &quinn::Connection,
    admin: &Arc<Admin>,
    shared: &Shared,
    inbox: &mpsc::Sender<Arrival>,
) {
    let Ok((mut send, mut recv)) = connection.accept_bi().await else { return };
    loop {
        let answer = match asked(&mut recv, shared).await {
            Ok(Some(asked)) => answer(asked, admin, inbox).await,
            Ok(None) | Err(ReadError::Lost(_)) => return,
            Err(ReadError::BadFrame(rejection)) => Some(Err(rejection)),
        };
        let answer = match answer {
            Some(Ok(json)) => Message::Status(Status { json }),
            Some(Err(rejection)) => Message::Refused(Refused { rejection }),
            None => return,
        };
        let last = matches!(answer, Message::Refused(_));
        if !write(&mut send, &answer, shared).await || last {
            break;
        }
    }
    let _ = send.finish();
    // Closing at once would drop the answer; whoever got it leaves.
    let _ = tokio::time::timeout(shared.frame_time, send.stopped()).await;
}

/// What the owner says; `None` if it is gone.
async fn answer(asked: Asked, admin: &Arc<Admin>, inbox: &mpsc::Sender<Arrival>) -> Option<Result<String, Rejection>> {
    match asked {
        Asked::Status => {
            let (report, answer) = oneshot::channel();
            inbox.send(Arrival::Status { report }).await.ok()?;
            answer.await.ok().map(Ok)
        }
        Asked::Order(request) => {
            let (sender, answer) = oneshot::channel();
            inbox.send(Arrival::Order { by: Arc::clone(admin), request, answer: sender }).await.ok()?;
            answer.await.ok()
        }
    }
}

/// The next thing that the operator says, if there is one.
async fn asked(recv: &mut quinn::RecvStream, shared: &Shared) -> Result<Option<Asked>, ReadError> {
    let Some(header) = read_header(recv, shared).await? else { return Ok(None) };
    if !matches!(header.frame_type, FrameType::StatusRequest | FrameType::Order) {
        let detail =
            format!("the coordinator's own key asks for the status or gives orders; it sent {}", header.frame_type);
        return Err(ReadError::BadFrame(Rejection::new(RejectionCode::Unexpected, detail)));
    }
    match read_body(recv, header, shared).await? {
        Frame::Message(Message::StatusRequest) => Ok(Some(Asked::Status)),
        Frame::Message(Message::Order(order)) => Ok(Some(Asked::Order(order))),
        other => Err(bad(RejectionCode::Unexpected, format!("{} was announced as another", other.frame_type()))),
    }
}
