//! The simulator.

pub mod baseline;
pub mod digits;
pub mod parallel;
pub mod partition;
