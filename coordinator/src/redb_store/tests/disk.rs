//! A disk in memory with the two files of a store, that can be full, stop at any operation, and forget what was not
//! flushed.

use std::io;
use std::sync::{Arc, Mutex};

use packfed_codec::{Seed, Stream};
use redb::StorageBackend;

/// The first file of a disk; a clone is the same file.
#[derive(Clone, Debug, Default)]
pub(crate) struct Disk {
    platter: Arc<Mutex<Platter>>,
    file: usize,
}

/// What the files of a disk hold: the store and its journal.
pub(crate) type Files = [Vec<u8>; 2];

#[derive(Debug)]
struct Platter {
    files: [Content; 2],
    /// Bytes that can still be written.
    room: u64,
    /// Operations until it stops.
    operations_left: u64,
    /// Operations so far.
    operations: u64,
    written: u64,
}

#[derive(Debug, Default)]
struct Content {
    /// As a process sees it.
    seen: Vec<u8>,
    /// As it was at the last flush.
    flushed: Vec<u8>,
    /// What was changed since.
    unflushed: Vec<Change>,
}

impl Content {
    fn with(bytes: Vec<u8>) -> Self {
        Self { seen: bytes.clone(), flushed: bytes, unflushed: Vec::new() }
    }

    /// What is found after a power failure: of what was not flushed some is there, some is not, and some sectors of
    /// it are.
    fn after_power_failure(&self, stream: &mut Stream) -> Vec<u8> {
        let mut bytes = self.flushed.clone();
        for change in &self.unflushed {
            match change {
                Change::Length(_) => apply(&mut bytes, change),
                Change::Write { offset, data } => {
                    for (sector, data) in data.chunks(SECTOR_BYTES).enumerate() {
                        let (offset, data) = (offset + sector * SECTOR_BYTES, data.to_vec());
                        if stream.unit() < 0.6 && offset + data.len() <= bytes.len() {
                            apply(&mut bytes, &Change::Write { offset, data });
                        }
                    }
                }
            }
        }
        bytes
    }
}

#[derive(Clone, Debug)]
enum Change {
    Write { offset: usize, data: Vec<u8> },
    Length(usize),
}

impl Default for Platter {
    fn default() -> Self {
        Self { files: Default::default(), room: u64::MAX, operations_left: u64::MAX, operations: 0, written: 0 }
    }
}

impl Platter {
    fn operate(&mut self) -> io::Result<()> {
        self.operations_left =
            self.operations_left.checked_sub(1).ok_or_else(|| io::Error::other("the disk is gone"))?;
        self.operations += 1;
        Ok(())
    }
}

fn apply(bytes: &mut Vec<u8>, change: &Change) {
    match change {
        Change::Write { offset, data } => {
            let end = offset + data.len();
            if bytes.len() < end {
                bytes.resize(end, 0);
            }
            bytes[*offset..end].copy_from_slice(data);
        }
        Change::Length(length) => bytes.resize(*length, 0),
    }
}

impl Disk {
    fn of(platter: Platter) -> Self {
        Self { platter: Arc::new(Mutex::new(platter)), file: 0 }
    }

    /// A whole disk with these bytes.
    pub(crate) fn with(files: Files) -> Self {
        Self::of(Platter { files: files.map(Content::with), ..Platter::default() })
    }

    /// The other file.
    pub(crate) fn journal(&self) -> Self {
        Self { file: 1, ..self.clone() }
    }

    /// An empty disk on which so many bytes can be written.
    pub(crate) fn with_room(room: u64) -> Self {
        Self::of(Platter { room, ..Platter::default() })
    }

    /// An empty disk that stops after so many writes and flushes.
    pub(crate) fn stopping_after(operations_left: u64) -> Self {
        Self::of(Platter { operations_left, ..Platter::default() })
    }

    /// Bytes written and operations so far.
    pub(crate) fn used(&self) -> (u64, u64) {
        let platter = self.platter.lock().unwrap();
        (platter.written, platter.operations)
    }

    /// What a process would find.
    pub(crate) fn bytes(&self) -> Files {
        self.platter.lock().unwrap().files.each_ref().map(|content| content.seen.clone())
    }

    /// What is found after a power failure.
    pub(crate) fn after_power_failure(&self, seed: u64) -> Files {
        let mut stream = Seed::from_number(seed).stream();
        let platter = self.platter.lock().unwrap();
        platter.files.each_ref().map(|content| content.after_power_failure(&mut stream))
    }

    fn change(&self, change: Change) {
        let content = &mut self.platter.lock().unwrap().files[self.file];
        apply(&mut content.seen, &change);
        content.unflushed.push(change);
    }
}

impl StorageBackend for Disk {
    fn len(&self) -> io::Result<u64> {
        Ok(self.platter.lock().unwrap().files[self.file].seen.len() as u64)
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        let content = &self.platter.lock().unwrap().files[self.file];
        let start = usize::try_from(offset).unwrap();
        let found = content.seen.get(start..start + out.len());
        out.copy_from_slice(found.ok_or_else(|| io::Error::from(io::ErrorKind::UnexpectedEof))?);
        Ok(())
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        self.platter.lock().unwrap().operate()?;
        self.change(Change::Length(usize::try_from(len).unwrap()));
        Ok(())
    }

    fn sync_data(&self) -> io::Result<()> {
        let mut platter = self.platter.lock().unwrap();
        platter.operate()?;
        let content = &mut platter.files[self.file];
        content.flushed.clone_from(&content.seen);
        content.unflushed.clear();
        Ok(())
    }

    fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        {
            let mut platter = self.platter.lock().unwrap();
            platter.operate()?;
            let left = platter.room.checked_sub(data.len() as u64);
            platter.room = left.ok_or_else(|| io::Error::from(io::ErrorKind::StorageFull))?;
            platter.written += data.len() as u64;
        }
        self.change(Change::Write { offset: usize::try_from(offset).unwrap(), data: data.to_vec() });
        Ok(())
    }
}

const SECTOR_BYTES: usize = 512;
