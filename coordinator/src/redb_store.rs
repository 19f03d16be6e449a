//! The store in one file, over redb: every group of writes is one transaction, on the disk before it returns.
//!
//! ```text
//!   meta      name → bytes               format, claim, next-round, scales, last
//!   head      name → bytes               version, state, memory, lost
//!   steps     (version, part) → StepWords   the steps that led to the last versions, each in its parts
//!   rounds    round → OpenRound          the open ones
//!   updates   (round, worker) → frame    their journal
//!   members   worker → Member
//!   tokens    hash → ()                  tokens that are not used up
//! ```
//!
//! Nothing that is read back is believed: lengths are checked here against the plan, and the engine
//! verifies every journalled signature again. It does not know what a round is.

use std::fs::File;
use std::io;
use std::panic::AssertUnwindSafe;
use std::path::{Path, PathBuf};

use packfed_protocol::{Digest, Round, WorkerId, wire};
use redb::{
    Database, DatabaseError, ReadableDatabase, ReadableTable, StorageBackend, TableDefinition, WriteTransaction,
};

use crate::event::{Commit, OpenRound, Stored, Write};
use crate::plan::RunPlan;
use crate::registry::Registry;
use crate::store::{Claim, Store, StoreError, copy_part};

mod record;

const META: TableDefinition<&str, &[u8]> = TableDefinition::new("meta");
const HEAD: TableDefinition<&str, &[u8]> = TableDefinition::new("head");
const STEPS: TableDefinition<(u64, u32), &[u8]> = TableDefinition::new("steps");
const ROUNDS: TableDefinition<u64, &[u8]> = TableDefinition::new("rounds");
const UPDATES: TableDefinition<(u64, &[u8; 32]), &[u8]> = TableDefinition::new("updates");
const MEMBERS: TableDefinition<&[u8; 32], &[u8]> = TableDefinition::new("members");
const TOKENS: TableDefinition<&[u8; 32], ()> = TableDefinition::new("tokens");

/// What errors call a store that is in no file of the machine.
const NO_FILE: &str = "on a disk of its own";

/// What is in the tables; another number is another program's file.
const FORMAT: u32 = 2;

/// A run in a file.
#[derive(Debug)]
pub struct RedbStore {
    database: Database,
    path: PathBuf,
}

impl RedbStore {
    /// Makes a new store that knows these workers and tokens.
    ///
    /// # Errors
    /// If the file is there already or cannot be written.
    pub fn create(path: &Path, registry: &Registry) -> Result<Self, StoreError> {
        let doing = || format!("create store {}", path.display());
        let mut options = File::options();
        let file = options.read(true).write(true).create_new(true).open(path).map_err(|e| engine(doing(), e))?;
        let database = Database::builder().create_file(file).map_err(|e| engine(doing(), e))?;
        Self { database, path: path.to_owned() }.fill(registry)
    }

    /// As [`RedbStore::create`], on a disk of the caller's making.
    ///
    /// # Errors
    /// If it cannot be written.
    pub fn create_on(disk: impl StorageBackend, registry: &Registry) -> Result<Self, StoreError> {
        let path = PathBuf::from(NO_FILE);
        let doing = || format!("create store {}", path.display());
        let database = Database::builder().create_with_backend(disk).map_err(|e| engine(doing(), e))?;
        Self { database, path }.fill(registry)
    }

    /// Makes every table of a new store.
    fn fill(self, registry: &Registry) -> Result<Self, StoreError> {
        self.transact("create", |transaction| {
            transaction.open_table(META)?.insert("format", wire::to_bytes(&FORMAT).as_slice())?;
            transaction.open_table(HEAD)?;
            transaction.open_table(STEPS)?;
            transaction.open_table(ROUNDS)?;
            transaction.open_table(UPDATES)?;
            let mut members = transaction.open_table(MEMBERS)?;
            for (worker, member) in registry.members() {
                members.insert(&worker.0, wire::to_bytes(member).as_slice())?;
            }
            let mut tokens = transaction.open_table(TOKENS)?;
            for token in registry.tokens() {
                tokens.insert(&token.0, ())?;
            }
            Ok(())
        })?;
        Ok(self)
    }

    /// Opens a store that is there.
    ///
    /// # Errors
    /// If there is none, another process has it, or the file is no store.
    pub fn open(path: &Path) -> Result<Self, StoreError> {
        let doing = || format!("open store {}", path.display());
        if std::fs::metadata(path).map_err(|e| engine(doing(), e))?.len() == 0 {
            return Err(engine(doing(), io::Error::new(io::ErrorKind::UnexpectedEof, "the file is empty")));
        }
        let database =
            open_checked(|| Database::open(path)).map_err(|why| StoreError::Engine { doing: doing(), why })?;
        let store = Self { database, path: path.to_owned() };
        store.check_format()?;
        Ok(store)
    }

