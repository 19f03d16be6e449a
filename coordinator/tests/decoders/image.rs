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

/// A store in the middle of its second round: the bytes of its file and its journal, and what it holds.
struct Image {
    files: [Vec<u8>; 2],
    held: (Registry, Option<Stored>),
}

static IMAGE: LazyLock<Image> = LazyLock::new(|| {
    let disks = [(); 2].map(|()| Disk(Arc::new(InMemoryBackend::new())));
    let [file, journal] = disks.clone();
    let mut play = Play::new(RedbStore::create_on(file, journal, &registry()).expect("memory takes a store"));
    let twice = &sequences()[0];
    let (steps, _) = twice[..twice.len() - 6].as_chunks();
    steps.iter().for_each(|step| play.step(*step));
    let held = held(&play.store).expect("it was stored a moment ago");
    drop(play);
    let files = disks.map(|disk| {
        let mut bytes = vec![0; usize::try_from(disk.len().expect("memory has a length")).expect("a small store")];
        disk.read(0, &mut bytes).expect("all of it is there");
        bytes
    });
    Image { files, held }
});

fn held(store: &RedbStore) -> Result<(Registry, Option<Stored>), StoreError> {
    Ok((store.registry()?, store.load(&plan())?))
}

/// `RedbStore::open_on`, `registry`, `load` and `resume`: `[place u24][byte]` again and again; the journal's places lie
/// behind the file's. Accepted is what is taken up.
pub fn image(input: &[u8]) -> bool {
    let [file, journal] = IMAGE.files.each_ref().map(|bytes| {
        let disk = Disk(Arc::new(InMemoryBackend::new()));
        disk.set_len(bytes.len() as u64).and_then(|()| disk.write(0, bytes)).expect("memory takes it");
        disk
    });
    let [length, journal_length] = IMAGE.files.each_ref().map(|bytes| bytes.len() as u64);
    for &[a, b, c, byte] in input.as_chunks::<PATCH_BYTES>().0.iter().take(PATCHES_MAX) {
        let place = u64::from(u32::from_le_bytes([a, b, c, 0])) % (length + journal_length);
        let (disk, place) = if place < length { (&file, place) } else { (&journal, place - length) };
        disk.write(place, &[byte]).expect("memory takes it");
    }
    let found = RedbStore::open_on(file, journal).and_then(|store| {
        let held = held(&store)?;
        Ok((held, resume(plan(), &store, Timestamp(0)).map_err(|error| error.to_string())))
    });
    match found {
        Ok((held, Ok(engine))) => {
            assert_eq!(held, IMAGE.held, "never a wrong model");
            assert_eq!(engine.head().version(), 1);
            true
        }
        // A frame of the journal is judged by its signature, when the engine takes it up.
        Ok((_, Err(error))) => {
            assert!(!error.is_empty());
            false
        }
        Err(error) => {
            assert!(!error.to_string().is_empty());
            false
        }
    }
}

/// The image as it is, and with a change to the last byte of the file and of the journal, which nothing uses.
pub fn samples() -> Vec<Vec<u8>> {
    let length = IMAGE.files[0].len();
    let change = |place: usize| {
        let [a, b, c, _] = u32::try_from(place).expect("a small store").to_le_bytes();
        vec![a, b, c, 1]
    };
    vec![Vec::new(), change(length - 1), change(length + IMAGE.files[1].len() - 1)]
}
