//! The records of a run as bytes, and what they have to be to be believed.

use std::collections::{BTreeMap, VecDeque};

use packfed_codec::{State, StepWords, WORD_BYTES};
use packfed_protocol::{Digest, LaneScales, Round, WorkerId, wire};
use redb::ReadableTable;

use super::journal::Place;
use super::planes::Planes;
use super::seal::{opened, sealed};
use super::{ROUNDS, STEPS, corrupt};
use crate::event::{OpenRound, Stored, StoredRound, Summary};
use crate::head::HeadRecord;
use crate::memory_store::first_head;
use crate::plan::RunPlan;
use crate::scaling::wire_scales;
use crate::store::StoreError;

/// What one read transaction saw, unchecked.
pub(super) struct Records {
    planes: Planes,
    steps: Vec<((u64, u32), Vec<u8>)>,
    rounds: Vec<(u64, Vec<u8>)>,
    /// Frames of accepted updates.
    updates: Vec<(Round, Vec<u8>)>,
}

/// The small records, each whole.
pub(super) struct Meta {
    pub(super) next_round: Round,
    pub(super) version: Option<u64>,
    pub(super) scales: Option<Vec<LaneScales>>,
    pub(super) last: Option<Summary>,
}

impl Records {
    /// Reads all but the frames, which are there already.
    pub(super) fn read(
        transaction: &redb::ReadTransaction,
        updates: Vec<(Round, Vec<u8>)>,
    ) -> Result<Self, redb::Error> {
        let mut steps = Vec::new();
        for entry in transaction.open_table(STEPS)?.iter()? {
            let (key, bytes) = entry?;
            steps.push((key.value(), bytes.value().to_vec()));
        }
        let mut rounds = Vec::new();
        for entry in transaction.open_table(ROUNDS)?.iter()? {
            let (round, bytes) = entry?;
            rounds.push((round.value(), bytes.value().to_vec()));
        }
        Ok(Self { planes: Planes::read(transaction)?, steps, rounds, updates })
    }

    pub(super) fn check(mut self, plan: &RunPlan, meta: Meta) -> Result<Stored, StoreError> {
        let Meta { next_round, version, scales, last } = meta;
        let layers = plan.layout().layers().len();
        let scales = scales.unwrap_or_else(|| wire_scales(&plan.first_scales()));
        check_scales("scales", scales.len(), layers)?;
        let open = self.open(layers)?;
        let head = self.head(plan, version, last.as_ref())?;
        Ok(Stored { head, scales, next_round, open, last })
    }

    /// The open rounds, each with its journal.
    fn open(&mut self, layers: usize) -> Result<Vec<StoredRound>, StoreError> {
        let mut open = BTreeMap::new();
        for (number, bytes) in &self.rounds {
            let round = round(*number, bytes).map_err(|why| corrupt("open round", why))?;
            check_scales("open round", round.scales.len(), layers)?;
            if round.round.0 != *number {
                return Err(corrupt("open round", format!("round {} stands in the place of {number}", round.round.0)));
            }
            open.insert(*number, (round, Vec::new()));
        }
        for (round, frame) in std::mem::take(&mut self.updates) {
            if let Some((_, frames)) = open.get_mut(&round.0) {
                frames.push(frame);
            }
        }
        Ok(open.into_values().collect())
    }

    /// The head, which has to be the model whose digest the last commit told.
    fn head(self, plan: &RunPlan, version: Option<u64>, last: Option<&Summary>) -> Result<HeadRecord, StoreError> {
        let (version, last) = match (version, last) {
            (None, None) => return Ok(first_head(plan)),
            (Some(version), Some(last)) if last.version == version => (version, last),
            (version, last) => {
                let last = last.map(|last| last.version);
                return Err(corrupt("version", format!("it is {version:?}, the last commit led to {last:?}")));
            }
        };
        let layout = plan.layout().clone();
        let numbers = self.planes.numbers(&layout, plan.raw().optimizer.memory_of_a_lane())?;
        let state = State::from_bytes(layout, &numbers.state).map_err(|e| corrupt("state", e.to_string()))?;
        let digest = Digest(state.digest().0);
        if digest != last.digest {
            return Err(corrupt("state", format!("its digest is {digest}, version {version} has {}", last.digest)));
        }
        Ok(HeadRecord {
            version,
            state,
            memory: finite("server-optimizer memory", numbers.memory)?,
            lost: finite("encoding residual", numbers.lost)?,
            past: past(plan, version, &self.steps)?,
        })
    }
}

