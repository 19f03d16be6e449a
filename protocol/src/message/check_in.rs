//! A worker's report that it is ready, what it holds and in which state its machine is.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::id::{Digest, RunId, Version};

/// Ready for work.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct CheckIn {
    /// The run it wants to take part in.
    pub run: RunId,
    /// The version of its replica.
    pub version: Version,
    /// The digest of its replica's state.
    pub digest: Digest,
    /// How many local examples it has.
    pub examples: u32,
    /// The state of its machine.
    pub conditions: Conditions,
    /// Whether it already holds the run's plan.
    pub planned: bool,
}

/// What a run may ask of a machine, as the worker states it; nobody can check.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Conditions {
    /// It draws no power from a battery.
    pub charging: bool,
    /// Its network does not cost by the byte.
    pub unmetered: bool,
    /// Nobody uses it now.
    pub idle: bool,
}

impl Conditions {
    /// A machine that is there for nothing else.
    pub const ALL: Conditions = Conditions { charging: true, unmetered: true, idle: true };
    /// A machine of which nothing is known.
    pub const NONE: Conditions = Conditions { charging: false, unmetered: false, idle: false };

    /// The first of the `required` conditions that does not hold, by its name.
    pub fn lacks(self, required: Conditions) -> Option<&'static str> {
        let pairs = [
            (self.charging, required.charging, "charging"),
            (self.unmetered, required.unmetered, "unmetered"),
            (self.idle, required.idle, "idle"),
        ];
        pairs.into_iter().find(|&(is, required, _)| required && !is).map(|(_, _, name)| name)
    }
}

impl fmt::Display for Conditions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let names = [(self.charging, "charging"), (self.unmetered, "unmetered"), (self.idle, "idle")];
        let held: Vec<&str> = names.into_iter().filter(|(is, _)| *is).map(|(_, name)| name).collect();
        f.write_str(if held.is_empty() { "none" } else { "" })?;
        f.write_str(&held.join(", "))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_condition_that_is_required_and_does_not_hold_is_named() {
        assert_eq!(Conditions::NONE.lacks(Conditions::NONE), None);
        assert_eq!(Conditions::ALL.lacks(Conditions::ALL), None);
        let unplugged = Conditions { charging: false, ..Conditions::ALL };
        assert_eq!(unplugged.lacks(Conditions::ALL), Some("charging"));
        assert_eq!(unplugged.lacks(Conditions { idle: true, ..Conditions::NONE }), None);
        assert_eq!(Conditions::NONE.lacks(Conditions { idle: true, ..Conditions::NONE }), Some("idle"));
        assert_eq!((unplugged.to_string(), Conditions::NONE.to_string()), ("unmetered, idle".into(), "none".into()));
    }
}
