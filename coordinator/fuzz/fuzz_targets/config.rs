#![no_main]

use packfed_coordinator_fuzz::targets;

libfuzzer_sys::fuzz_target!(|input: &[u8]| {
    targets::config(input);
});
