//! One round's reporting phase: which updates it takes, and what they add up to.
//!
//! ```text
//!               goal met, or              goal met, or
//!               time-out ≥ minimum        time-out ≥ minimum           stored
//!   Selection ──────────────────► Reporting ─────────────► Aggregation ─────► Committed
//!       │ time-out < minimum          │ time-out < minimum       │ fault
//!       └─────────────────────────────┴──────────────────────────┴─────────► Abandoned(why)
//! ```
//!
//! It knows the plan and its own cohort; it does not know connections, stores or other rounds.

use std::collections::BTreeMap;
use std::sync::Arc;

use packfed_codec::robust::{Extent, WHOLE};
use packfed_codec::{Scales, Tally, Window};
use packfed_protocol::{
    Digest, LaneClips, Limits, Message, Rejection, RejectionCode, Timestamp, UpdateHeader, Verified, WorkerId,
};

use crate::aggregation::{AggregationTask, Counted, RobustRule, Rule};
use crate::event::OpenRound;
use crate::mean::Part;
use crate::plan::RunPlan;
use crate::scaling::codec_scales;

/// A round that takes updates.
#[derive(Clone, Debug)]
pub struct Reporting {
    open: OpenRound,
    tally: Tally,
    accepted: BTreeMap<WorkerId, Accepted>,
    /// Lanes of each layer in this window, of the wave and of the residual.
    lanes: Vec<[u32; 2]>,
}

/// What is remembered of an accepted update beside its place in the sum.
#[derive(Clone, Debug, PartialEq)]
struct Accepted {
    examples: u32,
    train_loss: f32,
    clipped: Vec<[u32; 2]>,
    /// Digest of its words, by which they are known again in the journal.
    payload: Digest,
    /// How far it reaches, if updates are not taken at their word.
    extent: Option<Extent>,
}

impl Reporting {
    /// A round that nobody has reported to.
    #[must_use]
    pub fn new(plan: &RunPlan, open: OpenRound) -> Self {
        let tally = Tally::new(plan.layout(), plan.raw().profile);
        let mut lanes = vec![[0; 2]; plan.layout().layers().len()];
        let window = Window::new(plan.raw().profile, open.turn);
        window.for_each_slot(plan.layout(), |slot| lanes[slot.layer][usize::from(!slot.wave)] += 1);
        Self { open, tally, accepted: BTreeMap::new(), lanes }
    }

    /// A round as it was stored: every journalled frame is verified again, signature and all.
    ///
    /// # Errors
    /// The place in the journal of the first update that does not hold, and what is wrong with it.
    pub fn restore(plan: &RunPlan, open: OpenRound, frames: &[Vec<u8>]) -> Result<Self, (usize, Rejection)> {
        let mut reporting = Self::new(plan, open);
        for (index, frame) in frames.iter().enumerate() {
            let update = verified(frame).map_err(|rejection| (index, rejection))?;
            reporting.accept(plan, &update).map_err(|rejection| (index, rejection))?;
        }
        Ok(reporting)
    }

    /// The round's record.
    #[must_use]
    pub const fn open(&self) -> &OpenRound {
        &self.open
    }

    /// The exact sum so far; under a robust rule there is none before [`Reporting::take`].
    #[must_use]
    pub const fn tally(&self) -> &Tally {
        &self.tally
    }

    /// Its updates as a part of a mean; each counts for `factor`, and `scales` are the round's.
    #[must_use]
    pub const fn part<'a>(&'a self, scales: &'a [Scales], factor: u32) -> Part<'a> {
        Part { tally: &self.tally, turn: self.open.turn, scales, factor }
    }

    /// Number of accepted updates.
    #[must_use]
    pub fn reports(&self) -> u32 {
        u32::try_from(self.accepted.len()).unwrap_or(u32::MAX)
    }

    /// Whether a worker was drawn and has not reported.
    #[must_use]
    pub fn awaits(&self, worker: &WorkerId) -> bool {
        self.open.cohort.binary_search(worker).is_ok() && !self.accepted.contains_key(worker)
    }

