//! A rule that bears liars, served: the words come back out of the journal, whichever store keeps it.

use packfed_coordinator::config::{AggregationTable, RuleName};
use packfed_coordinator::memory_store::MemoryStore;
use packfed_coordinator::redb_store::RedbStore;
use packfed_coordinator::store::Store;
use packfed_protocol::Digest;

use crate::scripted::{fleet, leave};
use crate::served::{Serving, file, in_time, registry};

const WORKERS: u8 = 5;

/// One round of updates in which nothing differs but worker 5's, which lies as far out as `lie` says; honest values end
/// at 1.72 and words at 1.98.
async fn digest(aggregation: AggregationTable, store: Box<dyn Store + Send>, lie: f64) -> Digest {
    let mut file = file(WORKERS.into(), 1);
    file.aggregation = aggregation;
    let serving = Serving::over(&file, store);
    let mut workers = fleet(WORKERS, &serving).await;
    for (index, worker) in workers.iter_mut().enumerate() {
        let assignment = worker.assignment().await;
        let lies = index + 1 == usize::from(WORKERS);
        let far = |values: &mut [f64]| values.chunks_exact_mut(14).for_each(|lanes| lanes[2..].fill(lie));
        let update = match lies {
            true => worker.changed_update(&assignment, far, |header| header.examples = 100),
            false => worker.update(&assignment),
        };
        worker.accepted(&update).await;
        worker.check_in().await;
    }
    leave(workers).await;
    let outcome = serving.outcome().await.unwrap();
    assert!(outcome.finished);
    outcome.report.status.digest
}

#[tokio::test]
async fn what_a_liar_says_does_not_show_and_both_stores_tell_the_same() {
    in_time(async {
        let folder = tempfile::tempdir().unwrap();
        let median = AggregationTable { rule: RuleName::Median, ..AggregationTable::default() };
        let trimmed = AggregationTable { rule: RuleName::TrimmedMean, trim: Some(0.2), ..AggregationTable::default() };
        let krum =
            AggregationTable { rule: RuleName::MultiKrum, malicious_max: Some(1), ..AggregationTable::default() };
        for (n, (rule, bears)) in [(AggregationTable::default(), false), (median, true), (trimmed, true), (krum, true)]
            .into_iter()
            .enumerate()
        {
            let memory = || -> Box<dyn Store + Send> { Box::new(MemoryStore::new(registry(WORKERS))) };
            let on_disk = RedbStore::create(&folder.path().join(n.to_string()), &registry(WORKERS)).unwrap();
            let far = digest(rule, memory(), 1.75).await;
            assert_eq!(digest(rule, Box::new(on_disk), 1.75).await, far, "{rule:?}");
            assert_eq!(digest(rule, memory(), 1.98).await == far, bears, "{rule:?}");
        }
    })
    .await;
}
