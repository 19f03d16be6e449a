//! Lengths of time as people write them: `500ms`, `30s`, `10m`, `2h`, `1d`.

use std::fmt;
use std::str::FromStr;

/// A length of time.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Milliseconds(pub(super) u64);

/// The units, the longest first.
const UNITS: [(&str, u64); 5] = [("d", 86_400_000), ("h", 3_600_000), ("m", 60_000), ("s", 1_000), ("ms", 1)];
/// The longest: a hundred years.
const MAX: u64 = 100 * 365 * 86_400_000;

impl FromStr for Milliseconds {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let wrong =
            || format!("{text:?} is no length of time; write a number and ms, s, m, h or d, such as 500ms or 2h");
        let digits = text.find(|c: char| !c.is_ascii_digit()).ok_or_else(wrong)?;
        let (number, unit) = text.split_at(digits);
        let (_, of_unit) = UNITS.iter().find(|(name, _)| *name == unit).ok_or_else(wrong)?;
        if number.is_empty() {
            return Err(wrong());
        }
        let long = || format!("{text:?} is longer than 36500d, which is the most");
        let number: u64 = number.parse().map_err(|_| long())?;
        number.checked_mul(*of_unit).filter(|ms| *ms <= MAX).map(Self).ok_or_else(long)
    }
}

impl fmt::Display for Milliseconds {
    /// In the longest unit that leaves no rest.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let unit = UNITS.iter().find(|(_, of_unit)| self.0 >= *of_unit && self.0.is_multiple_of(*of_unit));
        let (name, of_unit) = unit.unwrap_or(&("s", 1_000));
        f.pad(&format!("{}{name}", self.0 / of_unit))
    }
}

impl Milliseconds {
    /// In the longest unit that is not longer, without the rest.
    pub(super) fn roughly(self) -> String {
        let unit = UNITS[..4].iter().find(|(_, of_unit)| self.0 >= *of_unit);
        let (name, of_unit) = unit.unwrap_or(&("s", 1_000));
        format!("{}{name}", self.0 / of_unit)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lengths_are_read_and_written() {
        for (text, ms) in [("500ms", 500), ("30s", 30_000), ("10m", 600_000), ("2h", 7_200_000), ("1d", 86_400_000)] {
            assert_eq!(text.parse(), Ok(Milliseconds(ms)));
            assert_eq!(Milliseconds(ms).to_string(), text);
        }
        assert_eq!(Milliseconds(0).to_string(), "0s");
        assert_eq!(Milliseconds(90_000).to_string(), "90s");
        assert_eq!((Milliseconds(90_000).roughly(), Milliseconds(7).roughly()), ("1m".to_owned(), "0s".to_owned()));
    }

    #[test]
    fn what_is_no_length_is_named_with_what_would_be_one() {
        for text in ["", "10", "m", "1.5h", "-1s", "1 h", "10min"] {
            let error = text.parse::<Milliseconds>().unwrap_err();
            assert!(error.starts_with(&format!("{text:?} is no length of time")), "{error}");
        }
        let error = "36501d".parse::<Milliseconds>().unwrap_err();
        assert_eq!(error, "\"36501d\" is longer than 36500d, which is the most");
        assert!("99999999999999999999s".parse::<Milliseconds>().is_err());
    }
}
