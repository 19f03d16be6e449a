//! What a person watches while methods run: a line for every running method on standard error.
//!
//! Three displays behind one face: lines that are redrawn on a terminal, plain lines now and then elsewhere, nothing
//! when made quiet. It knows nothing of how a run is made and decides nothing: the real clock is read here, and its
//! time goes nowhere but to the display. The cursor stays visible, so a run that is broken off leaves the terminal as
//! it was.

use std::{
    io::{self, Write},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use indicatif::{DecimalBytes, HumanDuration, MultiProgress, ProgressBar, ProgressDrawTarget, ProgressStyle};

use crate::results::{ABSENT, Metric, Score};

mod count;

pub use count::Count;

/// The display of a run.
#[derive(Clone)]
pub struct Progress {
    display: Arc<Display>,
}

/// The line of one running method; when dropped without `done`, the line goes away.
pub struct MethodProgress {
    display: Arc<Display>,
    name: String,
    rounds: u64,
    started: Instant,
    /// The accuracy last measured.
    score: Mutex<Option<Score>>,
    metric: Metric,
    /// Hidden unless the display is live.
    bar: ProgressBar,
}

enum Display {
    Quiet,
    Plain(Mutex<Plain>),
    Live(MultiProgress),
}

/// Lines that are written once.
struct Plain {
    sink: Box<dyn Write + Send>,
    /// When the last line of a running method was written.
    last: Option<Instant>,
}

/// Least time between two plain lines of running methods.
const PLAIN_INTERVAL: Duration = Duration::from_secs(2);
/// How often a live line is redrawn without news, for the time it shows.
const TICK: Duration = Duration::from_millis(500);
/// A live line: 80 columns up to 999 rounds; on less, the end of the message is cut off.
const TEMPLATE: &str = "{prefix:<10} {bar:12} round {pos:>3}/{len} {wide_msg} {elapsed}";
const BAR: &str = "━╾─";

impl Progress {
    /// A display on standard error: live on a terminal, plain lines elsewhere, nothing if `quiet`.
    #[must_use]
    pub fn new(quiet: bool) -> Self {
        if quiet {
            return Self::of(Display::Quiet);
        }
        let live = MultiProgress::with_draw_target(ProgressDrawTarget::stderr());
        if live.is_hidden() { Self::plain(Box::new(io::stderr())) } else { Self::of(Display::Live(live)) }
    }

    /// Starts the line of a method that will run for `rounds` rounds.
    #[must_use]
    pub fn method(&self, name: &str, rounds: u64, metric: Metric) -> MethodProgress {
        let bar = match &*self.display {
            Display::Quiet | Display::Plain(_) => ProgressBar::hidden(),
            Display::Live(live) => live_bar(live, name, rounds),
        };
        let display = Arc::clone(&self.display);
        MethodProgress { display, name: name.to_owned(), rounds, started: now(), score: Mutex::new(None), metric, bar }
    }

    /// Prints a line that stays, above those of running methods.
    pub fn note(&self, text: &str) {
        self.display.line(text);
    }

    fn plain(sink: Box<dyn Write + Send>) -> Self {
        Self::of(Display::Plain(Mutex::new(Plain { sink, last: None })))
    }

    fn of(display: Display) -> Self {
        Self { display: Arc::new(display) }
    }
}

impl MethodProgress {
    /// Shows that `round` rounds are committed: the score if it was measured now, and the bytes of all workers so
    /// far.
    pub fn round(&self, round: u64, score: Option<Score>, bytes_up: u64, bytes_down: u64) {
        let score = self.latest(score).map_or(ABSENT.to_owned(), |score| self.metric.written(&score));
        let (up, down) = (DecimalBytes(bytes_up), DecimalBytes(bytes_down));
        let news = format!("{} {score}  ↑ {up}  ↓ {down}", self.metric.name());
        match &*self.display {
            Display::Quiet => {}
            Display::Plain(plain) => {
                let line = format!("{}: round {round}/{}  {news}  {}", self.name, self.rounds, self.elapsed());
                lock(plain).occasional(&line, now());
            }
            Display::Live(_) => {
                self.bar.set_message(news);
                self.bar.set_position(round);
            }
        }
    }

    /// Ends the line and leaves one with the final score.
    pub fn done(self, score: &Score) {
        self.bar.finish_and_clear();
        let (metric, written) = (self.metric.name(), self.metric.written(score));
        self.display.line(&format!("{}: {metric} {written} [{}]", self.name, self.elapsed()));
    }

    /// Remembers a score if there is a new one, and gives the last.
    fn latest(&self, score: Option<Score>) -> Option<Score> {
        let mut latest = lock(&self.score);
        *latest = score.or(*latest);
        *latest
    }

    fn elapsed(&self) -> String {
        format!("{:#}", HumanDuration(now().duration_since(self.started)))
    }
}

impl Display {
    /// Prints a line that stays.
    fn line(&self, text: &str) {
        match self {
            Self::Quiet => {}
            Self::Plain(plain) => lock(plain).line(text),
            // Not `MultiProgress::println`, which fills the line with spaces and never ends the last one.
            Self::Live(live) => live.suspend(|| write_line(&mut io::stderr(), text)),
        }
    }
}

impl Plain {
    /// Writes a line unless one was written a moment ago.
    fn occasional(&mut self, text: &str, now: Instant) {
        if self.last.is_none_or(|last| now.duration_since(last) >= PLAIN_INTERVAL) {
            self.last = Some(now);
            self.line(text);
        }
    }

    fn line(&mut self, text: &str) {
        write_line(&mut self.sink, text);
    }
}

/// Writes a line if it can: a display that cannot be written to is no reason to end a run.
fn write_line(sink: &mut impl Write, text: &str) {
    let _ = writeln!(sink, "{text}");
}

fn live_bar(live: &MultiProgress, name: &str, rounds: u64) -> ProgressBar {
    let style = ProgressStyle::with_template(TEMPLATE).unwrap_or_else(|_| ProgressStyle::default_bar());
    let bar = live.add(ProgressBar::new(rounds).with_style(style.progress_chars(BAR)).with_prefix(name.to_owned()));
    bar.enable_steady_tick(TICK);
    bar
}

/// The content, whatever became of the thread that held it: a display has no state that can be half changed.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[expect(clippy::disallowed_methods, reason = "a display shows real time")]
fn now() -> Instant {
    Instant::now()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A sink whose content a test can read.
    #[derive(Clone, Default)]
    struct Screen(Arc<Mutex<Vec<u8>>>);

    impl Write for Screen {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            lock(&self.0).write(bytes)
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    impl Screen {
        fn lines(&self) -> Vec<String> {
            String::from_utf8(lock(&self.0).clone()).unwrap().lines().map(str::to_owned).collect()
        }
    }

    /// A sink that is closed.
    struct Closed;

    impl Write for Closed {
        fn write(&mut self, _: &[u8]) -> io::Result<usize> {
            Err(io::ErrorKind::BrokenPipe.into())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    fn accurate(accuracy: f64) -> Score {
        Score { accuracy, loss: 1.0 }
    }

    fn walk(progress: &Progress) {
        progress.note("pre-training the base");
        let method = progress.method("packfed", 60, Metric::Accuracy);
        method.round(1, Some(accurate(0.5)), 1_500, 2_000_000);
        method.round(2, None, 3_000, 4_000_000);
        method.done(&accurate(0.843));
    }

    #[test]
    fn plain_lines_tell_the_first_round_notes_and_the_end() {
        let screen = Screen::default();
        walk(&Progress::plain(Box::new(screen.clone())));
        assert_eq!(
            screen.lines(),
            [
                "pre-training the base",
                "packfed: round 1/60  accuracy 0.5000  ↑ 1.50 kB  ↓ 2.00 MB  0s",
                "packfed: accuracy 0.8430 [0s]",
            ]
        );
    }

    #[test]
    fn plain_lines_of_running_methods_are_two_seconds_apart() {
        let screen = Screen::default();
        let mut plain = Plain { sink: Box::new(screen.clone()), last: None };
        let start = now();
        for half_second in 0..10_u32 {
            plain.occasional(&half_second.to_string(), start + Duration::from_millis(500) * half_second);
        }
        assert_eq!(screen.lines(), ["0", "4", "8"]);
    }

    #[test]
    fn a_round_without_a_test_shows_the_last_score() {
        let method = Progress::new(true).method("packfed", 60, Metric::Accuracy);
        assert_eq!(method.latest(None), None);
        assert_eq!(method.latest(Some(accurate(0.5))), Some(accurate(0.5)));
        assert_eq!(method.latest(None), Some(accurate(0.5)));
    }

    #[test]
    fn no_display_fails_the_run() {
        let hidden = MultiProgress::with_draw_target(ProgressDrawTarget::hidden());
        for progress in [Progress::new(true), Progress::plain(Box::new(Closed)), Progress::of(Display::Live(hidden))] {
            walk(&progress);
        }
    }

    #[test]
    fn the_live_line_is_understood() {
        assert!(ProgressStyle::with_template(TEMPLATE).is_ok());
    }

    #[test]
    fn threads_may_share_a_display() {
        fn shared<T: Send + Sync>() {}
        shared::<Progress>();
        shared::<MethodProgress>();
    }
}