    /// As [`RedbStore::open`], on a disk of the caller's making.
    ///
    /// # Errors
    /// If what is on it is no store.
    pub fn open_on(disk: impl StorageBackend) -> Result<Self, StoreError> {
        let path = PathBuf::from(NO_FILE);
        let doing = || format!("open store {}", path.display());
        let open = || Database::builder().create_with_backend(disk);
        let database = open_checked(open).map_err(|why| StoreError::Engine { doing: doing(), why })?;
        let store = Self { database, path };
        store.check_format()?;
        Ok(store)
    }

    fn check_format(&self) -> Result<(), StoreError> {
        match self.meta::<u32>("format")? {
            Some(FORMAT) => Ok(()),
            Some(found) => Err(corrupt("format", format!("it is {found}, this program reads {FORMAT}"))),
            None => Err(corrupt("format", "it is missing".to_owned())),
        }
    }

    fn meta<T: serde::de::DeserializeOwned>(&self, name: &'static str) -> Result<Option<T>, StoreError> {
        let bytes = self.read("read", |transaction| {
            Ok(transaction.open_table(META)?.get(name)?.map(|bytes| bytes.value().to_vec()))
        })?;
        bytes.map(|bytes| wire::from_bytes(&bytes).map_err(|e| corrupt(name, e.to_string()))).transpose()
    }

    /// Reads in one transaction.
    fn read<T>(
        &self,
        verb: &str,
        body: impl FnOnce(&redb::ReadTransaction) -> Result<T, redb::Error>,
    ) -> Result<T, StoreError> {
        let result = self.database.begin_read().map_err(redb::Error::from).and_then(|transaction| body(&transaction));
        result.map_err(|e| self.failed(verb, e))
    }

    /// Writes in one transaction: all of it is durable when this returns, or none of it ever is.
    fn transact(
        &self,
        verb: &str,
        body: impl FnOnce(&WriteTransaction) -> Result<(), redb::Error>,
    ) -> Result<(), StoreError> {
        let result = self.database.begin_write().map_err(redb::Error::from).and_then(|transaction| {
            body(&transaction)?;
            Ok(transaction.commit()?)
        });
        result.map_err(|e| self.failed(verb, e))
    }

    fn failed(&self, verb: &str, error: impl std::fmt::Display) -> StoreError {
        engine(format!("{verb} store {}", self.path.display()), error)
    }
}

impl Store for RedbStore {
    fn claim(&mut self, plan: &RunPlan) -> Result<(), StoreError> {
        if self.meta::<u64>("next-round")?.is_some() {
            return Claim::of(plan).check(self.meta("claim")?);
        }
        self.transact("claim", |transaction| put_meta(transaction, "claim", &Claim::of(plan)))
    }

    fn write_all(&mut self, writes: &[Write]) -> Result<(), StoreError> {
        self.transact("write", |transaction| writes.iter().try_for_each(|write| put(transaction, write)))
    }

    fn read_update(
        &self,
        round: Round,
        worker: &WorkerId,
        before_end: usize,
        bytes: &mut [u8],
    ) -> Result<(), StoreError> {
        self.read("read", |transaction| {
            let frame = transaction.open_table(UPDATES)?.get((round.0, &worker.0))?;
            Ok(copy_part(frame.as_ref().map(|frame| frame.value()), worker, before_end, bytes))
        })?
    }

    fn registry(&self) -> Result<Registry, StoreError> {
        let (members, tokens) = self.read("read", |transaction| {
            let mut members = Vec::new();
            for entry in transaction.open_table(MEMBERS)?.iter()? {
                let (worker, member) = entry?;
                members.push((WorkerId(*worker.value()), member.value().to_vec()));
            }
            let mut tokens = Vec::new();
            for entry in transaction.open_table(TOKENS)?.iter()? {
                tokens.push(Digest(*entry?.0.value()));
            }
            Ok((members, tokens))
        })?;
        let member = |(worker, bytes): (_, Vec<u8>)| Ok((worker, wire::from_bytes(&bytes)?));
        let members: Result<_, wire::DecodeError> = members.into_iter().map(member).collect();
        Ok(Registry::new(members.map_err(|e| corrupt("registry", e.to_string()))?, tokens.into_iter().collect()))
    }

