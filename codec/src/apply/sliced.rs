//! A sparse matrix for one vector: eight rows at a time, one term of each a step.
//!
//! Rows of like length share a slice (sliced ELLPACK: A. Monakov, A. Lokhmotov and A. Avetisyan, *Automatically tuning
//! sparse matrix-vector multiplication for GPU architectures*, HiPEAC 2010), so a step is eight look-ups, a product
//! and a sum, and no row is summed across lanes. A row's terms are added in the order in which they were given, whatever
//! the register's width.
//!
//! It is compiled for AVX2 even where there is more: with AVX-512 the compiler gathers, and where microcode guards
//! gathers against leaks (Skylake to Tiger Lake) they take twice as long as single loads. It knows no bases.

use pulp::NullaryFnOnce;

use crate::apply::tables::{NOWHERE, Table};
use crate::scalar::Scalar;

/// Rows of a slice: one AVX2 register of `f32`.
pub(crate) const LANES: usize = 8;
/// The pair of a term that is missing.
const NO_PAIR: u32 = u32::MAX;

/// Runs a kernel with the registers that suit it.
fn run<K: NullaryFnOnce>(kernel: K) -> K::Output {
    #[cfg(target_arch = "x86_64")]
    if let Some(wide) = pulp::x86::V3::try_new() {
        return wide.vectorize(kernel);
    }
    kernel.call()
}

/// One term: a row of the result, a place of the input, and the number of its coefficient.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Term {
    pub(crate) row: u16,
    pub(crate) input: u16,
    pub(crate) pair: u32,
}

/// The matrix.
#[derive(Clone, Debug)]
pub(crate) struct Sliced {
    /// Rows of the slices with their number of steps.
    slices: Vec<([u16; LANES], u32)>,
    /// Place of the input, step by step.
    inputs: Vec<[u16; LANES]>,
    /// Whose coefficient a step takes, likewise.
    pairs: Vec<[u32; LANES]>,
}

impl Sliced {
    /// The matrix of these terms; rows without any are not written by a product.
    pub(crate) fn new(terms: impl Iterator<Item = Term>) -> Self {
        let mut terms: Vec<Term> = terms.collect();
        terms.sort_by_key(|term| term.row);
        let mut rows: Vec<&[Term]> = terms.chunk_by(|a, b| a.row == b.row).collect();
        rows.sort_by_key(|terms| terms.len());
        let mut sliced = Self { slices: Vec::new(), inputs: Vec::new(), pairs: Vec::new() };
        for slice in rows.chunks(LANES) {
            let steps = slice.iter().map(|terms| terms.len()).max().unwrap_or(0);
            let mut places = [NOWHERE; LANES];
            places.iter_mut().zip(slice).for_each(|(place, terms)| *place = terms[0].row);
            sliced.slices.push((places, u32::try_from(steps).expect("a layout has at most 2^30 lanes")));
            for step in 0..steps {
                let (mut inputs, mut pairs) = ([NOWHERE; LANES], [NO_PAIR; LANES]);
                for (lane, term) in slice.iter().enumerate().filter_map(|(lane, terms)| Some((lane, terms.get(step)?)))
                {
                    (inputs[lane], pairs[lane]) = (term.input, term.pair);
                }
                sliced.inputs.push(inputs);
                sliced.pairs.push(pairs);
            }
        }
        sliced
    }

    /// One coefficient a pair, in the order in which [`Sliced::product`] takes them; 0 where a term is missing.
    pub(crate) fn in_order<S: Scalar>(&self, coefficients: &[S]) -> Vec<[S; LANES]> {
        let of = |pair: u32| coefficients.get(pair as usize).copied().unwrap_or(S::ZERO);
        self.pairs.iter().map(|pairs| pairs.map(of)).collect()
    }

    /// Writes the rows of `self·input` to their places.
    pub(crate) fn product<S: Scalar>(&self, ordered: &[[S; LANES]], input: &Table<S>, out: &mut Table<S>) {
        run(Product { sliced: self, ordered, input, out });
    }
}

/// One product, to be compiled for the registers that suit it.
struct Product<'a, S> {
    sliced: &'a Sliced,
    ordered: &'a [[S; LANES]],
    input: &'a Table<S>,
    out: &'a mut Table<S>,
}

impl<S: Scalar> NullaryFnOnce for Product<'_, S> {
    type Output = ();

    #[inline(always)]
    fn call(self) {
        let Self { sliced, ordered, input, out } = self;
        let (mut coefficients, mut inputs) = (ordered, sliced.inputs.as_slice());
        for (rows, steps) in &sliced.slices {
            let (now, later) = coefficients.split_at(*steps as usize);
            let (from, rest) = inputs.split_at(*steps as usize);
            (coefficients, inputs) = (later, rest);
            for (&row, sum) in rows.iter().zip(sums(now, from, input)) {
                out[usize::from(row)] = sum;
            }
        }
    }
}

