#![no_main]

use packfed_protocol_fuzz::targets;

libfuzzer_sys::fuzz_target!(|input: &[u8]| {
    targets::header(input);
});