    /// Workers that were drawn and have not reported, ascending.
    pub fn missing(&self) -> impl Iterator<Item = WorkerId> + '_ {
        self.open.cohort.iter().filter(|worker| !self.accepted.contains_key(worker)).copied()
    }

    /// Draws more workers, and waits for them until this time.
    pub fn join(&mut self, workers: &[WorkerId], deadline: Timestamp) {
        self.open.cohort.extend_from_slice(workers);
        self.open.cohort.sort_unstable();
        self.open.deadline = self.open.deadline.max(deadline);
    }

    /// No longer waits for workers that have not reported.
    pub fn leave(&mut self, workers: &[WorkerId]) {
        self.open.cohort.retain(|worker| self.accepted.contains_key(worker) || !workers.contains(worker));
    }

    /// Adds an update for this round, or says why not; then nothing has changed.
    ///
    /// # Errors
    /// The rejection that the worker is to be told.
    pub fn accept(&mut self, plan: &RunPlan, update: &Verified) -> Result<(), Rejection> {
        let header = update.header();
        self.check(plan, header)?;
        let extent = self.count(plan, update.payload(), header.examples)?;
        let clipped = header.clipped.iter().map(|clips| [clips.wave, clips.residual]).collect();
        let (payload, train_loss) = (header.payload, header.train_loss);
        let accepted = Accepted { examples: header.examples, train_loss, clipped, payload, extent };
        self.accepted.insert(header.worker, accepted);
        Ok(())
    }

    /// Adds words to the sum unless a rule will read them from the journal, and measures them unless they are taken
    /// as they come.
    fn count(&mut self, plan: &RunPlan, words: &[u8], examples: u32) -> Result<Option<Extent>, Rejection> {
        let (raw, layout) = (plan.raw(), plan.layout());
        if raw.aggregation.is_trusting() {
            self.tally.add(words, examples).map_err(malformed)?;
            return Ok(None);
        }
        let extent = Extent::of(layout, raw.profile, &self.scales(), words).map_err(malformed)?;
        if raw.aggregation.rule == Rule::Mean {
            let (weight, shrunk) = clipped_weight(plan, examples, share(plan, &extent));
            self.tally.add_shrunk(words, weight, shrunk).map_err(malformed)?;
        }
        Ok(Some(extent))
    }

    /// What a rule is to be applied to.
    #[must_use]
    pub fn task(&self, plan: &Arc<RunPlan>, rule: RobustRule) -> AggregationTask {
        let counted = |(&worker, accepted): (&WorkerId, &Accepted)| Counted {
            worker,
            payload: accepted.payload,
            share: accepted.extent.as_ref().map_or(WHOLE, |extent| share(plan, extent)),
        };
        AggregationTask {
            plan: plan.clone(),
            rule,
            round: self.open.round,
            scales: self.scales(),
            updates: self.accepted.iter().map(counted).collect(),
        }
    }

    /// Takes what a rule came to for the round's sum.
    pub fn take(&mut self, tally: Tally) {
        self.tally = tally;
    }

    fn check(&self, plan: &RunPlan, header: &UpdateHeader) -> Result<(), Rejection> {
        let reject = |code, detail: String| Err(Rejection::new(code, detail));
        let (open, blocks) = (&self.open, plan.layout().blocks());
        if open.cohort.binary_search(&header.worker).is_err() {
            return reject(RejectionCode::NotSelected, format!("the worker was not drawn for round {}", open.round.0));
        }
        if self.accepted.contains_key(&header.worker) {
            return reject(RejectionCode::Duplicate, format!("round {} has an update of this worker", open.round.0));
        }
        if header.base.0 != open.base {
            let detail = format!("the update is against version {}, the round's base is {}", header.base.0, open.base);
            return reject(RejectionCode::StaleBase, detail);
        }
        if header.words as usize != blocks {
            let detail = format!("the update has {} words, the layout has {blocks} blocks", header.words);
            return reject(RejectionCode::WrongBlockCount, detail);
        }
        let examples_max = plan.raw().examples_max;
        if !(1..=examples_max).contains(&header.examples) {
            let detail = format!("the update claims {} examples, allowed is 1 to {examples_max}", header.examples);
            return reject(RejectionCode::ExampleCap, detail);
        }
        if !header.train_loss.is_finite() {
            return reject(RejectionCode::NotFinite, format!("the training loss is {}", header.train_loss));
        }
        if header.clipped.len() != open.scales.len() {
            let detail = format!("{} pairs of clip counts for {} layers", header.clipped.len(), open.scales.len());
            return reject(RejectionCode::Malformed, detail);
        }
        let over = |(clips, lanes): &(&LaneClips, &[u32; 2])| clips.wave > lanes[0] || clips.residual > lanes[1];
        if let Some((clips, lanes)) = header.clipped.iter().zip(&self.lanes).find(over) {
            let (wave, residual) = (clips.wave, clips.residual);
            let detail = format!("{wave} and {residual} lanes clipped, a layer has {} and {}", lanes[0], lanes[1]);
            return reject(RejectionCode::Malformed, detail);
        }
        Ok(())
    }

    /// Examples behind the accepted updates, as they claim.
    #[must_use]
    pub fn examples(&self) -> u64 {
        self.accepted.values().map(|accepted| u64::from(accepted.examples)).sum()
    }

    /// Mean training loss, weighted by examples; in key order, so that it is the same everywhere. Where updates may
    /// lie it is the median.
    #[must_use]
    pub fn train_loss(&self, plan: &RunPlan) -> f64 {
        if !plan.raw().aggregation.is_trusting() {
            let losses = self.accepted.values().map(|accepted| f64::from(accepted.train_loss));
            return believed(losses.collect(), self.accepted.len().saturating_sub(1) / 2);
        }
        let of = |a: &Accepted| f64::from(a.examples) * f64::from(a.train_loss);
        let weighted: f64 = self.accepted.values().map(of).sum();
        weighted / self.examples().max(1) as f64
    }

    /// Share of the lanes of each layer and kind that were clipped, wave then residual: of all updates, or where
    /// updates may lie, of an update that is believed.
    #[must_use]
    pub fn clipped(&self, plan: &RunPlan) -> Vec<[f64; 2]> {
        let doubts = plan.raw().aggregation.doubts(self.accepted.len());
        let share = |layer: usize, kind: usize| {
            let lanes = u64::from(self.lanes[layer][kind]);
            let clipped = self.accepted.values().map(|a| u64::from(a.clipped[layer][kind]));
            if plan.raw().aggregation.is_trusting() {
                return clipped.sum::<u64>() as f64 / (lanes * self.accepted.len() as u64).max(1) as f64;
            }
            believed(clipped.map(|clipped| clipped as f64 / lanes.max(1) as f64).collect(), doubts)
        };
        (0..self.lanes.len()).map(|layer| [share(layer, 0), share(layer, 1)]).collect()
    }

    /// Share of all lanes that were clipped, layers and kinds counting alike.
    #[must_use]
    pub fn clipped_in_all(&self, plan: &RunPlan) -> f64 {
        let clipped = self.clipped(plan);
        clipped.iter().flatten().sum::<f64>() / (2 * clipped.len()).max(1) as f64
    }

    /// Share of its field's range that the largest lane of each layer and kind uses, wave then residual: of all
    /// updates, or where updates may lie, of an update that is believed.
    #[must_use]
    pub fn used(&self, plan: &RunPlan) -> Vec<[f64; 2]> {
        let max = |kind: usize| f64::from(plan.raw().profile.lane_max(kind * packfed_codec::WAVE_LANES));
        if plan.raw().aggregation.is_trusting() {
            let share = |peaks: &[u32; 2]| [f64::from(peaks[0]) / max(0), f64::from(peaks[1]) / max(1)];
            return self.tally.peaks().iter().map(share).collect();
        }
        let doubts = plan.raw().aggregation.doubts(self.accepted.len());
        let share = |layer: usize, kind: usize| {
            let extents = self.accepted.values().filter_map(|accepted| accepted.extent.as_ref());
            believed(extents.map(|extent| f64::from(extent.peaks()[layer][kind]) / max(kind)).collect(), doubts)
        };
        (0..self.lanes.len()).map(|layer| [share(layer, 0), share(layer, 1)]).collect()
    }

    /// The scales of this round, as the codec has them.
    #[must_use]
    pub fn scales(&self) -> Vec<Scales> {
        codec_scales(&self.open.scales)
    }
}

