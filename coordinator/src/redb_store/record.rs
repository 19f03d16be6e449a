//! The records of a run as bytes, and what they have to be to be believed.

use std::collections::VecDeque;

use packfed_codec::{State, StepWords, WORD_BYTES};
use packfed_protocol::{LaneScales, Round};
use redb::ReadableTable;

use super::{HEAD, STEPS, UPDATES, corrupt};
use crate::event::{OpenRound, Stored, Summary};
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
        let mut updates = Vec::new();
        for entry in transaction.open_table(UPDATES)?.iter()? {
            let (key, frame) = entry?;
            updates.push((key.value().0, frame.value().to_vec()));
        }
        let bytes = |name| Ok::<_, redb::Error>(get(name)?.unwrap_or_default());
        let (state, memory, lost) = (bytes("state")?, bytes("memory")?, bytes("lost")?);
        Ok(Self { version: get("version")?, state, memory, lost, steps, updates })
    }

    pub(super) fn check(
        mut self,
        plan: &RunPlan,
        next_round: Round,
        scales: Option<Vec<LaneScales>>,
        open: Option<OpenRound>,
        last: Option<Summary>,
    ) -> Result<Stored, StoreError> {
        let layers = plan.layout().layers().len();
        let scales = scales.unwrap_or_else(|| wire_scales(&plan.first_scales()));
        for (what, found) in
            [("scales", scales.len()), ("open round", open.as_ref().map_or(layers, |o| o.scales.len()))]
        {
            if found != layers {
                return Err(corrupt(what, format!("{found} pairs of scales for {layers} layers")));
            }
        }
        let updates = std::mem::take(&mut self.updates);
        let head = self.head(plan)?;
        let open = open.map(|open| {
            let of_it = updates.into_iter().filter(|(round, _)| *round == open.round.0);
            let frames = of_it.map(|(_, frame)| frame).collect();
            (open, frames)
        });
        Ok(Stored { head, scales, next_round, open, last })
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

/// The remembered steps, which have to lead to `version` without a gap.
fn past(
    plan: &RunPlan,
    version: u64,
    steps: &[((u64, u32), Vec<u8>)],
) -> Result<VecDeque<Vec<StepWords>>, StoreError> {
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