/// The sums of one slice.
#[inline(always)]
fn sums<S: Scalar>(coefficients: &[[S; LANES]], inputs: &[[u16; LANES]], input: &Table<S>) -> [S; LANES] {
    let mut sums = [S::ZERO; LANES];
    for (coefficients, inputs) in coefficients.iter().zip(inputs) {
        for ((sum, &coefficient), &from) in sums.iter_mut().zip(coefficients).zip(inputs) {
            *sum += coefficient * input[usize::from(from)];
        }
    }
    sums
}

/// Products of places of two tables, each with a factor, summed into slots.
#[derive(Clone, Debug)]
pub(crate) struct Samples<S> {
    /// The first product of every slot.
    first: Products<S>,
    /// Further ones, and their slots.
    further: Products<S>,
    slots: Vec<u32>,
}

/// `factor·a[place]·b[place]`, one after the other.
#[derive(Clone, Debug)]
struct Products<S> {
    a: Vec<u16>,
    b: Vec<u16>,
    factors: Vec<S>,
}

impl<S: Scalar> Products<S> {
    fn nothing(count: usize) -> Self {
        Self { a: vec![NOWHERE; count], b: vec![NOWHERE; count], factors: vec![S::ZERO; count] }
    }

    #[inline(always)]
    fn write(&self, a: &Table<S>, b: &Table<S>, out: &mut [S]) {
        for (((out, &at_a), &at_b), &factor) in out.iter_mut().zip(&self.a).zip(&self.b).zip(&self.factors) {
            *out = factor * (a[usize::from(at_a)] * b[usize::from(at_b)]);
        }
    }
}

impl<S: Scalar> Samples<S> {
    /// Of `slots` slots, from (slot, place of a, place of b, factor).
    pub(crate) fn new(slots: usize, products: impl Iterator<Item = (u32, u16, u16, S)>) -> Self {
        let mut samples = Self { first: Products::nothing(slots), further: Products::nothing(0), slots: Vec::new() };
        let mut taken = vec![false; slots];
        for (slot, a, b, factor) in products {
            let at = slot as usize;
            if std::mem::replace(&mut taken[at], true) {
                samples.further.a.push(a);
                samples.further.b.push(b);
                samples.further.factors.push(factor);
                samples.slots.push(slot);
            } else {
                (samples.first.a[at], samples.first.b[at], samples.first.factors[at]) = (a, b, factor);
            }
        }
        samples
    }

    /// The sum of every slot.
    pub(crate) fn sums(&self, a: &Table<S>, b: &Table<S>) -> Vec<S> {
        run(Sample { samples: self, a, b })
    }
}

/// All samples, likewise.
struct Sample<'a, S> {
    samples: &'a Samples<S>,
    a: &'a Table<S>,
    b: &'a Table<S>,
}

impl<S: Scalar> NullaryFnOnce for Sample<'_, S> {
    type Output = Vec<S>;

    #[inline(always)]
    fn call(self) -> Vec<S> {
        let Self { samples: Samples { first, further, slots }, a, b } = self;
        let (mut sums, mut more) = (vec![S::ZERO; first.a.len()], vec![S::ZERO; slots.len()]);
        first.write(a, b, &mut sums);
        further.write(a, b, &mut more);
        for (&slot, &product) in slots.iter().zip(&more) {
            sums[slot as usize] += product;
        }
        sums
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::apply::tables::TABLE;
    use crate::seed::Seed;

    fn noise(seed: u64) -> Box<Table<f64>> {
        let mut stream = Seed::from_number(seed).stream();
        let mut values: Vec<f64> = (0..TABLE).map(|_| stream.unit() - 0.5).collect();
        values[usize::from(NOWHERE)] = 0.0;
        values.into_boxed_slice().try_into().expect("as long as a table")
    }

    #[test]
    fn a_product_is_the_sum_of_its_terms() {
        let mut stream = Seed::from_number(1).stream();
        let mut place = || u16::try_from(stream.bits_32() % 200).unwrap();
        let terms: Vec<Term> = (0..700).map(|pair| Term { row: place() / 3, input: place(), pair }).collect();
        let (coefficients, input): (Vec<f64>, _) = ((0..700).map(|n| f64::from(n) - 300.0).collect(), noise(2));
        let sliced = Sliced::new(terms.iter().copied());
        let (mut out, mut expected) = (noise(3), [0.0; 200]);
        out[..200].fill(0.0);
        sliced.product(&sliced.in_order(&coefficients), &input, &mut out);
        for Term { row, input: from, pair } in terms {
            expected[usize::from(row)] += coefficients[pair as usize] * input[usize::from(from)];
        }
        for (found, expected) in out.iter().zip(expected) {
            assert!((found - expected).abs() < 1e-9, "{found} {expected}");
        }
    }

    #[test]
    fn samples_count_towards_their_slots() {
        let (a, b) = (noise(3), noise(4));
        let samples = Samples::new(4, [(1, 7, 9, 2.0), (3, 8, 8, 1.0), (1, 3, 4, -1.0), (1, 5, 5, 0.5)].into_iter());
        let expected = [0.0, 2.0 * a[7] * b[9] - a[3] * b[4] + 0.5 * a[5] * b[5], 0.0, a[8] * b[8]];
        for (found, expected) in samples.sums(&a, &b).into_iter().zip(expected) {
            assert!((found - expected).abs() < 1e-12);
        }
    }
}
