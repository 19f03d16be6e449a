//! `AdaptedLinear`: a frozen linear layer plus Δ in packed form, as one Candle custom op.
//!
//! The base is a [`FrozenLinear`], whatever its file stores; Δ is added into the base product's buffer. Δ takes its
//! tokens in groups of `GROUP`, which threads share out and whose gradients are summed in their order.
//!
//! The tracked tensor is the round's own delta, one row a block and one column a lane of the window,
//! zero when the round begins; everything else is frozen. Backward forms the gradient of those lanes
//! and, only if something before it is tracked, of the input: never a dense weight gradient.

use std::sync::{Arc, OnceLock};

use candle_core::{CpuStorage, CustomOp2, Layout as TensorLayout, Result, Shape, Tensor, WithDType, bail};
use packfed_codec::{Coefficients, Direct, Layer, Scalar, Spectrum, Trained, Window};
use rayon::prelude::*;

use crate::nn::elementary::Elementary;
use crate::nn::frozen::FrozenLinear;
use crate::nn::values::{rows_of, values};

/// Tokens that Δ is applied to together: a multiple of codec's tile.
const GROUP: usize = 64;

/// A float that both Candle and the codec work in: `f32` or `f64`.
pub trait Element: Scalar + WithDType + Elementary {}
impl Element for f32 {}
impl Element for f64 {}

/// One frozen matrix with its adapter.
#[derive(Clone, Debug)]
pub struct AdaptedLinear<E> {
    frozen: Arc<Frozen<E>>,
}

#[derive(Clone, Debug)]
struct Frozen<E> {
    base: FrozenLinear<E>,
    below: Option<Fixed<E>>,
    direct: Arc<Direct<E>>,
    lanes: Vec<E>,
    /// For every slot of the window, the lane of the layer that it trains; `None` where a block has none.
    slots: Vec<Option<usize>>,
    blocks: usize,
    width: usize,
    trained: Trained<E>,
}

/// A Δ that is not trained.
#[derive(Clone, Debug)]
struct Fixed<E> {
    direct: Arc<Direct<E>>,
    coefficients: Coefficients<E>,
}

impl<E: Element> AdaptedLinear<E> {
    /// A layer over `base`, with `lanes` of the global model and the window that this round trains.
    ///
    /// # Panics
    /// If `base` or `lanes` is not the layer's.
    #[must_use]
    pub fn new(layer: &Layer, base: FrozenLinear<E>, direct: Arc<Direct<E>>, lanes: Vec<E>, window: Window) -> Self {
        let spec = layer.spec();
        assert_eq!((base.outputs(), base.inputs()), (spec.rows, spec.cols), "the base weight of {}", spec.name);
        assert_eq!(lanes.len(), layer.lanes().len(), "the layer's lanes");
        let mut slots = vec![None; layer.blocks().len() * window.width()];
        for (slots, block) in slots.chunks_exact_mut(window.width()).zip(layer.blocks()) {
            for (slot, lane) in slots.iter_mut().zip(window.lanes(block)) {
                *slot = Some(block.lane + lane);
            }
        }
        let frozen = Frozen {
            base,
            below: None,
            trained: direct.trained(&window),
            direct,
            lanes,
            slots,
            blocks: layer.blocks().len(),
            width: window.width(),
        };
        Self { frozen: Arc::new(frozen) }
    }

    /// The same layer with a fixed Δ beneath its own: the global model under a worker's private lanes.
    ///
    /// # Panics
    /// If the layer of that Δ has another shape.
    #[must_use]
    pub fn over(mut self, layer: &Layer, direct: Arc<Direct<E>>, lanes: &[E]) -> Self {
        let frozen = Arc::make_mut(&mut self.frozen);
        let (spec, base) = (layer.spec(), &frozen.base);
        assert_eq!((base.outputs(), base.inputs()), (spec.rows, spec.cols), "the base weight of {}", spec.name);
        let coefficients = direct.coefficients(lanes);
        frozen.below = Some(Fixed { direct, coefficients });
        self
    }

