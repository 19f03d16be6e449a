//! A picture of the whole run, as the dashboard draws it: one JSON object, every key always there.
//!
//! Field names are what the page reads; `tests/dashboard/sample.json` is an example of all of it, which a test holds to
//! these types. It is plain data: it decides nothing, and nothing that is decided depends on it.

use std::collections::BTreeMap;

use packfed_protocol::{Digest, RunId, Timestamp};
use serde::{Deserialize, Serialize};

use crate::counters::Counters;
use crate::registry::{Registry, Standing};
use crate::status::{Status, StatusStage};

/// A run, its past, its rollouts and its releases.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Picture {
    /// When it was taken, in milliseconds since the Unix epoch.
    pub at_ms: Timestamp,
    /// The run.
    pub run: RunId,
    /// Its phase.
    pub stage: Stage,
    /// Whether the operator lets no further round begin.
    pub paused: bool,
    /// Commits so far.
    pub version: u64,
    /// Commits after which it is finished.
    pub rounds: u64,
    /// Digest of the current model.
    pub digest: Digest,
    /// Workers by state.
    pub workers: Workers,
    /// What travelled since this process began, and what dense updates would have.
    pub bytes: Traffic,
    /// Rounds that are over, the oldest first; at most [`HISTORY_MAX`].
    pub history: Vec<PastRound>,
    /// What happened to what arrived since this process began.
    pub counters: Arrivals,
    /// The latest first; at most [`ROLLOUTS_MAX`].
    pub rollouts: Vec<Rollout>,
    /// The latest first; at most [`RELEASES_MAX`].
    pub releases: Vec<Release>,
}

/// Most rounds of a picture.
pub const HISTORY_MAX: usize = 1_000;
/// Most rollouts of a picture.
pub const ROLLOUTS_MAX: usize = 20;
/// Most releases of a picture.
pub const RELEASES_MAX: usize = 100;

/// Where the run stands.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Stage {
    /// Which phase.
    pub name: StageName,
    /// The open round, of several the latest.
    pub round: Option<u64>,
    /// Workers drawn; of a buffered plan, workers at work.
    pub cohort: Option<u64>,
    /// Updates accepted.
    pub reports: Option<u64>,
    /// How many workers, or updates of a buffered plan, are waited for.
    pub waiting_for: Option<u64>,
}

/// A phase by its name.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum StageName {
    /// Workers are checking in.
    Selecting,
    /// Drawn workers train and report.
    Reporting,
    /// The rule is at work on the updates.
    Aggregating,
    /// Of a buffered plan: workers train and report whenever they can.
    Buffering,
    /// Every round is committed.
    Finished,
}

/// How many workers are in which state.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Workers {
    /// All there are, suspended and revoked ones included.
    pub enrolled: u64,
    /// Connected.
    pub connected: u64,
    /// Connected and free.
    pub idle: u64,
    /// Suspended now.
    pub suspended: u64,
    /// Revoked.
    pub revoked: u64,
}

/// Bytes of frames since the process began.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Traffic {
    /// From workers.
    pub up: u64,
    /// To workers.
    pub down: u64,
    /// What the accepted updates and their models would have been as f32 values.
    pub dense: u64,
}

/// A round that is over.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PastRound {
    /// Its number.
    pub round: u64,
    /// When it was over, in milliseconds since the Unix epoch.
    pub ended_ms: Timestamp,
    /// Workers drawn.
    pub cohort: u64,
    /// Updates accepted.
    pub reports: u64,
    /// What it came to.
    pub outcome: RoundOutcome,
    /// The version that it led to; this and all below are of a committed round.
    pub version: Option<u64>,
    /// Digest of that version.
    pub digest: Option<Digest>,
    /// Examples behind it.
    pub examples: Option<u64>,
    /// Mean of the workers' training losses, weighted by examples, in nats.
    pub train_loss: Option<f64>,
    /// Share of the lanes that were clipped on the way up, of 1.
    pub clipped: Option<f64>,
    /// Why an abandoned round was.
    pub why: Option<String>,
}

/// What a round came to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum RoundOutcome {
    /// A new version.
    Committed,
    /// None.
    Abandoned,
}

/// What happened to what arrived.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Arrivals {
    /// Updates that were counted into a round.
    pub accepted: u64,
    /// Updates that came too late for their round.
    pub discarded: u64,
    /// Updates that were not in order, by reason.
    pub rejected: BTreeMap<String, u64>,
    /// Other messages that were refused, by reason.
    pub refused: BTreeMap<String, u64>,
}

