//! A log and its store through crashes: what was stored is replayed, what was not is taken back.

use std::fs;
use std::sync::Arc;

use packfed_protocol::{
    CheckIn, Conditions, Digest, Enroll, Rejection, RejectionCode, Round, RunId, Timestamp, Token, Version, WorkerId,
};

use super::*;
use crate::change::Change;
use crate::engine::Engine;
use crate::event::{Effect, Event, Ticket};
use crate::plan::tests::raw;
use crate::redb_store::RedbStore;
use crate::redb_store::tests::{plan, registry, update, worker};
use crate::registry::Standing;
use crate::resume::resume;
use crate::store::Store;

/// A coordinator without a network: engine, store and log.
struct Process {
    folder: PathBuf,
    engine: Engine,
    store: RedbStore,
    log: AuditLog,
    /// How a group ends.
    death: Death,
}

#[derive(Clone, Copy, PartialEq)]
enum Death {
    None,
    /// The group is logged and not stored.
    BeforeStore,
}

fn policy(folder: &std::path::Path, segments_max: u32) -> AuditPolicy {
    // Where segments go, they have to be short.
    let segment_bytes_max = if segments_max == 0 { 1 << 20 } else { 1 << 10 };
    AuditPolicy { folder: folder.join("audit"), segment_bytes_max, segments_max }
}

impl Process {
    fn create(folder: &std::path::Path) -> Self {
        let path = folder.join("store.redb");
        drop(RedbStore::create(&path, &registry()).unwrap());
        Self::start(folder, 0, 1).unwrap()
    }

    fn start(folder: &std::path::Path, segments_max: u32, at: u64) -> Result<Self, AuditError> {
        let path = folder.join("store.redb");
        let mut store = RedbStore::open(&path).unwrap();
        store.claim(&plan()).unwrap();
        let at = Timestamp(at);
        let log = AuditLog::open(policy(folder, segments_max), &path, raw().run, store.group(), at)?;
        let engine = resume(plan(), &store, at).unwrap();
        Ok(Self { folder: folder.to_owned(), engine, store, log, death: Death::None })
    }

    /// Killed and started again.
    fn again(self) -> Self {
        let folder = self.folder.clone();
        drop(self);
        Self::start(&folder, 0, 50).unwrap()
    }

    fn give(&mut self, event: Event) {
        let at = Timestamp(60);
        self.log.told(&event, at).unwrap();
        let write = |effect| if let Effect::Store(write) = effect { Some(write) } else { None };
        let writes: Vec<_> = self.engine.handle(event, at).into_iter().filter_map(write).collect();
        if writes.is_empty() {
            return;
        }
        let head = self.engine.head();
        self.log.group(head.version(), Digest(head.digest().0), at).unwrap();
        if self.death == Death::None {
            self.store.write_all(&writes).unwrap();
        }
    }

    fn check_in_all(&mut self) {
        for n in 1..4 {
            let (version, digest) = (Version(self.engine.head().version()), Digest(self.engine.head().digest().0));
            let check_in =
                CheckIn { run: raw().run, version, digest, examples: 5, conditions: Conditions::ALL, planned: true };
            self.give(Event::CheckIn { worker: worker(n).id(), check_in });
        }
    }

    fn report(&mut self, n: u8, round: u64) {
        let update = update(n, round, self.engine.head().version());
        self.give(Event::Update { ticket: Ticket(u64::from(n)), update });
    }

    fn round(&mut self, round: u64) {
        self.check_in_all();
        (1..4).for_each(|n| self.report(n, round));
    }

    fn digest(&self) -> Digest {
        Digest(self.engine.head().digest().0)
    }

    /// Stops in order and replays.
    fn replayed(mut self) -> (Digest, Replayed) {
        self.log.end(Timestamp(99)).unwrap();
        (self.digest(), replay(&plan(), &policy(&self.folder, 0).folder, |_| ()).unwrap())
    }

    fn last_segment(&self) -> PathBuf {
        let folder = policy(&self.folder, 0).folder;
        segment::log_path(&folder, *segment::numbers(&folder).unwrap().last().unwrap())
    }
}

fn ordered(change: Change) -> Event {
    Event::Ordered { ticket: Ticket(4), by: "ann".to_owned(), why: "ö".to_owned(), change: Box::new(change) }
}