    /// Shape of the delta that [`AdaptedLinear::forward`] takes: blocks × lanes of the window.
    #[must_use]
    pub fn delta_shape(&self) -> (usize, usize) {
        (self.frozen.blocks, self.frozen.width)
    }

    /// `x·(W0 + Δ)ᵀ + b` for `x` of tokens×inputs; the result is tokens×outputs.
    ///
    /// # Errors
    /// If the shapes or types do not fit the layer, naming both.
    pub fn forward(&self, x: &Tensor, delta: &Tensor) -> Result<Tensor> {
        let base = &self.frozen.base;
        rows_of(base.name(), x, base.inputs())?;
        let expected = self.delta_shape();
        if delta.dims() != [expected.0, expected.1] {
            bail!("{}: delta of shape {:?}, the window takes {expected:?}", base.name(), delta.dims());
        }
        let op = Op { frozen: self.frozen.clone(), kept: OnceLock::new(), with_input: x.track_op() };
        x.contiguous()?.apply_op2(&delta.contiguous()?, op)
    }
}

impl<E: Element> Frozen<E> {
    /// Adds `Δ·x` to `y`; what every group of tokens keeps for the backward pass.
    fn add_delta(&self, delta: &Direct<E>, coefficients: &Coefficients<E>, x: &[E], y: &mut [E]) -> Vec<Spectrum<E>> {
        let (x, y) = (x.chunks(GROUP * self.base.inputs()), y.chunks_mut(GROUP * self.base.outputs()));
        let groups: Vec<_> = x.zip(y).collect();
        let add = |(x, y): (&[E], &mut [E])| {
            let mut spectrum = Spectrum::default();
            delta.forward(coefficients, x, y, &mut spectrum);
            spectrum
        };
        if rayon::current_num_threads() == 1 {
            return groups.into_iter().map(add).collect();
        }
        groups.into_par_iter().map(add).collect()
    }

    /// Gradients of the lanes that are trained; Δ's part of the input's gradient is added to `dx`, where that is asked
    /// for.
    fn delta_gradients(&self, delta: &Applied<'_, E>, g: &[E], dx: Option<&mut [E]>) -> Vec<E> {
        let Applied { direct, coefficients, spectra, trained } = *delta;
        let g = g.chunks(GROUP * self.base.outputs());
        let dx: Vec<Option<&mut [E]>> = match dx {
            Some(dx) => dx.chunks_mut(GROUP * self.base.inputs()).map(Some).collect(),
            None => spectra.iter().map(|_| None).collect(),
        };
        let groups: Vec<_> = spectra.iter().zip(g).zip(dx).collect();
        let gradient = |((spectrum, g), dx): Group<'_, E>| direct.backward(coefficients, spectrum, g, trained, dx);
        let parts: Vec<Vec<E>> = if rayon::current_num_threads() == 1 {
            groups.into_iter().map(gradient).collect()
        } else {
            groups.into_par_iter().map(gradient).collect()
        };
        let mut parts = parts.into_iter();
        let mut lanes = parts.next().unwrap_or_else(|| vec![<E as Scalar>::ZERO; self.blocks * self.width]);
        for part in parts {
            lanes.iter_mut().zip(part).for_each(|(lane, part)| *lane += part);
        }
        lanes
    }
}

/// One Δ as the forward pass applied it.
#[derive(Clone, Copy)]
struct Applied<'a, E> {
    direct: &'a Direct<E>,
    coefficients: &'a Coefficients<E>,
    spectra: &'a [Spectrum<E>],
    trained: &'a Trained<E>,
}

/// What the forward pass leaves for the backward.
struct Kept<E> {
    coefficients: Coefficients<E>,
    spectra: Vec<Spectrum<E>>,
    /// Of the Δ beneath, none where there is none.
    below: Vec<Spectrum<E>>,
}

/// A group's spectrum, output gradient and input gradient.
type Group<'a, E> = ((&'a Spectrum<E>, &'a [E]), Option<&'a mut [E]>);

