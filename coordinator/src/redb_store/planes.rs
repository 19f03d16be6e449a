//! The head's numbers as they lie in the file: in planes, so that a commit writes what it changed.
//!
//! A commit moves the lanes of one window: the same few lane indices of every block. A plane is one lane
//! index of [`CHUNK_BLOCKS`] consecutive blocks, for one kind of number; a plane whose seal is already in
//! the file is not written again.
//!
//! ```text
//!              lane 0   1   2   3   4  …           kinds: state (i32), lost (f64),
//!   block 0   │ x     │ y │ c₀│ c₁│ c₂│ …                 memory 0, 1 … (f64)
//!   block 1   │ x     │ y │ c₀│ c₁│ c₂│ …
//!     ⋮          ▲                                 one record: a column of one chunk of blocks
//! ```
//!
//! It knows no rounds, windows or versions: which planes changed is seen from their bytes.

use std::collections::BTreeMap;

use packfed_codec::Layout;
use packfed_protocol::Digest;
use redb::{ReadableTable, TableDefinition, WriteTransaction};

use super::corrupt;
use super::seal::seal;
use crate::head::HeadRecord;
use crate::store::StoreError;

const PLANES: TableDefinition<Key, &[u8]> = TableDefinition::new("planes");
/// Of every plane; beside them, so that an unchanged plane is known without being read.
const SEALS: TableDefinition<Key, &[u8; 32]> = TableDefinition::new("seals");

/// Kind, lane index within a block, and number of the chunk of blocks.
type Key = (u8, u32, u32);

/// Blocks of one plane: a record of lanes is 32 KiB, one of floats 64 KiB.
const CHUNK_BLOCKS: usize = 8192;

const STATE: u8 = 0;
const LOST: u8 = 1;
/// The first number of a lane that the server optimizer remembers; the next kind is its second.
const MEMORY: u8 = 2;

/// Where one chunk of blocks has its lanes in the state.
struct Chunk {
    number: u32,
    /// First lane and number of lanes of each block.
    blocks: Vec<(usize, usize)>,
}

impl Chunk {
    fn all(layout: &Layout) -> Vec<Self> {
        let of_layer = |layer: &packfed_codec::Layer| {
            let first = layer.lanes().start;
            layer.blocks().iter().map(move |b| (first + b.lane, b.lanes().len())).collect::<Vec<_>>()
        };
        let blocks: Vec<_> = layout.layers().iter().flat_map(of_layer).collect();
        let chunk = |(number, blocks): (u32, &[(usize, usize)])| Self { number, blocks: blocks.to_vec() };
        (0..).zip(blocks.chunks(CHUNK_BLOCKS)).map(chunk).collect()
    }

    /// Lane indices that any of the blocks has.
    fn planes(&self) -> u32 {
        let most = self.blocks.iter().map(|(_, lanes)| *lanes).max().unwrap_or(0);
        u32::try_from(most).unwrap_or(u32::MAX)
    }

    /// The lanes of one plane, in the order of the blocks.
    fn lanes(&self, plane: u32) -> impl Iterator<Item = usize> {
        let plane = plane as usize;
        self.blocks.iter().filter(move |(_, lanes)| plane < *lanes).map(move |(first, _)| first + plane)
    }
}

/// Writes the planes that the file does not have yet; returns their bytes.
pub(super) fn put(transaction: &WriteTransaction, head: &HeadRecord) -> Result<u64, redb::Error> {
    let mut planes = transaction.open_table(PLANES)?;
    let mut seals = transaction.open_table(SEALS)?;
    let layout = head.state.layout();
    let memory = head.memory.len() / layout.lanes().max(1);
    let mut written = 0;
    for chunk in Chunk::all(layout) {
        for plane in 0..chunk.planes() {
            let mut put = |kind, bytes: Vec<u8>| -> Result<(), redb::Error> {
                let key = (kind, plane, chunk.number);
                let seal = seal_of(key, &bytes);
                if seals.get(key)?.is_some_and(|found| found.value() == &seal.0) {
                    return Ok(());
                }
                written += bytes.len() as u64;
                planes.insert(key, bytes.as_slice())?;
                seals.insert(key, &seal.0)?;
                Ok(())
            };
            put(STATE, chunk.lanes(plane).flat_map(|lane| head.state.lanes()[lane].to_le_bytes()).collect())?;
            put(LOST, chunk.lanes(plane).flat_map(|lane| head.lost[lane].to_le_bytes()).collect())?;
            for (kind, number) in (MEMORY..).zip(0..memory) {
                let of = |lane: usize| head.memory[lane * memory + number].to_le_bytes();
                put(kind, chunk.lanes(plane).flat_map(of).collect())?;
            }
        }
    }
    Ok(written)
}

