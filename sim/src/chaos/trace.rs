//! What happened, a line an event, and the digest of all lines: two runs are the same if their digests are.

use std::fmt;

use packfed_protocol::{Digest, Timestamp};

/// See the module.
#[derive(Clone, Debug)]
pub struct Trace {
    digest: Digest,
    events: u64,
    lines: Option<Vec<String>>,
}

impl Trace {
    /// A trace that keeps its lines only if they are to be read.
    #[must_use]
    pub const fn new(readable: bool) -> Self {
        Self { digest: Digest([0; 32]), events: 0, lines: if readable { Some(Vec::new()) } else { None } }
    }

    /// Adds a line.
    pub fn line(&mut self, now: Timestamp, text: fmt::Arguments<'_>) {
        let line = format!("{:>9.3} s  {text}", now.0 as f64 / 1_000.0);
        let mut chained = self.digest.0.to_vec();
        chained.extend_from_slice(line.as_bytes());
        self.digest = Digest::of(&chained);
        self.events += 1;
        if let Some(lines) = &mut self.lines {
            lines.push(line);
        }
    }

    /// The digest of all lines so far.
    #[must_use]
    pub const fn digest(&self) -> Digest {
        self.digest
    }

    /// How many lines there were.
    #[must_use]
    pub const fn events(&self) -> u64 {
        self.events
    }

    /// The lines, if they were kept.
    #[must_use]
    pub fn into_lines(self) -> Option<Vec<String>> {
        self.lines
    }
}
