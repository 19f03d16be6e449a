//! Scaled dot-product attention as one op on queries, keys and values, with its gradients.
//!
//! All three are tokens × (heads·d) as the projections leave them, so nothing is transposed; a group of query heads may
//! share a key head. Sequences lie end to end and see only themselves, causally or whole. A head goes tile by tile of
//! its queries, and a causal tile takes only the keys that it sees:
//!
//! ```text
//!  S = Q·Kᵀ,  P = softmax(S/√d),  O = P·V        backward, from G = ∂O:
//!  dP = G·Vᵀ,  dS = P∘(dP − rowsum(P∘dP))/√d,  dQ = dS·K,  dK += dSᵀ·Q,  dV += Pᵀ·G
//! ```
//!
//! Nothing is kept from the forward pass. The backward computes P again (as FlashAttention does; Dao et al., 2022): a tile stays
//! in the cache, while tokens × keys × heads probabilities of every layer would not, and cost as long to write and read.

use std::sync::Arc;

use candle_core::{CpuStorage, CustomOp3, Layout, Result, Shape, Tensor, bail};
use packfed_codec::Scalar;

use crate::adapted::{Element, contiguous};
use crate::nn::parallel;
use crate::nn::sequences::Sequences;
use crate::nn::softmax::{Sight, Softmax, SoftmaxGradient};
use crate::nn::values::{rows_of, values};
use crate::product::{Before, Matrix, MatrixMut, product};

/// Queries of a tile.
const TILE: usize = 64;

/// What a token sees of its sequence.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mask {
    /// All of it.
    Whole,
    /// Itself and what is before it. Where there are more keys than queries, the queries are the last.
    Causal,
}

/// Heads of an attention.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Heads {
    /// Query heads.
    pub queries: usize,
    /// Key and value heads; consecutive query heads share one.
    pub keys: usize,
    /// Features of a head, `d`.
    pub features: usize,
}

/// Attention over the sequences of one batch.
#[derive(Clone, Debug)]
pub struct Attention {
    parts: Arc<Parts>,
}

#[derive(Debug)]
struct Parts {
    heads: Heads,
    mask: Mask,
    queries: Sequences,
    keys: Sequences,
}

impl Attention {
    /// Attention of every sequence's queries to its keys.
    ///
    /// # Errors
    /// If the heads cannot be grouped, or a sequence has queries but no keys, or has more queries than keys under a
    /// causal mask.
    pub fn new(heads: Heads, mask: Mask, queries: Sequences, keys: Sequences) -> Result<Self> {
        if heads.keys == 0 || heads.features == 0 || !heads.queries.is_multiple_of(heads.keys) {
            bail!("attention: {} query heads over {} key heads of {}", heads.queries, heads.keys, heads.features);
        }
        if queries.len() != keys.len() {
            bail!("attention: {} sequences of queries, {} of keys", queries.len(), keys.len());
        }
        for (n, (queries, keys)) in queries.iter().zip(keys.iter()).enumerate() {
            let few = if mask == Mask::Causal { keys.len() < queries.len() } else { keys.is_empty() };
            if few && !queries.is_empty() {
                bail!("attention: sequence {n} has {} queries and {} keys", queries.len(), keys.len());
            }
        }
        Ok(Self { parts: Arc::new(Parts { heads, mask, queries, keys }) })
    }

    /// Attention's output, tokens × (query heads·d), for `q` of that shape and `k`, `v` of tokens × (key heads·d).
    ///
    /// # Errors
    /// If a shape does not fit, naming both.
    pub fn forward<E: Element>(&self, q: &Tensor, k: &Tensor, v: &Tensor) -> Result<Tensor> {
        let Parts { heads, queries, keys, .. } = &*self.parts;
        let expected = [queries.tokens(), keys.tokens(), keys.tokens()];
        for ((x, heads_of), expected) in
            [(q, heads.queries), (k, heads.keys), (v, heads.keys)].into_iter().zip(expected)
        {
            let found = rows_of("attention", x, heads_of * heads.features)?;
            if found != expected {
                bail!("attention: {found} tokens, the sequences have {expected}");
            }
        }
        let op = Op::<E>(self.clone(), std::marker::PhantomData);
        q.contiguous()?.apply_op3(&k.contiguous()?, &v.contiguous()?, op)
    }

