//! Golden vectors: the bytes of one message of every kind, field by field, both ways.
//!
//! Digests of payloads and the signature were computed with other implementations (BLAKE3 by hand,
//! Ed25519 from OpenSSL), so the vectors also say what is hashed and what is signed.
//!
//! If one of these breaks, old and new programs no longer understand each other: raise
//! `PROTOCOL_VERSION` rather than change a vector.

use packfed_protocol::{FrameType, Limits, Message, Outcome};

use crate::samples;

/// Checks that `message` has the bytes written out in `fields`, and that these are `message`.
#[track_caller]
fn check(message: &Message, fields: &[&str]) {
    let bytes = hex::decode(fields.concat().replace(' ', "")).expect("the vector is hex");
    assert_eq!(hex::encode(message.encode()), hex::encode(&bytes), "encoding");
    assert_eq!(Message::from_frame(&bytes, &Limits::default()).as_ref(), Ok(message), "decoding");
}

#[test]
fn enroll_is_golden() {
    check(
        &samples::enroll(),
        &[
            "5046 06 01 1c000000",              // PF, version 6, Enroll, 28 bytes
            "54545454545454545454545454545454", // token
            "0400000000000000",                 // name: length
            "70692d34",                         // name: "pi-4"
        ],
    );
}

#[test]
fn check_in_is_golden() {
    check(
        &samples::check_in(),
        &[
            "5046 06 02 40000000",              // PF, version 6, CheckIn, 64 bytes
            "52525252525252525252525252525252", // run
            "0600000000000000",                 // version
            "4444444444444444444444444444444444444444444444444444444444444444", // digest
            "78000000",                         // examples
            "01",                               // conditions: charging
            "00",                               // conditions: unmetered, not
            "01",                               // conditions: idle
            "01",                               // planned
        ],
    );
}

#[test]
fn update_is_golden() {
    check(
        &Message::Update(samples::update()),
        &[
            "5046 06 03 dc000000", // PF, version 6, Update, 220 bytes
            "3d4017c3e843895a92b70aa74d1b7ebc9c982ccf2ec4968cc0cd55f12af4660c", // worker
            "52525252525252525252525252525252", // run
            "0700000000000000",    // round
            "0600000000000000",    // base
            "4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c", // layout
            "78000000",            // examples
            "0000003f",            // train_loss: 0.5
            "0100000000000000",    // clipped: one layer
            "01000000",            // clipped: wave
            "09000000",            // clipped: residual
            "02000000",            // words
            "e528e95798037df410543d9f31e396ecdd458d71b157d6014398bae32fb56c65", // payload
            "db5198c461c1db61493fe72d5cd0f02394fe9be7a69148f783f7d099b8f322b9", // signature, R
            "fa372354429f817a990a7c34484571914d7d69c5b42b7e4fa6fd62a9c56a2e0e", // signature, s
            "000102030405060708090a0b0c0d0e0f", // after the frame: first word
            "101112131415161718191a1b1c1d1e1f", // second word
        ],
    );
}

#[test]
fn status_request_is_golden() {
    check(&Message::StatusRequest, &["5046 06 04 00000000"]); // PF, version 6, StatusRequest, 0 bytes
}

#[test]
fn fetch_is_golden() {
    check(
        &samples::fetch(),
        &[
            "5046 06 0a 28000000", // PF, version 6, Fetch, 40 bytes
            "5050505050505050505050505050505050505050505050505050505050505050", // payload
            "0908070605040302",    // offset
        ],
    );
}

#[test]
fn order_is_golden() {
    check(
        &samples::order(),
        &[
            "5046 06 0b 2f000000", // PF, version 6, Order, 47 bytes
            "0300000000000000",    // why: length
            "6c6f75",              // why: "lou"
            "02000000",            // suspend
            "5757575757575757575757575757575757575757575757575757575757575757", // worker
        ],
    );
}

#[test]
fn release_state_is_golden() {
    check(
        &samples::release_state(),
        &[
            "5046 06 0c 8c000000", // PF, version 6, ReleaseState, 140 bytes
            "01",                  // runs: something
            "0200000000000000",    // number
            "6d6d6d6d6d6d6d6d6d6d6d6d6d6d6d6d6d6d6d6d6d6d6d6d6d6d6d6d6d6d6d6d", // manifest's digest
            "01",                  // tried: something
            "0300000000000000",    // number
            "6e6e6e6e6e6e6e6e6e6e6e6e6e6e6e6e6e6e6e6e6e6e6e6e6e6e6e6e6e6e6e6e", // manifest's digest
            "00000000",            // outcome: evaluated
            "10000000",            // examples
            "000000000000f03f",    // loss: before, 1
            "000000000000e03f",    // loss: after, 0.5
            "0000000000001040",    // loss: squares, 4
            "01",                  // accuracy: given
            "000000000000e03f",    // accuracy: before, 0.5
            "000000000000e83f",    // accuracy: after, 0.75
            "0000000000001040",    // accuracy: squares, 4
            "00",                  // latency: not given
        ],
    );
}

#[test]
fn target_is_golden() {
    check(
        &samples::target(),
        &[
            "5046 06 1c 5c000000", // PF, version 6, Target, 92 bytes
            "01000000",            // a release
            "0300000000000000",    // signed: length
            "c0c1c2",              // signed
            "00",                  // back: no
            "01000000",            // body: from a state
            "4444444444444444444444444444444444444444444444444444444444444444", // its digest
            "5050505050505050505050505050505050505050505050505050505050505050", // payload
            "0900000000000000",    // payload: bytes
        ],
    );
}

#[test]
fn resume_is_golden() {
    check(
        &samples::resume(),
        &[
            "5046 06 1a 08000000", // PF, version 6, Resume, 8 bytes
            "0908070605040302",    // offset
        ],
    );
}