#[test]
fn a_group_that_was_logged_and_not_stored_is_taken_back() {
    let folder = tempfile::tempdir().unwrap();
    let mut process = Process::create(folder.path());
    process.check_in_all();
    process.report(1, 1);
    process.report(2, 1);
    process.death = Death::BeforeStore;
    // The third update would have committed the round.
    process.report(3, 1);
    assert_eq!(process.engine.head().version(), 1);
    let mut process = process.again();
    assert_eq!(process.engine.head().version(), 0);
    process.report(3, 1);
    process.round(2);
    let (digest, replayed) = process.replayed();
    assert_eq!((replayed.version, replayed.digest, replayed.taken_back), (2, digest, 1));
}

#[test]
fn strikes_and_the_operators_word_are_replayed() {
    let folder = tempfile::tempdir().unwrap();
    let mut process = Process::create(folder.path());
    process.check_in_all();
    let struck = worker(3).id();
    for _ in 0..3 {
        let rejection = Rejection::new(RejectionCode::BadSignature, "forged");
        process.give(Event::BadUpdate { ticket: Ticket(9), worker: struck, rejection });
    }
    (1..4).for_each(|n| process.report(n, 1));
    assert_eq!(process.engine.head().version(), 1, "nobody waits for the third");
    let mut process = process.again();
    process.give(ordered(Change::Stand { worker: struck, standing: Standing::Admitted }));
    process.round(2);
    let (registry, stored) = (process.engine.registry().clone(), process.store.registry().unwrap());
    assert_eq!((registry, process.engine.head().version()), (stored, 2));
    let (digest, replayed) = process.replayed();
    assert_eq!((replayed.version, replayed.digest, replayed.taken_back), (2, digest, 0));
}

#[test]
fn what_a_crash_left_half_written_is_cut_off_unless_the_store_depends_on_it() {
    let folder = tempfile::tempdir().unwrap();
    let mut process = Process::create(folder.path());
    process.check_in_all();
    process.log.told(&Event::Tick, Timestamp(61)).unwrap();
    process.log.flush().unwrap();
    let path = process.last_segment();
    let whole = fs::read(&path).unwrap();
    fs::write(&path, &whole[..whole.len() - 7]).unwrap();
    let mut process = process.again();
    process.report(1, 1);
    let path = process.last_segment();
    let whole = fs::read(&path).unwrap();
    drop(process);
    let mut damaged = whole.clone();
    *damaged.last_mut().unwrap() ^= 1;
    fs::write(&path, damaged).unwrap();
    let error = Process::start(folder.path(), 0, 70).map(|_| ()).unwrap_err().to_string();
    assert!(error.contains("is not as it was written"), "{error}");
    fs::write(&path, whole).unwrap();
    let mut process = Process::start(folder.path(), 0, 70).unwrap();
    process.report(2, 1);
    process.report(3, 1);
    let (digest, replayed) = process.replayed();
    assert_eq!((replayed.version, replayed.digest, replayed.begun), (1, digest, 3));
}

#[test]
fn a_store_that_was_set_back_is_not_logged_on() {
    let folder = tempfile::tempdir().unwrap();
    let mut process = Process::create(folder.path());
    process.check_in_all();
    let path = folder.path().join("store.redb");
    let older = fs::read(&path).unwrap();
    process.report(1, 1);
    process.report(2, 1);
    drop(process);
    fs::write(&path, older).unwrap();
    fs::remove_file(folder.path().join("store.redb.mark")).unwrap();
    let error = Process::start(folder.path(), 0, 70).map(|_| ()).unwrap_err().to_string();
    assert!(error.contains("ends at write 3, the store holds write 1: the store was set back"), "{error}");
}

#[test]
fn old_segments_go_and_the_next_process_begins_a_new_base() {
    let folder = tempfile::tempdir().unwrap();
    drop(Process::create(folder.path()));
    let mut process = Process::start(folder.path(), 1, 5).unwrap();
    process.round(1);
    let log = policy(folder.path(), 0).folder;
    assert_eq!(segment::numbers(&log).unwrap().len(), 1, "one segment is kept");
    process.log.end(Timestamp(99)).unwrap();
    let error = replay(&plan(), &log, |_| ()).unwrap_err();
    assert!(matches!(error, ReplayError::NoBase { .. }), "{error}");
    drop(process);
    let mut process = Process::start(folder.path(), 0, 100).unwrap();
    process.round(2);
    let (digest, replayed) = process.replayed();
    assert_eq!((replayed.version, replayed.digest, replayed.begun), (2, digest, 1));
}

