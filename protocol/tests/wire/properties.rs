//! Claims about all messages and all bytes.

use packfed_protocol::{
    Assignment, CatchUp, CheckIn, ComeBack, Conditions, Digest, Enroll, Enrolled, Evaluation, Failure, Fetch, Finished,
    Frame, FrameHeader, FrameType, HEADER_BYTES, LaneClips, LaneScales, LayerPlan, Limits, LocalOptimizer, Message,
    Order, Outcome, Paired, Payload, PayloadId, Plan, Refused, Rejection, RejectionCode, ReleaseBody, ReleaseOutcome,
    ReleaseRef, ReleaseState, Request, Resume, RolloutVerb, Round, RunId, Settings, Signed, Status, Target, Token,
    Tried, UpdateHeader, Verdict, Version, WorkerId,
};
use proptest::collection::vec;
use proptest::option;
use proptest::prelude::*;
use proptest::sample::select;

use crate::samples;

fn text(chars_max: usize) -> impl Strategy<Value = String> {
    let printable = any::<char>().prop_filter("no control characters", |c| !c.is_control());
    vec(printable, 0..=chars_max).prop_map(String::from_iter)
}

fn digest() -> impl Strategy<Value = Digest> {
    any::<[u8; 32]>().prop_map(Digest)
}

fn rejection() -> impl Strategy<Value = Rejection> {
    (select(RejectionCode::ALL), text(100)).prop_map(|(code, detail)| Rejection::new(code, detail))
}

fn enroll() -> impl Strategy<Value = Message> {
    (any::<[u8; 16]>(), text(64)).prop_map(|(token, name)| Message::Enroll(Enroll { token: Token(token), name }))
}

fn check_in() -> impl Strategy<Value = Message> {
    (any::<[u8; 16]>(), any::<u64>(), digest(), any::<u32>(), any::<[bool; 4]>()).prop_map(
        |(run, version, digest, examples, [charging, unmetered, idle, planned])| {
            let (run, version) = (RunId(run), Version(version));
            let conditions = Conditions { charging, unmetered, idle };
            Message::CheckIn(CheckIn { run, version, digest, examples, conditions, planned })
        },
    )
}

fn update_header() -> impl Strategy<Value = UpdateHeader> {
    let clips = any::<(u32, u32)>().prop_map(|(wave, residual)| LaneClips { wave, residual });
    let ids = (any::<[u8; 32]>(), any::<[u8; 16]>(), any::<u64>(), any::<u64>());
    (ids, digest(), any::<u32>(), any::<f32>(), vec(clips, 0..8), digest()).prop_map(
        |((worker, run, round, base), layout, examples, train_loss, clipped, payload)| UpdateHeader {
            worker: WorkerId(worker),
            run: RunId(run),
            round: Round(round),
            base: Version(base),
            layout,
            examples,
            train_loss,
            clipped,
            words: 0,
            payload,
        },
    )
}

fn update() -> impl Strategy<Value = Message> {
    let words = vec(any::<[u8; 16]>(), 0..20);
    (update_header(), any::<[u8; 64]>(), words).prop_map(|(header, signature, words)| {
        let count = u32::try_from(words.len()).expect("fewer than twenty");
        let header = UpdateHeader { words: count, ..header };
        Message::Update(Signed { header, signature, payload: words.concat() })
    })
}

fn layer() -> impl Strategy<Value = LayerPlan> {
    (text(32), any::<(u32, u32, u16, u16, i8, i8)>()).prop_map(|(name, numbers)| {
        let (rows, cols, block, residual, gain_exponent, rate_exponent) = numbers;
        LayerPlan { name, rows, cols, block, residual, gain_exponent, rate_exponent }
    })
}

fn plan() -> impl Strategy<Value = Message> {
    let ids = (any::<[u8; 16]>(), any::<[u8; 32]>(), digest(), digest());
    (ids, any::<(u8, u64, u32)>(), vec(layer(), 0..8)).prop_map(
        |((run, seed, base, layout), (profile, rounds, examples_max), layers)| {
            let run = RunId(run);
            Message::Plan(Plan { run, seed, base, layout, profile, rounds, examples_max, layers })
        },
    )
}