fn check_scales(what: &'static str, found: usize, layers: usize) -> Result<(), StoreError> {
    if found == layers {
        return Ok(());
    }
    Err(corrupt(what, format!("{found} pairs of scales for {layers} layers")))
}

/// The remembered steps, which have to lead to `version` without a gap.
fn past(plan: &RunPlan, version: u64, steps: &[((u64, u32), Vec<u8>)]) -> Result<VecDeque<Vec<StepWords>>, StoreError> {
    let (layers, bytes) = (plan.layout().layers().len(), plan.layout().blocks() * WORD_BYTES);
    let mut past: VecDeque<Vec<StepWords>> = VecDeque::new();
    // From the last step back to the first.
    let mut expected = version;
    for parts in steps.chunk_by(|((a, _), _), ((b, _), _)| a == b).rev() {
        let ((led_to, _), _) = parts[0];
        let in_order = (0..).zip(parts).all(|(number, ((_, part), _))| number == *part);
        if led_to == 0 || led_to != expected || !in_order {
            return Err(corrupt("steps", format!("step {led_to} is out of line with version {version}")));
        }
        expected = led_to - 1;
        let step = |((_, part), bytes): &((u64, u32), Vec<u8>)| {
            let bytes = opened("steps", &step_name(led_to, *part), bytes)?;
            StepWords::from_bytes(bytes).map_err(|e| e.to_string())
        };
        let parts = parts.iter().map(step).collect::<Result<Vec<_>, _>>();
        let parts = parts.map_err(|why| corrupt("steps", format!("step {led_to}: {why}")))?;
        if parts.iter().any(|step| (step.scales.len(), step.words.len()) != (layers, bytes)) {
            return Err(corrupt("steps", format!("step {led_to} does not fit the layout")));
        }
        past.push_front(parts);
    }
    Ok(past)
}

/// A part of a step, sealed.
pub(super) fn step_bytes(version: u64, part: u32, step: &StepWords) -> Vec<u8> {
    sealed("steps", &step_name(version, part), &step.to_bytes())
}

fn step_name(version: u64, part: u32) -> Vec<u8> {
    [version.to_le_bytes().as_slice(), &part.to_le_bytes()].concat()
}

/// An open round, sealed; its cohort stands behind it, as it may be longer than a message.
pub(super) fn round_bytes(open: &OpenRound) -> Vec<u8> {
    let cohort: Vec<u8> = open.cohort.iter().flat_map(|worker| worker.0).collect();
    let round = wire::to_bytes(&OpenRound { cohort: Vec::new(), ..open.clone() });
    sealed("rounds", &open.round.0.to_le_bytes(), &[round, cohort].concat())
}

fn round(number: u64, sealed: &[u8]) -> Result<OpenRound, String> {
    let bytes = opened("rounds", &number.to_le_bytes(), sealed)?;
    let (round, cohort) = wire::from_bytes_and_rest::<OpenRound>(bytes).map_err(|e| e.to_string())?;
    let (workers, rest) = cohort.as_chunks();
    if !rest.is_empty() {
        return Err(format!("{} bytes are no whole number of keys", cohort.len()));
    }
    Ok(OpenRound { cohort: workers.iter().copied().map(WorkerId).collect(), ..round })
}

/// Where the frame of an update lies, sealed.
pub(super) fn place_bytes(round: Round, worker: &WorkerId, place: Place) -> Vec<u8> {
    sealed("updates", &update_name(round, worker), &wire::to_bytes(&place))
}

pub(super) fn place(round: Round, worker: &WorkerId, sealed: &[u8]) -> Result<Place, String> {
    let bytes = opened("updates", &update_name(round, worker), sealed)?;
    wire::from_bytes(bytes).map_err(|e| e.to_string())
}

fn update_name(round: Round, worker: &WorkerId) -> Vec<u8> {
    [round.0.to_le_bytes().as_slice(), &worker.0].concat()
}

fn finite(what: &'static str, values: Vec<f64>) -> Result<Vec<f64>, StoreError> {
    match values.iter().position(|value| !value.is_finite()) {
        Some(index) => Err(corrupt(what, format!("number {index} is not finite"))),
        None => Ok(values),
    }
}
