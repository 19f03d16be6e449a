//! The world that breaks things: what has to hold holds, one seed is one run, and every invariant has teeth.

use packfed_sim::chaos::{Sabotage, StoreKind, Wish, run, sweep};

/// Seeds that every test run tries; `sim chaos --seeds 1000` tries more.
const SEEDS: u64 = 24;

#[test]
fn no_seed_breaks_a_promise() {
    let found = sweep(0..SEEDS, &Wish::default(), 2, || true, |_| {});
    assert!(found.broken.is_empty(), "{:#?}", found.broken);
    assert_eq!(found.held, SEEDS);
    let counts = found.counts;
    let seen = [
        counts.commits_after_faults,
        counts.abandoned,
        counts.discarded,
        counts.crashes_in_a_round,
        counts.worker_crashes,
        counts.broken_connections,
        counts.late_updates,
        counts.partitions,
        counts.clocks_set,
        counts.lies,
        counts.training_faults,
        counts.failed_writes,
        counts.forgotten_sectors,
        counts.orders,
        counts.orders_refused,
        counts.orders_unanswered,
        counts.crashes_in_a_rollout,
        counts.rollouts_started,
        counts.rollouts_completed,
        counts.rollouts_aborted,
        counts.rollouts_rolled_back,
        counts.gates_failed,
        counts.releases_swapped,
        counts.releases_failed,
        counts.crashes_in_a_swap,
    ];
    assert!(seen.iter().all(|&n| n > 0), "every kind of fault was met: {seen:?}");
    assert!(counts.rejected.len() >= 8, "and most reasons to reject: {:?}", counts.rejected);
}

#[test]
fn one_seed_is_one_run_on_any_number_of_threads() {
    let digest = |threads| sweep(100..108, &Wish::default(), threads, || true, |_| {}).digest;
    assert_eq!(digest(1), digest(3));
    let (first, second) = (run(3, &Wish::default()), run(3, &Wish { readable: true, ..Wish::default() }));
    assert_eq!((first.digest, first.counts), (second.digest, second.counts), "to read a trace changes nothing");
    assert_ne!(first.digest, run(4, &Wish::default()).digest);
    assert!(first.trace.is_empty() && second.trace.len() > 100);
}

#[test]
fn both_stores_take_a_run_through_the_same_kinds_of_fault() {
    for store in [StoreKind::Memory, StoreKind::Redb] {
        let found = sweep(200..206, &Wish { store: Some(store), ..Wish::default() }, 2, || true, |_| {});
        assert!(found.broken.is_empty(), "{store:?}: {:#?}", found.broken);
        assert!(found.counts.coordinator_crashes > 0, "{store:?}");
    }
}

/// The invariant that notices a broken guard, and the store on which the guard is broken.
fn noticed_by(sabotage: Sabotage) -> (&'static str, StoreKind) {
    match sabotage {
        Sabotage::AbandonedRoundStaysOpen => ("at most one open round", StoreKind::Memory),
        Sabotage::CommitSkipsAVersion => ("versions grow by one", StoreKind::Memory),
        Sabotage::CommitIsLost => ("a head changes only by a commit", StoreKind::Memory),
        Sabotage::OneUpdateSuffices => ("a commit has enough verified updates", StoreKind::Memory),
        Sabotage::UpdateIsFoldedTwice => ("no update is folded twice", StoreKind::Memory),
        Sabotage::VerdictIsLost => ("accepted, rejected and discarded add up to arrived", StoreKind::Memory),
        Sabotage::ReplicaSkipsAStep => ("replicas at a version hold the head's digest", StoreKind::Memory),
        Sabotage::AcceptedUpdateIsLost => ("nothing acknowledged is lost", StoreKind::Memory),
        Sabotage::NobodyReconnects => ("faults off is progress", StoreKind::Memory),
        Sabotage::HonestWorkerIsRefused => ("a worker in order does not give up", StoreKind::Memory),
        Sabotage::JournalRots => ("a coordinator starts again from its store", StoreKind::Memory),
        Sabotage::DiskLies => ("a coordinator starts again from its store", StoreKind::Redb),
        Sabotage::StageDropsWorkers => ("stages nest", StoreKind::Memory),
        Sabotage::FirstStageIsEverybody => ("shares hold", StoreKind::Memory),
        Sabotage::EndedReleaseIsOffered => ("nobody is told of a release that ended", StoreKind::Memory),
        Sabotage::TargetGoesUnheard => ("a worker swaps to what it was told last", StoreKind::Memory),
        Sabotage::EndIsLost => ("what was decided is kept", StoreKind::Memory),
        Sabotage::ReporterIsForgotten => ("reports count once", StoreKind::Memory),
        Sabotage::OfferIsLost => ("faults off ends rollouts", StoreKind::Memory),
    }
}

#[test]
fn every_broken_guard_is_noticed_by_its_invariant() {
    for sabotage in Sabotage::ALL {
        let (invariant, store) = noticed_by(sabotage);
        let wish = Wish { store: Some(store), sabotage: Some(sabotage), readable: false };
        let broken: Vec<_> = (0..40).flat_map(|seed| run(seed, &wish).violations).collect();
        assert!(broken.iter().any(|violation| violation.invariant == invariant), "{sabotage:?}: {broken:#?}");
    }
}
