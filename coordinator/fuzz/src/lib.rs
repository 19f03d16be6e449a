//! The functions that the coordinator's tests run, for the fuzz targets to share.

#[path = "../../tests/decoders/events.rs"]
pub mod events;
#[path = "../../tests/decoders/image.rs"]
pub mod image;
#[path = "../../tests/decoders/targets.rs"]
pub mod targets;
