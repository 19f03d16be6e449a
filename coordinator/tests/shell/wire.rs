//! Every kind of bad input has its own code, is counted, and disturbs nothing else.

use packfed_protocol::{
    Assignment, CheckIn, Conditions, Fetch, HEADER_BYTES, Message, Outcome, RejectionCode as Code, Round, Signed,
    Version,
};
use serde_json::json;

use crate::scripted::{Worker, fleet, leave, round, undisturbed};
use crate::served::{Serving, file, in_time, status};

const WORKERS: u8 = 3;

fn frame(update: &Signed) -> Vec<u8> {
    Message::Update(update.clone()).encode()
}

/// A frame with its bytes changed, and the length in its header made to fit if that is asked for.
fn changed(update: &Signed, change: impl FnOnce(&mut Vec<u8>)) -> Vec<u8> {
    let mut bytes = frame(update);
    change(&mut bytes);
    bytes
}

fn with_fitting_length(mut frame: Vec<u8>) -> Vec<u8> {
    let length = u32::try_from(frame.len() - HEADER_BYTES).unwrap();
    frame[4..8].copy_from_slice(&length.to_le_bytes());
    frame
}

/// Bytes that are no frame, or no update.
async fn send_unreadable(worker: &Worker, honest: &Signed) {
    let cut = |bytes: &mut Vec<u8>| bytes.truncate(bytes.len() - 5);
    let offer = Message::Update(honest.clone()).frame();
    assert_eq!(worker.rejected(&changed(honest, cut)).await, Code::Truncated);
    assert_eq!(worker.rejected(&with_fitting_length(offer[..offer.len() - 5].to_vec())).await, Code::Truncated);
    assert_eq!(worker.rejected(b"").await, Code::Truncated);
    assert_eq!(worker.rejected(&changed(honest, |bytes| bytes[7] = 0xff)).await, Code::Oversized);
    let more = |bytes: &mut Vec<u8>| bytes.push(0);
    assert_eq!(worker.rejected(&with_fitting_length([&offer[..], &[0]].concat())).await, Code::LeftOver);
    assert_eq!(worker.rejected(&changed(honest, more)).await, Code::LeftOver);
    assert_eq!(worker.rejected(&changed(honest, |bytes| bytes[3] = 0x7f)).await, Code::UnknownType);
    assert_eq!(worker.rejected(&changed(honest, |bytes| bytes[2] = 9)).await, Code::UnknownVersion);
    assert_eq!(worker.rejected(&changed(honest, |bytes| bytes[0] = b'Q')).await, Code::Malformed);
    assert_eq!(worker.rejected(&Message::StatusRequest.encode()).await, Code::Unexpected);
}

/// Updates whose proof does not hold.
async fn send_unproven(worker: &Worker, other: &Worker, honest: &Signed, assignment: &Assignment) {
    let signature = Signed { signature: [7; 64], ..honest.clone() };
    assert_eq!(worker.rejected(&frame(&signature)).await, Code::BadSignature);
    assert_eq!(worker.rejected(&frame(&other.update(assignment))).await, Code::BadSignature);
    let last = |bytes: &mut Vec<u8>| *bytes.last_mut().unwrap() ^= 1;
    assert_eq!(worker.rejected(&changed(honest, last)).await, Code::PayloadDigest);
}

/// Updates that are signed, and wrong.
async fn send_wrong(worker: &Worker, assignment: &Assignment) {
    let wrong =
        |change: fn(&mut packfed_protocol::UpdateHeader)| frame(&worker.changed_update(assignment, |_| (), change));
    assert_eq!(worker.rejected(&wrong(|header| header.base = Version(0))).await, Code::StaleBase);
    assert_eq!(worker.rejected(&wrong(|header| header.words += 1)).await, Code::WrongBlockCount);
    assert_eq!(worker.rejected(&wrong(|header| header.words -= 1)).await, Code::WrongBlockCount);
    assert_eq!(worker.rejected(&wrong(|header| header.examples = 101)).await, Code::ExampleCap);
    assert_eq!(worker.rejected(&wrong(|header| header.examples = 0)).await, Code::ExampleCap);
    assert_eq!(worker.rejected(&wrong(|header| header.train_loss = f32::NAN)).await, Code::NotFinite);
    assert_eq!(worker.rejected(&wrong(|header| header.run.0[0] ^= 1)).await, Code::WrongRun);
    assert_eq!(worker.rejected(&wrong(|header| header.layout.0[0] ^= 1)).await, Code::WrongLayout);
    assert_eq!(worker.rejected(&wrong(|header| header.round = Round(9))).await, Code::NotSelected);
}

