//! `sim`: simulated federated rounds, and fleets of real processes, from the command line.

use std::process::ExitCode;

use clap::Parser;

mod cli;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    compute_on_own_threads();
    match cli::Cli::parse().run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

/// Workers are computed in parallel already; Candle's own pool would only get in their way.
fn compute_on_own_threads() {
    if std::env::var_os("CANDLE_NUM_THREADS").is_none() {
        #[expect(unsafe_code, reason = "setting a variable is unsafe once there are threads")]
        // SAFETY: this is the first thing that main does; no other thread exists that could read the environment.
        unsafe {
            std::env::set_var("CANDLE_NUM_THREADS", "1");
        }
    }
}
