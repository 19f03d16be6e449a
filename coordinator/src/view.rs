//! What operators are told, made of what the engine and the shelf have: the answers to their questions as plain data.

use std::collections::BTreeMap;

use packfed_protocol::{Digest, Manifest, RunId, Settings, WorkerId};
use serde::{Deserialize, Serialize};

use crate::engine::Engine;
use crate::ledger;
use crate::picture::{Compared, Gate, PastRound, Release, Rollout, RolloutChange, RolloutStage, RoundOutcome, Stage};
use crate::rollout::{OnFailure, Phase, Record, Sums, Target, channel, place};

/// Rounds that are over, the latest first.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Rounds {
    /// The open round, if there is one.
    pub open: Option<Stage>,
    /// Those that are over.
    pub rounds: Vec<PastRound>,
    /// Whether there are earlier ones.
    pub more: bool,
}

/// Rollouts, the latest first.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Rollouts {
    /// As many as fit a page.
    pub rollouts: Vec<Rollout>,
    /// Whether there are earlier ones.
    pub more: bool,
}

/// One rollout, with all that was asked for and whom it reaches.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct RolloutDetail {
    /// The rollout.
    #[serde(flatten)]
    pub rollout: Rollout,
    /// Which workers it is for.
    pub target: Target,
    /// What a failed gate leads to.
    pub on_failure: OnFailure,
    /// Milliseconds after the soak time in which reports must have decided.
    pub patience_ms: u64,
    /// Enrolled workers that it is for.
    pub meant: usize,
    /// Those of them that are to run the release now.
    pub given: usize,
    /// Connected workers that run the release now.
    pub running: usize,
}

/// Releases, the latest first.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Releases {
    /// All.
    pub releases: Vec<Release>,
}

/// A run and what operators have changed of it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Run {
    /// The run.
    pub run: RunId,
    /// Its phase.
    pub stage: Stage,
    /// Whether no further round is opened.
    pub paused: bool,
    /// Commits so far.
    pub version: u64,
    /// Digest of the current model.
    pub digest: Digest,
    /// What shapes its rounds.
    pub settings: Settings,
    /// What of that was set by an operator.
    pub changed: Settings,
}

impl Rounds {
    /// A page of the rounds before one.
    #[must_use]
    pub fn before(engine: &Engine, before: u64) -> Self {
        let mut earlier = engine.past().range(..packfed_protocol::Round(before)).rev();
        let rounds = earlier.by_ref().take(PAGE).map(|(_, past)| PastRound::of(past)).collect();
        let stage = Stage::of(&engine.status().stage);
        Self { open: stage.round.is_some().then_some(stage), rounds, more: earlier.next().is_some() }
    }
}

impl Rollouts {
    /// A page of the rollouts before one.
    #[must_use]
    pub fn before(engine: &Engine, before: u64) -> Self {
        let mut earlier = engine.rollouts().records().range(..before).rev();
        let rollouts = earlier.by_ref().take(PAGE).map(|(_, record)| Rollout::of(record)).collect();
        Self { rollouts, more: earlier.next().is_some() }
    }
}

impl RolloutDetail {
    /// A rollout by its number.
    #[must_use]
    pub fn of(engine: &Engine, number: u64) -> Option<Self> {
        let record = engine.rollouts().records().get(&number)?;
        let spec = &record.spec;
        let fleet = engine.registry().followers();
        let meant: Vec<&WorkerId> = fleet
            .iter()
            .filter(|(_, labels)| channel(labels) == spec.channel && spec.target.takes(labels))
            .map(|(worker, _)| worker)
            .collect();
        let given = meant.iter().filter(|worker| record.takes(place(&record.release.digest, worker))).count();
        Some(Self {
            rollout: Rollout::of(record),
            target: spec.target.clone(),
            on_failure: spec.on_failure,
            patience_ms: spec.patience_ms,
            meant: meant.len(),
            given,
            running: engine.runs().get(&Some(record.release)).copied().unwrap_or(0),
        })
    }
}

