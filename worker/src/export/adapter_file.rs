//! A packed adapter as a file of this machine.

use std::path::{Path, PathBuf};

use packfed_codec::{Adapter, AdapterError};
use thiserror::Error;

use super::destination::{DestinationError, Existing, write_file};

/// The extension of a packed adapter's file.
pub const ADAPTER_EXTENSION: &str = "packfed";

/// Writes the file, whole or not at all.
///
/// # Errors
/// If there is one that is to be kept, or the system refuses.
pub fn write_adapter(adapter: &Adapter, path: &Path, existing: Existing) -> Result<(), DestinationError> {
    write_file(path, existing, &adapter.to_bytes())
}

/// Reads a file.
///
/// # Errors
/// If it cannot be read, or as [`Adapter::from_bytes`].
pub fn read_adapter(path: &Path) -> Result<Adapter, AdapterFileError> {
    let bytes = std::fs::read(path).map_err(|source| AdapterFileError::Io { path: path.to_owned(), source })?;
    Adapter::from_bytes(&bytes).map_err(|source| AdapterFileError::Content { path: path.to_owned(), source })
}

/// Why a file is not an adapter.
#[derive(Debug, Error)]
pub enum AdapterFileError {
    /// It cannot be read.
    #[error("{}: {source}", path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// It holds something else.
    #[error("{}: {source}", path.display())]
    Content {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        source: AdapterError,
    },
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::sync::Arc;

    use packfed_codec::{BaseDigest, LayerSpec, Layout, Seed, State};

    use super::*;

    #[test]
    fn a_file_survives_the_disk_and_names_itself_in_errors() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join(format!("task.{ADAPTER_EXTENSION}"));
        let seed = Seed::from_number(5);
        let spec = LayerSpec { name: "a".into(), rows: 9, cols: 14, block: 8, residual: 5, gain_exponent: 4 };
        let state = State::zero(Arc::new(Layout::new(&seed, vec![spec]).unwrap()));
        let adapter = Adapter::new(BaseDigest([7; 32]), seed, state, BTreeMap::new()).unwrap();
        write_adapter(&adapter, &path, Existing::Kept).unwrap();
        assert_eq!(read_adapter(&path).unwrap(), adapter);
        assert!(write_adapter(&adapter, &path, Existing::Kept).is_err());
        std::fs::write(&path, &adapter.to_bytes()[..200]).unwrap();
        let error = read_adapter(&path).unwrap_err().to_string();
        assert!(error.starts_with(path.to_str().unwrap()) && error.ends_with("it is damaged"), "{error}");
    }
}
