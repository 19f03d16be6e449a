//! Deltas of whole weights: a fine-tuned model less its base, or a file that holds them as they are.

use crate::files::{Family, Format, ModelFiles, TensorFile, TensorInfo};
use crate::import::{DeltaTensor, Deltas, ImportError, widened};

/// Deltas of whole weights.
#[derive(Debug)]
pub enum DenseDelta<'a> {
    /// A model and what it was fine-tuned from. A tensor that the base does not have, such as a new classifier, counts
    /// whole; one that the tuned model does not have is unchanged.
    Models {
        /// What it was.
        base: &'a ModelFiles,
        /// What it has become.
        tuned: &'a ModelFiles,
    },
    /// A safetensors file of deltas under Hugging Face names of this family.
    File {
        /// The file.
        file: &'a TensorFile,
        /// Of the model that they are for.
        family: &'a Family,
    },
}

impl<'a> DenseDelta<'a> {
    /// The delta between two models.
    ///
    /// # Errors
    /// If they are of different families, or a tensor has different shapes in them.
    pub fn of_models(base: &'a ModelFiles, tuned: &'a ModelFiles) -> Result<Self, ImportError> {
        let families = [base, tuned].map(|files| files.family().name());
        if families[0] != families[1] {
            let why = format!("a {} cannot have been fine-tuned from a {}", families[1], families[0]);
            return Err(ImportError::Adapter { path: tuned.path().to_owned(), why });
        }
        for info in tuned.tensors() {
            if let Some(was) = tensor(base, &info.name).filter(|was| was.shape != info.shape) {
                let (found, expected) = (info.shape.clone(), was.shape.clone());
                return Err(ImportError::Shape { path: info.path.clone(), tensor: info.name.clone(), found, expected });
            }
        }
        Ok(Self::Models { base, tuned })
    }
}

impl Deltas for DenseDelta<'_> {
    fn tensors(&self) -> Vec<DeltaTensor> {
        let of = |info: &TensorInfo, name: String| DeltaTensor { name, shape: info.shape.clone() };
        match self {
            Self::Models { tuned, .. } => {
                tuned.tensors().filter(|info| is_float(info)).map(|info| of(info, info.name.clone())).collect()
            }
            Self::File { file, family } => {
                file.tensors().map(|info| of(info, family.tensor_name(&info.name))).collect()
            }
        }
    }

    fn delta(&self, name: &str) -> Result<Vec<f32>, ImportError> {
        match self {
            Self::Models { base, tuned } => {
                let shape = tensor(tuned, name).map(|info| info.shape.clone()).unwrap_or_default();
                less_base(base, name, widened(&tuned.weight(name, &shape)?)?)
            }
            Self::File { file, family } => {
                let own = file.tensors().find(|info| family.tensor_name(&info.name) == name);
                widened(&file.weight(own.map_or(name, |info| &info.name))?)
            }
        }
    }
}

/// A tensor's values less the base's, where it has any; the shapes are known to agree.
pub(super) fn less_base(base: &ModelFiles, name: &str, mut values: Vec<f32>) -> Result<Vec<f32>, ImportError> {
    if let Some(info) = tensor(base, name) {
        let was = widened(&base.weight(name, &info.shape)?)?;
        values.iter_mut().zip(was).for_each(|(value, was)| *value -= was);
    }
    Ok(values)
}

/// What a model has under this name.
pub(super) fn tensor<'a>(files: &'a ModelFiles, name: &str) -> Option<&'a TensorInfo> {
    files.tensors().find(|info| info.name == name)
}

fn is_float(info: &TensorInfo) -> bool {
    !matches!(info.format, Format::Other(_))
}
