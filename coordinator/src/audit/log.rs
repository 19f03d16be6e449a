//! Writes the log: appends, flushes with every group, begins new segments and drops old ones.

use std::fs::{self, File, OpenOptions};
use std::io::{BufWriter, Write};
use std::path::{Path, PathBuf};

use packfed_protocol::{Digest, RunId, Timestamp};

use super::reader::Segment;
use super::segment::{
    FRAMING_BYTES, GENESIS, HEADER_BYTES, Header, base_path, chained, log_path, numbers, sync_folder,
};
use super::{AuditError, Entry, entry};
use crate::event::Event;
use crate::redb_store::RedbStore;

/// Where a log is, and how much of it is kept.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AuditPolicy {
    /// The folder of its files.
    pub folder: PathBuf,
    /// A segment that has this many bytes is the last but one.
    pub segment_bytes_max: u64,
    /// Segments that are kept, the oldest go; 0 keeps all. A log that has lost the segment of its last base
    /// can be read and not be replayed, until the next start of the process makes a new base.
    pub segments_max: u32,
}

/// A log that is written.
#[derive(Debug)]
pub struct AuditLog {
    policy: AuditPolicy,
    path: PathBuf,
    file: BufWriter<File>,
    number: u64,
    bytes: u64,
    chain: Digest,
    group: u64,
}

impl AuditLog {
    /// Goes on with the log of a store that holds `group` groups of writes, or begins one. What a crash has
    /// left half written behind the store's last group is cut off.
    ///
    /// # Errors
    /// If the files cannot be written, or log and store do not tell of the same run.
    pub fn open(policy: AuditPolicy, store: &Path, run: RunId, group: u64, now: Timestamp) -> Result<Self, AuditError> {
        fs::create_dir_all(&policy.folder).map_err(AuditError::io("make folder", &policy.folder))?;
        let numbers = numbers(&policy.folder)?;
        let mut log = match numbers.last() {
            None => Self::begin(policy, store, group, 1, GENESIS)?,
            Some(&last) => {
                let (path, bytes, chain) = taken_up(&policy, last, group)?;
                if replayable_from(&policy.folder, &numbers).is_some() {
                    let file = options().append(true).open(&path).map_err(AuditError::io("open", &path))?;
                    Self { policy, path, file: BufWriter::new(file), number: last, bytes, chain, group }
                } else {
                    Self::begin(policy, store, group, last + 1, chain)?
                }
            }
        };
        log.append(&Entry::Begin { run, group }, now)?;
        log.flush()?;
        Ok(log)
    }

    /// A segment with a base of its own.
    fn begin(policy: AuditPolicy, store: &Path, group: u64, number: u64, chain: Digest) -> Result<Self, AuditError> {
        let base = base_path(&policy.folder, number);
        let part = policy.folder.join("base.part");
        // The base is there when its store is, so the store comes last.
        for (from, to) in [(RedbStore::journal_path(store), RedbStore::journal_path(&base)), (store.to_owned(), base)] {
            let copied = fs::copy(from, &part).and_then(|_| File::open(&part)?.sync_all());
            copied.and_then(|()| fs::rename(&part, &to)).map_err(AuditError::io("copy the store to", &to))?;
        }
        let header = Header { number, group, chain };
        let (path, file, chain) = begun(&policy.folder, header)?;
        Ok(Self { policy, path, file, number, bytes: HEADER_BYTES as u64, chain, group })
    }

    /// Notes what the engine is told.
    ///
    /// # Errors
    /// If the file cannot be written.
    pub fn told(&mut self, event: &Event, now: Timestamp) -> Result<(), AuditError> {
        self.append_body(&entry::told(event, now))
    }

    /// Notes that the next group goes to the store, and flushes the disk.
    ///
    /// # Errors
    /// If the file cannot be written; then the group must not be stored.
    pub fn group(&mut self, version: u64, digest: Digest, now: Timestamp) -> Result<(), AuditError> {
        self.group += 1;
        self.append(&Entry::Group { group: self.group, version, digest }, now)?;
        self.flush()?;
        self.file.get_ref().sync_data().map_err(AuditError::io("flush", &self.path))?;
        if self.bytes >= self.policy.segment_bytes_max { self.rotate() } else { Ok(()) }
    }

    /// Notes that the process stops in order.
    ///
    /// # Errors
    /// If the file cannot be written.
    pub fn end(&mut self, now: Timestamp) -> Result<(), AuditError> {
        self.append(&Entry::End { group: self.group }, now)?;
        self.flush()?;
        self.file.get_ref().sync_data().map_err(AuditError::io("flush", &self.path))
    }

