//! Models out and in.
#![expect(clippy::unwrap_used, clippy::panic, reason = "a test")]

#[path = "exchange/export.rs"]
mod export;
#[path = "exchange/import.rs"]
mod import;
#[path = "exchange/models.rs"]
mod models;
