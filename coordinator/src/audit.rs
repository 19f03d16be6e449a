//! The audit log: everything that the engine was told and when, in order, in files that only grow.
//!
//! ```text
//!   audit/00000001.redb   the base: the store as it was when segment 1 began
//!   audit/00000001.log    a segment
//!   audit/00000002.log    …
//!
//!   segment   magic, 8 B │ number, u64 │ group before it, u64 │ chain, 32 B │ hash of these, 32 B │ entries
//!   entry     bytes of the body, u32 │ body │ chain = BLAKE3(chain before it, body), 32 B
//!   body      kind, u8 │ time in ms, u64 │ …, see `entry`             all numbers little-endian
//! ```
//!
//! Before a group of writes goes to the store, the events that asked for it and the number of the group are
//! flushed here. So the log is never behind the store and at most one group ahead of it, and a log whose
//! last group is none of the store's names what a crash took back. Whoever replays the events over the base
//! gets every group's version and digest again; see [`replay()`].
//!
//! Accepted and rejected updates are in it whole: that is its size. The files are for their owner's eyes, as
//! they hold the tokens of enrolments that were cut short.

mod entry;
mod log;
mod reader;
mod replay;
mod segment;

use std::io;
use std::path::PathBuf;

use thiserror::Error;

pub use entry::{Entry, EntryError};
pub use log::{AuditLog, AuditPolicy};
pub use reader::{Entries, Located};
pub use replay::{ReplayError, Replayed, replay};

/// Why a log cannot be written or read.
#[derive(Debug, Error)]
pub enum AuditError {
    /// The file system failed.
    #[error("{doing} {}: {why}", path.display())]
    Io {
        /// What was being done.
        doing: &'static str,
        /// To which file.
        path: PathBuf,
        /// What the file system said.
        why: io::Error,
    },
    /// The folder has no segment.
    #[error("{} holds no audit log", folder.display())]
    Empty {
        /// Which folder.
        folder: PathBuf,
    },
    /// Bytes are not those that were written.
    #[error("{} at byte {offset}: {why}", path.display())]
    Damaged {
        /// Which file.
        path: PathBuf,
        /// Where the entry or header begins that is wrong.
        offset: u64,
        /// What is wrong.
        why: String,
    },
    /// The log and the store do not tell of the same run.
    #[error("the audit log {} ends at write {logged}, the store holds write {stored}: {why}", folder.display())]
    OutOfStep {
        /// The log.
        folder: PathBuf,
        /// The last group that the log tells of.
        logged: u64,
        /// The last group that the store holds.
        stored: u64,
        /// What may have happened, and the next step.
        why: &'static str,
    },
}

impl AuditError {
    fn io(doing: &'static str, path: &std::path::Path) -> impl FnOnce(io::Error) -> Self {
        move |why| Self::Io { doing, path: path.to_owned(), why }
    }
}

#[cfg(test)]
mod tests;
