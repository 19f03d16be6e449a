//! A buffer that begins with a cache line, so that rows of registers do not straddle two.

use crate::scalar::Scalar;

/// Bytes of a cache line, and of an AVX-512 register.
const LINE: usize = 64;

/// Values from the start of a cache line on. A copy holds the same values, but need not begin with a line.
#[derive(Clone, Debug)]
pub(crate) struct Aligned<S> {
    values: Vec<S>,
    first: usize,
    length: usize,
}

impl<S> Default for Aligned<S> {
    fn default() -> Self {
        Self { values: Vec::new(), first: 0, length: 0 }
    }
}

impl<S: Scalar> Aligned<S> {
    /// So many zeros.
    #[inline(always)]
    pub(crate) fn zeroed(length: usize) -> Self {
        let mut buffer = Self { values: vec![S::ZERO; length + LINE / size_of::<S>()], first: 0, length };
        buffer.align();
        buffer
    }

    /// The buffer with so many values, whichever; memory that it has is used again.
    #[inline(always)]
    pub(crate) fn resized(&mut self, length: usize) -> &mut [S] {
        self.values.resize(length + LINE / size_of::<S>(), S::ZERO);
        self.length = length;
        self.align();
        self.get_mut()
    }

    #[inline(always)]
    fn align(&mut self) {
        // Nothing guarantees that the offset can be told; then the buffer begins where it does.
        self.first = self.values.as_ptr().align_offset(LINE).min(LINE / size_of::<S>());
    }

    /// The values.
    #[inline(always)]
    pub(crate) fn get(&self) -> &[S] {
        &self.values[self.first..self.first + self.length]
    }

    /// The values, to be written.
    #[inline(always)]
    pub(crate) fn get_mut(&mut self) -> &mut [S] {
        &mut self.values[self.first..self.first + self.length]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_buffer_begins_with_a_line_however_often_it_is_resized() {
        let mut buffer = Aligned::<f32>::default();
        for length in [3, 1_000, 17, 100_000, 0] {
            let values = buffer.resized(length);
            assert_eq!(values.len(), length);
            assert_eq!(values.as_ptr().addr() % LINE, 0);
        }
        assert_eq!(Aligned::<f64>::zeroed(5).get(), [0.0; 5]);
    }

    #[test]
    fn a_copy_holds_the_same_values() {
        let mut buffer = Aligned::zeroed(9);
        buffer.get_mut().copy_from_slice(&[1.0f32, 2.0, 3.0, 4.0, 5.0, 6.0, 7.0, 8.0, 9.0]);
        assert_eq!(buffer.clone().get(), buffer.get());
    }
}
