#![no_main]

use packfed_codec_fuzz::targets;

libfuzzer_sys::fuzz_target!(|input: &[u8]| {
    targets::state(input);
});
