//! The names of classes in a fixed order: a label's index is its row in the head.
//!
//! Workers of one run must agree on it, so the order is a list that is given, or the sorted names of one
//! whole set of records; it is never the order in which labels happen to come.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use super::lines::Lines;
use super::{DataError, Record};

/// Class names by index.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Labels {
    names: Vec<String>,
    index: BTreeMap<String, u32>,
}

impl Labels {
    /// Names in this order.
    ///
    /// # Errors
    /// If there is none, or one is there twice.
    pub fn new(names: Vec<String>) -> Result<Self, DataError> {
        let mut index = BTreeMap::new();
        for (name, n) in names.iter().zip(0..) {
            if let Some(first) = index.insert(name.clone(), n) {
                return Err(DataError::Labels(format!("{name:?} is number {first} and number {n}, from 0")));
            }
        }
        if names.is_empty() {
            return Err(DataError::Labels("there are none".into()));
        }
        Ok(Self { names, index })
    }

    /// A file with one name a line, in the order of the head; blank lines are nothing.
    ///
    /// # Errors
    /// If it cannot be read, or as [`Labels::new`].
    pub fn load(path: &Path) -> Result<Self, DataError> {
        let mut lines = Lines::open(path)?;
        let mut names = Vec::new();
        while let Some(line) = lines.next()? {
            let line = line.map_err(|bad| DataError::Line(Box::new(bad)))?;
            names.extend(Some(line.trim()).filter(|name| !name.is_empty()).map(str::to_owned));
        }
        Self::new(names)
    }

    /// The labels that records have, sorted by their bytes.
    ///
    /// # Errors
    /// If there is none.
    pub fn sorted(records: &[Record]) -> Result<Self, DataError> {
        let names: BTreeSet<&String> = records.iter().filter_map(|record| record.label.as_ref()).collect();
        Self::new(names.into_iter().cloned().collect())
    }

    /// Number of classes.
    #[must_use]
    pub const fn len(&self) -> usize {
        self.names.len()
    }

    /// Whether there are none; never true of labels that were made.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.names.is_empty()
    }

    /// The names by index.
    #[must_use]
    pub fn names(&self) -> &[String] {
        &self.names
    }

    /// The index of a name.
    #[must_use]
    pub fn index(&self, name: &str) -> Option<u32> {
        self.index.get(name).copied()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_order_is_the_list_s_or_sorted_never_that_of_arrival() {
        let record = |label: &str| Record { text: "x".into(), label: Some(label.into()), line: 1, label_column: 1 };
        let sorted = Labels::sorted(&[record("b"), record("a"), record("B"), record("b")]).unwrap();
        assert_eq!(sorted.names(), ["B", "a", "b"]);
        assert_eq!((sorted.index("b"), sorted.index("c"), sorted.len()), (Some(2), None, 3));
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("labels.txt");
        std::fs::write(&path, "z\r\n\ny\n x y \n").unwrap();
        assert_eq!(Labels::load(&path).unwrap().names(), ["z", "y", "x y"]);
        std::fs::write(&path, "z\ny\nz\n").unwrap();
        assert_eq!(Labels::load(&path).unwrap_err().to_string(), "labels: \"z\" is number 0 and number 2, from 0");
        assert_eq!(Labels::sorted(&[]).unwrap_err().to_string(), "labels: there are none");
    }
}
