//! A disk that is full, stops, tears writes or flips bits: a clear error, and never a wrong model.

use super::disk::{Disk, Files};
use super::*;

/// The groups of writes of two rounds, and what a store holds after each of them.
fn script() -> (Vec<Vec<Write>>, Vec<Option<Stored>>) {
    let mut run = Run::new(Recorder { inner: MemoryStore::new(registry()), groups: Vec::new() });
    for round in 1..=2 {
        run.check_in_all();
        (1..4).for_each(|n| assert_eq!(run.report(n, round), Outcome::Accepted));
    }
    let mut store = MemoryStore::new(registry());
    store.claim(&plan()).unwrap();
    let mut held = vec![store.load(&plan()).unwrap()];
    for group in &run.store.groups {
        store.write_all(group).unwrap();
        held.push(store.load(&plan()).unwrap());
    }
    (run.store.groups, held)
}

/// Keeps what is written, for another store to write again.
struct Recorder {
    inner: MemoryStore,
    groups: Vec<Vec<Write>>,
}

impl Store for Recorder {
    fn claim(&mut self, plan: &RunPlan) -> Result<(), StoreError> {
        self.inner.claim(plan)
    }

    fn write_all(&mut self, writes: &[Write]) -> Result<(), StoreError> {
        self.groups.push(writes.to_vec());
        self.inner.write_all(writes)
    }

    fn read_update(&self, round: Round, worker: &WorkerId, at: usize, bytes: &mut [u8]) -> Result<(), StoreError> {
        self.inner.read_update(round, worker, at, bytes)
    }

    fn registry(&self) -> Result<Registry, StoreError> {
        self.inner.registry()
    }

    fn ledger(&self) -> Result<Ledger, StoreError> {
        self.inner.ledger()
    }

    fn load(&self, plan: &RunPlan) -> Result<Option<Stored>, StoreError> {
        self.inner.load(plan)
    }
}

/// How far groups were written to a disk.
struct Written {
    /// Groups that were acknowledged; none if not even the empty store was.
    acknowledged: Option<usize>,
    error: Option<StoreError>,
    /// Bytes and operations until then; closing takes some more.
    used: (u64, u64),
}

/// Writes the groups to a disk until it fails.
fn write_until_failure(disk: &Disk, groups: &[Vec<Write>]) -> Written {
    let written = |acknowledged, error| Written { acknowledged, error, used: disk.used() };
    let made = RedbStore::create_on(disk.clone(), disk.journal(), &registry()).and_then(|mut store| {
        store.claim(&plan())?;
        Ok(store)
    });
    let mut store = match made {
        Ok(store) => store,
        Err(error) => return written(None, Some(error)),
    };
    for (done, group) in groups.iter().enumerate() {
        if let Err(error) = store.write_all(group) {
            return written(Some(done), Some(error));
        }
    }
    written(Some(groups.len()), None)
}

fn open(files: Files) -> Result<RedbStore, StoreError> {
    let disk = Disk::with(files);
    RedbStore::open_on(disk.clone(), disk.journal())
}

/// Opens what is left and expects all that was acknowledged, and at most the group that was in the making.
fn check_left(files: Files, acknowledged: Option<usize>, held: &[Option<Stored>], what: &str) {
    let store = match (open(files), acknowledged) {
        (Ok(store), _) => store,
        (Err(_), None) => return,
        (Err(error), Some(done)) => panic!("{what}: {done} groups were acknowledged: {error}"),
    };
    let found = match (store.load(&plan()), acknowledged) {
        (Ok(found), _) => found,
        (Err(_), None) => return,
        (Err(error), Some(done)) => panic!("{what}: {done} groups were acknowledged: {error}"),
    };
    let group = usize::try_from(store.group()).unwrap();
    let done = acknowledged.unwrap_or(0);
    assert!(group == done || group == done + 1, "{what}: {group} groups, {done} were acknowledged");
    assert!(found == held[group], "{what}: group {group} holds something else");
}

