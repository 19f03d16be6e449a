//! A child process that does not outlive its owner, and whose output is read line by line.

use std::io::{BufRead, BufReader, Lines};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStderr, ChildStdout, Command, ExitStatus, Stdio};

use anyhow::{Context, Result, bail};

/// A running program; killed when it is dropped.
#[derive(Debug)]
pub struct Process {
    child: Child,
    stdout: Lines<BufReader<ChildStdout>>,
}

impl Process {
    /// Starts a program with its output piped; the lines of its stderr are the caller's to read.
    ///
    /// # Errors
    /// If it cannot be started.
    pub fn start(program: &Path, arguments: &[&str]) -> Result<(Self, Lines<BufReader<ChildStderr>>)> {
        let mut child = Command::new(program)
            .args(arguments)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .with_context(|| format!("start {}", program.display()))?;
        let (stdout, stderr) = child.stdout.take().zip(child.stderr.take()).context("a piped output is there")?;
        Ok((Self { child, stdout: BufReader::new(stdout).lines() }, BufReader::new(stderr).lines()))
    }

    /// The next line of its stdout, `None` at the end.
    ///
    /// # Errors
    /// If the pipe breaks.
    pub fn line(&mut self) -> Result<Option<String>> {
        Ok(self.stdout.next().transpose()?)
    }

    /// The last line that it prints before it ends.
    ///
    /// # Errors
    /// If the pipe breaks.
    pub fn last_line(&mut self) -> Result<Option<String>> {
        let mut last = None;
        while let Some(line) = self.line()? {
            last = Some(line);
        }
        Ok(last)
    }

    /// Waits for its end.
    ///
    /// # Errors
    /// If it cannot be waited for.
    pub fn wait(&mut self) -> Result<ExitStatus> {
        Ok(self.child.wait()?)
    }

    /// Ends it at once, as a power cut would.
    ///
    /// # Errors
    /// If it cannot be killed.
    pub fn kill(&mut self) -> Result<()> {
        self.child.kill()?;
        self.child.wait()?;
        Ok(())
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // It may have ended by itself, which is as good.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A program of packfed that lies beside this one.
///
/// # Errors
/// If it is not there; the error says how to build it.
pub fn beside(name: &str) -> Result<PathBuf> {
    let own = std::env::current_exe().context("find this program's own path")?;
    let file = format!("{name}{}", std::env::consts::EXE_SUFFIX);
    // Tests lie in a folder below the programs.
    let near = own.ancestors().skip(1).take(2).map(|folder| folder.join(&file));
    match near.into_iter().find(|path| path.is_file()) {
        Some(path) => Ok(path),
        None => bail!("there is no {name} beside {}; build it with `cargo build --release --bins`", own.display()),
    }
}
