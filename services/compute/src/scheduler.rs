//! Which node a server goes to: filters say which may, weights which is best. Pure, and the same for the same input.

use std::collections::BTreeSet;

/// A node, as the scheduler sees it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Host {
    /// Its name.
    pub name: String,
    /// Whether its compute service takes new servers.
    pub enabled: bool,
    /// Whether its compute service has been heard of lately.
    pub up: bool,
    /// The zone it is in.
    pub zone: String,
    /// What must be equal for a running guest to come here.
    pub platform: String,
    /// Memory it has free, in MiB.
    pub free_memory_mb: u64,
    /// Virtual CPUs it has free.
    pub free_vcpus: u64,
    /// How many members of the server's group it has.
    pub group_members: u32,
}

/// How the members of a group are spread.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Spread {
    /// All on one node, which is this one once there is a member.
    Together {
        /// Where the members are.
        on: Option<String>,
        /// Whether another node will do when that one will not.
        soft: bool,
    },
    /// At most so many on one node.
    Apart {
        /// How many one node may have.
        max: u32,
        /// Whether more will do when nothing else is left.
        soft: bool,
    },
}

/// What a server needs beside its resources.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Wanted {
    /// The zone it must be in.
    pub zone: Option<String>,
    /// The node it must be on (an administrator's word).
    pub host: Option<String>,
    /// The nodes one of which it must be on, unless there are none.
    pub one_of: BTreeSet<String>,
    /// The nodes it must not be on.
    pub none_of: BTreeSet<String>,
    /// The kind of machine it must be on.
    pub platform: Option<String>,
    /// Its group's rule.
    pub spread: Option<Spread>,
}

/// The best of the hosts (each of which has the resources); none if no host will do.
pub fn choose<'a>(hosts: &'a [Host], wanted: &Wanted) -> Option<&'a Host> {
    let fit = || hosts.iter().filter(|h| may(h, wanted));
    // Most room first; names decide between equals, so that the choice is the same each time.
    let best = |a: &&Host, b: &&Host| {
        let key = |h: &Host| (group_rank(h, wanted), h.free_memory_mb, h.free_vcpus);
        key(a).cmp(&key(b)).then_with(|| b.name.cmp(&a.name))
    };
    fit().max_by(best)
}

fn may(host: &Host, wanted: &Wanted) -> bool {
    let zone = wanted.zone.as_ref().is_none_or(|z| *z == host.zone);
    let named = wanted.host.as_ref().is_none_or(|h| *h == host.name);
    let one_of = wanted.one_of.is_empty() || wanted.one_of.contains(&host.name);
    let alike = wanted.platform.as_ref().is_none_or(|p| *p == host.platform);
    let grouped = match &wanted.spread {
        Some(Spread::Together { on: Some(on), soft: false }) => *on == host.name,
        Some(Spread::Apart { max, soft: false }) => host.group_members < *max,
        _ => true,
    };
    host.enabled
        && host.up
        && zone
        && named
        && one_of
        && alike
        && grouped
        && !wanted.none_of.contains(&host.name)
}

