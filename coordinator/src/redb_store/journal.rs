//! Frames of accepted updates, one behind the other in a file beside the store.
//!
//! ```text
//!   store.redb.journal  │ frame │ frame │ frame │ room …
//!                                               ▲ end
//! ```
//!
//! Where each frame lies is a record of the store, so what no record names is room, whatever stands there. Frames
//! are on the disk before the transaction that names them, and are written over only after the one that forgets
//! them: both are true of any moment at which the power goes. When the last open round has ended the file begins
//! anew, so it grows to the largest set of updates that was ever open.
//!
//! In the store itself a frame would cost a page of the next power of two, a checksum of all of it, and being read
//! back to be deleted. It does not know what a frame says: whoever loads one verifies its signature.

use std::collections::BTreeMap;
use std::fs::File;
use std::io;
use std::path::Path;

use packfed_protocol::Round;
use redb::StorageBackend;
use redb::backends::FileBackend;
use serde::{Deserialize, Serialize};

use crate::event::Write;
use crate::store::StoreError;

/// Where a frame lies.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Place {
    pub(super) offset: u64,
    pub(super) bytes: u64,
}

impl Place {
    /// Behind its last byte; `None` if no file is as long.
    fn end(self) -> Option<u64> {
        self.offset.checked_add(self.bytes)
    }
}

#[derive(Debug)]
pub(super) struct Journal {
    disk: Box<dyn StorageBackend>,
    /// Length of the file.
    length: u64,
    /// Behind the last frame that a record names.
    end: u64,
    /// Frames of each round that records name.
    frames: BTreeMap<u64, u64>,
}

impl Journal {
    /// The journal on a disk, as long as no record names a place in it.
    ///
    /// # Errors
    /// If the disk fails.
    pub(super) fn on(disk: Box<dyn StorageBackend>) -> io::Result<Self> {
        Ok(Self { length: disk.len()?, disk, end: 0, frames: BTreeMap::new() })
    }

    /// Keeps a frame that a record names.
    ///
    /// # Errors
    /// What is wrong, if the file has no such place.
    pub(super) fn keep(&mut self, round: Round, place: Place) -> Result<(), String> {
        let Some(end) = place.end().filter(|end| *end <= self.length) else {
            let (length, Place { offset, bytes }) = (self.length, place);
            return Err(format!("it has {length} bytes, an update has {bytes} from {offset} on"));
        };
        self.end = self.end.max(end);
        self.count(round);
        Ok(())
    }

    /// Writes and flushes the frames of a group; says where each lies. They count once [`Journal::done`] is told.
    /// What the group itself forgets is not written.
    pub(super) fn write(&mut self, writes: &[Write]) -> io::Result<Vec<Option<Place>>> {
        let forgotten = writes.iter().rposition(|write| matches!(write, Write::Commit(_))).unwrap_or(0);
        let mut end = self.end;
        let mut write = |(index, write): (usize, &Write)| -> io::Result<Option<Place>> {
            let Write::Accept { frame, .. } = write else { return Ok(None) };
            if index < forgotten {
                return Ok(None);
            }
            let place = Place { offset: end, bytes: frame.bytes() as u64 };
            self.make_room(end + place.bytes)?;
            for part in frame.parts() {
                self.disk.write(end, part)?;
                end += part.len() as u64;
            }
            Ok(Some(place))
        };
        let places = writes.iter().enumerate().map(&mut write).collect::<io::Result<Vec<_>>>()?;
        if end > self.end {
            self.disk.sync_data()?;
        }
        Ok(places)
    }

    /// Notes that the store holds a group, with the frames that were written for it.
    pub(super) fn done(&mut self, writes: &[Write], places: &[Option<Place>]) {
        for (write, place) in writes.iter().zip(places) {
            match (write, place) {
                (Write::Accept { round, .. }, Some(place)) => {
                    self.end = self.end.max(place.end().unwrap_or(self.end));
                    self.count(*round);
                }
                (Write::Abandon { round }, _) => {
                    self.frames.remove(&round.0);
                }
                (Write::Commit(_), _) => self.frames.clear(),
                (
                    Write::Accept { .. } | Write::Enroll { .. } | Write::Members(_) | Write::Open(_) | Write::Note(_),
                    _,
                ) => {}
            }
        }
        if self.frames.is_empty() {
            self.end = 0;
        }
    }

    /// Reads from a frame the bytes from `skip` on.
    pub(super) fn read(&self, place: Place, skip: u64, bytes: &mut [u8]) -> io::Result<()> {
        self.disk.read(place.offset + skip, bytes)
    }