#[test]
fn a_full_disk_is_an_error_at_every_byte_and_loses_nothing() {
    let (groups, held) = script();
    let whole = write_until_failure(&Disk::default(), &groups);
    assert_eq!((whole.acknowledged, whole.error.is_none()), (Some(groups.len()), true));
    let mut failures = [0, 0];
    for share in 0..60 {
        let disk = Disk::with_room(whole.used.0 * share / 60);
        let written = write_until_failure(&disk, &groups);
        let error = written.error.expect("there is not room for all").to_string();
        assert!(error.contains("store on a disk of its own: ") && !error.contains("damaged"), "{error}");
        failures[usize::from(written.acknowledged.is_some())] += 1;
        check_left(disk.bytes(), written.acknowledged, &held, &format!("{share}/60 of the room"));
    }
    assert!(failures[1] > 20, "{failures:?}: some disks are full while the run goes on");
}

#[test]
fn a_power_failure_at_any_operation_loses_nothing_that_was_acknowledged() {
    let (groups, held) = script();
    let (_, operations) = write_until_failure(&Disk::default(), &groups).used;
    let mut acknowledged = 0;
    for stop in 0..operations {
        let disk = Disk::stopping_after(stop);
        let written = write_until_failure(&disk, &groups);
        assert!(written.error.is_some(), "operation {stop} of {operations}");
        acknowledged += usize::from(written.acknowledged.is_some());
        for seed in 0..2 {
            let left = disk.after_power_failure(1000 * stop + seed);
            check_left(left, written.acknowledged, &held, &format!("operation {stop}, seed {seed}"));
        }
    }
    assert!(acknowledged > 10, "{acknowledged} of {operations}");
}

#[test]
fn a_flipped_bit_is_an_error_or_changes_nothing() {
    let (groups, held) = script();
    let disk = Disk::default();
    write_until_failure(&disk, &groups);
    // As a stopped process leaves it, and as a killed one does.
    let stopped = disk.bytes();
    let killed = {
        let (mut store, disk) = (None, Disk::default());
        let made = store.insert(RedbStore::create_on(disk.clone(), disk.journal(), &registry()).unwrap());
        made.claim(&plan()).unwrap();
        groups.iter().for_each(|group| made.write_all(group).unwrap());
        let bytes = disk.bytes();
        drop(store);
        bytes
    };
    for (image, name) in [(stopped, "stopped"), (killed, "killed")] {
        let used: Vec<usize> = (0..image[0].len()).filter(|&at| at < 320 || image[0][at] != 0).collect();
        let mut refused = 0_usize;
        let step = (used.len() / 400).max(1);
        for (index, &at) in used.iter().enumerate().filter(|(index, _)| *index < 320 || index % step == 0) {
            let mut flipped = image.clone();
            flipped[0][at] ^= 1 << (index % 8);
            let loaded = open(flipped).and_then(|store| {
                let stored = store.load(&plan())?;
                Ok((store.group(), store.registry()?, stored))
            });
            match loaded {
                Err(_) => refused += 1,
                Ok((group, known, stored)) => {
                    let group = usize::try_from(group).unwrap();
                    // Set back by one commit: the mark beside a file makes that an error.
                    assert!(group + 1 >= groups.len(), "{name}, byte {at}: set back to group {group}");
                    refused += usize::from(group < groups.len());
                    assert!(stored == held[group] && known == registry(), "{name}, byte {at}: something else");
                }
            }
        }
        assert!(refused > 30, "{name}: {refused} flips were seen");
    }
}

/// A store with two accepted updates in its journal, as a killed process leaves it.
fn in_the_middle() -> Files {
    let disk = Disk::default();
    let mut run = Run::new(RedbStore::create_on(disk.clone(), disk.journal(), &registry()).unwrap());
    run.check_in_all();
    (1..3).for_each(|n| assert_eq!(run.report(n, 1), Outcome::Accepted));
    disk.bytes()
}

