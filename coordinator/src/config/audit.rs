//! `[audit]`: where the audit log is, and how much of it is kept.

use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::ConfigError;
use crate::audit::AuditPolicy;

/// Without this table there is no log.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AuditTable {
    /// Its folder, relative to the folder of the file.
    pub directory: PathBuf,
    /// Bytes after which a new segment begins. Default 256 MiB.
    #[serde(default = "segment_bytes_max")]
    pub segment_bytes_max: u64,
    /// Segments that are kept; 0, the default, keeps all.
    #[serde(default)]
    pub segments_max: u32,
}

const fn segment_bytes_max() -> u64 {
    256 << 20
}

impl AuditTable {
    pub(super) fn check(&self, folder: &Path) -> Result<AuditPolicy, ConfigError> {
        let (key, value, min, max) = ("segment_bytes_max", self.segment_bytes_max, 1 << 10, 1 << 40);
        if !(min..=max).contains(&value) {
            return Err(ConfigError::Limit { key, value, min, max });
        }
        let Self { directory, segment_bytes_max, segments_max } = self.clone();
        Ok(AuditPolicy { folder: folder.join(directory), segment_bytes_max, segments_max })
    }
}
