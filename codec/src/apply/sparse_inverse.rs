//! A matrix from few coefficients, `W(i,j) = Σ c·R_u(i)·C_v(j)`: the one inverse transform of every sparse block.
//!
//! ```text
//!  coefficients of one u      r_u(j) = Σ c·C_v(j)           one vector, the even v apart from the odd
//!  their product              W(i,j) = Σ_u R_u(i)·r_u(j)    tiles that stay in registers
//! ```
//!
//! A cosine is its own mirror image, `C_v(n−1−j) = (−1)^v·C_v(j)`, and so is a sine with the other sign. So the
//! products fall into four classes by the parities of `u` and `v`, each is summed over a quarter of the matrix, and
//! the four quarters are sums and differences of the classes: a quarter of the work. Vectors without symmetry are
//! one class over the whole matrix, and tiles on which a vector vanishes are left out, which is most of them for
//! wavelets.
//!
//! Every sum has one order and multiplication and addition stay apart (a fused one rounds otherwise, and not every
//! machine has it), so the bits do not depend on the instruction set. It knows no blocks, waves or formats.

use pulp::{Simd, WithSimd};

use crate::apply::vectors::{TILE_ROWS, Vectors};

/// Classes of products: the parity of the row vector, then of the column vector.
const CLASSES: usize = 4;
/// No vector yet.
const NONE: usize = usize::MAX;
const PADDED: &str = "vectors are padded to whole tiles";

/// Scratch of the transform, kept from block to block so that none is allocated.
#[derive(Clone, Debug, Default)]
pub(crate) struct SparseInverse {
    /// The `r_u`, one after the other.
    sums: Vec<f32>,
    /// Values of `sums` in use.
    used: usize,
    /// Where in `sums` a row vector's sum begins: of its even column vectors, of its odd ones.
    starts: Vec<usize>,
    products: [Vec<Product>; CLASSES],
    /// The products that do not vanish on the tiles at hand.
    present: [Vec<Product>; CLASSES],
}

/// One `R_u·r_u`.
#[derive(Clone, Copy, Debug)]
struct Product {
    /// Where `R_u` begins among the row vectors.
    row: usize,
    /// Where `r_u` begins in the sums.
    sum: usize,
    /// Bit n: whether `R_u` has a value other than 0 in tile n.
    tiles: u64,
}

/// One transform, to be compiled once for every instruction set.
pub(crate) struct Expand<'a, I> {
    pub(crate) inverse: &'a mut SparseInverse,
    pub(crate) rows: &'a Vectors,
    pub(crate) cols: &'a Vectors,
    /// Row vector, column vector, value. A value of 0 costs nothing.
    pub(crate) coefficients: I,
    /// What the even products are added to: a weight and a table, kept rows in whole tiles × the columns' stride.
    pub(crate) ground: Option<(f32, &'a [f32])>,
    /// Begins with the first value; the next row begins `stride` values further.
    pub(crate) out: &'a mut [f32],
    pub(crate) stride: usize,
}

impl<I: Iterator<Item = (usize, usize, f32)>> WithSimd for Expand<'_, I> {
    type Output = ();

    #[inline(always)]
    fn with_simd<V: Simd>(self, simd: V) {
        let Self { inverse, rows, cols, coefficients, ground, out, stride } = self;
        inverse.begin(rows);
        for (u, v, value) in coefficients {
            if value != 0.0 {
                inverse.add(rows, cols, (u, v), value);
            }
        }
        let SparseInverse { sums, products, present, .. } = inverse;
        let sums = V::as_simd_f32s(sums).0;
        let ground = ground.map(|(weight, table)| (simd.splat_f32s(weight), V::as_simd_f32s(table).0));
        for i in (0..rows.kept()).step_by(TILE_ROWS) {
            for (present, products) in present.iter_mut().zip(&*products) {
                select(products, i / TILE_ROWS, present);
            }
            for j in (0..cols.kept()).step_by(V::F32_LANES) {
                let mut quarter = Quarter { simd, classes: [[simd.splat_f32s(0.0); TILE_ROWS]; CLASSES] };
                if let Some((weight, table)) = ground {
                    quarter.classes[0] = scaled(simd, weight, table, (i * cols.stride() + j, cols.stride()));
                }
                quarter.add(0, &present[0], rows.values(), sums, (i, j));
                quarter.add(1, &present[1], rows.values(), sums, (i, j));
                quarter.add(2, &present[2], rows.values(), sums, (i, j));
                quarter.add(3, &present[3], rows.values(), sums, (i, j));
                quarter.write((rows, i), (cols, j), out, stride);
            }
        }
    }
}