#[test]
fn enrolled_is_golden() {
    check(
        &samples::enrolled(),
        &[
            "5046 06 11 30000000",              // PF, version 6, Enrolled, 48 bytes
            "52525252525252525252525252525252", // run
            "5757575757575757575757575757575757575757575757575757575757575757", // worker
        ],
    );
}

#[test]
fn plan_is_golden() {
    check(
        &samples::plan(),
        &[
            "5046 06 12 9e000000",              // PF, version 6, Plan, 158 bytes
            "52525252525252525252525252525252", // run
            "5353535353535353535353535353535353535353535353535353535353535353", // seed
            "4242424242424242424242424242424242424242424242424242424242424242", // base
            "4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c", // layout
            "01",                               // profile
            "3c00000000000000",                 // rounds
            "f4010000",                         // examples_max
            "0100000000000000",                 // layers: one
            "0300000000000000",                 // name: length
            "666331",                           // name: "fc1"
            "fc000000",                         // rows
            "10030000",                         // cols
            "1c00",                             // block
            "6000",                             // residual
            "fe",                               // gain_exponent: -2
            "03",                               // rate_exponent
        ],
    );
}

#[test]
fn assignment_is_golden() {
    check(
        &samples::assignment(),
        &[
            "5046 06 13 4a000000", // PF, version 6, Assignment, 74 bytes
            "0700000000000000",    // round
            "0600000000000000",    // base
            "03000000",            // turn
            "0a000000",            // steps
            "20000000",            // batch
            "0000003e",            // learning_rate: 0.125
            "01000000",            // optimizer: Sgd
            "0000003f",            // optimizer: momentum, 0.5
            "0000803c",            // weight_decay: 2^-6
            "03000000",            // warmup
            "0000803f",            // clip_norm: 1
            "0000803e",            // proximal: 0.25
            "3075000000000000",    // deadline_ms
            "0100000000000000",    // scales: one layer
            "f4",                  // scales: wave, -12
            "f7",                  // scales: residual, -9
        ],
    );
}

#[test]
fn catch_up_is_golden() {
    check(
        &samples::catch_up(),
        &[
            "5046 06 14 58000000", // PF, version 6, CatchUp, 88 bytes
            "0400000000000000",    // from
            "0600000000000000",    // to
            "4444444444444444444444444444444444444444444444444444444444444444", // digest
            "a4744294924025eb570403831e5376d31188be1c652c3ece958f4216e0ec09ed", // body: digest
            "0300000000000000",    // body: bytes
            "c0c1c2",              // after the frame: the body
        ],
    );
}

#[test]
fn accepted_is_golden() {
    check(
        &samples::verdict(Outcome::Accepted),
        &[
            "5046 06 15 0c000000", // PF, version 6, Verdict, 12 bytes
            "0700000000000000",    // round
            "00000000",            // outcome: accepted
        ],
    );
}

#[test]
fn discarded_is_golden() {
    check(
        &samples::verdict(Outcome::Discarded),
        &[
            "5046 06 15 0c000000", // PF, version 6, Verdict, 12 bytes
            "0700000000000000",    // round
            "01000000",            // outcome: discarded
        ],
    );
}

#[test]
fn rejected_is_golden() {
    check(
        &samples::verdict(Outcome::Rejected(samples::rejection())),
        &[
            "5046 06 15 20000000",  // PF, version 6, Verdict, 32 bytes
            "0700000000000000",     // round
            "02000000",             // outcome: rejected
            "1600",                 // code: stale-base, 22
            "0a00000000000000",     // detail: length
            "626173652033203c2035", // detail: "base 3 < 5"
        ],
    );
}

#[test]
fn finished_is_golden() {
    check(
        &samples::finished(),
        &[
            "5046 06 16 28000000", // PF, version 6, Finished, 40 bytes
            "3c00000000000000",    // version
            "4444444444444444444444444444444444444444444444444444444444444444", // digest
        ],
    );
}

#[test]
fn refused_is_golden() {
    check(
        &samples::refused(),
        &[
            "5046 06 17 14000000",  // PF, version 6, Refused, 20 bytes
            "1600",                 // code: stale-base, 22
            "0a00000000000000",     // detail: length
            "626173652033203c2035", // detail: "base 3 < 5"
        ],
    );
}

#[test]
fn come_back_is_golden() {
    check(
        &samples::come_back(),
        &[
            "5046 06 1b 24000000",  // PF, version 6, ComeBack, 36 bytes
            "60ea000000000000",     // after_ms
            "e803000000000000",     // again_ms
            "1600",                 // why: code: stale-base, 22
            "0a00000000000000",     // why: detail: length
            "626173652033203c2035", // why: detail: "base 3 < 5"
        ],
    );
}

#[test]
fn status_is_golden() {
    check(
        &samples::status(),
        &[
            "5046 06 18 0a000000", // PF, version 6, Status, 10 bytes
            "0200000000000000",    // json: length
            "7b7d",                // json: "{}"
        ],
    );
}

#[test]
fn every_type_in_the_table_has_its_number_and_a_vector() {
    let numbers: Vec<u8> = FrameType::ALL.iter().map(|frame_type| frame_type.number()).collect();
    assert_eq!(numbers, [1, 2, 3, 4, 10, 11, 12, 0x11, 0x12, 0x13, 0x14, 0x15, 0x16, 0x17, 0x18, 0x1a, 0x1b, 0x1c]);

    let mut sampled: Vec<FrameType> = samples::every_message().iter().map(Message::frame_type).collect();
    sampled.dedup();
    assert_eq!(sampled, FrameType::ALL);
}