fn assignment() -> impl Strategy<Value = Message> {
    let scales = vec(any::<(i8, i8)>().prop_map(|(wave, residual)| LaneScales { wave, residual }), 0..8);
    let optimizer =
        prop_oneof![Just(LocalOptimizer::AdamW), any::<f32>().prop_map(|momentum| LocalOptimizer::Sgd { momentum })];
    let numbers = any::<(u64, u64, u32, u32, u32, u32, u64)>();
    (numbers, any::<[f32; 4]>(), optimizer, scales).prop_map(|(numbers, rates, optimizer, scales)| {
        let (round, base, turn, steps, batch, warmup, deadline_ms) = numbers;
        let (round, base) = (Round(round), Version(base));
        let [learning_rate, weight_decay, clip_norm, proximal] = rates;
        Message::Assignment(Assignment {
            round,
            base,
            turn,
            steps,
            batch,
            learning_rate,
            optimizer,
            weight_decay,
            warmup,
            clip_norm,
            proximal,
            deadline_ms,
            scales,
        })
    })
}

fn catch_up() -> impl Strategy<Value = Message> {
    (any::<(u64, u64)>(), digest(), vec(any::<u8>(), 0..200)).prop_map(|((from, to), digest, body)| {
        Message::CatchUp(CatchUp { from: Version(from), to: Version(to), digest, body: Payload::new(body) })
    })
}

fn verdict() -> impl Strategy<Value = Message> {
    let outcome =
        prop_oneof![Just(Outcome::Accepted), Just(Outcome::Discarded), rejection().prop_map(Outcome::Rejected)];
    (any::<u64>(), outcome).prop_map(|(round, outcome)| Message::Verdict(Verdict { round: Round(round), outcome }))
}

fn order() -> impl Strategy<Value = Order> {
    let of_worker = vec![Order::List, Order::Admit, Order::Suspend, Order::Revoke];
    let settings = (option::of(any::<u64>()), option::of(any::<f32>()), option::of(any::<u32>()));
    prop_oneof![
        (select(of_worker), any::<[u8; 32]>()).prop_map(|(order, worker)| order(WorkerId(worker))),
        (option::of(any::<u64>()), text(40))
            .prop_map(|(version, notes)| Order::Release { version: version.map(Version), notes }),
        (any::<[u8; 32]>(), vec((text(20), text(20)), 0..4))
            .prop_map(|(worker, labels)| Order::Label { worker: WorkerId(worker), labels }),
        vec(digest(), 0..5).prop_map(Order::Tokens),
        select(vec![Order::Abandon, Order::Run, Order::Pause, Order::Unpause, Order::Releases, Order::Picture]),
        settings.prop_map(|(rounds, learning_rate, reporting_goal)| {
            Order::Set(Settings { rounds, learning_rate, reporting_goal, ..Settings::default() })
        }),
        any::<u64>().prop_map(|before| Order::Rounds(Round(before))),
        any::<u64>().prop_map(Order::Rollouts),
        any::<u64>().prop_map(Order::Rollout),
        (any::<u64>(), text(100)).prop_map(|(release, spec)| Order::Start { release, spec }),
        (any::<u64>(), select(RolloutVerb::ALL.to_vec())).prop_map(|(rollout, verb)| Order::Steer { rollout, verb }),
    ]
}

fn release_ref() -> impl Strategy<Value = ReleaseRef> {
    (any::<u64>(), digest()).prop_map(|(number, digest)| ReleaseRef { number, digest })
}

fn outcome() -> impl Strategy<Value = ReleaseOutcome> {
    let paired = || any::<[f64; 3]>().prop_map(|[before, after, squares]| Paired { before, after, squares });
    let evaluated = (any::<u32>(), paired(), option::of(paired()), option::of(paired())).prop_map(
        |(examples, loss, accuracy, latency_ms)| {
            ReleaseOutcome::Evaluated(Evaluation { examples, loss, accuracy, latency_ms })
        },
    );
    let failed = select(vec![Failure::Download, Failure::Verify, Failure::Crash]).prop_map(ReleaseOutcome::Failed);
    prop_oneof![evaluated, Just(ReleaseOutcome::Healthy), failed]
}