    /// The values of [`Attention::forward`].
    pub(crate) fn output<E: Element>(&self, q: &[E], k: &[E], v: &[E]) -> Vec<E> {
        let parts = &*self.parts;
        let mut out = vec![<E as Scalar>::ZERO; q.len()];
        let place = |n: usize, part: Vec<E>| parts.unit(n).queries.place(&part, &mut out);
        parallel::ordered(parts.units(), |n| parts.unit(n).forward(q, k, v), place);
        out
    }
}

impl Parts {
    /// Pairs of a sequence and a key head: what is computed by itself.
    fn units(&self) -> usize {
        self.queries.len() * self.heads.keys
    }

    fn unit(&self, n: usize) -> Unit {
        let Heads { queries, keys, features } = self.heads;
        let (sequence, head) = (n / keys, n % keys);
        let group = queries / keys;
        let columns = |range: std::ops::Range<usize>, heads: usize, group: usize| {
            let stride = heads * features;
            Columns {
                first: range.start * stride + head * group * features,
                rows: range.len(),
                cols: group * features,
                stride,
            }
        };
        Unit {
            queries: columns(self.queries.range(sequence), queries, group),
            keys: columns(self.keys.range(sequence), keys, 1),
            features,
            mask: self.mask,
        }
    }
}

/// Some columns of some rows of a row-major matrix.
#[derive(Clone, Copy)]
struct Columns {
    first: usize,
    rows: usize,
    cols: usize,
    stride: usize,
}

impl Columns {
    /// The matrix of `rows` rows from `row` on and `cols` columns from `col` on.
    fn view<E: Element>(self, values: &[E], (row, rows): (usize, usize), (col, cols): (usize, usize)) -> Matrix<'_, E> {
        let first = (self.first + row * self.stride + col).min(values.len());
        Matrix::strided(&values[first..], rows, cols, self.stride)
    }

    /// Copies a part that was computed by itself to its place.
    fn place<E: Element>(self, part: &[E], out: &mut [E]) {
        for (n, row) in part.chunks_exact(self.cols).enumerate() {
            out[self.first + n * self.stride..][..self.cols].copy_from_slice(row);
        }
    }
}

/// One sequence's query heads of one key head.
struct Unit {
    queries: Columns,
    keys: Columns,
    features: usize,
    mask: Mask,
}

/// The queries of a tile, one head of them, and the keys that they see.
#[derive(Clone, Copy)]
struct Tile {
    rows: (usize, usize),
    cols: (usize, usize),
    keys: (usize, usize),
    sight: Sight,
}