struct Op<E> {
    frozen: Arc<Frozen<E>>,
    kept: OnceLock<Kept<E>>,
    with_input: bool,
}

/// A contiguous CPU tensor as a slice.
pub(crate) fn contiguous<'a, E: WithDType>(storage: &'a CpuStorage, layout: &TensorLayout) -> Result<&'a [E]> {
    let values = E::cpu_storage_as_slice(storage)?;
    match layout.contiguous_offsets() {
        Some((start, end)) => Ok(&values[start..end]),
        None => bail!("a strided tensor where a contiguous one is needed"),
    }
}

impl<E: Element> CustomOp2 for Op<E> {
    fn name(&self) -> &'static str {
        "adapted-linear"
    }

    fn cpu_fwd(
        &self,
        x: &CpuStorage,
        x_layout: &TensorLayout,
        delta: &CpuStorage,
        delta_layout: &TensorLayout,
    ) -> Result<(CpuStorage, Shape)> {
        let frozen = &*self.frozen;
        let x = contiguous::<E>(x, x_layout)?;
        let mut lanes = frozen.lanes.clone();
        for (slot, &delta) in frozen.slots.iter().zip(contiguous::<E>(delta, delta_layout)?) {
            if let Some(lane) = *slot {
                lanes[lane] += delta;
            }
        }
        let coefficients = frozen.direct.coefficients(&lanes);
        let mut y = frozen.base.output(x)?;
        let below = frozen.below.as_ref();
        let below =
            below.map_or_else(Vec::new, |fixed| frozen.add_delta(&fixed.direct, &fixed.coefficients, x, &mut y));
        let spectra = frozen.add_delta(&frozen.direct, &coefficients, x, &mut y);
        if self.kept.set(Kept { coefficients, spectra, below }).is_err() {
            bail!("{}: one op runs forward once", frozen.base.name());
        }
        let shape = Shape::from((y.len() / frozen.base.outputs(), frozen.base.outputs()));
        Ok((E::to_cpu_storage_owned(y), shape))
    }

    fn bwd(&self, x: &Tensor, delta: &Tensor, _: &Tensor, grad_y: &Tensor) -> Result<(Option<Tensor>, Option<Tensor>)> {
        let frozen = &*self.frozen;
        let Some(kept) = self.kept.get() else {
            bail!("{}: backward before forward", frozen.base.name());
        };
        let grad_y = grad_y.contiguous()?;
        let g = values::<E>(&grad_y)?;
        let mut input = None;
        if self.with_input {
            let mut dx = vec![<E as Scalar>::ZERO; x.elem_count()];
            frozen.base.add_gradient(&g, &mut dx)?;
            input = Some(dx);
        }
        if let (Some(Fixed { direct, coefficients }), Some(dx)) = (&frozen.below, input.as_deref_mut()) {
            let trained = &Trained::default();
            let fixed = Applied { direct, coefficients, spectra: &kept.below, trained };
            frozen.delta_gradients(&fixed, &g, Some(dx));
        }
        let Kept { coefficients, spectra, .. } = kept;
        let own = Applied { direct: &frozen.direct, coefficients, spectra, trained: &frozen.trained };
        let lanes = frozen.delta_gradients(&own, &g, input.as_deref_mut());
        let input = input.map(|dx| Tensor::from_vec(dx, x.shape(), x.device())).transpose()?;
        Ok((input, Some(Tensor::from_vec(lanes, delta.shape(), delta.device())?)))
    }
}

#[cfg(test)]
mod tests {
    use candle_core::{Device, Var};
    use packfed_codec::{LayerSpec, Layout, Profile, Seed};

    use super::*;
    use crate::nn::check::{noise, random, threads_do_not_show};
    use crate::nn::frozen::tests::{dense, floats, stored};
    use crate::weight::Weight;

    const TOKENS: usize = 5;

