//! One suite, run against both stores: what was written is there after a restart, whole or not at all.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::sync::Arc;

use packfed_protocol::{
    CheckIn, Conditions, Digest, Enroll, Identity, LaneClips, Outcome, Round, Signed, Timestamp, Token, UpdateHeader,
    Verdict, Version,
};

mod disk;
mod faults;
mod ledger;

use super::*;
use crate::engine::Engine;
use crate::event::{Effect, Event, Ticket};
use crate::memory_store::MemoryStore;
use crate::plan::tests::raw;
use crate::registry::{Member, Standing, token_digest};
use crate::resume::resume;

pub(crate) fn plan() -> Arc<RunPlan> {
    Arc::new(RunPlan::new(raw()).unwrap())
}

fn other_plan() -> RunPlan {
    RunPlan::new(crate::plan::RawPlan { run: packfed_protocol::RunId([8; 16]), ..raw() }).unwrap()
}

pub(crate) fn worker(n: u8) -> Identity {
    Identity::from_seed([n; 32])
}

/// Workers 1 to 3 are enrolled; one token is left.
pub(crate) fn registry() -> Registry {
    let member = |n| (worker(n).id(), Member::new(format!("w{n}"), Standing::Admitted));
    Registry::new((1..4).map(member).collect(), BTreeSet::from([token_digest(&Token([9; 16]))]))
}

/// An engine whose every write goes to a store before anything else is done.
struct Run<S> {
    engine: Engine,
    store: S,
}

impl<S: Store> Run<S> {
    fn new(store: S) -> Self {
        Self::of(plan(), store)
    }

    fn of(plan: Arc<RunPlan>, mut store: S) -> Self {
        store.claim(&plan).unwrap();
        Self { engine: resume(plan, &store, Timestamp(0)).unwrap(), store }
    }

    fn give(&mut self, event: Event) -> Vec<Effect> {
        let effects = self.engine.handle(event, Timestamp(1));
        for effect in &effects {
            if let Effect::Store(write) = effect {
                self.store.write(write).unwrap();
            }
        }
        effects
    }

    fn check_in_all(&mut self) {
        self.check_in(1..4);
    }

    fn check_in(&mut self, workers: impl IntoIterator<Item = u8>) {
        for n in workers {
            let (version, digest) = (Version(self.engine.head().version()), Digest(self.engine.head().digest().0));
            let check_in =
                CheckIn { run: raw().run, version, digest, examples: 5, conditions: Conditions::ALL, planned: true };
            self.give(Event::CheckIn { worker: worker(n).id(), check_in });
        }
    }

    fn report(&mut self, n: u8, round: u64) -> Outcome {
        self.report_from(n, round, self.engine.head().version())
    }

    fn report_from(&mut self, n: u8, round: u64, base: u64) -> Outcome {
        let update = update(n, round, base);
        let effects = self.give(Event::Update { ticket: Ticket(0), update });
        let verdict = |effect| match effect {
            Effect::Verdict { verdict: Verdict { outcome, .. }, .. } => Some(outcome),
            _ => None,
        };
        effects.into_iter().find_map(verdict).unwrap()
    }
}

pub(crate) fn update(n: u8, round: u64, base: u64) -> packfed_protocol::Verified {
    let (identity, plan) = (worker(n), plan());
    let payload: Vec<u8> = (0..4u8).flat_map(|block| [n, 0, block, 0, n, 3, 9, n, 7, 1, 2, 3, 4, 5, 6, 7]).collect();
    let header = UpdateHeader {
        worker: identity.id(),
        run: raw().run,
        round: Round(round),
        base: Version(base),
        layout: plan.layout_digest(),
        examples: u32::from(n),
        train_loss: 1.0,
        clipped: vec![LaneClips::default()],
        words: 4,
        payload: Digest([0; 32]),
    };
    Signed::new(&identity, header, payload).verify(&identity.id()).unwrap()
}