impl Unit {
    fn tiles(&self) -> impl Iterator<Item = Tile> + '_ {
        let starts = (0..self.queries.rows).step_by(TILE);
        starts.flat_map(move |row| (0..self.queries.cols).step_by(self.features).map(move |col| self.tile(row, col)))
    }

    fn tile(&self, row: usize, col: usize) -> Tile {
        let rows = TILE.min(self.queries.rows - row);
        let (first, step, keys) = match self.mask {
            Mask::Whole => (self.keys.rows, 0, self.keys.rows),
            Mask::Causal => {
                let first = self.keys.rows - self.queries.rows + row + 1;
                (first, 1, first + rows - 1)
            }
        };
        let sight = Sight { first, step, pitch: Sight::pitch(keys) };
        Tile { rows: (row, rows), cols: (col, self.features), keys: (0, keys), sight }
    }

    fn scale<E: Element>(&self) -> E {
        E::one() / <E as Scalar>::from_f64(self.features as f64).sqrt()
    }

    /// A buffer for the largest tile.
    fn buffer<E: Element>(&self) -> Vec<E> {
        vec![<E as Scalar>::ZERO; TILE.min(self.queries.rows) * Sight::pitch(self.keys.rows)]
    }

    /// P of a tile.
    fn probabilities<'a, E: Element>(&self, tile: Tile, q: &[E], k: &[E], buffer: &'a mut [E]) -> &'a mut [E] {
        let p = &mut buffer[..tile.rows.1 * tile.sight.pitch];
        let (q, k) = (self.queries.view(q, tile.rows, tile.cols), self.keys.view(k, tile.keys, (0, self.features)));
        product(MatrixMut::strided(p, tile.rows.1, tile.keys.1, tile.sight.pitch), Before::Overwritten, q, k.t(), 1);
        pulp::Arch::new().dispatch(Softmax { tile: p, sight: tile.sight, scale: self.scale() });
        p
    }

    fn forward<E: Element>(&self, q: &[E], k: &[E], v: &[E]) -> Vec<E> {
        let (width, mut buffer) = (self.queries.cols, self.buffer());
        let mut out = vec![<E as Scalar>::ZERO; self.queries.rows * width];
        for tile in self.tiles() {
            let p = &*self.probabilities(tile, q, k, &mut buffer);
            let p = Matrix::strided(p, tile.rows.1, tile.keys.1, tile.sight.pitch);
            let out =
                MatrixMut::strided(&mut out[tile.rows.0 * width + tile.cols.0..], tile.rows.1, self.features, width);
            product(out, Before::Overwritten, p, self.keys.view(v, tile.keys, (0, self.features)), 1);
        }
        out
    }

    fn backward<E: Element>(&self, q: &[E], k: &[E], v: &[E], g: &[E]) -> [Vec<E>; 3] {
        let (width, d) = (self.queries.cols, self.features);
        let zeros = |rows, cols| vec![<E as Scalar>::ZERO; rows * cols];
        let (mut dq, mut dk, mut dv) =
            (zeros(self.queries.rows, width), zeros(self.keys.rows, d), zeros(self.keys.rows, d));
        let (mut scores, mut gradients) = (self.buffer(), self.buffer());
        for tile in self.tiles() {
            let (rows, keys, pitch) = (tile.rows.1, tile.keys.1, tile.sight.pitch);
            let p = &*self.probabilities(tile, q, k, &mut scores);
            let ds = &mut gradients[..rows * pitch];
            let (q, g) = (self.queries.view(q, tile.rows, tile.cols), self.queries.view(g, tile.rows, tile.cols));
            let (k, v) = (self.keys.view(k, tile.keys, (0, d)), self.keys.view(v, tile.keys, (0, d)));
            product(MatrixMut::strided(ds, rows, keys, pitch), Before::Overwritten, g, v.t(), 1);
            let scale = self.scale();
            pulp::Arch::new().dispatch(SoftmaxGradient { probabilities: p, tile: ds, pitch, scale });
            let (p, ds) = (Matrix::strided(p, rows, keys, pitch), Matrix::strided(ds, rows, keys, pitch));
            let dq = MatrixMut::strided(&mut dq[tile.rows.0 * width + tile.cols.0..], rows, d, width);
            product(dq, Before::Overwritten, ds, k, 1);
            product(MatrixMut::strided(&mut dk, keys, d, d), Before::Kept, ds.t(), q, 1);
            product(MatrixMut::strided(&mut dv, keys, d, d), Before::Kept, p.t(), g, 1);
        }
        [dq, dk, dv]
    }
}

struct Op<E>(Attention, std::marker::PhantomData<E>);

