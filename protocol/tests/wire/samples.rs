//! One message of every kind, small and with a different value in every field.

use packfed_protocol::{
    Assignment, CatchUp, CheckIn, ComeBack, Conditions, Digest, Enroll, Enrolled, Evaluation, Fetch, Finished,
    Identity, LaneClips, LaneScales, LayerPlan, LocalOptimizer, Message, Order, Outcome, Paired, Payload, PayloadId,
    Plan, Refused, Rejection, RejectionCode, ReleaseBody, ReleaseOutcome, ReleaseRef, ReleaseState, Request, Resume,
    Round, RunId, Signed, Status, Target, Token, Tried, UpdateHeader, Verdict, Version, WorkerId,
};

pub(crate) fn run() -> RunId {
    RunId([0x52; 16])
}

/// The worker of RFC 8032, section 7.1, test 2.
pub(crate) fn identity() -> Identity {
    let seed = *b"\x4c\xcd\x08\x9b\x28\xff\x96\xda\x9d\xb6\xc3\x46\xec\x11\x4e\x0f\
                  \x5b\x8a\x31\x9f\x35\xab\xa6\x24\xda\x8c\xf6\xed\x4f\xb8\xa6\xfb";
    Identity::from_seed(seed)
}

/// The header of an update of two words in one layer.
pub(crate) fn update_header() -> UpdateHeader {
    UpdateHeader {
        worker: identity().id(),
        run: run(),
        round: Round(7),
        base: Version(6),
        layout: Digest([0x4c; 32]),
        examples: 120,
        train_loss: 0.5,
        clipped: vec![LaneClips { wave: 1, residual: 9 }],
        words: 2,
        payload: Digest([0; 32]),
    }
}

pub(crate) fn payload() -> Vec<u8> {
    (0..32).collect()
}

pub(crate) fn update() -> Signed {
    Signed::new(&identity(), update_header(), payload())
}

pub(crate) fn enroll() -> Message {
    Message::Enroll(Enroll { token: Token([0x54; 16]), name: "pi-4".to_owned() })
}

pub(crate) fn check_in() -> Message {
    Message::CheckIn(CheckIn {
        run: run(),
        version: Version(6),
        digest: Digest([0x44; 32]),
        examples: 120,
        conditions: Conditions { charging: true, unmetered: false, idle: true },
        planned: true,
    })
}

pub(crate) fn enrolled() -> Message {
    Message::Enrolled(Enrolled { run: run(), worker: WorkerId([0x57; 32]) })
}

pub(crate) fn plan() -> Message {
    Message::Plan(Plan {
        run: run(),
        seed: [0x53; 32],
        base: Digest([0x42; 32]),
        layout: Digest([0x4c; 32]),
        profile: 1,
        rounds: 60,
        examples_max: 500,
        layers: vec![LayerPlan {
            name: "fc1".to_owned(),
            rows: 252,
            cols: 784,
            block: 28,
            residual: 96,
            gain_exponent: -2,
            rate_exponent: 3,
        }],
    })
}

pub(crate) fn assignment() -> Message {
    Message::Assignment(Assignment {
        round: Round(7),
        base: Version(6),
        turn: 3,
        steps: 10,
        batch: 32,
        learning_rate: 0.125,
        optimizer: LocalOptimizer::Sgd { momentum: 0.5 },
        weight_decay: 0.015_625,
        warmup: 3,
        clip_norm: 1.0,
        proximal: 0.25,
        deadline_ms: 30_000,
        scales: vec![LaneScales { wave: -12, residual: -9 }],
    })
}

pub(crate) fn catch_up() -> Message {
    Message::CatchUp(CatchUp {
        from: Version(4),
        to: Version(6),
        digest: Digest([0x44; 32]),
        body: Payload::new(vec![0xc0, 0xc1, 0xc2]),
    })
}

pub(crate) fn fetch() -> Message {
    Message::Fetch(Fetch { payload: Digest([0x50; 32]), offset: 0x0203_0405_0607_0809 })
}

pub(crate) fn order() -> Message {
    let why = "lou".to_owned();
    Message::Order(Box::new(Request { why, order: Order::Suspend(WorkerId([0x57; 32])) }))
}

pub(crate) fn release_state() -> Message {
    let loss = Paired { before: 1.0, after: 0.5, squares: 4.0 };
    let accuracy = Paired { before: 0.5, after: 0.75, squares: 4.0 };
    let evaluation = Evaluation { examples: 16, loss, accuracy: Some(accuracy), latency_ms: None };
    let outcome = ReleaseOutcome::Evaluated(evaluation);
    Message::ReleaseState(ReleaseState {
        runs: Some(ReleaseRef { number: 2, digest: Digest([0x6d; 32]) }),
        tried: Some(Tried { release: ReleaseRef { number: 3, digest: Digest([0x6e; 32]) }, outcome }),
    })
}

pub(crate) fn target() -> Message {
    let payload = PayloadId { digest: Digest([0x50; 32]), bytes: 9 };
    let body = ReleaseBody::From { state: Digest([0x44; 32]), payload };
    Message::Target(Target::Release { signed: vec![0xc0, 0xc1, 0xc2], back: false, body })
}

pub(crate) fn resume() -> Message {
    Message::Resume(Resume { offset: 0x0203_0405_0607_0809 })
}

pub(crate) fn rejection() -> Rejection {
    Rejection::new(RejectionCode::StaleBase, "base 3 < 5")
}

pub(crate) fn verdict(outcome: Outcome) -> Message {
    Message::Verdict(Verdict { round: Round(7), outcome })
}

pub(crate) fn finished() -> Message {
    Message::Finished(Finished { version: Version(60), digest: Digest([0x44; 32]) })
}

pub(crate) fn refused() -> Message {
    Message::Refused(Refused { rejection: rejection() })
}

pub(crate) fn come_back() -> Message {
    Message::ComeBack(ComeBack { after_ms: 60_000, again_ms: 1_000, why: rejection() })
}

pub(crate) fn status() -> Message {
    Message::Status(Status { json: "{}".to_owned() })
}

/// All of them, every outcome of a verdict included.
pub(crate) fn every_message() -> Vec<Message> {
    vec![
        enroll(),
        check_in(),
        Message::Update(update()),
        Message::StatusRequest,
        fetch(),
        order(),
        release_state(),
        enrolled(),
        plan(),
        assignment(),
        catch_up(),
        verdict(Outcome::Accepted),
        verdict(Outcome::Discarded),
        verdict(Outcome::Rejected(rejection())),
        finished(),
        refused(),
        status(),
        resume(),
        come_back(),
        target(),
    ]
}
