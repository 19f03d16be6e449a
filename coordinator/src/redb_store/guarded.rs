//! redb, guarded: a bound on its memory, every page checked when it is opened, and its assertions as errors.

use redb::Database;

pub(super) fn builder() -> redb::Builder {
    let mut builder = Database::builder();
    builder.set_cache_size(CACHE_BYTES);
    builder
}

/// Opens a database and checks every page of it; after the check there is no damaged page to meet.
pub(super) fn open_checked(open: impl FnOnce() -> Result<Database, redb::DatabaseError>) -> Result<Database, String> {
    let checked = quietly(|| {
        let mut database = open()?;
        Ok::<_, redb::Error>(database.check_integrity()?.then_some(database))
    });
    match checked {
        Ok(Some(database)) => Ok(database),
        Ok(None) => Err("it was damaged and is set back to an earlier write; start again to go on there".to_owned()),
        Err(error) => Err(error),
    }
}

/// Does what redb may panic over: it asserts where it meets a damaged page or a failing disk. Such a panic is an
/// error here, and nothing that it leaves half done is used again.
pub(super) fn quietly<T, E: std::fmt::Display>(body: impl FnOnce() -> Result<T, E>) -> Result<T, String> {
    match std::panic::catch_unwind(std::panic::AssertUnwindSafe(body)) {
        Ok(result) => result.map_err(|error| error.to_string()),
        Err(_) => Err("it is damaged; restore it from a copy".to_owned()),
    }
}

/// What is kept of the file in memory; more is the operating system's to keep.
const CACHE_BYTES: usize = 8 << 20;
