//! The short form of the example of this name: a few workers of a small model, and no time is asserted.

#![cfg(target_os = "linux")]

#[path = "../examples/load/bare.rs"]
mod bare;
#[path = "../examples/load/costs.rs"]
mod costs;
#[path = "../examples/load/device.rs"]
mod device;
#[path = "../examples/crash_points/exchange.rs"]
mod exchange;
#[path = "../examples/load/fleet.rs"]
mod fleet;
#[path = "../examples/crash_points/folder.rs"]
mod folder;
#[path = "../examples/load/idle.rs"]
mod idle;
#[path = "../examples/load/operator.rs"]
mod operator;
#[path = "../examples/crash_points/process.rs"]
mod process;
#[path = "../examples/load/run.rs"]
mod run;
#[path = "../examples/load/spread.rs"]
mod spread;
#[path = "../examples/load/updates.rs"]
mod updates;
#[path = "../examples/load/usage.rs"]
mod usage;

use std::time::Duration;

use idle::Idle;
use packfed_coordinator::config::ShellLimits;
use process::Launch;
use updates::Updates;

const HANGS: Duration = Duration::from_secs(300);

fn coordinator() -> Launch {
    run::launch(env!("CARGO_BIN_EXE_coordinator").into())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_update_of_a_round_is_accepted_and_measured() {
    let load = Updates {
        coordinator: coordinator(),
        bare: None,
        workers: 8,
        rounds: 3,
        layers: 1,
        limits: ShellLimits::default(),
    };
    let f = tokio::time::timeout(HANGS, load.run()).await.expect("it hangs").unwrap();
    assert_eq!((f.accepted, f.update_bytes), (24, 16 << 10), "{f:?}");
    assert!(f.updates_per_second.least > 0.0 && f.mb_per_second.most >= f.mb_per_second.least, "{f:?}");
    assert!(f.verdict_ms.p50 > 0.0 && f.verdict_ms.p99 >= f.verdict_ms.p50, "{f:?}");
    assert!(f.bare.iter().all(|bare| bare.mb_per_second.least > 0.0) && f.of_bare.least > 0.0, "{f:?}");
    assert!(f.memory.peak >= f.memory.listening && f.memory.listening > 0, "{f:?}");
    let costs = f.cpu.costs;
    let costs = [costs.aead, costs.signature, costs.hash, costs.journal, costs.fold];
    assert!(costs.iter().all(|&cost| cost > 0.0), "{f:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn idle_workers_are_held_and_hear_of_the_round_that_one_more_opens() {
    let idle = Idle { coordinator: coordinator(), connections: 8, hold: Duration::ZERO };
    let f = tokio::time::timeout(HANGS, idle.run()).await.expect("it hangs").unwrap();
    assert_eq!(f.connections, 8);
    assert!(f.held > 0 && f.peak >= f.held && f.assigned_ms > 0.0, "{f:?}");
}

#[test]
fn quantiles_are_values_that_were_measured() {
    let values: Vec<f64> = (1..=100).map(f64::from).collect();
    assert_eq!([0.0, 0.5, 0.99, 1.0].map(|share| spread::quantile(&values, share)), [1.0, 50.0, 99.0, 100.0]);
    assert_eq!([0.5, 1.0].map(|share| spread::quantile(&[7.0, 8.0], share)), [7.0, 8.0]);
    assert_eq!(spread::quantile(&[], 0.5), 0.0);
}
