//! What the tests of the ops share: noise, finite differences, comparison with composed ops, other numbers of threads.

use candle_core::{Device, Tensor, Var};
use packfed_codec::{Scalar, Seed};

use crate::adapted::Element;

/// An op, or what it is compared with.
pub(crate) type Run<'a> = &'a dyn Fn(&[Tensor]) -> Tensor;

/// Uniform values of −1..1.
pub(crate) fn noise(seed: u64, n: usize) -> Vec<f64> {
    let mut stream = Seed::from_number(seed).stream();
    (0..n).map(|_| 2.0 * stream.unit() - 1.0).collect()
}

/// Noise of a shape, scaled.
pub(crate) fn random<E: Element>(seed: u64, shape: &[usize], scale: f64) -> Tensor {
    let values: Vec<E> =
        noise(seed, shape.iter().product()).iter().map(|v| <E as Scalar>::from_f64(v * scale)).collect();
    Tensor::from_vec(values, shape, &Device::Cpu).unwrap()
}

/// The values of a tensor.
pub(crate) fn flat<E: Element>(tensor: &Tensor) -> Vec<E> {
    tensor.flatten_all().unwrap().to_vec1().unwrap()
}

/// `f`'s value at `inputs` and the gradients of `Σ w·f` for fixed noise `w`, one an input.
pub(crate) fn outcome<E: Element>(inputs: &[Tensor], f: Run<'_>) -> Vec<Vec<E>> {
    let vars: Vec<Var> = inputs.iter().map(|x| Var::from_tensor(x).unwrap()).collect();
    let y = f(&vars.iter().map(|v| v.as_tensor().clone()).collect::<Vec<_>>());
    let grads = (&y * random::<E>(99, y.dims(), 1.0)).unwrap().sum_all().unwrap().backward().unwrap();
    let gradients = vars.iter().map(|v| flat(grads.get(v).expect("a tracked input gets a gradient")));
    std::iter::once(flat(&y)).chain(gradients).collect()
}

/// Gradients in `f64` against central differences, every input's every value.
pub(crate) fn differences(inputs: &[Tensor], f: Run<'_>) {
    let found = outcome::<f64>(inputs, f);
    let weights = noise(99, found[0].len());
    let value = |inputs: &[Tensor]| flat::<f64>(&f(inputs)).iter().zip(&weights).map(|(y, w)| y * w).sum::<f64>();
    let step = 1e-5;
    for (n, input) in inputs.iter().enumerate() {
        let values = flat::<f64>(input);
        for at in 0..values.len() {
            let nudged = |by: f64| {
                let mut values = values.clone();
                values[at] += by;
                let mut inputs = inputs.to_vec();
                inputs[n] = Tensor::from_vec(values, input.dims(), &Device::Cpu).unwrap();
                value(&inputs)
            };
            let (found, expected) = (found[n + 1][at], (nudged(step) - nudged(-step)) / (2.0 * step));
            assert!((found - expected).abs() < 1e-6 * expected.abs().max(1.0), "input {n}, {at}: {found} {expected}");
        }
    }
}

/// Value and gradients of `ours` against `theirs`, in `f64` to 1e-9 and in `f32` to 2e-5.
pub(crate) fn agree(inputs: &[Tensor], ours: (Run<'_>, Run<'_>), theirs: Run<'_>) {
    let expected = outcome::<f64>(inputs, theirs);
    let narrow: Vec<Tensor> = inputs.iter().map(|x| x.to_dtype(candle_core::DType::F32).unwrap()).collect();
    let single = outcome::<f32>(&narrow, ours.0);
    for (n, (found, expected)) in outcome::<f64>(inputs, ours.1).iter().zip(&expected).enumerate() {
        for (at, (a, b)) in found.iter().zip(expected).enumerate() {
            assert!((a - b).abs() < 1e-9 * b.abs().max(1.0), "f64, result {n}, {at}: {a} {b}");
        }
        for (at, (&a, b)) in single[n].iter().zip(expected).enumerate() {
            assert!((f64::from(a) - b).abs() < 2e-5 * b.abs().max(1.0), "f32, result {n}, {at}: {a} {b}");
        }
    }
}

/// The same bits, forward and backward, on one and on three threads.
pub(crate) fn threads_do_not_show(inputs: &[Tensor], f: &(dyn Fn(&[Tensor]) -> Tensor + Sync)) {
    let on = |threads| {
        let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
        pool.install(|| outcome::<f32>(inputs, f))
    };
    let (one, three) = (on(1), on(3));
    assert!(one[0].iter().all(|v| v.is_finite()));
    for (one, three) in one.iter().zip(&three) {
        assert!(one.iter().zip(three).all(|(a, b)| a.to_bits() == b.to_bits()));
    }
}
