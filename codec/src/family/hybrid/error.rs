//! Why something is not a hybrid block. It knows neither formats nor arithmetic.

use thiserror::Error;

use super::transform::Transform;

/// Why a block cannot be described, encoded or decoded. Offsets count bytes from the start of the input.
#[derive(Debug, Clone, Copy, PartialEq, Error)]
pub enum HybridError {
    /// An edge is 0 or larger than the format allows.
    #[error("edge {edge} is outside 1..={max}")]
    Edge {
        /// Edge asked for.
        edge: usize,
        /// Largest edge of the format.
        max: usize,
    },
    /// A wavelet was asked for an edge that cannot be halved down to 1.
    #[error("{transform:?} needs edges that are powers of two, not {edge}")]
    PowerOfTwo {
        /// Transform asked for.
        transform: Transform,
        /// The edge.
        edge: usize,
    },
    /// The number of values is not that of the shape.
    #[error("{values} values for {rows}×{cols}")]
    Length {
        /// Values given.
        values: usize,
        /// Rows of the shape.
        rows: usize,
        /// Columns of the shape.
        cols: usize,
    },
    /// A value to encode is infinite or not a number.
    #[error("value {index} is not finite")]
    Value {
        /// Index of the value.
        index: usize,
    },
    /// A weight or coefficient is larger than the format holds.
    #[error("magnitude {magnitude} is above the format's largest, {max}")]
    Magnitude {
        /// The magnitude.
        magnitude: f64,
        /// Largest that the format holds.
        max: f64,
    },
    /// The RMSE asked for is negative or not a number.
    #[error("target {0} is not an RMSE")]
    Target(f64),
    /// Not even every coefficient reaches the RMSE asked for.
    #[error("an RMSE of {target} is out of reach, the best found is {best}")]
    Unreachable {
        /// RMSE asked for.
        target: f64,
        /// Least RMSE met.
        best: f64,
    },
    /// The bytes end early.
    #[error("{needed} bytes are needed from byte {offset}, of {bytes}")]
    Truncated {
        /// First byte of the field that is cut.
        offset: usize,
        /// Bytes that it needs.
        needed: usize,
        /// Bytes of the whole input.
        bytes: usize,
    },
    /// Bytes follow the block.
    #[error("the block ends at byte {offset} of {bytes}")]
    LeftOver {
        /// First byte after the block.
        offset: usize,
        /// Bytes of the whole input.
        bytes: usize,
    },
    /// More coefficients than the block has positions, or than its bytes can hold.
    #[error("{count} coefficients at byte {offset}, at most {max} fit")]
    Count {
        /// Offset of the count.
        offset: usize,
        /// The count.
        count: usize,
        /// Most that fit.
        max: usize,
    },
    /// A float is infinite, not a number or, for a scale, negative.
    #[error("the float at byte {offset} is {value}, not finite or out of its range")]
    Float {
        /// Offset of the float.
        offset: usize,
        /// The float.
        value: f32,
    },
    /// Weights and coefficients that could add up to more than an `f32` holds.
    #[error("the block at byte {offset} could reach {magnitude:e}, at most {max:e} is allowed")]
    Range {
        /// Offset of the block.
        offset: usize,
        /// Twice the weights' magnitudes and once the coefficients'.
        magnitude: f64,
        /// Most that is allowed.
        max: f64,
    },
    /// A position lies outside the block.
    #[error("position ({row}, {col}) at byte {offset} is outside {rows}×{cols}")]
    Position {
        /// Offset of the coefficient.
        offset: usize,
        /// Row of the position.
        row: usize,
        /// Column of the position.
        col: usize,
        /// Rows of the block.
        rows: usize,
        /// Columns of the block.
        cols: usize,
    },
    /// Positions do not ascend.
    #[error("position ({row}, {col}) at byte {offset} does not follow its predecessor in row-major order")]
    Order {
        /// Offset of the coefficient.
        offset: usize,
        /// Row of the position.
        row: usize,
        /// Column of the position.
        col: usize,
    },
    /// A value's code is one that no encoder writes.
    #[error("code {code:#x} at byte {offset} is reserved")]
    Reserved {
        /// Offset of the coefficient.
        offset: usize,
        /// The code.
        code: u32,
    },
    /// The range-coded words from this byte on are not what the encoder writes for what they decode to.
    #[error("the range-coded words at byte {offset} are not canonical, coefficient {coefficient} of {count}")]
    Words {
        /// Offset of the first word.
        offset: usize,
        /// Coefficients decoded before it showed.
        coefficient: usize,
        /// Coefficients that the block claims.
        count: usize,
    },
}
