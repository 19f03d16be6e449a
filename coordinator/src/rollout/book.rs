//! The book of all rollouts: the machine itself.
//!
//! Every method takes the moment and returns effects; what they ask to be stored makes the same book again. A fleet is
//! handed in where places are counted; the book keeps nothing of workers but who has reported.

use std::collections::{BTreeMap, BTreeSet};

use packfed_protocol::{
    EvaluationError, ReleaseOutcome as Outcome, ReleaseRef, RolloutVerb as Verb, Timestamp, WorkerId,
};
use thiserror::Error;

use super::gate::{Measure, Verdict};
use super::member::{place, threshold};
use super::record::{BY_ITSELF, Before, Phase, Record};
use super::spec::{OnFailure, Spec, SpecError};
use super::target::{Labels, channel};

/// Every rollout there was.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Book {
    records: BTreeMap<u64, Record>,
    /// Who has reported of the release of an active rollout.
    reported: BTreeMap<u64, BTreeSet<WorkerId>>,
}

/// Enrolled workers that may take part, and what they are called by.
pub type Fleet = BTreeMap<WorkerId, Labels>;

/// What a worker says of a release.
#[derive(Clone, Copy, Debug)]
pub struct Report<'a> {
    /// Who.
    pub worker: WorkerId,
    /// What it is called by.
    pub labels: &'a Labels,
    /// The release that it means.
    pub release: ReleaseRef,
    /// What became of it.
    pub outcome: &'a Outcome,
}

/// Something to be done.
#[derive(Clone, Debug, PartialEq)]
pub enum Effect {
    /// Make a rollout durable as it stands.
    Store(Box<Record>),
    /// Make durable that a worker has reported.
    Reported {
        /// Of which rollout's release.
        rollout: u64,
        /// Who.
        worker: WorkerId,
    },
    /// Forget who has reported of a rollout's release: it is judged anew, or no more.
    Forget {
        /// Which rollout.
        rollout: u64,
    },
    /// Which release workers are to run may have changed.
    Changed,
}

