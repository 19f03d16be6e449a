//! Bytes to values, fast: the transform by its sparsity.
//!
//! A row `u` of the spectrum that holds coefficients is one product of two vectors, `T_u(i)·r_u(j)` with
//! `r_u(j) = Σ c·T_v(j)`; all smooth functions but `d` are such products as well (`1`, `cos πy`, `cos 2πy` and `y²` by
//! rows), and `d` is a table. Their sum is one matrix product, done in tiles that stay in registers. A DCT row is
//! mirrored, `T_u(rows−1−i) = (−1)^u·T_u(i)`, so the even and the odd products of the upper half give the lower one.
//!
//! Every sum has one order, so the values do not depend on the instruction set. It chooses nothing.

use pulp::{Simd, WithSimd};

use super::HybridSpec;
use super::error::HybridError;
use super::format::HybridBlock;
use super::smooth::{centres, smooth_at};
use super::transform::Transform;
use crate::scalar::Scalar;

/// Rows of a tile and registers of each: eight sums, enough to hide an addition's latency and few enough for AVX2.
const TILE_ROWS: usize = 4;
const TILE_REGISTERS: usize = 2;
/// Columns are padded to this, whole tiles of every register width up to 512 bits.
const STRIDE: usize = 32;
/// Products that the smooth functions take.
const SMOOTH_TERMS: usize = 4;

/// Decodes blocks of one shape, transform and format without allocating for each.
#[derive(Clone, Debug)]
pub struct HybridDecoder {
    tables: Tables,
    terms: Terms,
    /// Room for what is parsed.
    block: HybridBlock,
}

/// What depends on the shape and transform alone.
#[derive(Clone, Debug)]
struct Tables {
    spec: HybridSpec,
    /// Whether the lower half follows from the upper.
    mirrored: bool,
    /// Rows that are computed, and that number padded to whole tiles.
    upper: usize,
    height: usize,
    /// Columns padded to whole tiles.
    stride: usize,
    /// Basis vectors, then `1, cos πy, cos 2πy, y²`, over the computed rows: (rows + 4)×height.
    by_row: Vec<f32>,
    /// Basis vectors, then `1, cos πx, cos 2πx, x²`: (cols + 4)×stride.
    by_col: Vec<f32>,
    /// `d`, height×stride.
    radius: Vec<f32>,
}

/// A product of vector `row` of [`Tables::by_row`] and vector `vector` of [`Terms::vectors`].
#[derive(Clone, Copy, Debug)]
struct Term {
    row: usize,
    vector: usize,
}

/// The products of one block.
#[derive(Clone, Debug)]
struct Terms {
    vectors: Vec<f32>,
    even: Vec<Term>,
    odd: Vec<Term>,
}

impl HybridDecoder {
    /// A decoder; its tables take about three times the memory of a block in `f32`.
    #[must_use]
    pub fn new(spec: HybridSpec) -> Self {
        let tables = Tables::new(spec);
        let vectors = spec.rows + SMOOTH_TERMS;
        let terms = Terms {
            vectors: vec![0.0; vectors * tables.stride],
            even: Vec::with_capacity(vectors),
            odd: Vec::with_capacity(vectors),
        };
        Self { tables, terms, block: HybridBlock::empty(spec) }
    }

    /// Shape, transform and format.
    #[must_use]
    pub const fn spec(&self) -> &HybridSpec {
        &self.tables.spec
    }

    /// Decodes one whole block to rows×cols values.
    ///
    /// # Errors
    /// If `out` is not of this shape or the bytes are not one whole block; `out` is then as it was. Allocates only
    /// where a block has more coefficients than any before it, and for the words of the range-coded form.
    pub fn decode_into(&mut self, bytes: &[u8], out: &mut [f32]) -> Result<(), HybridError> {
        let end = self.parse(bytes, 0, out.len())?;
        if end < bytes.len() {
            return Err(HybridError::LeftOver { offset: end, bytes: bytes.len() });
        }
        self.expand(out);
        Ok(())
    }

    /// Decodes the block that begins at byte `offset`; the offset of its end.
    pub(super) fn decode_next(&mut self, bytes: &[u8], offset: usize, out: &mut [f32]) -> Result<usize, HybridError> {
        let end = self.parse(bytes, offset, out.len())?;
        self.expand(out);
        Ok(end)
    }

    /// Expands a block of the same shape and transform, in whatever format.
    ///
    /// # Errors
    /// If the block or `out` is of another shape or transform.
    pub fn decode_block(&mut self, block: &HybridBlock, out: &mut [f32]) -> Result<(), HybridError> {
        let HybridSpec { rows, cols, transform, .. } = self.tables.spec;
        let of = block.spec;
        if (of.rows, of.cols, of.transform) != (rows, cols, transform) || out.len() != rows * cols {
            return Err(HybridError::Length { values: out.len(), rows: of.rows, cols: of.cols });
        }
        let Self { tables, terms, .. } = self;
        pulp::Arch::new().dispatch(Expand { tables, terms, block, out });
        Ok(())
    }

