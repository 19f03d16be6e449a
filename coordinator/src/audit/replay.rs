//! Runs the engine over a log again: the same events at the same moments, over the store that it began with.
//!
//! A process that began anew is an engine that was resumed from the store; so it is here. What the log says
//! of a group that the next process did not find in the store never was.

use std::collections::VecDeque;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use packfed_protocol::{Digest, Timestamp};
use redb::StorageBackend;
use redb::backends::InMemoryBackend;
use serde::Serialize;
use thiserror::Error;

use super::log::replayable_from;
use super::reader::{Entries, Located};
use super::segment::{base_path, numbers};
use super::{AuditError, Entry};
use crate::aggregation::AggregationTask;
use crate::engine::Engine;
use crate::event::{Effect, Event, Write};
use crate::plan::RunPlan;
use crate::redb_store::RedbStore;
use crate::resume::{ResumeError, resume};
use crate::store::{Store, StoreError};

/// What a replay came to.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Replayed {
    /// Entries that were read.
    pub entries: u64,
    /// Times that a process took the run up.
    pub begun: u64,
    /// Things that the engine was told.
    pub events: u64,
    /// Updates among them.
    pub updates: u64,
    /// Groups of writes that the engine asked for again.
    pub groups: u64,
    /// Groups that a crash took back before they were stored.
    pub taken_back: u64,
    /// The version that the engine came to.
    pub version: u64,
    /// Digest of that version.
    pub digest: Digest,
}

