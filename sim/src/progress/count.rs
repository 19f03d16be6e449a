//! A bar for many equal things, shown once it has taken two seconds.

use std::sync::Mutex;
use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

use super::{BAR, lock, now};

/// See the module.
pub struct Count {
    what: &'static str,
    of: u64,
    quiet: bool,
    bar: ProgressBar,
    shown: Mutex<Shown>,
}

struct Shown {
    done: u64,
    next: Instant,
}

/// Nothing is shown of what takes less.
const PATIENCE: Duration = Duration::from_secs(2);
/// Between two lines, where no bar can be drawn.
const LINES: Duration = Duration::from_secs(10);
const TEMPLATE: &str = "{bar:20} {pos}/{len} {msg} {elapsed}, {eta} left";

impl Count {
    /// A bar on standard error that waits for `of` things; none at all if `quiet`.
    #[must_use]
    pub fn new(what: &'static str, of: u64, quiet: bool) -> Self {
        let style = ProgressStyle::with_template(TEMPLATE).unwrap_or_else(|_| ProgressStyle::default_bar());
        let bar = ProgressBar::with_draw_target(Some(of), ProgressDrawTarget::hidden());
        bar.set_style(style.progress_chars(BAR));
        bar.set_message(what);
        Self { what, of, quiet, bar, shown: Mutex::new(Shown { done: 0, next: now() + PATIENCE }) }
    }

    /// One more is done.
    pub fn one_more(&self) {
        if self.quiet {
            return;
        }
        let mut shown = lock(&self.shown);
        shown.done += 1;
        self.bar.set_position(shown.done);
        if !self.bar.is_hidden() || now() < shown.next {
            return;
        }
        shown.next = now() + LINES;
        self.bar.set_draw_target(ProgressDrawTarget::stderr());
        if self.bar.is_hidden() {
            eprintln!("{}/{} {}", shown.done, self.of, self.what);
        }
    }

    /// Prints a line that stays.
    pub fn note(&self, text: &str) {
        if !self.quiet {
            self.bar.suspend(|| eprintln!("{text}"));
        }
    }

    /// Takes the bar away.
    pub fn done(&self) {
        self.bar.finish_and_clear();
    }
}
