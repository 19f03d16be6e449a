//! What holds of every decoder and any bytes: one function a decoder.
//!
//! A function returns whether the bytes were accepted, and panics where a promise is broken: the decoder returns, and
//! what it accepts has one spelling. Stable tests and the fuzzer run the same functions.

use packfed_protocol::{
    Digest, Frame, FrameHeader, FrameType, HEADER_BYTES, Limits, Message, Offer, RejectionCode, RunId, Signed, Token,
    UpdateOffer, WorkerId, wire,
};

use super::samples;

/// A decoder and the name of its fuzz target.
#[derive(Clone, Copy)]
pub struct Target {
    /// The name.
    pub name: &'static str,
    /// Whether the bytes were accepted.
    pub run: fn(&[u8]) -> bool,
    /// Bytes that are.
    pub samples: fn() -> Vec<Vec<u8>>,
}

/// Every decoder of bytes.
pub const TARGETS: [Target; 5] = [
    Target { name: "header", run: header, samples: headers },
    Target { name: "frame", run: frame, samples: frames },
    Target { name: "body", run: body, samples: bodies },
    Target { name: "update", run: update, samples: updates },
    Target { name: "hex", run: hex, samples: hexes },
];

/// `FrameHeader::decode`: `[header]`, what follows is ignored.
pub fn header(input: &[u8]) -> bool {
    let Some(bytes) = input.first_chunk() else { return false };
    let limits = Limits::default();
    let Ok(header) = FrameHeader::decode(bytes, &limits) else { return false };
    assert_eq!(header.encode(), *bytes);
    assert!(header.length <= limits.control_bytes_max);
    true
}

/// `Message::from_frame`: `[frame]`.
pub fn frame(input: &[u8]) -> bool {
    let Ok(message) = Message::from_frame(input, &Limits::default()) else { return false };
    assert_eq!(message.encode(), input);
    true
}

/// `Frame::decode`, whatever the header would have said: `[type][body]`.
pub fn body(input: &[u8]) -> bool {
    let Some((&choice, body)) = input.split_first() else { return false };
    let frame_type = FrameType::ALL[usize::from(choice) % FrameType::ALL.len()];
    let Ok(length) = u32::try_from(body.len()) else { return false };
    let Ok(frame) = Frame::decode(FrameHeader { frame_type, length }, body) else { return false };
    assert_eq!(frame.frame_type(), frame_type);
    let again = match frame {
        Frame::Message(message) => message.frame()[HEADER_BYTES..].to_vec(),
        Frame::Offer(Offer::Update(UpdateOffer { header, signature })) => {
            Message::Update(Signed { header, signature, payload: Vec::new() }).frame()[HEADER_BYTES..].to_vec()
        }
        Frame::Offer(Offer::CatchUp(offer)) => wire::to_bytes(&offer),
    };
    assert_eq!(again, body);
    true
}

/// `Signed::verify` of whatever decodes to an update: `[frame]`. Accepted is what verifies.
pub fn update(input: &[u8]) -> bool {
    let Ok(Message::Update(signed)) = Message::from_frame(input, &Limits::default()) else { return false };
    let sender = signed.header.worker;
    let stranger = WorkerId(Digest::of(&sender.0).0);
    let refusal = signed.clone().verify(&stranger).expect_err("an update is of its own worker");
    assert_eq!(refusal.code, RejectionCode::BadSignature);
    match signed.verify(&sender) {
        Ok(verified) => {
            assert_eq!(verified.frame().to_vec(), input);
            assert_eq!(Digest::of(verified.payload()), verified.header().payload);
            true
        }
        Err(rejection) => {
            let ours = [RejectionCode::BadSignature, RejectionCode::PayloadDigest];
            assert!(ours.contains(&rejection.code), "{rejection:?}");
            false
        }
    }
}

/// Ids and tokens from text: `[kind][text]`.
pub fn hex(input: &[u8]) -> bool {
    let Some((&choice, text)) = input.split_first() else { return false };
    let Ok(text) = std::str::from_utf8(text) else { return false };
    let written = match choice % 4 {
        0 => text.parse::<WorkerId>().map(|id| id.to_string()),
        1 => text.parse::<RunId>().map(|id| id.to_string()),
        2 => text.parse::<Digest>().map(|id| id.to_string()),
        _ => text.parse::<Token>().map(|token| token.to_string()),
    };
    written.is_ok_and(|written| {
        assert_eq!(written, text.to_lowercase());
        true
    })
}

fn frames() -> Vec<Vec<u8>> {
    samples::every_message().iter().map(Message::encode).collect()
}

fn headers() -> Vec<Vec<u8>> {
    frames().into_iter().map(|frame| frame[..HEADER_BYTES].to_vec()).collect()
}

fn bodies() -> Vec<Vec<u8>> {
    let place = |message: &Message| (0..).zip(FrameType::ALL).find(|(_, of)| *of == message.frame_type());
    let body = |message: &Message| Some([&[place(message)?.0], &message.frame()[HEADER_BYTES..]].concat());
    samples::every_message().iter().filter_map(body).collect()
}

fn updates() -> Vec<Vec<u8>> {
    vec![Message::Update(samples::update()).encode()]
}

fn hexes() -> Vec<Vec<u8>> {
    [(0, 32), (1, 16), (2, 32), (3, 16)].map(|(kind, bytes)| [vec![kind], b"5a".repeat(bytes)].concat()).to_vec()
}
