//! Layers of transformers as Candle custom ops with a backward pass, each forward or backward one pass over slices.
//!
//! Candle's own fused norms, softmax and rotary embedding drop gradients without a word, and its composed forms take
//! about three times as long. Here every op works on tokens × features, so a batch is never padded: sequences lie end
//! to end and [`sequences::Sequences`] says where each begins. Base weights are frozen: no op forms a gradient of one.
//! Work splits over the current rayon pool, and no result depends on how many threads that has.
//!
//! | op | file |
//! |---|---|
//! | `x·Wᵀ + b`, `W` as its file stores it | `frozen.rs`, `widen.rs` |
//! | layer norm and RMS norm | `norm.rs` |
//! | GELU, SiLU and the gated SiLU | `activation.rs` |
//! | rotary position embedding | `rotary.rs` |
//! | scaled dot-product attention | `attention.rs`, `softmax.rs` |
//! | rows of an embedding | `embedding.rs` |
//! | one vector a sequence | `pool.rs` |
//! | next-token cross-entropy over a large vocabulary | `vocabulary.rs` |
//! | a layer that is computed twice to keep less | `checkpoint.rs` |
//!
//! Models are in [`crate::model`]; nothing here knows one.

pub mod activation;
pub mod attention;
#[cfg(test)]
pub(crate) mod check;
pub mod checkpoint;
pub mod elementary;
pub mod embedding;
pub mod frozen;
pub mod norm;
pub(crate) mod parallel;
pub mod pool;
pub mod rotary;
pub mod sequences;
pub(crate) mod softmax;
pub(crate) mod values;
pub mod vocabulary;
pub(crate) mod widen;
