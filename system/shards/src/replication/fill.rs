//! Which replica goes to which disk, so that disks fill evenly. Pure: the same for the same input.
//!
//! The fair share of a disk is as much of it as all disks together are full. A replica goes from a disk above its share to
//! one below, and to neither's other side, so no more is moved than lies above: not twice, nor back. Where nodes must each
//! have what they have, shares are of the node's disks. It says what should move; who moves it is `crate::balance`.

use std::cmp::Reverse;
use std::collections::BTreeMap;

use super::place;

/// How many points of 100 are in what [`Disk::fill`] answers.
pub const POINT: u64 = 100;
/// Disks that differ by less than this, by [`Disk::fill`], are left as they are.
pub const BEGIN: u64 = 10 * POINT;
/// Once something moves, it goes on until they differ by less than this.
pub const END: u64 = 5 * POINT;
/// A replica of less than this part of the smaller disk is not worth it.
const PART_MIN: u64 = 10_000;

/// A disk that may get replicas.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Disk {
    /// The node it is in.
    pub node: String,
    /// Its id.
    pub disk: String,
    /// Its size in bytes.
    pub size: u64,
    /// Bytes in use, by whatever.
    pub used: u64,
    /// Whether replicas are bound to it, as it is not the only one of its node.
    pub binds: bool,
}

impl Disk {
    /// How full it is, in hundredths of a point of 100.
    pub fn fill(&self) -> u64 {
        part(self.used, 100 * POINT, self.size)
    }

    fn place(&self) -> String {
        if self.binds { place::on_disk(&self.node, &self.disk) } else { self.node.clone() }
    }
}

/// A volume whose replicas may be moved.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Volume {
    /// Its id.
    pub id: String,
    /// Bytes that each replica takes.
    pub bytes: u64,
    /// The node where it is used, or kept.
    pub home: String,
    /// The places of all its replicas, each with its disk.
    pub at: Vec<(String, String)>,
}

/// A replica that is to move.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Move {
    /// The volume's id.
    pub volume: String,
    /// Bytes of it.
    pub bytes: u64,
    /// Its place.
    pub from: String,
    /// The place it shall have.
    pub to: String,
    /// The disks of the two.
    pub disks: [String; 2],
}

/// How far apart the fullest and the emptiest disk are, by [`Disk::fill`].
pub fn spread(disks: &[Disk]) -> u64 {
    let fills = || disks.iter().map(Disk::fill);
    fills().max().unwrap_or(0) - fills().min().unwrap_or(0)
}

/// The bytes that lie above disks' fair shares: the least that must move until all are equally full.
pub fn surplus(disks: &[Disk]) -> u64 {
    let shares = Shares::of(disks);
    disks.iter().map(|disk| shares.cloud.above(disk)).sum()
}

/// Up to `count` replicas that should move now, each of another volume, for disks that differ by `difference` or more.
pub fn plan(mut disks: Vec<Disk>, volumes: &[Volume], difference: u64, count: usize) -> Vec<Move> {
    let mut left: Vec<&Volume> = volumes.iter().collect();
    left.sort_by_key(|v| (Reverse(v.bytes), &v.id));
    let mut moves: Vec<Move> = Vec::new();
    while moves.len() < count
        && let Some(next) = next(&disks, &left, difference)
    {
        left.retain(|v| v.id != next.volume);
        let at = |i: usize| disks.iter().position(|d| d.disk == next.disks[i]);
        if let (Some(from), Some(to)) = (at(0), at(1)) {
            disks[from].used = disks[from].used.saturating_sub(next.bytes);
            disks[to].used += next.bytes;
        }
        moves.push(next);
    }
    moves
}

/// Within which bounds something is moved; the first that allows anything counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Reach {
    /// To the fair share of all disks.
    Cloud,
    /// To the fair share of one node's disks, on it.
    Node,
    /// Until the two are equally full, where no replica is small enough for a share.
    Pair,
}

fn next(disks: &[Disk], volumes: &[&Volume], difference: u64) -> Option<Move> {
    let mut by_fill: Vec<&Disk> = disks.iter().collect();
    by_fill.sort_by_key(|d| (d.fill(), &d.disk));
    // The largest first, as they are in `volumes`.
    let on: Vec<Vec<&Volume>> = by_fill.iter().map(|d| on_disk(volumes, &d.disk)).collect();
    let shares = Shares::of(disks);
    let one_node = shares.nodes.len() == 1;
    for reach in [Reach::Cloud, Reach::Node, Reach::Pair] {
        let least = if reach == Reach::Pair { difference.max(BEGIN) } else { difference };
        for (from, here) in by_fill.iter().zip(&on).rev() {
            for to in by_fill.iter().take_while(|to| from.fill() >= to.fill() + least) {
                let most = reach.most(from, to, &shares);
                if let Some(found) = largest(here, from, to, most, one_node) {
                    return Some(found);
                }
            }
        }
    }
    None
}

