//! Why bytes are not a packed adapter: the place, the value found and the bound.

use thiserror::Error;

use super::{BaseDigest, VERSION};
use crate::layout::LayoutError;
use crate::packed::PackedError;
use crate::state::StateDigest;

/// Why bytes are not an adapter, or an adapter cannot be written. Offsets count bytes from the start.
#[derive(Debug, Clone, PartialEq, Error)]
pub enum AdapterError {
    /// The bytes begin otherwise.
    #[error("byte 0: a packed adapter begins with \"packfed\" and a zero")]
    Magic,
    /// A version that is not known here.
    #[error("byte 8: version {0} of the format, known is {VERSION}")]
    Version(u32),
    /// The bytes end too early.
    #[error("byte {offset}: {what} takes {needed} bytes, {left} are left")]
    Short {
        /// Where it begins.
        offset: usize,
        /// What is cut.
        what: &'static str,
        /// Bytes that it takes.
        needed: u64,
        /// Bytes from there on.
        left: usize,
    },
    /// The bytes have changed since they were written.
    #[error("the digest over all is {found}, the file says {expected}: it is damaged")]
    Digest {
        /// Of the bytes here.
        found: BaseDigest,
        /// Of the bytes that were written.
        expected: BaseDigest,
    },
    /// More entries than allowed, or a name out of its bounds or order.
    #[error("byte {offset}: {why}")]
    Entry {
        /// Where it begins.
        offset: usize,
        /// What is wrong.
        why: String,
    },
    /// The layers are not a layout.
    #[error("the layers are not a layout: {0}")]
    Layers(#[from] LayoutError),
    /// Another number of bytes than the layers take.
    #[error("byte {offset}: {blocks} blocks and {lanes} lanes take {needed} bytes, there are {found}")]
    Length {
        /// Where the waves begin.
        offset: usize,
        /// Blocks of the layers.
        blocks: u64,
        /// Lanes of the layers.
        lanes: u64,
        /// Bytes of both.
        needed: u64,
        /// Bytes before the digest.
        found: usize,
    },
    /// A wave's bits are no wave.
    #[error("byte {offset}: block {block} of {layer}: {source}")]
    Wave {
        /// Where its 16 bytes begin.
        offset: usize,
        /// Its layer's name.
        layer: String,
        /// Its number there.
        block: usize,
        /// What is wrong.
        source: PackedError,
    },
    /// A wave is not its block's.
    #[error("byte {offset}: the wave of block {block} of {layer} is not the one of its lanes")]
    Apart {
        /// Where its 16 bytes begin.
        offset: usize,
        /// Its layer's name.
        layer: String,
        /// Its number there.
        block: usize,
    },
    /// The lanes are others than the file says.
    #[error("the lanes' digest is {found:?}, the file says {expected:?}")]
    State {
        /// Of the lanes.
        found: StateDigest,
        /// As the file says.
        expected: StateDigest,
    },
    /// The seed and the layers lead to another layout than the state's.
    #[error("the state is of another layout than its seed and layers make")]
    Seed,
    /// A metric is NaN or infinite.
    #[error("metric {name} is {value}, which is no finite number")]
    Metric {
        /// Its name.
        name: String,
        /// Its value.
        value: f64,
    },
}
