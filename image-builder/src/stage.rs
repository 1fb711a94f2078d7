//! Named stages of a long command: progress while they run, the time each took, and skipping those
//! whose inputs have not changed since they last succeeded.
//!
//! A stage's inputs are hashed; the hash is kept in `target/image/stamps/<stage>` after success only.
//! A stage writes to a temporary place and renames at its end (that is the stage's own duty), so one that
//! was interrupted is simply run again. This module must never delete what a stage made.

use std::fs::File;
use std::io::{IsTerminal, Read, Write};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use indicatif::{ProgressBar, ProgressStyle};
use nix::errno::Errno;
use nix::fcntl::{Flock, FlockArg};
use sha2::{Digest, Sha256};

use crate::exec;
use crate::paths::{Paths, ensure_dir};

/// What a stage is made from. Two equal hashes mean that the stage need not run again.
#[derive(Clone, Default)]
pub struct Inputs {
    hash: Sha256,
}

impl Inputs {
    /// No inputs yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds a piece of text: an option, a list of packages, another stage's hash.
    #[must_use]
    pub fn text(mut self, text: &str) -> Self {
        self.piece(b"text", text.as_bytes());
        self
    }

    /// Adds a file's contents and mode, or a whole folder of them in a fixed order.
    pub fn tree(mut self, path: &Path) -> Result<Self> {
        self.add_path(path, path).with_context(|| format!("cannot read {}", path.display()))?;
        Ok(self)
    }

    /// Adds a big file by its size and time of change only.
    pub fn big_file(mut self, path: &Path) -> Result<Self> {
        let meta = std::fs::metadata(path).with_context(|| format!("cannot read {}", path.display()))?;
        self.piece(b"big", format!("{} {}.{}", meta.len(), meta.mtime(), meta.mtime_nsec()).as_bytes());
        Ok(self)
    }

    /// The hash of all that was added, as text.
    pub fn digest(&self) -> String {
        hex::encode(self.hash.clone().finalize())
    }

    fn piece(&mut self, kind: &[u8], bytes: &[u8]) {
        self.hash.update(kind);
        self.hash.update((bytes.len() as u64).to_le_bytes());
        self.hash.update(bytes);
    }

    fn add_path(&mut self, base: &Path, path: &Path) -> Result<()> {
        let meta = std::fs::symlink_metadata(path)?;
        let name = path.strip_prefix(base).unwrap_or(path);
        self.piece(b"name", name.as_os_str().as_bytes());
        self.piece(b"mode", &meta.mode().to_le_bytes());
        if meta.is_symlink() {
            self.piece(b"link", std::fs::read_link(path)?.as_os_str().as_bytes());
        } else if meta.is_dir() {
            let mut names: Vec<PathBuf> =
                std::fs::read_dir(path)?.map(|e| e.map(|e| e.path())).collect::<Result<_, _>>()?;
            names.sort();
            for child in names {
                self.add_path(base, &child)?;
            }
        } else {
            let mut bytes = Vec::new();
            File::open(path)?.read_to_end(&mut bytes)?;
            self.piece(b"file", &bytes);
        }
        Ok(())
    }
}

/// How a stage ended, for the table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Outcome {
    Done,
    Reused,
    Failed,
}

/// A long command: its stages so far, and the lock that keeps a second one from building beside it.
pub struct Stages {
    paths: Paths,
    rows: Vec<(String, Outcome, Duration)>,
    started: Instant,
    _lock: Flock<File>,
}

impl Stages {
    /// Starts a long command. Waits for another one that is building in the same checkout.
    pub fn start(paths: &Paths) -> Result<Self> {
        let file = ensure_dir(paths.image())?.join("lock");
        let lock = File::create(&file).with_context(|| format!("cannot write {}", file.display()))?;
        let lock = match Flock::lock(lock, FlockArg::LockExclusiveNonblock) {
            Err((lock, Errno::EWOULDBLOCK)) => {
                say("another build is running in this checkout: waiting for it");
                Flock::lock(lock, FlockArg::LockExclusive)
            }
            other => other,
        };
        let lock = lock.map_err(|(_, error)| error).context("cannot lock the build")?;
        Ok(Self { paths: paths.clone(), rows: Vec::new(), started: Instant::now(), _lock: lock })
    }

