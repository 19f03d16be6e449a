//! A store that forgets everything with its process: for simulations and tests.
//!
//! It keeps the same things as the file does and refuses the same things; it has no bytes to misread.

use std::collections::BTreeMap;

use packfed_protocol::{Round, WorkerId};

use crate::event::{Commit, OpenRound, Stored, Write};
use crate::head::{Head, HeadRecord};
use crate::ledger::{Ledger, Note};
use crate::plan::RunPlan;
use crate::registry::Registry;
use crate::scaling::wire_scales;
use crate::store::{Claim, Store, StoreError, part_start};

/// A run in memory. A clone is what a restart would find.
#[derive(Clone, Debug, Default)]
pub struct MemoryStore {
    registry: Registry,
    claim: Option<Claim>,
    next_round: Option<Round>,
    open: BTreeMap<Round, OpenRound>,
    journal: BTreeMap<(Round, WorkerId), Vec<u8>>,
    committed: Option<Commit>,
    ledger: Ledger,
}

impl MemoryStore {
    /// An empty store that knows these workers and tokens.
    #[must_use]
    pub fn new(registry: Registry) -> Self {
        Self { registry, ..Self::default() }
    }

    fn put(&mut self, write: &Write) {
        match write {
            Write::Enroll { worker, member, token } => {
                self.registry.admit(*worker, member.clone(), token);
            }
            Write::Members(entries) => {
                entries.iter().for_each(|(worker, member)| self.registry.put(*worker, member.clone()));
            }
            Write::Open(open) => self.open_round(open),
            Write::Accept { round, worker, frame } => {
                self.journal.insert((*round, *worker), frame.to_vec());
            }
            Write::Abandon { round } => self.abandon(*round),
            Write::Commit(commit) => self.commit(commit),
            Write::Note(note) => self.note(note),
        }
    }

    fn note(&mut self, note: &Note) {
        if let Note::Tokens(tokens) = note {
            self.registry.expect_tokens(tokens);
        }
        self.ledger.note(note);
    }

    fn open_round(&mut self, open: &OpenRound) {
        self.next_round = self.next_round.max(Some(open.round.next()));
        self.open.insert(open.round, open.clone());
    }

    fn abandon(&mut self, ended: Round) {
        self.journal.retain(|(round, _), _| *round != ended);
        self.open.remove(&ended);
    }

    fn commit(&mut self, commit: &Commit) {
        self.journal.clear();
        self.open = commit.open.iter().map(|open| (open.round, open.clone())).collect();
        self.committed = Some(commit.clone());
    }
}

impl Store for MemoryStore {
    fn claim(&mut self, plan: &RunPlan) -> Result<(), StoreError> {
        if self.next_round.is_some() {
            return Claim::of(plan).check(self.claim);
        }
        self.claim = Some(Claim::of(plan));
        Ok(())
    }

    fn write_all(&mut self, writes: &[Write]) -> Result<(), StoreError> {
        writes.iter().for_each(|write| self.put(write));
        Ok(())
    }

    fn read_update(
        &self,
        round: Round,
        worker: &WorkerId,
        before_end: usize,
        bytes: &mut [u8],
    ) -> Result<(), StoreError> {
        let frame = self.journal.get(&(round, *worker)).map(Vec::as_slice);
        let start = part_start(frame.map(|frame| frame.len() as u64), worker, before_end, bytes.len())?;
        let start = usize::try_from(start).unwrap_or(usize::MAX);
        let part = frame.and_then(|frame| frame.get(start..start + bytes.len()));
        bytes.copy_from_slice(part.expect("the part was checked to be in the frame"));
        Ok(())
    }

    fn registry(&self) -> Result<Registry, StoreError> {
        Ok(self.registry.clone())
    }

    fn ledger(&self) -> Result<Ledger, StoreError> {
        Ok(self.ledger.clone())
    }

    fn load(&self, plan: &RunPlan) -> Result<Option<Stored>, StoreError> {
        let Some(next_round) = self.next_round else { return Ok(None) };
        Claim::of(plan).check(self.claim)?;
        let (head, scales, last) = match &self.committed {
            Some(commit) => (commit.head.clone(), commit.scales.clone(), Some(commit.summary)),
            None => (first_head(plan), wire_scales(&plan.first_scales()), None),
        };
        let frames = |of: Round| {
            let own = self.journal.iter().filter(|((round, _), _)| *round == of);
            own.map(|(_, frame)| frame.clone()).collect()
        };
        let open = self.open.values().map(|open| (open.clone(), frames(open.round))).collect();
        Ok(Some(Stored { head, scales, next_round, open, last }))
    }
}

/// The head before the first commit.
pub(crate) fn first_head(plan: &RunPlan) -> HeadRecord {
    Head::new(plan.head(), plan.layout().clone()).record().clone()
}
