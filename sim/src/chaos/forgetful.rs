//! A disk under the store that ships, with the store's two files: what was written and not synced may be gone after a
//! power cut, sector by sector.

use std::io;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use packfed_codec::Stream;
use redb::StorageBackend;

/// The first file of a disk. Clones are the same file, until a power cut takes it from those who have it.
#[derive(Clone, Debug, Default)]
pub struct Forgetful {
    content: Arc<Mutex<Content>>,
    file: usize,
}

#[derive(Debug, Default)]
struct Content {
    files: [Bytes; 2],
    /// Operations until the power goes; none is for ever.
    left: Option<u64>,
    /// Whether a sync says that it is done and is not.
    lies: bool,
}

#[derive(Debug, Default)]
struct Bytes {
    synced: Vec<u8>,
    /// As whoever has the disk sees it.
    current: Vec<u8>,
    /// Where `current` was written since the last sync, in order.
    unsynced: Vec<(usize, usize)>,
}

/// What a disk writes at once; a larger write may be torn between two of them.
const SECTOR: usize = 512;

impl Forgetful {
    /// The disk's other file.
    #[must_use]
    pub fn other(&self) -> Self {
        Self { file: 1 - self.file, ..self.clone() }
    }

    /// Lets the power go in the middle of the operation so many operations from now.
    pub fn fail_after(&self, operations: u64) {
        self.content().left = Some(operations);
    }

    /// Takes back what was said to [`Forgetful::fail_after`], unless the power is gone.
    pub fn keep_power(&self) {
        let left = &mut self.content().left;
        *left = left.filter(|&left| left == 0);
    }

    /// Whether the power is gone.
    #[must_use]
    pub fn has_no_power(&self) -> bool {
        self.content().left == Some(0)
    }

    /// Says of every sync from now on that it is done, and does not do it.
    pub fn lie(&self) {
        self.content().lies = true;
    }

    /// The disk after a power cut, for whoever comes next, and how many unsynced sectors it forgot. All that was
    /// synced is there; of the rest, every sector by chance. Whoever had the disk before can do nothing with it.
    #[must_use]
    pub fn power_cut(&self, stream: &mut Stream) -> (Self, usize) {
        let mut old = self.content();
        old.left = Some(0);
        let mut forgotten = 0;
        let files = old.files.each_ref().map(|bytes| bytes.survived(stream, &mut forgotten));
        let content = Content { files, ..Content::default() };
        (Self { content: Arc::new(Mutex::new(content)), file: self.file }, forgotten)
    }

    /// What it holds, whatever became of a thread that had it: bytes are never half changed.
    fn content(&self) -> MutexGuard<'_, Content> {
        self.content.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Bytes {
    fn survived(&self, stream: &mut Stream, forgotten: &mut usize) -> Self {
        let mut survived = self.synced.clone();
        let grown = self.current.len().max(survived.len());
        survived.resize(grown, 0);
        for &(start, end) in &self.unsynced {
            for sector in (start / SECTOR)..end.div_ceil(SECTOR) {
                let (from, to) = ((sector * SECTOR).max(start), ((sector + 1) * SECTOR).min(end));
                if to > self.current.len() || stream.below(2) == 0 {
                    *forgotten += 1;
                } else {
                    survived[from..to].copy_from_slice(&self.current[from..to]);
                }
            }
        }
        Self { current: survived.clone(), synced: survived, unsynced: Vec::new() }
    }

    fn sync(&mut self) {
        self.synced.resize(self.current.len(), 0);
        for (start, end) in std::mem::take(&mut self.unsynced) {
            let end = end.min(self.current.len());
            if start < end {
                self.synced[start..end].copy_from_slice(&self.current[start..end]);
            }
        }
    }
}

impl Content {
    /// Counts an operation; fails if there is no power for it.
    fn operate(&mut self) -> io::Result<()> {
        match &mut self.left {
            None => Ok(()),
            Some(0) => Err(io::Error::other("the power is gone")),
            Some(left) => {
                *left -= 1;
                Ok(())
            }
        }
    }
}

fn place(offset: u64, length: usize, bound: usize) -> io::Result<(usize, usize)> {
    let start = usize::try_from(offset).map_err(io::Error::other)?;
    let end = start.checked_add(length).filter(|&end| end <= bound);
    Ok((start, end.ok_or_else(|| io::Error::from(io::ErrorKind::UnexpectedEof))?))
}

impl StorageBackend for Forgetful {
    fn len(&self) -> io::Result<u64> {
        Ok(self.content().files[self.file].current.len() as u64)
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        let current = &self.content().files[self.file].current;
        let (start, end) = place(offset, out.len(), current.len())?;
        out.copy_from_slice(&current[start..end]);
        Ok(())
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        let mut content = self.content();
        content.operate()?;
        content.files[self.file].current.resize(usize::try_from(len).map_err(io::Error::other)?, 0);
        Ok(())
    }

    fn sync_data(&self) -> io::Result<()> {
        let mut content = self.content();
        content.operate()?;
        if !content.lies {
            content.files[self.file].sync();
        }
        Ok(())
    }

    fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        let mut content = self.content();
        content.operate()?;
        let bytes = &mut content.files[self.file];
        let (start, end) = place(offset, data.len(), bytes.current.len())?;
        bytes.current[start..end].copy_from_slice(data);
        bytes.unsynced.push((start, end));
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use packfed_codec::Seed;

    use super::*;

    fn read(disk: &Forgetful, length: usize) -> Vec<u8> {
        let mut out = vec![0; length];
        disk.read(0, &mut out).unwrap();
        out
    }

    #[test]
    fn what_was_synced_stays_and_of_the_rest_some_goes() {
        let disk = Forgetful::default();
        disk.set_len(64 * 512).unwrap();
        disk.write(0, &[1; 32 * 512]).unwrap();
        disk.sync_data().unwrap();
        disk.write(32 * 512, &[2; 32 * 512]).unwrap();
        let (after, forgotten) = disk.power_cut(&mut Seed::from_number(1).stream());
        let bytes = read(&after, 64 * 512);
        assert!(bytes[..32 * 512].iter().all(|&byte| byte == 1));
        let kept = bytes[32 * 512..].chunks(512).filter(|sector| sector[0] == 2).count();
        assert!(kept + forgotten == 32 && (1..32).contains(&kept), "{kept} kept");
        assert!(disk.write(0, &[3]).is_err(), "the old hand has no power");
        assert!(after.write(0, &[3]).is_ok());
    }

    #[test]
    fn a_disk_that_lies_forgets_what_was_synced() {
        let disk = Forgetful::default();
        disk.lie();
        disk.set_len(64 * 512).unwrap();
        disk.write(0, &[1; 64 * 512]).unwrap();
        disk.sync_data().unwrap();
        let (after, forgotten) = disk.power_cut(&mut Seed::from_number(1).stream());
        assert!(forgotten > 0 && read(&after, 64 * 512).contains(&0));
    }

    #[test]
    fn the_power_goes_when_it_was_said_to() {
        let disk = Forgetful::default();
        disk.set_len(10).unwrap();
        disk.fail_after(1);
        assert!(disk.write(0, &[1]).is_ok());
        assert!(disk.sync_data().is_err());
    }
}
