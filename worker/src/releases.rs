//! The releases that lie on this machine: a folder in which what runs is changed by one rename.
//!
//! ```text
//!   releases/standing.json        what runs, what ran before, what was tried: replaced whole, see `Standing`
//!            00000003.signed      a signed manifest
//!            models/3f…9a.packfed     a model, under the digest of its file
//! ```
//!
//! No name is one that a coordinator's folder of releases has, so that the two do no harm to one another in one place.
//! A release's files are written and flushed before anything names them, so whenever a process ends, what is named is
//! whole. Nothing is used that was not verified since it was read: a current release that is damaged falls back to the
//! one before, and that to the base model.

mod disk;
mod lanes;

use std::collections::BTreeSet;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use packfed_codec::{Adapter, Layout};
use packfed_protocol::{Manifest, ReleaseRef, SignedRelease};
use thiserror::Error;

pub use disk::{Disk, Files};
pub use lanes::{Lanes, keep_or_set_aside};

use crate::export::ADAPTER_EXTENSION;
use crate::follower::{self, Held, NotStored, Pinned, Refusal, Source, Standing, Unpacked, unpack};

/// See the module.
#[derive(Debug)]
pub struct Releases<D = Files> {
    folder: PathBuf,
    pinned: Pinned,
    disk: D,
    /// Held while files are written: a release that nobody waits for any more may still be on its way to the disk.
    writing: Mutex<()>,
}

/// A release that was read and verified.
#[derive(Clone, Debug, PartialEq)]
pub struct Release {
    /// What it is.
    pub manifest: Manifest,
    /// Its model.
    pub adapter: Adapter,
}

/// Why a release or a standing cannot be read or written.
#[derive(Debug, Error)]
pub enum ReleasesError {
    /// The system refuses.
    #[error("{doing} {}: {source}", path.display())]
    Io {
        /// What was being done.
        doing: &'static str,
        /// To what.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// A file is not what it should be.
    #[error("{}: {why}", path.display())]
    Content {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        why: String,
    },
    /// A release is not what was signed.
    #[error("{}: {source}", path.display())]
    Refused {
        /// Its file.
        path: PathBuf,
        /// What is wrong.
        source: Refusal,
    },
}

const STANDING: &str = "standing.json";
const SIGNED: &str = "signed";
const MODELS: &str = "models";
const PART: &str = "part";

impl Releases {
    /// The releases in a folder of this machine.
    #[must_use]
    pub const fn at(folder: PathBuf, pinned: Pinned) -> Self {
        Self::on(Files, folder, pinned)
    }
}

impl<D: Disk> Releases<D> {
    /// The releases in a folder of some disk.
    #[must_use]
    pub const fn on(disk: D, folder: PathBuf, pinned: Pinned) -> Self {
        Self { folder, pinned, disk, writing: Mutex::new(()) }
    }

    /// Whose releases lie there.
    #[must_use]
    pub const fn pinned(&self) -> &Pinned {
        &self.pinned
    }

    /// Makes the folder ready, and says what runs: everything that is named was read and verified, everything else is
    /// removed.
    ///
    /// # Errors
    /// If the folder cannot be read or written.
    pub fn open(&self) -> Result<Standing, ReleasesError> {
        let models = self.folder.join(MODELS);
        self.disk.make_folder(&models).map_err(io("make folder", &models))?;
        let found = self.standing()?;
        let sound = self.sound(&found);
        // Also removes what an earlier process left half done.
        self.save(&sound)?;
        Ok(sound)
    }

    /// What the folder says, not verified. A file that cannot be understood is as good as none.
    ///
    /// # Errors
    /// If the file is there and cannot be read.
    pub fn standing(&self) -> Result<Standing, ReleasesError> {
        let path = self.folder.join(STANDING);
        let bytes = match self.disk.read(&path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Standing::default()),
            bytes => bytes.map_err(io("read", &path))?,
        };
        Ok(serde_json::from_slice(&bytes).unwrap_or_else(|error| {
            tracing::warn!(file = %path.display(), %error, "the standing cannot be understood: the base model runs");
            Standing::default()
        }))
    }

