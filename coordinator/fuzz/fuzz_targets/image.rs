#![no_main]

use packfed_coordinator_fuzz::image;

libfuzzer_sys::fuzz_target!(|input: &[u8]| {
    image::image(input);
});