impl<E: Element> CustomOp3 for Op<E> {
    fn name(&self) -> &'static str {
        "attention"
    }

    fn cpu_fwd(
        &self,
        q: &CpuStorage,
        lq: &Layout,
        k: &CpuStorage,
        lk: &Layout,
        v: &CpuStorage,
        lv: &Layout,
    ) -> Result<(CpuStorage, Shape)> {
        let out = self.0.output(contiguous::<E>(q, lq)?, contiguous(k, lk)?, contiguous(v, lv)?);
        Ok((E::to_cpu_storage_owned(out), lq.shape().clone()))
    }

    fn bwd(
        &self,
        q: &Tensor,
        k: &Tensor,
        v: &Tensor,
        _: &Tensor,
        grad: &Tensor,
    ) -> Result<(Option<Tensor>, Option<Tensor>, Option<Tensor>)> {
        let parts = &*self.0.parts;
        let grad = grad.contiguous()?;
        let slices = (values::<E>(q)?, values::<E>(k)?, values::<E>(v)?, values::<E>(&grad)?);
        let (qs, ks, vs, g) = (&*slices.0, &*slices.1, &*slices.2, &*slices.3);
        let [mut dq, mut dk, mut dv] = [qs, ks, vs].map(|like| vec![<E as Scalar>::ZERO; like.len()]);
        parallel::ordered(
            parts.units(),
            |n| parts.unit(n).backward(qs, ks, vs, g),
            |n, [q, k, v]| {
                let unit = parts.unit(n);
                unit.queries.place(&q, &mut dq);
                unit.keys.place(&k, &mut dk);
                unit.keys.place(&v, &mut dv);
            },
        );
        let tensor = |values, like: &Tensor| Tensor::from_vec(values, like.shape(), like.device()).map(Some);
        Ok((tensor(dq, q)?, tensor(dk, k)?, tensor(dv, v)?))
    }
}

#[cfg(test)]
mod tests {
    use candle_core::D;

    use super::*;
    use crate::nn::check::{Run, agree, differences, flat, random, threads_do_not_show};

    const HEADS: Heads = Heads { queries: 4, keys: 2, features: 5 };

    /// The same from Candle's own ops, sequence by sequence and head by head.
    fn composed(attention: &Attention, q: &Tensor, k: &Tensor, v: &Tensor) -> Tensor {
        let Parts { heads, mask, queries, keys } = &*attention.parts;
        let mut sequences = Vec::new();
        for (queries, keys) in queries.iter().zip(keys.iter()).filter(|(queries, _)| !queries.is_empty()) {
            let mut outputs = Vec::new();
            for head in 0..heads.queries {
                let d = heads.features;
                let shared = head / (heads.queries / heads.keys) * d;
                let cut = |x: &Tensor, rows: &std::ops::Range<usize>, col| {
                    x.narrow(0, rows.start, rows.len()).unwrap().narrow(1, col, d).unwrap()
                };
                let (q, k, v) = (cut(q, &queries, head * d), cut(k, &keys, shared), cut(v, &keys, shared));
                let scores = (q.matmul(&k.t().unwrap()).unwrap() / (d as f64).sqrt()).unwrap();
                let before = keys.len() - queries.len().min(keys.len());
                let hidden: Vec<f64> = (0..queries.len() * keys.len())
                    .map(|n| {
                        let seen = *mask == Mask::Whole || n % keys.len() <= before + n / keys.len();
                        if seen { 0.0 } else { f64::NEG_INFINITY }
                    })
                    .collect();
                let hidden = Tensor::from_vec(hidden, (queries.len(), keys.len()), q.device()).unwrap();
                let scores = (scores + hidden).unwrap();
                let weights = scores.broadcast_sub(&scores.max_keepdim(D::Minus1).unwrap()).unwrap().exp().unwrap();
                let weights = weights.broadcast_div(&weights.sum_keepdim(D::Minus1).unwrap()).unwrap();
                outputs.push(weights.matmul(&v.contiguous().unwrap()).unwrap());
            }
            sequences.push(Tensor::cat(&outputs, 1).unwrap());
        }
        Tensor::cat(&sequences, 0).unwrap()
    }

    fn inputs(queries: usize, keys: usize) -> [Tensor; 3] {
        let random = |seed, rows, heads| random::<f64>(seed, &[rows, heads * HEADS.features], 2.0);
        [random(1, queries, HEADS.queries), random(2, keys, HEADS.keys), random(3, keys, HEADS.keys)]
    }

