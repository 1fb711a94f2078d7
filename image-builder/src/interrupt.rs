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

/// Whether this process was asked to end. Programs it starts begin as usual: handlers do not outlive exec.
#[derive(Clone, Copy, Debug)]
pub struct Interrupt {
    _installed: (),
}

impl Interrupt {
    /// From now on SIGINT, SIGTERM and SIGHUP are noticed. They also end a system call that waits (as the one for the
    /// build's lock), which the standard library's own calls take up again.
    pub fn listen() -> Result<Self> {
        let action = SigAction::new(SigHandler::Handler(note), SaFlags::empty(), SigSet::empty());
        for signal in [Signal::SIGINT, Signal::SIGTERM, Signal::SIGHUP] {
            install(signal, &action).with_context(|| format!("cannot listen for {signal}"))?;
        }
        Ok(Self { _installed: () })
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

#[allow(unsafe_code)]
fn install(signal: Signal, action: &SigAction) -> nix::Result<()> {
    // SAFETY: the handler stores to a static atomic and does nothing else, which is safe at any moment.
    unsafe { sigaction(signal, action) }.map(drop)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::exec;

    #[test]
    fn an_interrupt_is_noticed_and_programs_start_with_nothing_blocked_or_ignored() {
        let interrupt = Interrupt::listen().unwrap();
        assert!(!interrupt.seen());
        let status = exec::output(&mut exec::command("cat", ["/proc/self/status"])).unwrap();
        let signals = (1 << (Signal::SIGINT as u64 - 1))
            | (1 << (Signal::SIGTERM as u64 - 1))
            | (1 << (Signal::SIGHUP as u64 - 1));
        for set in ["SigBlk:", "SigIgn:", "SigCgt:"] {
            let line = status.lines().find_map(|l| l.strip_prefix(set)).unwrap();
            assert_eq!(u64::from_str_radix(line.trim(), 16).unwrap() & signals, 0, "{set} {line}");
        }
        nix::sys::signal::raise(Signal::SIGHUP).unwrap();
        assert!(interrupt.seen());
        interrupt.wait_while(|| panic!("it was seen already"));
    }
}
