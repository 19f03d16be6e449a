//! A layer of codes as it is stored: a scale a row, and the codes.
//!
//! ```text
//!  0   [ width: u8 ]  8 or 16, bits of a code
//!  1   [ map: u8 ]    the radius map
//!  2   [ rows: u32 ]  groups of weights that share a scale; 1 for one scale a layer
//!  6   [ cols: u32 ]  weights of a group
//!  10  [ scale: f32 ] × rows, above 0 and at most 2^126
//!      [ code ] × rows × cols
//! ```
//!
//! Everything little-endian. A weight is `scale · R(ρ) · sin φ`. It knows nothing of how codes are trained.

use thiserror::Error;

use super::code::{Code, CodeError, pack, unpack};
use super::engine::{Engine, FRACTION_BITS};
use super::radius::{RadiusMap, UnknownRadiusMap};

/// Bytes before the scales.
const HEADER_BYTES: usize = 10;
const SCALE_BYTES: usize = 4;
/// 2¹²⁶: no map is worth 4, so every weight is finite.
const SCALE_MAX: f32 = (1u128 << 126) as f32;

/// A matrix of weights as codes.
#[derive(Clone, Debug, PartialEq)]
pub struct CodedLayer<C> {
    map: RadiusMap,
    cols: usize,
    scales: Vec<f32>,
    codes: Vec<C>,
}

