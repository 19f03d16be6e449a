//! Payloads that are broken off, and go on: over the next connection, from another address, or not at all.

use std::time::Duration;

use packfed_coordinator::config::{CoordinatorFile, LayerTable};
use packfed_protocol::{Fetch, Message, Outcome, Prefix, RejectionCode as Code, Round, Signed};
use serde_json::{Value, json};

use crate::scripted::{Worker, fleet, leave, round, undisturbed_of};
use crate::served::{Serving, file, in_time, status};

/// One layer of 4,096 words: an update is 64 KiB, many packets.
fn large(workers: u32, rounds: u64) -> CoordinatorFile {
    let mut file = file(workers, rounds);
    let large = LayerTable { rows: 256, cols: 256, ..file.layers[0].clone() };
    file.layers = vec![large];
    file
}

/// Waits until the coordinator has read so much.
async fn has_read(serving: &Serving, bytes: u64) {
    while status(serving.address).await["bytes_up"].as_u64().unwrap() < bytes {
        tokio::task::yield_now().await;
    }
}

/// Sends the next `bytes` of an update and waits until they are read; says where it began.
async fn send_part(worker: &Worker, update: &Signed, bytes: usize, serving: &Serving) -> u64 {
    let (mut send, recv, resume) = worker.offer(update).await.unwrap().unwrap();
    let before = status(serving.address).await["bytes_up"].as_u64().unwrap();
    let offset = usize::try_from(resume.offset).unwrap();
    send.write_all(&update.payload[offset..offset + bytes]).await.unwrap();
    has_read(serving, before + bytes as u64).await;
    // The stream is left open; only the end of the connection ends it.
    std::mem::forget((send, recv));
    resume.offset
}

#[tokio::test]
async fn an_update_goes_on_over_the_next_connection() {
    in_time(async {
        let file = large(2, 1);
        let serving = Serving::start(&file, 2);
        let mut workers = fleet(2, &serving).await;
        let assignment = workers[0].assignment().await;
        let update = workers[0].update(&assignment);
        for (offset, bytes) in [(0, 10_000), (10_000, 1), (10_001, 40_000)] {
            assert_eq!(send_part(&workers[0], &update, bytes, &serving).await, offset);
            workers[0].connection.close(0_u8.into(), b"broken off");
            workers[0].reconnect_to(serving.address).await;
        }
        let before = status(serving.address).await["bytes_up"].as_u64().unwrap();
        workers[0].accepted(&update).await;
        let offer = Message::Update(update.clone()).frame().len();
        assert_eq!(status(serving.address).await["bytes_up"], json!(before + (offer + 65_536 - 50_001) as u64));
        workers[0].check_in().await;
        round(&mut workers[1..]).await;
        leave(workers).await;
        assert_same_model(serving, &file).await;
    })
    .await;
}

/// The run ends as if nothing had been broken off.
async fn assert_same_model(serving: Serving, file: &CoordinatorFile) {
    let outcome = serving.outcome().await.unwrap();
    assert!(outcome.finished);
    let report = serde_json::to_value(outcome.report).unwrap();
    assert_eq!(report["digest"], undisturbed_of(file, 2).await["digest"]);
    assert_eq!(report["counters"]["rejected"], json!({}));
}

#[tokio::test]
async fn a_newer_connection_takes_over_what_the_older_one_brought() {
    in_time(async {
        let serving = Serving::start(&large(1, 1), 1);
        let mut workers = fleet(1, &serving).await;
        let assignment = workers[0].assignment().await;
        let update = workers[0].update(&assignment);
        assert_eq!(send_part(&workers[0], &update, 30_000, &serving).await, 0);
        // Nobody closes the first connection: the network is just gone, as far as the worker knows.
        let first = workers[0].connection.clone();
        workers[0].reconnect_to(serving.address).await;
        let (_, _, resume) = workers[0].offer(&update).await.unwrap().unwrap();
        assert_eq!(resume.offset, 30_000);
        assert!(first.closed().await.to_string().contains("replaced by a newer connection"));
        serving.stopped().await.unwrap();
    })
    .await;
}

#[tokio::test]
async fn an_update_goes_on_from_another_address() {
    in_time(async {
        let file = large(2, 1);
        let serving = Serving::start(&file, 2);
        let mut workers = fleet(2, &serving).await;
        let assignment = workers[0].assignment().await;
        let update = workers[0].update(&assignment);
        let (mut send, mut recv, _) = workers[0].offer(&update).await.unwrap().unwrap();
        for part in update.payload.chunks(16_384) {
            send.write_all(part).await.unwrap();
            workers[0].client.rebind().unwrap();
        }
        send.finish().unwrap();
        assert_eq!(Worker::verdict(&mut recv).await, Outcome::Accepted);
        workers[0].check_in().await;
        round(&mut workers[1..]).await;
        leave(workers).await;
        assert_same_model(serving, &file).await;
    })
    .await;
}

