//! A LoRA adapter as the `peft` library saves it: `adapter_config.json` and `adapter_model.safetensors`.
//!
//! ```text
//!  base_model.model.<module>.lora_A.weight     r × inputs
//!  base_model.model.<module>.lora_B.weight     outputs × r        Δ = s·B·A, s = α/r, or α/√r under rsLoRA
//!  base_model.model.<module>.weight            a whole tensor that was trained: Δ is what it has gained
//! ```
//!
//! Hu et al., *LoRA: Low-Rank Adaptation of Large Language Models*, 2021; Kalajdzievski, *A Rank Stabilization Scaling
//! Factor for Fine-Tuning with LoRA*, 2023. What changes Δ and is not built here is refused, never ignored.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use packfed_codec::Scalar;
use serde::Deserialize;
use serde_json::Value as Json;

use crate::files::{ModelFiles, TensorFile, TensorInfo};
use crate::import::dense::{less_base, tensor};
use crate::import::{DeltaTensor, Deltas, ImportError, widened};

/// `adapter_config.json`, as far as Δ depends on it.
#[derive(Deserialize)]
struct RawConfig {
    #[serde(default)]
    peft_type: String,
    r: usize,
    lora_alpha: f64,
    #[serde(default)]
    use_rslora: bool,
    #[serde(default)]
    bias: Option<String>,
    #[serde(default)]
    init_lora_weights: Json,
    #[serde(default)]
    rank_pattern: Option<BTreeMap<String, usize>>,
    #[serde(default)]
    alpha_pattern: Option<BTreeMap<String, f64>>,
    /// Everything else.
    #[serde(flatten)]
    rest: BTreeMap<String, Json>,
}

/// Keys under which something stands that changes Δ, or when it applies: they must be off.
const OFF: [&str; 14] = [
    "use_dora",
    "lora_bias",
    "fan_in_fan_out",
    "layer_replication",
    "use_qalora",
    "use_bdlora",
    "alora_invocation_tokens",
    "arrow_config",
    "kasa_config",
    "monteclora_config",
    "velora_config",
    "lora_ga_config",
    "target_parameters",
    "trainable_token_indices",
];

/// Nothing, under a key that may as well not be there.
fn is_off(value: &Json) -> bool {
    match value {
        Json::Null | Json::Bool(false) => true,
        Json::Array(values) => values.is_empty(),
        Json::Object(values) => values.is_empty(),
        _ => false,
    }
}

/// Initialisations that change the base's weights as well.
const CHANGE_THE_BASE: [&str; 4] = ["pissa", "olora", "corda", "loftq"];

/// One matrix's low-rank delta.
#[derive(Debug)]
struct LowRank {
    down: String,
    up: String,
    scale: f64,
}

/// Where a tensor's delta comes from.
#[derive(Debug)]
enum Source {
    LowRank(LowRank),
    /// The name of a whole tensor.
    Whole(String),
}

/// An opened adapter.
#[derive(Debug)]
pub struct LoraAdapter<'a> {
    base: &'a ModelFiles,
    file: TensorFile,
    sources: BTreeMap<String, (Source, Vec<usize>)>,
}