/// Why parts or bytes are not a layer of codes.
#[derive(Debug, Clone, Copy, PartialEq, Error)]
pub enum LayerError {
    /// The header is cut short.
    #[error("byte 0: {found} bytes do not hold a header of 10")]
    Header {
        /// Bytes given.
        found: usize,
    },
    /// The layer is of another code width.
    #[error("byte 0: codes of {found} bits, expected {expected}")]
    Width {
        /// Bits of a code, as the layer says.
        found: u8,
        /// Bits of a code of the type asked for.
        expected: usize,
    },
    /// The radius map is unknown.
    #[error("byte 1: {0}")]
    Map(#[from] UnknownRadiusMap),
    /// The layer has more weights than the caller allows.
    #[error("byte 2: {rows} × {cols} weights, at most {max} are allowed")]
    TooMany {
        /// Groups of weights.
        rows: u32,
        /// Weights of a group.
        cols: u32,
        /// The caller's bound.
        max: usize,
    },
    /// The bytes are not as many as the header says.
    #[error("{found} bytes, the header says {expected}")]
    Bytes {
        /// Bytes given.
        found: usize,
        /// Bytes that the header asks for.
        expected: usize,
    },
    /// A scale is not a positive number, or so large that a weight could be infinite.
    #[error("byte {offset}: scale {value} is not above 0 and at most 2^126")]
    Scale {
        /// Where the scale stands.
        offset: usize,
        /// The scale.
        value: f32,
    },
    /// The codes are malformed.
    #[error(transparent)]
    Code(#[from] CodeError),
    /// Not one code a weight, or an output of another length.
    #[error("{found} codes or weights, the layer has {expected}")]
    Count {
        /// Codes or weights given.
        found: usize,
        /// Weights of the layer.
        expected: usize,
    },
}

impl<C: Code> CodedLayer<C> {
    /// A layer from its parts: one scale for every `cols` codes.
    ///
    /// # Errors
    /// If there are not `scales × cols` codes, or a scale is not above 0 and at most 2¹²⁶.
    pub fn new(map: RadiusMap, cols: usize, scales: Vec<f32>, codes: Vec<C>) -> Result<Self, LayerError> {
        let expected = scales.len().saturating_mul(cols);
        if codes.len() != expected {
            return Err(LayerError::Count { found: codes.len(), expected });
        }
        if let Some(row) = scales.iter().position(|scale| !(*scale > 0.0 && *scale <= SCALE_MAX)) {
            return Err(LayerError::Scale { offset: HEADER_BYTES + SCALE_BYTES * row, value: scales[row] });
        }
        Ok(Self { map, cols, scales, codes })
    }

    /// The radius map.
    #[must_use]
    pub const fn map(&self) -> RadiusMap {
        self.map
    }

    /// Weights that share a scale.
    #[must_use]
    pub const fn cols(&self) -> usize {
        self.cols
    }

    /// One scale a row.
    #[must_use]
    pub fn scales(&self) -> &[f32] {
        &self.scales
    }

    /// The codes, row after row.
    #[must_use]
    pub fn codes(&self) -> &[C] {
        &self.codes
    }

    /// Writes the weights, rows×cols: `scale · value · 2⁻²⁸`, rounded to f32 after each product.
    ///
    /// # Errors
    /// If `weights` is not as long as the layer has codes.
    pub fn decode(&self, weights: &mut [f32]) -> Result<(), LayerError> {
        if weights.len() != self.codes.len() {
            return Err(LayerError::Count { found: weights.len(), expected: self.codes.len() });
        }
        let engine = Engine::<C>::new(self.map);
        let cols = self.cols.max(1);
        let rows = weights.chunks_exact_mut(cols).zip(self.codes.chunks_exact(cols));
        for ((weights, codes), &scale) in rows.zip(&self.scales) {
            for (weight, &code) in weights.iter_mut().zip(codes) {
                *weight = scale * unit(engine.value(code));
            }
        }
        Ok(())
    }

    /// The layer's bytes.
    ///
    /// # Panics
    /// If the layer has 2³² rows or columns.
    #[must_use]
    pub fn to_bytes(&self) -> Vec<u8> {
        let edge = |n: usize| u32::try_from(n).expect("a layer has fewer than 2^32 rows and columns").to_le_bytes();
        let width = u8::try_from(8 * C::BYTES).expect("a code has 8 or 16 bits");
        let mut bytes = vec![width, self.map.to_byte()];
        bytes.extend_from_slice(&edge(self.scales.len()));
        bytes.extend_from_slice(&edge(self.cols));
        bytes.extend(self.scales.iter().flat_map(|scale| scale.to_le_bytes()));
        bytes.extend(pack(&self.codes));
        bytes
    }

    /// The inverse of [`CodedLayer::to_bytes`]; nothing is allocated before the lengths are known to agree.
    ///
    /// # Errors
    /// If the bytes are not a layer of this width with at most `weights_max` weights.
    pub fn from_bytes(bytes: &[u8], weights_max: usize) -> Result<Self, LayerError> {
        let Some((&[width, map, r0, r1, r2, r3, c0, c1, c2, c3], rest)) = bytes.split_first_chunk::<HEADER_BYTES>()
        else {
            return Err(LayerError::Header { found: bytes.len() });
        };
        if usize::from(width) != 8 * C::BYTES {
            return Err(LayerError::Width { found: width, expected: 8 * C::BYTES });
        }
        let map = RadiusMap::from_byte(map)?;
        let (rows, cols) = (u32::from_le_bytes([r0, r1, r2, r3]), u32::from_le_bytes([c0, c1, c2, c3]));
        let weights = u64::from(rows) * u64::from(cols);
        let Some(weights) = usize::try_from(weights).ok().filter(|&weights| weights <= weights_max) else {
            return Err(LayerError::TooMany { rows, cols, max: weights_max });
        };
        let (rows, cols) = (rows as usize, cols as usize);
        let scale_bytes = rows.saturating_mul(SCALE_BYTES);
        let expected = HEADER_BYTES.saturating_add(scale_bytes).saturating_add(weights.saturating_mul(C::BYTES));
        if bytes.len() != expected {
            return Err(LayerError::Bytes { found: bytes.len(), expected });
        }
        let (scales, codes) = rest.split_at(scale_bytes);
        let scales = scales.as_chunks().0.iter().map(|&bytes| f32::from_le_bytes(bytes)).collect();
        Self::new(map, cols, scales, unpack(codes)?)
    }
}

/// A value of the engine as a float: rounded to f32's 24 bits, then scaled exactly.
#[must_use]
pub(super) fn unit(value: i32) -> f32 {
    const UNIT: f32 = 1.0 / (1u32 << FRACTION_BITS) as f32;
    value as f32 * UNIT
}

#[cfg(test)]
mod tests {
    use super::super::code::{Code8, Code16};
    use super::*;
    use proptest::prelude::*;

    fn layer() -> CodedLayer<Code16> {
        let codes = [0, 1, 0x4000, 0x7fff, 0x8000, 0xffff].map(Code16).to_vec();
        CodedLayer::new(RadiusMap::Klein, 3, vec![0.5, 2.0], codes).unwrap()
    }

    #[test]
    fn a_layer_is_its_golden_bytes() {
        let bytes = layer().to_bytes();
        let golden = "1002 02000000 03000000 0000003f 00000040 0000 0100 0040 ff7f 0080 ffff";
        let hex: String = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
        assert_eq!(hex, golden.replace(' ', ""));
        assert_eq!(CodedLayer::from_bytes(&bytes, 6), Ok(layer()));
    }

    #[test]
    fn weights_are_scale_times_map_times_sine() {
        let (layer, mut weights) = (layer(), [0.0; 6]);
        layer.decode(&mut weights).unwrap();
        for (n, (&weight, code)) in weights.iter().zip(layer.codes()).enumerate() {
            let angle = (f64::from(code.angle()) + 0.25) * std::f64::consts::TAU / 1024.0;
            let radius = RadiusMap::Klein.value(RadiusMap::Klein.grid(code.radius(), 64));
            let expected = f64::from(layer.scales()[n / 3]) * radius * angle.sin();
            assert!((f64::from(weight) - expected).abs() < 2e-7);
        }
        assert_eq!(layer.decode(&mut [0.0; 5]), Err(LayerError::Count { found: 5, expected: 6 }));
    }

    #[test]
    fn malformed_layers_name_offset_value_and_bound() {
        let bytes = layer().to_bytes();
        let error = |change: fn(&mut Vec<u8>)| {
            let mut bytes = bytes.clone();
            change(&mut bytes);
            CodedLayer::<Code16>::from_bytes(&bytes, 6).unwrap_err().to_string()
        };
        assert_eq!(error(|b| b.truncate(9)), "byte 0: 9 bytes do not hold a header of 10");
        assert_eq!(error(|b| b[0] = 8), "byte 0: codes of 8 bits, expected 16");
        assert!(error(|b| b[1] = 3).starts_with("byte 1: radius map 3 is unknown"));
        assert_eq!(error(|b| b[6] = 4), "byte 2: 2 × 4 weights, at most 6 are allowed");
        assert_eq!(error(|b| b[2..10].fill(255)), "byte 2: 4294967295 × 4294967295 weights, at most 6 are allowed");
        assert_eq!(error(|b| b.push(0)), "31 bytes, the header says 30");
        assert_eq!(error(|b| b[17] = 0xc0), "byte 14: scale -2 is not above 0 and at most 2^126");
        let empty_rows = [16, 0, 255, 255, 255, 255, 0, 0, 0, 0];
        assert!(matches!(CodedLayer::<Code16>::from_bytes(&empty_rows, 6), Err(LayerError::Bytes { found: 10, .. })));
    }

    #[test]
    fn a_layer_of_nothing_is_a_layer() {
        let empty = CodedLayer::<Code8>::new(RadiusMap::Lorentz, 0, vec![1.0], Vec::new()).unwrap();
        assert_eq!(empty.decode(&mut []), Ok(()));
        assert_eq!(CodedLayer::from_bytes(&empty.to_bytes(), 0), Ok(empty));
    }

    proptest! {
        #[test]
        fn bytes_that_are_a_layer_return(
            rows in 0u8..4, cols in 0u8..5, map in 0u8..4, scales: [f32; 4], noise in prop::collection::vec(any::<u8>(), 0..44)
        ) {
            let mut bytes = vec![16, map, rows, 0, 0, 0, cols, 0, 0, 0];
            bytes.extend(scales[..rows.into()].iter().flat_map(|scale| scale.abs().to_le_bytes()));
            let whole = 2 * usize::from(rows) * usize::from(cols);
            bytes.extend(noise.iter().copied().cycle().take(if noise.is_empty() { 0 } else { whole }));
            if let Ok(layer) = CodedLayer::<Code16>::from_bytes(&bytes, 100) {
                prop_assert_eq!(layer.to_bytes(), bytes);
            }
        }

        #[test]
        fn any_bytes_return(bytes: Vec<u8>) {
            let _ = CodedLayer::<Code8>::from_bytes(&bytes, 1_000);
            let _ = CodedLayer::<Code16>::from_bytes(&bytes, 1_000);
        }
    }
}
