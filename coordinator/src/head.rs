//! The head: the current global model, and how a round's sum becomes its next version.
//!
//! ```text
//!   Mean ─► server optimizer ─► + what the last encodings lost ─► words ─► state, version + 1
//!                                       ▲                             │
//!                                       └──────── encoding residual ◄─┘
//! ```
//!
//! Words are of one window, so a mean over several windows is a step in several parts; a lane that more than one of
//! them names moves with the first. The head applies the *decoded* words to its own state, so replicas agree with it by construction.
//! It knows nothing of workers or phases, and stores nothing itself.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

use packfed_codec::{
    EncodeError, Encoder, Layout, Profile, Scales, State, StateDigest, StateError, StepWords, Window, decode_words,
    encode_catch_up, encode_step,
};
use packfed_protocol::Payload;
use thiserror::Error;

use crate::mean::Mean;
use crate::optimizer::ServerOptimizer;

/// How the way down is encoded and remembered.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct HeadPlan {
    /// Packing of the words.
    pub profile: Profile,
    /// The server optimizer.
    pub optimizer: ServerOptimizer,
    /// Quantization levels that the root mean square of a step spans. Few levels make what a worker
    /// missed small; what they lose is kept in the encoding residual and sent later.
    pub levels: f64,
    /// Past steps that are kept, to bring a worker up to date without a whole checkpoint.
    pub history: usize,
}

/// Everything of a head that outlives the process.
#[derive(Clone, Debug, PartialEq)]
pub struct HeadRecord {
    /// Number of commits.
    pub version: u64,
    /// The model.
    pub state: State,
    /// Server-optimizer memory, lane after lane.
    pub memory: Vec<f64>,
    /// What encodings have lost so far, a number a lane.
    pub lost: Vec<f64>,
    /// The most recent steps, oldest first, each in its parts; the last one led to `version`.
    pub past: VecDeque<Vec<StepWords>>,
}

