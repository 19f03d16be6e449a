//! A witness beside the store: the number of the last group of writes that it was seen to hold.
//!
//! The engine keeps its last two commits and falls back to the older one where the newer is damaged, without
//! a word. An update in the newer was acknowledged, so that is an error here, as is an older copy of the
//! store put in its place. The mark is written after a group is durable and before anything is told, and not
//! flushed: a power failure may leave it behind the store, which says nothing; a mark ahead says all.
//!
//! ```text
//!   ┌────────────────┬─────────────────────┐
//!   │ group, u64 LE  │ BLAKE3 of it, 8 B   │
//!   └────────────────┴─────────────────────┘
//! ```

use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};

use packfed_protocol::Digest;

use crate::store::StoreError;

#[derive(Debug)]
pub(super) struct Mark {
    file: File,
    path: PathBuf,
}

impl Mark {
    /// Removes what is left of the mark of a store that is no more.
    pub(super) fn forget(store: &Path) -> Result<(), StoreError> {
        let path = beside(store);
        match std::fs::remove_file(&path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                Err(super::engine(format!("remove mark {}", path.display()), error))
            }
            Ok(()) | Err(_) => Ok(()),
        }
    }

    /// The mark of a store at `store`, which is at `group`: a new one if there is none.
    ///
    /// # Errors
    /// If the store is behind its mark, or the mark cannot be read or written.
    pub(super) fn check(store: &Path, group: u64) -> Result<Self, StoreError> {
        let path = beside(store);
        let file = File::options().read(true).write(true).create(true).truncate(false).open(&path);
        let mut mark = file
            .map(|file| Self { file, path: path.clone() })
            .map_err(|e| super::engine(format!("open mark {}", path.display()), e))?;
        let mut bytes = Vec::new();
        mark.file.read_to_end(&mut bytes).map_err(|e| mark.failed(&e))?;
        match number(&bytes) {
            // A power failure may have left a file without its bytes.
            _ if bytes.is_empty() => {}
            Some(seen) if seen <= group => {}
            Some(seen) => return Err(StoreError::SetBack { mark: path, seen, group }),
            None => {
                return Err(StoreError::Corrupt { what: "mark", why: format!("{} holds no number", path.display()) });
            }
        }
        mark.set(group)?;
        Ok(mark)
    }

    /// Notes that the store holds a group.
    pub(super) fn set(&mut self, group: u64) -> Result<(), StoreError> {
        let bytes = encoded(group);
        let written = self.file.seek(SeekFrom::Start(0)).and_then(|_| self.file.write_all(&bytes));
        written.map_err(|e| self.failed(&e))
    }

    fn failed(&self, error: &io::Error) -> StoreError {
        super::engine(format!("mark {}", self.path.display()), error)
    }
}

fn beside(store: &Path) -> PathBuf {
    let mut path = store.as_os_str().to_owned();
    path.push(".mark");
    PathBuf::from(path)
}

fn encoded(group: u64) -> [u8; 16] {
    let number = group.to_le_bytes();
    let mut bytes = [0; 16];
    bytes[..8].copy_from_slice(&number);
    bytes[8..].copy_from_slice(&Digest::of(&number).0[..8]);
    bytes
}

fn number(bytes: &[u8]) -> Option<u64> {
    let group = u64::from_le_bytes(*bytes.first_chunk()?);
    (bytes == encoded(group)).then_some(group)
}
