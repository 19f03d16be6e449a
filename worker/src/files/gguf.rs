//! The header of a GGUF file: metadata, then what lies where.
//!
//! ```text
//!  ["GGUF"][version u32][tensors u64][entries u64]
//!  entry    [key][type u32][value]              string: [bytes u64][UTF-8]   array: [type u32][count u64][values]
//!  tensor   [name][dimensions u32][each u64, innermost first][type u32][offset u64]
//!  padding to general.alignment, then the data that offsets count from
//! ```
//!
//! Source: ggml, `docs/gguf.md`. Candle's own reader divides by an alignment of 0 and does not say where a file
//! is damaged, so this one counts bytes itself: nothing is allocated that the file does not have left.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{BufReader, Read};
use std::path::Path;

use candle_core::quantized::GgmlDType;

use super::error::{ModelFileError, Problem};
use super::place::{self, Claim, Format, TensorInfo};

/// First bytes of every GGUF file.
pub(super) const MAGIC: &[u8; 4] = b"GGUF";

const DIMENSIONS_MAX: u32 = 4;
const ALIGNMENT_DEFAULT: u64 = 32;

/// A metadata value, as far as it is of use here.
#[derive(Clone, PartialEq)]
pub(crate) enum Value {
    Integer(i128),
    Float(f64),
    Bool(bool),
    Text(String),
    Texts(Vec<String>),
    Integers(Vec<i32>),
    /// An array of something that no loader asks for; its values were passed over.
    Unread,
}

impl std::fmt::Debug for Value {
    /// As errors show it: of a list only what it is a list of, of a text only its begin.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Integer(value) => write!(f, "{value}"),
            Self::Float(value) => write!(f, "{value:?}"),
            Self::Bool(value) => write!(f, "{value}"),
            Self::Text(text) => write!(f, "{:?}", text.chars().take(80).collect::<String>()),
            Self::Texts(texts) => write!(f, "a list of {} strings", texts.len()),
            Self::Integers(integers) => write!(f, "a list of {} integers", integers.len()),
            Self::Unread => f.write_str("a list"),
        }
    }
}

/// Metadata by key.
pub(crate) type Metadata = BTreeMap<String, Value>;

/// What stands before the data.
#[derive(Debug)]
pub(super) struct Header {
    pub(super) metadata: Metadata,
    /// By position; under the file's own names.
    pub(super) tensors: Vec<TensorInfo>,
}

/// Reads the header of a file.
pub(super) fn header(path: &Path) -> Result<Header, ModelFileError> {
    let io = ModelFileError::io(path);
    let file = File::open(path).map_err(&io)?;
    let length = file.metadata().map_err(&io)?.len();
    let mut cursor = Cursor { path, reader: BufReader::new(file), offset: 0, length };
    if &cursor.array::<4>()? != MAGIC {
        return Err(cursor.error("a GGUF file begins with the letters GGUF"));
    }
    let version = cursor.u32()?;
    if !(2..=3).contains(&version) {
        return Err(cursor.error(format!("version {version} of GGUF, supported are 2 and 3")));
    }
    let (tensors, entries) = (cursor.u64()?, cursor.u64()?);
    let mut metadata = Metadata::new();
    for _ in 0..entries {
        let key = cursor.string()?;
        let kind = cursor.u32()?;
        let value = cursor.value(kind)?;
        if metadata.insert(key.clone(), value).is_some() {
            return Err(cursor.error(format!("metadata {key} is there twice")));
        }
    }
    let mut claims = Vec::new();
    for _ in 0..tensors {
        claims.push(cursor.claim()?);
    }
    let alignment = match metadata.get("general.alignment") {
        None => ALIGNMENT_DEFAULT,
        Some(&Value::Integer(found)) if (1..=1 << 20).contains(&found) => u64::try_from(found).unwrap_or(1),
        Some(found) => return Err(cursor.error(format!("general.alignment is {found:?}, allowed are 1 to 2^20"))),
    };
    let data = cursor.offset.next_multiple_of(alignment);
    for claim in &mut claims {
        claim.start = claim.start.saturating_add(data);
    }
    Ok(Header { metadata, tensors: place::check(path, length, claims)? })
}

struct Cursor<'a> {
    path: &'a Path,
    reader: BufReader<File>,
    offset: u64,
    length: u64,
}