impl<'a> LoraAdapter<'a> {
    /// Opens an adapter's directory, for a base model.
    ///
    /// # Errors
    /// If it is no LoRA adapter, is one of a kind that is not built here (DoRA, trained biases, a changed base), or if
    /// a tensor has no counterpart, another shape than the base's or is one that nothing is known of.
    pub fn open(path: &Path, base: &'a ModelFiles) -> Result<Self, ImportError> {
        let config = Config::read(&path.join("adapter_config.json"))?;
        let weights = path.join("adapter_model.safetensors");
        if !weights.exists() {
            let why = "there is no adapter_model.safetensors; save the adapter with safe_serialization=True".into();
            return Err(ImportError::Adapter { path: path.to_owned(), why });
        }
        let file = TensorFile::open(&weights)?;
        let mut sources = BTreeMap::new();
        for info in file.tensors() {
            let refuse = |why: String| ImportError::Adapter { path: weights.clone(), why };
            let Some(key) = info.name.strip_prefix("base_model.model.") else {
                return Err(refuse(format!("tensor {} does not begin with base_model.model.", info.name)));
            };
            // An adapter's name stands in the key only if it was not saved by save_pretrained.
            let key = key.replace(".default.", ".");
            let (module, source) = if let Some(module) = key.strip_suffix(".lora_A.weight") {
                (format!("{module}.weight"), config.low_rank(&file, info, module)?)
            } else if let Some(module) = key.strip_suffix(".lora_B.weight") {
                let partner = info.name.replace(".lora_B.", ".lora_A.");
                if file.tensors().all(|info| info.name != partner) {
                    return Err(refuse(format!("tensor {partner} is missing, beside the lora_B of {module}")));
                }
                continue;
            } else if key.contains(".lora_") {
                return Err(refuse(format!("tensor {} belongs to a kind of LoRA that is not built here", info.name)));
            } else {
                let source = (Source::Whole(info.name.clone()), info.shape.clone());
                (key.replace(".modules_to_save.", "."), source)
            };
            let name = base.family().tensor_name(&module);
            check_shape(base, &weights, &name, &source)?;
            if sources.insert(name.clone(), source).is_some() {
                return Err(refuse(format!("two tensors change {name}")));
            }
        }
        Ok(Self { base, file, sources })
    }
}

/// The base has a tensor of this name and shape, or it is a new classifier's.
fn check_shape(
    base: &ModelFiles,
    path: &Path,
    name: &str,
    (_, shape): &(Source, Vec<usize>),
) -> Result<(), ImportError> {
    match tensor(base, name) {
        Some(info) if info.shape == *shape => Ok(()),
        Some(info) => Err(ImportError::Shape {
            path: path.to_owned(),
            tensor: name.to_owned(),
            found: shape.clone(),
            expected: info.shape.clone(),
        }),
        None if name.starts_with("classifier.") => Ok(()),
        None => {
            let why = format!("it changes {name}, which the base {} does not have", base.path().display());
            Err(ImportError::Adapter { path: path.to_owned(), why })
        }
    }
}

/// A checked configuration.
struct Config {
    path: PathBuf,
    raw: RawConfig,
}

impl Config {
    fn read(path: &Path) -> Result<Self, ImportError> {
        let refuse = |why: String| ImportError::Adapter { path: path.to_owned(), why };
        let text = std::fs::read(path).map_err(|error| refuse(error.to_string()))?;
        let raw: RawConfig = serde_json::from_slice(&text).map_err(|error| refuse(error.to_string()))?;
        let bias = raw.bias.as_deref().unwrap_or("none");
        let initial = raw.init_lora_weights.as_str().unwrap_or_default().to_lowercase();
        let on = OFF.iter().find(|&&key| raw.rest.get(key).is_some_and(|value| !is_off(value)));
        let refusals = [
            (raw.peft_type != "LORA", format!("peft_type is {:?}, supported is \"LORA\"", raw.peft_type)),
            (bias != "none", format!("bias is {bias:?}, supported is \"none\"")),
            (
                on.is_some(),
                format!(
                    "{} is set, which is not built; merge the adapter, and import the dense delta",
                    on.unwrap_or(&"")
                ),
            ),
            (
                CHANGE_THE_BASE.iter().any(|name| initial.starts_with(name)),
                format!("init_lora_weights is {initial:?}, which changes the base's weights too"),
            ),
            (!raw.lora_alpha.is_finite(), format!("lora_alpha is {}", raw.lora_alpha)),
        ];
        match refusals.into_iter().find(|(refused, _)| *refused) {
            Some((_, why)) => Err(refuse(why)),
            None => Ok(Self { path: path.to_owned(), raw }),
        }
    }

