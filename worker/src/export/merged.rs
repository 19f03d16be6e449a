//! A whole model with Δ added in, as the directory that `transformers` loads.
//!
//! ```text
//!  model.safetensors         every weight of the architecture, W0 + Δ, in one kind of float
//!  config.json               the base's own, completed; of a GGUF base one made from its metadata
//!  tokenizer.json, …         likewise
//!  modeling_packfed.py       of an encoder with a classifier: see below
//! ```
//!
//! Weights are read, widened, added and written one after another, so memory is the largest one's, not the model's.
//!
//! `transformers` has no encoder with a linear classifier over the mean of the last layer: `BertForSequenceClassification`
//! puts a pooler between, and would load this model's weights and give other outputs. So the directory brings its own
//! class along, which `AutoModelForSequenceClassification.from_pretrained(path, trust_remote_code=True)` uses. The names
//! are those of `BertForSequenceClassification`; no pooler is written, so that it warns where it is used instead.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{BufWriter, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use candle_core::Error as TensorError;
use packfed_codec::{Layer, Merger, PackedLayer, State};
use thiserror::Error;

use crate::export::about;
use crate::export::destination::{DestinationError, Existing, write_directory};
use crate::export::safetensors::{Floats, ValueError, header, write_values};
use crate::files::{Family, Format, ModelFileError, ModelFiles};
use crate::nn::pool::Pooling;
use crate::nn::widen::for_rows;
use crate::text::TokenizerError;
use crate::weight::{Stored, Weight};

/// Why a model was not written.
#[derive(Debug, Error)]
pub enum ExportError {
    /// The base cannot be read.
    #[error(transparent)]
    Files(#[from] ModelFileError),
    /// The base's tokenizer cannot be built.
    #[error(transparent)]
    Tokenizer(#[from] TokenizerError),
    /// The place cannot be written to.
    #[error(transparent)]
    Destination(#[from] DestinationError),
    /// A configuration cannot be completed.
    #[error("{}: {why}", path.display())]
    Config {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        why: String,
    },
    /// A perceptron.
    #[error("{}: a perceptron has no form that transformers loads", .0.display())]
    Perceptron(PathBuf),
    /// Δ is of a matrix that the model does not have.
    #[error("layer {name} of shape {expected:?} has a delta, {}", match found {
        Some(shape) => format!("the model's has shape {shape:?}"),
        None => "the model has no such tensor".to_owned(),
    })]
    Layer {
        /// Its name.
        name: String,
        /// Rows and columns of Δ.
        expected: [usize; 2],
        /// Shape of the model's tensor, if it has one.
        found: Option<Vec<usize>>,
    },
    /// Another number of labels than the classifier has.
    #[error("{found} labels for a classifier of {expected} classes")]
    Labels {
        /// Labels given.
        found: usize,
        /// Rows of the classifier.
        expected: usize,
    },
    /// A weight that the kind of float cannot hold.
    #[error("tensor {tensor}: {value} is beyond {}", floats.torch_name())]
    Range {
        /// Its name.
        tensor: String,
        /// The value.
        value: f32,
        /// The kind of float.
        floats: Floats,
    },
    /// A weight cannot be widened.
    #[error("tensor {tensor}: {source}")]
    Tensor {
        /// Its name.
        tensor: String,
        /// What the tensor library said.
        source: TensorError,
    },
}

/// What is merged, and how it is written.
#[derive(Clone, Copy, Debug)]
pub struct MergedModel<'a> {
    /// The base.
    pub files: &'a ModelFiles,
    /// States whose Δ are added, such as the global and the personal one; a tensor may be in none or in several.
    pub states: &'a [&'a State],
    /// Names of the classes in their order; none keeps those of the base, or numbers them.
    pub labels: &'a [String],
    /// What the classifier stands on.
    pub pooling: Pooling,
    /// How weights are written.
    pub floats: Floats,
}

/// What was written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Exported {
    /// Tensors of the file.
    pub tensors: usize,
    /// Bytes of `model.safetensors`.
    pub bytes: u64,
    /// The base's tensors that the architecture has no use for: a pooler, another task's head, buffers.
    pub left_out: Vec<String>,
}

