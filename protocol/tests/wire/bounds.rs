//! Headers and fields that break a rule: each is told which.

use packfed_protocol::{
    Assignment, CatchUp, ComeBack, DETAIL_BYTES_MAX, DecodeError, Digest, Enroll, FrameError, FrameHeader, FrameType,
    LAYER_NAME_BYTES_MAX, LAYERS_MAX, LaneClips, LaneScales, LayerPlan, Limits, LocalOptimizer, Message,
    NAME_CHARS_MAX, PROTOCOL_VERSION, Payload, Plan, Refused, Rejection, RejectionCode, Round, Signed, Token, Version,
};

use crate::samples;

fn judge(header: [u8; 8]) -> Result<FrameHeader, (RejectionCode, String)> {
    FrameHeader::decode(&header, &Limits::default()).map_err(|error: FrameError| {
        let rejection = Rejection::from(error);
        (rejection.code, rejection.detail)
    })
}

/// What becomes of a message on its way, with bounds on frames out of the way.
fn send(message: &Message) -> Result<Message, Rejection> {
    let limits = Limits { control_bytes_max: u32::MAX };
    Ok(Message::from_frame(&message.encode(), &limits)?)
}

#[track_caller]
fn assert_refused(message: &Message, code: RejectionCode, detail: &str) {
    assert_eq!(send(message), Err(Rejection::new(code, detail)));
}

#[track_caller]
fn assert_passes(message: &Message) {
    assert_eq!(send(message).as_ref(), Ok(message));
}

fn refused(code: RejectionCode, detail: &str) -> Result<FrameHeader, (RejectionCode, String)> {
    Err((code, detail.to_owned()))
}

#[test]
fn a_header_reads_as_written() {
    let header = FrameHeader { frame_type: FrameType::Status, length: 0x0102 };
    assert_eq!(header.encode(), *b"PF\x06\x18\x02\x01\x00\x00");
    assert_eq!(judge(header.encode()), Ok(header));
}

#[test]
fn another_magic_is_malformed() {
    let detail = "frame begins with 0x47 0x45, needs 0x50 0x46";
    assert_eq!(judge(*b"GET / HT"), refused(RejectionCode::Malformed, detail));
}

#[test]
fn another_version_is_unknown() {
    let detail = "protocol version is 2, needs 6";
    assert_eq!(judge(*b"PF\x02\x01\0\0\0\0"), refused(RejectionCode::UnknownVersion, detail));
}

#[test]
fn a_number_outside_the_table_is_unknown() {
    let detail = "frame type 0x07 is not in the table";
    assert_eq!(judge(*b"PF\x06\x07\0\0\0\0"), refused(RejectionCode::UnknownType, detail));
    for number in 0..=u8::MAX {
        let known = FrameType::ALL.iter().any(|frame_type| frame_type.number() == number);
        assert_eq!(judge([b'P', b'F', PROTOCOL_VERSION, number, 0, 0, 0, 0]).is_ok(), known, "{number:#04x}");
    }
}

#[test]
fn half_a_header_is_truncated() {
    let error = Message::from_frame(b"PF\x05", &Limits::default());
    assert_eq!(error, Err(DecodeError::Frame(FrameError::Truncated { found: 3 })));
}

#[test]
fn the_bound_holds_for_every_type() {
    let limits = Limits { control_bytes_max: 10 };
    for frame_type in FrameType::ALL {
        let within = FrameHeader { frame_type, length: 10 };
        assert_eq!(FrameHeader::decode(&within.encode(), &limits), Ok(within));

        let over = FrameHeader { frame_type, length: 11 };
        let error = FrameError::Oversized { frame_type, length: 11, bound: 10 };
        assert_eq!(FrameHeader::decode(&over.encode(), &limits), Err(error.clone()));
        assert_eq!(Rejection::from(error).code, RejectionCode::Oversized);
    }
}

#[test]
fn an_oversized_frame_names_the_claim_and_the_bound() {
    let detail = "status frame claims 1048577 bytes, bound is 1048576";
    assert_eq!(judge(*b"PF\x06\x18\x01\0\x10\0"), refused(RejectionCode::Oversized, detail));
}

#[test]
fn a_worker_name_is_bounded_in_characters() {
    let enroll = |name: String| Message::Enroll(Enroll { token: Token([0; 16]), name });
    assert_passes(&enroll("ä".repeat(NAME_CHARS_MAX)));
    let detail = "worker name has length 65, bound is 64";
    assert_refused(&enroll("ä".repeat(65)), RejectionCode::Oversized, detail);
    let detail = "worker name has a control character at position 2";
    assert_refused(&enroll("pi\u{1b}[2J".to_owned()), RejectionCode::Malformed, detail);
}

