//! What a layer's weights are made of: floats, int8 with straight-through rounding, or cyclic codes.
//!
//! A kind of weights tells the training loop three things: the weights of a step, the variables that Adam moves with
//! their gradients, and the bytes that are stored. It knows nothing of networks, batches or losses.

use anyhow::{Result, bail, ensure};
use candle_core::{CpuStorage, Device, Storage, Tensor, Var};
use clap::ValueEnum;
use packfed_codec::family::cyclic::{Code, Code8, Code16, CodedLayer, Parameters, Path, Quantizer};
use packfed_worker::local::flat_values;

use super::training::Setting;

/// What the weights are made of.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Method {
    /// Floats of 32 bits.
    F32,
    /// Plain quantization-aware training: a symmetric scale a row, the row's largest weight over 127.
    Int8,
    /// Cyclic codes of 8 bits.
    Cyclic8,
    /// Cyclic codes of 16 bits.
    Cyclic16,
}

impl Method {
    /// All methods, as they are printed.
    pub(crate) const ALL: [Self; 4] = [Self::F32, Self::Int8, Self::Cyclic8, Self::Cyclic16];

    /// As on the command line.
    pub(crate) fn name(self) -> String {
        self.to_possible_value().map_or_else(String::new, |value| value.get_name().to_owned())
    }

    /// Adam's rate for the weights of this kind, as tuned: see the command's help.
    pub(crate) const fn rate(self) -> f32 {
        match self {
            Self::Int8 => 3e-3,
            Self::F32 | Self::Cyclic8 => 1e-3,
            Self::Cyclic16 => 3e-4,
        }
    }

    /// Weights of this kind that start at given ones, outputs×inputs.
    pub(crate) fn start(self, weights: &[f32], inputs: usize, setting: &Setting) -> Result<Box<dyn Weights>> {
        let rate = setting.rate(self);
        Ok(match self {
            Self::F32 => Box::new(Floats { values: variable(weights)?, rate }),
            Self::Int8 => Box::new(Int8 { values: variable(weights)?, inputs, rate }),
            Self::Cyclic8 => Box::new(Cyclic::<Code8>::new(weights, inputs, setting, rate)?),
            Self::Cyclic16 => Box::new(Cyclic::<Code16>::new(weights, inputs, setting, rate)?),
        })
    }
}

/// One layer's weights while they train.
pub(crate) trait Weights {
    /// What Adam moves, each with its rate.
    fn variables(&self) -> Vec<(Var, f32)>;

    /// The weights of a step's forward pass, outputs×inputs.
    fn forward(&mut self, step: u32) -> Result<Vec<f32>>;

    /// Gradients of [`Weights::variables`] from the gradient of the weights that the last forward pass had.
    fn backward(&self, gradient: &[f32]) -> Vec<Vec<f32>>;

    /// The layer as it is stored, and the weights that these bytes decode to.
    fn stored(&mut self) -> Result<(Vec<u8>, Vec<f32>)>;
}

fn variable(values: &[f32]) -> Result<Var> {
    Ok(Var::from_tensor(&Tensor::from_slice(values, values.len(), &Device::Cpu)?)?)
}

fn values(variable: &Var) -> Result<Vec<f32>> {
    Ok(flat_values(std::slice::from_ref(variable))?)
}

/// Copies a vector's values, without the copy between that Candle makes.
fn copy(variable: &Var, values: &mut [f32]) -> Result<()> {
    let (storage, layout) = variable.storage_and_layout();
    let (Storage::Cpu(CpuStorage::F32(stored)), Some((start, end))) = (&*storage, layout.contiguous_offsets()) else {
        bail!("a trained variable is not a vector of f32 on the CPU");
    };
    values.copy_from_slice(&stored[start..end]);
    Ok(())
}

struct Floats {
    values: Var,
    rate: f32,
}

impl Weights for Floats {
    fn variables(&self) -> Vec<(Var, f32)> {
        vec![(self.values.clone(), self.rate)]
    }

    fn forward(&mut self, _: u32) -> Result<Vec<f32>> {
        values(&self.values)
    }

    fn backward(&self, gradient: &[f32]) -> Vec<Vec<f32>> {
        vec![gradient.to_vec()]
    }

    fn stored(&mut self) -> Result<(Vec<u8>, Vec<f32>)> {
        let values = values(&self.values)?;
        Ok((values.iter().flat_map(|value| value.to_le_bytes()).collect(), values))
    }
}

struct Int8 {
    values: Var,
    inputs: usize,
    rate: f32,
}

