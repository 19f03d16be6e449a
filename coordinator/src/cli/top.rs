//! `coordinator top`: the run as it goes, on the terminal.

use std::io::{IsTerminal, Stdout, Write};
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Result, bail};
use clap::Args;
use crossterm::event::{Event, KeyCode, KeyEvent, KeyEventKind, KeyModifiers};
use crossterm::{cursor, event, execute, queue, style, terminal};
use packfed_coordinator::picture::Picture;
use packfed_protocol::Order;

use super::operator::{Operator, Whom};
use super::output::print;

mod draw;

/// Show the run live on the terminal: phase, loss, workers, bytes, rejections and rollouts.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  coordinator top --config run1/coordinator.toml
  coordinator top --admin admin.toml --json | jq .workers

It is drawn anew every second; q, Esc or Ctrl-C leaves the terminal as it was. Without a terminal it is printed once, and
so is the JSON, which has more: all that the dashboard shows.
Exit codes: 0 done, 1 failed.")]
pub(super) struct Top {
    #[command(flatten)]
    whom: Whom,
}

impl Top {
    pub(super) fn run(&self) -> Result<ExitCode> {
        let operator = self.whom.operator()?;
        let Some(picture) = asked(&operator)? else {
            let next = "`coordinator status` says what the store holds";
            bail!("no coordinator answers at {}; {next}", operator.address)
        };
        if self.whom.json {
            print(&picture.to_json())?;
        } else if std::io::stdout().is_terminal() && std::io::stdin().is_terminal() {
            watch(&operator, picture)?;
        } else {
            print(&draw::lines(&picture, PLAIN_COLUMNS).join("\n"))?;
        }
        Ok(ExitCode::SUCCESS)
    }
}

fn asked(operator: &Operator) -> Result<Option<Picture>> {
    operator.tell(Order::Picture)
}

/// Draws until somebody leaves. A coordinator that stops answering may come back.
fn watch(operator: &Operator, mut picture: Picture) -> Result<()> {
    let mut screen = Screen::enter()?;
    let mut trouble = None;
    loop {
        screen.draw(&picture, trouble.as_deref())?;
        match said()? {
            Said::Leave => return Ok(()),
            Said::Drawn => continue,
            Said::Nothing => {}
        }
        trouble = match asked(operator) {
            Ok(Some(next)) => {
                picture = next;
                None
            }
            Ok(None) => Some(format!("no coordinator answers at {}", operator.address)),
            Err(error) => Some(format!("{error:#}")),
        };
    }
}

/// What somebody at the terminal says within a period.
enum Said {
    Leave,
    /// The terminal has another size.
    Drawn,
    Nothing,
}

fn said() -> Result<Said> {
    if !event::poll(PERIOD)? {
        return Ok(Said::Nothing);
    }
    Ok(match event::read()? {
        Event::Key(KeyEvent { code, modifiers, kind: KeyEventKind::Press, .. }) => match code {
            KeyCode::Char('q') | KeyCode::Esc => Said::Leave,
            KeyCode::Char('c') if modifiers.contains(KeyModifiers::CONTROL) => Said::Leave,
            _ => Said::Nothing,
        },
        Event::Resize(..) => Said::Drawn,
        _ => Said::Nothing,
    })
}

/// The terminal's other screen, until it is dropped.
struct Screen {
    out: Stdout,
}

impl Screen {
    fn enter() -> Result<Self> {
        terminal::enable_raw_mode()?;
        // From here on whatever goes wrong is undone.
        let mut screen = Self { out: std::io::stdout() };
        execute!(screen.out, terminal::EnterAlternateScreen, cursor::Hide)?;
        Ok(screen)
    }

    fn draw(&mut self, picture: &Picture, trouble: Option<&str>) -> Result<()> {
        let (columns, rows) = terminal::size()?;
        let mut lines = draw::lines(picture, columns.into());
        lines.push(String::new());
        lines.push(trouble.map_or("q leaves".to_owned(), |trouble| format!("q leaves; {trouble}")));
        queue!(self.out, terminal::BeginSynchronizedUpdate)?;
        for (row, line) in (0..rows).zip(&lines) {
            let line: String = line.chars().take(columns.into()).collect();
            queue!(self.out, cursor::MoveTo(0, row), style::Print(line), terminal::Clear(CLEAR_REST))?;
        }
        let drawn = u16::try_from(lines.len()).unwrap_or(rows);
        if drawn < rows {
            queue!(self.out, cursor::MoveTo(0, drawn), terminal::Clear(terminal::ClearType::FromCursorDown))?;
        }
        queue!(self.out, terminal::EndSynchronizedUpdate)?;
        Ok(self.out.flush()?)
    }
}

impl Drop for Screen {
    fn drop(&mut self) {
        // A terminal that is gone needs nothing.
        let _ = execute!(self.out, cursor::Show, terminal::LeaveAlternateScreen);
        let _ = terminal::disable_raw_mode();
    }
}

const CLEAR_REST: terminal::ClearType = terminal::ClearType::UntilNewLine;
/// Between two pictures.
const PERIOD: Duration = Duration::from_secs(1);
/// Where there is no terminal to measure.
const PLAIN_COLUMNS: usize = 100;