/// The weights that are written, by the names of [`ModelFiles`]: the name in the new file, and the shape.
type Plan = BTreeMap<String, (String, Vec<usize>)>;

impl MergedModel<'_> {
    /// Writes the directory, whole or not at all. One that is there is replaced only if it is of this kind.
    ///
    /// # Errors
    /// If the base cannot be read, a delta or the labels do not fit it, a weight is beyond the kind of float, or the
    /// place cannot be written to. Nothing is there then that was not before.
    pub fn write(&self, path: &Path, existing: Existing) -> Result<Exported, ExportError> {
        self.check_place(path)?;
        let (plan, left_out) = self.plan()?;
        let classes = plan.get(about::CLASSIFIER).map(|(_, shape)| shape[0]);
        if let Some(expected) = classes.or(Some(0)).filter(|&n| !self.labels.is_empty() && self.labels.len() != n) {
            return Err(ExportError::Labels { found: self.labels.len(), expected });
        }
        let mut bytes = 0;
        write_directory(path, existing, "config.json", |partial| {
            about::write(self, classes, partial)?;
            bytes = self.write_weights(&plan, &partial.join("model.safetensors"))?;
            Ok::<(), ExportError>(())
        })?;
        Ok(Exported { tensors: plan.len(), bytes, left_out })
    }

    /// The base is not written over, not even with itself.
    fn check_place(&self, path: &Path) -> Result<(), ExportError> {
        let base = fs::canonicalize(self.files.path()).map_err(DestinationError::io(self.files.path()))?;
        match fs::canonicalize(path) {
            Ok(place) if base.starts_with(&place) => {
                Err(DestinationError::Other { path: path.to_owned(), why: "the base model" }.into())
            }
            _ => Ok(()),
        }
    }

    fn layers(&self) -> impl Iterator<Item = (&State, &Layer)> {
        self.states.iter().flat_map(|&state| state.layout().layers().iter().map(move |layer| (state, layer)))
    }

    fn plan(&self) -> Result<(Plan, Vec<String>), ExportError> {
        let mut shapes = BTreeMap::new();
        let mut left_out = Vec::new();
        let fresh = self.layers().find(|(_, layer)| layer.spec().name == about::CLASSIFIER);
        let present = |name: &str| self.files.tensors().any(|info| info.name == name);
        let classifies = fresh.is_some() || present(about::CLASSIFIER);
        for info in self.files.tensors() {
            let floats = !matches!(info.format, Format::Other(_));
            match self.belongs(&info.name, classifies) && floats {
                true => drop(shapes.insert(info.name.clone(), info.shape.clone())),
                false => left_out.push(info.name.clone()),
            }
        }
        if let (Some((_, layer)), Family::Bert(config)) = (fresh, self.files.family()) {
            // A classifier that the base does not have is Δ over zeros.
            shapes.entry(about::CLASSIFIER.into()).or_insert_with(|| vec![layer.spec().rows, config.hidden]);
        }
        if let Some(classes) = shapes.get(about::CLASSIFIER).map(|shape| shape[0]) {
            shapes.entry(about::CLASSIFIER_BIAS.into()).or_insert_with(|| vec![classes]);
        }
        self.check_layers(&shapes)?;
        let prefix = |name: &str| if classifies && !name.starts_with("classifier.") { "bert." } else { "" };
        let plan = shapes.into_iter().map(|(name, shape)| {
            let written = format!("{}{name}", prefix(&name));
            (name, (written, shape))
        });
        Ok((plan.collect(), left_out))
    }

    /// Whether the architecture has a tensor of this name.
    fn belongs(&self, name: &str, classifies: bool) -> bool {
        match self.files.family() {
            Family::Bert(_) => {
                let starts = ["embeddings.", "encoder.", if classifies { "classifier." } else { "pooler." }];
                starts.iter().any(|start| name.starts_with(start))
            }
            Family::Llama(config) if name == "lm_head.weight" => !config.tied_embeddings,
            Family::Llama(_) => name.starts_with("model.") && name.ends_with(".weight"),
            Family::Mlp => false,
        }
    }

    fn check_layers(&self, shapes: &BTreeMap<String, Vec<usize>>) -> Result<(), ExportError> {
        if *self.files.family() == Family::Mlp {
            return Err(ExportError::Perceptron(self.files.path().to_owned()));
        }
        for (_, layer) in self.layers() {
            let spec = layer.spec();
            let found = shapes.get(&spec.name);
            let fits = found.is_some_and(|shape| match shape.as_slice() {
                [rows] => (*rows, 1) == (spec.rows, spec.cols),
                shape => shape == [spec.rows, spec.cols],
            });
            if !fits {
                let expected = [spec.rows, spec.cols];
                return Err(ExportError::Layer { name: spec.name.clone(), expected, found: found.cloned() });
            }
        }
        Ok(())
    }

    fn write_weights(&self, plan: &Plan, path: &Path) -> Result<u64, ExportError> {
        let io = DestinationError::io(path);
        let mut out = BufWriter::new(File::create(path).map_err(&io)?);
        let tensors = plan.values().map(|(written, shape)| (written.as_str(), shape.as_slice()));
        let header = header(tensors, self.floats);
        let mut bytes = header.len() as u64;
        out.write_all(&header).map_err(&io)?;
        let mut merger = Merger::new();
        for (name, (_, shape)) in plan {
            let weight = self.base(name, shape)?;
            self.write_tensor(&mut out, &weight, self.delta(&mut merger, name).as_deref()).map_err(
                |error| match error {
                    WriteError::Value(ValueError::Io(source)) => io(source).into(),
                    WriteError::Value(ValueError::Range(value)) => {
                        ExportError::Range { tensor: name.clone(), value, floats: self.floats }
                    }
                    WriteError::Widen(source) => ExportError::Tensor { tensor: name.clone(), source },
                },
            )?;
            bytes += (shape.iter().product::<usize>() * self.floats.bytes()) as u64;
        }
        out.flush().map_err(&io)?;
        Ok(bytes)
    }

    /// A tensor of the base, as rows of its last dimension.
    fn base(&self, name: &str, shape: &[usize]) -> Result<Weight, ExportError> {
        let fresh = name.starts_with("classifier.") && self.files.tensors().all(|info| info.name != name);
        let count: usize = shape.iter().product();
        let weight = match fresh {
            true => {
                Weight { name: name.into(), shape: shape.to_vec(), stored: Stored::F32(Arc::new(vec![0.0; count])) }
            }
            false => self.files.weight(name, shape)?,
        };
        let cols = shape.last().copied().unwrap_or(1);
        Ok(Weight { shape: vec![count / cols.max(1), cols], ..weight })
    }

    /// The sum of a tensor's deltas; `None` where there is none.
    fn delta(&self, merger: &mut Merger, name: &str) -> Option<Vec<f32>> {
        let of_tensor = self.layers().filter(|(_, layer)| layer.spec().name == name);
        of_tensor.map(|(state, layer)| merger.delta(layer, &PackedLayer::from_state(state, layer))).reduce(
            |mut sum, more| {
                sum.iter_mut().zip(more).for_each(|(sum, more)| *sum += more);
                sum
            },
        )
    }

    fn write_tensor(&self, out: &mut impl Write, weight: &Weight, delta: Option<&[f32]>) -> Result<(), WriteError> {
        let cols = weight.shape[1];
        if weight.shape.contains(&0) {
            return Ok(());
        }
        let mut failed = None;
        let widened = for_rows::<f32>(weight, &mut |first, rows| {
            let written = match delta {
                Some(delta) => {
                    let sums = rows.iter().zip(&delta[first * cols..]).map(|(&base, &delta)| base + delta);
                    write_values(out, sums, self.floats)
                }
                None => write_values(out, rows.iter().copied(), self.floats),
            };
            written.map_err(|error| {
                failed = Some(error);
                TensorError::Msg("not written".into())
            })
        });
        match (failed, widened) {
            (Some(error), _) => Err(WriteError::Value(error)),
            (None, widened) => widened.map_err(WriteError::Widen),
        }
    }
}

/// Why a tensor was not written.
enum WriteError {
    Value(ValueError),
    Widen(TensorError),
}
