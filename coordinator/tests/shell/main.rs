//! The shell over real loopback QUIC: what it does with good and bad input, in any order, and after a kill.

#![expect(clippy::unwrap_used, clippy::panic, reason = "the scripts of these tests fail where a test would")]

mod admin;
mod audit;
mod cli;
mod commanded;
mod dashboard;
mod hostile;
mod metrics;
mod order;
mod peers;
mod relay;
mod release;
mod restart;
mod robust;
mod schemas;
mod scripted;
mod served;
mod standing;
mod transfer;
mod wire;
