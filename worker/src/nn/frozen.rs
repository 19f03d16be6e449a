//! A frozen linear layer over a matrix as its file stores it.
//!
//! `y = x·Wᵀ + b`; the backward pass forms `g·W`, the gradient of the input, and nothing of `W`'s or `b`'s. It knows
//! no adapter: [`crate::adapted`] puts Δ on top, into the same buffers.

use std::sync::Arc;

use candle_core::{CpuStorage, CustomOp1, Layout, Result, Shape, Tensor, bail};
use packfed_codec::Scalar;

use crate::adapted::{Element, contiguous};
use crate::nn::values::{rows_of, values};
use crate::nn::widen::{dimensions, for_rows, whole};
use crate::product::{Before, Matrix, MatrixMut, product};
use crate::weight::Weight;

/// One frozen matrix and its bias; a clone shares them.
#[derive(Clone, Debug)]
pub struct FrozenLinear<E> {
    parts: Arc<Parts<E>>,
}

#[derive(Debug)]
struct Parts<E> {
    weight: Weight,
    bias: Option<Vec<E>>,
    outputs: usize,
    inputs: usize,
}

impl<E: Element> FrozenLinear<E> {
    /// The layer of an outputs × inputs matrix and a bias of one value an output.
    ///
    /// # Errors
    /// If the weight is no matrix or the bias is not of its outputs, naming the weight and both shapes.
    pub fn new(weight: Weight, bias: Option<Vec<E>>) -> Result<Self> {
        let (outputs, inputs) = dimensions(&weight)?;
        if let Some(bias) = &bias
            && bias.len() != outputs
        {
            bail!("{}: a bias of {} values for {outputs} outputs", weight.name, bias.len());
        }
        Ok(Self { parts: Arc::new(Parts { weight, bias, outputs, inputs }) })
    }

    /// The weight's name.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.parts.weight.name
    }

    /// Number of outputs.
    #[must_use]
    pub fn outputs(&self) -> usize {
        self.parts.outputs
    }

    /// Number of inputs.
    #[must_use]
    pub fn inputs(&self) -> usize {
        self.parts.inputs
    }

    /// The bias.
    #[must_use]
    pub fn bias(&self) -> Option<Vec<E>> {
        self.parts.bias.clone()
    }

    /// The matrix, widened: outputs × inputs values.
    ///
    /// # Errors
    /// If it does not hold what its shape says.
    pub fn values(&self) -> Result<Vec<E>> {
        whole(&self.parts.weight.stored)
    }

    /// `x·Wᵀ + b` for `x` of tokens × inputs; the result is tokens × outputs.
    ///
    /// # Errors
    /// If `x` has another shape, naming both.
    pub fn forward(&self, x: &Tensor) -> Result<Tensor> {
        rows_of(self.name(), x, self.inputs())?;
        x.contiguous()?.apply_op1(Op(self.clone()))
    }

    /// The values of [`FrozenLinear::forward`].
    pub(crate) fn output(&self, x: &[E]) -> Result<Vec<E>> {
        let Parts { weight, bias, outputs, inputs } = &*self.parts;
        let tokens = x.len() / inputs;
        let mut y = match bias {
            Some(bias) => bias.repeat(tokens),
            None => vec![<E as Scalar>::ZERO; tokens * outputs],
        };
        // The first product onto fresh zeros writes rather than adds.
        let before = if bias.is_some() { Before::Kept } else { Before::Overwritten };
        for_rows(weight, &mut |first, rows| {
            let count = rows.len() / inputs;
            let out = MatrixMut::strided(&mut y[first..], tokens, count, *outputs);
            let (x, rows) = (Matrix::new(x, tokens, *inputs), Matrix::new(rows, count, *inputs));
            product(out, before, x, rows.t(), rayon::current_num_threads());
            Ok(())
        })?;
        Ok(y)
    }

    /// Adds `g·W` to the gradient of the input.
    pub(crate) fn add_gradient(&self, g: &[E], dx: &mut [E]) -> Result<()> {
        let Parts { weight, outputs, inputs, .. } = &*self.parts;
        let tokens = g.len() / outputs;
        for_rows(weight, &mut |first, rows| {
            let count = rows.len() / inputs;
            let out = MatrixMut::strided(dx, tokens, *inputs, *inputs);
            let (g, rows) = (Matrix::strided(&g[first..], tokens, count, *outputs), Matrix::new(rows, count, *inputs));
            product(out, Before::Kept, g, rows, rayon::current_num_threads());
            Ok(())
        })
    }
}

struct Op<E>(FrozenLinear<E>);

