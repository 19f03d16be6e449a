//! A packed adapter in one file, `*.packfed`: Δ of a whole model, what it belongs to, and how good it was.
//!
//! ```text
//!  magic     "packfed\0"
//!  version   u32, 1
//!  base      32 bytes, the digest of the base model's files
//!  seed      32 bytes, the run's: positions and frequencies follow from it and the layers
//!  state     32 bytes, the digest of the lanes and their layout
//!  layers    u32, then each [name][rows u32][cols u32][B u32][K u32][gain exponent i8]
//!  metrics   u32, then each [name][f64], in the order of their names      name: [bytes u16][UTF-8]
//!  waves     16 bytes a block: its Packed128
//!  lanes     4 bytes a lane: i32 of quantum 2⁻²⁰, a block's x, y, c_0 … c_{K−1} after one another
//!  digest    32 bytes, BLAKE3 over all before
//! ```
//!
//! All numbers are little-endian. The lanes alone are the state, exactly: a Packed128 holds a wave's `z` as two
//! 32-bit floats of a polar form, which cannot tell a large lane's last bits, and no angle at all beyond the gain. The
//! waves are there for what only applies Δ and computes with integers alone; they are checked against the lanes. So a
//! block takes `24 + 4·K` bytes. It knows no tensors, no base weights and no files.

mod error;

use std::collections::BTreeMap;
use std::sync::Arc;

pub use error::AdapterError;

use crate::layout::{Frequency, Layer, LayerSpec, Layout, WAVE_LANES};
use crate::packed::Packed128;
use crate::seed::Seed;
use crate::state::{State, StateDigest};

const MAGIC: &[u8; 8] = b"packfed\0";
const VERSION: u32 = 1;
const DIGEST_BYTES: usize = 32;
const WAVE_BYTES: usize = 16;
const LANE_BYTES: usize = 4;
/// Most layers, and most metrics, of a file; comparing names is quadratic.
const ENTRIES_MAX: u32 = 4096;

/// Hash of a base model's files, the same wherever they lie; also of an adapter's bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct BaseDigest(pub [u8; 32]);

impl std::fmt::Display for BaseDigest {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(blake3::Hash::from_bytes(self.0).to_hex().as_str())
    }
}

/// Δ of a whole model.
#[derive(Clone, Debug, PartialEq)]
pub struct Adapter {
    base: BaseDigest,
    seed: Seed,
    state: State,
    metrics: BTreeMap<String, f64>,
}

impl Adapter {
    /// The state of a run over the base model with this digest, and figures that go with it.
    ///
    /// # Errors
    /// If `seed` is not that of the state's layout, a metric is not finite, or there are more layers, metrics or
    /// bytes of a name than a file takes.
    pub fn new(
        base: BaseDigest,
        seed: Seed,
        state: State,
        metrics: BTreeMap<String, f64>,
    ) -> Result<Self, AdapterError> {
        let specs: Vec<LayerSpec> = state.layout().layers().iter().map(|layer| layer.spec().clone()).collect();
        let entry = |why| Err(AdapterError::Entry { offset: 0, why });
        for name in specs.iter().map(|spec| &spec.name).chain(metrics.keys()) {
            if name.len() > u16::MAX.into() {
                return entry(format!("a name of {} bytes, allowed are {}", name.len(), u16::MAX));
            }
        }
        for count in [specs.len(), metrics.len()] {
            if count > ENTRIES_MAX as usize {
                return entry(format!("{count} layers or metrics, allowed are {ENTRIES_MAX}"));
            }
        }
        if let Some((name, &value)) = metrics.iter().find(|(_, value)| !value.is_finite()) {
            return Err(AdapterError::Metric { name: name.clone(), value });
        }
        if Layout::new(&seed, specs)?.digest() != state.layout().digest() {
            return Err(AdapterError::Seed);
        }
        Ok(Self { base, seed, state, metrics })
    }

    /// Digest of the base model's files.
    #[must_use]
    pub const fn base(&self) -> BaseDigest {
        self.base
    }

    /// The run's seed.
    #[must_use]
    pub const fn seed(&self) -> &Seed {
        &self.seed
    }

    /// Every lane.
    #[must_use]
    pub const fn state(&self) -> &State {
        &self.state
    }

    /// Figures by name.
    #[must_use]
    pub const fn metrics(&self) -> &BTreeMap<String, f64> {
        &self.metrics
    }

