//! Names and headers of a log's files, and the chain of hashes through all of them.

use std::fs::{self, File};
use std::path::{Path, PathBuf};

use packfed_protocol::Digest;

use super::AuditError;

/// Bytes of a segment's header.
pub(super) const HEADER_BYTES: usize = 88;
/// Bytes of an entry beside its body: length and hash.
pub(super) const FRAMING_BYTES: u64 = 36;
/// The chain before the first segment.
pub(super) const GENESIS: Digest = Digest([0; 32]);

const MAGIC: [u8; 8] = *b"pfaudit1";

/// How a segment begins.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Header {
    /// Its number, from 1.
    pub(super) number: u64,
    /// The last group before it.
    pub(super) group: u64,
    /// The hash of the last entry before it.
    pub(super) chain: Digest,
}

impl Header {
    pub(super) fn to_bytes(self) -> [u8; HEADER_BYTES] {
        let mut bytes = [0; HEADER_BYTES];
        bytes[..8].copy_from_slice(&MAGIC);
        bytes[8..16].copy_from_slice(&self.number.to_le_bytes());
        bytes[16..24].copy_from_slice(&self.group.to_le_bytes());
        bytes[24..56].copy_from_slice(&self.chain.0);
        let own = chained(&self.chain, &bytes[..56]);
        bytes[56..].copy_from_slice(&own.0);
        bytes
    }

    /// The hash that the first entry of the segment follows.
    pub(super) fn chain(self) -> Digest {
        chained(&self.chain, &self.to_bytes())
    }

    pub(super) fn from_bytes(bytes: &[u8; HEADER_BYTES]) -> Result<Self, String> {
        let Some((magic, rest)) = bytes.split_first_chunk::<8>() else { return Err("no header".to_owned()) };
        if *magic != MAGIC {
            return Err("it is no segment of an audit log that this program reads".to_owned());
        }
        let mut number = [0; 8];
        let mut group = [0; 8];
        let mut chain = [0; 32];
        number.copy_from_slice(&rest[..8]);
        group.copy_from_slice(&rest[8..16]);
        chain.copy_from_slice(&rest[16..48]);
        let (number, group) = (u64::from_le_bytes(number), u64::from_le_bytes(group));
        let header = Self { number, group, chain: Digest(chain) };
        match header.to_bytes() == *bytes {
            true => Ok(header),
            false => Err("its header is not as it was written".to_owned()),
        }
    }
}

/// The hash of an entry, or of a header, after what stands before it.
pub(super) fn chained(before: &Digest, body: &[u8]) -> Digest {
    let mut hasher = blake3::Hasher::new_derive_key("packfed/audit/1");
    hasher.update(&before.0);
    hasher.update(body);
    Digest(*hasher.finalize().as_bytes())
}

pub(super) fn log_path(folder: &Path, number: u64) -> PathBuf {
    folder.join(format!("{number:08}.log"))
}

/// The store as it was when a segment began.
pub(super) fn base_path(folder: &Path, number: u64) -> PathBuf {
    folder.join(format!("{number:08}.redb"))
}

/// Numbers of the segments in a folder, ascending.
pub(super) fn numbers(folder: &Path) -> Result<Vec<u64>, AuditError> {
    let failed = AuditError::io("read folder", folder);
    let entries = fs::read_dir(folder).and_then(Iterator::collect::<Result<Vec<_>, _>>).map_err(failed)?;
    let number = |name: &str| name.strip_suffix(".log")?.parse::<u64>().ok();
    let mut numbers: Vec<u64> = entries.iter().filter_map(|entry| number(entry.file_name().to_str()?)).collect();
    numbers.sort_unstable();
    Ok(numbers)
}

/// Makes new names in a folder outlive a power failure.
pub(super) fn sync_folder(folder: &Path) -> Result<(), AuditError> {
    File::open(folder).and_then(|folder| folder.sync_all()).map_err(AuditError::io("flush folder", folder))
}
