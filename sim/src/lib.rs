//! The simulator: federated rounds on one machine, with the code that ships, beside dense and LoRA FedAvg.
//!
//! [`virtual_fleet`] is a second shell around the coordinator's engine and the workers' sessions, with
//! virtual time and a network of its own; [`compare`] runs it and the baselines on one task.
//! [`process_fleet`] runs the same task on real processes.

pub mod attack;
pub mod baseline;
pub mod carry;
pub mod chaos;
pub mod compare;
pub mod digits;
pub mod evaluate;
pub mod federated;
pub mod fleet_files;
pub mod mode;
pub mod operated_fleet;
pub mod options;
pub mod packed;
pub mod parallel;
pub mod partition;
pub mod process;
pub mod process_fleet;
pub mod progress;
pub mod report;
pub mod resilience;
pub mod results;
pub mod speed;
pub mod stopwatch;
pub mod table;
pub mod task;
pub mod text;
pub mod virtual_fleet;