impl<E: Element> CustomOp1 for Op<E> {
    fn name(&self) -> &'static str {
        "frozen-linear"
    }

    fn cpu_fwd(&self, x: &CpuStorage, layout: &Layout) -> Result<(CpuStorage, Shape)> {
        let y = self.0.output(contiguous::<E>(x, layout)?)?;
        let tokens = y.len() / self.0.outputs();
        Ok((E::to_cpu_storage_owned(y), Shape::from((tokens, self.0.outputs()))))
    }

    fn bwd(&self, x: &Tensor, _: &Tensor, grad: &Tensor) -> Result<Option<Tensor>> {
        let grad = grad.contiguous()?;
        let mut dx = vec![<E as Scalar>::ZERO; x.elem_count()];
        self.0.add_gradient(&values::<E>(&grad)?, &mut dx)?;
        Tensor::from_vec(dx, x.shape(), x.device()).map(Some)
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use candle_core::Device;
    use candle_core::quantized::{GgmlDType, QTensor};
    use half::{bf16, f16};

    use super::*;
    use crate::nn::check::{differences, flat, outcome, random, threads_do_not_show};
    use crate::weight::Stored;

    /// The same noise as every kind of file stores it.
    pub(crate) fn stored(seed: u64, outputs: usize, inputs: usize) -> Vec<Weight> {
        let floats = flat::<f32>(&random::<f32>(seed, &[outputs, inputs], 0.3));
        let quantized = |kind| {
            let chunk = |rows: &[f32]| {
                let rows = Tensor::from_slice(rows, (rows.len() / inputs, inputs), &Device::Cpu).unwrap();
                QTensor::quantize(&rows, kind).unwrap()
            };
            Stored::Quantized(Arc::new(floats.chunks(5 * inputs).map(chunk).collect()))
        };
        let all = [
            Stored::F16(Arc::new(floats.iter().map(|&v| f16::from_f32(v)).collect())),
            Stored::Bf16(Arc::new(floats.iter().map(|&v| bf16::from_f32(v)).collect())),
            quantized(GgmlDType::Q8_0),
            quantized(GgmlDType::Q4_1),
            Stored::F32(Arc::new(floats)),
        ];
        all.map(|stored| Weight { name: "w".into(), shape: vec![outputs, inputs], stored }).into()
    }

    /// Noise as 32-bit floats, of any shape.
    pub(crate) fn floats(name: &str, seed: u64, outputs: usize, inputs: usize) -> Weight {
        let stored = Stored::F32(Arc::new(flat(&random::<f32>(seed, &[outputs, inputs], 0.3))));
        Weight { name: name.into(), shape: vec![outputs, inputs], stored }
    }

    /// The whole matrix as floats.
    pub(crate) fn dense(weight: &Weight) -> Tensor {
        let mut values = Vec::new();
        for_rows::<f64>(weight, &mut |first, rows| {
            assert_eq!(first * weight.shape[1], values.len());
            values.extend_from_slice(rows);
            Ok(())
        })
        .unwrap();
        Tensor::from_vec(values, weight.shape.as_slice(), &Device::Cpu).unwrap()
    }

    fn linear<E: Element>(weight: &Weight) -> FrozenLinear<E> {
        let bias = flat::<E>(&random::<E>(8, &[weight.shape[0]], 1.0));
        FrozenLinear::new(weight.clone(), Some(bias)).unwrap()
    }

    #[test]
    fn every_kind_of_file_agrees_with_differences_and_candle() {
        for weight in stored(1, 13, 32) {
            let x = [random::<f64>(2, &[3, 32], 1.0)];
            differences(&x, &|x| linear::<f64>(&weight).forward(&x[0]).unwrap());
            let (matrix, bias) = (dense(&weight), random::<f64>(8, &[13], 1.0));
            let theirs =
                outcome::<f64>(&x, &|x| x[0].matmul(&matrix.t().unwrap()).unwrap().broadcast_add(&bias).unwrap());
            let ours = outcome::<f64>(&x, &|x| linear::<f64>(&weight).forward(&x[0]).unwrap());
            let narrow = [x[0].to_dtype(candle_core::DType::F32).unwrap()];
            let single = outcome::<f32>(&narrow, &|x| linear::<f32>(&weight).forward(&x[0]).unwrap());
            for ((ours, single), theirs) in
                ours.iter().flatten().zip(single.iter().flatten()).zip(theirs.iter().flatten())
            {
                assert!((ours - theirs).abs() < 1e-12 && (f64::from(*single) - theirs).abs() < 1e-5, "{ours} {single}");
            }
        }
    }

    #[test]
    fn widening_keeps_what_was_quantized() {
        let all = stored(1, 13, 32);
        let exact = flat::<f64>(&dense(&all[4]));
        for (weight, error) in all.iter().zip([2e-4, 2e-3, 2e-3, 3e-2, 0.0]) {
            let found = flat::<f64>(&dense(weight));
            let worst = found.iter().zip(&exact).map(|(a, b)| (a - b).abs()).fold(0.0, f64::max);
            assert!(worst <= error && (error == 0.0 || worst > 0.0), "{worst}");
        }
    }

    #[test]
    fn a_matrix_wider_than_a_chunk_is_whole_and_the_same_on_any_threads() {
        for weight in stored(3, 200, 1024) {
            let linear = linear::<f32>(&weight);
            threads_do_not_show(&[random::<f32>(2, &[33, 1024], 1.0)], &|x| linear.forward(&x[0]).unwrap());
            assert_eq!(dense(&weight).dims(), [200, 1024]);
        }
    }

    #[test]
    fn shapes_that_do_not_fit_name_the_tensor_and_both() {
        let weight = Weight { name: "w".into(), shape: vec![3, 4], stored: Stored::F32(Arc::new(vec![0.0; 11])) };
        let error = FrozenLinear::<f32>::new(weight, None).unwrap_err().to_string();
        assert!(error.contains("w: 11 values in a matrix of shape [3, 4]"), "{error}");
        let weight = Weight { name: "w".into(), shape: vec![3, 4], stored: Stored::F32(Arc::new(vec![0.0; 12])) };
        let error = FrozenLinear::<f32>::new(weight.clone(), Some(vec![0.0; 4])).unwrap_err().to_string();
        assert!(error.contains("w: a bias of 4 values for 3 outputs"), "{error}");
        let linear = FrozenLinear::<f32>::new(weight, None).unwrap();
        let error = linear.forward(&random::<f32>(1, &[2, 5], 1.0)).unwrap_err().to_string();
        assert!(error.contains("[2, 5]") && error.contains("× 4"), "{error}");
    }
}
