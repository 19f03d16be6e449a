//! The family's codes beside their references, and then the same codes on real pre-trained weights.
//!
//! `cargo run --release -p packfed-codec --example rbe_tables [-- FILE.safetensors]`
//!
//! Recomputes every published figure and prints ours beside it; ends with status 1 if one of them is missed by more
//! than 12 %, or if a code seems to capture more of noise than the Shannon guard allows. The second part is the honest one: weights that were trained densely are nearly white, and such codes do
//! not compress them. Without a file it takes Gaussian noise in their place.

mod codes;
mod references;
mod report;
mod weights;

use std::path::PathBuf;
use std::process::ExitCode;

use clap::Parser;
use indicatif::{ProgressBar, ProgressStyle};

/// Recomputes the reference figures of the block codes, and measures the codes on pre-trained weights.
#[derive(Parser)]
#[command(name = "rbe_tables")]
struct Options {
    /// Safetensors file with 2-D tensors of f32, f16 or bf16; Gaussian noise if there is none.
    file: Option<PathBuf>,
    /// How many of the file's matrices to take, the largest first.
    #[arg(long, default_value_t = 4, value_parser = clap::value_parser!(u16).range(1..))]
    matrices: u16,
    /// Edge of the hybrid and hashed blocks on weights; radial ones are a quarter of it.
    #[arg(long, default_value_t = 128, value_parser = clap::value_parser!(u16).range(4..=256))]
    block: u16,
    /// Coefficients a hybrid block keeps on weights; several, separated by commas.
    #[arg(long, value_delimiter = ',', default_values_t = [50, 400])]
    kept: Vec<u16>,
    /// Number that seeds the noise.
    #[arg(long, default_value_t = 0)]
    seed: u64,
    /// One JSON object on standard output instead of tables.
    #[arg(long)]
    json: bool,
}

fn main() -> anyhow::Result<ExitCode> {
    let options = Options::parse();
    let matrices = match &options.file {
        Some(file) => weights::largest(file, usize::from(options.matrices))?,
        None => vec![weights::noise("Gaussian noise", 512, 512, (0.0, 0.05), options.seed)?],
    };
    let progress = bar();
    let references = references::all(&progress)?;
    let measured = codes::measure_all(&matrices, &options, &progress)?;
    progress.finish_and_clear();
    if options.json {
        println!("{}", report::json(&references, &measured)?);
    } else {
        print!("{}", report::text(&references, &measured, options.file.as_deref()));
    }
    let honest = measured.iter().all(|row| row.guard.is_none());
    let met = honest && references.iter().all(references::Reference::is_met);
    Ok(if met { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// A line on standard error that says what is being measured; nothing where that is no terminal.
fn bar() -> ProgressBar {
    let style = ProgressStyle::with_template("{bar:24} {pos}/{len} {wide_msg} {elapsed}").expect("a valid template");
    ProgressBar::new(0).with_style(style)
}
