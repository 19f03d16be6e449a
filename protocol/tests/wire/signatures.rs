//! What a signature is worth: nothing anywhere but where it was made for.

use packfed_protocol::{
    Digest, Identity, Limits, Message, Rejection, RejectionCode, Round, RunId, Signed, UPDATE_DOMAIN, UpdateHeader,
    Version, WorkerId,
};

use crate::samples;

/// What becomes of an update whose header was changed after signing.
fn replayed(change: impl FnOnce(&mut UpdateHeader)) -> RejectionCode {
    let mut signed = samples::update();
    change(&mut signed.header);
    let sender = signed.header.worker;
    refusal(signed, &sender)
}

#[track_caller]
fn refusal(signed: Signed, sender: &WorkerId) -> RejectionCode {
    signed.verify(sender).expect_err("it must not verify").code
}

#[test]
fn what_was_signed_verifies_and_keeps_its_frame() {
    let signed = samples::update();
    let frame = Message::Update(signed.clone()).encode();
    let verified = signed.clone().verify(&samples::identity().id()).unwrap();
    assert_eq!(verified.header(), &signed.header);
    assert_eq!(verified.payload(), samples::payload());
    assert_eq!(verified.frame().to_vec(), frame);
    assert_eq!(verified.into_parts(), (signed.header, signed.payload));
}

#[test]
fn a_journalled_frame_verifies_again() {
    let worker = samples::identity().id();
    let journalled = samples::update().verify(&worker).unwrap().frame().to_vec();
    let Message::Update(loaded) = Message::from_frame(&journalled, &Limits::default()).unwrap() else {
        panic!("the journal holds updates");
    };
    assert_eq!(loaded.verify(&worker).unwrap().frame().to_vec(), journalled);
}

#[test]
fn an_update_for_one_run_is_none_for_another() {
    assert_eq!(replayed(|header| header.run = RunId([9; 16])), RejectionCode::BadSignature);
}

#[test]
fn an_update_for_one_round_is_none_for_another() {
    assert_eq!(replayed(|header| header.round = Round(8)), RejectionCode::BadSignature);
}

#[test]
fn an_update_from_one_base_is_none_from_another() {
    assert_eq!(replayed(|header| header.base = Version(7)), RejectionCode::BadSignature);
}

#[test]
fn an_update_of_one_layout_is_none_of_another() {
    assert_eq!(replayed(|header| header.layout = Digest([9; 32])), RejectionCode::BadSignature);
}

#[test]
fn nobody_raises_an_example_count_on_the_way() {
    assert_eq!(replayed(|header| header.examples += 1), RejectionCode::BadSignature);
}

#[test]
fn nobody_changes_a_report_on_the_way() {
    assert_eq!(replayed(|header| header.train_loss = 0.4), RejectionCode::BadSignature);
    assert_eq!(replayed(|header| header.clipped.clear()), RejectionCode::BadSignature);
}

#[test]
fn nobody_swaps_the_payload_for_another() {
    let mut signed = samples::update();
    signed.payload[0] ^= 1;
    let sender = signed.header.worker;
    assert_eq!(refusal(signed.clone(), &sender), RejectionCode::PayloadDigest);

    signed.header.payload = Digest::of(&signed.payload);
    assert_eq!(refusal(signed, &sender), RejectionCode::BadSignature);
}

#[test]
fn a_payload_of_another_length_does_not_verify() {
    let sender = samples::identity().id();
    let mut short = samples::update();
    short.payload.pop();
    assert_eq!(refusal(short, &sender), RejectionCode::Truncated);

    let mut long = samples::update();
    long.payload.push(0);
    assert_eq!(refusal(long, &sender), RejectionCode::LeftOver);
}

#[test]
fn nobody_sends_the_update_of_somebody_else() {
    let thief = Identity::from_seed([3; 32]);
    let Rejection { code, detail } = samples::update().verify(&thief.id()).unwrap_err();
    assert_eq!(code, RejectionCode::BadSignature);
    assert_eq!(detail, format!("update is of worker {}, sent by {}", samples::identity().id(), thief.id()));
}

#[test]
fn nobody_signs_for_somebody_else() {
    let thief = Identity::from_seed([3; 32]);
    let forged = Signed::new(&thief, samples::update_header(), samples::payload());
    assert_eq!(refusal(forged, &samples::identity().id()), RejectionCode::BadSignature);
}

#[test]
fn a_signature_of_another_domain_is_none_here() {
    use ed25519_dalek::{Signer, SigningKey};
    let key = SigningKey::from_bytes(&[3; 32]);
    let worker = WorkerId(key.verifying_key().to_bytes());
    let header = UpdateHeader { worker, payload: Digest::of(&samples::payload()), ..samples::update_header() };
    let signed_for = |domain: &str| {
        let message = [domain.as_bytes(), &packfed_protocol::wire::to_bytes(&header)].concat();
        let signature = key.sign(&message).to_bytes();
        Signed { header: header.clone(), signature, payload: samples::payload() }.verify(&worker)
    };
    assert!(signed_for(UPDATE_DOMAIN).is_ok());
    assert_eq!(UPDATE_DOMAIN, "packfed/update/1");
    for domain in ["", "packfed/update/2", "packfed/release/1"] {
        assert_eq!(signed_for(domain).expect_err("another domain").code, RejectionCode::BadSignature);
    }
}

#[test]
fn a_small_order_key_is_nobody() {
    // With the neutral element as key, R = neutral and s = 0 satisfy the plain equation for
    // every message: without the strict rules anyone could send updates as this worker.
    let mut neutral = [0; 32];
    neutral[0] = 1;
    let mut signature = [0; 64];
    signature[..32].copy_from_slice(&neutral);
    let worker = WorkerId(neutral);

    let header = UpdateHeader { worker, payload: Digest::of(&samples::payload()), ..samples::update_header() };
    let signed = Signed { header, signature, payload: samples::payload() };
    assert_eq!(refusal(signed, &worker), RejectionCode::BadSignature);
}
