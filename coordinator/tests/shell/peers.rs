//! Who is let in, who is answered, and what happens when the store is not.

use packfed_coordinator::event::{Stored, Write};
use packfed_coordinator::ledger::Ledger;
use packfed_coordinator::memory_store::MemoryStore;
use packfed_coordinator::plan::RunPlan;
use packfed_coordinator::registry::Registry;
use packfed_coordinator::store::{Store, StoreError};
use packfed_protocol::{Message, RejectionCode, Round, WorkerId};
use serde_json::json;

use crate::scripted::{Worker, fleet, leave, round};
use crate::served::{Serving, ask_status, coordinator, file, in_time, registry, status, worker};

#[tokio::test]
async fn a_token_lets_a_worker_in_that_then_takes_part() {
    in_time(async {
        let serving = Serving::start(&file(2, 1), 1);
        let mut late = Worker::connect(7, &serving).await;
        late.enroll().await;
        let plan = late.check_in_unplanned().await;
        assert_eq!(plan, serving.config.plan.message());
        let mut workers = fleet(1, &serving).await;
        workers.push(late);
        round(&mut workers).await;
        leave(workers).await;
        let outcome = serving.outcome().await.unwrap();
        assert!(outcome.finished);
        assert_eq!((outcome.report.status.enrolled, outcome.report.status.counters.accepted), (2, 2));
    })
    .await;
}

#[tokio::test]
async fn a_used_token_lets_nobody_in() {
    in_time(async {
        let serving = Serving::start(&file(2, 1), 1);
        Worker::connect(7, &serving).await.enroll().await;
        let mut second = Worker::connect(8, &serving).await;
        let message = Message::Enroll(packfed_protocol::Enroll { token: crate::served::TOKEN, name: String::new() });
        second.say(&message).await;
        assert_eq!(second.hear_refusal().await.code, RejectionCode::BadToken);
        serving.stopped().await.unwrap();
    })
    .await;
}

#[tokio::test]
async fn the_status_is_for_the_coordinators_own_key() {
    in_time(async {
        let serving = Serving::start(&file(2, 1), 1);
        let _idle = fleet(1, &serving).await;
        let answer = ask_status(&worker(1), serving.address, &coordinator().id()).await;
        assert!(matches!(answer, Message::Refused(refused) if refused.rejection.code == RejectionCode::Unexpected));
        let status = status(serving.address).await;
        assert_eq!(
            (&status["serving"], &status["stage"], &status["version"]),
            (&json!(true), &json!("selecting"), &json!(0))
        );
        assert_eq!(status["digest"].as_str().unwrap().len(), 64);
        serving.stopped().await.unwrap();
    })
    .await;
}

#[tokio::test]
async fn a_second_connection_of_a_key_replaces_the_first() {
    in_time(async {
        let serving = Serving::start(&file(2, 1), 2);
        let mut first = Worker::connect(1, &serving).await;
        first.check_in_unplanned().await;
        let second = Worker::connect(1, &serving).await;
        assert!(first.closed().await.contains("replaced by a newer connection"));
        // The first had checked in; the second has not, so nobody is idle.
        assert_eq!(status(serving.address).await["idle"], json!(0));
        let mut workers = vec![second, Worker::connect(2, &serving).await];
        for worker in &mut workers {
            worker.check_in().await;
        }
        round(&mut workers).await;
        leave(workers).await;
        assert!(serving.outcome().await.unwrap().finished);
    })
    .await;
}

#[tokio::test]
async fn more_connections_than_allowed_are_turned_away() {
    in_time(async {
        let mut file = file(2, 1);
        file.limits.connections_max = 1;
        let serving = Serving::start(&file, 2);
        let mut first = Worker::connect(1, &serving).await;
        first.check_in_unplanned().await;
        let client = packfed_protocol::quic::client(&worker(2)).unwrap();
        client.connect(serving.address, &coordinator().id()).await.unwrap_err();
        first.leave().await;
        serving.stopped().await.unwrap();
    })
    .await;
}

#[tokio::test]
async fn who_is_not_admitted_in_time_is_sent_away() {
    in_time(async {
        let mut file = file(2, 1);
        file.limits.update_timeout_ms = 50;
        let serving = Serving::start(&file, 1);
        let stranger = Worker::connect(99, &serving).await;
        assert!(stranger.closed().await.contains("not admitted in time"));
        serving.stopped().await.unwrap();
    })
    .await;
}

#[tokio::test]
async fn stopping_tells_the_workers_why() {
    in_time(async {
        let serving = Serving::start(&file(2, 1), 1);
        let mut worker = Worker::connect(1, &serving).await;
        worker.check_in_unplanned().await;
        assert!(!serving.stopped().await.unwrap().finished);
        assert!(worker.closed().await.contains("the coordinator stops"));
    })
    .await;
}

/// A disk that is full when the first update comes.
struct FullDisk(MemoryStore);

impl Store for FullDisk {
    fn claim(&mut self, plan: &RunPlan) -> Result<(), StoreError> {
        self.0.claim(plan)
    }

    fn write_all(&mut self, writes: &[Write]) -> Result<(), StoreError> {
        if writes.iter().any(|write| matches!(write, Write::Accept { .. })) {
            return Err(StoreError::Engine { doing: "write store".into(), why: "no space left".into() });
        }
        self.0.write_all(writes)
    }

    fn read_update(&self, round: Round, worker: &WorkerId, at: usize, bytes: &mut [u8]) -> Result<(), StoreError> {
        self.0.read_update(round, worker, at, bytes)
    }

    fn registry(&self) -> Result<Registry, StoreError> {
        self.0.registry()
    }

    fn ledger(&self) -> Result<Ledger, StoreError> {
        self.0.ledger()
    }

    fn load(&self, plan: &RunPlan) -> Result<Option<Stored>, StoreError> {
        self.0.load(plan)
    }
}

#[tokio::test]
async fn an_update_that_cannot_be_stored_is_not_acknowledged() {
    in_time(async {
        let serving = Serving::over(&file(1, 1), Box::new(FullDisk(MemoryStore::new(registry(1)))));
        let mut workers = fleet(1, &serving).await;
        let assignment = workers[0].assignment().await;
        assert!(workers[0].try_upload(&workers[0].update(&assignment)).await.is_none());
        assert_eq!(serving.outcome().await.unwrap_err().to_string(), "write store: no space left");
    })
    .await;
}
