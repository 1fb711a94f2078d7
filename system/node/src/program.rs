//! Running the system's own programs (sfdisk, mkfs.xfs, ip …): arguments only, never a shell; errors that name
//! the program and what it said.

use std::io::{self, Write};
use std::process::{Command, Stdio};

/// A program that could not be run or that failed.
#[derive(Debug, thiserror::Error)]
pub enum ProgramError {
    /// It could not be started.
    #[error("{program} could not be started: {source}")]
    Start {
        /// The program.
        program: String,
        /// Why.
        source: io::Error,
    },
    /// It ended with a failure.
    #[error("{program} failed ({status}): {stderr}")]
    Failed {
        /// The program.
        program: String,
        /// How it ended.
        status: String,
        /// What it said, cut short.
        stderr: String,
    },
}

/// Runs a program to its end and gives what it printed.
pub fn run(program: &str, args: &[&str]) -> Result<String, ProgramError> {
    run_with_input(program, args, "")
}

/// Runs a program with this text as its standard input.
pub fn run_with_input(program: &str, args: &[&str], input: &str) -> Result<String, ProgramError> {
    let start = |source| ProgramError::Start { program: program.into(), source };
    let mut child = Command::new(program)
        .args(args)
        .env("LC_ALL", "C")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .map_err(start)?;
    if let Some(mut stdin) = child.stdin.take() {
        // A program that doesn't read its input closes the pipe: its exit status tells what matters.
        let _ = stdin.write_all(input.as_bytes());
    }
    let output = child.wait_with_output().map_err(start)?;
    if output.status.success() {
        return Ok(String::from_utf8_lossy(&output.stdout).into_owned());
    }
    let mut stderr = String::from_utf8_lossy(&output.stderr).trim().to_owned();
    stderr.truncate(stderr.floor_char_boundary(400));
    Err(ProgramError::Failed { program: program.into(), status: output.status.to_string(), stderr })
}