    /// A whole frame.
    pub(super) fn frame(&self, place: Place) -> io::Result<Vec<u8>> {
        if place.end().is_none_or(|end| end > self.length) {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        let mut bytes = vec![0; usize::try_from(place.bytes).map_err(io::Error::other)?];
        self.read(place, 0, &mut bytes)?;
        Ok(bytes)
    }

    /// Gives back what is of no use: all of a long file that holds nothing.
    pub(super) fn tidy(&mut self) -> io::Result<()> {
        if self.end == 0 && self.length >= TIDY_BYTES_MIN {
            self.disk.set_len(0)?;
            self.length = 0;
        }
        Ok(())
    }

    fn count(&mut self, round: Round) {
        *self.frames.entry(round.0).or_default() += 1;
    }

    /// Lengthens the file in steps, so that a frame seldom pays for it.
    fn make_room(&mut self, end: u64) -> io::Result<()> {
        if end > self.length {
            let length = end.max(self.length + (self.length / 2).clamp(GROWTH_BYTES_MIN, GROWTH_BYTES_MAX));
            self.disk.set_len(length)?;
            self.length = length;
        }
        Ok(())
    }
}

/// What becomes of a journal that is there.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Existing {
    Kept,
    Emptied,
}

/// The journal's file, made if it is missing: what should be in it will be missed.
pub(super) fn file(store: &Path, existing: Existing) -> Result<Box<dyn StorageBackend>, StoreError> {
    let path = super::RedbStore::journal_path(store);
    let file = File::options().read(true).write(true).create(true).truncate(existing == Existing::Emptied).open(&path);
    let doing = || format!("open journal {}", path.display());
    let backend =
        FileBackend::new(file.map_err(|e| super::engine(doing(), e))?).map_err(|e| super::engine(doing(), e))?;
    Ok(Box::new(backend))
}

/// A shorter file is left as it is.
const TIDY_BYTES_MIN: u64 = 16 << 20;
/// The least and the most that the file grows by at once, unless a frame is longer.
const GROWTH_BYTES_MIN: u64 = 4 << 10;
const GROWTH_BYTES_MAX: u64 = 16 << 20;

#[cfg(test)]
mod tests {
    use packfed_protocol::WorkerId;
    use redb::backends::InMemoryBackend;

    use super::*;

    fn accept(round: u64, worker: u8, frame: &[u8]) -> Write {
        Write::Accept { round: Round(round), worker: WorkerId([worker; 32]), frame: frame.to_vec().into() }
    }

    fn empty() -> Journal {
        Journal::on(Box::new(InMemoryBackend::new())).unwrap()
    }

    fn write(journal: &mut Journal, writes: &[Write]) -> Vec<Option<Place>> {
        let places = journal.write(writes).unwrap();
        journal.done(writes, &places);
        places
    }

    #[test]
    fn frames_lie_one_behind_the_other_and_are_read_in_parts() {
        let mut journal = empty();
        let places = write(&mut journal, &[accept(1, 1, b"first"), accept(1, 2, b"second")]);
        assert_eq!(places, [Some(Place { offset: 0, bytes: 5 }), Some(Place { offset: 5, bytes: 6 })]);
        assert_eq!(journal.frame(places[1].unwrap()).unwrap(), b"second");
        let mut part = [0; 3];
        journal.read(places[1].unwrap(), 2, &mut part).unwrap();
        assert_eq!(&part, b"con");
    }

    #[test]
    fn the_file_begins_anew_when_no_round_has_a_frame() {
        let mut journal = empty();
        write(&mut journal, &[accept(1, 1, b"first"), accept(2, 2, b"second")]);
        write(&mut journal, &[Write::Abandon { round: Round(1) }]);
        assert_eq!(write(&mut journal, &[accept(2, 3, b"third")])[0].unwrap().offset, 11, "round 2 is still there");
        write(&mut journal, &[Write::Abandon { round: Round(2) }]);
        assert_eq!(write(&mut journal, &[accept(3, 1, b"fourth")])[0].unwrap().offset, 0);
    }

    #[test]
    fn what_was_not_told_to_be_done_is_written_over() {
        let mut journal = empty();
        journal.write(&[accept(1, 1, b"lost")]).unwrap();
        assert_eq!(write(&mut journal, &[accept(1, 1, b"kept")])[0].unwrap().offset, 0);
    }

    #[test]
    fn a_file_that_is_too_short_is_refused() {
        let disk = InMemoryBackend::new();
        disk.set_len(10).unwrap();
        let mut journal = Journal::on(Box::new(disk)).unwrap();
        let mut keep = |offset, bytes| journal.keep(Round(1), Place { offset, bytes });
        assert_eq!(keep(4, 6), Ok(()));
        assert_eq!(keep(4, 7), Err("it has 10 bytes, an update has 7 from 4 on".to_owned()));
        assert!(keep(u64::MAX, 2).is_err());
    }

    #[test]
    fn a_long_file_is_given_back_when_it_holds_nothing() {
        let mut journal = empty();
        let frame = vec![7; 17 << 20];
        write(&mut journal, &[accept(1, 1, &frame)]);
        journal.tidy().unwrap();
        assert!(journal.length >= 17 << 20);
        write(&mut journal, &[Write::Abandon { round: Round(1) }]);
        journal.tidy().unwrap();
        assert_eq!(journal.length, 0);
    }
}
