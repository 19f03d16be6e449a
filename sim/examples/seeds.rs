//! The main job over seeds 0 to 4: every method's accuracy a seed, its mean, and the bytes against dense.
//!
//! `cargo run --release -p packfed-sim --example seeds`; about two and a half minutes on two cores.

use packfed_coordinator::config::ProfileName;
use packfed_sim::compare::{self, CompareError, Method};
use packfed_sim::options::{Options, UNEVEN};
use packfed_sim::parallel;
use packfed_sim::progress::Progress;
use packfed_sim::results::{MethodResult, Results};

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> Result<(), CompareError> {
    #[expect(unsafe_code, reason = "sets a variable for Candle")]
    // SAFETY: this is the first thing that main does, so no other thread exists.
    unsafe {
        parallel::keep_candle_to_one_thread();
    }
    let mut runs = Vec::new();
    for seed in 0..5 {
        let options = Options {
            rounds: 60,
            workers: 50,
            cohort: 10,
            seed,
            partition: UNEVEN,
            profile: ProfileName::Plain,
            threads: parallel::threads(),
        };
        runs.push(compare::digits(&options, &Method::ALL, &Progress::new(false))?);
    }
    for name in ["packfed", "dense", "lora-r4", "lora-r8"] {
        print_method(name, &runs);
    }
    Ok(())
}

fn print_method(name: &str, runs: &[Results]) {
    let of_runs: Vec<(&MethodResult, &MethodResult)> =
        runs.iter().filter_map(|run| run.method(name).zip(run.method("dense"))).collect();
    let mean = |value: &dyn Fn(&(&MethodResult, &MethodResult)) -> f64| {
        of_runs.iter().map(value).sum::<f64>() / of_runs.len() as f64
    };
    let accuracies: Vec<String> = of_runs.iter().map(|(method, _)| format!("{:.4}", method.score.accuracy)).collect();
    println!(
        "{name:8} accuracy {:.4} (seeds 0–4: {})  bytes up {:.0} ({:.0}×)  down {:.0} ({:.0}×)  {:.0} worker-rounds/s",
        mean(&|(method, _)| method.score.accuracy),
        accuracies.join(" "),
        mean(&|(method, _)| method.bytes_up),
        mean(&|(method, dense)| dense.bytes_up / method.bytes_up),
        mean(&|(method, _)| method.bytes_down),
        mean(&|(method, dense)| dense.bytes_down / method.bytes_down),
        mean(&|(method, _)| method.worker_rounds_per_s),
    );
}
