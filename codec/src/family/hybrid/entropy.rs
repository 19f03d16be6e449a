//! The range-coded form of a block's coefficients: adaptive classes and plain bits.
//!
//! For every coefficient, in order: the gap to its predecessor (0 for the next position), the sign, the level less 1.
//! A number `n` is the class `⌊log₂(n+1)⌋`, under counts that start at 1 each and learn, and then the bits of `n+1`
//! below its top one (Elias' γ code of 1975 with a coded length). `constriction`'s range coder (G. N. N. Martin, 1979)
//! has integer models here, so the words are the same on every machine. It knows no bytes and no values.

use std::borrow::Borrow;
use std::num::NonZeroU16;

use constriction::stream::model::{DecoderModel, EncoderModel, EntropyModel};
use constriction::stream::queue::{SmallRangeDecoder, SmallRangeEncoder};
use constriction::stream::{Decode, Encode};

use super::HybridSpec;
use super::code::{LEVEL_MAX, LEVEL_SIGN};
use super::format::Entry;

/// Probabilities are multiples of 2⁻¹².
const PRECISION: usize = 12;
const WHOLE: u32 = 1 << PRECISION;
/// Classes 0..=16 of numbers below 2^17 − 1.
const CLASSES: usize = 17;
/// A count of all classes at which every count is halved, so that the model follows the block.
const COUNT_MAX: u32 = 1 << 10;
/// What a class seen adds to its count.
const STEP: u32 = 16;
/// Plain bits go in groups that the coder's words can take.
const GROUP_BITS: u32 = 8;

/// How often each class was met.
struct Classes {
    counts: [u32; CLASSES],
    total: u32,
}

impl Classes {
    fn new() -> Self {
        let counts = [1; CLASSES];
        Self { counts, total: counts.iter().sum() }
    }

    fn learn(&mut self, class: usize) {
        self.counts[class] += STEP;
        self.total += STEP;
        if self.total > COUNT_MAX {
            self.counts.iter_mut().for_each(|count| *count = count.div_ceil(2));
            self.total = self.counts.iter().sum();
        }
    }

    /// Where the first `class` classes end, in parts of [`WHOLE`]; increasing, since every count is at least 1 and
    /// their total at most 2¹⁰ of 2¹².
    fn cumulative(&self, class: usize) -> u32 {
        self.counts[..class].iter().sum::<u32>() * WHOLE / self.total
    }
}

impl EntropyModel<PRECISION> for Classes {
    type Symbol = usize;
    type Probability = u16;
}

impl EncoderModel<PRECISION> for Classes {
    fn left_cumulative_and_probability(&self, symbol: impl Borrow<usize>) -> Option<(u16, NonZeroU16)> {
        let class = *symbol.borrow();
        (class < CLASSES).then(|| interval(self.cumulative(class), self.cumulative(class + 1)))
    }
}

impl DecoderModel<PRECISION> for Classes {
    fn quantile_function(&self, quantile: u16) -> (usize, u16, NonZeroU16) {
        let holds = |class: &usize| u32::from(quantile) < self.cumulative(class + 1);
        let class = (0..CLASSES).find(holds).expect("the last class ends at the whole");
        let (left, width) = interval(self.cumulative(class), self.cumulative(class + 1));
        (class, left, width)
    }
}

/// `bits` ≤ 8 equally likely bits.
#[derive(Clone, Copy)]
struct Bits(u32);

impl EntropyModel<PRECISION> for Bits {
    type Symbol = u32;
    type Probability = u16;
}

impl EncoderModel<PRECISION> for Bits {
    fn left_cumulative_and_probability(&self, symbol: impl Borrow<u32>) -> Option<(u16, NonZeroU16)> {
        let (symbol, width) = (*symbol.borrow(), WHOLE >> self.0);
        (symbol < 1 << self.0).then(|| interval(symbol * width, (symbol + 1) * width))
    }
}

impl DecoderModel<PRECISION> for Bits {
    fn quantile_function(&self, quantile: u16) -> (u32, u16, NonZeroU16) {
        let width = WHOLE >> self.0;
        let symbol = u32::from(quantile) / width;
        let (left, width) = interval(symbol * width, (symbol + 1) * width);
        (symbol, left, width)
    }
}

