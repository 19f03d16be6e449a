//! The folder of releases: made once, read and verified, deleted whole.

use std::collections::BTreeMap;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use packfed_codec::{Adapter, AdapterError};
use packfed_protocol::{CoordinatorId, Digest, Identity, Manifest, PayloadId, ReleaseError, SignedRelease};
use thiserror::Error;

use super::Made;

/// Where releases are.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Shelf {
    folder: PathBuf,
}

/// A release that was read and verified.
#[derive(Clone, Debug, PartialEq)]
pub struct Held {
    /// What it is.
    pub manifest: Manifest,
    /// The model.
    pub adapter: Adapter,
}

/// Why a release is not there, not whole or not ours.
#[derive(Debug, Error)]
pub enum ShelfError {
    /// The system refuses.
    #[error("{doing} {}: {why}", path.display())]
    Io {
        /// What was being done.
        doing: &'static str,
        /// To what.
        path: PathBuf,
        /// What the system said.
        why: io::Error,
    },
    /// No release has this number.
    #[error("there is no release {0}; `coordinator release list` says which there are")]
    Unknown(u64),
    /// It was there.
    #[error("release {0} was deleted; `coordinator release list` says which there are")]
    Deleted(u64),
    /// Its manifest is no manifest, or not this coordinator's.
    #[error("{}: {why}", path.display())]
    Manifest {
        /// Its file.
        path: PathBuf,
        /// What is wrong.
        why: ReleaseError,
    },
    /// Its model is not the one that was signed.
    #[error("{}: {why}; restore the file from a copy", path.display())]
    Adapter {
        /// Its file.
        path: PathBuf,
        /// What is wrong.
        why: String,
    },
    /// What it is to be made of breaks a bound.
    #[error(transparent)]
    Bounds(#[from] ReleaseError),
}

impl Shelf {
    /// The releases of a coordinator whose store is in this file: a folder beside it.
    #[must_use]
    pub fn beside(store: &Path) -> Self {
        Self { folder: store.with_file_name("releases") }
    }

    /// Where they are.
    #[must_use]
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// Freezes a model under the next number, and signs it.
    ///
    /// # Errors
    /// If a field breaks its bound, or the files cannot be written; then there is no such release.
    pub fn make(&self, identity: &Identity, made: &Made) -> Result<Manifest, ShelfError> {
        let bytes = made.adapter.to_bytes();
        let digest = Digest::of(&bytes);
        let state = made.adapter.state();
        let mut manifest = Manifest {
            number: self.numbers()?.last_key_value().map_or(1, |(last, _)| last + 1),
            run: made.run,
            base: Digest(made.adapter.base().0),
            layout: Digest(state.layout().digest().0),
            state: Digest(state.digest().0),
            version: made.version,
            adapter: PayloadId { digest, bytes: bytes.len() as u64 },
            created: made.created,
            notes: made.notes.clone(),
            metrics: made.adapter.metrics().clone(),
        };
        manifest.check()?;
        let adapters = self.folder.join("adapters");
        fs::create_dir_all(&adapters).map_err(io("make folder", &adapters))?;
        let path = self.adapter_path(&digest);
        if fs::read(&path).ok().as_deref() != Some(&bytes) {
            write_whole(&path, &bytes)?;
        }
        loop {
            let signed = SignedRelease::new(identity, manifest.clone())?;
            match write_new(&self.path(manifest.number, RELEASE), &signed.to_bytes()) {
                // Somebody else took the number a moment ago.
                Err(ShelfError::Io { why, .. }) if why.kind() == io::ErrorKind::AlreadyExists => manifest.number += 1,
                written => return written.map(|()| manifest),
            }
        }
    }

    /// Numbers that are taken, and whether there is a release under each.
    ///
    /// # Errors
    /// If the folder cannot be read.
    pub fn numbers(&self) -> Result<BTreeMap<u64, bool>, ShelfError> {
        let entries = match fs::read_dir(&self.folder) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(BTreeMap::new()),
            entries => entries.and_then(Iterator::collect::<io::Result<Vec<_>>>),
        };
        let mut numbers = BTreeMap::new();
        for entry in entries.map_err(io("read folder", &self.folder))? {
            let name = entry.file_name();
            let Some((number, extension)) = name.to_str().and_then(|name| name.split_once('.')) else { continue };
            let Ok(number) = number.parse::<u64>() else { continue };
            match extension {
                RELEASE => drop(numbers.insert(number, true)),
                DELETED => drop(numbers.entry(number).or_insert(false)),
                _ => {}
            }
        }
        Ok(numbers)
    }

