//! A disk in memory that can be full, stop at any operation, and forget what was not flushed.

use std::io;
use std::sync::{Arc, Mutex};

use packfed_codec::Seed;
use redb::StorageBackend;

/// A disk; a clone is the same disk.
#[derive(Clone, Debug, Default)]
pub(crate) struct Disk(Arc<Mutex<Platter>>);

#[derive(Debug)]
struct Platter {
    /// As a process sees it.
    seen: Vec<u8>,
    /// As it was at the last flush.
    flushed: Vec<u8>,
    /// What was changed since.
    unflushed: Vec<Change>,
    /// Bytes that can still be written.
    room: u64,
    /// Operations until it stops.
    operations_left: u64,
    /// Operations so far.
    operations: u64,
    written: u64,
}

#[derive(Clone, Debug)]
enum Change {
    Write { offset: usize, data: Vec<u8> },
    Length(usize),
}

impl Default for Platter {
    fn default() -> Self {
        let (seen, flushed, unflushed) = (Vec::new(), Vec::new(), Vec::new());
        Self { seen, flushed, unflushed, room: u64::MAX, operations_left: u64::MAX, operations: 0, written: 0 }
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
    /// A whole disk with these bytes.
    pub(crate) fn with(bytes: Vec<u8>) -> Self {
        Self(Arc::new(Mutex::new(Platter { seen: bytes.clone(), flushed: bytes, ..Platter::default() })))
    }

    /// An empty disk on which so many bytes can be written.
    pub(crate) fn with_room(room: u64) -> Self {
        Self(Arc::new(Mutex::new(Platter { room, ..Platter::default() })))
    }

    /// An empty disk that stops after so many writes and flushes.
    pub(crate) fn stopping_after(operations_left: u64) -> Self {
        Self(Arc::new(Mutex::new(Platter { operations_left, ..Platter::default() })))
    }

    /// Bytes written and operations so far.
    pub(crate) fn used(&self) -> (u64, u64) {
        let platter = self.0.lock().unwrap();
        (platter.written, platter.operations)
    }

    /// What a process would find.
    pub(crate) fn bytes(&self) -> Vec<u8> {
        self.0.lock().unwrap().seen.clone()
    }

    /// What is found after a power failure: of what was not flushed some is there, some is not, and some
    /// sectors of it are.
    pub(crate) fn after_power_failure(&self, seed: u64) -> Vec<u8> {
        let platter = self.0.lock().unwrap();
        let mut stream = Seed::from_number(seed).stream();
        let mut bytes = platter.flushed.clone();
        for change in &platter.unflushed {
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

    fn change(&self, change: Change) {
        let mut platter = self.0.lock().unwrap();
        apply(&mut platter.seen, &change);
        platter.unflushed.push(change);
    }
}

impl StorageBackend for Disk {
    fn len(&self) -> io::Result<u64> {
        Ok(self.0.lock().unwrap().seen.len() as u64)
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        let platter = self.0.lock().unwrap();
        let start = usize::try_from(offset).unwrap();
        let found = platter.seen.get(start..start + out.len());
        out.copy_from_slice(found.ok_or_else(|| io::Error::from(io::ErrorKind::UnexpectedEof))?);
        Ok(())
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        self.0.lock().unwrap().operate()?;
        self.change(Change::Length(usize::try_from(len).unwrap()));
        Ok(())
    }

    fn sync_data(&self) -> io::Result<()> {
        let mut platter = self.0.lock().unwrap();
        platter.operate()?;
        platter.flushed = platter.seen.clone();
        platter.unflushed.clear();
        Ok(())
    }

    fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        {
            let mut platter = self.0.lock().unwrap();
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
