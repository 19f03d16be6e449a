//! The image of a store with bytes of it changed: the store is refused, or what it holds is what was stored.

use std::io;
use std::sync::{Arc, LazyLock};

use packfed_coordinator::event::Stored;
use packfed_coordinator::redb_store::RedbStore;
use packfed_coordinator::registry::Registry;
use packfed_coordinator::resume::resume;
use packfed_coordinator::store::{Store, StoreError};
use packfed_protocol::Timestamp;
use redb::StorageBackend;
use redb::backends::InMemoryBackend;

use super::events::{Play, plan, registry, samples as sequences};

/// Bytes of one change: where, and what stands there then.
const PATCH_BYTES: usize = 4;
/// Changes of an image; the rest is ignored.
const PATCHES_MAX: usize = 64;

/// A disk in memory that outlives the database on it.
#[derive(Clone, Debug)]
struct Disk(Arc<InMemoryBackend>);

impl StorageBackend for Disk {
    fn len(&self) -> io::Result<u64> {
        self.0.len()
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        self.0.read(offset, out)
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        self.0.set_len(len)
    }

    fn sync_data(&self) -> io::Result<()> {
        self.0.sync_data()
    }

    fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        self.0.write(offset, data)
    }
}

/// A store in the middle of its second round: its bytes, and what it holds.
struct Image {
    bytes: Vec<u8>,
    held: (Registry, Option<Stored>),
}

static IMAGE: LazyLock<Image> = LazyLock::new(|| {
    let disk = Disk(Arc::new(InMemoryBackend::new()));
    let mut play = Play::new(RedbStore::create_on(disk.clone(), &registry()).expect("memory takes a store"));
    let twice = &sequences()[0];
    let (steps, _) = twice[..twice.len() - 6].as_chunks();
    steps.iter().for_each(|step| play.step(*step));
    let held = held(&play.store).expect("it was stored a moment ago");
    drop(play);
    let mut bytes = vec![0; usize::try_from(disk.len().expect("memory has a length")).expect("a small store")];
    disk.read(0, &mut bytes).expect("all of it is there");
    Image { bytes, held }
});

fn held(store: &RedbStore) -> Result<(Registry, Option<Stored>), StoreError> {
    Ok((store.registry()?, store.load(&plan())?))
}

/// `RedbStore::open_on`, `registry`, `load` and `resume`: `[place u24][byte]` again and again. Accepted is what is
/// taken up.
pub fn image(input: &[u8]) -> bool {
    let disk = Disk(Arc::new(InMemoryBackend::new()));
    disk.set_len(IMAGE.bytes.len() as u64).and_then(|()| disk.write(0, &IMAGE.bytes)).expect("memory takes it");
    for &[a, b, c, byte] in input.as_chunks::<PATCH_BYTES>().0.iter().take(PATCHES_MAX) {
        let place = u64::from(u32::from_le_bytes([a, b, c, 0])) % IMAGE.bytes.len() as u64;
        disk.write(place, &[byte]).expect("memory takes it");
    }
    let found = RedbStore::open_on(disk).and_then(|store| {
        let held = held(&store)?;
        Ok((held, resume(plan(), &store, Timestamp(0)).map_err(|error| error.to_string())))
    });
    match found {
        Ok((held, engine)) => {
            assert_eq!(held, IMAGE.held, "never a wrong model");
            assert_eq!(engine.map(|engine| engine.head().version()), Ok(1));
            true
        }
        Err(error) => {
            assert!(!error.to_string().is_empty());
            false
        }
    }
}

/// The image as it is, and with a change to its last byte, which no page uses.
pub fn samples() -> Vec<Vec<u8>> {
    let last = u32::try_from(IMAGE.bytes.len() - 1).expect("a small store").to_le_bytes();
    vec![Vec::new(), vec![last[0], last[1], last[2], 1]]
}
