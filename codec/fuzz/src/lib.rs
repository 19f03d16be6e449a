//! The functions that codec's tests run, for the fuzz targets to share.

#[path = "../../tests/decoders/allocation.rs"]
pub mod allocation;
#[path = "../../tests/decoders/samples.rs"]
pub mod samples;
#[path = "../../tests/decoders/targets.rs"]
pub mod targets;
