//! A linear layer as fast as packfed's: one product on one thread, and only the gradients that are needed.
//!
//! Candle's own product always forms both gradients; measuring against that would flatter packfed.

use candle_core::{CpuStorage, CustomOp2, Layout, Result, Shape, Storage, Tensor, WithDType, bail};
use packfed_worker::product::{Matrix, add_product};

/// `x·Wᵀ` for `x` of rows×inputs and `W` of outputs×inputs.
///
/// # Errors
/// If the shapes do not fit.
pub fn linear(x: &Tensor, weight: &Tensor) -> Result<Tensor> {
    let op = Linear { with_x: x.track_op(), with_weight: weight.track_op() };
    x.contiguous()?.apply_op2(&weight.contiguous()?, op)
}

struct Linear {
    with_x: bool,
    with_weight: bool,
}

fn values<'a>(storage: &'a CpuStorage, layout: &Layout) -> Result<&'a [f32]> {
    match layout.contiguous_offsets() {
        Some((start, end)) => Ok(&f32::cpu_storage_as_slice(storage)?[start..end]),
        None => bail!("a strided tensor where a contiguous one is needed"),
    }
}

impl CustomOp2 for Linear {
    fn name(&self) -> &'static str {
        "linear"
    }

    fn cpu_fwd(&self, x: &CpuStorage, lx: &Layout, w: &CpuStorage, lw: &Layout) -> Result<(CpuStorage, Shape)> {
        let ((rows, inputs), (outputs, width)) = (lx.shape().dims2()?, lw.shape().dims2()?);
        if inputs != width {
            bail!("input of {rows}×{inputs} for a weight of {outputs}×{width}");
        }
        let mut y = vec![0.0; rows * outputs];
        let weight = Matrix::new(values(w, lw)?, outputs, inputs);
        add_product(&mut y, Matrix::new(values(x, lx)?, rows, inputs), weight.t());
        Ok((f32::to_cpu_storage_owned(y), Shape::from((rows, outputs))))
    }

    fn bwd(&self, x: &Tensor, w: &Tensor, _: &Tensor, grad: &Tensor) -> Result<(Option<Tensor>, Option<Tensor>)> {
        let ((rows, inputs), outputs) = (x.dims2()?, w.dim(0)?);
        let (storage, layout) = grad.storage_and_layout();
        let grad = Matrix::new(cpu_values(&storage, layout)?, rows, outputs);
        let product = |a: Matrix<'_, f32>, b: &Tensor, shape: (usize, usize)| -> Result<Tensor> {
            let (storage, layout) = b.storage_and_layout();
            let b = Matrix::new(cpu_values(&storage, layout)?, b.dim(0)?, inputs);
            let mut out = vec![0.0; shape.0 * shape.1];
            add_product(&mut out, a, b);
            Tensor::from_vec(out, shape, x.device())
        };
        let x_grad = self.with_x.then(|| product(grad, w, (rows, inputs))).transpose()?;
        let w_grad = self.with_weight.then(|| product(grad.t(), x, (outputs, inputs))).transpose()?;
        Ok((x_grad, w_grad))
    }
}

fn cpu_values<'a>(storage: &'a Storage, layout: &Layout) -> Result<&'a [f32]> {
    match storage {
        Storage::Cpu(storage) => values(storage, layout),
        _ => bail!("the baselines train on the CPU"),
    }
}

#[cfg(test)]
mod tests {
    use candle_core::{Device, Var};

    use super::*;

    #[test]
    fn it_agrees_with_candles_own_product() {
        let tensor = |n: usize, rows: usize, cols: usize| {
            let values: Vec<f32> = (0..rows * cols).map(|i| ((i * 7 + n) as f32).sin()).collect();
            Var::from_tensor(&Tensor::from_vec(values, (rows, cols), &Device::Cpu).unwrap()).unwrap()
        };
        let (x, w) = (tensor(1, 4, 3), tensor(2, 5, 3));
        let run = |y: Tensor| {
            let grads = y.sqr().unwrap().sum_all().unwrap().backward().unwrap();
            [&y, grads.get(&x).unwrap(), grads.get(&w).unwrap()]
                .map(|t| t.flatten_all().unwrap().to_vec1::<f32>().unwrap())
        };
        let ours = run(linear(&x, &w).unwrap());
        let theirs = run(x.matmul(&w.t().unwrap()).unwrap());
        for (ours, theirs) in ours.iter().zip(&theirs) {
            assert!(ours.iter().zip(theirs).all(|(a, b)| (a - b).abs() < 1e-5));
        }
    }
}
