//! Models out: merged weights that `transformers` loads, or a packed adapter in one file.
//!
//! | noun | file |
//! |---|---|
//! | a packed adapter's file, `*.packfed` | `adapter_file.rs` |
//! | a whole model with Δ added in | `merged.rs` |
//! | what stands beside its weights | `about.rs`, `modeling_packfed.py` |
//! | a safetensors file, front to back | `safetensors.rs` |
//! | whole or not at all | `destination.rs` |

mod about;
mod adapter_file;
mod destination;
mod merged;
mod safetensors;

pub use adapter_file::{ADAPTER_EXTENSION, AdapterFileError, read_adapter, write_adapter};
pub use destination::{DestinationError, Existing};
pub use merged::{ExportError, Exported, MergedModel};
pub use safetensors::Floats;