    struct Fixture {
        layout: Layout,
        window: Window,
        linear: AdaptedLinear<f64>,
        lanes: Vec<f64>,
        weight: Tensor,
        bias: Tensor,
    }

    fn fixture(rows: usize, cols: usize, block: usize) -> Fixture {
        over(&floats("w", 3, rows, cols), block)
    }

    fn over(weight: &Weight, block: usize) -> Fixture {
        let (rows, cols) = (weight.shape[0], weight.shape[1]);
        let spec = LayerSpec { name: "w".into(), rows, cols, block, residual: 20, gain_exponent: 4 };
        let layout = Layout::new(&Seed::from_number(1), vec![spec]).unwrap();
        let window = Window::new(Profile::Plain, 1);
        let layer = &layout.layers()[0];
        let lanes = noise(2, layout.lanes());
        let bias = noise(7, rows);
        let base = FrozenLinear::new(weight.clone(), Some(bias.clone())).unwrap();
        let direct = Arc::new(Direct::new(layer));
        let linear = AdaptedLinear::new(layer, base, direct, lanes.clone(), window);
        let bias = Tensor::from_vec(bias, rows, &Device::Cpu).unwrap();
        Fixture { layout, window, linear, lanes, weight: dense(weight), bias }
    }

    impl Fixture {
        fn tensor(values: Vec<f64>, cols: usize) -> Tensor {
            let rows = values.len() / cols;
            Tensor::from_vec(values, (rows, cols), &Device::Cpu).unwrap()
        }

        /// Basis of Δ as a tensor, lanes × (outputs·inputs), built from the kernel's own forward pass.
        fn basis(&self) -> Tensor {
            let layer = &self.layout.layers()[0];
            let (rows, cols) = (layer.spec().rows, layer.spec().cols);
            let direct = Direct::<f64>::new(layer);
            let identity: Vec<f64> = (0..cols * cols).map(|n| f64::from(u8::from(n / cols == n % cols))).collect();
            let mut all = Vec::new();
            for lane in 0..self.lanes.len() {
                let mut unit = vec![0.0; self.lanes.len()];
                unit[lane] = 1.0;
                let mut columns = vec![0.0; cols * rows];
                direct.forward(&direct.coefficients(&unit), &identity, &mut columns, &mut Spectrum::default());
                all.extend((0..rows * cols).map(|n| columns[n % cols * rows + n / cols]));
            }
            Self::tensor(all, rows * cols)
        }

        /// The same layer in Candle's own ops on a materialised Δ.
        fn materialised(&self, x: &Tensor, delta: &Tensor) -> Tensor {
            let layer = &self.layout.layers()[0];
            let (rows, cols) = (layer.spec().rows, layer.spec().cols);
            let slots: Vec<u32> = layer
                .blocks()
                .iter()
                .flat_map(|b| self.window.lanes(b).map(|lane| u32::try_from(b.lane + lane).unwrap()))
                .collect();
            let used: Vec<u32> = layer
                .blocks()
                .iter()
                .enumerate()
                .flat_map(|(n, b)| {
                    let first = n * self.window.width();
                    (0..self.window.lanes(b).count()).map(move |s| u32::try_from(first + s).unwrap())
                })
                .collect();
            let index = |v: Vec<u32>| Tensor::new(v, &Device::Cpu).unwrap();
            let delta = delta.flatten_all().unwrap().index_select(&index(used), 0).unwrap();
            let lanes = Tensor::new(self.lanes.as_slice(), &Device::Cpu).unwrap();
            let lanes = lanes.index_add(&index(slots), &delta, 0).unwrap();
            let delta = lanes.unsqueeze(0).unwrap().matmul(&self.basis()).unwrap().reshape((rows, cols)).unwrap();
            let weight = (&self.weight + delta).unwrap();
            x.matmul(&weight.t().unwrap()).unwrap().broadcast_add(&self.bias).unwrap()
        }
    }

    const SHAPES: [(usize, usize, usize); 3] = [(8, 12, 4), (7, 9, 4), (5, 1, 3)];