    /// The file's bytes; the same adapter gives the same bytes.
    #[must_use]
    pub fn to_bytes(&self) -> Vec<u8> {
        let layers = self.state.layout().layers();
        let mut bytes = Vec::new();
        bytes.extend_from_slice(MAGIC);
        bytes.extend_from_slice(&VERSION.to_le_bytes());
        for digest in [&self.base.0, self.seed.bytes(), &self.state.digest().0] {
            bytes.extend_from_slice(digest);
        }
        put_u32(&mut bytes, layers.len());
        for spec in layers.iter().map(Layer::spec) {
            put_name(&mut bytes, &spec.name);
            for size in [spec.rows, spec.cols, spec.block, spec.residual] {
                put_u32(&mut bytes, size);
            }
            bytes.extend_from_slice(&spec.gain_exponent.to_le_bytes());
        }
        put_u32(&mut bytes, self.metrics.len());
        for (name, value) in &self.metrics {
            put_name(&mut bytes, name);
            bytes.extend_from_slice(&value.to_le_bytes());
        }
        for layer in layers {
            for block in layer.blocks() {
                let (x, y) = self.state.wave(layer, block);
                bytes.extend_from_slice(&Packed128::from_z(x, y, layer.gain(), block.frequency).to_bytes());
            }
        }
        bytes.extend_from_slice(&self.state.to_bytes());
        let digest = digest(&bytes);
        bytes.extend_from_slice(&digest.0);
        bytes
    }

    /// The inverse of [`Adapter::to_bytes`]. Allocates in proportion to the bytes given, and nothing before their
    /// digest is known to be right.
    ///
    /// # Errors
    /// If a byte is missing, too many or changed, or if what they say does not fit together.
    pub fn from_bytes(bytes: &[u8]) -> Result<Self, AdapterError> {
        let mut cursor = Cursor { bytes, offset: 0 };
        if cursor.array(MAGIC_WHAT)? != *MAGIC {
            return Err(AdapterError::Magic);
        }
        let version = cursor.u32("the version")?;
        if version != VERSION {
            return Err(AdapterError::Version(version));
        }
        let Some((body, expected)) = bytes.split_last_chunk::<DIGEST_BYTES>().filter(|(body, _)| body.len() >= 12)
        else {
            return Err(cursor.short("the digest", DIGEST_BYTES as u64));
        };
        let (found, expected) = (digest(body), BaseDigest(*expected));
        if found != expected {
            return Err(AdapterError::Digest { found, expected });
        }
        cursor.bytes = body;
        let [base, seed, state] = [cursor.array(DIGEST)?, cursor.array(DIGEST)?, cursor.array(DIGEST)?];
        let (specs, metrics) = (cursor.layers()?, cursor.metrics()?);
        let (seed, expected) = (Seed::from_bytes(seed), StateDigest(state));
        let waves = cursor.waves_and_lanes(&specs)?;
        let layout = Arc::new(Layout::new(&seed, specs)?);
        let (waves, lanes) = body[cursor.offset..].split_at(waves);
        let short = |_| cursor.short("the lanes", (layout.lanes() * LANE_BYTES) as u64);
        let state = State::from_bytes(layout.clone(), lanes).map_err(short)?;
        let found = state.digest();
        if found != expected {
            return Err(AdapterError::State { found, expected });
        }
        check_waves(cursor.offset, waves, &state)?;
        Ok(Self { base: BaseDigest(base), seed, state, metrics })
    }
}

const MAGIC_WHAT: &str = "the first 8 bytes";
const DIGEST: &str = "a digest";

fn digest(bytes: &[u8]) -> BaseDigest {
    BaseDigest(blake3::derive_key("packfed/adapter/1", bytes))
}

fn put_u32(bytes: &mut Vec<u8>, value: usize) {
    let value = u32::try_from(value).expect("a layout's sizes and an adapter's counts fit 32 bits");
    bytes.extend_from_slice(&value.to_le_bytes());
}

fn put_name(bytes: &mut Vec<u8>, name: &str) {
    let length = u16::try_from(name.len()).expect("Adapter::new has checked the names");
    bytes.extend_from_slice(&length.to_le_bytes());
    bytes.extend_from_slice(name.as_bytes());
}

/// Every wave is that of its block, up to what its two seeds round off.
fn check_waves(offset: usize, waves: &[u8], state: &State) -> Result<(), AdapterError> {
    let mut places = waves.as_chunks().0.iter().zip((offset..).step_by(WAVE_BYTES));
    for layer in state.layout().layers() {
        let (gain, name) = (layer.gain(), &layer.spec().name);
        for (n, block) in layer.blocks().iter().enumerate() {
            let Some((&bytes, offset)) = places.next() else { break };
            let wave = Packed128::from_bytes(bytes);
            let wave = wave.map_err(|source| AdapterError::Wave { offset, layer: name.clone(), block: n, source })?;
            if !is_wave_of(wave, state.wave(layer, block), gain, block.frequency) {
                return Err(AdapterError::Apart { offset, layer: name.clone(), block: n });
            }
        }
    }
    Ok(())
}

/// Seed0 is Seed1's, to the bit, and Seed1 the lanes' as near as two 32-bit floats come.
fn is_wave_of(wave: Packed128, (x, y): (f64, f64), gain: f64, frequency: Frequency) -> bool {
    let (r, theta) = wave.polar();
    let length = x.hypot(y);
    let held = if length > gain { gain / length } else { 1.0 };
    let (x, y) = (held * x, held * y);
    let (a, b) = wave.z(gain);
    Packed128::new(r, theta, frequency) == Ok(wave) && (a - x).hypot(b - y) <= x.hypot(y) * SEED1_PRECISION
}