/// Why something is not done.
#[derive(Clone, Debug, PartialEq, Error)]
pub enum Refusal {
    /// What was asked for cannot be.
    #[error(transparent)]
    Spec(#[from] SpecError),
    /// The channel has a rollout that is not over.
    #[error("channel {channel} has rollout {active}, which is {phase}; abort it or let it complete")]
    Busy {
        /// The channel.
        channel: String,
        /// Its rollout.
        active: u64,
        /// Where that stands.
        phase: &'static str,
    },
    /// The release is not newer than what the channel has.
    #[error("channel {channel} has release {newest} already, release {release} is older; `rollout rollback` goes back")]
    Older {
        /// The channel.
        channel: String,
        /// Its newest completed release.
        newest: u64,
        /// The release that was asked for.
        release: u64,
    },
    /// No rollout has this number.
    #[error("there is no rollout {0}; `rollout history` lists them")]
    Unknown(u64),
    /// It is not in a phase in which this can be done.
    #[error("rollout {number} is {phase}, it cannot be told to {verb}")]
    Phase {
        /// Its number.
        number: u64,
        /// Where it stands.
        phase: &'static str,
        /// What was asked.
        verb: &'static str,
    },
    /// A later rollout of the channel stands on it.
    #[error("rollout {later} of the channel came after rollout {number}; roll that one back first")]
    Overtaken {
        /// Its number.
        number: u64,
        /// The later one.
        later: u64,
    },
    /// The report cannot be counted.
    #[error(transparent)]
    Report(#[from] EvaluationError),
    /// The release is not one that this worker is to run.
    #[error("release {0} is of no rollout that this worker is in")]
    NotIts(u64),
}

impl Book {
    /// A book as it was stored.
    #[must_use]
    pub const fn new(records: BTreeMap<u64, Record>, reported: BTreeMap<u64, BTreeSet<WorkerId>>) -> Self {
        Self { records, reported }
    }

    /// Every rollout, by number.
    #[must_use]
    pub const fn records(&self) -> &BTreeMap<u64, Record> {
        &self.records
    }

    /// The rollout of a channel that is not over.
    #[must_use]
    pub fn active(&self, channel: &str) -> Option<&Record> {
        self.records.values().rev().find(|record| record.spec.channel == channel && record.phase.is_active())
    }

    /// The release that a worker is to run; none is the base model.
    #[must_use]
    pub fn desired(&self, worker: &WorkerId, labels: &Labels) -> Option<ReleaseRef> {
        self.of(worker, labels).map(|record| record.release)
    }

    /// The rollout that says what a worker is to run.
    fn of(&self, worker: &WorkerId, labels: &Labels) -> Option<&Record> {
        let channel = channel(labels);
        let is = |record: &&Record| {
            let Record { spec, release, .. } = record;
            spec.channel == channel && spec.target.takes(labels) && record.takes(place(&release.digest, worker))
        };
        self.records.values().rev().find(is)
    }

    /// Begins a rollout.
    ///
    /// # Errors
    /// If it cannot be as it is asked for, the channel has one, or has a newer release.
    pub fn start(
        &mut self,
        release: ReleaseRef,
        spec: Spec,
        by: &str,
        why: String,
        fleet: &Fleet,
        now: Timestamp,
    ) -> Result<(u64, Vec<Effect>), Refusal> {
        spec.check()?;
        let channel = spec.channel.clone();
        if let Some(active) = self.active(&channel) {
            return Err(Refusal::Busy { channel, active: active.number, phase: active.phase.name() });
        }
        let completed = |record: &&Record| record.spec.channel == channel && record.phase == Phase::Completed;
        if let Some(newest) = self.records.values().rev().find(completed).map(|record| record.release.number)
            && newest >= release.number
        {
            return Err(Refusal::Older { channel, newest, release: release.number });
        }
        let number = self.records.last_key_value().map_or(1, |(last, _)| last + 1);
        let phase = Phase::Soaking { stage: 0, since: now };
        let mut record = Record {
            number,
            release,
            spec,
            phase: phase.clone(),
            threshold: 0,
            found: Measure::default(),
            in_stage: 0,
            before: None,
            history: Vec::new(),
        };
        record.change(phase, now, by, "start", why);
        enter(&mut record, 0, fleet);
        Ok((number, self.put(record)))
    }

    /// Does an operator's word.
    ///
    /// # Errors
    /// If there is no such rollout, or it is not where this can be done.
    pub fn order(
        &mut self,
        number: u64,
        verb: Verb,
        by: &str,
        why: String,
        fleet: &Fleet,
        now: Timestamp,
    ) -> Result<Vec<Effect>, Refusal> {
        let mut record = self.records.get(&number).ok_or(Refusal::Unknown(number))?.clone();
        let refused = || Refusal::Phase { number, phase: record.phase.name(), verb: verb.name() };
        let before = Before { phase: record.phase.clone(), threshold: record.threshold };
        let to = match (verb, &record.phase) {
            (Verb::Promote, Phase::Soaking { stage, .. } | Phase::Paused { stage }) => following(&record, *stage, now),
            (Verb::Pause, &Phase::Soaking { stage, .. }) => Phase::Paused { stage },
            (Verb::Resume, &Phase::Paused { stage }) => Phase::Soaking { stage, since: now },
            (Verb::Abort, Phase::Soaking { .. } | Phase::Paused { .. }) => Phase::Aborted,
            (Verb::RollBack, Phase::Soaking { .. } | Phase::Paused { .. }) => Phase::RolledBack,
            (Verb::RollBack, Phase::Completed) => {
                self.stands_last(&record)?;
                Phase::RolledBack
            }
            (Verb::Undo, _) => return self.undo(record, by, why, now),
            (Verb::Promote | Verb::Abort, Phase::Completed | Phase::Aborted | Phase::RolledBack)
            | (Verb::Pause, Phase::Paused { .. } | Phase::Completed | Phase::Aborted | Phase::RolledBack)
            | (Verb::Resume, Phase::Soaking { .. } | Phase::Completed | Phase::Aborted | Phase::RolledBack)
            | (Verb::RollBack, Phase::Aborted | Phase::RolledBack) => return Err(refused()),
        };
        record.before = (!matches!(verb, Verb::Pause | Verb::Resume)).then(|| Box::new(before));
        record.change(to, now, by, verb.name(), why);
        let mut effects = Vec::new();
        match (verb, record.phase.stage()) {
            (Verb::Promote, Some(stage)) => enter(&mut record, stage, fleet),
            (Verb::Resume, _) => {
                (record.found, record.in_stage) = (Measure::default(), 0);
                effects.extend(self.forget(number));
            }
            _ => {}
        }
        effects.extend(self.put(record));
        Ok(effects)
    }

    /// Goes back to where a rollout stood before the last word that led it on or ended it.
    fn undo(&mut self, mut record: Record, by: &str, why: String, now: Timestamp) -> Result<Vec<Effect>, Refusal> {
        let number = record.number;
        let Some(before) = record.before.take() else {
            return Err(Refusal::Phase { number, phase: record.phase.name(), verb: Verb::Undo.name() });
        };
        if let Some(active) = self.active(&record.spec.channel).filter(|active| active.number != number) {
            let channel = record.spec.channel.clone();
            return Err(Refusal::Busy { channel, active: active.number, phase: active.phase.name() });
        }
        self.stands_last(&record)?;
        let Before { phase, threshold } = *before;
        let phase = phase.stage().map_or(phase, |stage| Phase::Paused { stage });
        record.threshold = threshold;
        record.change(phase, now, by, Verb::Undo.name(), why);
        Ok(self.put(record))
    }

    /// Refuses what would pull a rollout out from under a later one of its channel.
    fn stands_last(&self, record: &Record) -> Result<(), Refusal> {
        let on_it = |later: &&Record| {
            let stands = later.phase.is_active() || later.phase == Phase::Completed;
            stands && later.number > record.number && later.spec.channel == record.spec.channel
        };
        match self.records.values().rev().find(on_it) {
            None => Ok(()),
            Some(later) => Err(Refusal::Overtaken { number: record.number, later: later.number }),
        }
    }

    /// Counts what a worker says of the release that it is to run, once; and what that leads to.
    ///
    /// # Errors
    /// If the worker is in no rollout of it, or the figures cannot be.
    pub fn report(
        &mut self,
        report: &Report<'_>,
        examples_max: u32,
        fleet: &Fleet,
        now: Timestamp,
    ) -> Result<Vec<Effect>, Refusal> {
        let &Report { worker, labels, release, outcome } = report;
        if let Outcome::Evaluated(evaluation) = outcome {
            evaluation.check(examples_max)?;
        }
        let record = self.of(&worker, labels).filter(|record| record.release == release);
        let mut record = record.ok_or(Refusal::NotIts(release.number))?.clone();
        let number = record.number;
        // What comes of a release that everybody has decides nothing any more.
        if !record.phase.is_active() || !self.reported.entry(number).or_default().insert(worker) {
            return Ok(Vec::new());
        }
        match outcome {
            Outcome::Failed(failure) => record.found.fail(*failure),
            Outcome::Healthy => record.found.healthy += 1,
            Outcome::Evaluated(evaluation) => {
                let found = &mut record.found;
                found.evaluated += 1;
                found.loss.add(evaluation.examples, &evaluation.loss);
                evaluation.accuracy.iter().for_each(|accuracy| found.accuracy.add(evaluation.examples, accuracy));
                evaluation.latency_ms.iter().for_each(|latency| found.latency_ms.add(evaluation.examples, latency));
            }
        }
        record.in_stage += 1;
        self.records.insert(number, record.clone());
        let mut effects = vec![Effect::Reported { rollout: number, worker }, Effect::Store(Box::new(record))];
        effects.extend(self.judge(number, fleet, now));
        Ok(effects)
    }

    /// Does what time and reports have decided.
    pub fn tick(&mut self, fleet: &Fleet, now: Timestamp) -> Vec<Effect> {
        let active = |record: &&Record| matches!(record.phase, Phase::Soaking { .. });
        let numbers: Vec<u64> = self.records.values().filter(active).map(|record| record.number).collect();
        numbers.into_iter().flat_map(|number| self.judge(number, fleet, now)).collect()
    }

    /// When something may be decided though nobody says anything.
    #[must_use]
    pub fn deadline(&self, now: Timestamp) -> Option<Timestamp> {
        let of = |record: &Record| {
            let Phase::Soaking { since, .. } = record.phase else { return None };
            let soaked = since.plus(record.stage()?.soak_ms);
            Some(if soaked > now { soaked } else { soaked.plus(record.spec.patience_ms) })
        };
        self.records.values().filter_map(of).min()
    }

    /// Ends a stage if its time, its reports and its gates say so.
    fn judge(&mut self, number: u64, fleet: &Fleet, now: Timestamp) -> Vec<Effect> {
        let Some(record) = self.records.get(&number) else { return Vec::new() };
        let (Phase::Soaking { stage, since }, Some(asked)) = (record.phase.clone(), record.stage()) else {
            return Vec::new();
        };
        let judgements = record.judgements();
        let of = |verdict| judgements.iter().find(|judgement| judgement.verdict == verdict);
        let enough = record.in_stage >= asked.reports_min;
        let soaked = now >= since.plus(asked.soak_ms);
        let late = now >= since.plus(asked.soak_ms).plus(record.spec.patience_ms);
        let mut record = record.clone();
        if let Some(failed) = of(Verdict::Fails).filter(|_| record.found.reports() >= asked.reports_min.max(1)) {
            let before = Before { phase: record.phase.clone(), threshold: record.threshold };
            record.before = Some(Box::new(before));
            let to = match record.spec.on_failure {
                OnFailure::RollBack => Phase::RolledBack,
                OnFailure::Pause => Phase::Paused { stage },
            };
            record.change(to, now, BY_ITSELF, "gate failed", failed.to_string());
        } else if soaked && enough && of(Verdict::Undecided).is_none() {
            let why = format!("{} workers reported, every gate passes", record.in_stage);
            record.before = None;
            record.change(following(&record, stage, now), now, BY_ITSELF, "stage passed", why);
            if let Some(stage) = record.phase.stage() {
                enter(&mut record, stage, fleet);
            }
        } else if late {
            let why = match of(Verdict::Undecided).filter(|_| enough) {
                Some(undecided) => format!("undecided in time: {undecided}"),
                None => format!("{} workers reported in time, {} must", record.in_stage, asked.reports_min),
            };
            record.change(Phase::Paused { stage }, now, BY_ITSELF, "pause", why);
        } else {
            return Vec::new();
        }
        self.put(record)
    }

    /// Takes a rollout for what stood there. Who reported counts as long as it can still be judged.
    fn put(&mut self, record: Record) -> Vec<Effect> {
        let over = !record.phase.is_active() && record.before.is_none();
        let mut effects: Vec<Effect> = over.then(|| self.forget(record.number)).flatten().into_iter().collect();
        self.records.insert(record.number, record.clone());
        effects.extend([Effect::Store(Box::new(record)), Effect::Changed]);
        effects
    }

    fn forget(&mut self, rollout: u64) -> Option<Effect> {
        self.reported.remove(&rollout).map(|_| Effect::Forget { rollout })
    }
}

/// What comes after a stage.
fn following(record: &Record, stage: usize, now: Timestamp) -> Phase {
    match record.spec.stages.get(stage + 1) {
        Some(_) => Phase::Soaking { stage: stage + 1, since: now },
        None => Phase::Completed,
    }
}

/// Sets the threshold of a stage that begins; nobody who is in falls out.
fn enter(record: &mut Record, stage: usize, fleet: &Fleet) {
    let Some(share) = record.spec.stages.get(stage).map(|stage| stage.share) else { return };
    let spec = &record.spec;
    let meant = |labels: &Labels| channel(labels) == spec.channel && spec.target.takes(labels);
    let release = &record.release.digest;
    let places = fleet.iter().filter(|(_, labels)| meant(labels)).map(|(worker, _)| place(release, worker)).collect();
    record.threshold = record.threshold.max(threshold(share, places));
    record.in_stage = 0;
}
