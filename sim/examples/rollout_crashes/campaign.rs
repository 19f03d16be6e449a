//! A campaign of kills over a fleet that an operator rolls releases out to.

use std::collections::BTreeSet;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use packfed_codec::{Seed, State};
use packfed_coordinator::config::ProfileName;
use packfed_sim::federated::FederatedTask;
use packfed_sim::operated_fleet::OperatedFleet;
use packfed_sim::options::{Options, UNEVEN, digits_run};
use packfed_sim::task::Task;
use serde::Serialize;
use serde_json::Value;

/// What is done.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Campaign {
    /// Processes to kill.
    pub(crate) kills: u32,
    /// Workers of the fleet.
    pub(crate) workers: u32,
    /// The number that moments and victims follow from.
    pub(crate) seed: u64,
}

/// What came of it. Anything that does not hold is an error instead.
#[derive(Clone, Copy, Debug, Default, Serialize)]
pub(crate) struct Findings {
    /// Kills of the coordinator.
    pub(crate) coordinator_kills: u32,
    /// Kills of workers.
    pub(crate) worker_kills: u32,
    /// Of these, kills within the trial of a release.
    pub(crate) while_trying: u32,
    /// Rollouts that completed.
    pub(crate) completed: u64,
    /// Releases that were read from a victim's disk, whole.
    pub(crate) whole: u32,
}

/// Longest time between two kills: as long as a short rollout takes, so that they fall everywhere in it.
const BETWEEN_MS: u64 = 1_500;

impl Campaign {
    /// Kills, starts again and looks.
    ///
    /// # Errors
    /// If a process does not come back, a release is not whole, or a rollout does not go on.
    pub(crate) fn run(self, mut seen: impl FnMut(u32)) -> Result<Findings> {
        let options = Options {
            rounds: 1,
            workers: self.workers,
            cohort: self.workers.min(2),
            seed: self.seed,
            partition: UNEVEN,
            profile: ProfileName::Plain,
            threads: 2,
        };
        let task = Task::digits(&options)?;
        let fleet = OperatedFleet::start(&task, &options, digits_run(&options, &task.base, task.base_digest()))?;
        let mut operator = Operator { fleet, releases: BTreeSet::new(), rollout: None, found: Findings::default() };
        operator
            .fleet
            .until("training", |fleet| Ok((fleet.order(&["status"])?["stage"] == "finished").then_some(())))?;
        operator.fleet.order(&["release", "create"])?;
        operator.releases.insert(1);
        let mut stream = Seed::from_number(self.seed).derive("packfed/rollout-crashes/1", &[]).stream();
        for kill in 1..=self.kills {
            operator.roll_on()?;
            pause(Duration::from_millis(stream.below(BETWEEN_MS)));
            let victim = stream.below(u64::from(self.workers) + 1);
            operator.kill(usize::try_from(victim)?.checked_sub(1))?;
            seen(kill);
        }
        operator.finish()
    }
}

struct Operator {
    fleet: OperatedFleet,
    /// Every release that there is.
    releases: BTreeSet<u64>,
    /// The rollout that is under way, and its release.
    rollout: Option<(u64, u64)>,
    found: Findings,
}

impl Operator {
    /// Rolls another release out as soon as the one before is over.
    fn roll_on(&mut self) -> Result<()> {
        if let Some((rollout, release)) = self.rollout {
            let phase = self.phase(rollout)?;
            ensure!(["soaking", "completed"].contains(&phase.as_str()), "rollout {rollout} of {release} is {phase}");
            if phase == "soaking" {
                return Ok(());
            }
            self.found.completed += 1;
        }
        let release = match self.rollout {
            None => 1,
            Some(_) => self.fleet.release_changed(1, "a nudge", |state| nudged(state, self.found.completed))?,
        };
        self.releases.insert(release);
        let number = release.to_string();
        // What is measured is not what is looked at here.
        let start = [
            &["rollout", "start", &number, "--stages", "25%:100ms:1,100%:100ms:1", "--patience", "1h"][..],
            &["--loss-increase-max", "1000", "--accuracy-drop-max", "1", "--crash-rate-max", "1"][..],
        ];
        let started = self.fleet.order(&start.concat())?;
        self.rollout = Some((started["number"].as_u64().context("a rollout has a number")?, release));
        Ok(())
    }

    fn phase(&self, rollout: u64) -> Result<String> {
        let status = self.fleet.order(&["rollout", "status", &rollout.to_string()])?;
        Ok(status["phase"].as_str().context("a rollout has a phase")?.to_owned())
    }

    /// Kills a worker, or the coordinator; looks at what is on its disk, and starts it again.
    fn kill(&mut self, worker: Option<usize>) -> Result<()> {
        let Some(worker) = worker else {
            self.fleet.kill_coordinator()?;
            self.fleet.start_coordinator()?;
            self.found.coordinator_kills += 1;
            return Ok(());
        };
        self.fleet.kill_worker(worker)?;
        let standing = self.fleet.release_of(worker)?;
        self.found.while_trying += u32::from(!standing["trying"].is_null());
        for which in ["current", "previous"] {
            if let Some(number) = standing[which]["number"].as_u64() {
                ensure!(self.releases.contains(&number), "worker {worker} has release {number}: {standing}");
                self.found.whole += 1;
            }
        }
        self.found.worker_kills += 1;
        self.fleet.start_worker(worker)
    }

    /// Without further kills the last rollout completes and everybody runs its release.
    fn finish(mut self) -> Result<Findings> {
        let Some((rollout, release)) = self.rollout else { return Ok(self.found) };
        let status = self.fleet.until("the last rollout", |fleet| {
            let status = fleet.order(&["rollout", "status", &rollout.to_string()])?;
            Ok((status["phase"] != "soaking").then_some(status))
        })?;
        ensure!(status["phase"] == "completed", "{status}");
        self.found.completed += 1;
        self.fleet.until("the last swap", |fleet| {
            let standings: Vec<Value> = (0..fleet.len()).map(|n| fleet.release_of(n)).collect::<Result<_>>()?;
            Ok(standings.iter().all(|standing| standing["current"]["number"] == release).then_some(()))
        })?;
        Ok(self.found)
    }
}

/// Lets the processes run for a while.
#[expect(clippy::disallowed_methods, reason = "the moment of a kill is drawn, not waited for")]
fn pause(time: Duration) {
    std::thread::sleep(time);
}

/// The lanes of a model, each a little otherwise.
fn nudged(state: &State, by: u64) -> Vec<i32> {
    let by = i32::try_from(by % 1_000).unwrap_or(0) + 1;
    state.lanes().iter().map(|lane| lane.saturating_add(by)).collect()
}
