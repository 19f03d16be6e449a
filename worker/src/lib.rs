//! The worker: trains on data that stays here and ships 16 bytes a block.
//!
//! ```text
//!   QUIC ──► client ──► Event ──► Session ──► Effect ──► client, trainer ──► local loop ◄──► machine
//! ```
//!
//! [`session::Session`], [`replica::Replica`] and the loop of [`local`] are pure; the trainer is Candle over codec's
//! kernels; the client, the machine and the binary are the shell. A worker never learns who else takes part.

pub mod adapted;
pub mod adopted;
pub mod client;
pub mod conditions;
pub mod config;
pub mod data;
pub mod evaluation;
pub mod examples;
pub mod export;
pub mod files;
pub mod follower;
pub mod generate;
pub mod idx;
pub mod import;
pub mod local;
pub mod loss;
pub mod machine;
pub mod mlp;
pub mod model;
pub mod nn;
pub mod patterns;
pub mod personal;
pub mod pretrained;
pub mod product;
pub mod releases;
pub mod replica;
pub mod session;
pub mod task;
pub mod text;
pub mod text_task;
pub mod tiny;
pub mod trainer;
pub mod weight;
