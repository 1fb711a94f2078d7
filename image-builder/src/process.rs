//! Processes known by their id, perhaps started by an earlier run of ours.
//!
//! Who ends one must be sure that it is still the one that was started: ids are used again.

use std::fs;
use std::path::Path;
use std::thread::sleep;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use nix::errno::Errno;
use nix::sys::signal::{Signal, kill};
use nix::sys::wait::{WaitPidFlag, waitpid};
use nix::unistd::Pid;
use serde::{Deserialize, Serialize};

/// A process as a later run of ours finds it again.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Known {
    pid: i32,
    /// See [`began`].
    began: u64,
}

impl Known {
    /// A process that was just started.
    pub fn started(pid: u32) -> Result<Self> {
        let pid = pid.cast_signed();
        Ok(Self { pid, began: began(pid).context("the process ended at once")? })
    }

    /// Notes it in a file.
    pub fn save(&self, path: &Path) -> Result<()> {
        fs::write(path, serde_json::to_vec(self)?).with_context(|| format!("cannot write {}", path.display()))
    }

    /// The process noted in a file, if it still runs.
    pub fn load(path: &Path) -> Option<Self> {
        let known: Self = serde_json::from_slice(&fs::read(path).ok()?).ok()?;
        known.runs().then_some(known)
    }

    /// Its id.
    pub fn pid(&self) -> i32 {
        self.pid
    }

    /// Whether it still runs. A child of ours that has ended is reaped.
    pub fn runs(&self) -> bool {
        let runs = began(self.pid) == Some(self.began);
        if !runs {
            // No child of ours, or reaped already: nothing is left to do.
            let _ = waitpid(Pid::from_raw(self.pid), Some(WaitPidFlag::WNOHANG));
        }
        runs
    }
}

/// When a process began, in the kernel's ticks (field 22 of its stat), unless it is gone or only waits to be reaped.
/// Tells it from a later one of the same id.
pub fn began(pid: i32) -> Option<u64> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    let mut fields = stat.rsplit_once(')')?.1.split_whitespace();
    (fields.next()? != "Z").then(|| fields.nth(18)?.parse().ok())?
}

/// Asks a process to end; it is killed if it has not within `limit`.
pub fn end(pid: i32, limit: Duration) -> nix::Result<()> {
    let Some(record) = began(pid) else { return Ok(()) };
    let gone = |sent| if sent == Err(Errno::ESRCH) { Ok(()) } else { sent };
    gone(kill(Pid::from_raw(pid), Signal::SIGTERM))?;
    let from = Instant::now();
    while began(pid) == Some(record) {
        if from.elapsed() > limit {
            return gone(kill(Pid::from_raw(pid), Signal::SIGKILL));
        }
        sleep(Duration::from_millis(20));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::process::ExitStatusExt;
    use std::process::Command;

    #[test]
    fn only_who_does_not_listen_is_killed() {
        for (script, signal, limit) in [
            ("echo; while :; do sleep 0.1; done", Signal::SIGTERM, Duration::from_secs(60)),
            ("trap '' TERM; echo; while :; do sleep 0.1; done", Signal::SIGKILL, Duration::from_millis(100)),
        ] {
            let mut shell =
                Command::new("sh").args(["-c", script]).stdout(std::process::Stdio::piped()).spawn().unwrap();
            // Its first byte says that the trap is set.
            std::io::Read::read_exact(shell.stdout.as_mut().unwrap(), &mut [0]).unwrap();
            end(shell.id().cast_signed(), limit).unwrap();
            assert_eq!(shell.wait().unwrap().signal(), Some(signal as i32));
        }
        end(0, Duration::ZERO).unwrap();
    }

    #[test]
    fn a_process_is_known_until_it_has_ended() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("known");
        assert_eq!(Known::load(&file), None);
        let mut child = Command::new("sleep").arg("60").spawn().unwrap();
        let known = Known::started(child.id()).unwrap();
        known.save(&file).unwrap();
        assert_eq!(Known::load(&file), Some(known));
        child.kill().unwrap();
        child.wait().unwrap();
        assert_eq!((known.runs(), Known::load(&file)), (false, None));
        Known { began: 0, ..Known::started(std::process::id()).unwrap() }.save(&file).unwrap();
        assert_eq!(Known::load(&file), None, "its id was given to another process");
    }

    #[test]
    fn a_process_has_a_beginning_and_no_process_has_none() {
        assert!(began(std::process::id().cast_signed()).is_some());
        assert_eq!(began(0), None);
    }
}