impl SparseInverse {
    #[inline(always)]
    fn begin(&mut self, rows: &Vectors) {
        self.used = 0;
        self.starts.clear();
        self.starts.resize(2 * rows.count(), NONE);
        self.products.iter_mut().for_each(Vec::clear);
    }

    /// Adds `value·C_v` to the sum of row vector `u`.
    #[inline(always)]
    fn add(&mut self, rows: &Vectors, cols: &Vectors, (u, v): (usize, usize), value: f32) {
        let (vector, odd) = (cols.vector(v), usize::from(cols.is_odd(v)));
        let start = &mut self.starts[2 * u + odd];
        if *start != NONE {
            for (sum, &c) in self.sums[*start..].iter_mut().zip(vector) {
                *sum += value * c;
            }
            return;
        }
        *start = self.used;
        self.used += vector.len();
        if self.sums.len() < self.used {
            self.sums.resize(self.used, 0.0);
        }
        for (sum, &c) in self.sums[*start..].iter_mut().zip(vector) {
            *sum = value * c;
        }
        let product = Product { row: u * rows.stride(), sum: *start, tiles: rows.tiles(u) };
        self.products[2 * usize::from(rows.is_odd(u)) + odd].push(product);
    }
}

/// The products that do not vanish on a tile, in their order and without a branch.
#[inline(always)]
fn select(products: &[Product], tile: usize, present: &mut Vec<Product>) {
    present.clear();
    present.extend_from_slice(products);
    let mut count = 0;
    for product in products {
        present[count] = *product;
        count += usize::from(product.tiles >> tile & 1 == 1);
    }
    present.truncate(count);
}

/// A register from each row of a tile.
type Tile<V> = [<V as Simd>::f32s; TILE_ROWS];

#[inline(always)]
fn scaled<V: Simd>(simd: V, weight: V::f32s, table: &[V::f32s], (at, stride): (usize, usize)) -> Tile<V> {
    let mut tile = [simd.splat_f32s(0.0); TILE_ROWS];
    for (n, value) in tile.iter_mut().enumerate() {
        *value = simd.mul_f32s(weight, table[(at + n * stride) / V::F32_LANES]);
    }
    tile
}

/// The sums of the four classes on one tile of the upper left quarter. Its registers are named, for the compiler
/// would rather vectorise over the rows of a tile.
struct Quarter<V: Simd> {
    simd: V,
    classes: [Tile<V>; CLASSES],
}

impl<V: Simd> Quarter<V> {
    #[inline(always)]
    fn add(&mut self, class: usize, products: &[Product], rows: &[f32], sums: &[V::f32s], (i, j): (usize, usize)) {
        let simd = self.simd;
        let mut tile = self.classes[class];
        for product in products {
            let factors: &[f32; TILE_ROWS] = rows[product.row + i..].first_chunk().expect(PADDED);
            let sum = sums[(product.sum + j) / V::F32_LANES];
            for (value, &factor) in tile.iter_mut().zip(factors) {
                *value = simd.add_f32s(*value, simd.mul_f32s(simd.splat_f32s(factor), sum));
            }
        }
        self.classes[class] = tile;
    }

