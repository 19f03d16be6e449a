//! Every decoder of bytes against any bytes, damaged encodings, and hand-written bombs; the fuzzer's short form.

pub mod allocation;
mod bombs;
pub mod samples;
pub mod targets;

use proptest::prelude::*;

use samples::sample;
use targets::{TARGETS, Target};

/// One way to damage an encoding.
#[derive(Clone, Copy, Debug)]
enum Damage {
    Flip(usize, u8),
    Set(usize, u8),
    Truncate(usize),
    Extend(u8),
    /// A part of another encoding of the same target, over this one.
    Splice(usize, u64),
}

fn damage() -> impl Strategy<Value = Damage> {
    let edge = prop::sample::select(vec![0, 1, 0x7c, 0x7f, 0x80, 0xfe, 0xff]);
    prop_oneof![
        (any::<usize>(), 0..8u8).prop_map(|(at, bit)| Damage::Flip(at, bit)),
        (any::<usize>(), edge).prop_map(|(at, value)| Damage::Set(at, value)),
        any::<usize>().prop_map(Damage::Truncate),
        any::<u8>().prop_map(Damage::Extend),
        (any::<usize>(), 0..32u64).prop_map(|(at, other)| Damage::Splice(at, other)),
    ]
}

fn damaged(name: &str, mut bytes: Vec<u8>, damages: &[Damage]) -> Vec<u8> {
    for &damage in damages {
        let place = |at: usize| at % bytes.len().max(1);
        match damage {
            Damage::Flip(at, bit) => {
                let at = place(at);
                bytes.iter_mut().skip(at).take(1).for_each(|byte| *byte ^= 1 << bit);
            }
            Damage::Set(at, value) => {
                let at = place(at);
                bytes.iter_mut().skip(at).take(1).for_each(|byte| *byte = value);
            }
            Damage::Truncate(at) => bytes.truncate(place(at)),
            Damage::Extend(value) => bytes.push(value),
            Damage::Splice(at, other) => {
                let (at, other) = (place(at), sample(name, other));
                bytes.truncate(at);
                bytes.extend(other.get(at..).unwrap_or_default());
            }
        }
    }
    bytes
}

#[test]
fn every_sample_is_accepted() {
    for Target { name, run } in TARGETS {
        for number in 0..64 {
            assert!(run(&sample(name, number)), "{name} {number}");
        }
    }
}

#[test]
fn every_prefix_and_every_flipped_bit_of_a_sample_returns() {
    for Target { name, run } in TARGETS {
        for number in 0..4 {
            let bytes = sample(name, number);
            for end in 0..bytes.len() {
                run(&bytes[..end]);
            }
            for bit in 0..8 * bytes.len().min(400) {
                let mut flipped = bytes.clone();
                flipped[bit / 8] ^= 1 << (bit % 8);
                run(&flipped);
            }
        }
    }
}

#[test]
#[should_panic(expected = "11 bytes held at once, allowed are 10")]
fn one_byte_too_many_is_noticed() {
    allocation::within(10, || drop(std::hint::black_box(vec![1u8; 11])));
}

#[test]
fn what_is_freed_in_time_is_not_held() {
    allocation::within(16, || (0..9).for_each(|_| drop(std::hint::black_box(vec![0u8; 16]))));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2_000))]

    #[test]
    fn any_bytes_return(target in 0..TARGETS.len(), bytes in prop::collection::vec(any::<u8>(), 0..300)) {
        (TARGETS[target].run)(&bytes);
    }

    #[test]
    fn a_damaged_encoding_keeps_every_promise(
        target in 0..TARGETS.len(), number in 0..32u64, damages in prop::collection::vec(damage(), 1..4),
    ) {
        let Target { name, run } = TARGETS[target];
        run(&damaged(name, sample(name, number), &damages));
    }
}
