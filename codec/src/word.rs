//! The word: 16 bytes that carry one block's update, in one of a few profiles.
//!
//! ```text
//!  plain   byte 0      2      4                              16
//!               [ x i16 | y i16 | c_0 i8 | … | c_11 i8        ]   little-endian
//!  nibble  byte 0     1     2                                16
//!               [ x i8 | y i8 | c_1:c_0 | c_3:c_2 | … 14 bytes ]   two i4 a byte, the even lane low
//! ```
//!
//! A closed set with wire numbers, so an enum rather than a trait object. It knows bits, not values.

use thiserror::Error;

use crate::layout::WAVE_LANES;

/// Bytes of a word.
pub const WORD_BYTES: usize = 16;

/// One block's update, packed.
pub type Word = [u8; WORD_BYTES];

/// How the lanes of a word are packed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Profile {
    /// Two lanes of 16 bits and 12 of 8.
    Plain,
    /// Two lanes of 8 bits and 28 of 4.
    Nibble,
}

/// A number that names no profile.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
#[error("word profile {0} is unknown, known are 1 (plain) and 2 (nibble)")]
pub struct UnknownProfile(pub u8);

/// Most lanes that any profile has.
pub(crate) const WIDTH_MAX: usize = 30;

impl Profile {
    /// The number on the wire; numbers are never reused.
    #[must_use]
    pub const fn number(self) -> u8 {
        match self {
            Self::Plain => 1,
            Self::Nibble => 2,
        }
    }

    /// The profile of a number on the wire.
    ///
    /// # Errors
    /// If no profile has that number.
    pub const fn from_number(number: u8) -> Result<Self, UnknownProfile> {
        match number {
            1 => Ok(Self::Plain),
            2 => Ok(Self::Nibble),
            _ => Err(UnknownProfile(number)),
        }
    }

    /// Residual lanes of a word: the window's length n.
    #[must_use]
    pub const fn residual_lanes(self) -> usize {
        match self {
            Self::Plain => 12,
            Self::Nibble => 28,
        }
    }

    /// Lanes of a word, the wave's two included.
    #[must_use]
    pub const fn width(self) -> usize {
        WAVE_LANES + self.residual_lanes()
    }

    /// Largest magnitude that the encoder uses for a lane; the range is symmetric.
    #[must_use]
    pub const fn lane_max(self, lane: usize) -> i32 {
        match (self, lane < WAVE_LANES) {
            (Self::Plain, true) => 32_767,
            (Self::Plain, false) | (Self::Nibble, true) => 127,
            (Self::Nibble, false) => 7,
        }
    }

    /// Packs one block's lanes, wave first; lanes beyond those given are zero.
    ///
    /// # Panics
    /// If a lane is outside its field, or there are more than the profile has.
    #[must_use]
    pub fn pack(self, lanes: &[i32]) -> Word {
        assert!(lanes.len() <= self.width(), "{} lanes for a word of {}", lanes.len(), self.width());
        for (lane, q) in lanes.iter().enumerate() {
            let max = self.lane_max(lane);
            assert!((-max - 1..=max).contains(q), "lane {lane} is {q}, its field holds ±{max}");
        }
        match self {
            Self::Plain => Plain::pack(&padded(lanes)),
            Self::Nibble => Nibble::pack(&padded(lanes)),
        }
    }

    /// The lanes of any 128 bits, wave first, into the first [`Profile::width`] elements of `lanes`.
    ///
    /// # Panics
    /// If `lanes` is shorter than the profile's width.
    pub fn unpack(self, word: &Word, lanes: &mut [i32]) {
        match self {
            Self::Plain => lanes[..PLAIN_WIDTH].copy_from_slice(&Plain::unpack(word)),
            Self::Nibble => lanes[..NIBBLE_WIDTH].copy_from_slice(&Nibble::unpack(word)),
        }
    }
}

fn padded<const W: usize>(lanes: &[i32]) -> [i32; W] {
    let mut all = [0; W];
    all[..lanes.len()].copy_from_slice(lanes);
    all
}

