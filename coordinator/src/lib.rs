//! The coordinator: opens rounds, adds the words exactly, steps the model and keeps it.

pub mod head;
pub mod optimizer;
