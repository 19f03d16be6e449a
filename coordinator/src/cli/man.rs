//! `coordinator man`: manual pages of every command.

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::{Context, Result};
use clap::{Args, CommandFactory};

use super::Cli;
use super::output::print;

/// Write manual pages, one for each command.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  coordinator man ~/.local/share/man/man1 && man coordinator-rollout-start")]
pub(super) struct Man {
    /// The folder; it is made if it is not there.
    directory: PathBuf,
}

impl Man {
    pub(super) fn run(&self) -> Result<ExitCode> {
        let folder = &self.directory;
        std::fs::create_dir_all(folder).with_context(|| format!("make folder {}", folder.display()))?;
        let command = Cli::command().disable_help_subcommand(true);
        clap_mangen::generate_to(command, folder).with_context(|| format!("write to {}", folder.display()))?;
        print(&format!(
            "manual pages are in {}; `man coordinator` reads them once they are on MANPATH",
            folder.display()
        ))?;
        Ok(ExitCode::SUCCESS)
    }
}
