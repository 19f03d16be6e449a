//! `coordinator rollout status --watch`: says how a rollout stands until it is over or paused.

use std::io::{IsTerminal, Write};
use std::process::ExitCode;
use std::time::Duration;

use anyhow::Result;

use super::{one, render};
use crate::cli::exit::{PAUSED, TAKEN_BACK};
use crate::cli::operator::Operator;
use crate::cli::output::print;

/// Watches a rollout; how it ended is the exit code.
pub(super) fn run(operator: &Operator, number: u64, json: bool) -> Result<ExitCode> {
    let redraws = !json && std::io::stdout().is_terminal();
    let (mut told, mut lines) = (None, 0);
    loop {
        let rollout = one(operator, number)?;
        let code = ended(&rollout.rollout.phase);
        if redraws {
            lines = redraw(&render::detail(&rollout), lines)?;
        } else if told.as_ref() != Some(&rollout) {
            print(&if json { serde_json::to_string(&rollout)? } else { render::line(&rollout.rollout) })?;
            std::io::stdout().flush()?;
        }
        if let Some(code) = code {
            return Ok(ExitCode::from(code));
        }
        if operator.code() != ExitCode::SUCCESS {
            // The store does not change while nobody serves.
            return Ok(operator.code());
        }
        told = Some(rollout);
        operator.wait(PERIOD);
    }
}

/// The exit code of a rollout that does not go on by itself.
fn ended(phase: &str) -> Option<u8> {
    match phase {
        "completed" => Some(0),
        "aborted" | "rolled back" => Some(TAKEN_BACK),
        "paused" => Some(PAUSED),
        _ => None,
    }
}

/// Draws over what was drawn before; how many lines it has.
fn redraw(text: &str, before: u16) -> Result<u16> {
    use crossterm::{cursor, queue, style::Print, terminal};
    let mut out = std::io::stdout().lock();
    if before > 0 {
        queue!(out, cursor::MoveToPreviousLine(before), terminal::Clear(terminal::ClearType::FromCursorDown))?;
    }
    let columns = usize::from(terminal::size().map_or(u16::MAX, |(columns, _)| columns));
    let mut lines = 0u16;
    for line in text.lines() {
        // A line that wrapped would be two to go back over.
        queue!(out, Print(line.chars().take(columns).collect::<String>()), Print("\n"))?;
        lines = lines.saturating_add(1);
    }
    out.flush()?;
    Ok(lines)
}

/// Between two questions.
const PERIOD: Duration = Duration::from_millis(500);

#[cfg(test)]
mod tests {
    use packfed_coordinator::rollout::Phase;
    use packfed_protocol::Timestamp;

    use super::*;

    #[test]
    fn every_phase_ends_or_goes_on() {
        let soaking = Phase::Soaking { stage: 0, since: Timestamp(0) };
        let code = |phase: Phase| ended(phase.name());
        assert_eq!(code(soaking), None);
        assert_eq!(code(Phase::Completed), Some(0));
        assert_eq!(code(Phase::RolledBack), Some(TAKEN_BACK));
        assert_eq!(code(Phase::Aborted), Some(TAKEN_BACK));
        assert_eq!(code(Phase::Paused { stage: 1 }), Some(PAUSED));
    }
}