fn on_disk<'a>(volumes: &[&'a Volume], disk: &str) -> Vec<&'a Volume> {
    volumes.iter().filter(|v| v.at.iter().any(|(_, on)| on == disk)).copied().collect()
}

impl Reach {
    /// The most bytes that may move from one disk to another.
    fn most(self, from: &Disk, to: &Disk, shares: &Shares<'_>) -> u64 {
        let share = match self {
            Reach::Cloud => Some(&shares.cloud),
            Reach::Node => shares.nodes.get(to.node.as_str()).filter(|_| from.node == to.node),
            Reach::Pair => return balanced(from, to),
        };
        // A little beyond is better than not at all.
        share.map_or(0, |fair| fair.above(from).min(fair.below(to)) / 10 * 11)
    }
}

/// The bytes that make two disks equally full.
fn balanced(from: &Disk, to: &Disk) -> u64 {
    let of = |a: u64, b: u64| u128::from(a) * u128::from(b);
    let apart = of(from.used, to.size).saturating_sub(of(to.used, from.size));
    let both = (u128::from(from.size) + u128::from(to.size)).max(1);
    u64::try_from(apart / both).unwrap_or(u64::MAX)
}

/// The largest replica of at most so many bytes that may go from one disk to the other; one half as large if that spares the
/// replica beside the volume's user.
fn largest(here: &[&Volume], from: &Disk, to: &Disk, most: u64, one_node: bool) -> Option<Move> {
    let least = (from.size.min(to.size) / PART_MIN).max(1);
    let fit = here.iter().skip_while(|v| v.bytes > most).take_while(|v| v.bytes >= least);
    let mut may = fit.filter(|v| may_move(v, from, to, one_node));
    let first = may.next()?;
    let spares = |v: &&Volume| v.home != from.node;
    let chosen = match spares(first) {
        true => first,
        false => may.take_while(|v| v.bytes >= first.bytes / 2).find(|v| spares(v)).unwrap_or(first),
    };
    let (at, _) = chosen.at.iter().find(|(_, disk)| *disk == from.disk)?;
    Some(Move {
        volume: chosen.id.clone(),
        bytes: chosen.bytes,
        from: at.clone(),
        to: to.place(),
        disks: [from.disk.clone(), to.disk.clone()],
    })
}

/// Whether a volume's replicas stay as far apart, and one stays where it is used.
fn may_move(volume: &Volume, from: &Disk, to: &Disk, one_node: bool) -> bool {
    let leaves_home = from.node == volume.home && to.node != volume.home;
    let stays_apart = volume.at.iter().all(|(at, disk)| {
        let free_of_it = one_node || place::node_of(at) != to.node;
        *disk != to.disk && (*disk == from.disk || free_of_it)
    });
    !leaves_home && stays_apart && (to.binds || from.node != to.node)
}

/// As much of each disk as some disks together are full.
#[derive(Default)]
struct Share {
    used: u64,
    size: u64,
}

/// The shares of all disks, and of those of each node.
#[derive(Default)]
struct Shares<'a> {
    cloud: Share,
    nodes: BTreeMap<&'a str, Share>,
}

impl<'a> Shares<'a> {
    fn of(disks: &'a [Disk]) -> Shares<'a> {
        let mut shares = Shares::default();
        for disk in disks {
            shares.cloud.add(disk);
            shares.nodes.entry(&disk.node).or_default().add(disk);
        }
        shares
    }
}

impl Share {
    fn add(&mut self, disk: &Disk) {
        self.used += disk.used;
        self.size += disk.size;
    }

    fn fair(&self, disk: &Disk) -> u64 {
        part(self.used, disk.size, self.size)
    }

    fn above(&self, disk: &Disk) -> u64 {
        disk.used.saturating_sub(self.fair(disk))
    }

    fn below(&self, disk: &Disk) -> u64 {
        self.fair(disk).saturating_sub(disk.used)
    }
}

/// `of * used / size`.
fn part(used: u64, of: u64, size: u64) -> u64 {
    let found = u128::from(used) * u128::from(of) / u128::from(size.max(1));
    u64::try_from(found).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests;