    /// Writes what of the tile at row i and column j, and of its images in the other quarters, lies in the matrix.
    /// The middle row or column of an odd number is its own image, where odd vectors are 0.
    #[inline(always)]
    fn write(&self, (rows, i): (&Vectors, usize), (cols, j): (&Vectors, usize), out: &mut [f32], stride: usize) {
        let simd = self.simd;
        let count = V::F32_LANES.min(cols.kept() - j);
        let [even_even, even_odd, odd_even, odd_odd] = &self.classes;
        for n in 0..TILE_ROWS {
            if i + n < rows.kept() {
                let (even, odd) = (even_even[n], even_odd[n]);
                let top = (simd.add_f32s(even, odd_even[n]), simd.add_f32s(odd, odd_odd[n]));
                let bottom = (simd.sub_f32s(even, odd_even[n]), simd.sub_f32s(odd, odd_odd[n]));
                self.write_row(top, (cols, j, count), &mut out[(i + n) * stride..][..cols.size()]);
                if rows.is_mirrored() {
                    let image = rows.size() - 1 - i - n;
                    self.write_row(bottom, (cols, j, count), &mut out[image * stride..][..cols.size()]);
                }
            }
        }
    }

    /// Writes the even and the odd part of a register of one row, and its image.
    #[inline(always)]
    fn write_row(&self, (even, odd): (V::f32s, V::f32s), (cols, j, count): (&Vectors, usize, usize), row: &mut [f32]) {
        let simd = self.simd;
        store(simd, simd.add_f32s(even, odd), &mut row[j..j + count]);
        if cols.is_mirrored() {
            let image = reversed::<V>(simd.sub_f32s(even, odd));
            let end = row.len() - j;
            let row = &mut row[end - count..end];
            if count == V::F32_LANES {
                store(simd, image, row);
            } else {
                store(simd, simd.rotate_left_f32s(image, V::F32_LANES - count), row);
            }
        }
    }
}

/// The first values of a register.
#[inline(always)]
fn store<V: Simd>(simd: V, values: V::f32s, to: &mut [f32]) {
    match V::as_mut_simd_f32s(to) {
        ([to], []) => *to = values,
        _ => simd.partial_store_f32s(to, values),
    }
}