    /// A standing of which everything that is named is there and whole; what is not falls back to what was before.
    #[must_use]
    pub fn sound(&self, standing: &Standing) -> Standing {
        let whole = |held: &Held| match self.read(held.release) {
            Ok(release) => Held::of(&release.manifest) == *held,
            Err(error) => {
                tracing::warn!(release = held.release.number, %error, "a release here is damaged and not used");
                false
            }
        };
        let mut sound = standing.clone();
        sound.current = standing.current.filter(whole);
        sound.previous = standing.previous.filter(whole);
        sound.trying = standing.trying.filter(|trying| whole(&trying.held));
        if standing.current.is_some() && sound.current.is_none() {
            sound.current = sound.previous.take();
            let number = sound.current.map_or(0, |held| held.release.number);
            tracing::warn!(release = number, "the one before runs instead; 0 is the base model");
        }
        sound
    }

    /// The release that runs, verified, or the one that runs instead; none is the base model. Changes nothing.
    ///
    /// # Errors
    /// If the folder cannot be read.
    pub fn current(&self) -> Result<Option<Release>, ReleasesError> {
        let standing = Standing { trying: None, ..self.standing()? };
        let sound = self.sound(&standing);
        sound.current.map(|held| self.read(held.release)).transpose()
    }

    /// A release with its model, both verified.
    ///
    /// # Errors
    /// If it is not there, or not what was signed.
    pub fn read(&self, release: ReleaseRef) -> Result<Release, ReleasesError> {
        let path = self.manifest_path(release.number);
        let bytes = self.disk.read(&path).map_err(io("read", &path))?;
        let refused = |source: Refusal| ReleasesError::Refused { path: path.clone(), source };
        let signed = SignedRelease::from_bytes(&bytes).map_err(|error| refused(error.into()))?;
        let manifest = signed.verify(&self.pinned.coordinator).map_err(|error| refused(error.into()))?;
        let number = manifest.number;
        if Held::of(manifest).release != release {
            let why = format!("it is release {number} with digest {}, expected {}", manifest.digest(), release.digest);
            return Err(ReleasesError::Content { path, why });
        }
        if manifest.run != self.pinned.run {
            return Err(refused(Refusal::Run { number, found: manifest.run, expected: self.pinned.run }));
        }
        if manifest.base != self.pinned.base {
            return Err(refused(Refusal::Base { number, found: manifest.base, expected: self.pinned.base }));
        }
        let path = self.adapter_path(manifest);
        let bytes = self.disk.read(&path).map_err(io("read", &path))?;
        let adapter = follower::read(manifest, &bytes);
        let adapter = adapter.map_err(|source| ReleasesError::Refused { path, source })?;
        Ok(Release { manifest: manifest.clone(), adapter })
    }

    /// Sees to it that a release lies here, whole and flushed, and fits.
    ///
    /// # Errors
    /// If it is not what was signed, fits nothing here, or cannot be written.
    pub fn store(
        &self,
        signed: &SignedRelease,
        source: &Source,
        fits: &dyn Fn(&Arc<Layout>) -> Result<(), String>,
    ) -> Result<Held, NotStored> {
        let manifest = signed.unverified();
        let held = Held::of(manifest);
        let failed = |error: ReleasesError| NotStored::Failed(error.to_string());
        let (over, payload) = match source {
            Source::Folder => {
                let there = self.read(held.release);
                return there.map(|_| held).map_err(|error| NotStored::Missing(error.to_string()));
            }
            Source::Whole(payload) => (None, payload),
            Source::From(release, payload) => (Some(self.read(*release).map_err(failed)?.adapter), payload),
        };
        let Unpacked { adapter, bytes } =
            unpack(manifest, payload.bytes(), over.as_ref()).map_err(NotStored::Refused)?;
        if let Err(why) = fits(adapter.state().layout()) {
            return Err(NotStored::Refused(Refusal::Unfit { number: manifest.number, why }));
        }
        let _writing = self.writing();
        self.write(&self.adapter_path(manifest), &bytes).map_err(failed)?;
        self.write(&self.manifest_path(manifest.number), &signed.to_bytes()).map_err(failed)?;
        Ok(held)
    }