#[tokio::test]
async fn bad_input_is_told_counted_and_disturbs_nobody() {
    in_time(async {
        let mut file = file(WORKERS.into(), 2);
        // What comes here would suspend its worker before all of it is told.
        file.strikes.suspend_at = 0;
        let serving = Serving::start(&file, WORKERS + 1);
        let mut workers = fleet(WORKERS, &serving).await;
        let first = workers[0].assignment().await;
        let of_round_1 = workers[0].update(&first);
        workers[0].accepted(&of_round_1).await;
        workers[0].check_in().await;
        round(&mut workers[1..]).await;

        let assignment = workers[0].assignment().await;
        let honest = workers[0].update(&assignment);
        send_unreadable(&workers[0], &honest).await;
        send_unproven(&workers[0], &workers[1], &honest, &assignment).await;
        send_wrong(&workers[0], &assignment).await;
        assert_eq!(workers[0].rejected(&frame(&of_round_1)).await, Code::Replayed);

        let unknown = Worker::connect(99, &serving).await;
        assert_eq!(unknown.rejected(&frame(&unknown.update(&assignment))).await, Code::UnknownWorker);
        let large = unknown.changed_update(&assignment, |_| (), |header| header.words = 1 << 16);
        assert_eq!(unknown.rejected(&frame(&large)).await, Code::UnknownWorker);
        let undrawn = Worker::connect(WORKERS + 1, &serving).await;
        assert_eq!(undrawn.rejected(&frame(&undrawn.update(&assignment))).await, Code::NotSelected);

        workers[0].accepted(&honest).await;
        assert_eq!(workers[0].rejected(&frame(&honest)).await, Code::Duplicate);
        workers[0].check_in().await;
        round(&mut workers[1..]).await;
        unknown.leave().await;
        undrawn.leave().await;
        leave(workers).await;

        let report = serde_json::to_value(serving.outcome().await.unwrap().report).unwrap();
        assert_eq!(report["digest"], undisturbed(WORKERS).await["digest"]);
        let counters = &report["counters"];
        let expected = json!({
            "truncated": 3, "oversized": 1, "left-over": 2, "unknown-type": 1, "unknown-version": 1, "malformed": 1,
            "unexpected": 1, "bad-signature": 2, "payload-digest": 1, "stale-base": 1, "wrong-block-count": 2,
            "example-cap": 2, "not-finite": 1, "wrong-run": 1, "wrong-layout": 1, "not-selected": 2, "replayed": 1,
            "unknown-worker": 2, "duplicate": 1,
        });
        assert_eq!(counters["rejected"], expected);
        let rejected: u64 = expected.as_object().unwrap().values().map(|n| n.as_u64().unwrap()).sum();
        assert_eq!((&counters["accepted"], &counters["discarded"]), (&json!(6), &json!(0)));
        assert_eq!(counters["arrived"], json!(6 + rejected));
    })
    .await;
}

#[tokio::test]
async fn bad_control_messages_are_refused_and_counted() {
    in_time(async {
        let serving = Serving::start(&file(WORKERS.into(), 1), WORKERS);
        let mut workers = fleet(WORKERS, &serving).await;
        let assignment = workers[0].assignment().await;

        // After a frame that has no place or no end nobody knows where the next begins: told, then closed.
        for (bytes, code) in [
            (frame(&workers[0].update(&assignment)), Code::Unexpected),
            (Message::CheckIn(check_in(&serving)).encode()[..9].to_vec(), Code::Truncated),
            (vec![0; 8], Code::Malformed),
        ] {
            let mut loud = Worker::connect(2, &serving).await;
            loud.say_bytes(&bytes).await;
            if code == Code::Truncated {
                loud.end_control().await;
            }
            assert_eq!(loud.hear_refusal().await.code, code);
            assert!(loud.hear().await.is_none());
            assert!(loud.closed().await.contains("nothing more to say"));
        }

        // A message that is whole and not in order leaves the stream as it is.
        let mut unknown = Worker::connect(99, &serving).await;
        unknown.say(&Message::CheckIn(check_in(&serving))).await;
        assert_eq!(unknown.hear_refusal().await.code, Code::UnknownWorker);
        unknown.say(&Message::StatusRequest).await;
        assert_eq!(unknown.hear_refusal().await.code, Code::Unexpected);
        unknown.leave().await;

        workers[1].reconnect_to(serving.address).await;
        workers[1].check_in().await;
        workers[0].accepted(&workers[0].update(&assignment)).await;
        workers[0].check_in().await;
        round(&mut workers[1..]).await;
        leave(workers).await;
        let counters = serde_json::to_value(serving.outcome().await.unwrap().report.status.counters).unwrap();
        let expected = json!({ "unexpected": 2, "truncated": 1, "malformed": 1, "unknown-worker": 1 });
        assert_eq!(counters["refused"], expected);
        assert_eq!((&counters["arrived"], &counters["accepted"]), (&json!(3), &json!(3)));
    })
    .await;
}