    /// The delta of a module whose `lora_A` is `down`, and its shape.
    fn low_rank(
        &self,
        file: &TensorFile,
        down: &TensorInfo,
        module: &str,
    ) -> Result<(Source, Vec<usize>), ImportError> {
        let rank = self.of(&self.raw.rank_pattern, module)?.unwrap_or(self.raw.r);
        let alpha = self.of(&self.raw.alpha_pattern, module)?.unwrap_or(self.raw.lora_alpha);
        let name = down.name.replace(".lora_A.", ".lora_B.");
        let Some(up) = file.tensors().find(|info| info.name == name) else {
            let why = format!("tensor {name} is missing, beside the lora_A of {module}");
            return Err(ImportError::Adapter { path: file.path().to_owned(), why });
        };
        let (&[down_rank, inputs], &[outputs, up_rank]) = (down.shape.as_slice(), up.shape.as_slice()) else {
            let why = format!("{module} is no linear layer: {:?} and {:?}", down.shape, up.shape);
            return Err(ImportError::Adapter { path: file.path().to_owned(), why });
        };
        for (info, found, expected) in [(down, down_rank, vec![rank, inputs]), (up, up_rank, vec![outputs, rank])] {
            if found != rank || rank == 0 {
                let (tensor, found) = (info.name.clone(), info.shape.clone());
                return Err(ImportError::Shape { path: info.path.clone(), tensor, found, expected });
            }
        }
        let divisor = if self.raw.use_rslora { (rank as f64).sqrt() } else { rank as f64 };
        let low_rank = LowRank { down: down.name.clone(), up: name, scale: alpha / divisor };
        Ok((Source::LowRank(low_rank), vec![outputs, inputs]))
    }

    /// The value of the patterns that end the module's path, at a dot or at its begin.
    fn of<T: Copy + PartialEq>(
        &self,
        patterns: &Option<BTreeMap<String, T>>,
        module: &str,
    ) -> Result<Option<T>, ImportError> {
        let refuse = |why| Err(ImportError::Adapter { path: self.path.clone(), why });
        let mut found = None;
        for (pattern, &value) in patterns.iter().flatten() {
            let (whole, path) = match pattern.strip_prefix('^') {
                Some(path) => (true, path),
                None => (false, pattern.as_str()),
            };
            let path = path.strip_suffix('$').unwrap_or(path).replace("\\.", ".");
            if path.contains(|c: char| !(c.is_ascii_alphanumeric() || "._-".contains(c))) {
                return refuse(format!(
                    "the pattern {pattern:?} is a regular expression, supported are paths of modules"
                ));
            }
            let before = module.strip_suffix(path.as_str());
            if before.is_some_and(|before| before.is_empty() || (!whole && before.ends_with('.'))) {
                // The library takes the first of the file, whose order is not kept here.
                if found.is_some_and(|found| found != value) {
                    return refuse(format!("two patterns with different values fit {module}, one is {pattern:?}"));
                }
                found = Some(value);
            }
        }
        Ok(found)
    }
}

impl Deltas for LoraAdapter<'_> {
    fn tensors(&self) -> Vec<DeltaTensor> {
        let all = self.sources.iter();
        all.map(|(name, (_, shape))| DeltaTensor { name: name.clone(), shape: shape.clone() }).collect()
    }

    fn delta(&self, name: &str) -> Result<Vec<f32>, ImportError> {
        let missing = || {
            let why = format!("it does not change {name}");
            ImportError::Adapter { path: self.file.path().to_owned(), why }
        };
        let (source, shape) = self.sources.get(name).ok_or_else(missing)?;
        match source {
            Source::Whole(own) => less_base(self.base, name, widened(&self.file.weight(own)?)?),
            Source::LowRank(LowRank { down, up, scale }) => {
                let (down, up) = (widened(&self.file.weight(down)?)?, widened(&self.file.weight(up)?)?);
                Ok(product(&up, &down, shape[1], *scale))
            }
        }
    }
}

/// `scale·B·A`, `a` of `cols` columns, summed as 64-bit floats.
fn product(b: &[f32], a: &[f32], cols: usize, scale: f64) -> Vec<f32> {
    let rank = a.len() / cols.max(1);
    let mut delta = Vec::new();
    for of_output in b.chunks_exact(rank.max(1)) {
        let mut row = vec![0.0f64; cols];
        for (&factor, a) in of_output.iter().zip(a.chunks_exact(cols)) {
            row.iter_mut().zip(a).for_each(|(sum, &a)| *sum += f64::from(factor) * f64::from(a));
        }
        delta.extend(row.into_iter().map(|sum| <f32 as Scalar>::from_f64(scale * sum)));
    }
    delta
}
