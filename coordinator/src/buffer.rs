//! Updates that are gathered without rounds, and the workers that are at work on more.
//!
//! ```text
//!   base 4   at work ○○     gathered ●      stale by 2
//!   base 5   at work ○      gathered ●●     stale by 1
//!   base 6   at work ○○○    gathered ●      against the head
//!   ── goal gathered, or time is up and there are min ──► commit: ● are counted, ○ go on
//! ```
//!
//! FedBuff (Nguyen et al., AISTATS 2022). Whoever is assigned while the head stands at one version forms one open
//! round: same base, window and scales, and a sum of its own, so that a buffer adds up exactly in any order. A round
//! takes one update of a worker, whenever it comes. It does not know connections, stores or who is free.

use std::collections::{BTreeMap, BTreeSet};

use packfed_codec::{EncodeError, Scales};
use packfed_protocol::{LaneScales, Rejection, RejectionCode, Round, Timestamp, Verified, WorkerId};

use crate::event::{OpenRound, StoredRound};
use crate::mean::Mean;
use crate::plan::{Buffered, RunPlan};
use crate::round::Reporting;
use crate::scaling::corrected;

/// See the module.
#[derive(Clone, Debug, Default)]
pub struct Buffer {
    rounds: BTreeMap<Round, Base>,
}

/// The workers that were assigned one base.
#[derive(Clone, Debug)]
struct Base {
    reporting: Reporting,
    /// Workers whose update an earlier commit has counted.
    counted: BTreeSet<WorkerId>,
}

/// A round that takes no more updates, and who had not reported.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ended {
    /// Its number.
    pub round: Round,
    /// Workers whose update comes too late.
    pub missing: Vec<WorkerId>,
}

/// What a buffer comes to beside its mean.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Gathered {
    /// The latest round with an update.
    pub round: Round,
    /// Updates.
    pub updates: u32,
    /// Examples behind them.
    pub examples: u64,
    /// Mean training loss, weighted by examples.
    pub train_loss: f64,
    /// Share of the lanes that were clipped.
    pub clipped: f64,
    /// Mean number of versions that an update's base is behind the head.
    pub staleness: f64,
}

impl Base {
    const fn new(reporting: Reporting) -> Self {
        Self { reporting, counted: BTreeSet::new() }
    }

    const fn open(&self) -> &OpenRound {
        self.reporting.open()
    }
}

impl Buffer {
    /// A buffer as it was stored: every journalled frame is verified again.
    ///
    /// # Errors
    /// The round and the place in its journal of the first update that does not hold, and what is wrong with it.
    pub fn restore(plan: &RunPlan, stored: Vec<StoredRound>) -> Result<Self, (Round, usize, Rejection)> {
        let mut rounds = BTreeMap::new();
        for (open, frames) in stored {
            let round = open.round;
            let reporting = Reporting::restore(plan, open, &frames).map_err(|(index, why)| (round, index, why))?;
            rounds.insert(round, Base::new(reporting));
        }
        Ok(Self { rounds })
    }

    /// Workers that are at work.
    #[must_use]
    pub fn at_work(&self) -> usize {
        self.rounds.values().map(|base| base.reporting.missing().count()).sum()
    }

    /// Updates gathered since the last commit.
    #[must_use]
    pub fn updates(&self) -> u32 {
        self.rounds.values().map(|base| base.reporting.reports()).sum()
    }

    /// The latest open round.
    #[must_use]
    pub fn latest(&self) -> Option<&OpenRound> {
        self.rounds.values().next_back().map(Base::open)
    }

    /// When the time of some round is up.
    #[must_use]
    pub fn deadline(&self) -> Option<Timestamp> {
        self.rounds.values().map(|base| base.open().deadline).min()
    }

    /// The round that a worker is at work on.
    #[must_use]
    pub fn round_of(&self, worker: &WorkerId) -> Option<&OpenRound> {
        self.rounds.values().rev().map(|base| &base.reporting).find(|round| round.awaits(worker)).map(Reporting::open)
    }

    /// The round of those who train from a version.
    #[must_use]
    pub fn round_from(&self, version: u64) -> Option<&OpenRound> {
        self.latest().filter(|open| open.base == version)
    }

    /// Whether a round that is open gave this worker an assignment.
    #[must_use]
    pub fn assigned(&self, round: Round, worker: &WorkerId) -> bool {
        let drew = |base: &Base| base.open().cohort.binary_search(worker).is_ok() || base.counted.contains(worker);
        self.rounds.get(&round).is_some_and(drew)
    }

    /// Gathers an update, or says why not; then nothing has changed.
    ///
    /// # Errors
    /// The rejection that the worker is to be told.
    pub fn accept(&mut self, plan: &RunPlan, update: &Verified) -> Result<(), Rejection> {
        let (round, worker) = (update.header().round, update.header().worker);
        let Some(base) = self.rounds.get_mut(&round) else {
            return Err(Rejection::new(RejectionCode::NotSelected, format!("round {} is not open", round.0)));
        };
        if base.counted.contains(&worker) {
            let detail = format!("the worker's update for round {} is in a committed version", round.0);
            return Err(Rejection::new(RejectionCode::Replayed, detail));
        }
        base.reporting.accept(plan, update)
    }

    /// Puts workers to work on a round, which is opened if it is not; its deadline is the later one.
    ///
    /// # Panics
    /// Never: the round is in its place when it is read.
    pub fn assign(&mut self, plan: &RunPlan, round: OpenRound) -> &OpenRound {
        let number = round.round;
        match self.rounds.entry(number) {
            std::collections::btree_map::Entry::Vacant(place) => {
                place.insert(Base::new(Reporting::new(plan, round)));
            }
            std::collections::btree_map::Entry::Occupied(mut place) => {
                place.get_mut().reporting.join(&round.cohort, round.deadline);
            }
        }
        self.rounds[&number].open()
    }

