//! Cycles in which the old writer of a volume lives on: its node is frozen or does not hear the store, another takes the
//! volume over with a new guest, and the old front-end writes all the time. Only the epochs keep it out.

use std::fmt;
use std::thread::sleep;
use std::time::Duration;

use anyhow::{Result, bail};

use crate::cloud::NODES;
use crate::dice::Dice;
use crate::link::Mode;
use crate::run::{PATIENCE, Run, millis};

/// How long the new writer waits at most for a node that does not answer, and some more. One that needs just that node
/// cannot begin before.
const TAKEN_OVER: Duration = Duration::from_secs(5);

/// How the old writer lives on.
#[derive(Clone, Copy, Debug)]
pub struct Haunting {
    /// It does nothing while it is taken over.
    frozen: bool,
    /// Its connections end meanwhile and nobody reaches its node: it must make new ones under its old epoch.
    parted: bool,
    /// What becomes of its word to the store.
    mode: Mode,
}

impl Haunting {
    pub fn choose(dice: &mut Dice) -> Haunting {
        let (frozen, parted) = *dice.pick(&[(false, false), (true, false), (false, true), (true, true)]);
        Haunting { frozen, parted, mode: *dice.pick(&[Mode::Silent, Mode::Reset]) }
    }
}

impl fmt::Display for Haunting {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let word = |is, word| if is { word } else { "" };
        write!(f, "old writer{}{}", word(self.frozen, " frozen"), word(self.parted, " parted"))
    }
}

impl Run {
    /// One cycle of that.
    pub fn haunted(&mut self, how: Haunting, dice: &mut Dice) -> Result<String> {
        *self.counts.entry("old writers that live on").or_default() += 1;
        self.load(dice, false)?;
        sleep(millis(dice, 50..250));
        let Some(old) = self.home else { bail!("no guest") };
        let new = (old + 1 + dice.of(0..NODES as u64 - 1) as usize) % NODES;
        self.cloud.link(old, None, how.mode);
        if how.frozen {
            self.cloud.nodes[old].freeze(true)?;
        }
        if how.parted {
            self.part(old, Mode::Reset, Mode::Reset);
        }
        self.die(true)?;
        self.attach(new, PATIENCE)?;
        self.load(dice, false)?;
        if self.vm.until_settled(TAKEN_OVER)? {
            *self.counts.entry("old writers taken over from").or_default() += 1;
            self.vm.haunt(dice.child())?;
        }
        sleep(millis(dice, 20..200));
        self.cloud.nodes[old].freeze(false)?;
        if how.parted {
            // It reaches the others again, and they do not reach it.
            self.part(old, Mode::Whole, Mode::Reset);
            sleep(millis(dice, 1000..1600));
        }
        sleep(millis(dice, 100..500));
        self.mend(&[], dice)?;
        self.end(dice)
    }

    fn part(&self, node: usize, out: Mode, back: Mode) {
        for other in (0..NODES).filter(|other| *other != node) {
            self.cloud.link(node, Some(other), out);
            self.cloud.link(other, Some(node), back);
        }
    }
}