/// One profile's bits, for kernels that know it when they are compiled. Lanes are within their fields.
pub(crate) trait Packing<const W: usize> {
    /// All lanes to a word.
    fn pack(lanes: &[i32; W]) -> Word;
    /// All lanes of a word.
    fn unpack(word: &Word) -> [i32; W];
}

/// [`Profile::Plain`].
pub(crate) struct Plain;
/// Lanes of a plain word.
pub(crate) const PLAIN_WIDTH: usize = Profile::Plain.width();

impl Packing<PLAIN_WIDTH> for Plain {
    #[inline(always)]
    fn pack(lanes: &[i32; PLAIN_WIDTH]) -> Word {
        let mut word = [0; WORD_BYTES];
        let [x_low, x_high, ..] = lanes[0].to_le_bytes();
        let [y_low, y_high, ..] = lanes[1].to_le_bytes();
        word[..4].copy_from_slice(&[x_low, x_high, y_low, y_high]);
        for (byte, q) in word[4..].iter_mut().zip(&lanes[2..]) {
            [*byte, ..] = q.to_le_bytes();
        }
        word
    }

    #[inline(always)]
    fn unpack(word: &Word) -> [i32; PLAIN_WIDTH] {
        let mut lanes = [0; PLAIN_WIDTH];
        lanes[0] = i32::from(i16::from_le_bytes([word[0], word[1]]));
        lanes[1] = i32::from(i16::from_le_bytes([word[2], word[3]]));
        for (lane, &byte) in lanes[2..].iter_mut().zip(&word[4..]) {
            *lane = i32::from(byte.cast_signed());
        }
        lanes
    }
}

/// [`Profile::Nibble`].
pub(crate) struct Nibble;
/// Lanes of a nibble word.
pub(crate) const NIBBLE_WIDTH: usize = Profile::Nibble.width();

impl Packing<NIBBLE_WIDTH> for Nibble {
    #[inline(always)]
    fn pack(lanes: &[i32; NIBBLE_WIDTH]) -> Word {
        let mut word = [0; WORD_BYTES];
        let low = |q: i32| q.to_le_bytes()[0];
        word[0] = low(lanes[0]);
        word[1] = low(lanes[1]);
        for (byte, pair) in word[2..].iter_mut().zip(lanes[2..].as_chunks::<2>().0) {
            *byte = low(pair[0]) & 0xf | low(pair[1]) << 4;
        }
        word
    }

    #[inline(always)]
    fn unpack(word: &Word) -> [i32; NIBBLE_WIDTH] {
        let signed = |byte: u8| i32::from(byte.cast_signed());
        let mut lanes = [0; NIBBLE_WIDTH];
        lanes[0] = signed(word[0]);
        lanes[1] = signed(word[1]);
        for (pair, &byte) in lanes[2..].as_chunks_mut::<2>().0.iter_mut().zip(&word[2..]) {
            *pair = [signed(byte << 4) >> 4, signed(byte) >> 4];
        }
        lanes
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn plain_is_laid_out_as_documented() {
        let word = Profile::Plain.pack(&[0x0102, -2, 1, -1, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12]);
        assert_eq!(word, [2, 1, 0xfe, 0xff, 1, 0xff, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12]);
    }

    #[test]
    fn nibble_is_laid_out_as_documented() {
        let word = Profile::Nibble.pack(&[1, -1, 2, -3]);
        assert_eq!(word, [1, 0xff, 0xd2, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]);
    }

    #[test]
    fn numbers_name_profiles_both_ways() {
        for profile in [Profile::Plain, Profile::Nibble] {
            assert_eq!(Profile::from_number(profile.number()), Ok(profile));
        }
        assert_eq!(Profile::from_number(9), Err(UnknownProfile(9)));
    }

    proptest! {
        #[test]
        fn any_word_unpacks_and_packs_to_itself(word: Word) {
            for profile in [Profile::Plain, Profile::Nibble] {
                let mut lanes = [0; WIDTH_MAX];
                profile.unpack(&word, &mut lanes);
                prop_assert_eq!(profile.pack(&lanes[..profile.width()]), word);
            }
        }
    }
}