/// The suite of a buffered plan: several rounds are open at once, and a commit leaves some of them.
fn check_buffered<S: Store>(store: S, reopen: impl Fn(S) -> S) {
    let buffered = crate::plan::Buffered {
        concurrency: 3,
        staleness_max: 2,
        staleness_weight: crate::staleness::StalenessWeight::InverseSqrt,
    };
    let mut raw = crate::plan::RawPlan { buffered: Some(buffered), rounds: 9, ..raw() };
    raw.reporting.goal = 2;
    let plan = Arc::new(RunPlan::new(raw).unwrap());
    let open = |store: &S| -> Vec<(u64, usize, usize)> {
        let open = store.load(&plan).unwrap().unwrap().open;
        open.iter().map(|(open, frames)| (open.round.0, open.cohort.len(), frames.len())).collect()
    };
    let mut run = Run::of(plan.clone(), store);
    run.check_in_all();
    assert_eq!(run.report(1, 1), Outcome::Accepted);
    assert_eq!(open(&run.store), [(1, 3, 1)]);
    assert_eq!(run.report(2, 1), Outcome::Accepted);
    assert_eq!((run.engine.head().version(), open(&run.store)), (1, vec![(1, 1, 0)]), "one is still at work");
    run.check_in([1, 2]);
    assert_eq!(run.report_from(3, 1, 0), Outcome::Accepted);
    assert_eq!(open(&run.store), [(1, 1, 1), (2, 2, 0)]);

    // In the middle of a buffer, with an update against an older base in it.
    let mut run = Run::of(plan.clone(), reopen(run.store));
    assert!(matches!(run.report_from(3, 1, 0), Outcome::Rejected(_)), "its update is there");
    assert_eq!(run.report(1, 2), Outcome::Accepted);
    assert_eq!((run.engine.head().version(), open(&run.store)), (2, vec![(2, 1, 0)]));
    let head = run.engine.head().record().clone();
    assert_eq!(head.past.iter().map(Vec::len).collect::<Vec<_>>(), [1, 2], "a step for each window");

    let run = Run::of(plan.clone(), reopen(run.store));
    assert_eq!(run.engine.head().record(), &head);
    let stored = run.store.load(&plan).unwrap().unwrap();
    assert_eq!((stored.next_round, stored.last.unwrap().updates), (Round(3), 2));
    let with_rounds = RunPlan::new(crate::plan::RawPlan { rounds: 9, ..self::raw() }).unwrap();
    let engine = resume(Arc::new(with_rounds), &run.store, Timestamp(0)).unwrap();
    assert!(!engine.finished() && engine.head().record() == &head, "a plan with rounds can go on with one");
}

/// The suite. `reopen` gives the store that a restart would find.
fn check<S: Store>(store: S, reopen: impl Fn(S) -> S) {
    let mut run = Run::new(store);
    assert_eq!(run.store.registry().unwrap(), registry());
    assert_eq!(run.store.load(&plan()).unwrap(), None, "no round was opened");

    let enroll = Enroll { token: Token([9; 16]), name: "late".to_owned() };
    run.give(Event::Enroll { worker: worker(7).id(), enroll });
    run.check_in_all();
    assert_eq!(run.report(1, 1), Outcome::Accepted);
    assert_eq!(run.report(3, 1), Outcome::Accepted);

    // In the middle of a round.
    let mut run = Run::new(reopen(run.store));
    let registry = run.store.registry().unwrap();
    assert!(registry.tokens().is_empty() && registry.members().contains_key(&worker(7).id()));
    let stored = run.store.load(&plan()).unwrap().unwrap();
    let (open, frames) = &stored.open[0];
    assert_eq!((stored.next_round, open.round, frames.len()), (Round(2), Round(1), 2));
    check_parts(&run.store);
    assert!(matches!(run.report(1, 1), Outcome::Rejected(_)), "its update is there");
    assert_eq!(run.report(2, 1), Outcome::Accepted);
    assert_eq!(run.engine.head().version(), 1);

    // After a commit.
    let run = Run::new(reopen(run.store));
    let stored = run.store.load(&plan()).unwrap().unwrap();
    assert_eq!((stored.next_round, stored.open, stored.last.unwrap().updates), (Round(2), Vec::new(), 3));
    assert_eq!(run.engine.head().record(), undisturbed(1).engine.head().record());

    // A second round, and the end of the run.
    let mut run = run;
    run.check_in_all();
    (1..4).for_each(|n| assert_eq!(run.report(n, 2), Outcome::Accepted));
    let run = Run::new(reopen(run.store));
    assert!(run.engine.finished());
    assert_eq!(run.engine.head().digest(), undisturbed(2).engine.head().digest());
    assert_eq!(run.engine.status().digest, stored_digest(&run.store));

    // It is this plan's for good.
    let mut store = run.store;
    assert!(matches!(store.claim(&other_plan()), Err(StoreError::OtherRun { .. })));
    assert!(matches!(store.load(&other_plan()), Err(StoreError::OtherRun { .. })));
    let nibble = crate::plan::RawPlan { profile: packfed_codec::Profile::Nibble, ..raw() };
    assert!(matches!(store.load(&RunPlan::new(nibble).unwrap()), Err(StoreError::OtherRun { .. })));
}

