//! A worker's releases where they meet real models and a real connection.
#![expect(clippy::unwrap_used, clippy::panic, reason = "a test")]

#[path = "releases/coordinator.rs"]
mod coordinator;
#[path = "releases/evaluation.rs"]
mod evaluation;
#[path = "releases/following.rs"]
mod following;
