//! Everything that reads against any bytes and damaged samples; the fuzzer's short form.

use proptest::collection::vec;
use proptest::prelude::*;
use proptest::sample::Index;

use crate::targets::{TARGETS, Target};

#[test]
fn every_sample_is_accepted() {
    for Target { name, run, samples } in TARGETS {
        for (number, sample) in samples().iter().enumerate() {
            assert!(run(sample), "{name} {number}");
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(60))]

    #[test]
    fn any_bytes_return(target in 0..TARGETS.len(), bytes in vec(any::<u8>(), 0..300)) {
        (TARGETS[target].run)(&bytes);
    }

    #[test]
    fn a_damaged_sample_keeps_every_promise(
        target in 0..TARGETS.len(), sample in any::<Index>(), damages in vec((any::<Index>(), any::<u8>()), 1..6),
        end in any::<Index>(),
    ) {
        let samples = (TARGETS[target].samples)();
        let mut bytes = sample.get(&samples).clone();
        if bytes.is_empty() {
            return Ok(());
        }
        for (at, value) in &damages {
            let at = at.index(bytes.len());
            bytes[at] = *value;
        }
        (TARGETS[target].run)(&bytes);
        bytes.truncate(end.index(bytes.len()));
        (TARGETS[target].run)(&bytes);
    }

    #[test]
    fn any_sequence_of_events_keeps_every_promise(steps in vec((0..11u8, 0..7u8, any::<u8>()), 1..120)) {
        let bytes: Vec<u8> = steps.iter().flat_map(|&(kind, worker, argument)| [kind, worker, argument]).collect();
        crate::events::events(&bytes);
    }
}
