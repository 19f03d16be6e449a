//! `admin.toml`: which coordinator somebody administers from elsewhere, and with which key.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use packfed_protocol::CoordinatorId;
use serde::{Deserialize, Serialize};

use super::advise;

/// The file.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct AdminFile {
    /// Where the coordinator is: HOST:PORT.
    pub(super) address: String,
    /// The coordinator's public key, which is pinned.
    pub(super) coordinator_key: CoordinatorId,
    /// The admin's key file, relative to the folder of this file.
    pub(super) identity: PathBuf,
}

impl AdminFile {
    /// Reads a file; the key's path is whole then.
    pub(super) fn load(path: &Path) -> Result<Self> {
        let next = "`coordinator admin init DIR --address HOST:PORT --coordinator-key KEY` makes one";
        let text = std::fs::read_to_string(path).with_context(|| format!("read {}", path.display()));
        let text = text.map_err(|error| advise(format!("{error:#}"), next))?;
        let file: Self = toml::from_str(&text).map_err(|error| {
            let line = error.span().map_or(1, |span| 1 + text[..span.start].matches('\n').count());
            advise(format!("{}: line {line}: {}", path.display(), error.message()), next)
        })?;
        let folder = path.parent().unwrap_or(Path::new(""));
        Ok(Self { identity: folder.join(&file.identity), ..file })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_key_is_beside_the_file_and_what_is_wrong_is_named() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("admin.toml");
        let file = AdminFile {
            address: "localhost:4600".to_owned(),
            coordinator_key: packfed_protocol::WorkerId([7; 32]),
            identity: PathBuf::from("admin.key"),
        };
        std::fs::write(&path, toml::to_string(&file).unwrap()).unwrap();
        assert_eq!(AdminFile::load(&path).unwrap().identity, folder.path().join("admin.key"));
        std::fs::write(&path, "address = \"a:1\"\nkey = \"00\"\n").unwrap();
        let error = AdminFile::load(&path).unwrap_err().to_string();
        assert!(error.contains("admin.toml: line 2: unknown field `key`") && error.contains("admin init"), "{error}");
        let error = AdminFile::load(&folder.path().join("none.toml")).unwrap_err().to_string();
        assert!(error.contains("none.toml") && error.contains("admin init"), "{error}");
    }
}