    fn check_materialised(fixture: &Fixture, tokens: usize, what: &str) {
        let (blocks, width) = fixture.linear.delta_shape();
        let (rows, cols) = (fixture.weight.dims()[0], fixture.weight.dims()[1]);
        let x = Var::from_tensor(&Fixture::tensor(noise(4, tokens * cols), cols)).unwrap();
        let delta = Var::from_tensor(&Fixture::tensor(noise(5, blocks * width), width)).unwrap();
        let weights = Fixture::tensor(noise(6, tokens * rows), rows);
        let run = |y: Tensor| {
            let loss = (&y * &weights).unwrap().sqr().unwrap().sum_all().unwrap();
            let grads = loss.backward().unwrap();
            let flat = |t: &Tensor| t.flatten_all().unwrap().to_vec1::<f64>().unwrap();
            [flat(&y), flat(grads.get(&x).unwrap()), flat(grads.get(&delta).unwrap())]
        };
        let ours = run(fixture.linear.forward(&x, &delta).unwrap());
        let theirs = run(fixture.materialised(&x, &delta));
        for (ours, theirs) in ours.iter().zip(&theirs) {
            let error = ours.iter().zip(theirs).map(|(a, b)| (a - b).abs()).fold(0.0, f64::max);
            assert!(error < 1e-9, "{what}: {error}");
        }
    }

    #[test]
    fn a_fixed_delta_beneath_adds_to_outputs_and_input_gradients_and_trains_nothing() {
        let above = fixture(10, 12, 4);
        let spec = LayerSpec { name: "p".into(), rows: 10, cols: 12, block: 6, residual: 5, gain_exponent: 4 };
        let private = Layout::new(&Seed::from_number(8), vec![spec]).unwrap();
        let layer = &private.layers()[0];
        let (direct, lanes) = (Arc::new(Direct::new(layer)), noise(9, private.lanes()));
        let identity: Vec<f64> = (0..144).map(|n| f64::from(u8::from(n / 12 == n % 12))).collect();
        let mut columns = vec![0.0; 120];
        direct.forward(&direct.coefficients(&lanes), &identity, &mut columns, &mut Spectrum::default());
        let fixed = Fixture::tensor(columns, 10).t().unwrap();
        let linear = above.linear.clone().over(layer, direct, &lanes);
        let x = Var::from_tensor(&random::<f64>(4, &[TOKENS, 12], 1.0)).unwrap();
        let delta = Var::zeros(linear.delta_shape(), candle_core::DType::F64, &Device::Cpu).unwrap();
        let run = |linear: &AdaptedLinear<f64>, extra: &Tensor| {
            let y = (linear.forward(&x, &delta).unwrap() + x.matmul(&extra.t().unwrap()).unwrap()).unwrap();
            let grads = y.sqr().unwrap().sum_all().unwrap().backward().unwrap();
            [&y, grads.get(&x).unwrap(), grads.get(&delta).unwrap()]
                .map(|t| t.flatten_all().unwrap().to_vec1::<f64>().unwrap())
        };
        let (found, expected) = (run(&linear, &fixed.zeros_like().unwrap()), run(&above.linear, &fixed));
        for (found, expected) in found.iter().flatten().zip(expected.iter().flatten()) {
            assert!((found - expected).abs() < 1e-9 * (1.0 + expected.abs()), "{found} {expected}");
        }
    }

    #[test]
    fn the_op_agrees_with_candle_on_a_materialised_delta() {
        for (rows, cols, block) in SHAPES {
            check_materialised(&fixture(rows, cols, block), TOKENS, &format!("{rows}×{cols}, B={block}"));
        }
    }

    #[test]
    fn groups_of_tokens_and_every_stored_base_agree_too() {
        for weight in stored(3, 8, 32) {
            check_materialised(&over(&weight, 4), 2 * GROUP + 1, &format!("{:?}", weight.stored));
        }
    }