/// Any part of a journalled frame can be read, and nothing else.
fn check_parts(store: &impl Store) {
    let frame = update(3, 1, 0).frame().to_vec();
    let read = |n: u8, round, before_end, length| {
        let mut bytes = vec![0; length];
        store.read_update(Round(round), &worker(n).id(), before_end, &mut bytes).map(|()| bytes)
    };
    for (before_end, length) in [(64, 16), (64, 64), (16, 16), (frame.len(), 20), (5, 0)] {
        let start = frame.len() - before_end;
        assert_eq!(read(3, 1, before_end, length).unwrap(), &frame[start..start + length]);
    }
    for (n, round, before_end, length) in [(2, 1, 16, 16), (3, 2, 16, 16), (3, 1, 16, 17), (3, 1, frame.len() + 1, 1)] {
        assert!(matches!(read(n, round, before_end, length), Err(StoreError::Corrupt { what: "journal", .. })));
    }
}

fn stored_digest(store: &impl Store) -> Digest {
    Digest(store.load(&plan()).unwrap().unwrap().head.state.digest().0)
}

/// The same run in memory, without a stop.
fn undisturbed(rounds: u64) -> Run<MemoryStore> {
    let mut run = Run::new(MemoryStore::new(registry()));
    for round in 1..=rounds {
        run.check_in_all();
        (1..4).for_each(|n| assert_eq!(run.report(n, round), Outcome::Accepted));
    }
    run
}

fn redb() -> (tempfile::TempDir, PathBuf, RedbStore) {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("store.redb");
    let store = RedbStore::create(&path, &registry()).unwrap();
    (folder, path, store)
}

/// Copies a store as it lies there.
fn copy_store(from: &Path, to: &Path) {
    fs::copy(from, to).unwrap();
    fs::copy(RedbStore::journal_path(from), RedbStore::journal_path(to)).unwrap();
}

fn open_error(path: &Path) -> String {
    RedbStore::open(path).map(|_| ()).unwrap_err().to_string()
}

#[test]
fn memory_keeps_a_run() {
    check(MemoryStore::new(registry()), std::convert::identity);
    check_buffered(MemoryStore::new(registry()), std::convert::identity);
}

#[test]
fn a_file_keeps_a_run() {
    let (_folder, path, store) = redb();
    check(store, |store| {
        drop(store);
        RedbStore::open(&path).unwrap()
    });
    let (_folder, path, store) = redb();
    check_buffered(store, |store| {
        drop(store);
        RedbStore::open(&path).unwrap()
    });
}

#[test]
fn the_file_of_a_killed_process_keeps_a_run() {
    let (folder, path, store) = redb();
    let copies = std::cell::Cell::new(0);
    check(store, |store| {
        // As it lies there while it is open: nobody has closed it.
        let current = if copies.get() == 0 { path.clone() } else { folder.path().join(copies.get().to_string()) };
        copies.set(copies.get() + 1);
        let copy = folder.path().join(copies.get().to_string());
        copy_store(&current, &copy);
        drop(store);
        RedbStore::open(&copy).unwrap()
    });
}

#[test]
fn a_commit_is_whole_or_not_there() {
    let (folder, path, store) = redb();
    let mut run = Run::new(store);
    run.check_in_all();
    run.report(1, 1);
    let before = run.store.load(&plan()).unwrap();
    let committed = undisturbed(1).store.load(&plan()).unwrap().unwrap();
    let (head, scales, summary) = (committed.head, committed.scales, committed.last.unwrap());
    let transaction = run.store.database.begin_write().unwrap();
    put_commit(&transaction, &Commit { round: Round(1), head, scales, open: Vec::new(), summary }).unwrap();
    // Killed here: all was written, nothing was committed.
    let copy = folder.path().join("copy");
    copy_store(&path, &copy);
    transaction.abort().unwrap();
    assert_eq!(run.store.load(&plan()).unwrap(), before);
    assert_eq!(RedbStore::open(&copy).unwrap().load(&plan()).unwrap(), before);
}