/// Half a unit in the last place of an angle below 2π is 2⁻²² of it, and of a radius less.
const SEED1_PRECISION: f64 = 1.0 / (1 << 20) as f64;

struct Cursor<'a> {
    bytes: &'a [u8],
    offset: usize,
}

impl<'a> Cursor<'a> {
    fn short(&self, what: &'static str, needed: u64) -> AdapterError {
        AdapterError::Short { offset: self.offset, what, needed, left: self.bytes.len() - self.offset }
    }

    fn take(&mut self, count: usize, what: &'static str) -> Result<&'a [u8], AdapterError> {
        let Some((taken, _)) = self.bytes[self.offset..].split_at_checked(count) else {
            return Err(self.short(what, count as u64));
        };
        self.offset += count;
        Ok(taken)
    }

    fn array<const N: usize>(&mut self, what: &'static str) -> Result<[u8; N], AdapterError> {
        let mut array = [0; N];
        array.copy_from_slice(self.take(N, what)?);
        Ok(array)
    }

    fn u32(&mut self, what: &'static str) -> Result<u32, AdapterError> {
        self.array(what).map(u32::from_le_bytes)
    }

    fn size(&mut self, what: &'static str) -> Result<usize, AdapterError> {
        Ok(usize::try_from(self.u32(what)?).unwrap_or(usize::MAX))
    }

    fn count(&mut self, what: &'static str) -> Result<u32, AdapterError> {
        let offset = self.offset;
        let count = self.u32(what)?;
        if count > ENTRIES_MAX {
            return Err(AdapterError::Entry { offset, why: format!("{what} is {count}, allowed are {ENTRIES_MAX}") });
        }
        Ok(count)
    }

    fn name(&mut self, what: &'static str) -> Result<String, AdapterError> {
        let offset = self.offset;
        let length = u16::from_le_bytes(self.array(what)?);
        let text = str::from_utf8(self.take(length.into(), what)?);
        text.map(ToOwned::to_owned).map_err(|error| AdapterError::Entry { offset, why: format!("{what}: {error}") })
    }

    fn layers(&mut self) -> Result<Vec<LayerSpec>, AdapterError> {
        let count = self.count("the number of layers")?;
        let mut specs = Vec::new();
        for _ in 0..count {
            specs.push(LayerSpec {
                name: self.name("a layer's name")?,
                rows: self.size("a layer's rows")?,
                cols: self.size("a layer's columns")?,
                block: self.size("a layer's block edge")?,
                residual: self.size("a layer's residual positions")?,
                gain_exponent: i8::from_le_bytes(self.array("a layer's gain exponent")?),
            });
        }
        Ok(specs)
    }

    fn metrics(&mut self) -> Result<BTreeMap<String, f64>, AdapterError> {
        let count = self.count("the number of metrics")?;
        let mut metrics: BTreeMap<String, f64> = BTreeMap::new();
        for _ in 0..count {
            let offset = self.offset;
            let name = self.name("a metric's name")?;
            let value = f64::from_le_bytes(self.array("a metric's value")?);
            if !value.is_finite() {
                return Err(AdapterError::Metric { name, value });
            }
            if let Some((last, _)) = metrics.last_key_value()
                && *last >= name
            {
                return Err(AdapterError::Entry { offset, why: format!("metric {name:?} comes after {last:?}") });
            }
            metrics.insert(name, value);
        }
        Ok(metrics)
    }

    /// Bytes of the waves; that they and the lanes are all that is left is known before a layout is made of them.
    fn waves_and_lanes(&self, specs: &[LayerSpec]) -> Result<usize, AdapterError> {
        let (mut blocks, mut lanes) = (0u64, 0u64);
        for spec in specs {
            for (rows, down) in edges(spec.rows, spec.block) {
                for (cols, across) in edges(spec.cols, spec.block) {
                    let (count, area) = (down.saturating_mul(across), rows.saturating_mul(cols));
                    let residual = (spec.residual as u64).min(area);
                    blocks = blocks.saturating_add(count);
                    lanes = lanes.saturating_add(count.saturating_mul(WAVE_LANES as u64 + residual));
                }
            }
        }
        let of_waves = blocks.saturating_mul(WAVE_BYTES as u64);
        let needed = of_waves.saturating_add(lanes.saturating_mul(LANE_BYTES as u64));
        let found = self.bytes.len() - self.offset;
        if needed != found as u64 {
            return Err(AdapterError::Length { offset: self.offset, blocks, lanes, needed, found });
        }
        Ok(usize::try_from(of_waves).unwrap_or(usize::MAX))
    }
}

/// Lengths of the parts that an edge is cut into, and how often each comes: whole ones, and the rest if there is one.
fn edges(length: usize, block: usize) -> impl Iterator<Item = (u64, u64)> {
    let block = block.max(1);
    [(block as u64, (length / block) as u64), ((length % block) as u64, 1)].into_iter().filter(|&(part, _)| part > 0)
}

#[cfg(test)]
mod tests;
