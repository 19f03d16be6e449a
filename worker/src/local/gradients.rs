//! A step's gradients: summed over micro-batches, measured, and held to a norm.

use candle_core::backprop::GradStore;
use candle_core::{CpuStorage, InplaceOp2, InplaceOp3, Layout, Result, Tensor, Var, WithDType, bail};
use pulp::{Simd, WithSimd};

use crate::nn::values::{LANES, values};

/// One gradient a variable, or a weighted sum of several such.
#[derive(Debug)]
pub(crate) struct Gradients {
    tensors: Vec<Tensor>,
    /// The sum of the weights.
    weight: f32,
}

impl Gradients {
    /// A backward pass's own, whose weight is 1. A variable without a gradient is an error, since Candle drops
    /// gradients in silence.
    ///
    /// # Errors
    /// If a gradient is missing.
    pub(crate) fn of<'a>(variables: impl Iterator<Item = &'a Var>, store: &GradStore) -> Result<Self> {
        let gradient = |variable: &Var| match store.get(variable) {
            Some(gradient) => gradient.contiguous(),
            None => bail!("a trained variable of shape {:?} got no gradient", variable.dims()),
        };
        Ok(Self { tensors: variables.map(gradient).collect::<Result<_>>()?, weight: 1.0 })
    }

    /// An empty sum.
    pub(crate) const fn none() -> Self {
        Self { tensors: Vec::new(), weight: 0.0 }
    }

    /// Adds gradients under a weight.
    ///
    /// # Errors
    /// If a tensor is not contiguous `f32` on the CPU.
    pub(crate) fn add(&mut self, other: &Self, weight: f32) -> Result<()> {
        if self.tensors.is_empty() {
            self.tensors =
                other.tensors.iter().map(|tensor| tensor.affine(weight.into(), 0.0)).collect::<Result<_>>()?;
        } else {
            for (sum, tensor) in self.tensors.iter().zip(&other.tensors) {
                sum.inplace_op2(tensor, &AddWeighted(weight))?;
            }
        }
        self.weight += weight;
        Ok(())
    }

    /// Adds `mu`·(value − start) to the mean gradient, for a value and a start each variable; nothing where there are none.
    ///
    /// # Errors
    /// If a tensor is not contiguous `f32` on the CPU.
    pub(crate) fn pull<'a>(&mut self, pairs: impl Iterator<Item = (&'a Tensor, &'a Tensor)>, mu: f32) -> Result<()> {
        for (tensor, (value, start)) in self.tensors.iter_mut().zip(pairs) {
            // A backward pass's own tensor may share its storage with what the model computes from.
            *tensor = tensor.copy()?;
            tensor.inplace_op3(value, start, &AddDifference(mu * self.weight))?;
        }
        Ok(())
    }

    /// The sum that was made, one tensor a variable; times [`Gradients::scale`] it is the gradient.
    pub(crate) fn tensors(&self) -> &[Tensor] {
        &self.tensors
    }

    /// Euclidean norm of the mean gradient over all variables. Finite if and only if every value is: squares of `f32`
    /// add up in `f64`.
    ///
    /// # Errors
    /// If a tensor is not contiguous `f32` on the CPU.
    pub(crate) fn norm(&self) -> Result<f64> {
        let mut sum = 0.0;
        for tensor in &self.tensors {
            sum += pulp::Arch::new().dispatch(SquareSum(&values::<f32>(tensor)?));
        }
        Ok(sum.sqrt() / f64::from(self.weight))
    }

    /// What the sum is to be multiplied by: the mean's factor, and `clip_norm / norm` where the norm is above it
    /// (Pascanu et al., ICML 2013).
    pub(crate) fn scale(&self, norm: f64, clip_norm: Option<f32>) -> f32 {
        let clip = clip_norm.map_or(1.0, |most| (f64::from(most) / norm).min(1.0));
        #[expect(clippy::cast_possible_truncation, reason = "gradients are f32")]
        let scale = (clip / f64::from(self.weight)) as f32;
        scale
    }
}

/// `sum += weight · value`.
struct AddWeighted(f32);

impl InplaceOp2 for AddWeighted {
    fn name(&self) -> &'static str {
        "add-weighted"
    }

    fn cpu_fwd(&self, sum: &mut CpuStorage, ls: &Layout, value: &CpuStorage, lv: &Layout) -> Result<()> {
        let (Some((s0, s1)), Some((v0, v1))) = (ls.contiguous_offsets(), lv.contiguous_offsets()) else {
            bail!("gradients are added up contiguous");
        };
        let CpuStorage::F32(sum) = sum else { bail!("gradients are added up in f32") };
        let value = &f32::cpu_storage_as_slice(value)?[v0..v1];
        for (sum, value) in sum[s0..s1].iter_mut().zip(value) {
            *sum += self.0 * value;
        }
        Ok(())
    }
}

/// `sum += factor · (value − start)`.
struct AddDifference(f32);

