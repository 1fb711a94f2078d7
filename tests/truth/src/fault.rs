//! What may happen in a cycle. Chosen by the dice alone; [`crate::run`] does it.

use std::fmt;
use std::time::Duration;

use crate::cloud::{NAMES, NODES};
use crate::dice::Dice;
use crate::link::Mode;

/// One thing that goes wrong.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Fault {
    /// Processes of these nodes are killed; they start again after so long.
    Kill { nodes: Vec<usize>, back: Duration },
    /// These nodes lose their power; `first`: their disks before the rest.
    Cut { nodes: Vec<usize>, first: bool },
    /// A process does nothing for a while.
    Freeze { node: usize },
    /// The way from a node to another, or to all and the store.
    Link { from: usize, to: usize, mode: Mode },
    /// A node hears nobody and nobody hears it, the store included.
    Isolate { node: usize, mode: Mode },
    /// A node does not reach the store.
    Storeless { node: usize, mode: Mode },
    /// A disk fails, at all or some kinds of request; `some`: only some of its sectors do.
    Fail { node: usize, what: Failing, some: bool },
    /// A disk answers nothing for so long.
    Hang { node: usize, time: Duration },
    /// A disk takes so long for each request.
    Slow { node: usize, time: Duration },
    /// A disk has so many bytes left.
    Fill { node: usize, left: u64 },
    /// The guest ends and begins again, on this node; `undead`: the old one goes on unseen.
    Move { to: usize, undead: bool },
}

/// What a disk fails at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Failing {
    Reads,
    Writes,
    Flushes,
    Everything,
}

impl Fault {
    /// What it is counted as.
    pub fn kind(&self) -> &'static str {
        match self {
            Fault::Kill { .. } => "kills",
            Fault::Cut { nodes, .. } if nodes.len() == NODES => "power cuts of all",
            Fault::Cut { .. } => "power cuts",
            Fault::Freeze { .. } => "frozen processes",
            Fault::Link { mode: Mode::Reset, .. } => "links reset",
            Fault::Link { .. } => "links silent",
            Fault::Isolate { .. } => "nodes isolated",
            Fault::Storeless { .. } => "stores out of reach",
            Fault::Fail { some: true, .. } => "disks failing in places",
            Fault::Fail { .. } => "disks failing",
            Fault::Hang { .. } => "disks hanging",
            Fault::Slow { .. } => "disks slow",
            Fault::Fill { .. } => "disks full",
            Fault::Move { .. } => "guests moved",
        }
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let all = |nodes: &[usize]| nodes.iter().map(|n| NAMES[*n]).collect::<String>();
        match self {
            Fault::Kill { nodes, back } => write!(f, "kill {} for {} ms", all(nodes), back.as_millis()),
            Fault::Cut { nodes, first } => {
                write!(f, "cut {}{}", all(nodes), if *first { " disk first" } else { "" })
            }
            Fault::Freeze { node } => write!(f, "freeze {}", NAMES[*node]),
            Fault::Link { from, to, mode } => write!(f, "link {}{} {mode:?}", NAMES[*from], NAMES[*to]),
            Fault::Isolate { node, mode } => write!(f, "isolate {} {mode:?}", NAMES[*node]),
            Fault::Storeless { node, mode } => write!(f, "no store for {} {mode:?}", NAMES[*node]),
            Fault::Fail { node, what, some } => {
                write!(f, "fail {} {what:?}{}", NAMES[*node], if *some { " of some sectors" } else { "" })
            }
            Fault::Hang { node, time } => write!(f, "hang {} {} ms", NAMES[*node], time.as_millis()),
            Fault::Slow { node, time } => write!(f, "slow {} {} ms", NAMES[*node], time.as_millis()),
            Fault::Fill { node, left } => write!(f, "fill {} to {left}", NAMES[*node]),
            Fault::Move { to, undead } => {
                write!(f, "move to {}{}", NAMES[*to], if *undead { " undead" } else { "" })
            }
        }
    }
}

/// What goes wrong in a cycle, in order.
pub fn choose(dice: &mut Dice) -> Vec<Fault> {
    let count = match dice.of(0..10) {
        0..5 => 1,
        5..8 => 2,
        _ => 3,
    };
    let mut chosen: Vec<Fault> = Vec::new();
    while chosen.len() < count {
        let fault = any(dice);
        // Two disks that fail at once are more than three replicas promise to outlive.
        let fails = |fault: &Fault| matches!(fault, Fault::Fail { .. });
        if !(fails(&fault) && chosen.iter().any(fails)) {
            let fills = if let Fault::Fill { node, .. } = fault { Some(node) } else { None };
            chosen.push(fault);
            if let Some(node) = fills.filter(|_| dice.percent(40)) {
                let back = Duration::from_millis(*dice.pick(&[0, 50, 400]));
                chosen.push(Fault::Kill { nodes: vec![node], back });
            }
        }
    }
    chosen
}

fn any(dice: &mut Dice) -> Fault {
    let node = dice.of(0..NODES as u64) as usize;
    let other = (node + 1 + dice.of(0..2) as usize) % NODES;
    let modes = [Mode::Reset, Mode::Silent, Mode::Unheard, Mode::Unanswered];
    match dice.of(0..100) {
        0..18 => {
            let back = Duration::from_millis(*dice.pick(&[0, 0, 50, 400, 1200]));
            let nodes = if dice.percent(70) { vec![node] } else { several(dice) };
            Fault::Kill { nodes, back }
        }
        18..32 => Fault::Cut { nodes: vec![node], first: dice.percent(50) },
        32..36 => Fault::Cut { nodes: vec![node, other], first: dice.percent(50) },
        36..41 => Fault::Cut { nodes: (0..NODES).collect(), first: dice.percent(50) },
        41..49 => Fault::Freeze { node },
        49..61 => Fault::Link { from: node, to: other, mode: *dice.pick(&modes) },
        61..66 => Fault::Isolate { node, mode: *dice.pick(&modes[..2]) },
        66..70 => Fault::Storeless { node, mode: *dice.pick(&modes[..2]) },
        70..78 => {
            let kinds = [Failing::Reads, Failing::Writes, Failing::Flushes, Failing::Everything];
            Fault::Fail { node, what: *dice.pick(&kinds), some: dice.percent(50) }
        }
        78..83 => {
            let time = if dice.percent(8) { 30_000 } else { dice.of(300..4000) };
            Fault::Hang { node, time: Duration::from_millis(time) }
        }
        83..87 => Fault::Slow { node, time: Duration::from_millis(dice.of(1..30)) },
        87..92 => Fault::Fill { node, left: *dice.pick(&[0, 1 << 20, 4 << 20]) },
        _ => Fault::Move { to: node, undead: dice.percent(60) },
    }
}

fn several(dice: &mut Dice) -> Vec<usize> {
    let spared = dice.of(0..NODES as u64 + 1) as usize;
    (0..NODES).filter(|node| *node != spared).collect()
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn every_kind_of_fault_is_chosen() {
        let mut dice = Dice::new(1);
        let kinds: BTreeSet<_> =
            (0..2000).flat_map(|_| choose(&mut dice)).map(|fault| fault.kind()).collect();
        assert_eq!(kinds.len(), 14, "{kinds:?}");
    }
}
