//! The short form of the example of this name: a few kills of the binary itself.

#[path = "../examples/crash_points/campaign.rs"]
mod campaign;
#[path = "../examples/crash_points/device.rs"]
mod device;
#[path = "../examples/crash_points/exchange.rs"]
mod exchange;
#[path = "../examples/crash_points/folder.rs"]
mod folder;
#[path = "../examples/crash_points/process.rs"]
mod process;

use std::time::Duration;

use campaign::Campaign;
use process::Launch;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_killed_coordinator_loses_nothing_and_counts_nothing_twice() {
    let launch = Launch {
        program: env!("CARGO_BIN_EXE_coordinator").into(),
        arguments: vec!["serve".into(), "--config".into()],
        after: vec!["--until-finished".into(), "--json".into()],
    };
    let campaign = Campaign { launch, kills: 6, workers: 6, seed: 2 };
    let findings =
        tokio::time::timeout(Duration::from_secs(300), campaign.run(|_| ())).await.expect("it hangs").unwrap();
    assert!(findings.acknowledged > findings.rounds * 6 / 2, "{findings:?}");
}
