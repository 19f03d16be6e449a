//! The store in a file, over redb: every group of writes is one transaction, on the disk before it returns.
//!
//! ```text
//!   meta      name → sealed bytes                    format, claim, group, next-round, scales, last, version
//!   planes    (kind, lane index, chunk) → numbers    the head; see `planes`
//!   seals     the same → BLAKE3                      of every plane
//!   steps     (version, part) → sealed StepWords     the steps that led to the last versions, each in its parts
//!   rounds    round → sealed OpenRound and cohort    the open ones
//!   updates   (round, worker) → sealed Place         where their frames lie in the journal
//!   members   worker → sealed Member
//!   tokens    hash → ()                              tokens that are not used up
//!   ledger    (kind, key) → sealed entry             what is kept beside the run; see `ledger`
//! ```
//!
//! Nothing that is read back is believed: seals, lengths and the model's digest are checked here, and the
//! engine verifies every journalled signature again. Beside the file stand the journal of accepted updates and the
//! store's mark; see `journal` and `mark`. What is of
//! no more use is deleted in the write that makes it so: the journal with its round, steps beyond the plan's
//! history; [`RedbStore::tidy`] gives the space back. It does not know what a round is.
//!
//! Commits are of one phase (redb's default): they cost one flush. Two would also hold against somebody who
//! orders the disk's writes, crashes the machine between them and forges XXH3; the seals stand in for that.

use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};

use packfed_protocol::{Digest, Round, WorkerId, wire};
use redb::{AccessGuard, Database, ReadableDatabase, ReadableTable, StorageBackend, TableDefinition, WriteTransaction};

use crate::event::{Commit, OpenRound, Stored, Write};
use crate::ledger::Ledger;
use crate::plan::RunPlan;
use crate::registry::{Member, Registry};
use crate::store::{Claim, Store, StoreError, part_start};

mod guarded;
mod journal;
mod ledger;
mod mark;
mod planes;
mod record;
mod seal;

use guarded::{builder, open_checked, quietly};
use journal::{Existing, Journal, Place};
use mark::Mark;
use seal::{opened, sealed};

