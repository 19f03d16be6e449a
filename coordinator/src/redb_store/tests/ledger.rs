//! What is kept beside the run: the same in a file as in memory, and in a file of the format before.

use packfed_protocol::{ReleaseRef, Settings};

use super::*;
use crate::ledger::{Conduct, Note, PastRound, RoundOutcome};
use crate::rollout::{self, Book, Fleet, Gates, Labels, OnFailure, Spec, Stage, Target, WHOLE};

/// One entry of every kind, and some that go again.
fn notes() -> Vec<Note> {
    let past = |round| PastRound {
        round: Round(round),
        ended: Timestamp(round),
        cohort: 3,
        reports: 1,
        outcome: RoundOutcome::Abandoned("too-few-updates".to_owned()),
    };
    let spec = Spec {
        channel: "beta".to_owned(),
        target: Target { only: [("region".to_owned(), "eu".to_owned())].into(), except: Labels::new() },
        stages: vec![Stage { share: WHOLE, soak_ms: 5, reports_min: 1 }],
        gates: Gates { latency_increase_max: Some(0.5), loss_increase_max: None, ..Gates::default() },
        on_failure: OnFailure::Pause,
        patience_ms: 9,
    };
    let release = ReleaseRef { number: 7, digest: Digest([7; 32]) };
    let mut book = Book::default();
    let (_, effects) = book.start(release, spec, "ann", "ö".to_owned(), &Fleet::new(), Timestamp(4)).unwrap();
    let record = |effect| match effect {
        rollout::Effect::Store(record) => Some(Note::Rollout(record)),
        _ => None,
    };
    let reported = |n| Note::Reported { rollout: 1, worker: worker(n).id() };
    let labels = [("channel".to_owned(), "beta".to_owned())].into();
    let conduct = Conduct { paused: true, settings: Settings { steps: Some(3), ..Settings::default() } };
    let fixed = vec![
        Note::Labels { worker: worker(1).id(), labels },
        Note::Tokens(vec![Digest([4; 32])]),
        Note::Conduct(conduct),
        Note::Past(past(1)),
        Note::Past(past(2)),
        Note::Past(past(1_001)),
        reported(1),
        Note::Reported { rollout: 2, worker: worker(2).id() },
        Note::Forget { rollout: 1 },
        reported(3),
    ];
    effects.into_iter().filter_map(record).chain(fixed).collect()
}

#[test]
fn what_is_kept_beside_the_run_survives_the_file_as_it_does_memory() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("store.redb");
    let mut store = RedbStore::create(&path, &registry()).unwrap();
    let mut memory = MemoryStore::new(registry());
    for note in notes() {
        store.write(&Write::Note(note.clone())).unwrap();
        memory.write(&Write::Note(note)).unwrap();
        let file = (store.ledger().unwrap(), store.registry().unwrap());
        assert_eq!(file, (memory.ledger().unwrap(), memory.registry().unwrap()));
    }
    drop(store);
    let ledger = RedbStore::open(&path).unwrap().ledger().unwrap();
    assert_eq!(ledger, memory.ledger().unwrap());
    assert_eq!((ledger.past.len(), ledger.reported[&1].len(), ledger.reported[&2].len()), (2, 1, 1));
}

#[test]
fn a_store_of_the_format_before_is_taken_over() {
    let (_folder, path, store) = redb();
    let mut run = Run::new(store);
    run.check_in_all();
    run.report(1, 1);
    let before = run.store.load(&plan()).unwrap();
    let transaction = run.store.database.begin_write().unwrap();
    transaction.delete_table(TableDefinition::<(u8, &[u8]), &[u8]>::new("ledger")).unwrap();
    transaction.open_table(META).unwrap().insert("format", wire::to_bytes(&FORMAT_BEFORE).as_slice()).unwrap();
    transaction.commit().unwrap();
    drop(run);
    for _ in 0..2 {
        let store = RedbStore::open(&path).unwrap();
        assert_eq!((store.load(&plan()).unwrap(), store.ledger().unwrap()), (before.clone(), Ledger::default()));
    }
}
