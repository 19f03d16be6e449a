//! Keyed randomness: one seed, and from it a tree of independent streams.
//!
//! A [`Seed`] is derived for a purpose (a domain string and ids), never advanced, so what one part
//! of the system draws cannot shift what another draws. It does not know what it is used for.

use std::convert::Infallible;

use rand_core::TryRng;

/// 256 bits from which every random choice of a run follows.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Seed([u8; 32]);

impl Seed {
    /// The seed of a run that a person named by a number.
    #[must_use]
    pub fn from_number(number: u64) -> Self {
        Self(blake3::derive_key("packfed/seed/1", &number.to_le_bytes()))
    }

    /// A seed from its 32 bytes, as a run's plan carries it.
    #[must_use]
    pub const fn from_bytes(bytes: [u8; 32]) -> Self {
        Self(bytes)
    }

    /// The 32 bytes of this seed.
    #[must_use]
    pub const fn bytes(&self) -> &[u8; 32] {
        &self.0
    }

    /// The seed for one purpose: a BLAKE3 hash keyed by `self` over the length-prefixed domain and the ids.
    #[must_use]
    pub fn derive(&self, domain: &str, ids: &[u64]) -> Self {
        let mut hasher = self.hasher(domain);
        for id in ids {
            hasher.update(&id.to_le_bytes());
        }
        Self(*hasher.finalize().as_bytes())
    }

    /// As [`Seed::derive`], for an id that is 32 bytes long, such as a public key.
    #[must_use]
    pub fn derive_for_key(&self, domain: &str, key: &[u8; 32]) -> Self {
        let mut hasher = self.hasher(domain);
        hasher.update(key);
        Self(*hasher.finalize().as_bytes())
    }

    fn hasher(&self, domain: &str) -> blake3::Hasher {
        let mut hasher = blake3::Hasher::new_keyed(&self.0);
        hasher.update(&(domain.len() as u64).to_le_bytes());
        hasher.update(domain.as_bytes());
        hasher
    }

    /// The endless stream of this seed: BLAKE3's extendable output, the same on every machine.
    #[must_use]
    pub fn stream(&self) -> Stream {
        Stream {
            reader: blake3::Hasher::new_keyed(&self.0).finalize_xof(),
            buffer: [0; BUFFER_BYTES],
            used: BUFFER_BYTES,
        }
    }
}

impl std::fmt::Debug for Seed {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let [a, b, c, d, ..] = self.0;
        write!(f, "Seed({a:02x}{b:02x}{c:02x}{d:02x}…)")
    }
}

const BUFFER_BYTES: usize = 256;

/// A stream of uniform random numbers; also a [`rand_core`] generator, for distributions.
#[derive(Clone)]
pub struct Stream {
    reader: blake3::OutputReader,
    buffer: [u8; BUFFER_BYTES],
    used: usize,
}

impl Stream {
    fn take<const N: usize>(&mut self) -> [u8; N] {
        const { assert!(BUFFER_BYTES.is_multiple_of(N)) };
        if self.used + N > BUFFER_BYTES {
            self.reader.fill(&mut self.buffer);
            self.used = 0;
        }
        let mut out = [0; N];
        out.copy_from_slice(&self.buffer[self.used..self.used + N]);
        self.used += N;
        out
    }

    /// 32 uniform bits.
    pub fn bits_32(&mut self) -> u32 {
        u32::from_le_bytes(self.take())
    }

    /// As many draws of [`Stream::bits_32`], in the same order.
    pub fn fill_32(&mut self, out: &mut [u32]) {
        for out in out.chunks_mut(BUFFER_BYTES / 4) {
            if self.used == BUFFER_BYTES && out.len() == BUFFER_BYTES / 4 {
                self.reader.fill(&mut self.buffer);
                for (out, bytes) in out.iter_mut().zip(self.buffer.as_chunks().0) {
                    *out = u32::from_le_bytes(*bytes);
                }
            } else {
                out.fill_with(|| self.bits_32());
            }
        }
    }

