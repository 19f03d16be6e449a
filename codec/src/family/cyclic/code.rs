//! The two code widths: which bits are the order, the phase and the radius.
//!
//! ```text
//!  Code8   [7:6] order | [5:2] phase | [1:0] radius       16 phases a quadrant,  4 radii
//!  Code16  [15:14] order | [13:6] phase | [5:0] radius   256 phases a quadrant, 64 radii
//!          stored little-endian
//! ```
//!
//! *Order* and *phase* together are the *angle*, a step on a circle of 4 × phases: the angle of phase `p`
//! at order `n` is `n·π/2 + (p + ¼)·π/2P`. The order is stored because it costs nothing: it is the
//! angle's quadrant, and standing in the top two bits it wraps where the integer wraps, so the n-th
//! derivative is one wrapping addition. The quarter step keeps a mirrored angle off the grid: with it all
//! 4 × P sines differ, with a half step or none every second code would repeat another's weight. Every bit
//! pattern is valid. It does not know the radius maps or what a code is worth.

use std::fmt::Debug;

use thiserror::Error;

/// What a code is made of.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Fields {
    /// Order of the derivative of the sine, which is the quadrant of the angle: below 4.
    pub order: u8,
    /// Step within the quadrant: below [`Code::PHASES`].
    pub phase: u8,
    /// Step of the radius: below [`Code::RADII`].
    pub radius: u8,
}

/// Why fields or bytes are not codes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum CodeError {
    /// A field does not fit its bits.
    #[error("{field} {value} at bit {bit} of the code is not below {bound}")]
    Field {
        /// Its name.
        field: &'static str,
        /// Its lowest bit.
        bit: u32,
        /// Its value.
        value: u8,
        /// The first value that does not fit.
        bound: u32,
    },
    /// The bytes end within a code.
    #[error("byte {offset}: {left} bytes are left for a code of {width}")]
    CutShort {
        /// Where the last code starts.
        offset: usize,
        /// Bytes from there on.
        left: usize,
        /// Bytes of a code.
        width: usize,
    },
}

/// A cyclic code of one width.
pub trait Code: Copy + Eq + Debug + Send + Sync + 'static {
    /// Bytes of a code.
    const BYTES: usize;
    /// Bits of the phase.
    const PHASE_BITS: u32;
    /// Bits of the radius.
    const RADIUS_BITS: u32;

    /// Phases of a quadrant.
    const PHASES: u32 = 1 << Self::PHASE_BITS;
    /// Angles of the whole circle.
    const ANGLES: u32 = ORDERS * Self::PHASES;
    /// Steps of the radius.
    const RADII: u32 = 1 << Self::RADIUS_BITS;
    /// Number of codes.
    const CODES: u32 = Self::ANGLES * Self::RADII;

    /// The code with these low `8 · BYTES` bits; bits above are dropped.
    #[must_use]
    fn from_bits(bits: u32) -> Self;

    /// The code's bits.
    #[must_use]
    fn bits(self) -> u32;

    /// The code of some fields.
    ///
    /// # Errors
    /// If a field does not fit its bits.
    fn new(fields: Fields) -> Result<Self, CodeError> {
        let field = |field, value: u8, bit: u32, bound: u32| match u32::from(value) {
            bits if bits < bound => Ok(bits << bit),
            _ => Err(CodeError::Field { field, bit, value, bound }),
        };
        Ok(Self::from_bits(
            field("order", fields.order, Self::PHASE_BITS + Self::RADIUS_BITS, ORDERS)?
                | field("phase", fields.phase, Self::RADIUS_BITS, Self::PHASES)?
                | field("radius", fields.radius, 0, Self::RADII)?,
        ))
    }

    /// The inverse of [`Code::new`].
    #[must_use]
    fn fields(self) -> Fields {
        let field = |value: u32| u8::try_from(value).expect("no field is wider than 8 bits");
        Fields {
            order: field(self.angle() >> Self::PHASE_BITS),
            phase: field(self.angle() % Self::PHASES),
            radius: field(self.radius()),
        }
    }

    /// The code on the grid: `angle` is taken modulo [`Code::ANGLES`], `radius` modulo [`Code::RADII`].
    #[must_use]
    fn at(angle: u32, radius: u32) -> Self {
        Self::from_bits(((angle % Self::ANGLES) << Self::RADIUS_BITS) | (radius % Self::RADII))
    }

    /// Step on the circle, below [`Code::ANGLES`].
    #[must_use]
    fn angle(self) -> u32 {
        self.bits() >> Self::RADIUS_BITS
    }

    /// Step of the radius, below [`Code::RADII`].
    #[must_use]
    fn radius(self) -> u32 {
        self.bits() % Self::RADII
    }

    /// The code of the n-th derivative by the angle: `n` quadrants on.
    #[must_use]
    fn derivative(self, n: u32) -> Self {
        let quadrants = (n % ORDERS) << (Self::PHASE_BITS + Self::RADIUS_BITS);
        Self::from_bits(self.bits().wrapping_add(quadrants))
    }
}

