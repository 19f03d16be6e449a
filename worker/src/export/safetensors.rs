//! A safetensors file written front to back: its header is known before any tensor is.
//!
//! Source: huggingface/safetensors, "Format". It knows no models.

use std::io::{self, Write};

use half::{bf16, f16};
use serde_json::{Map, Value as Json, json};

/// How the floats of a model are written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Floats {
    /// 32 bits.
    F32,
    /// IEEE 754 half precision: 11 bits of precision, up to 65,504.
    F16,
    /// The upper half of a 32-bit float: 8 bits of precision, the same range.
    Bf16,
}

impl Floats {
    /// Bytes of one.
    #[must_use]
    pub const fn bytes(self) -> usize {
        match self {
            Self::F32 => 4,
            Self::F16 | Self::Bf16 => 2,
        }
    }

    /// The name that `config.json` has for it.
    #[must_use]
    pub const fn torch_name(self) -> &'static str {
        match self {
            Self::F32 => "float32",
            Self::F16 => "float16",
            Self::Bf16 => "bfloat16",
        }
    }

    const fn header_name(self) -> &'static str {
        match self {
            Self::F32 => "F32",
            Self::F16 => "F16",
            Self::Bf16 => "BF16",
        }
    }

    /// Appends the nearest float of this kind, little-endian; `false`, and nothing, if a finite value leaves the range.
    fn put(self, value: f32, bytes: &mut Vec<u8>) -> bool {
        let finite = match self {
            Self::F32 => true,
            Self::F16 => f16::from_f32(value).is_finite(),
            Self::Bf16 => bf16::from_f32(value).is_finite(),
        };
        if value.is_finite() && !finite {
            return false;
        }
        match self {
            Self::F32 => bytes.extend_from_slice(&value.to_le_bytes()),
            Self::F16 => bytes.extend_from_slice(&f16::from_f32(value).to_le_bytes()),
            Self::Bf16 => bytes.extend_from_slice(&bf16::from_f32(value).to_le_bytes()),
        }
        true
    }
}

/// What stands before the values of these tensors, named and shaped, in this order.
pub(super) fn header<'a>(tensors: impl Iterator<Item = (&'a str, &'a [usize])>, floats: Floats) -> Vec<u8> {
    let mut entries = Map::new();
    // `transformers` refuses a file that does not say so.
    entries.insert("__metadata__".into(), json!({ "format": "pt" }));
    let mut start = 0;
    for (name, shape) in tensors {
        let end = start + shape.iter().product::<usize>() * floats.bytes();
        let entry = json!({ "dtype": floats.header_name(), "shape": shape, "data_offsets": [start, end] });
        entries.insert(name.to_owned(), entry);
        start = end;
    }
    let mut json = Json::Object(entries).to_string().into_bytes();
    json.resize(json.len().next_multiple_of(8), b' ');
    let mut header = (json.len() as u64).to_le_bytes().to_vec();
    header.extend_from_slice(&json);
    header
}

/// Why values were not written.
#[derive(Debug)]
pub(super) enum ValueError {
    /// A finite value that the kind of float cannot hold.
    Range(f32),
    Io(io::Error),
}

/// Values converted and written a few at a time.
pub(super) fn write_values(
    out: &mut impl Write,
    values: impl Iterator<Item = f32>,
    floats: Floats,
) -> Result<(), ValueError> {
    let mut bytes = Vec::with_capacity(AT_A_TIME);
    for value in values {
        if !floats.put(value, &mut bytes) {
            return Err(ValueError::Range(value));
        }
        if bytes.len() == AT_A_TIME {
            out.write_all(&bytes).map_err(ValueError::Io)?;
            bytes.clear();
        }
    }
    out.write_all(&bytes).map_err(ValueError::Io)
}

/// Bytes that are converted at a time; a multiple of every float's.
const AT_A_TIME: usize = 1 << 16;

#[cfg(test)]
mod tests {
    use safetensors::SafeTensors;

    use super::*;

    #[test]
    fn the_file_is_one_that_the_package_reads() {
        let tensors =
            [("b", vec![2usize, 2], vec![1.0f32, -2.5, 3.0, 0.0]), ("a", vec![3], vec![0.5, 0.25, -65_504.0])];
        for floats in [Floats::F32, Floats::F16, Floats::Bf16] {
            let mut file = header(tensors.iter().map(|(name, shape, _)| (*name, shape.as_slice())), floats);
            assert_eq!(file.len() % 8, 0);
            for (.., values) in &tensors {
                write_values(&mut file, values.iter().copied(), floats).unwrap();
            }
            let read = SafeTensors::deserialize(&file).unwrap();
            for (name, shape, values) in &tensors {
                let tensor = read.tensor(name).unwrap();
                assert_eq!((tensor.shape(), tensor.data().len()), (shape.as_slice(), values.len() * floats.bytes()));
            }
            let last = read.tensor("a").unwrap().data()[2 * floats.bytes()..].to_vec();
            let expected = match floats {
                Floats::F32 => (-65_504f32).to_le_bytes().to_vec(),
                Floats::F16 => f16::MIN.to_le_bytes().to_vec(),
                Floats::Bf16 => bf16::from_f32(-65_504.0).to_le_bytes().to_vec(),
            };
            assert_eq!(last, expected);
        }
    }

    #[test]
    fn a_value_beyond_the_range_is_refused_and_an_infinite_one_is_what_it_was() {
        let write = |value: f32, floats| write_values(&mut Vec::new(), [value].into_iter(), floats);
        assert!(matches!(write(70_000.0, Floats::F16), Err(ValueError::Range(70_000.0))));
        assert!(matches!(write(f32::MAX, Floats::Bf16), Err(ValueError::Range(_))));
        assert!(write(70_000.0, Floats::Bf16).is_ok() && write(f32::INFINITY, Floats::F16).is_ok());
    }
}
