//! Releases: models that were frozen, numbered and signed, as files in a folder of the coordinator.
//!
//! ```text
//!   releases/00000001.release     the signed manifest, see `packfed_protocol::Manifest`
//!            00000002.deleted     a number that is not used again
//!            adapters/3f…9a.packfed   the model, under its digest; releases of one model share it
//! ```
//!
//! A release is there when its manifest is, which is written last, and never changes. The model is a packed adapter, as
//! `worker export` writes and every tool of the worker reads. What a worker that holds another release needs of it is
//! the exact difference of the two, which is mostly much smaller; see [`Difference`].

mod difference;
mod made;
mod shelf;

pub use difference::{Difference, LayerDifference};
pub use made::{Made, NotMade};
pub use shelf::{Held, Shelf, ShelfError};