    fn load(&self, plan: &RunPlan) -> Result<Option<Stored>, StoreError> {
        let Some(next_round) = self.meta("next-round")? else { return Ok(None) };
        Claim::of(plan).check(self.meta("claim")?)?;
        let records = self.read("read", record::Records::read)?;
        let stored = records.check(plan, next_round, self.meta("scales")?, self.meta("last")?)?;
        Ok(Some(stored))
    }
}

fn put(transaction: &WriteTransaction, write: &Write) -> Result<(), redb::Error> {
    match write {
        Write::Enroll { worker, member, token } => {
            transaction.open_table(MEMBERS)?.insert(&worker.0, wire::to_bytes(member).as_slice())?;
            transaction.open_table(TOKENS)?.remove(&token.0)?;
            Ok(())
        }
        Write::Open(open) => put_round(transaction, open),
        Write::Accept { round, worker, frame } => {
            transaction.open_table(UPDATES)?.insert((round.0, &worker.0), frame.as_slice())?;
            Ok(())
        }
        Write::Abandon { round: ended } => {
            transaction.open_table(UPDATES)?.retain(|(round, _), _| round != ended.0)?;
            transaction.open_table(ROUNDS)?.remove(ended.0)?;
            Ok(())
        }
        Write::Commit(commit) => put_commit(transaction, commit),
    }
}

fn put_meta<T: serde::Serialize>(transaction: &WriteTransaction, name: &str, value: &T) -> Result<(), redb::Error> {
    transaction.open_table(META)?.insert(name, wire::to_bytes(value).as_slice())?;
    Ok(())
}

/// A round's numbers are never used again, so the latest one says which is next.
fn put_round(transaction: &WriteTransaction, open: &OpenRound) -> Result<(), redb::Error> {
    transaction.open_table(ROUNDS)?.insert(open.round.0, wire::to_bytes(open).as_slice())?;
    let next = open.round.next();
    let latest =
        transaction.open_table(META)?.get("next-round")?.and_then(|b| wire::from_bytes::<Round>(b.value()).ok());
    if latest.is_none_or(|latest| latest < next) {
        put_meta(transaction, "next-round", &next)?;
    }
    Ok(())
}

fn put_commit(transaction: &WriteTransaction, commit: &Commit) -> Result<(), redb::Error> {
    transaction.open_table(UPDATES)?.retain(|_, _| false)?;
    let mut rounds = transaction.open_table(ROUNDS)?;
    rounds.retain(|_, _| false)?;
    for open in &commit.open {
        rounds.insert(open.round.0, wire::to_bytes(open).as_slice())?;
    }
    put_meta(transaction, "scales", &commit.scales)?;
    put_meta(transaction, "last", &commit.summary)?;
    let mut head = transaction.open_table(HEAD)?;
    head.insert("version", commit.head.version.to_le_bytes().as_slice())?;
    head.insert("state", commit.head.state.to_bytes().as_slice())?;
    head.insert("memory", record::float_bytes(&commit.head.memory).as_slice())?;
    head.insert("lost", record::float_bytes(&commit.head.lost).as_slice())?;
    let mut steps = transaction.open_table(STEPS)?;
    for (part, step) in (0..).zip(commit.head.past.back().into_iter().flatten()) {
        steps.insert((commit.head.version, part), step.to_bytes().as_slice())?;
    }
    let kept = commit.head.version.saturating_sub(commit.head.past.len() as u64);
    steps.retain(|(version, _), _| version > kept)?;
    Ok(())
}

/// Opens a database and checks every page of it. redb asserts where it meets a damaged page; such a
/// panic is an error here, and after the check there is none to meet.
fn open_checked(open: impl FnOnce() -> Result<Database, DatabaseError>) -> Result<Database, String> {
    let checked = || {
        let mut database = open()?;
        Ok(database.check_integrity()?.then_some(database))
    };
    // What a panic leaves half done is dropped with its database.
    match std::panic::catch_unwind(AssertUnwindSafe(checked)) {
        Ok(Ok(Some(database))) => Ok(database),
        Ok(Ok(None)) => {
            Err("it was damaged and is set back to an earlier write; start again to go on there".to_owned())
        }
        Ok(Err::<_, DatabaseError>(error)) => Err(error.to_string()),
        Err(_) => Err("it is damaged; restore it from a copy".to_owned()),
    }
}

fn engine(doing: String, why: impl std::fmt::Display) -> StoreError {
    StoreError::Engine { doing, why: why.to_string() }
}

fn corrupt(what: &'static str, why: String) -> StoreError {
    StoreError::Corrupt { what, why }
}

#[cfg(test)]
pub(crate) mod tests;