    /// Where everything is.
    pub fn paths(&self) -> &Paths {
        &self.paths
    }

    /// Runs a stage, always.
    pub fn run<T>(&mut self, name: &str, work: impl FnOnce(&Step) -> Result<T>) -> Result<T> {
        let step = Step::begin(name, self.paths.image().join("log"));
        let result = work(&step);
        let outcome = if result.is_ok() { Outcome::Done } else { Outcome::Failed };
        step.end(&result);
        self.rows.push((name.to_owned(), outcome, step.began.elapsed()));
        result.with_context(|| format!("the stage «{name}» failed"))
    }

    /// Runs a stage only if its inputs changed since it last succeeded, or one of its outputs is gone.
    /// Returns whether it ran.
    pub fn run_if_changed(
        &mut self,
        name: &str,
        inputs: &Inputs,
        outputs: &[&Path],
        work: impl FnOnce(&Step) -> Result<()>,
    ) -> Result<bool> {
        let stamp = ensure_dir(self.paths.image().join("stamps"))?.join(name.replace(' ', "-"));
        let digest = inputs.digest();
        let same = std::fs::read_to_string(&stamp).is_ok_and(|old| old == digest);
        if same && outputs.iter().all(|path| path.exists()) {
            self.rows.push((name.to_owned(), Outcome::Reused, Duration::ZERO));
            return Ok(false);
        }
        if stamp.exists() {
            std::fs::remove_file(&stamp)?;
        }
        self.run(name, work)?;
        std::fs::write(&stamp, digest)?;
        Ok(true)
    }

    /// How many stages there were.
    pub fn count(&self) -> usize {
        self.rows.len()
    }

    /// The table of what each stage took, ending with the whole.
    pub fn summary(&self) -> String {
        let width = self.rows.iter().map(|row| row.0.chars().count()).max().unwrap_or(0).max(5);
        let mut text = String::new();
        for (name, outcome, took) in &self.rows {
            let took = match outcome {
                Outcome::Reused => "reused".to_owned(),
                Outcome::Done => seconds(*took),
                Outcome::Failed => format!("{} FAILED", seconds(*took)),
            };
            text.push_str(&format!("  {name:width$}  {took:>9}\n"));
        }
        text.push_str(&format!("  {:width$}  {:>9}", "whole", seconds(self.started.elapsed())));
        text
    }
}

/// A stage that is running: what it may report to the person who waits.
pub struct Step {
    name: String,
    log: PathBuf,
    bar: ProgressBar,
    began: Instant,
}

impl Step {
    /// Begins a piece of work outside of a build: what waits for something, shown the same way.
    pub fn begin(name: &str, logs: PathBuf) -> Self {
        let bar = if std::io::stderr().is_terminal() {
            let bar = ProgressBar::new_spinner().with_prefix(name.to_owned());
            if let Ok(style) = ProgressStyle::with_template("{spinner} {prefix} {elapsed} {wide_msg:.dim}") {
                bar.set_style(style);
            }
            bar.enable_steady_tick(Duration::from_millis(120));
            bar
        } else {
            say(&format!("… {name}"));
            ProgressBar::hidden()
        };
        let log = logs.join(format!("{}.log", name.replace(' ', "-")));
        Self { name: name.to_owned(), log, bar, began: Instant::now() }
    }

    /// Says what the stage is doing now.
    pub fn note(&self, text: &str) {
        self.bar.set_message(text.to_owned());
    }

    /// Runs a program with its output in this stage's log, the last line shown as progress.
    pub fn exec(&self, command: &mut Command) -> Result<()> {
        exec::logged(command, &self.log, |line| self.bar.set_message(line.to_owned()))
    }

