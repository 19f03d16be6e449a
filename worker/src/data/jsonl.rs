//! JSON lines: an object on every line, the text and the label by the names of their fields.

use std::fmt;
use std::path::Path;

use serde::Deserializer as _;
use serde::de::{DeserializeSeed, Error as _, IgnoredAny, MapAccess, Visitor};

use super::lines::Lines;
use super::{BadLine, DataError, DataSource, Record};

/// A file of JSON lines; blank lines are nothing.
#[derive(Debug)]
pub struct JsonlSource {
    lines: Lines,
    text: String,
    label: Option<String>,
}

impl JsonlSource {
    /// Opens a file whose objects have a string `text` and, if named, a `label`: a string, an integer or a boolean.
    ///
    /// # Errors
    /// If it cannot be opened.
    pub fn open(path: &Path, text: &str, label: Option<&str>) -> Result<Self, DataError> {
        Ok(Self { lines: Lines::open(path)?, text: text.into(), label: label.map(Into::into) })
    }

    fn record(&self, line: &str) -> Result<Record, BadLine> {
        let fields = Fields { text: &self.text, label: self.label.as_deref() };
        let mut deserializer = serde_json::Deserializer::from_str(line);
        let parsed = deserializer.deserialize_map(fields).and_then(|found| deserializer.end().map(|()| found));
        let bad = |column: usize, found: String| {
            let label = self.label.as_ref().map_or(String::new(), |label| format!(" and a field {label:?}"));
            let expected = format!("an object with a string {:?}{label}", self.text);
            self.lines.bad(column as u64, found, expected)
        };
        let (text, label) = parsed.map_err(|error| {
            let found = error.to_string();
            let found = found.split(" at line ").next().unwrap_or_default();
            bad(error.column().max(1), found.to_owned())
        })?;
        if text.trim().is_empty() {
            return Err(bad(1, format!("an empty {:?}", self.text)));
        }
        Ok(Record { text, label, line: self.lines.number, label_column: 1 })
    }
}

impl DataSource for JsonlSource {
    fn path(&self) -> &Path {
        &self.lines.path
    }

    fn next(&mut self) -> Result<Option<Result<Record, BadLine>>, DataError> {
        while let Some(line) = self.lines.next()? {
            match line {
                Ok(line) if line.trim().is_empty() => {}
                Ok(line) => return Ok(Some(self.record(&line))),
                Err(bad) => return Ok(Some(Err(bad))),
            }
        }
        Ok(None)
    }
}

/// Takes two fields out of an object and passes over the others; errors have the column where they stand.
struct Fields<'a> {
    text: &'a str,
    label: Option<&'a str>,
}

impl<'de> Visitor<'de> for Fields<'_> {
    type Value = (String, Option<String>);

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
        let (mut text, mut label) = (None, None);
        while let Some(key) = map.next_key::<String>()? {
            let twice = || A::Error::custom(format!("field {key:?} twice"));
            if key == self.text {
                if text.replace(map.next_value::<String>()?).is_some() {
                    return Err(twice());
                }
            } else if Some(key.as_str()) == self.label {
                if label.replace(map.next_value_seed(LabelSeed)?).is_some() {
                    return Err(twice());
                }
            } else {
                map.next_value::<IgnoredAny>()?;
            }
        }
        let missing = |name: &str| A::Error::custom(format!("no field {name:?}"));
        if let Some(name) = self.label.filter(|_| label.is_none()) {
            return Err(missing(name));
        }
        Ok((text.ok_or_else(|| missing(self.text))?, label))
    }
}

struct LabelSeed;

impl<'de> DeserializeSeed<'de> for LabelSeed {
    type Value = String;

    fn deserialize<D: serde::Deserializer<'de>>(self, deserializer: D) -> Result<String, D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl Visitor<'_> for LabelSeed {
    type Value = String;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a label: a string, an integer or a boolean")
    }

    fn visit_str<E>(self, value: &str) -> Result<String, E> {
        Ok(value.to_owned())
    }

    fn visit_u64<E>(self, value: u64) -> Result<String, E> {
        Ok(value.to_string())
    }

    fn visit_i64<E>(self, value: i64) -> Result<String, E> {
        Ok(value.to_string())
    }

    fn visit_bool<E>(self, value: bool) -> Result<String, E> {
        Ok(value.to_string())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::data::{BadLines, read_all};

    fn read(content: &[u8], bad_lines: BadLines) -> Result<(Vec<Record>, u64), DataError> {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("data.jsonl");
        std::fs::write(&path, content).unwrap();
        read_all(&mut JsonlSource::open(&path, "q", Some("intent"))?, bad_lines)
    }

    #[test]
    fn fields_are_found_by_name_among_others() {
        let content = "{\"id\":[1,{\"q\":0}],\"q\":\"häé\\n\",\"intent\":\"a\"}\r\n\n{\"intent\":-3,\"q\":\"x\"}\n{\"intent\":true,\"q\":\"y\"}";
        let (records, skipped) = read(content.as_bytes(), BadLines::Stop).unwrap();
        let found: Vec<_> = records.iter().map(|r| (r.text.as_str(), r.label.as_deref().unwrap(), r.line)).collect();
        assert_eq!(found, [("häé\n", "a", 1), ("x", "-3", 3), ("y", "true", 4)]);
        assert_eq!(skipped, 0);
    }

    #[test]
    fn a_bad_line_is_named_with_its_place_and_what_was_expected() {
        let good = "{\"q\":\"x\",\"intent\":\"a\"}\n";
        let cases: [(&[u8], &str); 9] = [
            (b"{\"q\":3,\"intent\":\"a\"}", "2:6: invalid type: integer `3`, expected a string"),
            (b"{\"q\":\"x\",\"intent\":[1]}", "2:19: invalid type: sequence, expected a label"),
            (b"{\"q\":\"x\"}", "2:9: no field \"intent\""),
            (b"{\"intent\":\"a\"}", "2:14: no field \"q\""),
            (b"{\"q\":\"x\",\"q\":\"x\",\"intent\":\"a\"}", "2:16: field \"q\" twice"),
            (b"{\"q\":\"x\",\"intent\":\"a\"} x", "2:24: trailing characters"),
            (b"{\"q\":\"x", "2:7: EOF while parsing a string"),
            (b"[1]", "2:1: invalid type: sequence, expected an object"),
            (b"{\"q\":\"\xff\"}", "2:7: byte 0xff, expected UTF-8"),
        ];
        for (line, expected) in cases {
            let content = [good.as_bytes(), line].concat();
            let error = read(&content, BadLines::Stop).unwrap_err().to_string();
            let place = error.split_once("data.jsonl:").unwrap().1;
            assert!(place.starts_with(expected), "{place}\n{expected}");
            let (records, skipped) = read(&content, BadLines::Skip).unwrap();
            assert_eq!((records.len(), skipped), (1, 1));
        }
    }
}
