//! Many nodes boot at once, announcements get lost, links are cut for a while: in the end there is one cloud, and
//! what a user has is never given up.

use std::collections::BTreeSet;

use cairn_wire::remote::Versions;
use proptest::prelude::*;

use super::*;

const STEP_MS: u64 = 500;
/// How long an announcement that is not heard again is believed.
const BELIEVED_MS: u64 = 15_000;
/// After the last disturbance, all must have come to rest within this.
const REST_MS: u64 = 120_000;

fn id(n: usize) -> PeerId {
    let mut bytes = [n as u8; 32];
    bytes[0] = (n as u8).wrapping_mul(97);
    PeerId::new(bytes)
}

fn announcement(n: usize, phase: Phase, cloud: &str, founded_s: i64, in_use: bool) -> Announcement {
    let versions = Versions::OURS;
    let (name, cloud) = (format!("n{n}"), cloud.to_owned());
    Announcement { node: id(n), name, cloud, phase, founded_s, members: 1, in_use, versions }
}

#[test]
fn a_node_alone_listens_claims_settles_and_founds() {
    let me = id(1);
    let alone = Own::Alone { since_ms: 0 };
    assert!(matches!(decide(me, &alone, &[], LISTEN_MS - 1), Decision::Wait { .. }));
    assert_eq!(decide(me, &alone, &[], LISTEN_MS + SPREAD_MS), Decision::Claim);
    let claiming = Own::Claiming { since_ms: 10_000, cloud: "m".into() };
    assert!(matches!(decide(me, &claiming, &[], 10_000 + SETTLE_MS - 1), Decision::Wait { .. }));
    assert_eq!(decide(me, &claiming, &[], 10_000 + SETTLE_MS), Decision::Found);
    let rival = |cloud| announcement(2, Phase::Founding, cloud, 0, false);
    assert_eq!(decide(me, &claiming, &[rival("a")], 10_001), Decision::Withdraw);
    assert_eq!(decide(me, &claiming, &[rival("z")], 10_000 + SETTLE_MS), Decision::Found);
    assert!(matches!(decide(me, &alone, &[rival("z")], LISTEN_MS + SPREAD_MS), Decision::Wait { .. }));
    assert_eq!(
        decide(me, &alone, &[rival("z")], PATIENCE_MS + SPREAD_MS),
        Decision::Claim,
        "it may have died"
    );
    let own = announcement(1, Phase::Founding, "a", 0, false);
    assert_eq!(
        decide(me, &claiming, &[own], 10_000 + SETTLE_MS),
        Decision::Found,
        "its own echo is no rival"
    );
}

#[test]
fn a_cloud_that_is_there_is_asked_and_of_several_the_best() {
    let alone = Own::Alone { since_ms: 0 };
    let seen = |clouds: &[(&str, i64, bool)]| -> Vec<_> {
        let one = |(n, (cloud, founded, used)): (usize, &(&str, i64, bool))| {
            announcement(n + 2, Phase::Member, cloud, *founded, *used)
        };
        clouds.iter().enumerate().map(one).collect()
    };
    let asked = |clouds: &[(&str, i64, bool)]| match decide(id(1), &alone, &seen(clouds), 0) {
        Decision::Ask { cloud, .. } => cloud,
        other => format!("{other:?}"),
    };
    assert_eq!(asked(&[("a", 5, false)]), "a");
    assert_eq!(asked(&[("a", 5, false), ("b", 4, false)]), "b", "the older");
    assert_eq!(asked(&[("a", 5, true), ("b", 4, false)]), "a", "the one in use");
    assert_eq!(asked(&[("b", 5, false), ("a", 5, false)]), "a", "the lower id");
    assert!(asked(&[("a", 5, true), ("b", 4, true)]).starts_with("Choose"));
}

#[test]
fn only_the_leader_of_a_cloud_that_is_not_in_use_gives_way() {
    let own = |in_use, leads| {
        let cloud = Standing { id: "m".into(), founded_s: 5, in_use };
        Own::Member { cloud, leads }
    };
    let older = [announcement(2, Phase::Member, "x", 4, false)];
    assert!(
        matches!(decide(id(1), &own(false, true), &older, 0), Decision::GiveWay { cloud, .. } if cloud == "x")
    );
    assert_eq!(decide(id(1), &own(true, true), &older, 0), Decision::Stay);
    assert_eq!(decide(id(1), &own(false, false), &older, 0), Decision::Stay);
    let younger = [announcement(2, Phase::Member, "a", 6, false)];
    assert_eq!(decide(id(1), &own(false, true), &younger, 0), Decision::Stay);
    let used = [announcement(2, Phase::Member, "z", 9, true)];
    assert!(matches!(decide(id(1), &own(false, true), &used, 0), Decision::GiveWay { .. }));
    let mine = [announcement(2, Phase::Member, "m", 5, false)];
    assert_eq!(decide(id(1), &own(false, true), &mine, 0), Decision::Stay);
}