fn check_in(serving: &Serving) -> CheckIn {
    let (run, digest) = (serving.config.plan.raw().run, packfed_protocol::Digest([0; 32]));
    CheckIn { run, version: Version(0), digest, examples: 1, conditions: Conditions::ALL, planned: true }
}

#[tokio::test]
async fn a_late_update_is_discarded() {
    in_time(async {
        let mut file = file(3, 2);
        (file.reporting.goal, file.reporting.min, file.reporting.over_selection) = (2, 1, 1);
        let serving = Serving::start(&file, 3);
        let mut workers = fleet(3, &serving).await;
        let assignment = workers[2].assignment().await;
        round(&mut workers[..2]).await;
        assert_eq!(workers[2].upload(&workers[2].update(&assignment)).await, Outcome::Discarded);
        let counters = status(serving.address).await["counters"].clone();
        assert_eq!(
            (&counters["arrived"], &counters["accepted"], &counters["discarded"]),
            (&json!(3), &json!(2), &json!(1))
        );
        assert!(!serving.stopped().await.unwrap().finished);
    })
    .await;
}

#[tokio::test]
async fn a_slow_peer_loses_its_frame_and_nothing_else() {
    in_time(async {
        let mut file = file(1, 1);
        file.limits.update_timeout_ms = 300;
        let serving = Serving::start(&file, 1);
        let mut workers = fleet(1, &serving).await;
        let assignment = workers[0].assignment().await;
        let update = workers[0].update(&assignment);
        let bytes = frame(&update);
        for part in [3, 8, bytes.len() / 2, bytes.len()] {
            let outcome = workers[0].upload_unfinished(&bytes[..part]).await;
            let Outcome::Rejected(rejection) = outcome else { panic!("{outcome:?}") };
            assert_eq!((rejection.code, rejection.detail.as_str()), (Code::Truncated, "no whole frame within 300 ms"));
        }
        workers[0].accepted(&update).await;
        workers[0].check_in().await;
        leave(workers).await;
        assert!(serving.outcome().await.unwrap().finished);
    })
    .await;
}

#[tokio::test]
async fn bytes_are_counted_as_both_sides_see_them() {
    in_time(async {
        let report = undisturbed(WORKERS).await;
        let serving = Serving::start(&file(WORKERS.into(), 2), WORKERS);
        let check_in = Message::CheckIn(check_in(&serving)).encode().len();
        let worker = Worker::connect(1, &serving).await;
        let assignment = Assignment {
            round: Round(1),
            base: Version(0),
            turn: 0,
            steps: 10,
            batch: 8,
            learning_rate: 0.1,
            optimizer: packfed_protocol::LocalOptimizer::AdamW,
            weight_decay: 0.0,
            warmup: 0,
            clip_norm: 0.0,
            proximal: 0.0,
            deadline_ms: 0,
            scales: vec![packfed_protocol::LaneScales { wave: -12, residual: -6 }; 2],
        };
        let update = frame(&worker.update(&assignment)).len();
        // Two rounds of three workers, and a last check-in that is answered with the end; each commit is fetched.
        let fetch = Message::Fetch(Fetch { payload: packfed_protocol::Digest([0; 32]), offset: 0 }).encode().len();
        assert_eq!(report["bytes_up"], json!(6 * update + 9 * check_in + 6 * fetch));
        assert_eq!(report["bytes_up_in_all"], report["bytes_up"]);
        assert!(report["bytes_down"].as_u64().unwrap() > 6 * Message::Assignment(assignment).encode().len() as u64);
        let status = status(serving.address).await;
        assert_eq!((&status["bytes_up"], &status["bytes_up_in_all"]), (&json!(0), &json!(HEADER_BYTES)));
        drop(worker);
        serving.stopped().await.unwrap();
    })
    .await;
}