    /// Hands what was noted to the operating system, so that it outlives the process.
    ///
    /// # Errors
    /// If the file cannot be written.
    pub fn flush(&mut self) -> Result<(), AuditError> {
        self.file.flush().map_err(AuditError::io("write", &self.path))
    }

    /// Bytes of the open segment.
    #[must_use]
    pub const fn segment_bytes(&self) -> u64 {
        self.bytes
    }

    fn append(&mut self, entry: &Entry, now: Timestamp) -> Result<(), AuditError> {
        self.append_body(&entry.to_bytes(now))
    }

    fn append_body(&mut self, body: &[u8]) -> Result<(), AuditError> {
        let chain = chained(&self.chain, body);
        // A frame's length is a u32 and the rest of a body is short; what does not fit is no entry.
        let length = u32::try_from(body.len()).unwrap_or(u32::MAX).to_le_bytes();
        let parts = [length.as_slice(), body, &chain.0];
        parts.iter().try_for_each(|part| self.file.write_all(part)).map_err(AuditError::io("write", &self.path))?;
        self.bytes += body.len() as u64 + FRAMING_BYTES;
        self.chain = chain;
        Ok(())
    }

    /// Goes on in a new segment and drops what is beyond the policy.
    fn rotate(&mut self) -> Result<(), AuditError> {
        let folder = self.policy.folder.clone();
        let header = Header { number: self.number + 1, group: self.group, chain: self.chain };
        (self.path, self.file, self.chain) = begun(&folder, header)?;
        (self.number, self.bytes) = (header.number, HEADER_BYTES as u64);
        let kept = usize::try_from(self.policy.segments_max).unwrap_or(usize::MAX);
        let numbers = numbers(&folder)?;
        if kept == 0 || numbers.len() <= kept {
            return Ok(());
        }
        for &number in &numbers[..numbers.len() - kept] {
            let base = base_path(&folder, number);
            for path in [log_path(&folder, number), RedbStore::journal_path(&base), base] {
                match fs::remove_file(&path) {
                    Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                        return Err(AuditError::io("remove", &path)(error));
                    }
                    Ok(()) | Err(_) => {}
                }
            }
        }
        Ok(())
    }
}

/// A new segment, whole under its name or not there.
fn begun(folder: &Path, header: Header) -> Result<(PathBuf, BufWriter<File>, Digest), AuditError> {
    let (path, part) = (log_path(folder, header.number), folder.join("log.part"));
    let write = || {
        let mut file = options().write(true).create(true).truncate(true).open(&part)?;
        file.write_all(&header.to_bytes())?;
        file.sync_all()?;
        fs::rename(&part, &path)?;
        Ok(file)
    };
    let file = write().map_err(AuditError::io("begin", &path))?;
    sync_folder(folder)?;
    Ok((path, BufWriter::new(file), header.chain()))
}

/// The end of the last segment, once it is known to be in step with the store: its path, bytes and chain.
fn taken_up(policy: &AuditPolicy, last: u64, stored: u64) -> Result<(PathBuf, u64, Digest), AuditError> {
    let path = log_path(&policy.folder, last);
    let mut segment = Segment::open(&policy.folder, last, None)?;
    let mut logged = segment.header.group;
    let damage = loop {
        match segment.next() {
            Ok(Some(located)) => {
                if let Entry::Group { group, .. } | Entry::Begin { group, .. } | Entry::End { group } = located.entry {
                    logged = group;
                }
            }
            Ok(None) => break None,
            Err(error) => break Some(error),
        }
    };
    let out_of_step = |why| Err(AuditError::OutOfStep { folder: policy.folder.clone(), logged, stored, why });
    match damage {
        Some(damage) if logged < stored => return Err(damage),
        None if logged < stored => {
            return out_of_step("the run went on without it; move the log away, and a new one begins");
        }
        _ if logged > stored + 1 => {
            return out_of_step(
                "the store was set back or replaced by an older copy; restore it, or move the log away",
            );
        }
        Some(damage) => {
            tracing::warn!(%damage, "cut off what a crash has left at the end of the audit log");
            let cut = options().write(true).open(&path).and_then(|file| {
                file.set_len(segment.offset)?;
                file.sync_all()
            });
            cut.map_err(AuditError::io("cut", &path))?;
        }
        None => {}
    }
    Ok((path, segment.offset, segment.chain))
}

/// The first segment with a base from which all others are there.
pub(super) fn replayable_from(folder: &Path, numbers: &[u64]) -> Option<usize> {
    let follow = |from: usize| numbers[from..].windows(2).all(|pair| pair[0] + 1 == pair[1]);
    (0..numbers.len()).find(|&from| base_path(folder, numbers[from]).exists() && follow(from))
}

/// Files of the log are their owner's.
fn options() -> OpenOptions {
    let mut options = File::options();
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    options
}
