//! When a simulated fleet's updates become a version: in rounds with over-selection, or buffered without rounds.

use packfed_coordinator::config::{BufferedTable, ReportingTable, RunConfig, SelectionTable};

/// How versions come about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// Rounds that wait for the first updates of a cohort.
    Sync {
        /// Workers drawn beyond those that are waited for; with any, the next round waits for no straggler of the last.
        over_selection: u32,
    },
    /// Buffered: workers train whenever they are free, and every so many updates make a version.
    Async {
        /// Workers at work at once.
        concurrency: u32,
        /// Versions that an update may be behind.
        staleness_max: u32,
    },
}

impl Default for Mode {
    fn default() -> Self {
        Self::Sync { over_selection: 0 }
    }
}

impl Mode {
    /// A run in this mode, of versions with as many updates as before.
    #[must_use]
    pub fn of(self, run: RunConfig) -> RunConfig {
        match self {
            Self::Sync { over_selection: 0 } => run,
            // The next round begins without those who are still at the last one.
            Self::Sync { over_selection } => RunConfig {
                selection: SelectionTable { goal: run.reporting.goal + over_selection, ..run.selection },
                reporting: ReportingTable { over_selection, ..run.reporting },
                ..run
            },
            Self::Async { concurrency, staleness_max } => {
                let buffered = Some(BufferedTable { staleness_max, ..BufferedTable::new(concurrency) });
                RunConfig { buffered, ..run }
            }
        }
    }
}
