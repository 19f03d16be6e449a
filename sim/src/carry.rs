//! What a frame is to the side that it reaches, and when it gets there: what every simulated network shares.
//!
//! It names no queue, no fault and no seed; who is told what, and in which order, is the caller's.

use packfed_coordinator::event::{Event as EngineEvent, Ticket};
use packfed_protocol::{DecodeError, Limits, Message, Rejection, RejectionCode, Timestamp, WorkerId};
use packfed_worker::session::Event;

/// What a worker's frame is to the engine; it has a ticket if it came on a stream of its own, as updates do.
#[must_use]
pub fn at_coordinator(worker: WorkerId, frame: &[u8], ticket: Option<Ticket>) -> EngineEvent {
    let message = Message::from_frame(frame, &Limits::default()).map_err(Rejection::from);
    match (message, ticket) {
        (Ok(Message::Enroll(enroll)), None) => EngineEvent::Enroll { worker, enroll },
        (Ok(Message::CheckIn(check_in)), None) => EngineEvent::CheckIn { worker, check_in },
        (Ok(Message::ReleaseState(state)), None) => EngineEvent::ReleaseState { worker, state },
        (Ok(Message::Update(signed)), Some(ticket)) => match signed.verify(&worker) {
            Ok(update) => EngineEvent::Update { ticket, update },
            Err(rejection) => EngineEvent::BadUpdate { ticket, worker, rejection },
        },
        (Ok(other), ticket) => {
            let detail = format!("a {} has no place here", other.frame_type());
            let rejection = Rejection::new(RejectionCode::Unexpected, detail);
            match ticket {
                Some(ticket) => EngineEvent::BadUpdate { ticket, worker, rejection },
                None => EngineEvent::BadMessage { worker, rejection },
            }
        }
        (Err(rejection), Some(ticket)) => EngineEvent::BadUpdate { ticket, worker, rejection },
        (Err(rejection), None) => EngineEvent::BadMessage { worker, rejection },
    }
}

/// What a frame of the coordinator is to a session.
///
/// # Errors
/// If the bytes are no message.
pub fn at_worker(frame: &[u8]) -> Result<Event, DecodeError> {
    Ok(match Message::from_frame(frame, &Limits::default())? {
        Message::Verdict(verdict) => Event::Verdict(verdict),
        message => Event::Message(Box::new(message)),
    })
}

/// One direction of a link: what is sent later arrives later, as on one stream.
#[derive(Clone, Copy, Debug, Default)]
pub struct Pipe {
    /// When all that was sent is on its way.
    free: Timestamp,
}

impl Pipe {
    /// When bytes that are sent now arrive.
    pub fn arrival(&mut self, now: Timestamp, bytes: usize, bytes_per_s: u64, latency_ms: u64) -> Timestamp {
        self.free = now.max(self.free).plus((1_000 * bytes as u64).div_ceil(bytes_per_s.max(1)));
        self.free.plus(latency_ms)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_sent_later_arrives_later() {
        let mut pipe = Pipe::default();
        assert_eq!(pipe.arrival(Timestamp(100), 500, 1_000, 20), Timestamp(620));
        assert_eq!(pipe.arrival(Timestamp(100), 1, 1_000, 20), Timestamp(621));
        assert_eq!(pipe.arrival(Timestamp(900), 0, 1_000, 20), Timestamp(920));
    }

    #[test]
    fn bytes_that_are_no_message_are_an_event_on_either_kind_of_stream() {
        let worker = WorkerId([1; 32]);
        assert!(matches!(at_coordinator(worker, b"PF", None), EngineEvent::BadMessage { .. }));
        assert!(matches!(at_coordinator(worker, b"PF", Some(Ticket(1))), EngineEvent::BadUpdate { .. }));
        let out_of_place = Message::StatusRequest.encode();
        assert!(matches!(at_coordinator(worker, &out_of_place, Some(Ticket(1))), EngineEvent::BadUpdate { .. }));
        assert!(at_worker(b"PF").is_err());
    }
}