fn plan_of(layers: Vec<LayerPlan>) -> Message {
    Message::Plan(Plan {
        run: samples::run(),
        seed: [0; 32],
        base: Digest([0; 32]),
        layout: Digest([0; 32]),
        profile: 0,
        rounds: 1,
        examples_max: 1,
        layers,
    })
}

fn layer(name: &str) -> LayerPlan {
    LayerPlan { name: name.to_owned(), rows: 1, cols: 1, block: 1, residual: 1, gain_exponent: 0, rate_exponent: 0 }
}

#[test]
fn the_largest_plan_passes_and_no_larger_one() {
    let name = "n".repeat(LAYER_NAME_BYTES_MAX);
    let largest = plan_of(vec![layer(&name); LAYERS_MAX]);
    assert_passes(&largest);
    assert_eq!(Message::from_frame(&largest.encode(), &Limits::default()).as_ref(), Ok(&largest));
    let detail = "layers has length 4097, bound is 4096";
    assert_refused(&plan_of(vec![layer("n"); LAYERS_MAX + 1]), RejectionCode::Oversized, detail);
}

#[test]
fn a_layer_name_is_bounded_in_bytes() {
    let detail = "layer name has length 129, bound is 128";
    assert_refused(&plan_of(vec![layer(&"n".repeat(129))]), RejectionCode::Oversized, detail);
}

#[test]
fn scales_are_bounded_by_the_layers_of_a_plan() {
    let assignment = |layers| {
        let scales = vec![LaneScales { wave: 0, residual: 0 }; layers];
        let (round, base) = (Round(0), Version(0));
        let learning_rate = 0.1;
        Message::Assignment(Assignment {
            round,
            base,
            turn: 0,
            steps: 1,
            batch: 1,
            learning_rate,
            optimizer: LocalOptimizer::AdamW,
            weight_decay: 0.0,
            warmup: 0,
            clip_norm: 0.0,
            proximal: 0.0,
            deadline_ms: 1,
            scales,
        })
    };
    assert_passes(&assignment(LAYERS_MAX));
    let detail = "scales has length 4097, bound is 4096";
    assert_refused(&assignment(LAYERS_MAX + 1), RejectionCode::Oversized, detail);
}

#[test]
fn clip_counts_are_bounded_by_the_layers_of_a_plan() {
    let update = |layers| {
        let mut header = samples::update_header();
        header.clipped = vec![LaneClips::default(); layers];
        Message::Update(Signed::new(&samples::identity(), header, samples::payload()))
    };
    assert_passes(&update(LAYERS_MAX));
    let detail = "clipped has length 4097, bound is 4096";
    assert_refused(&update(LAYERS_MAX + 1), RejectionCode::Oversized, detail);
}

#[test]
fn a_detail_is_bounded_in_bytes() {
    let refused = |detail: String| {
        let code = RejectionCode::BadToken;
        Message::Refused(Refused { rejection: Rejection { code, detail } })
    };
    assert_passes(&refused("d".repeat(DETAIL_BYTES_MAX)));
    let detail = "rejection detail has length 257, bound is 256";
    assert_refused(&refused("d".repeat(257)), RejectionCode::Oversized, detail);
    let why = Rejection { code: RejectionCode::NotNeeded, detail: "d".repeat(257) };
    let come_back = Message::ComeBack(ComeBack { after_ms: 1, again_ms: 1, why });
    assert_refused(&come_back, RejectionCode::Oversized, detail);
}

#[test]
fn an_unknown_outcome_is_malformed() {
    let mut frame = samples::verdict(packfed_protocol::Outcome::Accepted).encode();
    frame[16] = 9;
    let error = Message::from_frame(&frame, &Limits::default()).map_err(Rejection::from);
    assert!(matches!(error, Err(Rejection { code: RejectionCode::Malformed, .. })), "{error:?}");
}

#[test]
fn debug_shows_neither_token_nor_payload() {
    let text = format!("{:?}", samples::enroll());
    assert!(text.contains("Token(..)") && !text.contains("84"), "{text}");
    let catch_up =
        CatchUp { from: Version(0), to: Version(1), digest: Digest([0; 32]), body: Payload::new(vec![0xee; 1000]) };
    assert!(format!("{catch_up:?}").contains("bytes: 1000 }"));
    assert!(format!("{:?}", samples::update()).contains("payload_bytes: 32"));
}