impl Cursor<'_> {
    fn error(&self, why: impl Into<String>) -> ModelFileError {
        Problem::Header { offset: self.offset, why: why.into() }.at(self.path)
    }

    /// Refuses `count` things of at least `bytes` each if the file is too short for them.
    fn expect(&self, count: u64, bytes: u64, what: &str) -> Result<u64, ModelFileError> {
        let (left, needed) = (self.length - self.offset, count.saturating_mul(bytes));
        if needed > left {
            return Err(self.error(format!("{what} takes {needed} bytes, {left} are left")));
        }
        Ok(needed)
    }

    fn fill(&mut self, out: &mut [u8]) -> Result<(), ModelFileError> {
        self.reader.read_exact(out).map_err(ModelFileError::io(self.path))?;
        self.offset += out.len() as u64;
        Ok(())
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N], ModelFileError> {
        self.expect(1, N as u64, "a number")?;
        let mut out = [0; N];
        self.fill(&mut out)?;
        Ok(out)
    }

    fn u32(&mut self) -> Result<u32, ModelFileError> {
        self.array().map(u32::from_le_bytes)
    }

    fn u64(&mut self) -> Result<u64, ModelFileError> {
        self.array().map(u64::from_le_bytes)
    }

    fn string(&mut self) -> Result<String, ModelFileError> {
        let bytes = self.u64()?;
        self.expect(bytes, 1, "a string")?;
        let mut text = vec![0; usize::try_from(bytes).map_err(|_| self.error("a string beyond this machine"))?];
        self.fill(&mut text)?;
        String::from_utf8(text).map_err(|error| self.error(format!("a string is not UTF-8: {error}")))
    }

    fn value(&mut self, kind: u32) -> Result<Value, ModelFileError> {
        Ok(match kind {
            0 => Value::Integer(self.array::<1>()?[0].into()),
            1 => Value::Integer(i8::from_le_bytes(self.array()?).into()),
            2 => Value::Integer(u16::from_le_bytes(self.array()?).into()),
            3 => Value::Integer(i16::from_le_bytes(self.array()?).into()),
            4 => Value::Integer(self.u32()?.into()),
            5 => Value::Integer(i32::from_le_bytes(self.array()?).into()),
            6 => Value::Float(f32::from_le_bytes(self.array()?).into()),
            7 => match self.array()? {
                [0] => Value::Bool(false),
                [1] => Value::Bool(true),
                [found] => return Err(self.error(format!("a boolean of {found}, expected 0 or 1"))),
            },
            8 => Value::Text(self.string()?),
            9 => self.values()?,
            10 => Value::Integer(self.u64()?.into()),
            11 => Value::Integer(i64::from_le_bytes(self.array()?).into()),
            12 => Value::Float(f64::from_le_bytes(self.array()?)),
            found => return Err(self.error(format!("value type {found}, known are 0 to 12"))),
        })
    }

    fn values(&mut self) -> Result<Value, ModelFileError> {
        let (kind, count) = (self.u32()?, self.u64()?);
        let bytes = match kind {
            0 | 1 | 7 => 1,
            2 | 3 => 2,
            4..=6 => 4,
            8 | 10..=12 => 8,
            9 => return Err(self.error("an array of arrays, which no model has")),
            found => return Err(self.error(format!("value type {found}, known are 0 to 12"))),
        };
        let needed = self.expect(count, bytes, "an array")?;
        match kind {
            5 => {
                Ok(Value::Integers((0..count).map(|_| self.array().map(i32::from_le_bytes)).collect::<Result<_, _>>()?))
            }
            8 => Ok(Value::Texts((0..count).map(|_| self.string()).collect::<Result<_, _>>()?)),
            _ => {
                let skip = i64::try_from(needed).map_err(|_| self.error("an array beyond this machine"))?;
                self.reader.seek_relative(skip).map_err(ModelFileError::io(self.path))?;
                self.offset += needed;
                Ok(Value::Unread)
            }
        }
    }

    fn claim(&mut self) -> Result<Claim, ModelFileError> {
        let name = self.string()?;
        let dimensions = self.u32()?;
        if dimensions > DIMENSIONS_MAX {
            return Err(self.error(format!("tensor {name} has {dimensions} dimensions, at most {DIMENSIONS_MAX}")));
        }
        let mut shape = (0..dimensions).map(|_| self.u64()).collect::<Result<Vec<_>, _>>()?;
        shape.reverse();
        let kind = self.u32()?;
        let Some(format) = format(kind) else {
            return Err(
                self.error(format!("tensor {name} of shape {shape:?} has type {kind}, supported are {FORMATS}"))
            );
        };
        Ok(Claim { name, shape, format, start: self.u64()?, bytes: None })
    }
}

const FORMATS: &str =
    "F32 (0), F16 (1), Q4_0 (2), Q4_1 (3), Q5_0 (6), Q5_1 (7), Q8_0 (8), Q2_K to Q6_K (10 to 14) and BF16 (30)";

/// The types that Candle can also widen; its Q8_1 and Q8_K exist for products only.
fn format(kind: u32) -> Option<Format> {
    Some(match kind {
        0 => Format::F32,
        1 => Format::F16,
        2 => Format::Quantized(GgmlDType::Q4_0),
        3 => Format::Quantized(GgmlDType::Q4_1),
        6 => Format::Quantized(GgmlDType::Q5_0),
        7 => Format::Quantized(GgmlDType::Q5_1),
        8 => Format::Quantized(GgmlDType::Q8_0),
        10 => Format::Quantized(GgmlDType::Q2K),
        11 => Format::Quantized(GgmlDType::Q3K),
        12 => Format::Quantized(GgmlDType::Q4K),
        13 => Format::Quantized(GgmlDType::Q5K),
        14 => Format::Quantized(GgmlDType::Q6K),
        30 => Format::Bf16,
        _ => return None,
    })
}
