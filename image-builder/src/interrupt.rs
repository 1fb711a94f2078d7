//! Ctrl-C, a closed terminal, or a polite request to end: noticed instead of died of, so that what was started can be
//! stopped in order.
//!
//! A handler sets a flag and nothing is blocked: a blocked signal would stay blocked in every program we start.

use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::sleep;
use std::time::Duration;

use anyhow::{Context, Result};
use nix::libc::c_int;
use nix::sys::signal::{SaFlags, SigAction, SigHandler, SigSet, Signal, sigaction};

static SEEN: AtomicBool = AtomicBool::new(false);

extern "C" fn note(_signal: c_int) {
    SEEN.store(true, Ordering::Relaxed);
}

/// Whether this process was asked to end, for as long as this lives; afterwards that ends it again. Programs it starts
/// begin as usual: handlers do not outlive exec.
#[derive(Debug)]
pub struct Interrupt {
    before: Vec<(Signal, SigAction)>,
}

impl Interrupt {
    /// From now on SIGINT, SIGTERM and SIGHUP are noticed. They also end a system call that waits (as the one for the
    /// build's lock), but for those that the standard library takes up again.
    pub fn listen() -> Result<Self> {
        let action = SigAction::new(SigHandler::Handler(note), SaFlags::empty(), SigSet::empty());
        let mut interrupt = Self { before: Vec::new() };
        for signal in [Signal::SIGINT, Signal::SIGTERM, Signal::SIGHUP] {
            let before = install(signal, &action).with_context(|| format!("cannot listen for {signal}"))?;
            interrupt.before.push((signal, before));
        }
        Ok(interrupt)
    }

    /// Whether any of them has come.
    pub fn seen(&self) -> bool {
        SEEN.load(Ordering::Relaxed)
    }

    /// Stays until one of them comes, or `goes_on` says that there is nothing more to wait for.
    pub fn wait_while(&self, mut goes_on: impl FnMut() -> bool) {
        while !self.seen() && goes_on() {
            sleep(Duration::from_millis(200));
        }
    }
}

impl Drop for Interrupt {
    fn drop(&mut self) {
        for (signal, before) in &self.before {
            // It was in force before, so it is valid.
            let _ = install(*signal, before);
        }
    }
}

/// Returns what was in force before.
#[allow(unsafe_code)]
fn install(signal: Signal, action: &SigAction) -> nix::Result<SigAction> {
    // SAFETY: the handler is `note`, which stores to a static atomic and does nothing else, or what was in force before.
    unsafe { sigaction(signal, action) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::exec;

    /// Which of the three are in a set of signals of `/proc/PID/status`.
    fn of(status: &str, set: &str) -> u64 {
        let three =
            [Signal::SIGINT, Signal::SIGTERM, Signal::SIGHUP].iter().fold(0, |m, s| m | 1 << (*s as u64 - 1));
        let line = status.lines().find_map(|l| l.strip_prefix(set)).unwrap();
        u64::from_str_radix(line.trim(), 16).unwrap() & three
    }

    #[test]
    fn an_interrupt_is_noticed_and_programs_start_with_nothing_blocked_or_ignored() {
        let own = || std::fs::read_to_string("/proc/self/status").unwrap();
        let interrupt = Interrupt::listen().unwrap();
        assert!(!interrupt.seen());
        assert_ne!(of(&own(), "SigCgt:"), 0);
        let child = exec::output(&mut exec::command("cat", ["/proc/self/status"])).unwrap();
        assert_eq!(["SigBlk:", "SigIgn:", "SigCgt:"].map(|set| of(&child, set)), [0; 3], "{child}");
        nix::sys::signal::raise(Signal::SIGHUP).unwrap();
        assert!(interrupt.seen());
        interrupt.wait_while(|| panic!("it was seen already"));
        drop(interrupt);
        assert_eq!(of(&own(), "SigCgt:"), 0);
    }
}
