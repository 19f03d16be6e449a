//! The worker: trains on data that stays here and ships 16 bytes a block.

pub mod adam;
pub mod adapted;
pub mod examples;
pub mod idx;
pub mod local;
pub mod loss;
pub mod mlp;
pub mod product;
pub mod task;
pub mod trainer;
