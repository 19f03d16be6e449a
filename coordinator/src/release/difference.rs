//! What distinguishes two releases: lanes, energy, figures, and the bytes that lead from one to the other.

use std::collections::BTreeMap;

use packfed_codec::{State, encode_catch_up};
use serde::{Deserialize, Serialize};

use super::Held;

/// From one release to another.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Difference {
    /// Number of the first.
    pub from: u64,
    /// Number of the second.
    pub to: u64,
    /// Layer by layer; none if the layouts differ.
    pub layers: Option<Vec<LayerDifference>>,
    /// Bytes that lead a worker from the first to the second; none if the layouts differ.
    pub delta_bytes: Option<u64>,
    /// Bytes that lead a worker from the base model to the second.
    pub whole_bytes: u64,
    /// Figures of both, by name.
    pub metrics: BTreeMap<String, [Option<f64>; 2]>,
}

/// One layer.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct LayerDifference {
    /// Its name.
    pub name: String,
    /// Its lanes.
    pub lanes: u64,
    /// Lanes that differ.
    pub changed: u64,
    /// Euclidean norm of the first's Δ, of the second's, and of what lies between: the basis is orthonormal.
    pub norms: [f64; 3],
}

impl Difference {
    /// Compares two releases.
    #[must_use]
    pub fn of(from: &Held, to: &Held) -> Self {
        let same = from.manifest.layout == to.manifest.layout;
        let (before, after) = (from.adapter.state(), to.adapter.state());
        let metric = |name: &String| {
            let of = |held: &Held| held.manifest.metrics.get(name).copied();
            (name.clone(), [of(from), of(to)])
        };
        let zero = State::zero(after.layout().clone());
        Self {
            from: from.manifest.number,
            to: to.manifest.number,
            layers: same.then(|| layers(before, after)),
            delta_bytes: same.then(|| encode_catch_up(before, after).len() as u64),
            whole_bytes: encode_catch_up(&zero, after).len() as u64,
            metrics: from.manifest.metrics.keys().chain(to.manifest.metrics.keys()).map(metric).collect(),
        }
    }
}

fn layers(before: &State, after: &State) -> Vec<LayerDifference> {
    let quantum = 2f64.powi(packfed_codec::QUANTUM_EXPONENT.into());
    let of = |layer: &packfed_codec::Layer| {
        let (one, other) = (&before.lanes()[layer.lanes()], &after.lanes()[layer.lanes()]);
        let pairs = || one.iter().zip(other).map(|(a, b)| (f64::from(*a), f64::from(*b)));
        let norm = |of: fn((f64, f64)) -> f64| quantum * pairs().map(|pair| of(pair).powi(2)).sum::<f64>().sqrt();
        LayerDifference {
            name: layer.spec().name.clone(),
            lanes: one.len() as u64,
            changed: pairs().filter(|(a, b)| a != b).count() as u64,
            norms: [norm(|(a, _)| a), norm(|(_, b)| b), norm(|(a, b)| b - a)],
        }
    };
    after.layout().layers().iter().map(of).collect()
}