/// A cloud as its store has it: what is written here is agreed.
#[derive(Debug, Default)]
struct Cloud {
    founded_s: i64,
    in_use: bool,
    yielded: bool,
    leader: usize,
}

struct Node {
    boots_ms: u64,
    clock_off_s: i64,
    own: Option<Own>,
    /// The cloud it is of.
    cloud: Option<String>,
    /// Whom it has heard, and when.
    heard: BTreeMap<usize, (u64, Announcement)>,
    dead: bool,
}

#[derive(Debug, Clone)]
struct Plan {
    boots_ms: Vec<u64>,
    clocks_off_s: Vec<i64>,
    /// Of 100 announcements so many are lost.
    lost: u32,
    /// Until then the first half and the second do not hear each other.
    cut_until_ms: u64,
    /// When a user first creates something, and at which node.
    used: Option<(u64, usize)>,
    /// A node that dies if it has not come beyond its claim by then.
    dies: Option<(u64, usize)>,
    seed: u64,
}

struct World {
    plan: Plan,
    nodes: Vec<Node>,
    clouds: BTreeMap<String, Cloud>,
    dice: u64,
}

impl World {
    fn new(plan: Plan) -> World {
        let node = |(boots_ms, clock_off_s): (&u64, &i64)| Node {
            boots_ms: *boots_ms,
            clock_off_s: *clock_off_s,
            own: None,
            cloud: None,
            heard: BTreeMap::new(),
            dead: false,
        };
        let nodes = plan.boots_ms.iter().zip(&plan.clocks_off_s).map(node).collect();
        let dice = plan.seed | 1;
        World { plan, nodes, clouds: BTreeMap::new(), dice }
    }

    fn roll(&mut self) -> u64 {
        // xorshift64
        self.dice ^= self.dice << 13;
        self.dice ^= self.dice >> 7;
        self.dice ^= self.dice << 17;
        self.dice
    }

    fn reach(&self, a: usize, b: usize, now: u64) -> bool {
        let half = self.nodes.len() / 2;
        now >= self.plan.cut_until_ms || (a < half) == (b < half)
    }

    fn says(&self, n: usize) -> Option<Announcement> {
        let node = &self.nodes[n];
        match node.own.as_ref()? {
            _ if node.dead => None,
            Own::Alone { .. } => Some(announcement(n, Phase::Asking, "", 0, false)),
            Own::Claiming { cloud, .. } => Some(announcement(n, Phase::Founding, cloud, 0, false)),
            Own::Member { cloud, .. } => {
                Some(announcement(n, Phase::Member, &cloud.id, cloud.founded_s, cloud.in_use))
            }
        }
    }

    fn listen(&mut self, now: u64) {
        for from in 0..self.nodes.len() {
            let Some(said) = self.says(from) else { continue };
            for to in 0..self.nodes.len() {
                let lost = self.roll() % 100 < u64::from(self.plan.lost);
                if to != from && !lost && self.reach(from, to, now) {
                    self.nodes[to].heard.insert(from, (now, said.clone()));
                }
            }
        }
    }

    /// What a node is, by the store of its cloud.
    fn refresh(&mut self, n: usize, now: u64) {
        let Some(id) = self.nodes[n].cloud.clone() else { return };
        let cloud = &self.clouds[&id];
        if cloud.yielded {
            self.nodes[n].cloud = None;
            self.nodes[n].own = Some(Own::Alone { since_ms: now });
            return;
        }
        let standing = Standing { id, founded_s: cloud.founded_s, in_use: cloud.in_use };
        self.nodes[n].own = Some(Own::Member { cloud: standing, leads: cloud.leader == n });
    }

    /// Whether one of these nodes lets it in now.
    fn admits(&self, n: usize, cloud: &str, nodes: &[PeerId], now: u64) -> bool {
        let at = (0..self.nodes.len()).find(|m| nodes.contains(&id(*m)) && self.reach(n, *m, now));
        let there = at.is_some_and(|m| !self.nodes[m].dead && self.nodes[m].cloud.as_deref() == Some(cloud));
        there && self.clouds.get(cloud).is_some_and(|c| !c.yielded)
    }

