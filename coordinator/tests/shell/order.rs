//! The order in which updates arrive has no say; what is in them has.

use packfed_protocol::Digest;

use crate::scripted::{fleet, leave, round};
use crate::served::{Serving, file, in_time};

/// Two rounds, the first with its updates in this order; lane 0 of one update is changed by `change`.
async fn digest(order: [usize; 3], change: f64) -> Digest {
    let serving = Serving::start(&file(3, 2), 3);
    let mut workers = fleet(3, &serving).await;
    let mut updates = Vec::new();
    for (index, worker) in workers.iter_mut().enumerate() {
        let assignment = worker.assignment().await;
        let change = if index == 1 { change } else { 0.0 };
        updates.push(worker.changed_update(&assignment, |values| values[0] += change, |_| ()));
    }
    for index in order {
        workers[index].accepted(&updates[index]).await;
        workers[index].check_in().await;
    }
    round(&mut workers).await;
    leave(workers).await;
    let outcome = serving.outcome().await.unwrap();
    assert!(outcome.finished);
    outcome.report.status.digest
}

#[tokio::test]
async fn every_order_ends_in_the_same_digest() {
    in_time(async {
        let first = digest([0, 1, 2], 0.0).await;
        for order in [[0, 2, 1], [1, 0, 2], [1, 2, 0], [2, 0, 1], [2, 1, 0]] {
            assert_eq!(digest(order, 0.0).await, first, "{order:?}");
        }
    })
    .await;
}

#[tokio::test]
async fn one_changed_lane_ends_in_another_digest() {
    in_time(async { assert_ne!(digest([0, 1, 2], 0.5).await, digest([0, 1, 2], 0.0).await) }).await;
}
