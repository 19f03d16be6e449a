//! The operator's connection: whoever proves the coordinator's own key may ask how things are.

use packfed_protocol::quic::ReadError;
use packfed_protocol::{FrameType, Message, Refused, Rejection, RejectionCode, Status};
use tokio::sync::{mpsc, oneshot};

use super::Arrival;
use super::shared::Shared;
use super::stream::{read_body, read_header, write};

/// Answers status requests until the operator leaves.
pub(super) async fn serve(connection: &quinn::Connection, shared: &Shared, inbox: &mpsc::Sender<Arrival>) {
    let Ok((mut send, mut recv)) = connection.accept_bi().await else { return };
    loop {
        let answer = match asked(&mut recv, shared).await {
            Ok(true) => {
                let (report, answer) = oneshot::channel();
                if inbox.send(Arrival::Status { report }).await.is_err() {
                    return;
                }
                let Ok(json) = answer.await else { return };
                Message::Status(Status { json })
            }
            Ok(false) | Err(ReadError::Lost(_)) => return,
            Err(ReadError::BadFrame(rejection)) => Message::Refused(Refused { rejection }),
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

/// Whether there is one more request.
async fn asked(recv: &mut quinn::RecvStream, shared: &Shared) -> Result<bool, ReadError> {
    let Some(header) = read_header(recv, shared).await? else { return Ok(false) };
    if header.frame_type != FrameType::StatusRequest {
        let detail = format!("the coordinator's own key asks for the status; it sent {}", header.frame_type);
        return Err(ReadError::BadFrame(Rejection::new(RejectionCode::Unexpected, detail)));
    }
    read_body(recv, header, shared).await.map(|_| true)
}