    fn parse(&mut self, bytes: &[u8], offset: usize, room: usize) -> Result<usize, HybridError> {
        let HybridSpec { rows, cols, .. } = self.tables.spec;
        if room != rows * cols {
            return Err(HybridError::Length { values: room, rows, cols });
        }
        self.block.read(bytes, offset)
    }

    fn expand(&mut self, out: &mut [f32]) {
        let Self { tables, terms, block } = self;
        pulp::Arch::new().dispatch(Expand { tables, terms, block, out });
    }
}

impl Tables {
    fn new(spec: HybridSpec) -> Self {
        let HybridSpec { rows, cols, transform, .. } = spec;
        let mirrored = transform == Transform::Dct;
        let upper = if mirrored { rows.div_ceil(2) } else { rows };
        let (height, stride) = (upper.next_multiple_of(TILE_ROWS), cols.next_multiple_of(STRIDE));
        let mut radius = vec![0.0; height * stride];
        for (row, y) in radius.chunks_exact_mut(stride).zip(centres(rows).take(upper)) {
            for (radius, x) in row.iter_mut().zip(centres(cols)) {
                let [_, d, ..] = smooth_at(x, y);
                *radius = f32::from_f64(d);
            }
        }
        let (by_row, by_col) = (axis(transform, rows, upper, height), axis(transform, cols, cols, stride));
        Self { spec, mirrored, upper, height, stride, by_row, by_col, radius }
    }

    fn column(&self, index: usize) -> &[f32] {
        &self.by_col[index * self.stride..][..self.stride]
    }
}

/// The basis vectors of an edge and the four smooth ones, the first `used` entries of each, padded with zeros.
fn axis(transform: Transform, size: usize, used: usize, padded: usize) -> Vec<f32> {
    let matrix = transform.matrix(size);
    let mut table = vec![0.0; (size + SMOOTH_TERMS) * padded];
    let rows = table.chunks_exact_mut(padded);
    let smooth = centres(size).map(|t| {
        let [one, _, square, cos, _, cos_2, ..] = smooth_at(t, 0.0);
        [one, cos, cos_2, square]
    });
    let smooth: Vec<[f64; SMOOTH_TERMS]> = smooth.collect();
    for (u, row) in rows.enumerate() {
        for (j, value) in row[..used].iter_mut().enumerate() {
            *value = f32::from_f64(if u < size { matrix[u * size + j] } else { smooth[j][u - size] });
        }
    }
    table
}

/// One block's expansion, to be compiled once for every instruction set.
struct Expand<'a> {
    tables: &'a Tables,
    terms: &'a mut Terms,
    block: &'a HybridBlock,
    out: &'a mut [f32],
}

impl WithSimd for Expand<'_> {
    type Output = ();

    #[inline(always)]
    fn with_simd<V: Simd>(self, simd: V) {
        let Self { tables, terms, block, out } = self;
        terms.even.clear();
        terms.odd.clear();
        terms.add_smooth(tables, block);
        terms.add_coefficients(tables, block);
        let [_, radius, ..] = block.weights;
        let product = Product { simd, tables, vectors: V::as_simd_f32s(&terms.vectors).0 };
        for i in (0..tables.height).step_by(TILE_ROWS) {
            for j in (0..tables.stride).step_by(TILE_REGISTERS * V::F32_LANES) {
                let even = product.add(product.radius(radius, (i, j)), &terms.even, (i, j));
                let odd = product.add(product.zero(), &terms.odd, (i, j));
                product.write(&even, &odd, (i, j), out);
            }
        }
    }
}

impl Terms {
    /// `(w_1 + w_{cos πx}·cos πx + w_{cos 2πx}·cos 2πx + w_{d²}·x²)·1`, `(w_{cos πy} + w_{cos πx·cos πy}·cos πx)·cos πy`,
    /// `w_{cos 2πy}·cos 2πy` and `w_{d²}·y²`, in the order of the tables.
    #[inline(always)]
    fn add_smooth(&mut self, tables: &Tables, block: &HybridBlock) {
        let HybridSpec { rows, cols, .. } = tables.spec;
        let [one, _, square, cos_x, cos_y, cos_2x, cos_2y, cos_xy] = block.weights;
        let factors =
            [[one, cos_x, cos_2x, square], [cos_y, cos_xy, 0.0, 0.0], [cos_2y, 0.0, 0.0, 0.0], [square, 0.0, 0.0, 0.0]];
        let mut vectors = self.vectors.chunks_exact_mut(tables.stride);
        for (k, factors) in factors.into_iter().enumerate() {
            let vector = vectors.next().expect("room for every term");
            vector.fill(0.0);
            for (n, &factor) in factors.iter().enumerate().filter(|(_, factor)| **factor != 0.0) {
                add_scaled(vector, factor, tables.column(cols + n));
            }
            self.even.push(Term { row: (rows + k) * tables.height, vector: k * tables.stride });
        }
    }