    #[test]
    fn the_number_of_threads_does_not_show() {
        let weight = floats("w", 3, 96, 128);
        let spec = LayerSpec { name: "w".into(), rows: 96, cols: 128, block: 32, residual: 20, gain_exponent: 4 };
        let layout = Layout::new(&Seed::from_number(1), vec![spec]).unwrap();
        let layer = &layout.layers()[0];
        let base = FrozenLinear::new(weight, None).unwrap();
        let lanes = noise(2, layout.lanes()).into_iter().map(<f32 as Scalar>::from_f64).collect();
        let window = Window::new(Profile::Plain, 1);
        let linear = AdaptedLinear::<f32>::new(layer, base, Arc::new(Direct::new(layer)), lanes, window);
        let (blocks, width) = linear.delta_shape();
        let inputs = [random::<f32>(4, &[5 * GROUP + 3, 128], 1.0), random::<f32>(5, &[blocks, width], 1.0)];
        threads_do_not_show(&inputs, &|x| linear.forward(&x[0], &x[1]).unwrap());
    }

    #[test]
    fn gradients_agree_with_finite_differences() {
        for (rows, cols, block) in SHAPES {
            let fixture = fixture(rows, cols, block);
            let (blocks, width) = fixture.linear.delta_shape();
            let (x, delta) = (noise(4, TOKENS * cols), noise(5, blocks * width));
            let loss = |x: &Tensor, delta: &Tensor| {
                fixture.linear.forward(x, delta).unwrap().sqr().unwrap().sum_all().unwrap()
            };
            let value = |x: &[f64], delta: &[f64]| {
                let (x, delta) = (Fixture::tensor(x.to_vec(), cols), Fixture::tensor(delta.to_vec(), width));
                loss(&x, &delta).to_scalar::<f64>().unwrap()
            };
            let vx = Var::from_tensor(&Fixture::tensor(x.clone(), cols)).unwrap();
            let vd = Var::from_tensor(&Fixture::tensor(delta.clone(), width)).unwrap();
            let grads = loss(&vx, &vd).backward().unwrap();
            let flat = |v: &Var| grads.get(v).unwrap().flatten_all().unwrap().to_vec1::<f64>().unwrap();
            let step = 1e-5;
            let nudged = |values: &[f64], at: usize, by: f64| {
                let mut values = values.to_vec();
                values[at] += by;
                values
            };
            let check = |found: f64, up: f64, down: f64, what: &str, at: usize| {
                let expected = (up - down) / (2.0 * step);
                assert!((found - expected).abs() < 1e-5 * expected.abs().max(1.0), "{what} {at}: {found} {expected}");
            };
            for (at, found) in flat(&vx).into_iter().enumerate() {
                check(found, value(&nudged(&x, at, step), &delta), value(&nudged(&x, at, -step), &delta), "x", at);
            }
            for (at, found) in flat(&vd).into_iter().enumerate() {
                check(found, value(&x, &nudged(&delta, at, step)), value(&x, &nudged(&delta, at, -step)), "lane", at);
            }
        }
    }

    #[test]
    fn an_untracked_input_gets_no_gradient() {
        let fixture = fixture(8, 12, 4);
        let (blocks, width) = fixture.linear.delta_shape();
        let x = Fixture::tensor(noise(4, TOKENS * 12), 12);
        let delta = Var::from_tensor(&Fixture::tensor(noise(5, blocks * width), width)).unwrap();
        let grads = fixture.linear.forward(&x, &delta).unwrap().sum_all().unwrap().backward().unwrap();
        assert!(grads.get(&x).is_none() && grads.get(&delta).is_some());
    }

    #[test]
    fn wrong_shapes_name_both() {
        let fixture = fixture(8, 12, 4);
        let (blocks, width) = fixture.linear.delta_shape();
        let delta = Fixture::tensor(noise(5, blocks * width), width);
        let error = fixture.linear.forward(&Fixture::tensor(noise(4, 22), 11), &delta).unwrap_err().to_string();
        assert!(error.contains("[2, 11]") && error.contains("tokens × 12"), "{error}");
    }
}
