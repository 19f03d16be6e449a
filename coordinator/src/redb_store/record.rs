//! The records of a run as bytes, and what they have to be to be believed.

use std::collections::{BTreeMap, VecDeque};

use packfed_codec::{State, StepWords, WORD_BYTES};
use packfed_protocol::{LaneScales, Round, wire};
use redb::ReadableTable;

use super::{HEAD, ROUNDS, STEPS, UPDATES, corrupt};
use crate::event::{OpenRound, Stored, StoredRound, Summary};
use crate::head::HeadRecord;
use crate::memory_store::first_head;
use crate::plan::RunPlan;
use crate::scaling::wire_scales;
use crate::store::StoreError;

/// What one read transaction saw, unchecked.
pub(super) struct Records {
    version: Option<Vec<u8>>,
    state: Vec<u8>,
    memory: Vec<u8>,
    lost: Vec<u8>,
    steps: Vec<((u64, u32), Vec<u8>)>,
    rounds: Vec<(u64, Vec<u8>)>,
    updates: Vec<(u64, Vec<u8>)>,
}

impl Records {
    pub(super) fn read(transaction: &redb::ReadTransaction) -> Result<Self, redb::Error> {
        let head = transaction.open_table(HEAD)?;
        let get = |name: &str| -> Result<Option<Vec<u8>>, redb::Error> {
            Ok(head.get(name)?.map(|bytes| bytes.value().to_vec()))
        };
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
        let mut updates = Vec::new();
        for entry in transaction.open_table(UPDATES)?.iter()? {
            let (key, frame) = entry?;
            updates.push((key.value().0, frame.value().to_vec()));
        }
        let bytes = |name| Ok::<_, redb::Error>(get(name)?.unwrap_or_default());
        let (state, memory, lost) = (bytes("state")?, bytes("memory")?, bytes("lost")?);
        Ok(Self { version: get("version")?, state, memory, lost, steps, rounds, updates })
    }

    pub(super) fn check(
        mut self,
        plan: &RunPlan,
        next_round: Round,
        scales: Option<Vec<LaneScales>>,
        last: Option<Summary>,
    ) -> Result<Stored, StoreError> {
        let layers = plan.layout().layers().len();
        let scales = scales.unwrap_or_else(|| wire_scales(&plan.first_scales()));
        check_scales("scales", scales.len(), layers)?;
        let open = self.open(layers)?;
        let head = self.head(plan)?;
        Ok(Stored { head, scales, next_round, open, last })
    }

    /// The open rounds, each with its journal.
    fn open(&mut self, layers: usize) -> Result<Vec<StoredRound>, StoreError> {
        let mut open = BTreeMap::new();
        for (number, bytes) in &self.rounds {
            let round: OpenRound = wire::from_bytes(bytes).map_err(|e| corrupt("open round", e.to_string()))?;
            check_scales("open round", round.scales.len(), layers)?;
            if round.round.0 != *number {
                return Err(corrupt("open round", format!("round {} stands in the place of {number}", round.round.0)));
            }
            open.insert(*number, (round, Vec::new()));
        }
        for (round, frame) in std::mem::take(&mut self.updates) {
            if let Some((_, frames)) = open.get_mut(&round) {
                frames.push(frame);
            }
        }
        Ok(open.into_values().collect())
    }

    fn head(self, plan: &RunPlan) -> Result<HeadRecord, StoreError> {
        let Some(version) = self.version else { return Ok(first_head(plan)) };
        let version = <[u8; 8]>::try_from(version.as_slice()).map(u64::from_le_bytes);
        let version = version.map_err(|_| corrupt("version", "it is not eight bytes".to_owned()))?;
        let layout = plan.layout().clone();
        let lanes = layout.lanes();
        let memory_lanes = lanes * plan.raw().optimizer.memory_of_a_lane();
        Ok(HeadRecord {
            version,
            state: State::from_bytes(layout, &self.state).map_err(|e| corrupt("state", e.to_string()))?,
            memory: floats("server-optimizer memory", &self.memory, memory_lanes)?,
            lost: floats("encoding residual", &self.lost, lanes)?,
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
        let step = |(_, bytes): &(_, Vec<u8>)| {
            StepWords::from_bytes(bytes).map_err(|e| corrupt("steps", format!("step {led_to}: {e}")))
        };
        let parts = parts.iter().map(step).collect::<Result<Vec<_>, _>>()?;
        if parts.iter().any(|step| (step.scales.len(), step.words.len()) != (layers, bytes)) {
            return Err(corrupt("steps", format!("step {led_to} does not fit the layout")));
        }
        past.push_front(parts);
    }
    Ok(past)
}

pub(super) fn float_bytes(values: &[f64]) -> Vec<u8> {
    values.iter().flat_map(|value| value.to_le_bytes()).collect()
}

fn floats(what: &'static str, bytes: &[u8], needed: usize) -> Result<Vec<f64>, StoreError> {
    let (chunks, rest) = bytes.as_chunks();
    if chunks.len() != needed || !rest.is_empty() {
        return Err(corrupt(what, format!("{} bytes for {needed} numbers of 8", bytes.len())));
    }
    let values: Vec<f64> = chunks.iter().map(|&value| f64::from_le_bytes(value)).collect();
    match values.iter().position(|value| !value.is_finite()) {
        Some(index) => Err(corrupt(what, format!("number {index} is not finite"))),
        None => Ok(values),
    }
}
