//! Activation checkpointing (Chen et al., 2016): a layer whose forward pass keeps only its input and output.
//!
//! The layer runs untracked; the backward pass runs it again tracked, from the same input, and goes back through that.
//! It costs one more forward pass and gives the same bits.

use std::sync::Mutex;

use candle_core::{CpuStorage, CustomOp1, CustomOp2, Layout, Result, Shape, Tensor, Var, bail};
use packfed_codec::Scalar;

use crate::adapted::Element;
use crate::nn::values::values;

/// A layer of an input and the tensors that it trains, all of one float type.
type Layer = Box<dyn Fn(&Tensor, &[Tensor]) -> Result<Tensor> + Send + Sync>;

/// `layer(x, trained)`, whose intermediate tensors are dropped at once. `layer` must use no other tracked tensor: such
/// a tensor would get no gradient.
///
/// # Errors
/// What `layer` returns.
pub fn checkpoint<E: Element>(
    x: &Tensor,
    trained: &[Tensor],
    layer: impl Fn(&Tensor, &[Tensor]) -> Result<Tensor> + Send + Sync + 'static,
) -> Result<Tensor> {
    let untracked: Vec<Tensor> = trained.iter().map(Tensor::detach).collect();
    let output = layer(&x.detach(), &untracked)?.contiguous()?;
    let shape = output.shape().clone();
    let values = values::<E>(&output)?.to_vec();
    let op = Op {
        layer: Box::new(layer),
        output: Mutex::new(Some(values)),
        shape,
        shapes: trained.iter().map(|tensor| tensor.shape().clone()).collect(),
        with_input: x.track_op(),
    };
    if trained.is_empty() {
        return x.apply_op1(op);
    }
    let flat = trained.iter().map(Tensor::flatten_all).collect::<Result<Vec<_>>>()?;
    x.apply_op2(&Tensor::cat(&flat, 0)?, op)
}

struct Op<E> {
    layer: Layer,
    /// What the layer gave, until it is handed over.
    output: Mutex<Option<Vec<E>>>,
    shape: Shape,
    /// Of the trained tensors, which the op takes as one.
    shapes: Vec<Shape>,
    with_input: bool,
}

impl<E: Element> Op<E> {
    fn take_output(&self) -> Result<(CpuStorage, Shape)> {
        let output = self.output.lock().ok().and_then(|mut output| output.take());
        let Some(output) = output else { bail!("a checkpointed layer runs forward once") };
        Ok((E::to_cpu_storage_owned(output), self.shape.clone()))
    }

    /// Gradients of the input and of the trained tensors as one.
    fn gradients(&self, x: &Tensor, flat: Option<&Tensor>, grad: &Tensor) -> Result<(Option<Tensor>, Option<Tensor>)> {
        let input = if self.with_input { Var::from_tensor(&x.detach())?.into_inner() } else { x.detach() };
        let (mut trained, mut first) = (Vec::new(), 0);
        if let Some(flat) = flat {
            for shape in &self.shapes {
                let part = flat.detach().narrow(0, first, shape.elem_count())?.reshape(shape)?;
                trained.push(Var::from_tensor(&part)?.into_inner());
                first += shape.elem_count();
            }
        }
        let output = (self.layer)(&input, &trained)?;
        let grads =
            output.apply_op1(Start::<E> { grad: grad.contiguous()?, element: std::marker::PhantomData })?.backward()?;
        let of = |tensor: &Tensor| match grads.get(tensor) {
            Some(grad) => Ok(grad.clone()),
            None => tensor.zeros_like(),
        };
        let input = if self.with_input { Some(of(&input)?) } else { None };
        let parts = trained.iter().map(|tensor| of(tensor)?.flatten_all()).collect::<Result<Vec<_>>>()?;
        Ok((input, if parts.is_empty() { None } else { Some(Tensor::cat(&parts, 0)?) }))
    }
}

impl<E: Element> CustomOp1 for Op<E> {
    fn name(&self) -> &'static str {
        "checkpoint"
    }

    fn cpu_fwd(&self, _: &CpuStorage, _: &Layout) -> Result<(CpuStorage, Shape)> {
        self.take_output()
    }

    fn bwd(&self, x: &Tensor, _: &Tensor, grad: &Tensor) -> Result<Option<Tensor>> {
        Ok(self.gradients(x, None, grad)?.0)
    }
}

