//! What holds of everything that reads, and any bytes: one function each, which stable tests and the fuzzer run.
//!
//! A function returns whether the bytes were accepted, and panics where a promise is broken.

use std::path::Path;

use packfed_coordinator::config::{CoordinatorFile, LayerTable};

use super::{events, image};

/// What reads, and the name of its fuzz target.
#[derive(Clone, Copy)]
pub struct Target {
    /// The name.
    pub name: &'static str,
    /// Whether the bytes were accepted.
    pub run: fn(&[u8]) -> bool,
    /// Bytes that are.
    pub samples: fn() -> Vec<Vec<u8>>,
}

/// Everything that reads.
pub const TARGETS: [Target; 3] = [
    Target { name: "config", run: config, samples: configs },
    Target { name: "image", run: image::image, samples: image::samples },
    Target { name: "events", run: events::events, samples: events::samples },
];

/// Weights of a layer that the fuzzer has the time to cut into blocks.
const WEIGHTS_MAX: usize = 1 << 16;

/// `CoordinatorFile::parse` and `check`: `[toml]`. What is accepted is written and read as itself.
pub fn config(input: &[u8]) -> bool {
    let Ok(text) = std::str::from_utf8(input) else { return false };
    let file = match CoordinatorFile::parse(text) {
        Ok(file) => file,
        Err(error) => {
            assert!(!error.to_string().is_empty());
            return false;
        }
    };
    let weights = |layer: &LayerTable| layer.rows.saturating_mul(layer.cols);
    if file.layers.iter().map(weights).sum::<usize>() > WEIGHTS_MAX {
        return false;
    }
    let Ok(checked) = file.check(Path::new("folder")) else { return false };
    assert_eq!(checked.plan.layout().layers().len(), file.layers.len());
    if let Ok(written) = file.to_toml() {
        assert_eq!(CoordinatorFile::parse(&written), Ok(file));
    }
    true
}

fn configs() -> Vec<Vec<u8>> {
    let example = include_str!("../../coordinator.example.toml");
    let small = example.replace("rows = 256", "rows = 64").replace("cols = 784", "cols = 64");
    vec![small.replace("cols = 256", "cols = 32").into_bytes()]
}
