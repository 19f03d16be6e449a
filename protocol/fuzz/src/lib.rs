//! The functions that protocol's tests run, for the fuzz targets to share.

#[path = "../../tests/wire/samples.rs"]
pub(crate) mod samples;
#[path = "../../tests/wire/targets.rs"]
pub mod targets;
