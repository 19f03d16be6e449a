//! Where the coordinator keeps its run, through crashes: a store of either kind, and what a power cut leaves of it.

use packfed_codec::{Seed, Stream};
use packfed_coordinator::event::Write;
use packfed_coordinator::memory_store::MemoryStore;
use packfed_coordinator::redb_store::RedbStore;
use packfed_coordinator::registry::Registry;
use packfed_coordinator::store::{Store, StoreError};

use super::forgetful::Forgetful;
use super::scenario::StoreKind;

/// See the module.
pub struct Disk {
    kind: Kind,
    stream: Stream,
    refused_write: f64,
    forgotten: usize,
}

#[derive(Debug)]
enum Kind {
    Memory(Box<MemoryStore>),
    Redb { disk: Forgetful, store: Option<RedbStore> },
}

/// Most operations of a disk between the moment that the power is to go and the moment that it goes: about two
/// transactions.
const OPERATIONS_MAX: u64 = 30;

impl Disk {
    /// A disk with a new store that knows these workers.
    ///
    /// # Errors
    /// If the store cannot be made.
    pub fn new(kind: StoreKind, registry: &Registry, seed: &Seed, refused_write: f64) -> Result<Self, StoreError> {
        let kind = match kind {
            StoreKind::Memory => Kind::Memory(Box::new(MemoryStore::new(registry.clone()))),
            StoreKind::Redb => {
                let disk = Forgetful::default();
                Kind::Redb { store: Some(RedbStore::create_on(disk.clone(), disk.other(), registry)?), disk }
            }
        };
        Ok(Self { kind, stream: seed.derive("packfed/chaos/disk/1", &[]).stream(), refused_write, forgotten: 0 })
    }

    /// From here on no write is refused, and the power stays.
    pub fn calm_down(&mut self) {
        self.refused_write = 0.0;
        match &self.kind {
            Kind::Memory(_) => {}
            Kind::Redb { disk, .. } => disk.keep_power(),
        }
    }

    /// From here on every sync is said to be done, and is not.
    pub fn lie(&self) {
        match &self.kind {
            Kind::Memory(_) => {}
            Kind::Redb { disk, .. } => disk.lie(),
        }
    }

    /// Unsynced sectors that power cuts have taken.
    #[must_use]
    pub const fn forgotten(&self) -> usize {
        self.forgotten
    }

    /// Makes changes durable, all of them or none.
    ///
    /// # Errors
    /// If the disk is full, or the power goes.
    pub fn write_all(&mut self, writes: &[Write]) -> Result<(), StoreError> {
        if self.refused_write > 0.0 && self.stream.unit() < self.refused_write {
            return Err(StoreError::Engine { doing: "write store".to_owned(), why: "the disk is full".to_owned() });
        }
        self.store()?.write_all(writes)
    }

    /// Lets the power go during one of the next operations, where the store has operations to speak of.
    pub fn fail_soon(&mut self) {
        match &self.kind {
            Kind::Memory(_) => {}
            Kind::Redb { disk, .. } => disk.fail_after(self.stream.below(OPERATIONS_MAX)),
        }
    }

    /// Whether the power went during an operation.
    #[must_use]
    pub fn has_no_power(&self) -> bool {
        match &self.kind {
            Kind::Memory(_) => false,
            Kind::Redb { disk, .. } => disk.has_no_power(),
        }
    }

    /// The process that had the store is gone, and what was not synced with it.
    pub fn power_cut(&mut self) {
        match &mut self.kind {
            Kind::Memory(_) => {}
            Kind::Redb { disk, store } => {
                let (after, forgotten) = disk.power_cut(&mut self.stream);
                *store = None;
                *disk = after;
                self.forgotten += forgotten;
            }
        }
    }

    /// The store, opened if it is not open.
    ///
    /// # Errors
    /// If it cannot be opened.
    pub fn store(&mut self) -> Result<&mut dyn Store, StoreError> {
        match &mut self.kind {
            Kind::Memory(store) => Ok(store.as_mut()),
            Kind::Redb { disk, store } => {
                let opened = match store.take() {
                    Some(open) => open,
                    None => RedbStore::open_on(disk.clone(), disk.other())?,
                };
                Ok(store.insert(opened))
            }
        }
    }
}