    /// What a release is; its signature is verified, its model not looked at.
    ///
    /// # Errors
    /// If there is none, or it is not this coordinator's.
    pub fn manifest(&self, number: u64, coordinator: &CoordinatorId) -> Result<Manifest, ShelfError> {
        let path = self.path(number, RELEASE);
        let bytes = match fs::read(&path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                let deleted = self.path(number, DELETED).exists();
                return Err(if deleted { ShelfError::Deleted(number) } else { ShelfError::Unknown(number) });
            }
            bytes => bytes.map_err(io("read", &path))?,
        };
        let verified = SignedRelease::from_bytes(&bytes).and_then(|signed| signed.verify(coordinator).cloned());
        let verified = verified.and_then(|manifest| match manifest.number == number {
            true => Ok(manifest),
            false => Err(ReleaseError::Field { field: "number", why: format!("is {}", manifest.number) }),
        });
        verified.map_err(|why| ShelfError::Manifest { path, why })
    }

    /// A release with its model, both verified.
    ///
    /// # Errors
    /// If there is none, it is not this coordinator's, or its model is not the one that was signed.
    pub fn read(&self, number: u64, coordinator: &CoordinatorId) -> Result<Held, ShelfError> {
        let manifest = self.manifest(number, coordinator)?;
        let path = self.adapter_path(&manifest.adapter.digest);
        let bytes = fs::read(&path).map_err(io("read", &path))?;
        let wrong = |why: String| ShelfError::Adapter { path: path.clone(), why };
        let found = Digest::of(&bytes);
        if found != manifest.adapter.digest {
            return Err(wrong(format!("its digest is {found}, release {number} has {}", manifest.adapter.digest)));
        }
        let adapter = Adapter::from_bytes(&bytes).map_err(|error: AdapterError| wrong(error.to_string()))?;
        let state = adapter.state();
        let found = [adapter.base().0, state.layout().digest().0, state.digest().0].map(Digest);
        let signed = [manifest.base, manifest.layout, manifest.state];
        for (what, (found, signed)) in ["base", "layout", "state"].iter().zip(found.into_iter().zip(signed)) {
            if found != signed {
                return Err(wrong(format!("its {what} is {found}, release {number} has {signed}")));
            }
        }
        Ok(Held { manifest, adapter })
    }

    /// Deletes a release, and its model if no other has the same. Its number is not used again.
    ///
    /// # Errors
    /// If there is none, or the system refuses.
    pub fn delete(&self, number: u64, coordinator: &CoordinatorId) -> Result<(), ShelfError> {
        let adapter = self.manifest(number, coordinator)?.adapter.digest;
        write_whole(&self.path(number, DELETED), b"")?;
        let path = self.path(number, RELEASE);
        fs::remove_file(&path).map_err(io("remove", &path))?;
        let left = self.numbers()?.into_iter().filter(|(_, there)| *there);
        for (other, _) in left {
            // One that cannot be read may have the same model.
            if self.manifest(other, coordinator).map_or(true, |manifest| manifest.adapter.digest == adapter) {
                return Ok(());
            }
        }
        let path = self.adapter_path(&adapter);
        fs::remove_file(&path).map_err(io("remove", &path))
    }

    /// The file of a model.
    #[must_use]
    pub fn adapter_path(&self, digest: &Digest) -> PathBuf {
        self.folder.join("adapters").join(format!("{digest}.packfed"))
    }

    fn path(&self, number: u64, extension: &str) -> PathBuf {
        self.folder.join(format!("{number:08}.{extension}"))
    }
}

const RELEASE: &str = "release";
const DELETED: &str = "deleted";

fn io(doing: &'static str, path: &Path) -> impl FnOnce(io::Error) -> ShelfError {
    let path = path.to_owned();
    move |why| ShelfError::Io { doing, path, why }
}

/// Writes a file that stands under its name whole or not at all, whatever stood there.
fn write_whole(path: &Path, bytes: &[u8]) -> Result<(), ShelfError> {
    let part = path.with_extension("part");
    write(&part, bytes, OpenOptions::new().write(true).create(true).truncate(true))?;
    fs::rename(&part, path).map_err(io("rename to", path))?;
    sync_folder(path)
}

/// As [`write_whole`], if nothing stands there.
fn write_new(path: &Path, bytes: &[u8]) -> Result<(), ShelfError> {
    let part = path.with_extension(format!("part-{}", std::process::id()));
    write(&part, bytes, OpenOptions::new().write(true).create(true).truncate(true))?;
    let linked = fs::hard_link(&part, path).map_err(io("write", path));
    fs::remove_file(&part).map_err(io("remove", &part))?;
    linked?;
    sync_folder(path)
}

fn write(path: &Path, bytes: &[u8], options: &OpenOptions) -> Result<(), ShelfError> {
    let written = options.open(path).and_then(|mut file| {
        file.write_all(bytes)?;
        file.sync_all()
    });
    written.map_err(io("write", path))
}