#[test]
fn an_abandoned_round_leaves_nothing_but_its_number() {
    fn check<S: Store>(store: S) {
        let mut run = Run::new(store);
        run.check_in_all();
        run.report(1, 1);
        run.engine.handle(Event::Tick, Timestamp(1));
        run.store.write(&Write::Abandon { round: Round(1) }).unwrap();
        let stored = run.store.load(&plan()).unwrap().unwrap();
        assert_eq!((stored.next_round, stored.open), (Round(2), Vec::new()));
    }
    check(MemoryStore::new(registry()));
    check(redb().2);
}

#[test]
fn a_plan_may_be_edited_until_its_first_round() {
    fn check<S: Store>(mut store: S) {
        store.claim(&other_plan()).unwrap();
        let mut run = Run::new(store);
        run.check_in_all();
        assert!(matches!(run.store.claim(&other_plan()), Err(StoreError::OtherRun { .. })));
    }
    check(MemoryStore::new(registry()));
    check(redb().2);
}

#[test]
fn a_store_is_never_made_over_another_file() {
    let (_folder, path, _store) = redb();
    let error = RedbStore::create(&path, &registry()).map(|_| ()).unwrap_err().to_string();
    assert!(error.starts_with(&format!("create store {}: ", path.display())), "{error}");
}

#[test]
fn a_store_is_of_one_process_at_a_time() {
    let (_folder, path, _store) = redb();
    assert!(open_error(&path).contains("already open"), "{}", open_error(&path));
}

#[test]
fn a_file_that_is_no_store_is_an_error_that_names_it() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("store.redb");
    assert!(open_error(&path).contains("store.redb"));
    for content in [vec![], vec![0], b"not a store\n".repeat(1000), vec![0xff; 1 << 16]] {
        fs::write(&path, content).unwrap();
        assert!(open_error(&path).starts_with(&format!("open store {}: ", path.display())));
    }
}

#[test]
fn a_cut_file_is_an_error_or_says_what_is_missing() {
    let (_folder, path, store) = redb();
    let mut run = Run::new(store);
    run.check_in_all();
    (1..4).for_each(|n| assert_eq!(run.report(n, 1), Outcome::Accepted));
    drop(run);
    let whole = fs::read(&path).unwrap();
    for sixteenths in 0..16 {
        fs::write(&path, &whole[..whole.len() * sixteenths / 16]).unwrap();
        let loaded = RedbStore::open(&path).and_then(|store| store.load(&plan()));
        assert!(loaded.is_err(), "{sixteenths}/16 of the file");
    }
    fs::write(&path, &whole).unwrap();
    assert!(RedbStore::open(&path).unwrap().load(&plan()).unwrap().is_some());
}

#[test]
fn overwritten_pages_do_not_panic() {
    let (_folder, path, store) = redb();
    let mut run = Run::new(store);
    run.check_in_all();
    (1..4).for_each(|n| assert_eq!(run.report(n, 1), Outcome::Accepted));
    drop(run);
    let whole = fs::read(&path).unwrap();
    let used = whole.len().min(1 << 18);
    for start in (0..used).step_by(4096) {
        let mut damaged = whole.clone();
        damaged[start..(start + 64).min(used)].fill(0x5a);
        fs::write(&path, &damaged).unwrap();
        let _ = RedbStore::open(&path).and_then(|store| store.registry().and(store.load(&plan())));
    }
}

/// Changes one stored record and expects the load to name it.
fn damage(body: impl FnOnce(&WriteTransaction), what: &str) {
    let (_folder, _path, store) = redb();
    let mut run = Run::new(store);
    run.check_in_all();
    (1..4).for_each(|n| assert_eq!(run.report(n, 1), Outcome::Accepted));
    run.check_in_all();
    let transaction = run.store.database.begin_write().unwrap();
    body(&transaction);
    transaction.commit().unwrap();
    let error = run.store.load(&plan()).unwrap_err().to_string();
    assert!(error.starts_with(&format!("the store's {what} cannot be read")), "{error}");
}