#[test]
fn a_log_of_another_run_or_engine_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let mut process = Process::create(folder.path());
    process.round(1);
    let log = policy(folder.path(), 0).folder;
    let faster = crate::plan::RawPlan { optimizer: crate::optimizer::ServerOptimizer::FedAvg { rate: 0.5 }, ..raw() };
    let other = Arc::new(crate::plan::RunPlan::new(faster).unwrap());
    let error = replay(&other, &log, |_| ()).unwrap_err();
    assert!(matches!(error, ReplayError::Diverged { .. }), "{error}");
    assert!(error.to_string().contains("the log says version 1, digest "), "{error}");
    let renamed = crate::plan::RawPlan { run: RunId([8; 16]), ..raw() };
    let other = Arc::new(crate::plan::RunPlan::new(renamed).unwrap());
    assert!(replay(&other, &log, |_| ()).unwrap_err().to_string().contains("run"));
}

#[test]
fn an_empty_folder_is_no_log() {
    let folder = tempfile::tempdir().unwrap();
    let error = replay(&plan(), folder.path(), |_| ()).unwrap_err().to_string();
    assert!(error.ends_with("holds no audit log"), "{error}");
}

#[test]
fn every_entry_is_read_as_it_was_written() {
    let worker_id = WorkerId([4; 32]);
    let rejection = Rejection::new(RejectionCode::Malformed, "a detail");
    let check_in = CheckIn {
        run: raw().run,
        version: Version(3),
        digest: Digest([5; 32]),
        examples: 6,
        conditions: Conditions::ALL,
        planned: true,
    };
    let told = |event| Entry::Told(Box::new(event));
    let entries = [
        Entry::Begin { run: RunId([1; 16]), group: 2 },
        Entry::Group { group: 3, version: 4, digest: Digest([5; 32]) },
        Entry::End { group: 6 },
        Entry::Aggregated { round: Round(7) },
        told(Event::Enroll { worker: worker_id, enroll: Enroll { token: Token([7; 16]), name: "ö".to_owned() } }),
        told(Event::CheckIn { worker: worker_id, check_in }),
        told(Event::Update { ticket: Ticket(8), update: update(1, 1, 0) }),
        told(Event::BadUpdate { ticket: Ticket(9), worker: worker_id, rejection: rejection.clone() }),
        told(Event::BadMessage { worker: worker_id, rejection }),
        told(Event::Disconnected { worker: worker_id }),
        told(ordered(Change::Stand { worker: worker_id, standing: Standing::Suspended(Timestamp(12)) })),
        told(ordered(Change::Label { worker: worker_id, labels: vec![("channel".to_owned(), "beta".to_owned())] })),
        told(ordered(Change::Steer { rollout: 3, verb: packfed_protocol::RolloutVerb::RollBack })),
        told(Event::ReleaseState {
            worker: worker_id,
            state: packfed_protocol::ReleaseState { runs: None, tried: None },
        }),
        told(Event::Tick),
    ];
    for entry in entries {
        let bytes = entry.to_bytes(Timestamp(11));
        let (at, read) = Entry::from_bytes(&bytes).unwrap();
        assert_eq!((at, read.to_bytes(at)), (Timestamp(11), bytes.clone()), "{entry}");
        for length in 0..bytes.len() {
            assert!(Entry::from_bytes(&bytes[..length]).is_err(), "{length} bytes of {entry}");
        }
        assert!(Entry::from_bytes(&[bytes.as_slice(), &[0]].concat()).is_err(), "{entry} and one byte more");
        let shown = format!("{entry}");
        assert!(!shown.contains("07070707"), "a token is not shown: {shown}");
    }
    assert_eq!(Entry::from_bytes(&[200; 9]).unwrap_err(), EntryError::Kind(200));
    assert_eq!(Entry::from_bytes(&[6; 9]).unwrap_err(), EntryError::Kind(6), "its number is not used again");
}