fn target() -> impl Strategy<Value = Target> {
    let body = prop_oneof![
        Just(ReleaseBody::Whole),
        (digest(), digest(), any::<u64>())
            .prop_map(|(state, digest, bytes)| { ReleaseBody::From { state, payload: PayloadId { digest, bytes } } }),
    ];
    let release = (vec(any::<u8>(), 0..200), any::<bool>(), body).prop_map(|(signed, back, body)| Target::Release {
        signed,
        back,
        body,
    });
    prop_oneof![Just(Target::Base), release]
}

fn message() -> impl Strategy<Value = Message> {
    prop_oneof![
        enroll(),
        check_in(),
        update(),
        Just(Message::StatusRequest),
        (digest(), any::<u64>()).prop_map(|(payload, offset)| Message::Fetch(Fetch { payload, offset })),
        any::<u64>().prop_map(|offset| Message::Resume(Resume { offset })),
        (text(40), order()).prop_map(|(why, order)| Message::Order(Box::new(Request { why, order }))),
        (option::of(release_ref()), option::of((release_ref(), outcome()))).prop_map(|(runs, tried)| {
            let tried = tried.map(|(release, outcome)| Tried { release, outcome });
            Message::ReleaseState(ReleaseState { runs, tried })
        }),
        target().prop_map(Message::Target),
        (any::<[u8; 16]>(), any::<[u8; 32]>())
            .prop_map(|(run, worker)| Message::Enrolled(Enrolled { run: RunId(run), worker: WorkerId(worker) })),
        plan(),
        assignment(),
        catch_up(),
        verdict(),
        (any::<u64>(), digest())
            .prop_map(|(version, digest)| Message::Finished(Finished { version: Version(version), digest })),
        rejection().prop_map(|rejection| Message::Refused(Refused { rejection })),
        (any::<u64>(), any::<u64>(), rejection()).prop_map(|(after_ms, again_ms, why)| Message::ComeBack(ComeBack {
            after_ms,
            again_ms,
            why
        })),
        text(500).prop_map(|json| Message::Status(Status { json })),
    ]
}

/// Bytes that are nearly a message: a sample with some of its bytes changed.
fn nearly_a_message() -> impl Strategy<Value = Vec<u8>> {
    let changes = vec((any::<prop::sample::Index>(), any::<u8>()), 1..4);
    (select(samples::every_message()), changes).prop_map(|(message, changes)| {
        let mut frame = message.encode();
        for (index, byte) in changes {
            let index = index.index(frame.len());
            frame[index] = byte;
        }
        frame
    })
}

proptest! {
    #[test]
    fn what_is_encoded_decodes_to_itself(message in message()) {
        let decoded = Message::from_frame(&message.encode(), &Limits::default());
        prop_assert_eq!(decoded, Ok(message));
    }

    #[test]
    fn decoding_any_body_of_any_type_returns(
        frame_type in select(FrameType::ALL.to_vec()),
        body in vec(any::<u8>(), 0..400),
    ) {
        let length = u32::try_from(body.len()).expect("a few hundred");
        // A message has one encoding: whatever decodes encodes to the same bytes.
        if let Ok(Frame::Message(message)) = Frame::decode(FrameHeader { frame_type, length }, &body) {
            prop_assert_eq!(&message.encode()[HEADER_BYTES..], body);
        }
    }

    #[test]
    fn decoding_any_bytes_returns(bytes in vec(any::<u8>(), 0..400)) {
        if let Ok(message) = Message::from_frame(&bytes, &Limits::default()) {
            prop_assert_eq!(message.encode(), bytes);
        }
    }

    #[test]
    fn decoding_a_damaged_frame_returns(bytes in nearly_a_message()) {
        if let Ok(message) = Message::from_frame(&bytes, &Limits::default()) {
            prop_assert_eq!(message.encode(), bytes);
        }
    }

    #[test]
    fn verifying_anything_returns(message in update()) {
        if let Message::Update(signed) = message {
            let sender = signed.header.worker;
            prop_assert!(signed.verify(&sender).is_err(), "nobody signed it");
        }
    }

    #[test]
    fn a_rejection_always_fits_its_frame(code in select(RejectionCode::ALL), detail in any::<String>()) {
        let message = Message::Refused(Refused { rejection: Rejection::new(code, detail) });
        let decoded = Message::from_frame(&message.encode(), &Limits::default());
        prop_assert_eq!(decoded, Ok(message));
    }
}
