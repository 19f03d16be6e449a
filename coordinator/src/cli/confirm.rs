//! What is said with a change: why, and that it is meant.

use std::io::IsTerminal;

use anyhow::{Result, bail};
use clap::Args;

/// Why something is changed.
#[derive(Debug, Args)]
pub(super) struct Why {
    /// Why, for the audit log; at most 1024 bytes.
    #[arg(long = "why", value_name = "TEXT", default_value = "", hide_default_value = true)]
    pub(super) text: String,
}

/// Whether something that cannot be taken back is meant.
#[derive(Debug, Args)]
pub(super) struct Sure {
    /// Do not ask; without a terminal it is needed.
    #[arg(long)]
    yes: bool,
}

impl Sure {
    /// Asks whether this is meant, if somebody is there to ask; `means` is what it leads to.
    pub(super) fn about(&self, what: &str, means: &str) -> Result<()> {
        if self.yes {
            return Ok(());
        }
        if !std::io::stdin().is_terminal() {
            bail!("to {what} is not done unasked: {means}; add --yes to do it without a question");
        }
        eprint!("{what}? {means} [y/N] ");
        let mut answer = String::new();
        std::io::stdin().read_line(&mut answer)?;
        if !answer.trim().eq_ignore_ascii_case("y") {
            bail!("nothing was done");
        }
        Ok(())
    }
}
