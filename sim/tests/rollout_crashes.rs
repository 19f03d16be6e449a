//! The short form of the example of this name: a few kills in the middle of rollouts.

#[path = "../examples/rollout_crashes/campaign.rs"]
mod campaign;

use campaign::Campaign;

#[test]
fn a_rollout_goes_on_whoever_is_killed_and_nobody_runs_half_a_model() {
    let found = Campaign { kills: 8, workers: 3, seed: 2 }.run(|_| ()).unwrap();
    assert!(found.worker_kills > 0 && found.coordinator_kills > 0 && found.completed > 1, "{found:?}");
}