#[tokio::test]
async fn a_catch_up_goes_on_over_the_next_connection_though_the_head_has_moved() {
    in_time(async {
        let file = large(1, 3);
        let serving = Serving::start(&file, 2);
        let mut workers = fleet(1, &serving).await;
        round(&mut workers).await;
        assert_eq!(workers[0].assignment().await.round, Round(2));

        // Comes anew, is told of version 1, and loses its connection half-way.
        let mut late = Worker::connect(1, &serving).await;
        late.check_in().await;
        let offer = late.hear_offer().await;
        let mut prefix = Prefix::new(offer.body);
        late.fetch(&mut prefix, 5_000).await.unwrap();
        assert!(prefix.missing() > 0, "{prefix:?}");
        late.connection.close(0_u8.into(), b"broken off");

        // Version 2 is committed meanwhile.
        workers[0].reconnect_to(serving.address).await;
        workers[0].check_in().await;
        let assignment = workers[0].assignment().await;
        workers[0].accepted(&workers[0].update(&assignment)).await;

        late.reconnect_to(serving.address).await;
        late.check_in().await;
        let newer = late.hear_offer().await;
        assert_ne!(newer.body, offer.body);
        late.fetch(&mut prefix, offer.body.bytes).await.unwrap();
        late.apply(&offer.complete(prefix.finish().unwrap()).unwrap());
        late.check_in().await;
        late.hear_frame().await.unwrap();
        assert_eq!(late.assignment().await.base.0, 2, "it goes on from version 1");
        serving.stopped().await.unwrap();
    })
    .await;
}

#[tokio::test]
async fn what_is_not_kept_begins_anew() {
    in_time(async {
        let mut file = large(1, 2);
        file.limits.kept_bytes_max = 20_000;
        let serving = Serving::start(&file, 1);
        let mut workers = fleet(1, &serving).await;
        let assignment = workers[0].assignment().await;
        let update = workers[0].update(&assignment);
        for (offset, bytes) in [(0, 20_000), (20_000, 1), (0, 1)] {
            assert_eq!(send_part(&workers[0], &update, bytes, &serving).await, offset);
            workers[0].connection.close(0_u8.into(), b"broken off");
            workers[0].reconnect_to(serving.address).await;
        }
        serving.stopped().await.unwrap();
    })
    .await;
}

#[tokio::test]
async fn a_payload_that_nobody_was_told_of_is_not_there() {
    in_time(async {
        let serving = Serving::start(&file(2, 1), 1);
        let workers = fleet(1, &serving).await;
        let fetch = Fetch { payload: packfed_protocol::Digest([7; 32]), offset: 0 };
        let answer = workers[0].ask(fetch).await.unwrap_err();
        assert!(matches!(answer, Message::Refused(refused) if refused.rejection.code == Code::PayloadGone));
        let stranger = Worker::connect(99, &serving).await;
        let refused: Value = match stranger.ask(fetch).await.unwrap_err() {
            Message::Verdict(verdict) => serde_json::to_value(verdict.outcome).unwrap(),
            other => panic!("{other:?}"),
        };
        assert_eq!(refused["Rejected"]["code"], json!("unknown-worker"));
        serving.stopped().await.unwrap();
    })
    .await;
}

#[tokio::test]
async fn who_lets_go_of_a_catch_up_fetches_the_rest_over_the_same_connection() {
    in_time(async {
        let file = large(1, 2);
        let serving = Serving::start(&file, 2);
        let mut workers = fleet(1, &serving).await;
        round(&mut workers).await;

        let mut late = Worker::connect(1, &serving).await;
        late.check_in().await;
        let offer = late.hear_offer().await;
        let mut prefix = Prefix::new(offer.body);
        // The stream is let go of half-way, and again when everything is there but its end may not be.
        for until in [5_000, offer.body.bytes, offer.body.bytes] {
            late.fetch(&mut prefix, until).await.unwrap();
        }
        late.apply(&offer.complete(prefix.finish().unwrap()).unwrap());
        assert!(late.connection.close_reason().is_none());
        serving.stopped().await.unwrap();
    })
    .await;
}

#[tokio::test]
async fn who_does_not_fetch_or_send_is_dropped_and_goes_on_later() {
    in_time(async {
        let mut file = large(1, 2);
        file.limits.update_timeout_ms = 1_000;
        let serving = Serving::start(&file, 1);
        let mut workers = fleet(1, &serving).await;
        let assignment = workers[0].assignment().await;
        let update = workers[0].update(&assignment);
        assert_eq!(send_part(&workers[0], &update, 10_000, &serving).await, 0);
        assert!(workers[0].closed().await.contains("too slow"));
        workers[0].reconnect_to(serving.address).await;
        let (_, _, resume) = workers[0].offer(&update).await.unwrap().unwrap();
        assert_eq!(resume.offset, 10_000);
        workers[0].reconnect_to(serving.address).await;
        workers[0].accepted(&update).await;

        workers[0].check_in().await;
        workers[0].hear_offer().await;
        assert!(workers[0].closed().await.contains("too slow"));
        serving.stopped().await.unwrap();
    })
    .await;
}

#[tokio::test]
async fn a_trickle_is_too_slow_though_it_never_stalls() {
    in_time(async {
        let mut file = large(1, 1);
        (file.limits.update_timeout_ms, file.limits.bytes_per_second_min) = (400, 1 << 30);
        let serving = Serving::start(&file, 1);
        let mut workers = fleet(1, &serving).await;
        let assignment = workers[0].assignment().await;
        let update = workers[0].update(&assignment);
        let (mut send, _recv, _) = workers[0].offer(&update).await.unwrap().unwrap();
        let trickle = async {
            // A write may hear of the end before `closed` does.
            while send.write_all(&[0]).await.is_ok() {
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
            std::future::pending::<()>().await;
        };
        tokio::select! {
            () = trickle => {}
            why = workers[0].closed() => assert!(why.contains("too slow"), "{why}"),
        }
        serving.stopped().await.unwrap();
    })
    .await;
}
