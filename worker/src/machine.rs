//! The machine that a worker runs on: its budgets, the file that outlives it, and who watches.
//!
//! ```text
//!   Client ── round(n) ──► RoundHost ──► the local loop      one round at a time; a superseded or interrupted
//!     │                       │ every so often                one is told so at its next step
//!     └── over() ──► no file  └──► snapshot file
//! ```
//!
//! It reads the clock and writes files, and knows nothing of what is trained. What is due when is `Pace`'s, which
//! is told the time.

use std::io::Write;
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use indicatif::{MultiProgress, ProgressBar, ProgressStyle};
use packfed_protocol::Round;

use crate::local::host::{Host, Step};
use crate::local::snapshot::{JobDigest, Snapshot};

/// What one machine gives to training.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Budgets {
    /// A round ends with the steps done by then, one at least; after a restart it has this much again.
    pub time: Option<Duration>,
    /// Bytes.
    pub memory: Option<u64>,
    /// How often a round that is under way is written down.
    pub snapshot_every: Duration,
}

/// See the module. Clones are the same machine.
#[derive(Clone, Debug)]
pub struct Machine {
    budgets: Budgets,
    snapshot: PathBuf,
    bars: MultiProgress,
    wanted: Arc<Mutex<Wanted>>,
}

/// Whose training may write and go on.
#[derive(Clone, Copy, Debug, Default)]
struct Wanted {
    round: Option<Round>,
    /// The process is about to end.
    interrupted: bool,
}

impl Machine {
    /// A machine that keeps interrupted training in the file `snapshot`. Progress is drawn on `bars` where they are on
    /// a terminal.
    #[must_use]
    pub fn new(budgets: Budgets, snapshot: PathBuf, bars: MultiProgress) -> Self {
        Self { budgets, snapshot, bars, wanted: Arc::default() }
    }

    /// The host of a round, which is now the one that is wanted.
    #[must_use]
    pub fn round(&self, round: Round) -> RoundHost {
        self.wanted().round = Some(round);
        let show_every = if self.bars.is_hidden() { LINE_EVERY } else { BAR_EVERY };
        let pace = Pace { budgets: self.budgets, show_every, saved: Duration::ZERO, shown: Duration::ZERO };
        RoundHost { machine: self.clone(), round, started: now(), resumed: None, pace, bar: ProgressBar::hidden() }
    }

    /// No round is wanted any more, and nothing is to be gone on with.
    pub fn over(&self) {
        self.wanted().round = None;
        match std::fs::remove_file(&self.snapshot) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                tracing::warn!(file = %self.snapshot.display(), %error, "the snapshot cannot be removed");
            }
            _ => {}
        }
    }

    /// The process is about to end: training writes itself down at its next step and stops.
    pub fn interrupt(&self) {
        self.wanted().interrupted = true;
    }

    /// The one thing that the session's thread and the training thread share. Each takes the lock to read or set it and
    /// lets go at once, with no other lock in hand, so there is no order to get wrong; training that has just read an
    /// older wish reads the newer one at its next step.
    fn wanted(&self) -> MutexGuard<'_, Wanted> {
        self.wanted.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// One round's training on a [`Machine`].
#[derive(Debug)]
pub struct RoundHost {
    machine: Machine,
    round: Round,
    started: Instant,
    /// Steps that were done before, once there is one more.
    resumed: Option<u32>,
    pace: Pace,
    bar: ProgressBar,
}

impl Host for RoundHost {
    fn memory_budget(&self) -> Option<u64> {
        self.machine.budgets.memory
    }

    fn resume(&mut self, job: &JobDigest) -> Option<Snapshot> {
        let file = &self.machine.snapshot;
        let snapshot = match read(file) {
            Ok(snapshot) => snapshot?,
            Err(why) => {
                tracing::warn!(file = %file.display(), why, "the snapshot is ignored");
                return None;
            }
        };
        if snapshot.job != *job {
            tracing::warn!(file = %file.display(), round = self.round.0, "the snapshot is of another job and ignored");
            return None;
        }
        Some(snapshot)
    }