#[test]
fn every_record_is_checked_when_it_is_read() {
    /// Bytes that are sealed and make no sense.
    fn meta(name: &'static str, bytes: &'static [u8]) -> impl FnOnce(&WriteTransaction) {
        move |t| put_sealed(t, name, bytes).unwrap()
    }
    /// Bytes that are not sealed.
    fn bare(name: &'static str) -> impl FnOnce(&WriteTransaction) {
        move |t| drop(t.open_table(META).unwrap().insert(name, [1; 40].as_slice()).unwrap())
    }
    fn step(version: u64, bytes: &'static [u8]) -> impl FnOnce(&WriteTransaction) {
        let sealed = sealed("steps", &[version.to_le_bytes().as_slice(), &[0; 4]].concat(), bytes);
        move |t| drop(t.open_table(STEPS).unwrap().insert((version, 0), sealed.as_slice()).unwrap())
    }
    fn round(bytes: &'static [u8]) -> impl FnOnce(&WriteTransaction) {
        let sealed = sealed("rounds", &2u64.to_le_bytes(), bytes);
        move |t| drop(t.open_table(ROUNDS).unwrap().insert(2, sealed.as_slice()).unwrap())
    }
    damage(meta("version", &[1]), "version");
    damage(meta("version", &[9, 0, 0, 0, 0, 0, 0, 0]), "version");
    damage(meta("scales", &[0; 8]), "scales");
    damage(round(&[7]), "open round");
    damage(|t| drop(t.open_table(ROUNDS).unwrap().insert(2, [1; 40].as_slice()).unwrap()), "open round");
    damage(meta("next-round", &[7]), "next-round");
    damage(meta("last", &[7]), "last");
    for name in ["version", "scales", "next-round", "last", "claim"] {
        damage(bare(name), name);
    }
    damage(|t| drop(t.open_table(META).unwrap().remove("claim").unwrap()), "claim");
    damage(|t| drop(t.open_table(META).unwrap().remove("last").unwrap()), "version");
    damage(step(1, &[1; 9]), "steps");
    damage(step(7, &[1; 9]), "steps");
    damage(|t| drop(t.open_table(STEPS).unwrap().insert((1, 0), [1; 40].as_slice()).unwrap()), "steps");
}

#[test]
fn a_model_that_is_not_the_committed_one_is_refused() {
    let (_folder, _path, store) = redb();
    let mut run = Run::new(store);
    run.check_in_all();
    (1..4).for_each(|n| assert_eq!(run.report(n, 1), Outcome::Accepted));
    let mut head = run.engine.head().record().clone();
    head.state = packfed_codec::State::zero(plan().layout().clone());
    let transaction = run.store.database.begin_write().unwrap();
    planes::put(&transaction, &head).unwrap();
    transaction.commit().unwrap();
    let error = run.store.load(&plan()).unwrap_err().to_string();
    assert!(error.starts_with("the store's state cannot be read: its digest is "), "{error}");
}

#[test]
fn a_cohort_may_be_longer_than_a_message() {
    let (_folder, _path, mut store) = redb();
    store.claim(&plan()).unwrap();
    let mut run = Run::new(store);
    run.check_in_all();
    let mut open = run.store.load(&plan()).unwrap().unwrap().open.remove(0).0;
    let key = |n: u32| {
        let mut key = [0; 32];
        key[..4].copy_from_slice(&n.to_le_bytes());
        WorkerId(key)
    };
    open.cohort = (0..100_000).map(key).collect();
    run.store.write(&Write::Open(open.clone())).unwrap();
    assert_eq!(run.store.load(&plan()).unwrap().unwrap().open[0].0, open);
}

#[test]
fn members_survive_the_file_with_all_that_is_known_of_them() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("store.redb");
    let member = |standing| Member::new("ö".to_owned(), standing);
    let members = [Standing::Admitted, Standing::Suspended(Timestamp(7)), Standing::Revoked].map(member);
    let members: BTreeMap<_, _> = members.into_iter().zip(1..).map(|(m, n)| (worker(n).id(), m)).collect();
    let mut registry = Registry::new(members, BTreeSet::new());
    let mut store = RedbStore::create(&path, &registry).unwrap();
    let now = Timestamp(1_000_000);
    let worker = worker(1).id();
    let entries = [registry.saw(&worker, now), registry.drew(&worker, now.plus(1))].map(Option::unwrap);
    store.write(&Write::Members(entries.to_vec())).unwrap();
    drop(store);
    assert_eq!(RedbStore::open(&path).unwrap().registry().unwrap(), registry);
}