/// Why a round's sum did not become a version.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum HeadError {
    /// The words or scales do not fit the layout.
    #[error(transparent)]
    Encode(#[from] EncodeError),
    /// A step does not fit the state.
    #[error(transparent)]
    State(#[from] StateError),
    /// Nothing was added.
    #[error("no update was added")]
    Empty,
    /// A stored record is not of this plan's size.
    #[error("{what} holds {found} numbers, the plan's model takes {expected}")]
    Record {
        /// Which part.
        what: &'static str,
        /// Numbers found.
        found: usize,
        /// Numbers that fit.
        expected: usize,
    },
}

/// The current global model.
#[derive(Clone, Debug)]
pub struct Head {
    plan: HeadPlan,
    record: HeadRecord,
    digests: VecDeque<StateDigest>,
    /// Catch-ups to this version that were asked for, by the version that they apply to: a fleet misses
    /// the same few.
    catch_ups: BTreeMap<u64, Payload>,
}

impl Head {
    /// Version 0: Δ is zero.
    #[must_use]
    pub fn new(plan: HeadPlan, layout: Arc<Layout>) -> Self {
        let lanes = layout.lanes();
        let memory = vec![0.0; lanes * plan.optimizer.memory_of_a_lane()];
        let state = State::zero(layout);
        let record = HeadRecord { version: 0, state, memory, lost: vec![0.0; lanes], past: VecDeque::new() };
        Self { plan, digests: VecDeque::from([record.state.digest()]), record, catch_ups: BTreeMap::new() }
    }

    /// A head as it was stored.
    ///
    /// # Errors
    /// If a stored step does not fit the state, or the record is of another optimizer or model.
    pub fn restore(plan: HeadPlan, record: HeadRecord) -> Result<Self, HeadError> {
        let lanes = record.state.lanes().len();
        let memory = lanes * plan.optimizer.memory_of_a_lane();
        check_size("server-optimizer memory", record.memory.len(), memory)?;
        check_size("the encoding residual", record.lost.len(), lanes)?;
        let mut digests = VecDeque::from([record.state.digest()]);
        let mut state = record.state.clone();
        for step in record.past.iter().rev() {
            state.retract(plan.profile, step)?;
            digests.push_front(state.digest());
        }
        Ok(Self { plan, record, digests, catch_ups: BTreeMap::new() })
    }

    /// What is to be stored.
    #[must_use]
    pub const fn record(&self) -> &HeadRecord {
        &self.record
    }

    /// The model.
    #[must_use]
    pub const fn state(&self) -> &State {
        &self.record.state
    }

    /// Number of commits.
    #[must_use]
    pub const fn version(&self) -> u64 {
        self.record.version
    }

    /// Digest of the model.
    ///
    /// # Panics
    /// Never: a head always remembers its own digest.
    #[must_use]
    pub fn digest(&self) -> StateDigest {
        *self.digests.back().expect("the current version's digest is kept")
    }

    /// Digest of a version, if it is remembered.
    #[must_use]
    pub fn digest_of(&self, version: u64) -> Option<StateDigest> {
        let back = usize::try_from(self.record.version.checked_sub(version)?).ok()?;
        self.digests.iter().rev().nth(back).copied()
    }

    /// The model as it was at a version, if it is remembered.
    ///
    /// # Panics
    /// Never: past steps were applied to this state.
    #[must_use]
    pub fn state_of(&self, version: u64) -> Option<State> {
        let back = usize::try_from(self.record.version.checked_sub(version)?).ok()?;
        if back > self.record.past.len() {
            return None;
        }
        let mut state = self.record.state.clone();
        let steps = self.record.past.iter().rev().take(back).flatten();
        state.retract(self.plan.profile, steps).expect("steps that were applied can be taken back");
        Some(state)
    }

    /// What a replica at `version` is missing, in the smallest exact form; everything, from version 0,
    /// for a replica of no version or one that is not remembered. Returns the version that it applies
    /// to, and the body; as often as it is asked for, it is the same one.
    ///
    /// # Panics
    /// Never: past steps were applied to this state.
    pub fn catch_up(&mut self, version: Option<u64>) -> (u64, Payload) {
        let missed = |version: u64| usize::try_from(self.record.version.checked_sub(version)?).ok();
        let remembered = |version: &u64| missed(*version).is_some_and(|missed| missed <= self.record.past.len());
        let known = version.filter(remembered);
        let from = known.unwrap_or(0);
        if !self.catch_ups.contains_key(&from) {
            let body = match known.and_then(missed) {
                Some(missed) => self.missed(missed),
                None => encode_catch_up(&State::zero(self.record.state.layout().clone()), &self.record.state),
            };
            self.catch_ups.insert(from, Payload::new(body));
        }
        (from, self.catch_ups[&from].clone())
    }

    /// The last steps, as one of them or as their sum.
    fn missed(&self, missed: usize) -> Vec<u8> {
        let current = &self.record.state;
        let mut from = current.clone();
        let steps = self.record.past.iter().rev().take(missed).flatten();
        from.retract(self.plan.profile, steps).expect("steps that were applied can be taken back");
        let sum = encode_catch_up(&from, current);
        let step = match self.record.past.back().map(Vec::as_slice) {
            Some([step]) if missed == 1 => Some(encode_step(step)),
            _ => None,
        };
        step.filter(|step| step.len() < sum.len()).unwrap_or(sum)
    }

    /// Steps the head by a mean delta; on an error the head is as it was.
    ///
    /// # Errors
    /// If the mean is of nothing or does not fit.
    pub fn commit(&mut self, mean: &Mean) -> Result<(), HeadError> {
        if mean.examples() == 0 {
            return Err(HeadError::Empty);
        }
        let mut next = self.record.clone();
        let mut moved = vec![false; next.lost.len()];
        let mut parts = Vec::with_capacity(mean.turns().len());
        for &turn in mean.turns() {
            parts.push(self.step_window(&mut next, mean, turn, &mut moved)?);
        }
        next.version += 1;
        next.past.push_back(parts);
        while next.past.len() > self.plan.history {
            next.past.pop_front();
        }
        self.digests.push_back(next.state.digest());
        while self.digests.len() > self.plan.history + 1 {
            self.digests.pop_front();
        }
        self.record = next;
        self.catch_ups.clear();
        Ok(())
    }

    /// Steps the lanes of one window that have not moved yet, and marks them.
    fn step_window(
        &self,
        next: &mut HeadRecord,
        mean: &Mean,
        turn: u32,
        moved: &mut [bool],
    ) -> Result<StepWords, HeadError> {
        let layout = next.state.layout().clone();
        let window = Window::new(self.plan.profile, turn);
        let mut targets = self.targets(next, mean, &window, moved);
        let scales = self.step_scales(&layout, &window, &targets, moved);
        hold_within_bounds(&mut targets, &next.state, &window, &scales);
        let words = Encoder::new(&layout, self.plan.profile, turn, &scales)?.nearest(&targets)?.words;
        let step = StepWords { turn, scales, words };
        next.state.apply(self.plan.profile, &step)?;
        decode_words(&layout, self.plan.profile, turn, &step.words, |slot, q| {
            if !std::mem::replace(&mut moved[slot.lane], true) {
                let exponent = step.scales[slot.layer].exponent(slot.wave);
                next.lost[slot.lane] = targets[slot.index] - f64::from(q) * 2f64.powi(exponent.into());
            }
        })?;
        Ok(step)
    }

    /// What each slot should move by, the optimizer's step plus what earlier encodings lost; 0 if it has moved.
    fn targets(&self, next: &mut HeadRecord, mean: &Mean, window: &Window, moved: &[bool]) -> Vec<f64> {
        let layout = next.state.layout().clone();
        let memory = self.plan.optimizer.memory_of_a_lane();
        let mut targets = vec![0.0; layout.blocks() * window.width()];
        window.for_each_slot(&layout, |slot| {
            if !moved[slot.lane] {
                let own = &mut next.memory[slot.lane * memory..(slot.lane + 1) * memory];
                targets[slot.index] = self.plan.optimizer.step(own, mean.lane(slot.lane)) + next.lost[slot.lane];
            }
        });
        targets
    }

    /// Power-of-two scales at which the root mean square of the targets spans the plan's levels.
    fn step_scales(&self, layout: &Layout, window: &Window, targets: &[f64], moved: &[bool]) -> Vec<Scales> {
        let mut squares = vec![[(0.0, 0u32); 2]; layout.layers().len()];
        window.for_each_slot(layout, |slot| {
            let (sum, count) = &mut squares[slot.layer][usize::from(!slot.wave)];
            *sum += targets[slot.index] * targets[slot.index];
            *count += u32::from(!moved[slot.lane]);
        });
        let scale = |(sum, count): (f64, u32)| power_of_two((sum / f64::from(count.max(1))).sqrt() / self.plan.levels);
        squares.into_iter().map(|[wave, residual]| Scales { wave: scale(wave), residual: scale(residual) }).collect()
    }
}

fn check_size(what: &'static str, found: usize, expected: usize) -> Result<(), HeadError> {
    if found == expected { Ok(()) } else { Err(HeadError::Record { what, found, expected }) }
}

/// Holds targets to whole quanta that keep each lane within the wave's gain and the state's range, so
/// that rounding cannot lead out of them.
fn hold_within_bounds(targets: &mut [f64], state: &State, window: &Window, scales: &[Scales]) {
    let layout = state.layout();
    window.for_each_slot(layout, |slot| {
        let bound = if slot.wave { wave_bound(layout, slot.layer) } else { LANE_BOUND };
        let quantum = 2f64.powi(scales[slot.layer].exponent(slot.wave).into());
        let room = |room: f64| (room.max(0.0) / quantum).floor() * quantum;
        let value = state.value(slot.lane);
        let target = &mut targets[slot.index];
        *target = target.clamp(-room(bound + value), room(bound - value));
    });
}

/// Largest magnitude of a residual lane, half of what the state can hold.
const LANE_BOUND: f64 = 1024.0;

/// Each of x and y is held to `g/√2`, so that their radius stays within the gain.
fn wave_bound(layout: &Layout, layer: usize) -> f64 {
    layout.layers()[layer].gain() * std::f64::consts::FRAC_1_SQRT_2
}

/// The exponent of the largest power of two that is at most `value`, held to what a scale may be.
fn power_of_two(value: f64) -> i8 {
    let (low, high) = (*Scales::EXPONENTS.start(), *Scales::EXPONENTS.end());
    (low..=high).rev().find(|&e| 2f64.powi(e.into()) <= value).unwrap_or(low)
}

#[cfg(test)]
mod tests {
    use packfed_codec::{LayerSpec, Seed, Tally, decode_catch_up};

    use super::*;
    use crate::mean::Part;
    use crate::staleness::FRESH;

    const SCALES: [Scales; 1] = [Scales { wave: -12, residual: -6 }];

    fn layout() -> Arc<Layout> {
        let spec = LayerSpec { name: "w".into(), rows: 9, cols: 8, block: 4, residual: 14, gain_exponent: 4 };
        Arc::new(Layout::new(&Seed::from_number(1), vec![spec]).unwrap())
    }

    fn plan(optimizer: ServerOptimizer) -> HeadPlan {
        HeadPlan { profile: Profile::Plain, optimizer, levels: 2.0, history: 3 }
    }

    fn average() -> HeadPlan {
        plan(ServerOptimizer::FedAvg { rate: 1.0 })
    }

    /// A round whose lanes all have the same uneven updates, from a seed.
    fn tally(layout: &Layout, seed: u64) -> Tally {
        let mut tally = Tally::new(layout, Profile::Plain);
        let mut stream = Seed::from_number(seed).stream();
        for weight in [3, 5] {
            let values: Vec<f64> = (0..layout.blocks() * 14).map(|_| stream.unit() - 0.4).collect();
            let words = Encoder::new(layout, Profile::Plain, 0, &SCALES).unwrap().nearest(&values).unwrap().words;
            tally.add(&words, weight).unwrap();
        }
        tally
    }

    /// The mean of rounds, each of one turn.
    fn mean_of(rounds: &[(&Tally, u32)]) -> Mean {
        let part = |&(tally, turn)| Part { tally, turn, scales: &SCALES, factor: FRESH };
        Mean::of(&layout(), Profile::Plain, &rounds.iter().map(part).collect::<Vec<_>>()).unwrap()
    }

    fn committed(plan: HeadPlan, rounds: u32) -> Head {
        let layout = layout();
        let mut head = Head::new(plan, layout.clone());
        for round in 0..rounds {
            head.commit(&mean_of(&[(&tally(&layout, round.into()), round)])).unwrap();
        }
        head
    }

    #[test]
    fn a_mean_over_several_windows_moves_each_lane_once() {
        // 16 levels are so fine that the step shows what the mean says.
        let plan = HeadPlan { levels: 16.0, ..plan(ServerOptimizer::FedAvgM { rate: 1.0, momentum: 0.5 }) };
        let mut head = Head::new(plan, layout());
        let (first, second) = (tally(&layout(), 1), tally(&layout(), 2));
        let mean = mean_of(&[(&first, 4), (&second, 1)]);
        assert_eq!(mean.turns(), [1, 4]);
        for commits in [1.0, 2.5] {
            head.commit(&mean).unwrap();
            for lane in 0..layout().lanes() {
                let (value, expected) = (head.state().value(lane), commits * mean.lane(lane));
                assert!((value - expected).abs() < 0.05, "lane {lane}: {value} {expected}");
            }
        }
        let (from, body) = head.catch_up(Some(1));
        let mut replica = Head::new(plan, layout());
        replica.commit(&mean).unwrap();
        let mut replica = replica.state().clone();
        decode_catch_up(&mut replica, Profile::Plain, body.bytes()).unwrap();
        assert_eq!((from, replica.digest()), (1, head.digest()), "one step of two parts is caught up with");
        let restored = Head::restore(plan, head.record().clone()).unwrap();
        assert_eq!(restored.digest_of(0), Some(State::zero(layout()).digest()));
    }

    #[test]
    fn what_an_encoding_loses_is_made_good_later() {
        let layout = layout();
        let mut head = Head::new(average(), layout.clone());
        let tally = tally(&layout, 7);
        let expected =
            |slot: Slot, rounds: f64| tally.mean(slot.index) * 2f64.powi(SCALES[0].exponent(slot.wave).into()) * rounds;
        let mut worst = [0.0f64; 2];
        for (after, worst) in worst.iter_mut().enumerate() {
            let until = if after == 0 { 1 } else { 20 };
            while head.version() < until {
                head.commit(&mean_of(&[(&tally, 0)])).unwrap();
            }
            Window::new(Profile::Plain, 0).for_each_slot(&layout, |slot| {
                *worst = worst.max((head.state().value(slot.lane) - expected(slot, until as f64)).abs());
            });
        }
        assert!(worst[0] > 0.01 && worst[1] < 2.0 * worst[0], "the error does not grow with rounds: {worst:?}");
    }

    #[test]
    fn every_remembered_version_catches_up_and_an_older_one_gets_a_checkpoint() {
        let mut head = committed(average(), 5);
        let mut older = vec![(0, committed(average(), 0)), (1, committed(average(), 1))];
        older.extend((2..=5u32).map(|n| (n.into(), committed(average(), n))));
        for (version, past) in older {
            let (from, body) = head.catch_up(Some(version));
            assert_eq!(from, if version >= 2 { version } else { 0 }, "three steps are kept");
            let mut replica = if from == 0 { State::zero(layout()) } else { past.state().clone() };
            decode_catch_up(&mut replica, Profile::Plain, body.bytes()).unwrap();
            assert_eq!(replica.digest(), head.digest());
        }
    }

    #[test]
    fn a_restored_head_goes_on_as_if_it_had_not_stopped() {
        let (rate, beta1, beta2, tau) = (0.1, 0.9, 0.99, 1e-3);
        for optimizer in [
            ServerOptimizer::FedAvgM { rate, momentum: 0.5 },
            ServerOptimizer::FedAdam { rate, beta1, beta2, tau },
            ServerOptimizer::FedYogi { rate, beta1, beta2, tau },
        ] {
            let plan = plan(optimizer);
            let mut stopped = Head::restore(plan, committed(plan, 3).record().clone()).unwrap();
            stopped.commit(&mean_of(&[(&tally(&layout(), 3), 3)])).unwrap();
            let whole = committed(plan, 4);
            assert_eq!(stopped.record(), whole.record());
            assert_eq!(stopped.digest_of(2), whole.digest_of(2));
            assert_eq!(whole.digest_of(9), None);
        }
    }

    #[test]
    fn the_wave_stays_within_its_gain() {
        let head = committed(plan(ServerOptimizer::FedAvg { rate: 1e4 }), 3);
        let layer = &head.state().layout().layers()[0];
        for block in layer.blocks() {
            let (x, y) = head.state().wave(layer, block);
            assert!(x.hypot(y) <= layer.gain() * 1.001, "{x}, {y}");
        }
    }

    #[test]
    fn an_empty_round_changes_nothing() {
        let mut head = committed(average(), 2);
        let before = head.record().clone();
        let empty = Tally::new(&layout(), Profile::Plain);
        assert_eq!(head.commit(&mean_of(&[(&empty, 2)])), Err(HeadError::Empty));
        assert_eq!(head.record(), &before);
    }

    use packfed_codec::Slot;
}