/// How well a host suits a soft rule; higher is better.
fn group_rank(host: &Host, wanted: &Wanted) -> i64 {
    match &wanted.spread {
        Some(Spread::Together { .. }) => i64::from(host.group_members),
        Some(Spread::Apart { .. }) => -i64::from(host.group_members),
        None => 0,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn host(name: &str, free_memory_mb: u64) -> Host {
        Host {
            name: name.into(),
            enabled: true,
            up: true,
            zone: "nova".into(),
            platform: "tcg/x86_64".into(),
            free_memory_mb,
            free_vcpus: 4,
            group_members: 0,
        }
    }

    #[test]
    fn the_host_with_most_room_wins_and_names_break_ties() {
        let hosts = [host("b", 10), host("a", 10), host("c", 5)];
        assert_eq!(choose(&hosts, &Wanted::default()).unwrap().name, "a");
    }

    #[test]
    fn a_disabled_or_silent_host_takes_nothing() {
        let hosts = [Host { enabled: false, ..host("a", 9) }, Host { up: false, ..host("b", 9) }];
        assert!(choose(&hosts, &Wanted::default()).is_none());
    }

    #[test]
    fn groups_bind_when_hard_and_lean_when_soft() {
        let hosts = [Host { group_members: 1, ..host("a", 1) }, host("b", 9)];
        let with = |spread| Wanted { spread: Some(spread), ..Wanted::default() };
        let on = Some("a".to_owned());
        let name = |w: Wanted| choose(&hosts, &w).map(|h| h.name.clone());
        assert_eq!(name(with(Spread::Together { on: on.clone(), soft: false })).as_deref(), Some("a"));
        assert_eq!(name(with(Spread::Together { on, soft: true })).as_deref(), Some("a"));
        assert_eq!(name(with(Spread::Apart { max: 1, soft: false })).as_deref(), Some("b"));
        assert!(choose(&hosts[..1], &with(Spread::Apart { max: 1, soft: false })).is_none());
        assert!(choose(&hosts[..1], &with(Spread::Apart { max: 1, soft: true })).is_some());
    }

    #[test]
    fn a_running_guest_goes_only_where_it_can_run_on() {
        let hosts = [Host { platform: "kvm/x86_64/A".into(), ..host("a", 9) }, host("b", 1)];
        let wanted = Wanted { platform: Some("tcg/x86_64".into()), ..Wanted::default() };
        assert_eq!(choose(&hosts, &wanted).unwrap().name, "b");
    }

    fn any_host() -> impl Strategy<Value = Host> {
        let parts = ("[a-e]", any::<bool>(), any::<bool>(), "[xy]", 0u64..9, 0u64..9, 0u32..3);
        parts.prop_map(|(name, enabled, up, zone, free_memory_mb, free_vcpus, group_members)| Host {
            name,
            enabled,
            up,
            zone,
            platform: "tcg/x86_64".into(),
            free_memory_mb,
            free_vcpus,
            group_members,
        })
    }

    fn any_wanted() -> impl Strategy<Value = Wanted> {
        let names = || proptest::collection::btree_set("[a-e]", 0..3);
        let spread = prop_oneof![
            Just(None),
            (proptest::option::of("[a-e]"), any::<bool>())
                .prop_map(|(on, soft)| Some(Spread::Together { on, soft })),
            (1u32..3, any::<bool>()).prop_map(|(max, soft)| Some(Spread::Apart { max, soft })),
        ];
        let parts = (proptest::option::of("[xy]"), proptest::option::of("[a-e]"), names(), names(), spread);
        parts.prop_map(|(zone, host, one_of, none_of, spread)| Wanted {
            zone,
            host,
            one_of,
            none_of,
            platform: None,
            spread,
        })
    }

    proptest! {
        #[test]
        fn a_host_is_chosen_if_and_only_if_one_may_be(
            hosts in proptest::collection::vec(any_host(), 0..6), wanted in any_wanted(),
        ) {
            let chosen = choose(&hosts, &wanted);
            prop_assert_eq!(chosen.is_some(), hosts.iter().any(|h| may(h, &wanted)));
            if let Some(h) = chosen {
                prop_assert!(may(h, &wanted));
                prop_assert!(h.enabled && h.up && !wanted.none_of.contains(&h.name));
            }
        }

        #[test]
        fn the_order_of_hosts_does_not_matter(
            mut hosts in proptest::collection::vec(any_host(), 0..6), wanted in any_wanted(),
        ) {
            hosts.sort_by(|a, b| a.name.cmp(&b.name));
            hosts.dedup_by(|a, b| a.name == b.name);
            let forward = choose(&hosts, &wanted).cloned();
            hosts.reverse();
            prop_assert_eq!(forward, choose(&hosts, &wanted).cloned());
        }
    }
}