    /// How long the stage has been running.
    pub fn elapsed(&self) -> Duration {
        self.began.elapsed()
    }

    /// Ends it, and says how it went and how long it took.
    pub fn end<T>(&self, result: &Result<T>) {
        self.bar.finish_and_clear();
        let mark = if result.is_ok() { "✓" } else { "✗" };
        say(&format!("{mark} {} {}", self.name, seconds(self.began.elapsed())));
    }
}

/// A duration as people read it: `4.2 s`, `3 min 05 s`.
pub fn seconds(time: Duration) -> String {
    let whole = time.as_secs();
    if whole < 60 {
        format!("{:.1} s", time.as_secs_f64())
    } else {
        format!("{} min {:02} s", whole / 60, whole % 60)
    }
}

/// What a program of ours ends with: an error is told on standard error.
pub fn ended(program: &str, result: Result<()>) -> ExitCode {
    let Err(error) = result else { return ExitCode::SUCCESS };
    // Nobody is left to tell if standard error is closed.
    let _ = writeln!(std::io::stderr(), "{program}: {error:#}");
    ExitCode::FAILURE
}

/// Tells the person a line, on standard output.
pub fn say(text: &str) {
    // Nobody is left to tell if standard output is closed.
    let _ = writeln!(std::io::stdout().lock(), "{text}");
}

#[cfg(test)]
mod tests {
    use super::*;

    fn workspace() -> (tempfile::TempDir, Stages) {
        let folder = tempfile::tempdir().unwrap();
        let stages = Stages::start(&Paths::at(folder.path())).unwrap();
        (folder, stages)
    }

    #[test]
    fn a_stage_runs_again_only_when_its_inputs_change() {
        let (folder, mut stages) = workspace();
        let (input, out) = (folder.path().join("in"), folder.path().join("out"));
        let mut ran = 0;
        for (text, expected) in [("a", 1), ("a", 1), ("b", 2), ("b", 2)] {
            std::fs::write(&input, text).unwrap();
            let inputs = Inputs::new().tree(&input).unwrap();
            let work = |_: &Step| {
                ran += 1;
                Ok(std::fs::write(&out, text)?)
            };
            stages.run_if_changed("copy", &inputs, &[&out], work).unwrap();
            assert_eq!(ran, expected, "after writing {text}");
        }
        std::fs::remove_file(&out).unwrap();
        let inputs = Inputs::new().tree(&input).unwrap();
        assert!(stages.run_if_changed("copy", &inputs, &[&out], |_| Ok(())).unwrap(), "its output was gone");
        assert!(stages.summary().contains("reused"));
    }

    #[test]
    fn a_failed_stage_is_not_reused() {
        let (_folder, mut stages) = workspace();
        let inputs = Inputs::new().text("same");
        assert!(stages.run_if_changed("flaky", &inputs, &[], |_| anyhow::bail!("no")).is_err());
        assert!(stages.run_if_changed("flaky", &inputs, &[], |_| Ok(())).unwrap());
        assert!(!stages.run_if_changed("flaky", &inputs, &[], |_| Ok(())).unwrap());
        assert!(stages.summary().contains("FAILED"));
    }

    #[test]
    fn the_hash_sees_names_modes_and_boundaries() {
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("a"), "x").unwrap();
        let before = Inputs::new().tree(folder.path()).unwrap().digest();
        std::fs::rename(folder.path().join("a"), folder.path().join("b")).unwrap();
        assert_ne!(before, Inputs::new().tree(folder.path()).unwrap().digest());
        assert_ne!(Inputs::new().text("ab").text("c").digest(), Inputs::new().text("a").text("bc").digest());
    }

    #[test]
    fn times_are_readable() {
        assert_eq!(seconds(Duration::from_millis(4200)), "4.2 s");
        assert_eq!(seconds(Duration::from_secs(185)), "3 min 05 s");
    }
}