    fn attention(mask: Mask, queries: &[usize], keys: &[usize]) -> Attention {
        Attention::new(HEADS, mask, Sequences::new(queries), Sequences::new(keys)).unwrap()
    }

    #[test]
    fn gradients_agree_with_differences() {
        for mask in [Mask::Whole, Mask::Causal] {
            let attention = attention(mask, &[3, 1, 4], &[3, 1, 4]);
            differences(&inputs(8, 8), &|x| attention.forward::<f64>(&x[0], &x[1], &x[2]).unwrap());
        }
    }

    #[test]
    fn it_agrees_with_composed_ops_over_several_tiles_and_longer_keys() {
        for (mask, queries, keys) in [
            (Mask::Whole, vec![70, 0, 17], vec![70, 0, 17]),
            (Mask::Causal, vec![3, 70], vec![3, 70]),
            (Mask::Causal, vec![2, 66], vec![9, 80]),
            (Mask::Whole, vec![2], vec![33]),
        ] {
            let attention = attention(mask, &queries, &keys);
            let x = inputs(queries.iter().sum(), keys.iter().sum());
            let ours: (Run<'_>, Run<'_>) = (&|x| attention.forward::<f32>(&x[0], &x[1], &x[2]).unwrap(), &|x| {
                attention.forward::<f64>(&x[0], &x[1], &x[2]).unwrap()
            });
            agree(&x, ours, &|x| composed(&attention, &x[0], &x[1], &x[2]));
        }
    }

    #[test]
    fn another_sequence_and_a_later_token_do_not_show() {
        let attention = attention(Mask::Causal, &[4, 3], &[4, 3]);
        let run = |k: &Tensor| {
            let x = inputs(7, 7);
            flat::<f64>(&attention.forward::<f64>(&x[0], k, &x[2]).unwrap())
        };
        let k = inputs(7, 7)[1].clone();
        let mut values = flat::<f64>(&k);
        values[2 * 10] += 1.0;
        let (before, after) = (run(&k), run(&Tensor::from_vec(values, k.dims(), k.device()).unwrap()));
        let changed: Vec<usize> = (0..7).filter(|row| before[row * 20..][..20] != after[row * 20..][..20]).collect();
        assert_eq!(changed, [2, 3]);
    }

    #[test]
    fn far_scores_leave_finite_weights() {
        let attention = attention(Mask::Whole, &[5], &[5]);
        let [q, k, v] = inputs(5, 5).map(|x| x.affine(1e4, 0.0).unwrap().to_dtype(candle_core::DType::F32).unwrap());
        assert!(flat::<f32>(&attention.forward::<f32>(&q, &k, &v).unwrap()).iter().all(|v| v.is_finite()));
    }

    #[test]
    fn it_is_the_same_on_any_threads() {
        let attention = attention(Mask::Causal, &[90, 30, 1], &[90, 30, 1]);
        let x = inputs(121, 121).map(|x| x.to_dtype(candle_core::DType::F32).unwrap());
        threads_do_not_show(&x, &|x| attention.forward::<f32>(&x[0], &x[1], &x[2]).unwrap());
    }

    #[test]
    fn what_does_not_fit_is_an_error() {
        let new = |heads, queries: &[usize], keys: &[usize]| {
            let made = Attention::new(heads, Mask::Causal, Sequences::new(queries), Sequences::new(keys));
            made.map(drop).map_err(|error| error.to_string())
        };
        assert!(new(Heads { queries: 3, ..HEADS }, &[1], &[1]).unwrap_err().contains("3 query heads over 2 key heads"));
        assert!(new(HEADS, &[3], &[2]).unwrap_err().contains("3 queries and 2 keys"));
        assert!(new(HEADS, &[3], &[2, 1]).unwrap_err().contains("1 sequences of queries, 2 of keys"));
        let [q, k, v] = inputs(4, 4);
        let error = attention(Mask::Whole, &[3], &[4]).forward::<f64>(&q, &k, &v).unwrap_err().to_string();
        assert!(error.contains("4 tokens, the sequences have 3"), "{error}");
    }
}
