//! A coordinator that can be killed.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Stdio;

use anyhow::{Context, Result, ensure};
use serde_json::Value;
use tokio::io::{AsyncBufReadExt, BufReader, Lines};
use tokio::process::{Child, ChildStdout, Command};

/// How a coordinator is started: program, arguments, the configuration's path, more arguments.
#[derive(Clone, Debug)]
pub(crate) struct Launch {
    pub(crate) program: PathBuf,
    pub(crate) arguments: Vec<String>,
    pub(crate) after: Vec<String>,
}

pub(crate) struct Process {
    child: Child,
    lines: Lines<BufReader<ChildStdout>>,
    errors: PathBuf,
}

/// What a coordinator says first.
pub(crate) struct Listening {
    pub(crate) address: SocketAddr,
    /// Updates of the open round that it has found.
    pub(crate) resumed: Option<u64>,
}

impl Process {
    pub(crate) fn start(launch: &Launch, config: &Path) -> Result<Self> {
        let errors = config.with_extension("log");
        let log = std::fs::File::create(&errors).context("make the log")?;
        let mut command = Command::new(&launch.program);
        command.args(&launch.arguments).arg(config).args(&launch.after).kill_on_drop(true);
        let mut child = command.stdout(Stdio::piped()).stderr(log).spawn().context("start the coordinator")?;
        let stdout = child.stdout.take().context("the coordinator's output")?;
        Ok(Self { child, lines: BufReader::new(stdout).lines(), errors })
    }

    /// Its first line. It may be asked for again if the wait for it was broken off.
    pub(crate) async fn listening(&mut self) -> Result<Listening> {
        let line = match self.lines.next_line().await? {
            Some(line) => line,
            None => {
                let log = std::fs::read_to_string(&self.errors).unwrap_or_default();
                anyhow::bail!("the coordinator ended before it listened: {log}");
            }
        };
        let first: Value = serde_json::from_str(&line).with_context(|| format!("its first line: {line}"))?;
        let address = first["listening"].as_str().context("it names no address")?.parse()?;
        Ok(Listening { address, resumed: first["resumed"]["reports"].as_u64() })
    }

    /// What the system calls it; an error once it has ended.
    pub(crate) fn id(&self) -> Result<u32> {
        self.child.id().context("the coordinator has ended")
    }

    /// Ends it with SIGKILL; whether it was still running.
    pub(crate) async fn kill(mut self) -> Result<bool> {
        if self.child.try_wait()?.is_some() {
            return Ok(false);
        }
        self.child.kill().await?;
        Ok(true)
    }

    /// Its last line, once it has ended by itself.
    pub(crate) async fn report(mut self) -> Result<Value> {
        let (id, mut last) = (self.id()?, None);
        while let Some(line) = self.lines.next_line().await? {
            last = Some(line);
        }
        let status = self.child.wait().await?;
        let log = std::fs::read_to_string(&self.errors).unwrap_or_default();
        ensure!(status.success(), "the coordinator (process {id}) ended with {status}: {log}");
        Ok(serde_json::from_str(&last.context("it said nothing")?)?)
    }
}