/// Why a log does not lead to where it says.
#[derive(Debug, Error)]
pub enum ReplayError {
    /// The log cannot be read.
    #[error(transparent)]
    Audit(#[from] AuditError),
    /// The base cannot be read.
    #[error("the log's base: {0}")]
    Store(#[from] StoreError),
    /// The run cannot be taken up where a process took it up.
    #[error(transparent)]
    Resume(#[from] ResumeError),
    /// No base is left that every later segment follows.
    #[error("{} has lost the segments that its base was followed by; the next start of `serve` begins a new base", folder.display())]
    NoBase {
        /// The log.
        folder: PathBuf,
    },
    /// The engine does otherwise than the log says.
    #[error("{} at byte {offset}: {why}", path.display())]
    Diverged {
        /// Which file.
        path: PathBuf,
        /// Where the entry begins.
        offset: u64,
        /// What the log says, and what the engine does.
        why: String,
    },
}

/// Replays all of a log that can be replayed; `seen` is shown every entry.
///
/// # Errors
/// If a byte of the log is not as it was written, or the engine comes to another model.
pub fn replay(plan: &Arc<RunPlan>, folder: &Path, mut seen: impl FnMut(&Located)) -> Result<Replayed, ReplayError> {
    let numbers = numbers(folder)?;
    if numbers.is_empty() {
        return Err(AuditError::Empty { folder: folder.to_owned() }.into());
    }
    let Some(first) = replayable_from(folder, &numbers) else {
        return Err(ReplayError::NoBase { folder: folder.to_owned() });
    };
    let mut replay = Replay::over(Arc::clone(plan), base(&base_path(folder, numbers[first]))?);
    for located in Entries::of(folder, numbers[first..].to_vec()) {
        let located = located?;
        seen(&located);
        replay.take(located)?;
    }
    replay.end()
}

/// The store that a log began with, in memory.
fn base(path: &Path) -> Result<RedbStore, ReplayError> {
    Ok(RedbStore::open_on(in_memory(path)?, in_memory(&RedbStore::journal_path(path))?)?)
}

fn in_memory(path: &Path) -> Result<InMemoryBackend, AuditError> {
    let bytes = fs::read(path).map_err(AuditError::io("read", path))?;
    let backend = InMemoryBackend::new();
    let fill = backend.set_len(bytes.len() as u64).and_then(|()| backend.write(0, &bytes));
    fill.map_err(AuditError::io("load", path))?;
    Ok(backend)
}

struct Replay {
    plan: Arc<RunPlan>,
    store: RedbStore,
    engine: Option<Engine>,
    /// What the engine has asked for since the last group.
    asked: Vec<Write>,
    /// Aggregations that the engine has asked for and was not told of.
    tasks: VecDeque<Box<AggregationTask>>,
    /// A group that was logged; what comes next tells whether it was stored.
    logged: Option<(u64, Vec<Write>)>,
    counts: Replayed,
}

impl Replay {
    fn over(plan: Arc<RunPlan>, store: RedbStore) -> Self {
        let counts = Replayed {
            entries: 0,
            begun: 0,
            events: 0,
            updates: 0,
            groups: 0,
            taken_back: 0,
            version: 0,
            digest: Digest([0; 32]),
        };
        Self { plan, store, engine: None, asked: Vec::new(), tasks: VecDeque::new(), logged: None, counts }
    }

    fn take(&mut self, located: Located) -> Result<(), ReplayError> {
        let Located { path, offset, at, entry } = located;
        let diverged = |why: String| ReplayError::Diverged { path: path.clone(), offset, why };
        self.counts.entries += 1;
        self.settle(match &entry {
            Entry::Begin { group, .. } => *group,
            Entry::Group { .. } | Entry::End { .. } | Entry::Told(_) | Entry::Aggregated { .. } => u64::MAX,
        })?;
        match entry {
            Entry::Begin { run, group } => {
                if run != self.plan.raw().run {
                    return Err(diverged(format!("the log is of run {run}, the plan is run {}", self.plan.raw().run)));
                }
                self.is_at(group).map_err(diverged)?;
                self.asked.clear();
                self.tasks.clear();
                self.engine = Some(resume(Arc::clone(&self.plan), &self.store, at)?);
                self.counts.begun += 1;
            }
            Entry::Group { group, version, digest } => {
                let engine = self.engine.as_ref().ok_or_else(|| diverged(UNBEGUN.to_owned()))?;
                let found = (engine.head().version(), Digest(engine.head().digest().0));
                if found != (version, digest) || self.asked.is_empty() {
                    let (found, model, asked) = (found.0, found.1, self.asked.len());
                    return Err(diverged(format!(
                        "the log says version {version}, digest {digest}; the engine has version {found}, digest {model}, and asked for {asked} writes"
                    )));
                }
                self.logged = Some((group, std::mem::take(&mut self.asked)));
            }
            Entry::End { group } => self.is_at(group).map_err(diverged)?,
            Entry::Told(event) => {
                self.counts.events += 1;
                self.counts.updates += u64::from(matches!(*event, Event::Update { .. }));
                self.tell(*event, at).ok_or_else(|| diverged(UNBEGUN.to_owned()))?;
            }
            Entry::Aggregated { round } => {
                let task = self.tasks.pop_front().filter(|task| task.round == round);
                let task =
                    task.ok_or_else(|| diverged(format!("the engine asked for no aggregation of {}", round.0)))?;
                self.counts.events += 1;
                self.tell(task.answer(&self.store), at).ok_or_else(|| diverged(UNBEGUN.to_owned()))?;
            }
        }
        Ok(())
    }

    /// Tells the engine, if there is one yet.
    fn tell(&mut self, event: Event, at: Timestamp) -> Option<()> {
        for effect in self.engine.as_mut()?.handle(event, at) {
            match effect {
                Effect::Store(write) => self.asked.push(write),
                Effect::Aggregate(task) => self.tasks.push_back(task),
                Effect::Send { .. }
                | Effect::Verdict { .. }
                | Effect::Ordered { .. }
                | Effect::Offer { .. }
                | Effect::Wake(_) => {}
            }
        }
        Some(())
    }

    /// Stores a logged group, unless the store is known to have held less.
    fn settle(&mut self, held: u64) -> Result<(), StoreError> {
        match self.logged.take() {
            Some((group, writes)) if group <= held => {
                self.store.write_all(&writes)?;
                self.counts.groups += 1;
            }
            Some(_) => self.counts.taken_back += 1,
            None => {}
        }
        Ok(())
    }

    fn is_at(&self, group: u64) -> Result<(), String> {
        let found = self.store.group();
        let why = || format!("the log says that the store held write {group}, by its events it holds {found}");
        (found == group).then_some(()).ok_or_else(why)
    }

    fn end(mut self) -> Result<Replayed, ReplayError> {
        self.settle(u64::MAX)?;
        let engine = match self.engine {
            Some(engine) if self.asked.is_empty() => engine,
            // What was asked for and not logged as a group was never stored.
            _ => resume(Arc::clone(&self.plan), &self.store, Timestamp(0))?,
        };
        Ok(Replayed { version: engine.head().version(), digest: Digest(engine.head().digest().0), ..self.counts })
    }
}

const UNBEGUN: &str = "no process has begun before this entry";