impl Run {
    /// The run of an engine.
    #[must_use]
    pub fn of(engine: &Engine) -> Self {
        let status = engine.status();
        Self {
            run: status.run,
            stage: Stage::of(&status.stage),
            paused: status.paused,
            version: status.version,
            digest: status.digest,
            settings: engine.plan().settings(),
            changed: engine.conduct().settings,
        }
    }
}

impl PastRound {
    /// A round as the ledger has it.
    #[must_use]
    pub fn of(past: &ledger::PastRound) -> Self {
        let bare = Self {
            round: past.round.0,
            ended_ms: past.ended,
            cohort: past.cohort.into(),
            reports: past.reports.into(),
            outcome: RoundOutcome::Abandoned,
            version: None,
            digest: None,
            examples: None,
            train_loss: None,
            clipped: None,
            why: None,
        };
        match &past.outcome {
            ledger::RoundOutcome::Abandoned(why) => Self { why: Some(why.clone()), ..bare },
            ledger::RoundOutcome::Committed(summary) => Self {
                outcome: RoundOutcome::Committed,
                version: Some(summary.version),
                digest: Some(summary.digest),
                examples: Some(summary.examples),
                train_loss: Some(summary.train_loss),
                clipped: Some(summary.clipped),
                ..bare
            },
        }
    }
}

impl Rollout {
    /// A rollout as it stands.
    #[must_use]
    pub fn of(record: &Record) -> Self {
        let Record { number, release, spec, phase, found, in_stage, history, .. } = record;
        let compared = |sums: &Sums| {
            let (before, (difference, _)) = (sums.before()?, sums.difference()?);
            Some(Compared { before, after: before + difference })
        };
        let stage = |stage: &crate::rollout::Stage| {
            let &crate::rollout::Stage { share, soak_ms, reports_min } = stage;
            RolloutStage { share, soak_ms, reports_min }
        };
        let gate = |judgement: crate::rollout::Judgement| {
            let crate::rollout::Judgement { gate, verdict, interval, bound } = judgement;
            Gate { gate, verdict, interval, bound }
        };
        let change = |change: &crate::rollout::Change| RolloutChange {
            at: change.at,
            by: change.by.clone(),
            what: change.what.clone(),
            why: change.why.clone(),
        };
        Self {
            number: *number,
            release: release.number,
            digest: release.digest,
            channel: spec.channel.clone(),
            phase: phase.name().to_owned(),
            stage: phase.stage().map(|stage| stage as u64),
            since_ms: match phase {
                Phase::Soaking { since, .. } => Some(*since),
                Phase::Paused { .. } | Phase::Completed | Phase::Aborted | Phase::RolledBack => None,
            },
            stages: spec.stages.iter().map(stage).collect(),
            in_stage: (*in_stage).into(),
            evaluated: found.evaluated.into(),
            crashed: found.crashed.into(),
            not_fetched: found.not_fetched.into(),
            loss: compared(&found.loss),
            accuracy: compared(&found.accuracy),
            gates: record.judgements().into_iter().map(gate).collect(),
            history: history.iter().map(change).collect(),
        }
    }
}

impl Release {
    /// A release by its manifest.
    #[must_use]
    pub fn of(manifest: &Manifest) -> Self {
        let Manifest { number, created, version, adapter, notes, metrics, .. } = manifest;
        Self {
            number: *number,
            created_ms: *created,
            version: version.0,
            digest: manifest.digest(),
            bytes: adapter.bytes,
            notes: notes.clone(),
            metrics: metrics.clone().into_iter().collect::<BTreeMap<_, _>>(),
        }
    }
}

/// One line of JSON.
///
/// # Panics
/// Never, of what is told here: every field is a number, a text, nothing, or a list or map with text keys of such.
#[must_use]
pub fn to_json(told: &impl Serialize) -> String {
    serde_json::to_string(told).expect("numbers and texts are JSON")
}

/// Rounds or rollouts of a page: far fewer than fit a frame.
const PAGE: usize = 100;
