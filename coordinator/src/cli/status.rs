//! `coordinator status`: asks the coordinator that serves, or reads the store if none does.

use std::process::ExitCode;

use anyhow::Result;
use clap::Args;
use packfed_coordinator::server::Report;
use packfed_protocol::Message;

use super::operator::Whom;
use super::output::print;
use super::report_table;

/// Say how the run stands.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  coordinator status --config run1/coordinator.toml
  coordinator status --admin admin.toml --json | jq .counters

Exit codes: 0 a coordinator answered, 3 none listens and the store was read (\"serving\": false), 1 failed.")]
pub(super) struct StatusCommand {
    #[command(flatten)]
    whom: Whom,
}

impl StatusCommand {
    pub(super) fn run(&self) -> Result<ExitCode> {
        let operator = self.whom.operator()?;
        let json = match operator.ask(&Message::StatusRequest)? {
            Some(json) => json,
            None => Report::stored(operator.stored()?.status()).to_json(),
        };
        print(&if self.whom.json { json } else { report_table::render(&json)? })?;
        Ok(operator.code())
    }
}