#[test]
fn a_flipped_bit_in_the_journal_is_an_error_that_names_the_update() {
    let files = in_the_middle();
    let frame = update(1, 1, 0).frame().bytes();
    assert!(files[1][..2 * frame].iter().any(|&byte| byte != 0));
    for at in 0..2 * frame {
        let mut flipped = files.clone();
        flipped[1][at] ^= 1 << (at % 8);
        let store = open(flipped).unwrap();
        let error = resume(plan(), &store, Timestamp(0)).map(|_| ()).unwrap_err().to_string();
        // Loaded by worker, journalled as they came.
        let number = (at / frame) ^ usize::from(worker(1).id() > worker(2).id());
        assert!(error.starts_with(&format!("journalled update {number} of round 1 does not ")), "byte {at}: {error}");
    }
    let mut beyond = files;
    *beyond[1].last_mut().unwrap() ^= 1;
    assert!(resume(plan(), &open(beyond).unwrap(), Timestamp(0)).is_ok(), "no record names these bytes");
}

#[test]
fn a_journal_that_is_lost_or_cut_is_an_error_while_a_round_is_open() {
    let [store, journal] = in_the_middle();
    let frame = update(1, 1, 0).frame().bytes();
    for left in [0, 1, frame, 2 * frame - 1] {
        let error = open([store.clone(), journal[..left].to_vec()]).map(|_| ()).unwrap_err().to_string();
        let expected = format!("the store's journal cannot be read: it has {left} bytes, an update has {frame} from ");
        assert!(error.starts_with(&expected), "{error}");
    }
    assert!(open([store, journal[..2 * frame].to_vec()]).is_ok());
}

#[test]
fn a_store_that_was_set_back_is_refused_with_the_next_step() {
    let (folder, path, store) = redb();
    let mut run = Run::new(store);
    run.check_in_all();
    let older = folder.path().join("older");
    fs::copy(&path, &older).unwrap();
    assert_eq!(run.report(1, 1), Outcome::Accepted);
    drop(run);
    fs::copy(&older, &path).unwrap();
    let error = open_error(&path);
    assert!(error.contains("is at write 1") && error.contains("has seen write 2"), "{error}");
    assert!(error.contains("remove the mark"), "{error}");
    let mark = folder.path().join("store.redb.mark");
    fs::remove_file(&mark).unwrap();
    drop(RedbStore::open(&path).unwrap());
    // A mark of a power failure is behind or empty; a damaged one is named.
    fs::write(&mark, []).unwrap();
    drop(RedbStore::open(&path).unwrap());
    let mut damaged = fs::read(&mark).unwrap();
    damaged[3] ^= 1;
    fs::write(&mark, damaged).unwrap();
    assert!(open_error(&path).contains("mark cannot be read"), "{}", open_error(&path));
}

#[test]
fn a_newer_commit_that_is_damaged_does_not_go_unnoticed() {
    // The engine's own answer is to go back to the commit before, without a word.
    let (folder, path, store) = redb();
    let mut run = Run::new(store);
    run.check_in_all();
    assert_eq!(run.report(1, 1), Outcome::Accepted);
    let copy = folder.path().join("killed.redb");
    copy_store(&path, &copy);
    let mark = folder.path().join("killed.redb.mark");
    fs::copy(folder.path().join("store.redb.mark"), &mark).unwrap();
    let whole = fs::read(&copy).unwrap();
    let mut set_back = 0;
    for slot in [64, 192] {
        let mut damaged = whole.clone();
        damaged[slot + 8] ^= 1;
        fs::write(&copy, damaged).unwrap();
        let opened = RedbStore::open(&copy).and_then(|store| Ok((store.group(), store.load(&plan())?)));
        match opened {
            Ok((group, stored)) => assert_eq!((group, stored.unwrap().open[0].1.len()), (2, 1)),
            Err(StoreError::SetBack { seen: 2, group: 1, .. }) => set_back += 1,
            Err(other) => panic!("{other}"),
        }
    }
    assert_eq!(set_back, 1, "one of the two slots is the newer");
}
