//! Models out: a packed adapter in one file.
//!
//! | noun | file |
//! |---|---|
//! | a packed adapter, `*.packfed` | `adapter.rs` |
//! | whole or not at all | `destination.rs` |

mod adapter;
mod destination;

pub use adapter::{ADAPTER_EXTENSION, Adapter, AdapterError, AdapterFileError};
pub use destination::{DestinationError, Existing};
