//! The flags that say when a simulated fleet's updates become a version, and what its devices are.

use anyhow::{Result, ensure};
use clap::{Args, ValueEnum};
use packfed_sim::mode::Mode;
use packfed_sim::options::Options;
use packfed_sim::virtual_fleet::{Devices, HEAVY_TAILED, PHONES};

/// How packfed's versions come about, and on which devices; of the task digits.
#[derive(Debug, Args)]
pub(crate) struct PaceArgs {
    /// When updates become a version.
    #[arg(long, value_enum, default_value_t = ModeName::Sync)]
    mode: ModeName,
    /// What the fleet's devices are.
    #[arg(long, value_enum, default_value_t = DevicesName::Phones)]
    devices: DevicesName,
    /// With --mode sync: workers drawn for a round beyond the cohort, whose first updates count [default: 0].
    #[arg(long, value_parser = clap::value_parser!(u32).range(0..=1_000))]
    over_selection: Option<u32>,
    /// With --mode async: workers at work at once [default: twice the cohort].
    #[arg(long, value_parser = clap::value_parser!(u32).range(1..=1_000))]
    concurrency: Option<u32>,
    /// With --mode async: versions that an update may be behind; an older one is discarded [default: 20].
    #[arg(long, value_parser = clap::value_parser!(u32).range(0..=1_000))]
    staleness_max: Option<u32>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum ModeName {
    /// Rounds: a cohort trains the same version, and the next begins when it has reported.
    Sync,
    /// Buffered: workers train whenever they are free, and every so many updates, a cohort's number, make a version.
    Async,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum DevicesName {
    /// 10 to 40 ms a step, 20 ms away, 1 MB/s up and 4 MB/s down.
    Phones,
    /// 200 ms a step in the median, log-normal over devices; one job in ten straggles, Pareto-distributed.
    HeavyTailed,
}

impl PaceArgs {
    /// What was asked for, for a run on `options`.
    pub(crate) fn of(&self, options: &Options) -> Result<(Mode, Devices)> {
        let devices = match self.devices {
            DevicesName::Phones => PHONES,
            DevicesName::HeavyTailed => HEAVY_TAILED,
        };
        Ok((self.mode(options)?, devices))
    }

    fn mode(&self, &Options { workers, cohort, .. }: &Options) -> Result<Mode> {
        match self.mode {
            ModeName::Sync => {
                let alone = self.concurrency.is_none() && self.staleness_max.is_none();
                ensure!(alone, "--concurrency and --staleness-max are of --mode async; add it or drop them");
                let (over_selection, most) = (self.over_selection.unwrap_or(0), workers - cohort);
                let bound = "the number of --workers less --cohort";
                ensure!(
                    over_selection <= most,
                    "--over-selection is {over_selection}, allowed is 0 to {most}, {bound}"
                );
                Ok(Mode::Sync { over_selection })
            }
            ModeName::Async => {
                ensure!(self.over_selection.is_none(), "--over-selection is of --mode sync; drop it");
                let concurrency = self.concurrency.unwrap_or(2 * cohort);
                Ok(Mode::Async { concurrency, staleness_max: self.staleness_max.unwrap_or(20) })
            }
        }
    }

    /// Refuses what was asked for, for a task that has rounds on phones alone.
    ///
    /// # Errors
    /// If anything but that was asked for.
    pub(crate) fn none(&self) -> Result<()> {
        let Self { mode, devices, over_selection, concurrency, staleness_max } = *self;
        let given = over_selection.or(concurrency).or(staleness_max).is_some();
        let plain = mode == ModeName::Sync && devices == DevicesName::Phones && !given;
        ensure!(plain, "--mode, --devices and what goes with them are of the task digits; drop them");
        Ok(())
    }
}
