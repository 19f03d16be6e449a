//! What a folder of releases asks of a disk, so that a test can bring one that fails, or forgets what was not flushed.

use std::fs::{self, File};
use std::io;
use std::path::Path;

/// Files and folders. Each call is one step after which a process may have ended.
pub trait Disk: Send + Sync {
    /// All bytes of a file.
    ///
    /// # Errors
    /// What the system says.
    fn read(&self, file: &Path) -> io::Result<Vec<u8>>;

    /// Makes a file of these bytes, or makes it anew; nothing is flushed.
    ///
    /// # Errors
    /// What the system says.
    fn write(&self, file: &Path, bytes: &[u8]) -> io::Result<()>;

    /// Flushes a file's bytes, or a folder's names.
    ///
    /// # Errors
    /// What the system says.
    fn sync(&self, path: &Path) -> io::Result<()>;

    /// Gives a file another name, under which there is none any more.
    ///
    /// # Errors
    /// What the system says.
    fn rename(&self, from: &Path, to: &Path) -> io::Result<()>;

    /// Removes a file.
    ///
    /// # Errors
    /// What the system says.
    fn remove(&self, file: &Path) -> io::Result<()>;

    /// The names in a folder, in their order.
    ///
    /// # Errors
    /// What the system says.
    fn names(&self, folder: &Path) -> io::Result<Vec<String>>;

    /// Makes a folder and those that it is in, where there are none.
    ///
    /// # Errors
    /// What the system says.
    fn make_folder(&self, folder: &Path) -> io::Result<()>;
}

/// The machine's own files.
#[derive(Clone, Copy, Debug)]
pub struct Files;

impl Disk for Files {
    fn read(&self, file: &Path) -> io::Result<Vec<u8>> {
        fs::read(file)
    }

    fn write(&self, file: &Path, bytes: &[u8]) -> io::Result<()> {
        fs::write(file, bytes)
    }

    fn sync(&self, path: &Path) -> io::Result<()> {
        File::open(path)?.sync_all()
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        fs::rename(from, to)
    }

    fn remove(&self, file: &Path) -> io::Result<()> {
        fs::remove_file(file)
    }

    fn names(&self, folder: &Path) -> io::Result<Vec<String>> {
        let mut names = Vec::new();
        for entry in fs::read_dir(folder)? {
            names.extend(entry?.file_name().into_string().ok());
        }
        names.sort();
        Ok(names)
    }

    fn make_folder(&self, folder: &Path) -> io::Result<()> {
        fs::create_dir_all(folder)
    }
}
