#![no_main]

use packfed_coordinator_fuzz::events;

libfuzzer_sys::fuzz_target!(|input: &[u8]| {
    events::events(input);
});
