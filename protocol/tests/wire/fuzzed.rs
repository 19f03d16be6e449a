//! Every decoder against any bytes and damaged encodings; the fuzzer's short form.

use proptest::collection::vec;
use proptest::prelude::*;
use proptest::sample::Index;

use crate::targets::{TARGETS, Target};

/// One way to damage an encoding.
#[derive(Clone, Debug)]
enum Damage {
    Flip(Index, u8),
    Set(Index, u8),
    Truncate(Index),
    Extend(u8),
    Remove(Index),
}

fn damage() -> impl Strategy<Value = Damage> {
    let edge = prop::sample::select(vec![0, 1, 0x7f, 0x80, 0xff]);
    prop_oneof![
        (any::<Index>(), 0..8u8).prop_map(|(at, bit)| Damage::Flip(at, bit)),
        (any::<Index>(), edge).prop_map(|(at, value)| Damage::Set(at, value)),
        any::<Index>().prop_map(Damage::Truncate),
        any::<u8>().prop_map(Damage::Extend),
        any::<Index>().prop_map(Damage::Remove),
    ]
}

fn damaged(mut bytes: Vec<u8>, damages: &[Damage]) -> Vec<u8> {
    for damage in damages {
        match damage {
            _ if bytes.is_empty() => {}
            Damage::Flip(at, bit) => {
                let at = at.index(bytes.len());
                bytes[at] ^= 1 << bit;
            }
            Damage::Set(at, value) => {
                let at = at.index(bytes.len());
                bytes[at] = *value;
            }
            Damage::Truncate(at) => bytes.truncate(at.index(bytes.len())),
            Damage::Extend(value) => bytes.push(*value),
            Damage::Remove(at) => {
                bytes.remove(at.index(bytes.len()));
            }
        }
    }
    bytes
}

#[test]
fn every_sample_is_accepted() {
    for Target { name, run, samples } in TARGETS {
        assert!(samples().iter().all(|sample| run(sample)), "{name}");
    }
}

#[test]
fn every_prefix_and_every_flipped_bit_of_a_sample_returns() {
    for Target { run, samples, .. } in TARGETS {
        for sample in samples() {
            for end in 0..sample.len() {
                run(&sample[..end]);
            }
            for bit in 0..8 * sample.len() {
                let mut flipped = sample.clone();
                flipped[bit / 8] ^= 1 << (bit % 8);
                run(&flipped);
            }
        }
    }
}

#[test]
fn no_flipped_bit_of_an_update_verifies() {
    let Target { run, samples, .. } = TARGETS[3];
    for sample in samples() {
        for bit in 0..8 * sample.len() {
            let mut flipped = sample.clone();
            flipped[bit / 8] ^= 1 << (bit % 8);
            assert!(!run(&flipped), "bit {bit}");
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2_000))]

    #[test]
    fn any_bytes_return(target in 0..TARGETS.len(), bytes in vec(any::<u8>(), 0..300)) {
        (TARGETS[target].run)(&bytes);
    }

    #[test]
    fn a_damaged_encoding_keeps_every_promise(
        target in 0..TARGETS.len(), sample in any::<Index>(), damages in vec(damage(), 1..4),
    ) {
        let samples = (TARGETS[target].samples)();
        let sample = sample.get(&samples).clone();
        (TARGETS[target].run)(&damaged(sample, &damages));
    }
}