impl InplaceOp3 for AddDifference {
    fn name(&self) -> &'static str {
        "add-difference"
    }

    fn cpu_fwd(
        &self,
        sum: &mut CpuStorage,
        l_sum: &Layout,
        value: &CpuStorage,
        l_value: &Layout,
        start: &CpuStorage,
        l_start: &Layout,
    ) -> Result<()> {
        let offsets = [l_sum, l_value, l_start].map(Layout::contiguous_offsets);
        let [Some((s0, s1)), Some((v0, v1)), Some((o0, o1))] = offsets else {
            bail!("gradients are pulled contiguous")
        };
        let CpuStorage::F32(sum) = sum else { bail!("gradients are pulled in f32") };
        let (value, start) = (&f32::cpu_storage_as_slice(value)?[v0..v1], &f32::cpu_storage_as_slice(start)?[o0..o1]);
        for ((sum, value), start) in sum[s0..s1].iter_mut().zip(value).zip(start) {
            *sum += self.0 * (value - start);
        }
        Ok(())
    }
}

/// `Σ x²` in [`LANES`] partial sums, whatever the width of a register.
struct SquareSum<'a>(&'a [f32]);

impl WithSimd for SquareSum<'_> {
    type Output = f64;

    #[inline(always)]
    fn with_simd<V: Simd>(self, _: V) -> f64 {
        let mut sums = [0.0; LANES];
        let (whole, rest) = self.0.as_chunks::<LANES>();
        for chunk in whole {
            for (sum, &value) in sums.iter_mut().zip(chunk) {
                *sum += f64::from(value) * f64::from(value);
            }
        }
        for (sum, &value) in sums.iter_mut().zip(rest) {
            *sum += f64::from(value) * f64::from(value);
        }
        crate::nn::values::total(sums)
    }
}

#[cfg(test)]
mod tests {
    use candle_core::Device;

    use super::*;

    fn gradients(values: &[&[f32]]) -> Gradients {
        let tensor = |values: &&[f32]| Tensor::new(*values, &Device::Cpu).unwrap();
        Gradients { tensors: values.iter().map(tensor).collect(), weight: 1.0 }
    }

    #[test]
    fn a_variable_without_a_gradient_is_an_error() {
        let variables = [1, 2].map(|_| Var::ones((2, 3), candle_core::DType::F32, &Device::Cpu).unwrap());
        let store = variables[0].sum_all().unwrap().backward().unwrap();
        let error = Gradients::of(variables.iter(), &store).unwrap_err();
        assert!(error.to_string().contains("[2, 3] got no gradient"), "{error}");
    }

    #[test]
    fn the_norm_is_that_of_all_variables_together() {
        let long: Vec<f32> = (0..37u8).map(f32::from).collect();
        let expected: f64 = (long.iter().map(|&x| f64::from(x).powi(2)).sum::<f64>() + 25.0).sqrt();
        let all = || gradients(&[&long, &[3.0, -4.0]]);
        assert!((all().norm().unwrap() - expected).abs() < 1e-12 * expected);
        // As a weighted sum of itself it is the same gradient.
        let mut sum = Gradients::none();
        sum.add(&all(), 2.0).unwrap();
        sum.add(&all(), 6.0).unwrap();
        assert!((sum.norm().unwrap() - expected).abs() < 1e-6 * expected);
    }

    #[test]
    fn a_gradient_above_the_norm_is_shortened_to_it_and_one_below_is_left_alone() {
        let gradients = gradients(&[&[3.0], &[-4.0]]);
        let norm = gradients.norm().unwrap();
        assert_eq!(gradients.scale(norm, Some(2.5)), 0.5);
        assert_eq!([gradients.scale(norm, Some(5.0)), gradients.scale(norm, Some(7.0))], [1.0; 2]);
        assert_eq!(gradients.scale(0.0, Some(1.0)), 1.0);
        assert_eq!(gradients.scale(norm, None), 1.0);
    }

    #[test]
    fn a_pull_is_added_to_the_mean_and_leaves_the_gradients_own_storage_alone() {
        let shared = gradients(&[&[1.0, 2.0, 3.0]]);
        let mut sum = Gradients::none();
        sum.add(&shared, 4.0).unwrap();
        let (value, start) = (
            Tensor::new(&[1.0f32, 0.0, -1.0], &Device::Cpu).unwrap(),
            Tensor::new(&[0.5f32; 3], &Device::Cpu).unwrap(),
        );
        for (mut gradients, weight) in [(sum, 4.0), (Gradients { tensors: shared.tensors.clone(), weight: 1.0 }, 1.0)] {
            gradients.pull([(&value, &start)].into_iter(), 0.5).unwrap();
            let mean: Vec<f32> = gradients.tensors[0].to_vec1::<f32>().unwrap().iter().map(|x| x / weight).collect();
            assert_eq!(mean, [1.25, 1.75, 2.25]);
        }
        assert_eq!(shared.tensors[0].to_vec1::<f32>().unwrap(), [1.0, 2.0, 3.0]);
    }

    #[test]
    fn the_norm_is_finite_if_and_only_if_all_values_are() {
        assert!(gradients(&[&[f32::MAX; 40]]).norm().unwrap().is_finite());
        for bad in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY] {
            for place in [0, 17, 39] {
                let mut values = [1.0; 40];
                values[place] = bad;
                assert!(!gradients(&[&[1.0], &values]).norm().unwrap().is_finite());
            }
        }
    }
}
