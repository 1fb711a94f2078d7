//! What to change so that a tunnel's entries become what they should be. Pure.
//!
//! What comes is before what goes, so that a MAC that moves from one node to another is never nowhere.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use super::{EVERYONE, Entries, Step, Tunnel};
use crate::agent::mac::Mac;

/// The changes of one tunnel; `device` and `bridge` are the numbers of its link and its bridge's, if they are there.
pub fn entries(
    name: &str,
    want: &Tunnel,
    device: Option<u32>,
    bridge: Option<u32>,
    is: &Entries,
) -> Vec<Step> {
    let mut steps = remote(name, want, device, is);
    steps.extend(held(name, want, device, is));
    steps.extend(neighbours(want, bridge, is));
    steps
}

fn remote(name: &str, want: &Tunnel, device: Option<u32>, is: &Entries) -> Vec<Step> {
    let mut wanted: BTreeSet<(Mac, IpAddr)> = want.remote.iter().map(|(mac, to)| (*mac, *to)).collect();
    wanted.extend(want.everyone.iter().map(|to| (EVERYONE, *to)));
    let have: BTreeSet<(Mac, IpAddr)> =
        is.remote.iter().filter(|(link, ..)| Some(*link) == device).map(|(_, mac, to)| (*mac, *to)).collect();
    let link = || name.to_owned();
    let new = wanted.difference(&have).map(|(mac, to)| Step::Remote { link: link(), mac: *mac, to: *to });
    // A MAC that is elsewhere now was replaced by what is above: only one that is nowhere has to go.
    let old = have
        .difference(&wanted)
        .filter(|(mac, _)| *mac == EVERYONE || !want.remote.contains_key(mac))
        .map(|(mac, to)| Step::NoRemote { link: link(), mac: *mac, to: *to });
    new.chain(old).collect()
}

fn held(name: &str, want: &Tunnel, device: Option<u32>, is: &Entries) -> Vec<Step> {
    let wanted: BTreeSet<Mac> = want.remote.keys().filter(|m| !want.arriving.contains(m)).copied().collect();
    let have: BTreeSet<Mac> =
        is.held.iter().filter(|(link, _)| Some(*link) == device).map(|(_, mac)| *mac).collect();
    let link = || name.to_owned();
    let new = wanted.difference(&have).map(|mac| Step::Hold { link: link(), mac: *mac });
    let old = have.difference(&wanted).map(|mac| Step::Release { link: link(), mac: *mac });
    new.chain(old).collect()
}

fn neighbours(want: &Tunnel, bridge: Option<u32>, is: &Entries) -> Vec<Step> {
    let have: BTreeMap<IpAddr, Mac> = is
        .neighbours
        .iter()
        .filter(|((link, _), _)| Some(*link) == bridge)
        .map(|((_, ip), mac)| (*ip, *mac))
        .collect();
    let name = || want.bridge.clone();
    let new = want
        .neighbours
        .iter()
        .filter(|(ip, mac)| have.get(*ip) != Some(*mac))
        .map(|(ip, mac)| Step::Neighbour { bridge: name(), ip: *ip, mac: *mac });
    let old = have
        .keys()
        .filter(|ip| !want.neighbours.contains_key(*ip))
        .map(|ip| Step::NoNeighbour { bridge: name(), ip: *ip });
    new.chain(old).collect()
}

#[cfg(test)]
mod tests {
    use super::super::{Shape, UDP_PORT};
    use super::*;

    fn ip(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    fn mac(last: u8) -> Mac {
        Mac([0xfa, 0x16, 0x3e, 0, 0, last])
    }

    fn tunnel() -> Tunnel {
        Tunnel {
            bridge: "br".into(),
            shape: Shape { vni: 7, local: ip("192.0.2.1"), port: UDP_PORT },
            mtu: 1450,
            suppress: true,
            remote: BTreeMap::from([(mac(1), ip("192.0.2.2")), (mac(2), ip("192.0.2.3"))]),
            arriving: BTreeSet::from([mac(2)]),
            everyone: BTreeSet::from([ip("192.0.2.2"), ip("192.0.2.3")]),
            neighbours: BTreeMap::from([(ip("10.0.0.1"), mac(1))]),
        }
    }

    /// The entries as they are after these steps.
    fn after(steps: &[Step], mut is: Entries) -> Entries {
        for step in steps {
            match step {
                Step::Remote { mac, to, .. } => {
                    if *mac != EVERYONE {
                        is.remote.retain(|(_, m, _)| m != mac);
                    }
                    is.remote.insert((5, *mac, *to));
                }
                Step::NoRemote { mac, to, .. } => assert!(is.remote.remove(&(5, *mac, *to))),
                Step::Hold { mac, .. } => drop(is.held.insert((5, *mac))),
                Step::Release { mac, .. } => assert!(is.held.remove(&(5, *mac))),
                Step::Neighbour { ip, mac, .. } => drop(is.neighbours.insert((4, *ip), *mac)),
                Step::NoNeighbour { ip, .. } => assert!(is.neighbours.remove(&(4, *ip)).is_some()),
                Step::Add { .. } | Step::Port { .. } => {}
            }
        }
        is
    }

    #[test]
    fn what_is_planned_makes_it_right_whatever_was_there() {
        let want = tunnel();
        let mut others = tunnel();
        others.remote = BTreeMap::from([(mac(1), ip("192.0.2.3")), (mac(9), ip("192.0.2.9"))]);
        others.everyone = BTreeSet::from([ip("192.0.2.9")]);
        others.neighbours = BTreeMap::from([(ip("10.0.0.1"), mac(9)), (ip("10.0.0.9"), mac(9))]);
        others.arriving.clear();
        let nothing = Entries::default();
        let full = after(&entries("vx", &others, None, None, &nothing), nothing.clone());
        for start in [nothing, full] {
            let steps = entries("vx", &want, Some(5), Some(4), &start);
            let now = after(&steps, start);
            assert_eq!(entries("vx", &want, Some(5), Some(4), &now), []);
            assert_eq!((now.remote.len(), now.held.len(), now.neighbours.len()), (4, 1, 1));
        }
    }

    #[test]
    fn the_entries_of_other_links_are_nobodys_business() {
        let mut others = Entries::default();
        others.remote.insert((9, mac(8), ip("192.0.2.8")));
        others.held.insert((9, mac(8)));
        others.neighbours.insert((9, ip("10.0.0.8")), mac(8));
        let steps = entries("vx", &tunnel(), Some(5), Some(4), &others);
        assert!(!steps.iter().any(|s| {
            matches!(s, Step::NoRemote { .. } | Step::Release { .. } | Step::NoNeighbour { .. })
        }));
    }
}