impl Int8 {
    /// Every row's scale and integers.
    fn rows(&self) -> Result<Vec<(f32, Vec<i8>)>> {
        let quantized = |row: &[f32]| {
            let largest = row.iter().fold(f32::MIN_POSITIVE, |largest, value| largest.max(value.abs()));
            let scale = largest / 127.0;
            #[expect(clippy::cast_possible_truncation, reason = "at most 127 by the choice of the scale")]
            let codes = row.iter().map(|value| (value / scale).round_ties_even() as i8).collect();
            (scale, codes)
        };
        Ok(values(&self.values)?.chunks_exact(self.inputs).map(quantized).collect())
    }
}

fn decoded(rows: &[(f32, Vec<i8>)]) -> Vec<f32> {
    rows.iter().flat_map(|(scale, codes)| codes.iter().map(move |&code| scale * f32::from(code))).collect()
}

impl Weights for Int8 {
    fn variables(&self) -> Vec<(Var, f32)> {
        vec![(self.values.clone(), self.rate)]
    }

    fn forward(&mut self, _: u32) -> Result<Vec<f32>> {
        Ok(decoded(&self.rows()?))
    }

    fn backward(&self, gradient: &[f32]) -> Vec<Vec<f32>> {
        vec![gradient.to_vec()]
    }

    fn stored(&mut self) -> Result<(Vec<u8>, Vec<f32>)> {
        let rows = self.rows()?;
        let scales = rows.iter().flat_map(|(scale, _)| scale.to_le_bytes());
        let codes = rows.iter().flat_map(|(_, codes)| codes.iter().flat_map(|code| code.to_le_bytes()));
        Ok((scales.chain(codes).collect(), decoded(&rows)))
    }
}

/// The quantizer, and its parameters once more as variables.
struct Cyclic<C> {
    quantizer: Quantizer<C>,
    variables: Parameters<Var>,
    rates: Parameters<f32>,
    every: u32,
    path: Path,
}

/// Rate of angles and radii by that of weights: it moves a weight as far, as a scale is about a twentieth at first.
const PER_RATE: f32 = 20.0;

impl<C: Code> Cyclic<C> {
    fn new(weights: &[f32], inputs: usize, setting: &Setting, rate: f32) -> Result<Self> {
        let quantizer = Quantizer::from_weights(setting.map, inputs, weights)?;
        let Parameters { angles, radii, log_scales } = quantizer.parameters();
        let variables =
            Parameters { angles: variable(angles)?, radii: variable(radii)?, log_scales: variable(log_scales)? };
        let rates = Parameters { angles: PER_RATE * rate, radii: PER_RATE * rate, log_scales: rate };
        Ok(Self { quantizer, variables, rates, every: setting.every, path: Path::Codes })
    }

    /// Brings the quantizer to where Adam has moved the variables.
    fn follow(&mut self) -> Result<()> {
        let parameters = self.quantizer.parameters_mut();
        copy(&self.variables.angles, parameters.angles)?;
        copy(&self.variables.radii, parameters.radii)?;
        copy(&self.variables.log_scales, parameters.log_scales)
    }
}

impl<C: Code> Weights for Cyclic<C> {
    fn variables(&self) -> Vec<(Var, f32)> {
        let Parameters { angles, radii, log_scales } = &self.variables;
        let with_rate = |variable: &Var, rate| (variable.clone(), rate);
        vec![
            with_rate(angles, self.rates.angles),
            with_rate(radii, self.rates.radii),
            with_rate(log_scales, self.rates.log_scales),
        ]
    }

    fn forward(&mut self, step: u32) -> Result<Vec<f32>> {
        self.follow()?;
        self.path = if step.is_multiple_of(self.every) { Path::Codes } else { Path::Continuous };
        if self.path == Path::Codes {
            self.quantizer.requantize();
        }
        let mut weights = vec![0.0; self.quantizer.codes().len()];
        self.quantizer.weights(self.path, &mut weights);
        Ok(weights)
    }

    fn backward(&self, gradient: &[f32]) -> Vec<Vec<f32>> {
        let Parameters { angles, radii, log_scales } = self.quantizer.backward(self.path, gradient);
        vec![angles, radii, log_scales]
    }

    fn stored(&mut self) -> Result<(Vec<u8>, Vec<f32>)> {
        let trained = self.forward(0)?;
        let bytes = self.quantizer.layer()?.to_bytes();
        let mut weights = vec![0.0; trained.len()];
        CodedLayer::<C>::from_bytes(&bytes, trained.len())?.decode(&mut weights)?;
        ensure!(weights == trained, "the stored codes are not the trained weights");
        Ok((bytes, weights))
    }
}