/// The largest of some values that is not among the `doubts` largest: if no more of them lie, it is no larger than the
/// largest honest one, and no smaller than the least.
fn believed(mut values: Vec<f64>, doubts: usize) -> f64 {
    values.sort_unstable_by(f64::total_cmp);
    let last = values.len().saturating_sub(doubts + 1);
    values.get(last).copied().unwrap_or(0.0)
}

/// What is kept of an update, in units of `1 / WHOLE`.
fn share(plan: &RunPlan, extent: &Extent) -> u32 {
    plan.raw().aggregation.clip_norm.map_or(WHOLE, |norm| extent.share(norm))
}

/// The weight of an update in a mean of clipped ones, and what of it its words are added with: as many bits behind the
/// point as leave room for the whole cohort's examples.
fn clipped_weight(plan: &RunPlan, examples: u32, share: u32) -> (u32, u32) {
    let bits = |n: u32| u32::BITS - n.leading_zeros();
    let (examples_bits, cohort_bits) = (bits(plan.raw().examples_max), bits(plan.cohort()));
    let point = WHOLE.ilog2().min(31 - examples_bits).min(47_u32.saturating_sub(examples_bits + cohort_bits));
    let shrunk = (u64::from(examples) * u64::from(share)) >> (WHOLE.ilog2() - point);
    (examples << point, u32::try_from(shrunk).unwrap_or(u32::MAX))
}

fn malformed(error: impl std::fmt::Display) -> Rejection {
    Rejection::new(RejectionCode::Malformed, error.to_string())
}

/// The update in a journalled frame.
fn verified(frame: &[u8]) -> Result<Verified, Rejection> {
    match Message::from_frame(frame, &Limits::default())? {
        Message::Update(signed) => {
            let worker = signed.header.worker;
            signed.verify(&worker)
        }
        other => Err(Rejection::new(RejectionCode::Unexpected, format!("a {} in the journal", other.frame_type()))),
    }
}
