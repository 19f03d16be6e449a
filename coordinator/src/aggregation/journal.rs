//! A round's words as they stand in the journal, read a piece at a time and believed only as a whole.
//!
//! What is read is hashed on the way; when every update was read to its end, the digests must be those that were
//! accepted. It holds a hash state an update and no words.

use packfed_codec::Word;
use packfed_codec::robust::WordSource;
use packfed_protocol::{Digest, Hasher, Round, WorkerId};
use thiserror::Error;

use super::task::Counted;
use crate::store::{Store, StoreError};

/// Why the words of a round cannot be read.
#[derive(Debug, Error)]
pub enum JournalError {
    /// The store cannot read them.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The journal holds other words than were accepted.
    #[error("the journalled update of worker {worker} has digest {found}, accepted was {accepted}")]
    Changed {
        /// Whose update.
        worker: WorkerId,
        /// Digest of what was read.
        found: Digest,
        /// Digest of what was accepted.
        accepted: Digest,
    },
}

/// The words of one round's updates.
pub(super) struct Journal<'a, S: ?Sized> {
    store: &'a S,
    round: Round,
    updates: &'a [Counted],
    blocks: usize,
    read: Vec<Hasher>,
}

impl<'a, S: Store + ?Sized> Journal<'a, S> {
    /// Of updates that have a word for each of so many blocks.
    pub(super) fn new(store: &'a S, round: Round, updates: &'a [Counted], blocks: usize) -> Self {
        Self { store, round, updates, blocks, read: vec![Hasher::default(); updates.len()] }
    }
}

impl<S: Store + ?Sized> WordSource for Journal<'_, S> {
    type Error = JournalError;

    fn updates(&self) -> usize {
        self.updates.len()
    }

    fn read(&mut self, update: usize, first: usize, words: &mut [Word]) -> Result<(), JournalError> {
        let &Counted { worker, payload: accepted, .. } = &self.updates[update];
        // The words end a frame.
        let before_end = (self.blocks - first) * size_of::<Word>();
        self.store.read_update(self.round, &worker, before_end, words.as_flattened_mut())?;
        let hasher = &mut self.read[update];
        hasher.update(words.as_flattened());
        if first + words.len() < self.blocks {
            return Ok(());
        }
        let found = std::mem::take(hasher).finish();
        if found == accepted { Ok(()) } else { Err(JournalError::Changed { worker, found, accepted }) }
    }
}