    /// One product for every row of the spectrum that holds coefficients.
    #[inline(always)]
    fn add_coefficients(&mut self, tables: &Tables, block: &HybridBlock) {
        let format = block.spec.format;
        let mut last = None;
        let mut end = SMOOTH_TERMS * tables.stride;
        for entry in &block.entries {
            let row = usize::from(entry.row);
            if last != Some(row) {
                let list = if tables.mirrored && row % 2 == 1 { &mut self.odd } else { &mut self.even };
                list.push(Term { row: row * tables.height, vector: end });
                self.vectors[end..end + tables.stride].fill(0.0);
                end += tables.stride;
                last = Some(row);
            }
            let vector = &mut self.vectors[end - tables.stride..end];
            add_scaled(vector, format.value(entry.code, block.scale), tables.column(entry.col.into()));
        }
    }
}

#[inline(always)]
fn add_scaled(vector: &mut [f32], factor: f32, other: &[f32]) {
    for (v, o) in vector.iter_mut().zip(other) {
        *v += factor * o;
    }
}

type Tile<V> = [[<V as Simd>::f32s; TILE_REGISTERS]; TILE_ROWS];

/// The matrix product of a block's terms on one instruction set. Its registers are named, for the compiler would
/// rather vectorise over the rows of a tile. Multiplication and addition stay apart: a fused one rounds otherwise, and
/// not every machine has it.
struct Product<'a, V: Simd> {
    simd: V,
    tables: &'a Tables,
    vectors: &'a [V::f32s],
}

impl<V: Simd> Product<'_, V> {
    #[inline(always)]
    fn zero(&self) -> Tile<V> {
        [[self.simd.splat_f32s(0.0); TILE_REGISTERS]; TILE_ROWS]
    }

    /// `weight·d` on the tile at (i, j).
    #[inline(always)]
    fn radius(&self, weight: f32, (i, j): (usize, usize)) -> Tile<V> {
        let (simd, weight) = (self.simd, self.simd.splat_f32s(weight));
        let table = V::as_simd_f32s(&self.tables.radius).0;
        let mut sums = self.zero();
        for (n, sums) in sums.iter_mut().enumerate() {
            let d = registers(table, ((i + n) * self.tables.stride + j) / V::F32_LANES);
            for (sum, &d) in sums.iter_mut().zip(d) {
                *sum = simd.mul_f32s(weight, d);
            }
        }
        sums
    }

    /// Adds the products of `terms` to the tile at (i, j).
    #[inline(always)]
    fn add(&self, mut sums: Tile<V>, terms: &[Term], (i, j): (usize, usize)) -> Tile<V> {
        let simd = self.simd;
        for term in terms {
            let factors: &[f32; TILE_ROWS] = self.tables.by_row[term.row + i..].first_chunk().expect(PADDED);
            let vector = registers(self.vectors, (term.vector + j) / V::F32_LANES);
            for (sums, &factor) in sums.iter_mut().zip(factors) {
                let factor = simd.splat_f32s(factor);
                for (sum, &v) in sums.iter_mut().zip(vector) {
                    *sum = simd.add_f32s(*sum, simd.mul_f32s(factor, v));
                }
            }
        }
        sums
    }

    /// Writes what of the tile at (i, j), and of its mirror image, lies in the block.
    #[inline(always)]
    fn write(&self, even: &Tile<V>, odd: &Tile<V>, (i, j): (usize, usize), out: &mut [f32]) {
        let HybridSpec { rows, cols, .. } = self.tables.spec;
        for (n, (even, odd)) in even.iter().zip(odd).enumerate().take(self.tables.upper - i) {
            for (r, (&even, &odd)) in even.iter().zip(odd).enumerate() {
                let start = (j + r * V::F32_LANES).min(cols);
                let end = (start + V::F32_LANES).min(cols);
                let at = |row: usize| row * cols + start..row * cols + end;
                self.simd.partial_store_f32s(&mut out[at(i + n)], self.simd.add_f32s(even, odd));
                if self.tables.mirrored {
                    // The middle row of an odd number is its own image, where odd vectors are 0.
                    self.simd.partial_store_f32s(&mut out[at(rows - 1 - i - n)], self.simd.sub_f32s(even, odd));
                }
            }
        }
    }
}

const PADDED: &str = "tables are padded to whole tiles";

#[inline(always)]
fn registers<T>(table: &[T], at: usize) -> &[T; TILE_REGISTERS] {
    table[at..].first_chunk().expect(PADDED)
}
