//! Running other programs: with their output in a log, or collected, and errors that a person can act on.
//!
//! Runs what it is told and nothing else. It must never go through a shell with text from outside.

use std::ffi::OsStr;
use std::fs::{File, OpenOptions};
use std::io::{BufRead, BufReader, Read, Seek, SeekFrom, Write};
use std::path::Path;
use std::process::{Command, Stdio};

use anyhow::{Context, Result, bail};

/// Starts a command line: `command("ip", ["link", "show"])`.
pub fn command<I, S>(program: &str, args: I) -> Command
where
    I: IntoIterator<Item = S>,
    S: AsRef<OsStr>,
{
    let mut command = Command::new(program);
    command.args(args).stdin(Stdio::null());
    command
}

/// What cargo tells the programs it runs about themselves.
const OF_CARGO_RUN: [&str; 5] =
    ["CARGO_BIN_", "CARGO_CRATE_", "CARGO_MANIFEST_", "CARGO_PKG_", "CARGO_PRIMARY_"];

/// Starts a command line of cargo in a workspace, as a person would type it there. What `cargo run` told this program
/// is not passed on: build scripts look at it, and would run anew each time another program of ours builds.
pub fn cargo(workspace: &Path, args: &[&str]) -> Command {
    let mut cargo = command("cargo", args);
    cargo.current_dir(workspace);
    for (name, _) in std::env::vars_os() {
        if OF_CARGO_RUN.iter().any(|prefix| name.as_encoded_bytes().starts_with(prefix.as_bytes())) {
            cargo.env_remove(name);
        }
    }
    cargo
}

/// Runs a command to its end and returns what it wrote to standard output.
/// Its standard error becomes the text of the error if it fails.
pub fn output(command: &mut Command) -> Result<String> {
    let name = describe(command);
    let done = command.stdin(Stdio::null()).output().with_context(|| format!("cannot start: {name}"))?;
    if !done.status.success() {
        let said = String::from_utf8_lossy(&done.stderr);
        bail!("{name}: {}: {}", done.status, said.trim());
    }
    Ok(String::from_utf8_lossy(&done.stdout).into_owned())
}

/// Runs a command to its end; its output matters only if it fails.
pub fn run(command: &mut Command) -> Result<()> {
    output(command).map(drop)
}

/// Whether a command could be started and succeeded; its output is dropped.
pub fn succeeds(command: &mut Command) -> bool {
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    command.status().is_ok_and(|status| status.success())
}

/// Runs a command with all its output appended to `log`, calling `each_line` for every line of it.
pub fn logged(command: &mut Command, log: &Path, mut each_line: impl FnMut(&str)) -> Result<()> {
    let name = describe(command);
    let mut file = append_to(log)?;
    writeln!(file, "+ {name}")?;
    let from = file.stream_position()?;
    let (reader, writer) = std::io::pipe()?;
    command.stdin(Stdio::null()).stdout(writer.try_clone()?).stderr(writer);
    let mut child = command.spawn().with_context(|| format!("cannot start: {name}"))?;
    // Our own copies of the pipe's writing end live in `command`: put something else there to close them.
    command.stdout(Stdio::null()).stderr(Stdio::null());
    let mut reader = BufReader::new(reader);
    let mut line = Vec::new();
    while reader.read_until(b'\n', &mut line)? > 0 {
        let text = String::from_utf8_lossy(&line);
        // Of a progress bar, only what it ended as.
        let last = text.trim().rsplit('\r').find(|part| !part.trim().is_empty()).unwrap_or("").trim();
        writeln!(file, "{last}")?;
        each_line(last);
        line.clear();
    }
    let status = child.wait()?;
    if !status.success() {
        bail!("{name}: {status}\n{}\n(all of it is in {})", tail(log, from, 25)?, log.display());
    }
    Ok(())
}

/// The command line as a person would type it, cut after a while.
pub fn describe(command: &Command) -> String {
    let mut text = command.get_program().to_string_lossy().into_owned();
    for arg in command.get_args() {
        text.push(' ');
        text.push_str(&arg.to_string_lossy());
    }
    match text.char_indices().nth(300) {
        Some((end, _)) => format!("{}…", &text[..end]),
        None => text,
    }
}

fn append_to(log: &Path) -> Result<File> {
    if let Some(folder) = log.parent() {
        std::fs::create_dir_all(folder)?;
    }
    let mut file = OpenOptions::new().create(true).append(true).open(log)?;
    file.seek(SeekFrom::End(0))?;
    Ok(file)
}

/// The last `count` lines of a file, looking no further back than `from`.
fn tail(path: &Path, from: u64, count: usize) -> Result<String> {
    let mut file = File::open(path)?;
    file.seek(SeekFrom::Start(from))?;
    let mut bytes = Vec::new();
    file.read_to_end(&mut bytes)?;
    let text = String::from_utf8_lossy(&bytes);
    let lines: Vec<&str> = text.lines().collect();
    Ok(lines[lines.len().saturating_sub(count)..].join("\n"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_failure_carries_what_the_program_said() {
        let folder = tempfile::tempdir().unwrap();
        let log = folder.path().join("log");
        let mut seen: Vec<String> = Vec::new();
        let failed = logged(
            &mut command("sh", ["-c", "printf '0%%\\r50%%\\rone\\n'; echo two >&2; exit 3"]),
            &log,
            |l| seen.push(l.into()),
        );
        let text = format!("{:#}", failed.unwrap_err());
        assert!(text.contains("two") && text.contains('3'), "{text}");
        assert_eq!(seen, ["one".to_owned(), "two".to_owned()]);
    }

    #[test]
    fn cargo_is_not_told_which_program_calls_it() {
        let cargo = cargo(Path::new("/"), &["--version"]);
        assert!(cargo.get_envs().any(|(name, value)| name == "CARGO_PKG_NAME" && value.is_none()));
        assert!(cargo.get_envs().all(|(name, value)| name != "CARGO_HOME" && value.is_none()));
    }

    #[test]
    fn output_is_collected() {
        assert_eq!(output(&mut command("echo", ["a", "b"])).unwrap(), "a b\n");
        assert!(!succeeds(&mut command("false", [""; 0])));
    }
}
