//! The state that this machine is in, as its worker states it: what the configuration says, or what Linux knows.
//!
//! A host application that knows better tells its session itself; see
//! [`Event::Conditions`](crate::session::Event::Conditions).

use std::fs;
use std::path::Path;

use clap::ValueEnum;
use packfed_protocol::Conditions;
use serde::{Deserialize, Serialize};

/// `[conditions]`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct ConditionsConfig {
    /// Whether it draws no power from a battery. Default auto.
    pub charging: Charging,
    /// Whether its network does not cost by the byte. Default always.
    pub unmetered: Stated,
    /// Whether nobody uses it. Default always.
    pub idle: Stated,
}

/// Something that does not change.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ValueEnum)]
#[serde(rename_all = "lowercase")]
pub enum Stated {
    /// It holds.
    #[default]
    Always,
    /// It does not.
    Never,
}

/// Whether a machine is charging: it draws no power from a battery.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ValueEnum)]
#[serde(rename_all = "lowercase")]
pub enum Charging {
    /// As Linux knows it; a machine without a battery, or of which nothing is known, is.
    #[default]
    Auto,
    /// It is.
    Always,
    /// It is not.
    Never,
}

impl ConditionsConfig {
    /// The state that the machine is in now.
    #[must_use]
    pub fn now(&self) -> Conditions {
        self.as_known_in(Path::new(POWER_SUPPLIES))
    }

    /// Whether that may be another one later.
    #[must_use]
    pub fn may_change(&self) -> bool {
        self.charging == Charging::Auto
    }

    fn as_known_in(&self, power_supplies: &Path) -> Conditions {
        let charging = match self.charging {
            Charging::Auto => !discharges(power_supplies),
            Charging::Always => true,
            Charging::Never => false,
        };
        Conditions { charging, unmetered: self.unmetered == Stated::Always, idle: self.idle == Stated::Always }
    }
}

/// Whether one of the batteries that power the machine is being emptied. What cannot be read says nothing.
fn discharges(power_supplies: &Path) -> bool {
    let Ok(entries) = fs::read_dir(power_supplies) else { return false };
    let says = |supply: &Path, file: &str, value: &str| {
        fs::read_to_string(supply.join(file)).is_ok_and(|text| text.trim() == value)
    };
    // The battery of a mouse, say, has the scope `Device`.
    entries.flatten().map(|entry| entry.path()).any(|supply| {
        says(&supply, "type", "Battery") && !says(&supply, "scope", "Device") && says(&supply, "status", "Discharging")
    })
}

/// Where Linux tells of mains and batteries (Documentation/ABI/testing/sysfs-class-power).
const POWER_SUPPLIES: &str = "/sys/class/power_supply";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_machine_charges_unless_its_own_battery_is_being_emptied() {
        let folder = tempfile::tempdir().unwrap();
        let supply = |name: &str, files: &[(&str, &str)]| {
            let supply = folder.path().join(name);
            fs::create_dir_all(&supply).unwrap();
            files.iter().for_each(|(file, text)| fs::write(supply.join(file), format!("{text}\n")).unwrap());
        };
        let charging =
            |charging| ConditionsConfig { charging, ..ConditionsConfig::default() }.as_known_in(folder.path()).charging;
        assert!(charging(Charging::Auto), "there is no battery");
        supply("AC", &[("type", "Mains"), ("online", "0")]);
        supply("mouse", &[("type", "Battery"), ("scope", "Device"), ("status", "Discharging")]);
        assert!(charging(Charging::Auto), "nor is that one of the machine");
        for (status, is) in [("Charging", true), ("Full", true), ("Not charging", true), ("Discharging", false)] {
            supply("BAT0", &[("type", "Battery"), ("status", status)]);
            assert_eq!(charging(Charging::Auto), is, "{status}");
        }
        assert!(charging(Charging::Always) && !charging(Charging::Never));
        let nowhere = ConditionsConfig::default().as_known_in(&folder.path().join("none"));
        assert_eq!(nowhere, Conditions::ALL);
    }

    #[test]
    fn what_is_stated_does_not_change() {
        let stated = ConditionsConfig { charging: Charging::Never, unmetered: Stated::Never, idle: Stated::Always };
        assert_eq!(stated.now(), Conditions { idle: true, ..Conditions::NONE });
        assert!(!stated.may_change() && ConditionsConfig::default().may_change());
    }
}
