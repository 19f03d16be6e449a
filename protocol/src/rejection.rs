//! What is said to a peer whose fault it is.
//!
//! A rejection is theirs: it has a code that is counted, travels, and never changes its meaning,
//! and a detail for people. It is not for our own faults and not for bugs, and it does not decide
//! what happens to the peer.

use std::fmt;

use serde::de::Error as _;
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use thiserror::Error;

use crate::frame::FrameError;
use crate::limits::{self, DETAIL_BYTES_MAX};
use crate::wire::DecodeError;

/// Defines the codes from their one table: number, name, meaning.
macro_rules! rejection_codes {
    ($($(#[$meta:meta])* $variant:ident = $number:literal, $name:literal;)*) => {
        /// Why something was refused.
        ///
        /// This is the only table of these numbers. A number is never used again: when a code
        /// goes, its number stays here in a comment. In between is room for codes of a kind:
        /// 1–9 bytes, 10–19 who, 20–29 which and what.
        ///
        /// `Display` and human-readable formats use the kebab-case name, the wire the number.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
        #[repr(u16)]
        pub enum RejectionCode {
            $($(#[$meta])* $variant = $number,)*
        }

        impl RejectionCode {
            /// Every code, in the order of the numbers.
            pub const ALL: &'static [RejectionCode] = &[$(RejectionCode::$variant),*];

            /// The kebab-case name.
            pub fn name(self) -> &'static str {
                match self {
                    $(RejectionCode::$variant => $name,)*
                }
            }
        }
    };
}

rejection_codes! {
    /// The bytes end too early.
    Truncated = 1, "truncated";
    /// Something is larger than its bound.
    Oversized = 2, "oversized";
    /// The bytes go on after the end.
    LeftOver = 3, "left-over";
    /// No frame has this type.
    UnknownType = 4, "unknown-type";
    /// The frame is of another version of the protocol.
    UnknownVersion = 5, "unknown-version";
    /// The bytes are no message.
    Malformed = 6, "malformed";
    /// The payload is not kept any more.
    PayloadGone = 7, "payload-gone";
    /// The signature is not the sender's over this header.
    BadSignature = 10, "bad-signature";
    /// The payload is not the one that was signed.
    PayloadDigest = 11, "payload-digest";
    /// The key does not stand in the registry.
    UnknownWorker = 12, "unknown-worker";
    /// The key stands in the registry, but may not take part for now.
    Suspended = 13, "suspended";
    /// The enrolment token is unknown or was used.
    BadToken = 14, "bad-token";
    /// The key stands in the registry, but may never take part again.
    Revoked = 15, "revoked";
    /// The worker does not state what the run requires of one.
    Ineligible = 16, "ineligible";
    /// The worker took part a short while ago.
    TooSoon = 17, "too-soon";
    /// The run has enough workers for now.
    NotNeeded = 18, "not-needed";
    /// The key may ask, but not order this.
    Forbidden = 19, "forbidden";
    /// It is for another run.
    WrongRun = 20, "wrong-run";
    /// It is for another round.
    Replayed = 21, "replayed";
    /// It was trained from a base that is too old.
    StaleBase = 22, "stale-base";
    /// It is of another layout of blocks and words.
    WrongLayout = 23, "wrong-layout";
    /// It has another number of words than the layout has blocks.
    WrongBlockCount = 24, "wrong-block-count";
    /// It claims more examples than the plan's cap, or none.
    ExampleCap = 25, "example-cap";
    /// An update of this worker is in this round already.
    Duplicate = 26, "duplicate";
    /// The worker is not in the round's cohort.
    NotSelected = 27, "not-selected";
    /// A number is infinite or not a number.
    NotFinite = 28, "not-finite";
    /// The message makes no sense at this point.
    Unexpected = 29, "unexpected";
    /// What was ordered cannot be done as things stand.
    NotPossible = 30, "not-possible";
}

impl RejectionCode {
    /// The number on the wire.
    pub fn number(self) -> u16 {
        self as u16
    }

    /// The code with this number, if there is one.
    pub fn from_number(number: u16) -> Option<RejectionCode> {
        let mut codes = RejectionCode::ALL.iter().copied();
        codes.find(|code| code.number() == number)
    }

    /// The code with this kebab-case name, if there is one.
    pub fn from_name(name: &str) -> Option<RejectionCode> {
        let mut codes = RejectionCode::ALL.iter().copied();
        codes.find(|code| code.name() == name)
    }
}

impl fmt::Display for RejectionCode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

impl Serialize for RejectionCode {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        if serializer.is_human_readable() {
            serializer.serialize_str(self.name())
        } else {
            serializer.serialize_u16(self.number())
        }
    }
}

impl<'de> Deserialize<'de> for RejectionCode {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        if deserializer.is_human_readable() {
            let name = String::deserialize(deserializer)?;
            RejectionCode::from_name(&name)
                .ok_or_else(|| D::Error::custom(format_args!("rejection code {name} is unknown")))
        } else {
            let number = u16::deserialize(deserializer)?;
            RejectionCode::from_number(number)
                .ok_or_else(|| D::Error::custom(format_args!("rejection code {number} is unknown")))
        }
    }
}

/// A refusal: a code for programs, a detail for people.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, Error)]
#[error("{code}: {detail}")]
pub struct Rejection {
    /// Why, in one of the numbered ways.
    pub code: RejectionCode,
    /// Why, in words: lower case, naming the value and the bound. At most [`DETAIL_BYTES_MAX`]
    /// bytes without control characters; a longer one is refused by whoever receives it.
    pub detail: String,
}

impl Rejection {
    /// A rejection whose detail keeps its bound: cut at [`DETAIL_BYTES_MAX`] bytes, control
    /// characters replaced by `?`.
    pub fn new(code: RejectionCode, detail: impl Into<String>) -> Rejection {
        let mut detail = detail.into().replace(char::is_control, "?");
        while detail.len() > DETAIL_BYTES_MAX {
            detail.pop();
        }
        Rejection { code, detail }
    }

    pub(crate) fn check_bounds(&self) -> Result<(), DecodeError> {
        limits::check_length("rejection detail", self.detail.len(), DETAIL_BYTES_MAX)?;
        limits::check_printable("rejection detail", &self.detail)
    }
}

impl From<FrameError> for Rejection {
    fn from(error: FrameError) -> Self {
        let code = match error {
            FrameError::Truncated { .. } => RejectionCode::Truncated,
            FrameError::Magic { .. } => RejectionCode::Malformed,
            FrameError::Version { .. } => RejectionCode::UnknownVersion,
            FrameError::Type { .. } => RejectionCode::UnknownType,
            FrameError::Oversized { .. } => RejectionCode::Oversized,
        };
        Rejection::new(code, error.to_string())
    }
}

impl From<DecodeError> for Rejection {
    fn from(error: DecodeError) -> Self {
        let code = match error {
            DecodeError::Frame(error) => return error.into(),
            DecodeError::Truncated { .. } => RejectionCode::Truncated,
            DecodeError::LeftOver { .. } => RejectionCode::LeftOver,
            DecodeError::TooLong { .. } | DecodeError::OverLimit { .. } => RejectionCode::Oversized,
            DecodeError::PayloadDigest { .. } => RejectionCode::PayloadDigest,
            DecodeError::Malformed { .. } => RejectionCode::Malformed,
        };
        Rejection::new(code, error.to_string())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_code_is_found_by_its_number_and_its_name() {
        for &code in RejectionCode::ALL {
            assert_eq!(RejectionCode::from_number(code.number()), Some(code));
            assert_eq!(RejectionCode::from_name(&code.to_string()), Some(code));
        }
        assert_eq!(RejectionCode::from_number(0), None);
    }

    #[test]
    fn numbers_stand_for_ever() {
        let numbers: Vec<u16> = RejectionCode::ALL.iter().map(|code| code.number()).collect();
        assert_eq!(
            numbers,
            [1, 2, 3, 4, 5, 6, 7, 10, 11, 12, 13, 14, 15, 16, 17, 18, 19, 20, 21, 22, 23, 24, 25, 26, 27, 28, 29, 30]
        );
    }

    #[test]
    fn an_unknown_code_is_malformed() {
        let bytes = crate::wire::to_bytes(&(999_u16, "new"));
        let error = crate::wire::from_bytes::<Rejection>(&bytes).unwrap_err();
        assert_eq!(error.to_string(), "rejection code 999 is unknown");
        assert_eq!(Rejection::from(error).code, RejectionCode::Malformed);
    }

    #[test]
    fn a_long_detail_is_cut_between_characters() {
        let rejection = Rejection::new(RejectionCode::Malformed, "ä".repeat(200) + "\n");
        assert_eq!(rejection.detail, "ä".repeat(128));
        rejection.check_bounds().unwrap();

        let odd = Rejection::new(RejectionCode::Malformed, "a".to_owned() + &"ä".repeat(200));
        assert_eq!(odd.detail.len(), 255);
    }

    #[test]
    fn control_characters_never_reach_a_terminal() {
        let rejection = Rejection::new(RejectionCode::Malformed, "\u{1b}[2J");
        assert_eq!(rejection.detail, "?[2J");
    }

    #[test]
    fn people_read_the_name_and_programs_the_number() {
        let code = RejectionCode::StaleBase;
        assert_eq!(serde_json::to_string(&code).unwrap(), "\"stale-base\"");
        assert_eq!(crate::wire::to_bytes(&code), [22, 0]);
        let rejection = Rejection::new(code, "base is 3, oldest allowed is 5");
        assert_eq!(rejection.to_string(), "stale-base: base is 3, oldest allowed is 5");
    }
}