    fn stepped(&mut self, step: &Step<'_>) -> ControlFlow<()> {
        let elapsed = since(self.started);
        let resumed = *self.resumed.get_or_insert(step.done.saturating_sub(1));
        let due = self.pace.step(elapsed);
        if due.show {
            let rate = f64::from(step.done - resumed) / elapsed.as_secs_f64();
            self.show(step, rate);
        }
        let Wanted { round, interrupted } = *self.machine.wanted();
        if round != Some(self.round) {
            return ControlFlow::Break(());
        }
        if due.save || interrupted {
            self.save(step);
        }
        if due.stop && step.done < step.of {
            tracing::info!(round = self.round.0, step = step.done, of = step.of, "the time budget is spent");
        }
        if due.stop || interrupted {
            return ControlFlow::Break(());
        }
        ControlFlow::Continue(())
    }
}

impl RoundHost {
    fn save(&self, step: &Step<'_>) {
        let written = step.snapshot().map_err(|error| error.to_string());
        let written = written
            .and_then(|snapshot| write(&self.machine.snapshot, &snapshot.encode()).map_err(|error| error.to_string()));
        if let Err(why) = written {
            tracing::warn!(file = %self.machine.snapshot.display(), why, "training cannot be written down");
        }
    }

    /// A bar on a terminal, a line elsewhere.
    fn show(&mut self, step: &Step<'_>, rate: f64) {
        let Step { done, of, loss, .. } = *step;
        if self.machine.bars.is_hidden() {
            tracing::info!(round = self.round.0, step = done, of, loss, steps_per_s = rate, "training");
            return;
        }
        if self.bar.is_hidden() {
            let style = ProgressStyle::with_template(BAR).unwrap_or_else(|_| ProgressStyle::default_bar());
            let bar = ProgressBar::new(of.into()).with_style(style).with_prefix(format!("round {}", self.round.0));
            self.bar = self.machine.bars.add(bar);
        }
        self.bar.set_position(done.into());
        self.bar.set_message(format!("loss {loss:.4}, {rate:.2} steps/s"));
    }
}

impl Drop for RoundHost {
    fn drop(&mut self) {
        self.bar.finish_and_clear();
    }
}

const BAR: &str = "{prefix} {wide_bar} {pos}/{len} {msg}, {eta} left";

/// What is due after a step.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Due {
    stop: bool,
    save: bool,
    show: bool,
}

/// When what is due, by the time since the round began.
#[derive(Clone, Copy, Debug)]
struct Pace {
    budgets: Budgets,
    show_every: Duration,
    saved: Duration,
    shown: Duration,
}

/// Shorter rounds are not shown at all.
const SHOWN_FROM: Duration = Duration::from_secs(2);
/// How often a bar moves.
const BAR_EVERY: Duration = Duration::from_millis(200);
/// How often there is a line where no bar can be drawn.
const LINE_EVERY: Duration = Duration::from_secs(10);

impl Pace {
    fn step(&mut self, elapsed: Duration) -> Due {
        let due = |last: &mut Duration, every| {
            let due = elapsed.saturating_sub(*last) >= every;
            if due {
                *last = elapsed;
            }
            due
        };
        let save = due(&mut self.saved, self.budgets.snapshot_every);
        let show = elapsed >= SHOWN_FROM && due(&mut self.shown, self.show_every);
        Due { stop: self.budgets.time.is_some_and(|time| elapsed >= time), save, show }
    }
}

/// The snapshot in a file, if there is a file.
fn read(file: &Path) -> Result<Option<Snapshot>, String> {
    match std::fs::read(file) {
        Ok(bytes) => Snapshot::decode(&bytes).map(Some).map_err(|error| error.to_string()),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error.to_string()),
    }
}

/// Replaces a file, whole or not at all.
fn write(file: &Path, bytes: &[u8]) -> std::io::Result<()> {
    let temporary = file.with_extension("tmp");
    let mut open = std::fs::File::create(&temporary)?;
    open.write_all(bytes)?;
    open.sync_all()?;
    std::fs::rename(&temporary, file)
}

#[expect(clippy::disallowed_methods, reason = "a shell: the loop is told what is due")]
fn now() -> Instant {
    Instant::now()
}

fn since(start: Instant) -> Duration {
    now().saturating_duration_since(start)
}

#[cfg(test)]
mod tests;