    /// 64 uniform bits.
    pub fn bits_64(&mut self) -> u64 {
        u64::from_le_bytes(self.take())
    }

    /// Uniform in `0..bound`, without bias (rejection of the incomplete last interval).
    ///
    /// # Panics
    /// If `bound` is 0.
    pub fn below(&mut self, bound: u64) -> u64 {
        assert!(bound > 0, "a uniform draw needs a bound above 0");
        let zone = u64::MAX - (u64::MAX % bound + 1) % bound;
        loop {
            let draw = self.bits_64();
            if draw <= zone {
                return draw % bound;
            }
        }
    }

    /// As [`Stream::below`], for an index.
    pub fn index(&mut self, bound: usize) -> usize {
        usize::try_from(self.below(bound as u64)).expect("a draw below a usize fits a usize")
    }

    /// Uniform in `[0, 1)`, a multiple of 2⁻⁵³.
    pub fn unit(&mut self) -> f64 {
        #[expect(clippy::cast_precision_loss, reason = "53 bits are exact in an f64")]
        let mantissa = (self.bits_64() >> 11) as f64;
        mantissa * f64::EPSILON / 2.0
    }

    /// A Fisher–Yates shuffle.
    pub fn shuffle<T>(&mut self, items: &mut [T]) {
        for last in (1..items.len()).rev() {
            items.swap(last, self.index(last + 1));
        }
    }
}

impl TryRng for Stream {
    type Error = Infallible;

    fn try_next_u32(&mut self) -> Result<u32, Infallible> {
        Ok(self.bits_32())
    }

    fn try_next_u64(&mut self) -> Result<u64, Infallible> {
        Ok(self.bits_64())
    }

    fn try_fill_bytes(&mut self, dst: &mut [u8]) -> Result<(), Infallible> {
        for byte in dst {
            [*byte] = self.take();
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stream_is_pinned_for_ever() {
        let mut stream = Seed::from_number(7).derive("test", &[1, 2]).stream();
        assert_eq!([stream.bits_64(), stream.bits_64()], [3_331_604_600_992_667_369, 6_000_059_826_633_452_821]);
    }

    #[test]
    fn filling_draws_what_single_draws_would() {
        for (before, length) in [(0, 64), (0, 200), (3, 64), (63, 130), (64, 7)] {
            let (mut one_by_one, mut at_once) = (Seed::from_number(5).stream(), Seed::from_number(5).stream());
            for stream in [&mut one_by_one, &mut at_once] {
                for _ in 0..before {
                    stream.bits_32();
                }
            }
            let mut filled = vec![0; length];
            at_once.fill_32(&mut filled);
            assert!(filled.iter().all(|&draw| draw == one_by_one.bits_32()), "{before}, {length}");
            assert_eq!(at_once.bits_32(), one_by_one.bits_32());
        }
    }

    #[test]
    fn derivations_differ_by_domain_and_by_id() {
        let seed = Seed::from_number(1);
        assert_ne!(seed.derive("a", &[1]), seed.derive("b", &[1]));
        assert_ne!(seed.derive("a", &[1]), seed.derive("a", &[2]));
        assert_ne!(seed.derive("a", &[]), Seed::from_number(2).derive("a", &[]));
    }

    #[test]
    fn below_reaches_every_value_and_no_other() {
        let mut stream = Seed::from_number(3).stream();
        let mut seen = [0u32; 7];
        for _ in 0..7_000 {
            seen[stream.index(7)] += 1;
        }
        assert!(seen.iter().all(|&n| (800..1_200).contains(&n)), "{seen:?}");
    }

    #[test]
    fn mixed_widths_never_straddle_a_refill() {
        let mut a = Seed::from_number(4).stream();
        for _ in 0..1_000 {
            let _: [u8; 1] = a.take();
            a.bits_64();
            assert!((0.0..1.0).contains(&a.unit()));
        }
    }
}