impl<E: Element> CustomOp2 for Op<E> {
    fn name(&self) -> &'static str {
        "checkpoint"
    }

    fn cpu_fwd(&self, _: &CpuStorage, _: &Layout, _: &CpuStorage, _: &Layout) -> Result<(CpuStorage, Shape)> {
        self.take_output()
    }

    fn bwd(&self, x: &Tensor, flat: &Tensor, _: &Tensor, grad: &Tensor) -> Result<(Option<Tensor>, Option<Tensor>)> {
        self.gradients(x, Some(flat), grad)
    }
}

/// Where a backward pass begins: the gradient of its input is the one that it was given.
struct Start<E> {
    grad: Tensor,
    element: std::marker::PhantomData<E>,
}

impl<E: Element> CustomOp1 for Start<E> {
    fn name(&self) -> &'static str {
        "start"
    }

    fn cpu_fwd(&self, _: &CpuStorage, _: &Layout) -> Result<(CpuStorage, Shape)> {
        Ok((E::to_cpu_storage_owned(vec![<E as Scalar>::ZERO]), Shape::from(())))
    }

    fn bwd(&self, _: &Tensor, _: &Tensor, _: &Tensor) -> Result<Option<Tensor>> {
        Ok(Some(self.grad.clone()))
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::sync::atomic::{AtomicUsize, Ordering};

    use super::*;
    use crate::nn::activation::Activation;
    use crate::nn::check::{outcome, random};

    fn layer(x: &Tensor, trained: &[Tensor]) -> Result<Tensor> {
        let hidden = Activation::Gelu.forward::<f64>(&x.matmul(&trained[0])?)?;
        hidden.matmul(&trained[1])? + x
    }

    fn inputs() -> [Tensor; 3] {
        [random::<f64>(1, &[4, 3], 1.0), random::<f64>(2, &[3, 7], 1.0), random::<f64>(3, &[7, 3], 1.0)]
    }

    #[test]
    fn value_and_gradients_are_those_of_the_layer_to_the_bit() {
        let twice = |layer: &dyn Fn(&Tensor, &[Tensor]) -> Result<Tensor>| {
            outcome::<f64>(&inputs(), &|x| layer(&layer(&x[0], &x[1..]).unwrap(), &x[1..]).unwrap())
        };
        assert_eq!(twice(&layer), twice(&|x, trained| checkpoint::<f64>(x, trained, layer)));
    }

    #[test]
    fn a_layer_that_trains_nothing_passes_the_gradient_on() {
        let [x, a, b] = inputs();
        let run = move |x: &Tensor, _: &[Tensor]| layer(x, &[a.clone(), b.clone()]);
        let plain = outcome::<f64>(std::slice::from_ref(&x), &|x| run(&x[0], &[]).unwrap());
        assert_eq!(plain, outcome::<f64>(&[x], &|x| checkpoint::<f64>(&x[0], &[], run.clone()).unwrap()));
    }

    #[test]
    fn the_layer_runs_once_forward_and_once_more_backward() {
        let runs = Arc::new(AtomicUsize::new(0));
        let [x, a, b] = inputs().map(|x| Var::from_tensor(&x).unwrap());
        let counted = runs.clone();
        let run = move |x: &Tensor, trained: &[Tensor]| {
            counted.fetch_add(1, Ordering::Relaxed);
            layer(x, trained)
        };
        let trained = [a.as_tensor().clone(), b.as_tensor().clone()];
        // An untracked input: the trained tensors still get theirs.
        let y = checkpoint::<f64>(&x.detach(), &trained, run).unwrap();
        assert_eq!(runs.load(Ordering::Relaxed), 1);
        let grads = y.sum_all().unwrap().backward().unwrap();
        assert_eq!(runs.load(Ordering::Relaxed), 2);
        assert!(grads.get(&a).is_some() && grads.get(&b).is_some() && grads.get(&x).is_none());
    }
}