/// One rollout.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Rollout {
    /// Its number.
    pub number: u64,
    /// The release's number.
    pub release: u64,
    /// Of the release's signed manifest.
    pub digest: Digest,
    /// Which workers follow it.
    pub channel: String,
    /// `soaking`, `paused`, `completed`, `aborted` or `rolled back`: [`crate::rollout::Phase::name`].
    pub phase: String,
    /// The stage that it is in, from 0.
    pub stage: Option<u64>,
    /// Since when it soaks, in milliseconds since the Unix epoch.
    pub since_ms: Option<Timestamp>,
    /// All stages.
    pub stages: Vec<RolloutStage>,
    /// Workers that have reported since the stage began.
    pub in_stage: u64,
    /// Workers that evaluated the release.
    pub evaluated: u64,
    /// Workers on which it crashed.
    pub crashed: u64,
    /// Workers that could not fetch or verify it.
    pub not_fetched: u64,
    /// Held-out loss, in nats.
    pub loss: Option<Compared>,
    /// Held-out accuracy, of 1.
    pub accuracy: Option<Compared>,
    /// How every gate stands.
    pub gates: Vec<Gate>,
    /// What was done to it, the oldest first.
    pub history: Vec<RolloutChange>,
}

/// A stage as it was asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RolloutStage {
    /// Share of the targeted workers, in millionths.
    pub share: u32,
    /// Milliseconds that it lasts at least.
    pub soak_ms: u64,
    /// Workers that must have reported since it began.
    pub reports_min: u32,
}

/// A figure of the release before, and of this one, on the same examples.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Compared {
    /// Of the release before.
    pub before: f64,
    /// Of this one.
    pub after: f64,
}

/// How a gate stands.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Gate {
    /// What is judged.
    pub gate: String,
    /// How it stands.
    pub verdict: crate::rollout::Verdict,
    /// How much worse the release is, at best and at worst.
    pub interval: Option<[f64; 2]>,
    /// How much worse it may be.
    pub bound: f64,
}

/// Something that was done to a rollout.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RolloutChange {
    /// When, in milliseconds since the Unix epoch.
    pub at: Timestamp,
    /// By whom.
    pub by: String,
    /// What.
    pub what: String,
    /// Why.
    pub why: String,
}

/// A release.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Release {
    /// Its number.
    pub number: u64,
    /// When it was made, in milliseconds since the Unix epoch.
    pub created_ms: Timestamp,
    /// The version that it froze.
    pub version: u64,
    /// Of its signed manifest.
    pub digest: Digest,
    /// Bytes of its model.
    pub bytes: u64,
    /// What the operator says of it.
    pub notes: String,
    /// Figures of the model, by name.
    pub metrics: BTreeMap<String, f64>,
}

/// What a picture is made of beside the past, the rollouts and the releases.
#[derive(Clone, Copy, Debug)]
pub struct Seen<'a> {
    /// The moment.
    pub now: Timestamp,
    /// The run.
    pub status: &'a Status,
    /// Who is enrolled.
    pub registry: &'a Registry,
    /// Workers that are connected.
    pub connected: usize,
    /// Bytes of frames from workers.
    pub bytes_up: u64,
    /// Bytes of frames to workers.
    pub bytes_down: u64,
    /// Bytes of one model whose every adapted parameter is an f32 value.
    pub dense_bytes: u64,
}

impl Picture {
    /// A picture of what is seen, without past, rollouts and releases, and not paused.
    #[must_use]
    pub fn of(seen: Seen<'_>) -> Self {
        let Seen { now, status, registry, connected, bytes_up, bytes_down, dense_bytes } = seen;
        let standing = |is: fn(Standing, Timestamp) -> bool| {
            registry.members().values().filter(|member| is(member.standing, now)).count() as u64
        };
        let Counters { accepted, discarded, rejected, refused, .. } = status.counters.clone();
        Self {
            at_ms: now,
            run: status.run,
            stage: Stage::of(&status.stage),
            paused: false,
            version: status.version,
            rounds: status.rounds,
            digest: status.digest,
            workers: Workers {
                enrolled: status.enrolled as u64,
                connected: connected as u64,
                idle: status.idle as u64,
                suspended: standing(|is, now| matches!(is, Standing::Suspended(until) if now < until)),
                revoked: standing(|is, _| is == Standing::Revoked),
            },
            // An update up and a model down.
            bytes: Traffic {
                up: bytes_up,
                down: bytes_down,
                dense: accepted.saturating_mul(2).saturating_mul(dense_bytes),
            },
            history: Vec::new(),
            counters: Arrivals { accepted, discarded, rejected, refused },
            rollouts: Vec::new(),
            releases: Vec::new(),
        }
    }

