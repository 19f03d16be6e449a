//! How a model's matrices are applied: frozen, or with a packed Δ.

use std::ops::Range;
use std::sync::Arc;

use candle_core::{Result as TensorResult, Tensor};

use crate::adapted::{AdaptedLinear, Element};
use crate::model::{Activations, LoadError, MatrixSpec, Source, vector, weight};
use crate::nn::checkpoint::checkpoint;
use crate::nn::frozen::FrozenLinear;

/// How the matrices of a model are applied, by their index in its list of [`MatrixSpec`]s.
pub trait Linears: Send + Sync {
    /// `x·Wᵀ + b` of matrix `index` for `x` of tokens × inputs, where `trained` stands for what the matrix trains.
    ///
    /// # Errors
    /// If a shape does not fit.
    fn apply(&self, index: usize, x: &Tensor, trained: &[Tensor]) -> TensorResult<Tensor>;

    /// The tensors that matrix `index` trains, none if it is frozen.
    fn trained(&self, index: usize) -> &[Tensor];

    /// `x·Wᵀ + b` of matrix `index`.
    ///
    /// # Errors
    /// As [`Linears::apply`].
    fn forward(&self, index: usize, x: &Tensor) -> TensorResult<Tensor> {
        self.apply(index, x, self.trained(index))
    }
}

/// One matrix, frozen or with a packed Δ.
#[derive(Clone, Debug)]
pub enum Linear<E> {
    /// As its file has it.
    Frozen(FrozenLinear<E>),
    /// With the global model's lanes and this round's delta of them, blocks × lanes of the window.
    Adapted {
        /// The layer.
        linear: AdaptedLinear<E>,
        /// The tracked delta.
        delta: Tensor,
    },
}

/// Frozen and packed matrices.
#[derive(Clone, Debug)]
pub struct Packed<E> {
    matrices: Vec<Linear<E>>,
}

impl<E: Element> Packed<E> {
    /// The matrices in the order of a model's list.
    #[must_use]
    pub const fn new(matrices: Vec<Linear<E>>) -> Self {
        Self { matrices }
    }
}

impl<E: Element> Linears for Packed<E> {
    fn apply(&self, index: usize, x: &Tensor, trained: &[Tensor]) -> TensorResult<Tensor> {
        match (&self.matrices[index], trained) {
            (Linear::Frozen(linear), []) => linear.forward(x),
            (Linear::Adapted { linear, .. }, [delta]) => linear.forward(x, delta),
            (_, found) => candle_core::bail!("matrix {index} with {} trained tensors", found.len()),
        }
    }

    fn trained(&self, index: usize) -> &[Tensor] {
        match &self.matrices[index] {
            Linear::Frozen(_) => &[],
            Linear::Adapted { delta, .. } => std::slice::from_ref(delta),
        }
    }
}

/// The frozen matrices of a list, with their biases.
///
/// # Errors
/// If the source fails or gives another shape.
pub fn load<E: Element, S: std::error::Error>(
    matrices: &[MatrixSpec],
    source: Source<'_, S>,
) -> Result<Vec<FrozenLinear<E>>, LoadError<S>> {
    let one = |spec: &MatrixSpec| {
        let matrix = weight(source, &spec.name, &[spec.outputs, spec.inputs])?;
        let bias = spec.bias.as_ref().map(|bias| vector(source, bias, spec.outputs)).transpose()?;
        FrozenLinear::new(matrix, bias).map_err(LoadError::Tensor)
    };
    matrices.iter().map(one).collect()
}

/// Runs a layer that uses the matrices of `range`, keeping of it what `activations` says.
pub(crate) fn layer<E: Element>(
    activations: Activations,
    linears: &Arc<dyn Linears>,
    range: Range<usize>,
    x: &Tensor,
    run: impl Fn(&dyn Linears, &Tensor) -> TensorResult<Tensor> + Send + Sync + 'static,
) -> TensorResult<Tensor> {
    if activations == Activations::Kept {
        return run(&**linears, x);
    }
    let all: Vec<Tensor> = range.clone().flat_map(|index| linears.trained(index)).cloned().collect();
    let linears = linears.clone();
    checkpoint::<E>(x, &all, move |x, trained| {
        let mut rest = trained;
        let own = range.clone().map(|index| {
            let (own, later) = rest.split_at(linears.trained(index).len());
            rest = later;
            own
        });
        let own = own.collect();
        run(&Replaced { linears: &*linears, first: range.start, own }, x)
    })
}

/// Matrices whose trained tensors are others, as a second forward pass wants them.
struct Replaced<'a> {
    linears: &'a dyn Linears,
    first: usize,
    own: Vec<&'a [Tensor]>,
}

impl Linears for Replaced<'_> {
    fn apply(&self, index: usize, x: &Tensor, trained: &[Tensor]) -> TensorResult<Tensor> {
        self.linears.apply(index, x, trained)
    }

    fn trained(&self, index: usize) -> &[Tensor] {
        self.own[index - self.first]
    }
}