const META: TableDefinition<&str, &[u8]> = TableDefinition::new("meta");
const STEPS: TableDefinition<(u64, u32), &[u8]> = TableDefinition::new("steps");
const ROUNDS: TableDefinition<u64, &[u8]> = TableDefinition::new("rounds");
const UPDATES: TableDefinition<UpdateKey, &[u8]> = TableDefinition::new("updates");
/// Round and worker.
type UpdateKey = (u64, &'static [u8; 32]);
const MEMBERS: TableDefinition<&[u8; 32], &[u8]> = TableDefinition::new("members");
const TOKENS: TableDefinition<&[u8; 32], ()> = TableDefinition::new("tokens");

/// What is in the tables; another number is another program's file.
const FORMAT: u32 = 6;
/// What the program before wrote: the same without a ledger.
const FORMAT_BEFORE: u32 = 5;

/// A run in a file.
#[derive(Debug)]
pub struct RedbStore {
    database: Database,
    journal: Journal,
    path: PathBuf,
    /// Groups of writes that it holds.
    group: u64,
    /// A store in no file has none.
    mark: Option<Mark>,
}

/// What [`RedbStore::tidy`] did, in bytes of the file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Tidied {
    /// Before.
    pub before: u64,
    /// After.
    pub after: u64,
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
        Mark::forget(path)?;
        let database = builder().create_file(file).map_err(|e| engine(doing(), e))?;
        let mut store = Self::made(database, journal::file(path, Existing::Emptied)?, path, registry)?;
        store.mark = Some(Mark::check(path, store.group)?);
        Ok(store)
    }

    /// As [`RedbStore::create`], on empty disks of the caller's making: one for the file, one for the journal.
    ///
    /// # Errors
    /// If they cannot be written.
    pub fn create_on(
        disk: impl StorageBackend,
        journal: impl StorageBackend,
        registry: &Registry,
    ) -> Result<Self, StoreError> {
        let path = Path::new(NO_FILE);
        let doing = || format!("create store {}", path.display());
        let database = quietly(|| builder().create_with_backend(disk)).map_err(|e| engine(doing(), e))?;
        Self::made(database, Box::new(journal), path, registry)
    }

    fn made(
        database: Database,
        journal: Box<dyn StorageBackend>,
        path: &Path,
        registry: &Registry,
    ) -> Result<Self, StoreError> {
        let store = Self::bare(database, journal, path)?;
        store.transact("create", |transaction| {
            transaction.open_table(META)?.insert("format", wire::to_bytes(&FORMAT).as_slice())?;
            transaction.open_table(STEPS)?;
            transaction.open_table(ROUNDS)?;
            transaction.open_table(UPDATES)?;
            ledger::create(transaction)?;
            planes::create(transaction)?;
            let mut members = transaction.open_table(MEMBERS)?;
            for (worker, member) in registry.members() {
                members.insert(&worker.0, sealed("members", &worker.0, &wire::to_bytes(member)).as_slice())?;
            }
            let mut tokens = transaction.open_table(TOKENS)?;
            for token in registry.tokens() {
                tokens.insert(&token.0, ())?;
            }
            Ok(())
        })?;
        Ok(store)
    }

    /// Opens a store that is there.
    ///
    /// # Errors
    /// If there is none, another process has it, the file is no store, or it was set back.
    pub fn open(path: &Path) -> Result<Self, StoreError> {
        let doing = || format!("open store {}", path.display());
        if std::fs::metadata(path).map_err(|e| engine(doing(), e))?.len() == 0 {
            return Err(engine(doing(), io::Error::new(io::ErrorKind::UnexpectedEof, "the file is empty")));
        }
        let database =
            open_checked(|| builder().open(path)).map_err(|why| StoreError::Engine { doing: doing(), why })?;
        let mut store = Self::taken_up(database, journal::file(path, Existing::Kept)?, path)?;
        store.mark = Some(Mark::check(path, store.group)?);
        Ok(store)
    }

    /// As [`RedbStore::open`], on disks of the caller's making: one with the file, one with the journal.
    ///
    /// # Errors
    /// If what is on them is no store.
    pub fn open_on(disk: impl StorageBackend, journal: impl StorageBackend) -> Result<Self, StoreError> {
        let path = Path::new(NO_FILE);
        let database = open_checked(|| builder().create_with_backend(disk))
            .map_err(|why| StoreError::Engine { doing: format!("open store {NO_FILE}"), why })?;
        Self::taken_up(database, Box::new(journal), path)
    }

    fn taken_up(database: Database, journal: Box<dyn StorageBackend>, path: &Path) -> Result<Self, StoreError> {
        let mut store = Self::bare(database, journal, path)?;
        store.check_format()?;
        for (round, _, place) in store.places()? {
            store.journal.keep(round, place).map_err(|why| corrupt("journal", why))?;
        }
        store.group = store.meta("group")?.unwrap_or(0);
        Ok(store)
    }

    fn bare(database: Database, journal: Box<dyn StorageBackend>, path: &Path) -> Result<Self, StoreError> {
        let journal = Journal::on(journal).map_err(|e| engine(format!("open journal of {}", path.display()), e))?;
        Ok(Self { database, journal, path: path.to_owned(), group: 0, mark: None })
    }

    /// Where the frames of accepted updates lie.
    fn places(&self) -> Result<Vec<(Round, WorkerId, Place)>, StoreError> {
        let sealed = self.read("read", |transaction| {
            let updates = transaction.open_table(UPDATES)?;
            let entry = |entry: Result<(AccessGuard<'_, UpdateKey>, AccessGuard<'_, &[u8]>), _>| {
                let (key, place) = entry?;
                let (round, worker) = key.value();
                Ok((Round(round), WorkerId(*worker), place.value().to_vec()))
            };
            updates.iter()?.map(entry).collect::<Result<Vec<_>, redb::Error>>()
        })?;
        let place = |(round, worker, sealed): (Round, WorkerId, Vec<u8>)| {
            let place = record::place(round, &worker, &sealed).map_err(|why| corrupt("journal", why))?;
            Ok((round, worker, place))
        };
        sealed.into_iter().map(place).collect()
    }

    /// Where a store in this file has its journal.
    #[must_use]
    pub fn journal_path(path: &Path) -> PathBuf {
        let mut path = path.as_os_str().to_owned();
        path.push(".journal");
        PathBuf::from(path)
    }

    /// Groups of writes that it holds, since it was made.
    #[must_use]
    pub const fn group(&self) -> u64 {
        self.group
    }

    /// Gives unused space back to the file system if more than half of a large file is unused.
    ///
    /// # Errors
    /// If the store cannot be read or rewritten; it is whole all the same.
    pub fn tidy(&mut self) -> Result<Option<Tidied>, StoreError> {
        let bytes = |store: &Self| {
            std::fs::metadata(&store.path).map(|file| file.len()).map_err(|e| store.failed("measure", e))
        };
        self.journal.tidy().map_err(|e| self.failed("shorten the journal of", e))?;
        let before = bytes(self)?;
        if before < TIDY_BYTES_MIN {
            return Ok(None);
        }
        let stats = self.database.begin_write().map_err(redb::Error::from).and_then(|transaction| {
            let stats = transaction.stats()?;
            transaction.abort()?;
            Ok(stats)
        });
        let stats = stats.map_err(|e| self.failed("measure", e))?;
        if 2 * stats.allocated_pages() * stats.page_size() as u64 >= before {
            return Ok(None);
        }
        self.database.compact().map_err(|e| self.failed("compact", e))?;
        Ok(Some(Tidied { before, after: bytes(self)? }))
    }

    fn check_format(&self) -> Result<(), StoreError> {
        let bytes = self.meta_bytes("format")?;
        let format = bytes.map(|bytes| wire::from_bytes(&bytes).map_err(|e| corrupt("format", e.to_string())));
        match format.transpose()? {
            Some(FORMAT) => Ok(()),
            Some(FORMAT_BEFORE) => self.transact("upgrade", |transaction| {
                ledger::create(transaction)?;
                transaction.open_table(META)?.insert("format", wire::to_bytes(&FORMAT).as_slice())?;
                Ok(())
            }),
            Some(found) => Err(corrupt("format", format!("it is {found}, this program reads {FORMAT}"))),
            None => Err(corrupt("format", "it is missing".to_owned())),
        }
    }

    fn meta<T: serde::de::DeserializeOwned>(&self, name: &'static str) -> Result<Option<T>, StoreError> {
        let value = |bytes: Vec<u8>| {
            let bytes = opened("meta", name.as_bytes(), &bytes)?;
            wire::from_bytes(bytes).map_err(|e| e.to_string())
        };
        self.meta_bytes(name)?.map(|bytes| value(bytes).map_err(|why| corrupt(name, why))).transpose()
    }

    fn meta_bytes(&self, name: &'static str) -> Result<Option<Vec<u8>>, StoreError> {
        self.read("read", |transaction| {
            Ok(transaction.open_table(META)?.get(name)?.map(|bytes| bytes.value().to_vec()))
        })
    }

    /// Reads in one transaction.
    fn read<T>(
        &self,
        verb: &str,
        body: impl FnOnce(&redb::ReadTransaction) -> Result<T, redb::Error>,
    ) -> Result<T, StoreError> {
        let result = quietly(|| {
            self.database.begin_read().map_err(redb::Error::from).and_then(|transaction| body(&transaction))
        });
        result.map_err(|e| self.failed(verb, e))
    }

    /// Writes in one transaction: all of it is durable when this returns, or none of it ever is.
    fn transact(
        &self,
        verb: &str,
        body: impl FnOnce(&WriteTransaction) -> Result<(), redb::Error>,
    ) -> Result<(), StoreError> {
        let result = quietly(|| {
            self.database.begin_write().map_err(redb::Error::from).and_then(|transaction| {
                body(&transaction)?;
                Ok(transaction.commit()?)
            })
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
        if writes.is_empty() {
            return Ok(());
        }
        let group = self.group + 1;
        let places = self.journal.write(writes).map_err(|e| self.failed("journal updates of", e))?;
        self.transact("write", |transaction| {
            writes.iter().zip(&places).try_for_each(|(write, place)| put(transaction, write, *place))?;
            put_meta(transaction, "group", &group)
        })?;
        self.journal.done(writes, &places);
        self.group = group;
        self.mark.as_mut().map_or(Ok(()), |mark| mark.set(group))
    }

    fn read_update(
        &self,
        round: Round,
        worker: &WorkerId,
        before_end: usize,
        bytes: &mut [u8],
    ) -> Result<(), StoreError> {
        let sealed = self.read("read", |transaction| {
            let place = transaction.open_table(UPDATES)?.get((round.0, &worker.0))?;
            Ok(place.map(|place| place.value().to_vec()))
        })?;
        let place = sealed.map(|sealed| record::place(round, worker, &sealed)).transpose();
        let place = place.map_err(|why| corrupt("journal", why))?;
        let skip = part_start(place.map(|place| place.bytes), worker, before_end, bytes.len())?;
        let read = place.map(|place| self.journal.read(place, skip, bytes)).transpose();
        read.map(|_| ()).map_err(|e| self.failed("read the journal of", e))
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
        let member = |(worker, bytes): (WorkerId, Vec<u8>)| {
            let bytes = opened("members", &worker.0, &bytes)?;
            Ok((worker, wire::from_bytes(bytes).map_err(|e| e.to_string())?))
        };
        let members: Result<_, String> = members.into_iter().map(member).collect();
        Ok(Registry::new(members.map_err(|why| corrupt("registry", why))?, tokens.into_iter().collect()))
    }

    fn ledger(&self) -> Result<Ledger, StoreError> {
        ledger::check(self.read("read", ledger::read)?).map_err(|why| corrupt("ledger", why))
    }

    fn load(&self, plan: &RunPlan) -> Result<Option<Stored>, StoreError> {
        let Some(next_round) = self.meta("next-round")? else { return Ok(None) };
        Claim::of(plan).check(self.meta("claim")?)?;
        let frame = |(round, _, place): (Round, WorkerId, Place)| Ok((round, self.journal.frame(place)?));
        let updates = self.places()?.into_iter().map(frame).collect::<io::Result<_>>();
        let updates = updates.map_err(|e| self.failed("read the journal of", e))?;
        let records = self.read("read", |transaction| record::Records::read(transaction, updates))?;
        let meta = record::Meta {
            next_round,
            version: self.meta("version")?,
            scales: self.meta("scales")?,
            last: self.meta("last")?,
        };
        Ok(Some(records.check(plan, meta)?))
    }
}

/// Puts one change; an update that is accepted has its frame at a place, unless the group forgets it as well.
fn put(transaction: &WriteTransaction, write: &Write, place: Option<Place>) -> Result<(), redb::Error> {
    match write {
        Write::Enroll { worker, member, token } => {
            put_member(transaction, worker, member)?;
            transaction.open_table(TOKENS)?.remove(&token.0)?;
            Ok(())
        }
        Write::Members(entries) => {
            entries.iter().try_for_each(|(worker, member)| put_member(transaction, worker, member))
        }
        Write::Open(open) => put_round(transaction, open),
        Write::Accept { round, worker, .. } => {
            if let Some(place) = place {
                let place = record::place_bytes(*round, worker, place);
                transaction.open_table(UPDATES)?.insert((round.0, &worker.0), place.as_slice())?;
            }
            Ok(())
        }
        Write::Abandon { round: ended } => {
            transaction.open_table(UPDATES)?.retain(|(round, _), _| round != ended.0)?;
            transaction.open_table(ROUNDS)?.remove(ended.0)?;
            Ok(())
        }
        Write::Commit(commit) => put_commit(transaction, commit),
        Write::Note(note) => ledger::put(transaction, note),
    }
}

fn put_member(transaction: &WriteTransaction, worker: &WorkerId, member: &Member) -> Result<(), redb::Error> {
    let member = sealed("members", &worker.0, &wire::to_bytes(member));
    transaction.open_table(MEMBERS)?.insert(&worker.0, member.as_slice())?;
    Ok(())
}

fn put_meta<T: serde::Serialize>(transaction: &WriteTransaction, name: &str, value: &T) -> Result<(), redb::Error> {
    put_sealed(transaction, name, &wire::to_bytes(value))
}

fn put_sealed(transaction: &WriteTransaction, name: &str, bytes: &[u8]) -> Result<(), redb::Error> {
    transaction.open_table(META)?.insert(name, sealed("meta", name.as_bytes(), bytes).as_slice())?;
    Ok(())
}

/// A round's numbers are never used again, so the latest one says which is next.
fn put_round(transaction: &WriteTransaction, open: &OpenRound) -> Result<(), redb::Error> {
    transaction.open_table(ROUNDS)?.insert(open.round.0, record::round_bytes(open).as_slice())?;
    let next = open.round.next();
    let latest = transaction.open_table(META)?.get("next-round")?.and_then(|bytes| {
        opened("meta", b"next-round", bytes.value()).ok().and_then(|bytes| wire::from_bytes::<Round>(bytes).ok())
    });
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
        rounds.insert(open.round.0, record::round_bytes(open).as_slice())?;
    }
    put_meta(transaction, "scales", &commit.scales)?;
    put_meta(transaction, "last", &commit.summary)?;
    put_meta(transaction, "version", &commit.head.version)?;
    planes::put(transaction, &commit.head)?;
    let version = commit.head.version;
    let mut steps = transaction.open_table(STEPS)?;
    for (part, step) in (0..).zip(commit.head.past.back().into_iter().flatten()) {
        steps.insert((version, part), record::step_bytes(version, part, step).as_slice())?;
    }
    let kept = version.saturating_sub(commit.head.past.len() as u64);
    steps.retain_in(..=(kept, u32::MAX), |_, _| false)?;
    Ok(())
}

fn engine(doing: String, why: impl std::fmt::Display) -> StoreError {
    StoreError::Engine { doing, why: why.to_string() }
}

fn corrupt(what: &'static str, why: String) -> StoreError {
    StoreError::Corrupt { what, why }
}

/// A smaller file is left as it is.
const TIDY_BYTES_MIN: u64 = 16 << 20;
/// What errors call a store that is in no file of the machine.
const NO_FILE: &str = "on a disk of its own";

#[cfg(test)]
pub(crate) mod tests;