    /// One line of JSON.
    ///
    /// # Panics
    /// Never: every field is a number, a text, nothing, or a list or map with text keys of such.
    #[must_use]
    pub fn to_json(&self) -> String {
        serde_json::to_string(self).expect("numbers and texts are JSON")
    }
}

impl Stage {
    /// The phase of a run.
    #[must_use]
    pub fn of(stage: &StatusStage) -> Self {
        let bare = |name| Self { name, round: None, cohort: None, reports: None, waiting_for: None };
        match *stage {
            StatusStage::Selecting { waiting_for } => {
                Self { waiting_for: Some(waiting_for.into()), ..bare(StageName::Selecting) }
            }
            StatusStage::Reporting { round, cohort, reports } => Self {
                round: Some(round),
                cohort: Some(cohort as u64),
                reports: Some(reports.into()),
                ..bare(StageName::Reporting)
            },
            StatusStage::Aggregating { round, reports } => {
                Self { round: Some(round), reports: Some(reports.into()), ..bare(StageName::Aggregating) }
            }
            StatusStage::Buffering { round, at_work, reports, waiting_for } => Self {
                name: StageName::Buffering,
                round: (round > 0).then_some(round),
                cohort: Some(at_work as u64),
                reports: Some(reports.into()),
                waiting_for: Some(waiting_for.into()),
            },
            StatusStage::Finished => bare(StageName::Finished),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::registry::{FOREVER, Member};
    use packfed_protocol::WorkerId;

    /// What the page is tested with.
    const SAMPLE: &str = include_str!("../tests/dashboard/sample.json");

    #[test]
    fn the_sample_that_the_page_is_tested_with_is_a_picture_and_nothing_else() {
        let picture: Picture = serde_json::from_str(SAMPLE).unwrap();
        let again: serde_json::Value = serde_json::from_str(&picture.to_json()).unwrap();
        assert_eq!(again, serde_json::from_str::<serde_json::Value>(SAMPLE).unwrap(), "every key is there");
        assert!(!picture.to_json().contains('\n'), "it is one line of an event stream");
    }

    fn status(stage: StatusStage) -> Status {
        let counters = Counters { accepted: 3, arrived: 3, ..Counters::default() };
        let (run, digest) = (RunId([1; 16]), Digest([2; 32]));
        Status { run, stage, version: 4, rounds: 20, digest, enrolled: 4, idle: 1, last: None, counters }
    }

    #[test]
    fn what_is_seen_is_in_the_picture() {
        let standings = [Standing::Admitted, Standing::Revoked, Standing::Suspended(Timestamp(99))];
        let entry = |(n, standing)| (WorkerId([n; 32]), Member::new("w".into(), standing));
        let members = (0..).zip(standings).chain([(9, Standing::Suspended(FOREVER))]).map(entry).collect();
        let registry = Registry::new(members, std::collections::BTreeSet::new());
        let picture = |now| {
            Picture::of(Seen {
                now: Timestamp(now),
                status: &status(StatusStage::Reporting { round: 5, cohort: 10, reports: 3 }),
                registry: &registry,
                connected: 2,
                bytes_up: 11,
                bytes_down: 22,
                dense_bytes: 100,
            })
        };
        let early = picture(98);
        assert_eq!((early.workers.suspended, early.workers.revoked, early.workers.connected), (2, 1, 2));
        assert_eq!(picture(99).workers.suspended, 1, "a suspension that is over is none");
        assert_eq!(early.bytes, Traffic { up: 11, down: 22, dense: 600 });
        assert_eq!((early.stage.round, early.stage.reports, early.stage.waiting_for), (Some(5), Some(3), None));
    }

    #[test]
    fn every_phase_has_its_name() {
        let name = |stage| serde_json::to_value(Stage::of(&stage)).unwrap()["name"].clone();
        assert_eq!(name(StatusStage::Selecting { waiting_for: 2 }), "selecting");
        assert_eq!(name(StatusStage::Reporting { round: 1, cohort: 2, reports: 0 }), "reporting");
        assert_eq!(name(StatusStage::Aggregating { round: 1, reports: 2 }), "aggregating");
        let buffering = StatusStage::Buffering { round: 0, at_work: 0, reports: 0, waiting_for: 4 };
        assert_eq!((name(buffering.clone()), Stage::of(&buffering).round), ("buffering".into(), None));
        assert_eq!(name(StatusStage::Finished), "finished");
    }
}
