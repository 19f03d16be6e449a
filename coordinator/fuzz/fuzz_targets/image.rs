#![no_main]

use packfed_coordinator_fuzz::image;

libfuzzer_sys::fuzz_target!(
    init: {
        // The fuzzer's own hook ends the process at any panic. Those of the storage engine over damaged pages are
        // caught and are errors; one that is not caught still ends it.
        std::panic::set_hook(Box::new(|_| {}));
    },
    |input: &[u8]| {
        image::image(input);
    }
);