/// Makes the tables, so that a read finds them.
pub(super) fn create(transaction: &WriteTransaction) -> Result<(), redb::Error> {
    transaction.open_table(PLANES)?;
    transaction.open_table(SEALS)?;
    Ok(())
}

/// What one read transaction saw of the planes, unchecked.
pub(super) struct Planes(Found);

/// Each plane with its seal, if that is there.
type Found = BTreeMap<Key, (Vec<u8>, Option<Digest>)>;

/// The head's numbers, checked.
#[derive(Debug)]
pub(super) struct Numbers {
    pub(super) state: Vec<u8>,
    pub(super) lost: Vec<f64>,
    pub(super) memory: Vec<f64>,
}

impl Planes {
    pub(super) fn read(transaction: &redb::ReadTransaction) -> Result<Self, redb::Error> {
        let seals = transaction.open_table(SEALS)?;
        let mut planes = BTreeMap::new();
        for entry in transaction.open_table(PLANES)?.iter()? {
            let (key, bytes) = entry?;
            let seal = seals.get(key.value())?.map(|seal| Digest(*seal.value()));
            planes.insert(key.value(), (bytes.value().to_vec(), seal));
        }
        Ok(Self(planes))
    }

    /// Puts the numbers back in lane order. Every plane has to be there, whole, and as it was written.
    pub(super) fn numbers(mut self, layout: &Layout, memory: usize) -> Result<Numbers, StoreError> {
        let lanes = layout.lanes();
        let mut numbers =
            Numbers { state: vec![0; 4 * lanes], lost: vec![0.0; lanes], memory: vec![0.0; memory * lanes] };
        for chunk in Chunk::all(layout) {
            for plane in 0..chunk.planes() {
                let at = |kind| (kind, plane, chunk.number);
                self.scatter(at(STATE), chunk.lanes(plane), |lane, value: [u8; 4]| {
                    numbers.state[4 * lane..4 * lane + 4].copy_from_slice(&value);
                })?;
                self.scatter(at(LOST), chunk.lanes(plane), |lane, value| {
                    numbers.lost[lane] = f64::from_le_bytes(value);
                })?;
                for (kind, number) in (MEMORY..).zip(0..memory) {
                    self.scatter(at(kind), chunk.lanes(plane), |lane, value| {
                        numbers.memory[lane * memory + number] = f64::from_le_bytes(value);
                    })?;
                }
            }
        }
        match self.0.first_key_value() {
            Some((&key, _)) => Err(corrupt(what(key), format!("{} is no plane of this model", named(key)))),
            None => Ok(numbers),
        }
    }

    fn scatter<const N: usize>(
        &mut self,
        key: Key,
        lanes: impl Iterator<Item = usize>,
        mut put: impl FnMut(usize, [u8; N]),
    ) -> Result<(), StoreError> {
        let wrong = |why: String| corrupt(what(key), format!("{} {why}", named(key)));
        let (bytes, seal) = self.0.remove(&key).ok_or_else(|| wrong("is missing".to_owned()))?;
        if seal != Some(seal_of(key, &bytes)) {
            return Err(wrong("is not as it was written".to_owned()));
        }
        let (values, rest) = bytes.as_chunks();
        let lanes: Vec<usize> = lanes.collect();
        if values.len() != lanes.len() || !rest.is_empty() {
            return Err(wrong(format!("has {} bytes for {} numbers of {N}", bytes.len(), lanes.len())));
        }
        lanes.into_iter().zip(values).for_each(|(lane, value)| put(lane, *value));
        Ok(())
    }
}

fn seal_of((kind, plane, chunk): Key, bytes: &[u8]) -> Digest {
    let name = [[kind].as_slice(), &plane.to_le_bytes(), &chunk.to_le_bytes()].concat();
    seal("planes", &name, bytes)
}

fn what((kind, ..): Key) -> &'static str {
    match kind {
        STATE => "state",
        LOST => "encoding residual",
        _ => "server-optimizer memory",
    }
}

