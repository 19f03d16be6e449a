//! Bytes of frames, both ways. A number of a process: a restart begins at zero.
//!
//! Every counter stands for itself and no round is decided by one, so relaxed additions suffice: none is lost, and a
//! report may be a frame ahead in one of them.

use std::sync::atomic::{AtomicU64, Ordering};

use packfed_protocol::FrameType;
use serde::Serialize;

/// Counters that every connection task adds to.
#[derive(Debug, Default)]
pub(super) struct Traffic {
    up: Lane,
    down: Lane,
}

#[derive(Debug, Default)]
struct Lane {
    rounds: AtomicU64,
    all: AtomicU64,
}

/// What was counted so far.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Bytes {
    /// From workers, without status requests.
    pub bytes_up: u64,
    /// To workers, without status reports.
    pub bytes_down: u64,
    /// From anybody.
    pub bytes_up_in_all: u64,
    /// To anybody.
    pub bytes_down_in_all: u64,
}

impl Traffic {
    /// Counts what was read of a frame; of no type if its header was no header.
    pub(super) fn up(&self, frame: Option<FrameType>, bytes: usize) {
        self.up.count(frame, bytes);
    }

    /// Counts a frame that was written.
    pub(super) fn down(&self, frame: FrameType, bytes: usize) {
        self.down.count(Some(frame), bytes);
    }

    pub(super) fn bytes(&self) -> Bytes {
        let read = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        Bytes {
            bytes_up: read(&self.up.rounds),
            bytes_down: read(&self.down.rounds),
            bytes_up_in_all: read(&self.up.all),
            bytes_down_in_all: read(&self.down.all),
        }
    }
}

impl Lane {
    fn count(&self, frame: Option<FrameType>, bytes: usize) {
        let bytes = u64::try_from(bytes).unwrap_or(u64::MAX);
        self.all.fetch_add(bytes, Ordering::Relaxed);
        if frame.is_none_or(belongs_to_rounds) {
            self.rounds.fetch_add(bytes, Ordering::Relaxed);
        }
    }
}

fn belongs_to_rounds(frame: FrameType) -> bool {
    match frame {
        FrameType::StatusRequest | FrameType::Order | FrameType::Status => false,
        FrameType::Enroll
        | FrameType::CheckIn
        | FrameType::Update
        | FrameType::Fetch
        | FrameType::Enrolled
        | FrameType::Plan
        | FrameType::Assignment
        | FrameType::CatchUp
        | FrameType::Verdict
        | FrameType::Finished
        | FrameType::Refused
        | FrameType::Resume
        | FrameType::ComeBack
        | FrameType::ReleaseState
        | FrameType::Target => true,
    }
}