    fn act(&mut self, n: usize, now: u64) {
        let seen: Vec<_> = self.nodes[n]
            .heard
            .values()
            .filter(|(at, _)| now < at + BELIEVED_MS)
            .map(|(_, said)| said.clone())
            .collect();
        let Some(own) = self.nodes[n].own.clone() else { return };
        match decide(id(n), &own, &seen, now) {
            Decision::Wait { .. } | Decision::Stay => {}
            Decision::Choose { clouds } => panic!("only one cloud is in use, but {clouds:?}"),
            Decision::Withdraw => self.nodes[n].own = Some(Own::Alone { since_ms: now }),
            Decision::Claim => {
                let cloud = format!("{:016x}", self.roll());
                self.nodes[n].own = Some(Own::Claiming { since_ms: now, cloud });
            }
            Decision::Found => {
                let Own::Claiming { cloud, .. } = own else { panic!("founds without a claim") };
                let founded_s = (now / 1000) as i64 + self.nodes[n].clock_off_s;
                self.clouds.insert(cloud.clone(), Cloud { founded_s, leader: n, ..Cloud::default() });
                self.nodes[n].cloud = Some(cloud);
            }
            Decision::Ask { cloud, nodes } => {
                if self.admits(n, &cloud, &nodes, now) {
                    self.nodes[n].cloud = Some(cloud);
                }
            }
            Decision::GiveWay { cloud, nodes } => self.give_way(n, &cloud, &nodes, now),
        }
        self.refresh(n, now);
    }

    fn give_way(&mut self, n: usize, to: &str, nodes: &[PeerId], now: u64) {
        if !self.admits(n, to, nodes, now) {
            return;
        }
        let Some(own) = self.nodes[n].cloud.clone().and_then(|id| self.clouds.get_mut(&id)) else { return };
        // One transaction: whoever creates something before it keeps the cloud.
        if !own.in_use {
            own.yielded = true;
            self.nodes[n].cloud = Some(to.to_owned());
        }
    }

    fn step(&mut self, now: u64) {
        for n in 0..self.nodes.len() {
            if self.nodes[n].own.is_none() && now >= self.nodes[n].boots_ms {
                self.nodes[n].own = Some(Own::Alone { since_ms: now });
            }
        }
        if let Some((at, n)) = self.plan.dies
            && now >= at
            && self.nodes[n].cloud.is_none()
        {
            self.nodes[n].dead = true;
        }
        self.listen(now);
        for n in 0..self.nodes.len() {
            if !self.nodes[n].dead {
                self.refresh(n, now);
                self.act(n, now);
            }
        }
        let in_use = self.clouds.values().any(|cloud| cloud.in_use);
        if let Some((at, n)) = self.plan.used
            && now >= at
            && !in_use
            && let Some(cloud) = self.nodes[n].cloud.clone().and_then(|id| self.clouds.get_mut(&id))
        {
            cloud.in_use |= !cloud.yielded;
        }
    }
}

fn plan() -> impl Strategy<Value = Plan> {
    (2..8usize).prop_flat_map(|nodes| {
        (
            prop::collection::vec(0..12_000u64, nodes),
            prop::collection::vec(prop_oneof![3 => Just(0i64), 1 => -1_000_000..1_000_000i64], nodes),
            0..70u32,
            prop_oneof![1 => Just(0u64), 1 => 0..60_000u64],
            prop::option::of((0..60_000u64, 0..nodes)),
            prop::option::of((0..20_000u64, 0..nodes)),
            any::<u64>(),
        )
            .prop_map(|(boots_ms, clocks_off_s, lost, cut_until_ms, used, dies, seed)| Plan {
                boots_ms,
                clocks_off_s,
                lost,
                cut_until_ms,
                used,
                dies,
                seed,
            })
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(500))]
    #[test]
    fn simultaneous_boots_end_in_one_cloud_and_what_is_in_use_is_never_given_up(plan in plan()) {
        let mut world = World::new(plan);
        for now in (0..60_000 + REST_MS).step_by(STEP_MS as usize) {
            world.step(now);
            prop_assert!(world.clouds.values().all(|cloud| !(cloud.in_use && cloud.yielded)));
        }
        let alive = || world.nodes.iter().filter(|node| !node.dead);
        let of: BTreeSet<_> = alive().map(|node| node.cloud.clone()).collect();
        prop_assert_eq!(of.len(), usize::from(alive().count() > 0), "{:?}", of);
        for cloud in of {
            let cloud = cloud.expect("a node is of no cloud");
            prop_assert!(!world.clouds[&cloud].yielded);
            let used: Vec<_> = world.clouds.iter().filter(|(_, c)| c.in_use).map(|(id, _)| id.clone()).collect();
            prop_assert!(used.is_empty() || used == [cloud], "the one in use remains");
        }
    }
}
