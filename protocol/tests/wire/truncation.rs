//! Frames that are cut, or that go on.

use packfed_protocol::{DecodeError, Frame, FrameHeader, HEADER_BYTES, Limits, Message, Rejection, RejectionCode};

use crate::samples;

fn code_of(error: DecodeError) -> RejectionCode {
    Rejection::from(error).code
}

fn refusal(frame: &[u8]) -> Option<RejectionCode> {
    Message::from_frame(frame, &Limits::default()).err().map(code_of)
}

/// The frame with another body, and the header made to agree with it.
fn with_body(frame: &[u8], body: &[u8]) -> Vec<u8> {
    let mut frame = frame[..HEADER_BYTES].to_vec();
    let length = u32::try_from(body.len()).expect("samples are small");
    frame[4..].copy_from_slice(&length.to_le_bytes());
    frame.extend_from_slice(body);
    frame
}

#[test]
fn a_frame_cut_anywhere_is_truncated() {
    for message in samples::every_message() {
        let frame = message.encode();
        for length in 0..frame.len() {
            assert_eq!(refusal(&frame[..length]), Some(RejectionCode::Truncated), "{message:?} at {length}");
        }
    }
}

#[test]
fn one_byte_after_a_frame_is_left_over() {
    for message in samples::every_message() {
        let mut frame = message.encode();
        frame.push(0);
        assert_eq!(refusal(&frame), Some(RejectionCode::LeftOver), "{message:?}");
    }
}

/// Bytes of the frame, without what follows it.
fn framed(message: &Message) -> usize {
    message.frame().len()
}

#[test]
fn a_body_cut_anywhere_is_truncated_even_if_the_header_agrees() {
    for message in samples::every_message() {
        let frame = message.frame();
        for length in 0..frame.len() - HEADER_BYTES {
            let cut = with_body(&frame, &frame[HEADER_BYTES..][..length]);
            assert_eq!(refusal(&cut), Some(RejectionCode::Truncated), "{message:?} at {length}");
        }
    }
}

#[test]
fn one_byte_after_a_body_is_left_over_even_if_the_header_agrees() {
    for message in samples::every_message() {
        let frame = message.frame();
        let body = [&frame[HEADER_BYTES..], &[0]].concat();
        assert_eq!(refusal(&with_body(&frame, &body)), Some(RejectionCode::LeftOver), "{message:?}");
    }
}

#[test]
fn a_payload_of_another_length_names_both_numbers() {
    let text = |frame: &[u8]| Message::from_frame(frame, &Limits::default()).map_err(|error| error.to_string());
    let bytes = Message::Update(samples::update()).encode();
    assert_eq!(text(&bytes[..bytes.len() - 1]), Err("payload has 31 bytes, needs at least 32".to_owned()));
    let long = [&bytes[..], &[0]].concat();
    assert_eq!(text(&long), Err("payload has 33 bytes, needs 32: 1 left over".to_owned()));
}

#[test]
fn a_payload_that_is_not_the_announced_one_is_refused() {
    let message = samples::catch_up();
    for byte in framed(&message)..message.encode().len() {
        let mut bytes = message.encode();
        bytes[byte] ^= 1;
        assert_eq!(refusal(&bytes), Some(RejectionCode::PayloadDigest));
    }
}

#[test]
fn a_word_count_that_lies_is_refused_before_it_is_believed() {
    let mut header = samples::update_header();
    header.words = u32::MAX;
    let signed = packfed_protocol::Signed::new(&samples::identity(), header, samples::payload());
    assert_eq!(refusal(&Message::Update(signed).encode()), Some(RejectionCode::Truncated));
}

#[test]
fn a_body_of_another_length_than_its_header_is_refused() {
    let frame = samples::status().encode();
    let header = frame.first_chunk().expect("a frame has a header");
    let header = FrameHeader::decode(header, &Limits::default()).expect("the sample is in order");
    let body = &frame[HEADER_BYTES..];
    assert_eq!(Frame::decode(header, body), Ok(Frame::Message(samples::status())));
    assert_eq!(Frame::decode(header, &body[1..]).map_err(code_of), Err(RejectionCode::Truncated));
}
