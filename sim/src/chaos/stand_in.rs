//! Training that costs microseconds: every lane of the window goes a part of its way to where this worker wants it.

use std::sync::Arc;

use packfed_codec::{Layout, Seed, State};
use packfed_worker::evaluation::{Found, Score, Watch};
use packfed_worker::local::host::Host;
use packfed_worker::task::{Job, LocalTask, TaskError, Trained};

/// A worker whose data are one wish a lane: what all wish for, and something of its own.
#[derive(Clone, Debug)]
pub struct StandIn {
    examples: u32,
    wishes: Seed,
    own: Seed,
}

impl StandIn {
    /// Worker `number` of the run with this seed.
    #[must_use]
    pub fn new(seed: &Seed, number: u64, examples: u32) -> Self {
        let wishes = seed.derive("packfed/chaos/wishes/1", &[]);
        Self { examples, own: wishes.derive("packfed/chaos/own/1", &[number]), wishes }
    }

    /// Where it wants so many lanes.
    fn wished(&self, lanes: usize) -> impl Iterator<Item = f64> + use<> {
        let (mut wishes, mut own) = (self.wishes.stream(), self.own.stream());
        std::iter::repeat_with(move || REACH * (wishes.unit() - 0.5 + 0.2 * (own.unit() - 0.5))).take(lanes)
    }
}

/// How far a lane may be wished from zero.
const REACH: f64 = 0.5;

impl LocalTask for StandIn {
    fn examples(&self) -> u32 {
        self.examples
    }

    fn train(&mut self, job: &Job, _host: &mut dyn Host) -> Result<Trained, TaskError> {
        let layout = job.state.layout();
        // The step's length differs by round and worker, and is the same for the same job.
        let share = 0.2 + 0.3 * job.seed.stream().unit();
        let wished: Vec<f64> = self.wished(layout.lanes()).collect();
        let mut delta = vec![0.0; layout.blocks() * job.window.width()];
        let (mut squares, mut slots) = (0.0, 0_u32);
        job.window.for_each_slot(layout, |slot| {
            let gap = wished[slot.lane] - job.state.value(slot.lane);
            delta[slot.index] = narrow(share * gap);
            squares += gap * gap;
            slots += 1;
        });
        Ok(Trained { delta, loss: narrow(squares / f64::from(slots.max(1))) })
    }

    fn fits(&self, _layout: &Arc<Layout>) -> Result<(), TaskError> {
        Ok(())
    }

    /// It holds nothing out; the loss is how far all lanes are from where it wants them.
    fn evaluate(
        &mut self,
        [_, after]: [&State; 2],
        _examples_max: u32,
        _watch: &mut dyn Watch,
    ) -> Result<Found, TaskError> {
        let lanes = after.layout().lanes();
        let squares: f64 = self.wished(lanes).enumerate().map(|(lane, wish)| (wish - after.value(lane)).powi(2)).sum();
        Ok(Found::Healthy(Score { loss: squares / lanes.max(1) as f64, right: 0.0, ms: 0.0 }))
    }
}

#[expect(clippy::cast_possible_truncation, reason = "training is in f32")]
fn narrow(value: f64) -> f32 {
    value as f32
}
