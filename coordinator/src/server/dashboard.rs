//! The operator's page: the run as it is, live, and nothing that could change it.
//!
//! ```text
//!   owner ──Picture, twice a second at most──► watch ──► one stream of events for every reader
//! ```
//!
//! The owner draws and goes on; a reader who does not keep up misses pictures, and one who takes nothing at all is
//! dropped. The page, its style and its scripts are in this program, and load nothing from elsewhere.

mod http;
mod patient;

use std::sync::{Arc, Mutex, PoisonError};

use packfed_protocol::Timestamp;
use tokio::sync::watch;

pub(super) use http::{bind, serve};

use crate::picture::Picture;

/// A picture as readers get it: one line of JSON.
type Text = Arc<str>;

/// The picture on show.
#[derive(Debug)]
pub(super) struct Dashboard {
    /// Whether anybody can look: otherwise nothing is drawn.
    served: bool,
    pictures: watch::Sender<Text>,
    drawn: Mutex<Drawn>,
}

/// What was drawn last.
#[derive(Debug, Default)]
struct Drawn {
    picture: Option<Picture>,
    at: Timestamp,
    /// Whether there has been news since that is not drawn yet.
    news: bool,
}

impl Dashboard {
    pub(super) fn new(served: bool) -> Self {
        let (pictures, _) = watch::channel(Text::from("{}"));
        Self { served, pictures, drawn: Mutex::default() }
    }

    /// Shows the run as it is now, if anybody can look. What comes within [`INTERVAL_MS`] of the last picture is left
    /// until it is [`Dashboard::due`]; a picture that differs in nothing but its time is not shown.
    pub(super) fn show(&self, now: Timestamp, picture: impl FnOnce() -> Picture) {
        if !self.served {
            return;
        }
        let mut drawn = self.drawn.lock().unwrap_or_else(PoisonError::into_inner);
        // A clock that was set back delays nothing.
        if drawn.picture.is_some() && now.0.abs_diff(drawn.at.0) < INTERVAL_MS {
            drawn.news = true;
            return;
        }
        let picture = picture();
        let shown = drawn.picture.as_ref();
        if shown.is_none_or(|shown| Picture { at_ms: picture.at_ms, ..shown.clone() } != picture) {
            self.pictures.send_replace(picture.to_json().into());
        }
        *drawn = Drawn { picture: Some(picture), at: now, news: false };
    }

    /// When news that waits is to be shown.
    pub(super) fn due(&self) -> Option<Timestamp> {
        let drawn = self.drawn.lock().unwrap_or_else(PoisonError::into_inner);
        drawn.news.then(|| drawn.at.plus(INTERVAL_MS))
    }

    /// The pictures from now on, the one on show first.
    pub(super) fn pictures(&self) -> watch::Receiver<Text> {
        self.pictures.subscribe()
    }
}

/// Milliseconds between two pictures at least.
const INTERVAL_MS: u64 = 500;

#[cfg(test)]
mod tests;
