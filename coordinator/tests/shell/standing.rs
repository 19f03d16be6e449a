//! Who is told to come back, who is shut out, and what the operator says of either.

use packfed_protocol::{Message, Order, RejectionCode, Request, WorkerId};
use serde_json::json;

use crate::scripted::{Worker, fleet, leave, round};
use crate::served::{Serving, ask, coordinator, file, in_time, order, status, worker};

#[tokio::test]
async fn a_worker_that_is_not_eligible_is_told_why_and_when_and_holds_no_place() {
    in_time(async {
        let mut file = file(2, 1);
        file.selection.examples_min = 51;
        let serving = Serving::start(&file, 2);
        let mut worker = Worker::connect(1, &serving).await;
        worker.check_in().await;
        let Some(Message::ComeBack(come_back)) = worker.hear().await else { panic!("it is not told") };
        assert_eq!(come_back.why.code, RejectionCode::Ineligible);
        assert_eq!(come_back.why.detail, "the worker has 50 examples, the run requires 51 or more");
        assert!((1..=120_000).contains(&come_back.after_ms), "{}", come_back.after_ms);
        assert_eq!(worker.hear().await, None);
        assert!(worker.closed().await.contains("nothing more to say"));
        assert_eq!(status(serving.address).await["idle"], json!(0));
        serving.stopped().await.unwrap();
    })
    .await;
}

#[tokio::test]
async fn a_revoked_worker_is_disconnected_and_never_drawn() {
    in_time(async {
        let serving = Serving::start(&file(2, 1), 3);
        let mut revoked = Worker::connect(1, &serving).await;
        revoked.check_in_unplanned().await;
        let row = order(serving.address, Order::Revoke(worker(1).id())).await.unwrap();
        assert_eq!(
            (&row["name"], &row["standing"], &row["connected"]),
            (&json!("w1"), &json!("revoked"), &json!(true))
        );
        assert_eq!(revoked.hear_refusal().await.code, RejectionCode::Revoked);
        assert!(revoked.closed().await.contains("nothing more to say"));
        revoked.reconnect_to(serving.address).await;
        revoked.check_in().await;
        assert_eq!(revoked.hear_refusal().await.code, RejectionCode::Revoked);
        let mut others = Vec::new();
        for n in [2, 3] {
            let mut other = Worker::connect(n, &serving).await;
            other.check_in().await;
            others.push(other);
        }
        round(&mut others).await;
        leave(others).await;
        assert!(serving.outcome().await.unwrap().finished);
    })
    .await;
}

#[tokio::test]
async fn a_suspended_worker_comes_back_until_it_is_admitted() {
    in_time(async {
        let serving = Serving::start(&file(1, 1), 1);
        order(serving.address, Order::Suspend(worker(1).id())).await.unwrap();
        let mut suspended = Worker::connect(1, &serving).await;
        suspended.check_in().await;
        assert!(matches!(suspended.hear().await, Some(Message::ComeBack(b)) if b.why.code == RejectionCode::Suspended));
        let row = order(serving.address, Order::Admit(worker(1).id())).await.unwrap();
        assert_eq!((&row["standing"], &row["strikes"]), (&json!("admitted"), &json!(0)));
        suspended.reconnect_to(serving.address).await;
        suspended.check_in().await;
        let mut admitted = vec![suspended];
        round(&mut admitted).await;
        leave(admitted).await;
        assert!(serving.outcome().await.unwrap().finished);
    })
    .await;
}

#[tokio::test]
async fn forged_updates_suspend_their_worker_and_the_list_says_so() {
    in_time(async {
        let mut file = file(2, 1);
        file.strikes.suspend_at = 2;
        let serving = Serving::start(&file, 2);
        let mut workers = fleet(2, &serving).await;
        let assignment = workers[0].assignment().await;
        let mut forged = workers[0].update(&assignment);
        forged.signature[0] ^= 1;
        let forged = Message::Update(forged).encode();
        for code in [RejectionCode::BadSignature, RejectionCode::BadSignature, RejectionCode::Suspended] {
            assert_eq!(workers[0].rejected(&forged).await, code);
        }
        let list = order(serving.address, Order::List(WorkerId([0; 32]))).await.unwrap();
        let rows = list["workers"].as_array().unwrap();
        let mut standings: Vec<_> = rows.iter().map(|row| (row["name"].clone(), row["standing"].clone())).collect();
        standings.sort_by_key(|(name, _)| name.to_string());
        assert_eq!(standings, [(json!("w1"), json!("suspended")), (json!("w2"), json!("admitted"))]);
        assert!(rows.iter().all(|row| row["seen_ms"].is_u64() && row["connected"] == json!(true)), "{rows:?}");
        assert_eq!(list["more"], json!(false));
        assert_eq!(status(serving.address).await["counters"]["suspended"], json!(1));
        serving.stopped().await.unwrap();
    })
    .await;
}

#[tokio::test]
async fn orders_are_the_operators_and_of_workers_that_there_are() {
    in_time(async {
        let serving = Serving::start(&file(2, 1), 1);
        let unknown = order(serving.address, Order::Revoke(worker(9).id())).await.unwrap_err();
        assert_eq!(unknown.code, RejectionCode::UnknownWorker);
        let revoke = Message::Order(Box::new(Request { why: String::new(), order: Order::Revoke(worker(1).id()) }));
        let refused = ask(&worker(1), serving.address, &coordinator().id(), &revoke).await;
        assert!(matches!(refused, Message::Refused(refused) if refused.rejection.code == RejectionCode::Unexpected));
        assert!(order(serving.address, Order::Admit(worker(1).id())).await.unwrap()["standing"] == json!("admitted"));
        serving.stopped().await.unwrap();
    })
    .await;
}
