//! The coordinator: opens rounds, adds the words exactly, steps the model, keeps it and sends it back.
//!
//! ```text
//!   QUIC ──► server ──► Event ──► Engine ──► Effect ──► store, then QUIC
//! ```
//!
//! [`engine::Engine`] and everything it is made of are pure; [`server`], [`redb_store`], [`config`] and the
//! binary are the shell. There is no tensor library here: the coordinator adds words.

pub mod aggregation;
pub mod audit;
pub mod buffer;
pub mod cohort;
pub mod config;
pub mod counters;
pub mod eligibility;
pub mod engine;
pub mod event;
pub mod head;
pub mod mean;
pub mod memory_store;
mod missed;
pub mod optimizer;
pub mod pace;
pub mod picture;
pub mod plan;
pub mod redb_store;
pub mod registry;
pub mod release;
pub mod resume;
pub mod rollout;
pub mod round;
mod scaling;
pub mod server;
pub mod staleness;
pub mod status;
pub mod store;
pub mod strikes;
