//! Applying rule sets: `nft -f -` in the right namespace, atomically, and only when something differs.
//!
//! What was applied, and how the kernel then listed it, is kept in the run directory (which lives as long as the
//! kernel's rules do). So a restarted agent changes nothing that is right, and damage from outside is seen.

use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use super::netns;

/// A table: family and name.
pub type Table = (&'static str, &'static str);

/// Whether a text that differs from what was applied may be applied.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Trust {
    /// It comes from the store as it is now.
    Fresh,
    /// It comes from a copy that may be old: it may repair, and fill what was never there, but not change.
    Stale,
}

/// Keeps rule sets as they should be.
pub struct Rules {
    directory: PathBuf,
}

impl Rules {
    /// With the notes in this directory.
    pub fn new(run_dir: &Path) -> Rules {
        Rules { directory: run_dir.join("network-rules") }
    }

    /// Makes the tables of a namespace (or of the node) what `text` says. True if anything had to be done.
    pub async fn ensure(
        &self,
        space: Option<&str>,
        text: &str,
        tables: &'static [Table],
        trust: Trust,
    ) -> io::Result<bool> {
        let (noted, listed) = self.notes(space);
        let undamaged = noted.is_some() && listed == Some(list(space, tables).await?);
        if undamaged && (noted.as_deref() == Some(text) || trust == Trust::Stale) {
            return Ok(false);
        }
        // Whatever goes wrong from here on, the notes must not say that it went well.
        self.forget(space)?;
        apply(space, text).await?;
        let listed = list(space, tables).await?;
        self.note(space, text, &listed)?;
        Ok(true)
    }

    /// Forgets a namespace that is gone.
    pub fn forget(&self, space: Option<&str>) -> io::Result<()> {
        match std::fs::remove_file(self.path(space, "nft")) {
            Err(e) if e.kind() != io::ErrorKind::NotFound => return Err(e),
            _ => {}
        }
        match std::fs::remove_file(self.path(space, "list")) {
            Err(e) if e.kind() != io::ErrorKind::NotFound => Err(e),
            _ => Ok(()),
        }
    }

    /// How many chains, and how many sets and maps, are applied, in all namespaces.
    pub fn count(&self) -> (usize, usize) {
        let files = std::fs::read_dir(&self.directory).into_iter().flatten().flatten().map(|f| f.path());
        let lists = files.filter(|f| f.extension().is_some_and(|e| e == "list"));
        let (mut chains, mut sets) = (0, 0);
        for text in lists.filter_map(|f| std::fs::read_to_string(f).ok()) {
            let begin = |what: &str| text.lines().filter(|l| l.trim_start().starts_with(what)).count();
            chains += begin("chain ");
            sets += begin("set ") + begin("map ");
        }
        (chains, sets)
    }

    fn path(&self, space: Option<&str>, what: &str) -> PathBuf {
        self.directory.join(format!("{}.{what}", space.unwrap_or("node")))
    }

    fn notes(&self, space: Option<&str>) -> (Option<String>, Option<String>) {
        let read = |what| std::fs::read_to_string(self.path(space, what)).ok();
        (read("nft"), read("list"))
    }

    fn note(&self, space: Option<&str>, text: &str, listed: &str) -> io::Result<()> {
        std::fs::create_dir_all(&self.directory)?;
        std::fs::write(self.path(space, "list"), listed)?;
        std::fs::write(self.path(space, "nft"), text)
    }
}

async fn apply(space: Option<&str>, text: &str) -> io::Result<()> {
    let text = text.to_owned();
    let output = netns::within(space, move || {
        let mut child = nft(&["-f", "-"]).spawn()?;
        // A child that ends early says why on its standard error, so a broken pipe is not the error to tell.
        let _ = child.stdin.take().map(|mut stdin| stdin.write_all(text.as_bytes()));
        child.wait_with_output()
    })
    .await?;
    if output.status.success() { Ok(()) } else { Err(failure(&output)) }
}

/// How the kernel lists the tables, without counters; a table that is not there is listed as nothing.
async fn list(space: Option<&str>, tables: &'static [Table]) -> io::Result<String> {
    netns::within(space, move || {
        let mut listed = String::new();
        for (family, name) in tables {
            let output = nft(&["-s", "list", "table", family, name]).output()?;
            if !output.status.success() && !is_absent(&output) {
                return Err(failure(&output));
            }
            listed.push_str(&String::from_utf8_lossy(&output.stdout));
        }
        Ok(listed)
    })
    .await
}

fn is_absent(output: &Output) -> bool {
    String::from_utf8_lossy(&output.stderr).contains("No such file or directory")
}

fn nft(arguments: &[&str]) -> Command {
    let mut command = Command::new("nft");
    command.args(arguments).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    command
}

fn failure(output: &Output) -> io::Error {
    let text = String::from_utf8_lossy(&output.stderr);
    let first: Vec<_> = text.lines().take(3).collect();
    io::Error::other(format!("nft failed: {}", first.join(" ")))
}
