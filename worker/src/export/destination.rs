//! Where something is written: whole or not at all.
//!
//! It is filled beside its place under a hidden name, synced to the disk and only then renamed. What it is, is its
//! callers' business.

use std::ffi::OsString;
use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};

use thiserror::Error;

/// What becomes of something that is already there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Existing {
    /// It stays, and nothing is written.
    Kept,
    /// The new takes its place, once it is complete.
    Replaced,
}

/// Why nothing was written.
#[derive(Debug, Error)]
pub enum DestinationError {
    /// Something is there, and it was not asked to be replaced.
    #[error("{}: there is something already, and replacing it was not asked for", .0.display())]
    Exists(PathBuf),
    /// What is there is not of the kind that would be written.
    #[error("{}: not replaced, as it is {why}", path.display())]
    Other {
        /// What is there.
        path: PathBuf,
        /// What it looks like.
        why: &'static str,
    },
    /// The path has no last part to write to.
    #[error("{}: this names no file or directory to write", .0.display())]
    NoName(PathBuf),
    /// The system refused.
    #[error("{}: {source}", path.display())]
    Io {
        /// The file or directory.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
}

impl DestinationError {
    /// For `map_err` on what the system does with a path.
    pub(crate) fn io(path: &Path) -> impl Fn(io::Error) -> Self {
        move |source| Self::Io { path: path.to_owned(), source }
    }
}

/// Writes a file of these bytes.
pub(crate) fn write_file(path: &Path, existing: Existing, bytes: &[u8]) -> Result<(), DestinationError> {
    match fs::symlink_metadata(path) {
        Ok(_) if existing == Existing::Kept => return Err(DestinationError::Exists(path.to_owned())),
        Ok(found) if found.is_dir() => {
            return Err(DestinationError::Other { path: path.to_owned(), why: "a directory" });
        }
        _ => {}
    }
    let partial = beside(path, "partial")?;
    let written = fs::write(&partial, bytes).and_then(|()| sync(&partial)).and_then(|()| fs::rename(&partial, path));
    written.and_then(|()| sync_parent(path)).map_err(|source| {
        // What went wrong first is what is told; a left-over that cannot be removed either adds nothing.
        let _ = fs::remove_file(&partial);
        DestinationError::Io { path: path.to_owned(), source }
    })
}

/// Writes a directory of files, none of them in a further directory: `fill` puts them into the path that it is given.
///
/// One that is there is replaced only if it holds `mark` and no directory, so that a slip of the path costs no other
/// directory. The old one is renamed out of the way, and is gone when this returns.
pub(crate) fn write_directory<E: From<DestinationError>>(
    path: &Path,
    existing: Existing,
    mark: &str,
    fill: impl FnOnce(&Path) -> Result<(), E>,
) -> Result<(), E> {
    let old = match fs::symlink_metadata(path) {
        Ok(_) if existing == Existing::Kept => return Err(DestinationError::Exists(path.to_owned()).into()),
        Ok(_) => {
            replaceable(path, mark)?;
            Some(beside(path, "replaced")?)
        }
        Err(_) => None,
    };
    let partial = beside(path, "partial")?;
    fs::create_dir(&partial).map_err(DestinationError::io(&partial))?;
    let filled = fill(&partial).and_then(|()| put(&partial, path, old.as_deref()).map_err(E::from));
    if filled.is_err() {
        // As above.
        let _ = fs::remove_dir_all(&partial);
    }
    filled
}

/// Syncs the files of `partial` and makes it `path`; what was there becomes `old`, then nothing.
fn put(partial: &Path, path: &Path, old: Option<&Path>) -> Result<(), DestinationError> {
    let io = DestinationError::io(path);
    for entry in fs::read_dir(partial).map_err(&io)? {
        sync(&entry.map_err(&io)?.path()).map_err(&io)?;
    }
    sync(partial).map_err(&io)?;
    if let Some(old) = old {
        fs::rename(path, old).map_err(&io)?;
    }
    if let Err(source) = fs::rename(partial, path) {
        if let Some(old) = old {
            fs::rename(old, path).map_err(DestinationError::io(old))?;
        }
        return Err(io(source));
    }
    sync_parent(path).map_err(&io)?;
    match old {
        Some(old) => fs::remove_dir_all(old).map_err(DestinationError::io(old)),
        None => Ok(()),
    }
}

fn replaceable(path: &Path, mark: &str) -> Result<(), DestinationError> {
    let io = DestinationError::io(path);
    let other = |why| Err(DestinationError::Other { path: path.to_owned(), why });
    if !fs::symlink_metadata(path).map_err(&io)?.is_dir() {
        return other("not a directory");
    }
    if !path.join(mark).is_file() {
        return other("a directory of something else");
    }
    for entry in fs::read_dir(path).map_err(&io)? {
        if entry.and_then(|entry| entry.file_type()).map_err(&io)?.is_dir() {
            return other("a directory with directories in it");
        }
    }
    Ok(())
}

/// A hidden name in the same directory.
fn beside(path: &Path, what: &str) -> Result<PathBuf, DestinationError> {
    let Some(own) = path.file_name() else { return Err(DestinationError::NoName(path.to_owned())) };
    let mut name = OsString::from(".");
    name.push(own);
    name.push(format!(".{}.{what}", std::process::id()));
    Ok(path.with_file_name(name))
}

fn sync(path: &Path) -> io::Result<()> {
    File::open(path)?.sync_all()
}

fn sync_parent(path: &Path) -> io::Result<()> {
    match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => sync(parent),
        _ => sync(Path::new(".")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(folder: &Path) -> Vec<String> {
        let entries = fs::read_dir(folder).unwrap();
        let mut names: Vec<_> = entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
        names.sort();
        names
    }

    fn fill(content: &str) -> impl FnOnce(&Path) -> Result<(), DestinationError> {
        let content = content.to_owned();
        move |path| fs::write(path.join("config.json"), content).map_err(DestinationError::io(path))
    }

    #[test]
    fn a_file_is_replaced_only_when_that_was_asked_for() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.packfed");
        write_file(&path, Existing::Kept, b"one").unwrap();
        assert!(matches!(write_file(&path, Existing::Kept, b"two"), Err(DestinationError::Exists(_))));
        assert_eq!(fs::read(&path).unwrap(), b"one");
        write_file(&path, Existing::Replaced, b"two").unwrap();
        assert_eq!(fs::read(&path).unwrap(), b"two");
        assert_eq!(names(folder.path()), ["a.packfed"]);
        assert!(matches!(write_file(folder.path(), Existing::Replaced, b""), Err(DestinationError::Other { .. })));
    }

    #[test]
    fn a_directory_is_replaced_only_by_a_complete_one() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("model");
        let content = || fs::read_to_string(path.join("config.json")).unwrap();
        write_directory(&path, Existing::Kept, "config.json", fill("one")).unwrap();
        let kept = write_directory(&path, Existing::Kept, "config.json", fill("two"));
        assert!(matches!(kept, Err(DestinationError::Exists(_))));
        let broken = |partial: &Path| {
            fill("half")(partial)?;
            Err(DestinationError::NoName(partial.to_owned()))
        };
        assert!(write_directory(&path, Existing::Replaced, "config.json", broken).is_err());
        assert_eq!(content(), "one");
        write_directory(&path, Existing::Replaced, "config.json", fill("two")).unwrap();
        assert_eq!(content(), "two");
        assert_eq!(names(folder.path()), ["model"], "nothing is left over");
    }

    #[test]
    fn a_directory_of_something_else_is_never_replaced() {
        let folder = tempfile::tempdir().unwrap();
        let refusal = |path: &Path| {
            let error = write_directory(path, Existing::Replaced, "config.json", fill("one")).unwrap_err().to_string();
            assert_eq!(names(path.parent().unwrap()).iter().filter(|name| name.starts_with('.')).count(), 0);
            error
        };
        let thesis = folder.path().join("thesis");
        fs::create_dir(&thesis).unwrap();
        fs::write(thesis.join("chapter"), "").unwrap();
        assert!(refusal(&thesis).ends_with("not replaced, as it is a directory of something else"));
        fs::write(thesis.join("config.json"), "").unwrap();
        fs::create_dir(thesis.join("notes")).unwrap();
        assert!(refusal(&thesis).ends_with("a directory with directories in it"));
        assert!(refusal(&thesis.join("chapter")).ends_with("not a directory"));
        let nameless = write_directory(Path::new("/"), Existing::Kept, "config.json", fill("one"));
        assert!(nameless.is_err());
    }
}