fn named((kind, plane, chunk): Key) -> String {
    format!("plane {plane} of chunk {chunk} (kind {kind})")
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use packfed_codec::{Encoder, LayerSpec, Profile, Scales, Seed, Tally};
    use redb::ReadableDatabase;
    use redb::backends::InMemoryBackend;

    use super::*;
    use crate::head::{Head, HeadPlan};
    use crate::mean::{Mean, Part};
    use crate::optimizer::ServerOptimizer;
    use crate::staleness::FRESH;

    const SCALES: Scales = Scales { wave: -12, residual: -7 };

    /// Blocks with 38 and 6 residual lanes, so that they have different planes; two chunks.
    fn layout() -> Arc<Layout> {
        let layer = |name: &str, rows, block, residual| LayerSpec {
            name: name.into(),
            rows,
            cols: 64,
            block,
            residual,
            gain_exponent: 4,
        };
        Arc::new(Layout::new(&Seed::from_number(1), vec![layer("a", 64, 8, 38), layer("b", 4100, 4, 6)]).unwrap())
    }

    fn commit(head: &mut Head, turn: u32) {
        let layout = head.state().layout().clone();
        let mut tally = Tally::new(&layout, Profile::Plain);
        let mut stream = Seed::from_number(turn.into()).stream();
        let values: Vec<f64> = (0..layout.blocks() * 14).map(|_| stream.unit() - 0.4).collect();
        let scales = [SCALES; 2];
        let words = Encoder::new(&layout, Profile::Plain, turn, &scales).unwrap().nearest(&values).unwrap().words;
        tally.add(&words, 3).unwrap();
        let part = Part { tally: &tally, turn, scales: &scales, factor: FRESH };
        head.commit(&Mean::of(&layout, Profile::Plain, &[part]).unwrap()).unwrap();
    }

    #[test]
    fn a_commit_writes_the_planes_of_its_window_and_all_numbers_come_back() {
        let optimizer = ServerOptimizer::FedAdam { rate: 0.1, beta1: 0.9, beta2: 0.99, tau: 1e-3 };
        let plan = HeadPlan { profile: Profile::Plain, optimizer, levels: 2.0, history: 3 };
        let mut head = Head::new(plan, layout());
        assert!(layout().blocks() > CHUNK_BLOCKS);
        let database = redb::Database::builder().create_with_backend(InMemoryBackend::new()).unwrap();
        let mut written = Vec::new();
        for turn in 0..3 {
            commit(&mut head, turn);
            let transaction = database.begin_write().unwrap();
            written.push(put(&transaction, head.record()).unwrap());
            assert_eq!(put(&transaction, head.record()).unwrap(), 0, "what is there is not written again");
            transaction.commit().unwrap();
            let planes = Planes::read(&database.begin_read().unwrap()).unwrap();
            let numbers = planes.numbers(&layout(), 2).unwrap();
            assert_eq!(numbers.state, head.state().to_bytes());
            assert_eq!((&numbers.lost, &numbers.memory), (&head.record().lost, &head.record().memory));
        }
        let whole = head.state().layout().lanes() as u64 * (4 + 8 + 16);
        assert_eq!(written[0], whole, "at first everything is");
        // The small blocks are in every window; of the large ones 14 of 40 lanes are.
        let large = 64 * (4 + 8 + 16);
        assert!(written[1] <= whole - 20 * large, "{written:?} of {whole}");
    }

    #[test]
    fn a_plane_that_is_missing_moved_or_too_many_is_named() {
        let plan = HeadPlan {
            profile: Profile::Plain,
            optimizer: ServerOptimizer::FedAvg { rate: 1.0 },
            levels: 2.0,
            history: 3,
        };
        let head = Head::new(plan, layout());
        let database = redb::Database::builder().create_with_backend(InMemoryBackend::new()).unwrap();
        let transaction = database.begin_write().unwrap();
        put(&transaction, head.record()).unwrap();
        transaction.commit().unwrap();
        let error = |change: fn(&mut Found)| {
            let mut planes = Planes::read(&database.begin_read().unwrap()).unwrap();
            change(&mut planes.0);
            planes.numbers(&layout(), 0).unwrap_err().to_string()
        };
        let missing = error(|planes| drop(planes.remove(&(STATE, 3, 0))));
        assert_eq!(missing, "the store's state cannot be read: plane 3 of chunk 0 (kind 0) is missing");
        let moved = error(|planes| {
            let other = planes[&(LOST, 4, 0)].clone();
            planes.insert((LOST, 5, 0), other);
        });
        assert!(moved.ends_with("plane 5 of chunk 0 (kind 1) is not as it was written"), "{moved}");
        let more = error(|planes| drop(planes.insert((MEMORY, 0, 0), (vec![], None))));
        assert!(more.contains("plane 0 of chunk 0 (kind 2) is no plane of this model"), "{more}");
    }
}