fn interval(left: u32, right: u32) -> (u16, NonZeroU16) {
    let narrow = |v: u32| u16::try_from(v).expect("at most 2^12");
    (narrow(left), NonZeroU16::new(narrow(right - left)).expect("every interval is open"))
}

/// The words of a block's coefficients.
pub(super) fn encode(spec: &HybridSpec, entries: &[Entry]) -> Vec<u16> {
    let mut encoder = SmallRangeEncoder::new();
    let (mut gaps, mut levels) = (Classes::new(), Classes::new());
    let mut next = 0;
    for entry in entries {
        let position = usize::from(entry.row) * spec.cols + usize::from(entry.col);
        put(&mut encoder, &mut gaps, u32::try_from(position - next).expect("at most 2^16 positions"));
        put_bits(&mut encoder, entry.code >> 31, 1);
        put(&mut encoder, &mut levels, (entry.code & !LEVEL_SIGN) - 1);
        next = position + 1;
    }
    encoder.into_compressed().unwrap_or_else(|never| match never {})
}

/// The coefficients of words, appended to `entries`; on an error, how many had been read.
///
/// The words are accepted only if encoding gives them again, which also catches a cut or an extension.
pub(super) fn decode(spec: &HybridSpec, words: &[u16], count: usize, entries: &mut Vec<Entry>) -> Result<(), usize> {
    let mut decoder = SmallRangeDecoder::from_compressed(words).unwrap_or_else(|never| match never {});
    let (mut gaps, mut levels) = (Classes::new(), Classes::new());
    let mut next = 0;
    entries.reserve_exact(count);
    for k in 0..count {
        let entry = get_entry(&mut decoder, (&mut gaps, &mut levels), spec, &mut next).ok_or(k)?;
        entries.push(entry);
    }
    if encode(spec, entries) == words { Ok(()) } else { Err(count) }
}

type Decoder<'a> = SmallRangeDecoder<constriction::backends::Cursor<u16, &'a [u16]>>;

fn get_entry(
    decoder: &mut Decoder<'_>,
    (gaps, levels): (&mut Classes, &mut Classes),
    spec: &HybridSpec,
    next: &mut usize,
) -> Option<Entry> {
    let position = *next + usize::try_from(get(decoder, gaps)?).ok()?;
    let sign = get_bits(decoder, 1)? << 31;
    let level = get(decoder, levels)? + 1;
    if position >= spec.rows * spec.cols || level > LEVEL_MAX {
        return None;
    }
    *next = position + 1;
    let (row, col) = (position / spec.cols, position % spec.cols);
    Some(Entry { row: u8::try_from(row).ok()?, col: u8::try_from(col).ok()?, code: level | sign })
}

fn put(encoder: &mut SmallRangeEncoder, classes: &mut Classes, number: u32) {
    let bits = (number + 1).ilog2();
    let class = usize::try_from(bits).expect("below 32");
    encoder.encode_symbol(class, &*classes).expect("numbers are below 2^17 − 1 and their class has a probability");
    classes.learn(class);
    put_bits(encoder, (number + 1) & !(1 << bits), bits);
}

fn get(decoder: &mut Decoder<'_>, classes: &mut Classes) -> Option<u32> {
    let class = decoder.decode_symbol(&*classes).ok()?;
    classes.learn(class);
    let bits = u32::try_from(class).ok()?;
    Some((1 << bits | get_bits(decoder, bits)?) - 1)
}

/// The low `bits`, the lowest group first.
fn put_bits(encoder: &mut SmallRangeEncoder, mut value: u32, mut bits: u32) {
    while bits > 0 {
        let group = bits.min(GROUP_BITS);
        encoder.encode_symbol(value & ((1 << group) - 1), Bits(group)).expect("every group has a probability");
        value >>= group;
        bits -= group;
    }
}

fn get_bits(decoder: &mut Decoder<'_>, bits: u32) -> Option<u32> {
    let mut value = 0;
    let mut read = 0;
    while read < bits {
        let group = (bits - read).min(GROUP_BITS);
        value |= decoder.decode_symbol(Bits(group)).ok()? << read;
        read += group;
    }
    Some(value)
}
