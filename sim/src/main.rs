//! `sim`: simulated federated rounds, and fleets of real processes, from the command line.

use std::process::ExitCode;

use clap::Parser;

mod cli;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    #[expect(unsafe_code, reason = "sets a variable for Candle")]
    // SAFETY: this is the first thing that main does, so no other thread exists.
    unsafe {
        packfed_sim::parallel::keep_candle_to_one_thread();
    }
    packfed_sim::parallel::keep_kernels_to_one_thread();
    match cli::Cli::parse().run() {
        Ok(code) => code,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}
