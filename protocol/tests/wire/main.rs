//! The wire format, from the outside: what every message looks like, and what happens to bytes
//! that are not one.

mod bounds;
mod fuzzed;
mod golden;
mod properties;
mod samples;
mod signatures;
pub mod targets;
mod truncation;