/// A derivative of a sine of this order is the sine again.
const ORDERS: u32 = 4;

/// A code of 8 bits.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Code8(pub u8);

/// A code of 16 bits.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Code16(pub u16);

impl Code for Code8 {
    const BYTES: usize = 1;
    const PHASE_BITS: u32 = 4;
    const RADIUS_BITS: u32 = 2;

    fn from_bits(bits: u32) -> Self {
        Self(bits.to_le_bytes()[0])
    }

    fn bits(self) -> u32 {
        self.0.into()
    }
}

impl Code for Code16 {
    const BYTES: usize = 2;
    const PHASE_BITS: u32 = 8;
    const RADIUS_BITS: u32 = 6;

    fn from_bits(bits: u32) -> Self {
        let [low, high, ..] = bits.to_le_bytes();
        Self(u16::from_le_bytes([low, high]))
    }

    fn bits(self) -> u32 {
        self.0.into()
    }
}

const _: () = assert!(Code8::CODES == 1 << 8 && Code16::CODES == 1 << 16);

/// The bytes of codes, one after another, each little-endian.
#[must_use]
pub fn pack<C: Code>(codes: &[C]) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(codes.len() * C::BYTES);
    for code in codes {
        bytes.extend_from_slice(&code.bits().to_le_bytes()[..C::BYTES]);
    }
    bytes
}

/// The inverse of [`pack`].
///
/// # Errors
/// If the bytes end within a code.
pub fn unpack<C: Code>(bytes: &[u8]) -> Result<Vec<C>, CodeError> {
    let chunks = bytes.chunks_exact(C::BYTES);
    let left = chunks.remainder().len();
    if left > 0 {
        return Err(CodeError::CutShort { offset: bytes.len() - left, left, width: C::BYTES });
    }
    let code = |chunk: &[u8]| C::from_bits(chunk.iter().rev().fold(0, |bits, &byte| bits << 8 | u32::from(byte)));
    Ok(chunks.map(code).collect())
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn fields_stand_where_the_diagram_says() {
        let fields = Fields { order: 2, phase: 5, radius: 3 };
        assert_eq!(Code8::new(fields), Ok(Code8((2 << 6) | (5 << 2) | 3)));
        assert_eq!(Code16::new(fields), Ok(Code16((2 << 14) | (5 << 6) | 3)));
        assert_eq!(pack(&[Code16(0x1234)]), [0x34, 0x12]);
    }

    fn every_code_is_its_fields<C: Code>() {
        for bits in 0..C::CODES {
            let code = C::from_bits(bits);
            assert_eq!(code.bits(), bits);
            assert_eq!(C::new(code.fields()), Ok(code));
            assert_eq!(C::at(code.angle(), code.radius()), code);
            assert_eq!(unpack(&pack(&[code])), Ok(vec![code]));
        }
    }

    #[test]
    fn fields_and_codes_are_a_bijection() {
        every_code_is_its_fields::<Code8>();
        every_code_is_its_fields::<Code16>();
    }

    fn order_is_cyclic<C: Code>() {
        for bits in 0..C::CODES {
            let code = C::from_bits(bits);
            assert_eq!(code.derivative(4), code);
            assert_eq!(code.derivative(u32::MAX), code.derivative(3));
            assert_eq!(code.derivative(1).derivative(2), code.derivative(3));
            let (fields, next) = (code.fields(), code.derivative(1).fields());
            assert_eq!(next, Fields { order: (fields.order + 1) % 4, ..fields });
        }
    }

    #[test]
    fn the_derivative_order_has_period_four_and_touches_no_other_field() {
        order_is_cyclic::<Code8>();
        order_is_cyclic::<Code16>();
    }

    #[test]
    fn fields_that_do_not_fit_name_their_bit_and_bound() {
        let error = |fields| Code8::new(fields).unwrap_err().to_string();
        assert_eq!(error(Fields { order: 4, ..Fields::default() }), "order 4 at bit 6 of the code is not below 4");
        assert_eq!(error(Fields { phase: 16, ..Fields::default() }), "phase 16 at bit 2 of the code is not below 16");
        assert!(Code8::new(Fields { radius: 4, ..Fields::default() }).is_err());
        assert!(Code16::new(Fields { radius: 64, ..Fields::default() }).is_err());
        assert!(Code16::new(Fields { phase: 255, ..Fields::default() }).is_ok());
    }

    proptest! {
        #[test]
        fn any_bytes_return_or_name_the_offset(bytes: Vec<u8>) {
            prop_assert_eq!(&pack(&unpack::<Code8>(&bytes).unwrap()), &bytes);
            match unpack::<Code16>(&bytes) {
                Ok(codes) => prop_assert_eq!(pack(&codes), bytes),
                Err(error) => {
                    let offset = bytes.len() - 1;
                    prop_assert_eq!(error, CodeError::CutShort { offset, left: 1, width: 2 });
                    prop_assert!(bytes.len() % 2 == 1);
                }
            }
        }
    }
}
