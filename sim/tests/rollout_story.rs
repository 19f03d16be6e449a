//! The story of the README on real processes: a fleet trains, a release reaches it stage by stage, and a bad one goes
//! back by itself.
#![expect(clippy::unwrap_used, reason = "a test")]

use std::collections::BTreeSet;
use std::sync::Arc;

use packfed_codec::State;
use packfed_coordinator::audit::{Entry, replay};
use packfed_coordinator::config::{CoordinatorConfig, ProfileName};
use packfed_coordinator::event::Event;
use packfed_protocol::WorkerId;
use packfed_sim::federated::FederatedTask;
use packfed_sim::operated_fleet::OperatedFleet;
use packfed_sim::options::{Options, UNEVEN, digits_run};
use packfed_sim::task::Task;
use serde_json::Value;

const WORKERS: u32 = 20;
const OPTIONS: Options = Options {
    rounds: 3,
    workers: WORKERS,
    cohort: 10,
    seed: 1,
    partition: UNEVEN,
    profile: ProfileName::Plain,
    threads: 2,
};

fn rollout(fleet: &OperatedFleet, number: u64) -> Value {
    fleet.order(&["rollout", "status", &number.to_string()]).unwrap()
}

fn ended(fleet: &OperatedFleet, number: u64) -> Value {
    let look = |fleet: &OperatedFleet| {
        let rollout = rollout(fleet, number);
        assert_ne!(rollout["phase"], "paused", "{rollout}");
        Ok((rollout["phase"] != "soaking").then_some(rollout))
    };
    fleet.until("the rollout", look).unwrap()
}

fn start(fleet: &OperatedFleet, release: u64, why: &str) -> u64 {
    let (release, stages) = (release.to_string(), "5%:1s:1,25%:1s:4,100%:1s:15");
    // One worker alone measures on forty examples: what it finds is sure to a seventh or so.
    let bounds = ["--accuracy-drop-max", "0.25", "--loss-increase-max", "0.25", "--patience", "3m"];
    let started = ["rollout", "start", &release, "--stages", stages, "--why", why];
    fleet.order(&[&started[..], &bounds].concat()).unwrap()["number"].as_u64().unwrap()
}

/// Lanes whose last layer, the head, is turned over and blown up.
fn poisoned(state: &State) -> Vec<i32> {
    let mut lanes = state.lanes().to_vec();
    let head = state.layout().layers().last().unwrap().lanes();
    lanes[head].iter_mut().for_each(|lane| *lane = lane.saturating_mul(-8).saturating_sub(1 << 18));
    lanes
}

/// Workers that ever said that they run a release, by the audit log, which leads to the coordinator's own state again.
fn ever_ran(fleet: &OperatedFleet, release: u64) -> BTreeSet<WorkerId> {
    let config = CoordinatorConfig::load(fleet.config()).unwrap();
    let mut ran = BTreeSet::new();
    let folder = fleet.config().with_file_name("audit");
    replay(&Arc::clone(&config.plan), &folder, |located| {
        if let Entry::Told(event) = &located.entry
            && let Event::ReleaseState { worker, state } = &**event
            && state.runs.is_some_and(|runs| runs.number == release)
        {
            ran.insert(*worker);
        }
    })
    .unwrap();
    ran
}

#[test]
fn a_release_reaches_everybody_by_stages_and_a_poisoned_one_goes_back_after_the_first() {
    let task = Task::digits(&OPTIONS).unwrap();
    let mut fleet =
        OperatedFleet::start(&task, &OPTIONS, digits_run(&OPTIONS, &task.base, task.base_digest())).unwrap();
    fleet.until("training", |fleet| Ok((fleet.order(&["status"])?["stage"] == "finished").then_some(()))).unwrap();

    let made = fleet.order(&["release", "create", "--notes", "the first one"]).unwrap();
    assert_eq!((made["number"].as_u64(), made["version"].as_u64()), (Some(1), Some(OPTIONS.rounds)));
    let first = start(&fleet, 1, "better on inverted digits");
    let completed = ended(&fleet, first);
    assert_eq!(completed["phase"], "completed", "{completed}");
    let stages = completed["history"].as_array().unwrap().iter().filter(|change| change["what"] == "stage passed");
    assert_eq!(stages.count(), 3, "{completed}");
    let everybody = |number: u64| {
        let on = |fleet: &OperatedFleet| {
            let standings: Vec<Value> =
                (0..fleet.len()).map(|worker| fleet.release_of(worker)).collect::<Result<_, _>>()?;
            Ok(standings.iter().all(|standing| standing["current"]["number"] == number).then_some(()))
        };
        fleet.until("the swap", on).unwrap();
    };
    everybody(1);

    let bad = fleet.release_changed(1, "a poisoned head", poisoned).unwrap();
    let second = start(&fleet, bad, "looks good to me");
    let back = ended(&fleet, second);
    assert_eq!((&back["phase"], &back["history"][1]["by"]), (&"rolled back".into(), &"packfed".into()), "{back}");
    assert_eq!(back["history"][1]["what"], "gate failed", "{back}");
    everybody(1);

    // What was written counts, not what is in a process.
    fleet.kill_coordinator().unwrap();
    let ran = ever_ran(&fleet, bad);
    assert!(ran.len() <= WORKERS as usize / 20, "{ran:?}");
    assert_eq!(ever_ran(&fleet, 1).len(), WORKERS as usize);
}
