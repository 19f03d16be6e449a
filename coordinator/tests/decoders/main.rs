//! Everything that the coordinator reads or is told, against any bytes: its file, its store, events.

pub mod events;
mod fuzzed;
pub mod image;
pub mod targets;