    /// Replaces the standing, and then removes what it does not name.
    ///
    /// # Errors
    /// If it cannot be written. What is named may then be the old or the new one, and is whole.
    pub fn save(&self, standing: &Standing) -> Result<(), ReleasesError> {
        let path = self.folder.join(STANDING);
        let bytes = serde_json::to_vec_pretty(standing)
            .map_err(|error| ReleasesError::Content { path: path.clone(), why: error.to_string() })?;
        let _writing = self.writing();
        self.write(&path, &bytes)?;
        if let Err(error) = self.tidy(standing) {
            tracing::warn!(%error, "what is of no more use cannot be removed");
        }
        Ok(())
    }

    /// Removes every file of ours that a standing does not name.
    fn tidy(&self, standing: &Standing) -> Result<(), ReleasesError> {
        let mut named = BTreeSet::from([self.folder.join(STANDING)]);
        for held in standing.held() {
            named.insert(self.manifest_path(held.release.number));
            named.insert(self.adapter_file(&held.adapter.to_string()));
        }
        let stray = |folder: &Path, is_ours: fn(&str) -> bool| {
            for name in self.disk.names(folder).map_err(io("read folder", folder))? {
                let path = folder.join(&name);
                if is_ours(&name) && !named.contains(&path) {
                    self.disk.remove(&path).map_err(io("remove", &path))?;
                }
            }
            Ok(())
        };
        stray(&self.folder, is_manifest)?;
        stray(&self.folder.join(MODELS), is_model)
    }

    /// Writes a file that stands under its name whole or not at all, whatever stood there.
    fn write(&self, path: &Path, bytes: &[u8]) -> Result<(), ReleasesError> {
        let part = path.with_extension(PART);
        self.disk.write(&part, bytes).map_err(io("write", &part))?;
        self.disk.sync(&part).map_err(io("flush", &part))?;
        self.disk.rename(&part, path).map_err(io("rename to", path))?;
        let folder = path.parent().unwrap_or(&self.folder);
        self.disk.sync(folder).map_err(io("flush folder", folder))
    }

    fn writing(&self) -> MutexGuard<'_, ()> {
        self.writing.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn manifest_path(&self, number: u64) -> PathBuf {
        self.folder.join(format!("{number:08}.{SIGNED}"))
    }

    fn adapter_path(&self, manifest: &Manifest) -> PathBuf {
        self.adapter_file(&manifest.adapter.digest.to_string())
    }

    fn adapter_file(&self, digest: &str) -> PathBuf {
        self.folder.join(MODELS).join(format!("{digest}.{ADAPTER_EXTENSION}"))
    }
}

/// Whether a manifest, or something half written, has this name.
fn is_manifest(name: &str) -> bool {
    match name.split_once('.') {
        Some((stem, SIGNED | PART)) => stem.bytes().all(|b| b.is_ascii_digit()) || name == "standing.part",
        _ => false,
    }
}

/// Whether a model, whole or half written, has this name.
fn is_model(name: &str) -> bool {
    match name.split_once('.') {
        Some((stem, ADAPTER_EXTENSION | PART)) => stem.len() == 64 && stem.bytes().all(|b| b.is_ascii_hexdigit()),
        _ => false,
    }
}

fn io(doing: &'static str, path: &Path) -> impl FnOnce(io::Error) -> ReleasesError {
    let path = path.to_owned();
    move |source| ReleasesError::Io { doing, path, source }
}

#[cfg(test)]
mod tests;
