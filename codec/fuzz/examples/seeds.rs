//! Writes valid encodings to `corpus/TARGET/`, for the fuzzer to start from.

use std::fs;
use std::path::Path;

use packfed_codec_fuzz::samples::sample;
use packfed_codec_fuzz::targets::TARGETS;

fn main() -> std::io::Result<()> {
    for target in TARGETS {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("corpus").join(target.name);
        fs::create_dir_all(&folder)?;
        for number in 0..32 {
            fs::write(folder.join(format!("sample-{number}")), sample(target.name, number))?;
        }
    }
    Ok(())
}