/// A register's values from the last to the first.
#[inline(always)]
fn reversed<V: Simd>(values: V::f32s) -> V::f32s {
    #[inline(always)]
    fn of<V: Simd, const N: usize>(values: V::f32s) -> V::f32s
    where
        [f32; N]: pulp::bytemuck::Pod,
    {
        let mut values: [f32; N] = pulp::bytemuck::cast(values);
        values.reverse();
        pulp::bytemuck::cast(values)
    }
    match V::F32_LANES {
        1 => values,
        4 => of::<V, 4>(values),
        8 => of::<V, 8>(values),
        16 => of::<V, 16>(values),
        lanes => unreachable!("no register has {lanes} lanes"),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use rustdct::DctPlanner;

    use super::*;
    use crate::basis::{alpha, dct_matrix, dst_matrix};
    use crate::scalar::Scalar;
    use crate::seed::{Seed, Stream};

    type Coefficients = Vec<(usize, usize, f32)>;

    /// Distinct positions below the edges, in no order.
    fn sparse(stream: &mut Stream, rows: usize, cols: usize, count: usize) -> Coefficients {
        let mut positions: Vec<usize> = (0..rows * cols).collect();
        stream.shuffle(&mut positions);
        let coefficient = |at: usize| (at / cols, at % cols, f32::from_f64(2.0 * stream.unit() - 1.0));
        positions.into_iter().take(count).map(coefficient).collect()
    }

    fn expand(inverse: &mut SparseInverse, rows: &Vectors, cols: &Vectors, coefficients: &Coefficients) -> Vec<f32> {
        let mut out = vec![f32::NAN; rows.size() * cols.size()];
        let (coefficients, stride) = (coefficients.iter().copied(), cols.size());
        pulp::Arch::new().dispatch(Expand { inverse, rows, cols, coefficients, ground: None, out: &mut out, stride });
        out
    }

    /// [`expand`] with registers of some width and no history.
    fn expand_with<V: Simd>(simd: V, rows: &Vectors, cols: &Vectors, coefficients: &Coefficients) -> Vec<f32> {
        let mut out = vec![f32::NAN; rows.size() * cols.size()];
        let (inverse, coefficients, stride) =
            (&mut SparseInverse::default(), coefficients.iter().copied(), cols.size());
        Expand { inverse, rows, cols, coefficients, ground: None, out: &mut out, stride }.with_simd(simd);
        out
    }

    /// Vectors that vanish but for a stretch of their own, without symmetry.
    fn stretches(stream: &mut Stream, size: usize) -> Vec<f64> {
        let mut vectors = vec![0.0; size * size];
        for vector in vectors.chunks_exact_mut(size) {
            let (first, last) = (stream.index(size), stream.index(size));
            let scale = 1.0 / (size as f64).sqrt();
            vector[first..=last.max(first)].iter_mut().for_each(|value| *value = scale * (stream.unit() - 0.5));
        }
        vectors
    }

    /// `rustdct`'s inverse of the whole spectrum, row by row and column by column.
    fn by_rustdct(rows: usize, cols: usize, coefficients: &Coefficients) -> Vec<f64> {
        let mut planner = DctPlanner::new();
        let (of_rows, of_cols) = (planner.plan_dct3(rows), planner.plan_dct3(cols));
        // DCT-III halves its first coefficient.
        let factor = |size: usize, n: usize| alpha(size, n) * if n == 0 { 2.0 } else { 1.0 };
        let mut values = vec![0.0; rows * cols];
        for &(u, v, c) in coefficients {
            values[u * cols + v] = f64::from(c) * factor(rows, u) * factor(cols, v);
        }
        values.chunks_exact_mut(cols).for_each(|row| of_cols.process_dct3(row));
        for j in 0..cols {
            let mut column: Vec<f64> = values.iter().skip(j).step_by(cols).copied().collect();
            of_rows.process_dct3(&mut column);
            values.iter_mut().skip(j).step_by(cols).zip(column).for_each(|(value, c)| *value = c);
        }
        values
    }

    fn by_definition(rows: (usize, &[f64]), cols: (usize, &[f64]), coefficients: &Coefficients) -> Vec<f64> {
        let at = |i: usize, j: usize| {
            let product =
                |&(u, v, c): &(usize, usize, f32)| f64::from(c) * rows.1[u * rows.0 + i] * cols.1[v * cols.0 + j];
            coefficients.iter().map(product).sum()
        };
        (0..rows.0 * cols.0).map(|n| at(n / cols.0, n % cols.0)).collect()
    }

    /// The Frobenius norm of the difference, relative to that of the coefficients.
    fn apart(found: &[f32], exact: &[f64], coefficients: &Coefficients) -> f64 {
        let norm = |squares: f64| squares.sqrt();
        let difference = norm(found.iter().zip(exact).map(|(&a, b)| (f64::from(a) - b).powi(2)).sum());
        let scale = norm(coefficients.iter().map(|&(.., c)| f64::from(c).powi(2)).sum());
        if scale == 0.0 { difference } else { difference / scale }
    }

    #[test]
    fn the_usual_shapes_are_rustdcts_inverse() {
        let mut inverse = SparseInverse::default();
        let shapes = [(64, 64, 48), (28, 28, 96), (128, 128, 50), (1, 1, 1), (1, 300, 9), (511, 2, 40), (15, 17, 255)];
        for (rows, cols, count) in shapes {
            let coefficients = sparse(&mut Seed::from_number(5).stream(), rows, cols, count);
            let (of_rows, of_cols) = (Vectors::cosines_and_sines(rows), Vectors::cosines_and_sines(cols));
            let found = expand(&mut inverse, &of_rows, &of_cols, &coefficients);
            let error = apart(&found, &by_rustdct(rows, cols, &coefficients), &coefficients);
            assert!(error < 1e-6, "{rows}×{cols}: {error:e}");
        }
    }

    #[test]
    fn a_matrix_within_another_leaves_the_rest_alone() {
        let (rows, cols, stride) = (Vectors::cosines_and_sines(21), Vectors::cosines_and_sines(43), 50);
        let mut out = vec![7.0; 20 * stride + 43];
        let coefficients = [(3, 4, 1.0)].into_iter();
        let (inverse, out_of) = (&mut SparseInverse::default(), &mut out);
        let (rows, cols) = (&rows, &cols);
        pulp::Arch::new().dispatch(Expand { inverse, rows, cols, coefficients, ground: None, out: out_of, stride });
        for (at, value) in out.into_iter().enumerate() {
            assert_eq!(value == 7.0, at % stride >= 43, "value {at} is {value}");
        }
    }

    #[test]
    fn nothing_is_the_ground_alone() {
        let (rows, cols) = (&Vectors::whole(9, &[0.0; 9]), &Vectors::mirrored(5, &[1.0; 5], vec![false]));
        let table: Vec<f32> = (0..16 * cols.stride()).map(|n| n as f32).collect();
        let (ground, mut out) = (Some((2.0, &table[..])), vec![f32::NAN; 45]);
        let (inverse, coefficients) = (&mut SparseInverse::default(), [(0, 0, 0.0)].into_iter());
        pulp::Arch::new().dispatch(Expand { inverse, rows, cols, coefficients, ground, out: &mut out, stride: 5 });
        for (n, row) in out.chunks_exact(5).enumerate() {
            let first = 2.0 * (n * cols.stride()) as f32;
            assert_eq!(row, [0.0, 2.0, 4.0, 2.0, 0.0].map(|more| first + more));
        }
    }

    proptest! {
        #[test]
        fn any_spectrum_is_rustdcts_inverse(rows in 1..90usize, cols in 1..90usize, count in 0..90usize, seed: u64) {
            let coefficients = sparse(&mut Seed::from_number(seed).stream(), rows, cols, count);
            let (of_rows, of_cols) = (Vectors::cosines_and_sines(rows), Vectors::cosines_and_sines(cols));
            let found = expand(&mut SparseInverse::default(), &of_rows, &of_cols, &coefficients);
            prop_assert!(apart(&found, &by_rustdct(rows, cols, &coefficients), &coefficients) < 1e-6);
        }

        #[test]
        fn sines_are_their_definition(rows in 1..50usize, cols in 1..50usize, count in 0..60usize, seed: u64) {
            let coefficients = sparse(&mut Seed::from_number(seed).stream(), 2 * rows, 2 * cols, count);
            let (of_rows, of_cols) = (Vectors::cosines_and_sines(rows), Vectors::cosines_and_sines(cols));
            let found = expand(&mut SparseInverse::default(), &of_rows, &of_cols, &coefficients);
            let stacked = |size: usize| [dct_matrix(size), dst_matrix(size)].concat();
            let exact = by_definition((rows, &stacked(rows)), (cols, &stacked(cols)), &coefficients);
            prop_assert!(apart(&found, &exact, &coefficients) < 1e-6);
        }

        #[test]
        fn vectors_without_symmetry_are_their_definition(
            rows in 1..70usize, cols in 1..70usize, count in 0..60usize, seed: u64,
        ) {
            let mut stream = Seed::from_number(seed).stream();
            let (of_rows, of_cols) = (stretches(&mut stream, rows), stretches(&mut stream, cols));
            let coefficients = sparse(&mut stream, rows, cols, count);
            let (whole_rows, whole_cols) = (Vectors::whole(rows, &of_rows), Vectors::whole(cols, &of_cols));
            let found = expand(&mut SparseInverse::default(), &whole_rows, &whole_cols, &coefficients);
            let exact = by_definition((rows, &of_rows), (cols, &of_cols), &coefficients);
            prop_assert!(apart(&found, &exact, &coefficients) < 1e-6);
        }

        #[test]
        fn neither_the_width_of_a_register_nor_history_changes_a_bit(
            rows in 1..90usize, cols in 1..90usize, count in 0..60usize, seed: u64,
        ) {
            let mut stream = Seed::from_number(seed).stream();
            let (before, coefficients) = (sparse(&mut stream, cols, rows, 70), sparse(&mut stream, 2 * rows, 2 * cols, count));
            let (rows, cols) = (&Vectors::cosines_and_sines(rows), &Vectors::cosines_and_sines(cols));
            let mut used = SparseInverse::default();
            expand(&mut used, cols, rows, &before);
            let native = expand(&mut used, rows, cols, &coefficients);
            prop_assert_eq!(&expand_with(pulp::Scalar, rows, cols, &coefficients), &native);
            prop_assert_eq!(&expand_with(pulp::Scalar128b, rows, cols, &coefficients), &native);
            prop_assert_eq!(&expand_with(pulp::Scalar256b, rows, cols, &coefficients), &native);
            prop_assert_eq!(&expand_with(pulp::Scalar512b, rows, cols, &coefficients), &native);
        }
    }
}