/// Makes a new name outlive a power failure.
fn sync_folder(path: &Path) -> Result<(), ShelfError> {
    let folder = path.parent().unwrap_or(path);
    File::open(folder).and_then(|folder| folder.sync_all()).map_err(io("flush folder", folder))
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use packfed_codec::{BaseDigest, LayerSpec, Layout, Seed, State};
    use packfed_protocol::{RunId, Timestamp, Version};

    use super::super::Difference;
    use super::*;

    fn identity() -> Identity {
        Identity::from_seed([7; 32])
    }

    fn made(lane: i32) -> Made {
        let seed = Seed::from_number(5);
        let spec = LayerSpec { name: "a".into(), rows: 16, cols: 16, block: 8, residual: 6, gain_exponent: 4 };
        let layout = Arc::new(Layout::new(&seed, vec![spec]).unwrap());
        let mut bytes = vec![0; layout.lanes() * 4];
        bytes[..4].copy_from_slice(&lane.to_le_bytes());
        let state = State::from_bytes(layout, &bytes).unwrap();
        let metrics = BTreeMap::from([("accuracy".to_owned(), 0.5 + f64::from(lane) / 1e7)]);
        let adapter = Adapter::new(BaseDigest([7; 32]), seed, state, metrics).unwrap();
        Made { run: RunId([1; 16]), version: Version(4), adapter, notes: "n".into(), created: Timestamp(9) }
    }

    fn shelf() -> (tempfile::TempDir, Shelf) {
        let folder = tempfile::tempdir().unwrap();
        let shelf = Shelf::beside(&folder.path().join("store.redb"));
        (folder, shelf)
    }

    #[test]
    fn a_release_is_what_it_was_made_of() {
        let (_folder, shelf) = shelf();
        assert!(shelf.numbers().unwrap().is_empty());
        let first = shelf.make(&identity(), &made(5)).unwrap();
        let second = shelf.make(&identity(), &made(6)).unwrap();
        assert_eq!((first.number, second.number), (1, 2));
        let held = shelf.read(2, &identity().id()).unwrap();
        assert_eq!((held.manifest, held.adapter), (second, made(6).adapter));
        assert!(matches!(shelf.read(3, &identity().id()), Err(ShelfError::Unknown(3))));
    }

    #[test]
    fn another_key_or_a_changed_byte_is_named() {
        let (_folder, shelf) = shelf();
        let manifest = shelf.make(&identity(), &made(5)).unwrap();
        let other = Identity::from_seed([8; 32]).id();
        let error = shelf.read(1, &other).unwrap_err().to_string();
        assert!(error.ends_with(&format!("release 1 is not signed by coordinator {other}")), "{error}");
        let path = shelf.adapter_path(&manifest.adapter.digest);
        let whole = fs::read(&path).unwrap();
        for at in [0, 50, whole.len() - 1] {
            let mut changed = whole.clone();
            changed[at] ^= 1;
            fs::write(&path, changed).unwrap();
            let error = shelf.read(1, &identity().id()).unwrap_err().to_string();
            assert!(error.contains("its digest is") && error.contains("restore the file"), "{error}");
        }
        // The next release of the same model makes its file anew.
        shelf.make(&identity(), &made(5)).unwrap();
        assert!(shelf.read(1, &identity().id()).is_ok());
        fs::copy(shelf.path(1, RELEASE), shelf.path(9, RELEASE)).unwrap();
        assert!(shelf.read(9, &identity().id()).unwrap_err().to_string().ends_with("the release's number is 1"));
    }

    #[test]
    fn a_number_is_never_used_again_and_a_model_goes_with_its_last_release() {
        let (_folder, shelf) = shelf();
        let one = shelf.make(&identity(), &made(5)).unwrap();
        let path = shelf.adapter_path(&one.adapter.digest);
        shelf.make(&identity(), &made(5)).unwrap();
        shelf.delete(2, &identity().id()).unwrap();
        assert!(path.exists(), "release 1 has it");
        assert!(matches!(shelf.read(2, &identity().id()), Err(ShelfError::Deleted(2))));
        assert_eq!(shelf.make(&identity(), &made(6)).unwrap().number, 3);
        shelf.delete(1, &identity().id()).unwrap();
        assert!(!path.exists());
        assert_eq!(shelf.numbers().unwrap(), BTreeMap::from([(1, false), (2, false), (3, true)]));
    }

    #[test]
    fn a_difference_says_what_changed_and_what_it_costs() {
        let (_folder, shelf) = shelf();
        shelf.make(&identity(), &made(3 << 20)).unwrap();
        shelf.make(&identity(), &made(7 << 20)).unwrap();
        let [one, two] = [1, 2].map(|number| shelf.read(number, &identity().id()).unwrap());
        let found = Difference::of(&one, &two);
        let layer = &found.layers.as_ref().unwrap()[0];
        assert_eq!((layer.lanes, layer.changed, layer.norms), (32, 1, [3.0, 7.0, 4.0]));
        assert!(found.delta_bytes.unwrap() <= found.whole_bytes);
        assert_eq!(found.metrics["accuracy"].map(|value| value.is_some()), [true, true]);
        assert_eq!(Difference::of(&one, &one).layers.unwrap()[0].changed, 0);
    }
}
