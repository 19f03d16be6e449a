//! One seed, one digest.
#![expect(clippy::unwrap_used, reason = "a test")]

use packfed_coordinator::config::ProfileName;
use packfed_sim::compare;
use packfed_sim::federated::FederatedTask;
use packfed_sim::mode::Mode;
use packfed_sim::options::{Options, UNEVEN, digits_run};
use packfed_sim::packed;
use packfed_sim::progress::Progress;
use packfed_sim::resilience::Resilience;
use packfed_sim::results::MethodResult;
use packfed_sim::task::Task;
use packfed_sim::virtual_fleet::{Devices, HEAVY_TAILED, PHONES};

fn options(seed: u64, threads: usize) -> Options {
    Options { rounds: 3, workers: 6, cohort: 4, seed, partition: UNEVEN, profile: ProfileName::Plain, threads }
}

fn run(options: &Options, devices: Devices) -> MethodResult {
    let task = Task::digits(options).unwrap();
    let plan = digits_run(options, &task.base, task.base_digest()).plan().unwrap();
    packed::run_on(&task, options, plan, devices, &Progress::new(true)).unwrap().result
}

#[test]
fn the_same_seed_gives_the_same_digest_on_any_number_of_threads_and_another_seed_another() {
    let one = run(&options(1, 1), PHONES);
    let again = run(&options(1, 3), PHONES);
    assert_eq!(one.digest, again.digest);
    assert_eq!((one.bytes_up, one.bytes_down), (again.bytes_up, again.bytes_down));
    assert_ne!(one.digest, run(&options(2, 2), PHONES).digest);
}

#[test]
fn the_network_has_no_say_in_the_model() {
    // Slow links and fast devices: updates arrive in another order and at other times.
    let slow = Devices { latency_ms: 900, up_bytes_per_s: 3_000, down_bytes_per_s: 9_000, step_ms: 1, ..PHONES };
    let (phones, slow) = (run(&options(1, 2), PHONES), run(&options(1, 2), slow));
    assert_eq!(phones.digest, slow.digest);
    let seconds = |result: &MethodResult| result.curve.last().unwrap().virtual_s;
    assert!(seconds(&slow) > 2.0 * seconds(&phones));
}

#[test]
fn the_profile_of_the_words_is_the_plans_to_choose() {
    let plain = run(&options(1, 2), PHONES);
    let nibble = run(&Options { profile: ProfileName::Nibble, ..options(1, 2) }, PHONES);
    assert_eq!(plain.bytes_up, nibble.bytes_up, "16 bytes a block either way");
    assert_ne!(plain.digest, nibble.digest);
    assert!(nibble.score.accuracy > nibble.curve[0].score.accuracy + 0.05);
}

#[test]
fn training_moves_the_model_and_costs_what_the_words_cost() {
    let result = run(&options(1, 2), PHONES);
    let base = result.curve[0].score.accuracy;
    assert!(result.score.accuracy > base + 0.05, "{base} → {}", result.score.accuracy);
    let words = 16.0 * (28.0 * 9.0 + 9.0 * 9.0 + 3.0 * 63.0);
    assert!(result.bytes_up > words && result.bytes_up < 1.05 * words, "{}", result.bytes_up);
}

/// packfed's record of a run in a mode, on heavy-tailed devices.
fn run_in(mode: Mode, options: &Options) -> MethodResult {
    let on = (mode, HEAVY_TAILED);
    compare::digits_on(&Resilience::default(), on, options, &[], &Progress::new(true)).unwrap().methods.remove(0)
}

const BUFFERED: Mode = Mode::Async { concurrency: 6, staleness_max: 4 };

#[test]
fn a_buffered_run_has_one_digest_on_any_number_of_threads_and_learns() {
    let wide = |threads| Options { rounds: 6, cohort: 2, ..options(1, threads) };
    let (one, again) = (run_in(BUFFERED, &wide(1)), run_in(BUFFERED, &wide(3)));
    assert_eq!((&one.digest, one.bytes_up, one.bytes_down), (&again.digest, again.bytes_up, again.bytes_down));
    assert_eq!(one.rounds, 6);
    assert!(one.score.accuracy > one.curve[0].score.accuracy + 0.03, "{:?}", one.curve);
}

#[test]
fn without_rounds_nobody_waits_for_a_straggler() {
    let sync = run_in(Mode::Sync { over_selection: 0 }, &options(1, 2));
    let buffered = run_in(BUFFERED, &options(1, 2));
    let seconds = |result: &MethodResult| result.curve.last().unwrap().virtual_s;
    assert!(2.0 * seconds(&buffered) < seconds(&sync), "{} {}", seconds(&buffered), seconds(&sync));
}