    /// Takes an assignment back from a worker that lost it; returns its round, with nobody in it if it is over.
    pub fn withdraw(&mut self, worker: &WorkerId) -> Option<OpenRound> {
        let round = self.round_of(worker)?.round;
        let base = self.rounds.get_mut(&round)?;
        base.reporting.leave(std::slice::from_ref(worker));
        let open = base.open().clone();
        if open.cohort.is_empty() {
            self.rounds.remove(&round);
        }
        Some(open)
    }

    /// Ends the work of everybody whose time is up. A round with gathered updates stays, with a new deadline; the
    /// others are over, and are returned with an empty cohort.
    pub fn lapse(&mut self, now: Timestamp, deadline: Timestamp) -> (Vec<Ended>, Vec<OpenRound>) {
        let (mut ended, mut changed) = (Vec::new(), Vec::new());
        for base in self.rounds.values_mut().filter(|base| base.open().deadline <= now) {
            let missing: Vec<WorkerId> = base.reporting.missing().collect();
            base.reporting.leave(&missing);
            base.reporting.join(&[], deadline);
            ended.push(Ended { round: base.open().round, missing });
            changed.push(base.open().clone());
        }
        self.rounds.retain(|_, base| !base.open().cohort.is_empty());
        (ended, changed)
    }

    /// The mean of what is gathered, for a head at `version`.
    ///
    /// # Errors
    /// If stored scales do not fit the layout.
    pub fn mean(&self, plan: &RunPlan, buffered: &Buffered, version: u64) -> Result<Mean, EncodeError> {
        let scales: Vec<Vec<Scales>> = self.rounds.values().map(|base| base.reporting.scales()).collect();
        let mut parts = Vec::with_capacity(scales.len());
        for (base, scales) in self.rounds.values().zip(&scales) {
            let staleness = version.saturating_sub(base.open().base);
            parts.push(base.reporting.part(scales, buffered.staleness_weight.factor(staleness)));
        }
        Mean::of(plan.layout(), plan.raw().profile, &parts)
    }

    /// How what is gathered went, for a head at `version`; in the order of rounds, so that it is the same everywhere.
    #[must_use]
    pub fn gathered(&self, plan: &RunPlan, version: u64) -> Option<Gathered> {
        let with_updates: Vec<&Reporting> =
            self.rounds.values().map(|base| &base.reporting).filter(|round| round.reports() > 0).collect();
        let (mut examples, mut loss, mut updates, mut clipped, mut staleness) = (0, 0.0, 0, 0.0, 0.0);
        for round in &with_updates {
            let reports = f64::from(round.reports());
            examples += round.examples();
            loss += round.train_loss(plan) * round.examples() as f64;
            updates += round.reports();
            clipped += round.clipped_in_all(plan) * reports;
            staleness += version.saturating_sub(round.open().base) as f64 * reports;
        }
        Some(Gathered {
            round: with_updates.last()?.open().round,
            updates,
            examples,
            train_loss: loss / examples.max(1) as f64,
            clipped: clipped / f64::from(updates),
            staleness: staleness / f64::from(updates),
        })
    }

    /// The scales that fit what is gathered: for each lane kind the largest that any round asks for. What a round
    /// asks for starts from its own scales, so that several of them do not correct the same fault several times.
    #[must_use]
    pub fn corrected_scales(&self, plan: &RunPlan) -> Option<Vec<LaneScales>> {
        let asked = self.rounds.values().map(|base| &base.reporting).filter(|round| round.reports() > 0);
        asked.map(|round| corrected(&round.open().scales, &round.clipped(plan), &round.used(plan))).reduce(
            |all, own| {
                let larger = |(a, b): (LaneScales, LaneScales)| LaneScales {
                    wave: a.wave.max(b.wave),
                    residual: a.residual.max(b.residual),
                };
                all.into_iter().zip(own).map(larger).collect()
            },
        )
    }

    /// After a commit that led to `version`: nothing is gathered, and whoever is at work goes on unless its base is
    /// now further behind than the bound.
    pub fn settle(&mut self, plan: &RunPlan, buffered: &Buffered, version: u64) -> Vec<Ended> {
        let mut ended = Vec::new();
        for (round, base) in std::mem::take(&mut self.rounds) {
            let missing: Vec<WorkerId> = base.reporting.missing().collect();
            if version.saturating_sub(base.open().base) > u64::from(buffered.staleness_max) {
                ended.push(Ended { round, missing });
            } else if !missing.is_empty() {
                let Base { reporting, mut counted } = base;
                let reported = |worker: &&WorkerId| missing.binary_search(worker).is_err();
                counted.extend(reporting.open().cohort.iter().filter(reported));
                let rest = OpenRound { cohort: missing, ..reporting.open().clone() };
                self.rounds.insert(round, Base { reporting: Reporting::new(plan, rest), counted });
            }
        }
        ended
    }

    /// Ends everything; what is gathered is lost.
    pub fn end(&mut self) -> Vec<Ended> {
        let ended = |(round, base): (Round, Base)| Ended { round, missing: base.reporting.missing().collect() };
        std::mem::take(&mut self.rounds).into_iter().map(ended).collect()
    }

    /// The open rounds, in their order.
    pub fn open(&self) -> impl Iterator<Item = &OpenRound> {
        self.rounds.values().map(Base::open)
    }
}
