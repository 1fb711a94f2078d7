//! What a user orders when creating servers, checked in form and not yet against anything that is stored.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use serde_json::Value;

/// An order for one or several equal servers.
#[derive(Debug, Clone, PartialEq)]
pub struct Order {
    /// The name; with several servers each gets a number behind it.
    pub name: String,
    /// The host name, if it is not to follow from the name.
    pub hostname: Option<String>,
    /// A description.
    pub description: Option<String>,
    /// The flavor's id.
    pub flavor: String,
    /// The image's id; none to boot from a volume.
    pub image: Option<String>,
    /// The disks named, the root disk among them (or to be made from `image`).
    pub disks: Vec<DiskOrder>,
    /// The interfaces.
    pub nics: NicOrder,
    /// Names or ids of security groups.
    pub groups: Vec<String>,
    /// The name of a key pair.
    pub key_name: Option<String>,
    /// User data in base64.
    pub user_data: Option<String>,
    /// Metadata.
    pub metadata: BTreeMap<String, String>,
    /// Tags.
    pub tags: BTreeSet<String>,
    /// The zone.
    pub zone: Option<String>,
    /// The node, if an administrator names one.
    pub host: Option<String>,
    /// Whether a configuration drive is wanted.
    pub config_drive: bool,
    /// `AUTO` or `MANUAL`.
    pub disk_config: String,
    /// An address to be shown.
    pub access_ipv4: String,
    /// The same, IPv6.
    pub access_ipv6: String,
    /// The fewest servers that will do.
    pub min_count: u32,
    /// The servers wanted.
    pub max_count: u32,
    /// The group to be in.
    pub group: Option<String>,
    /// All scheduler hints, as given.
    pub hints: BTreeMap<String, Value>,
}

/// A disk of an order.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DiskOrder {
    /// What it is made from.
    pub source: DiskSource,
    /// Its place in the order of boot; the first (0) is the root disk.
    pub boot_index: Option<i64>,
    /// Whether it is deleted with the server.
    pub delete_on_termination: bool,
    /// A tag.
    pub tag: Option<String>,
}

/// What a disk is made from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum DiskSource {
    /// The server's own disk, a copy of this image.
    Local {
        /// The image.
        image: String,
    },
    /// The server's own disk, empty.
    BlankLocal {
        /// Its size in GiB.
        size_gb: u64,
    },
    /// A new volume, a copy of this image.
    ImageVolume {
        /// The image.
        image: String,
        /// Its size in GiB.
        size_gb: u64,
    },
    /// A new volume, a copy of this snapshot.
    SnapshotVolume {
        /// The snapshot.
        snapshot: String,
        /// Its size in GiB; none for the snapshot's.
        size_gb: Option<u64>,
    },
    /// A new, empty volume.
    BlankVolume {
        /// Its size in GiB.
        size_gb: u64,
    },
    /// A volume that there is.
    Volume {
        /// The volume.
        id: String,
    },
}

/// The interfaces of an order.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum NicOrder {
    /// The project's only network, if it has just one; else none named is ambiguous.
    Auto,
    /// None at all.
    None,
    /// These.
    List(Vec<NicWanted>),
}

/// One interface of an order.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct NicWanted {
    /// On this network.
    pub network: Option<String>,
    /// This port.
    pub port: Option<String>,
    /// With this address.
    pub fixed_ip: Option<IpAddr>,
    /// A tag.
    pub tag: Option<String>,
}

/// The host name that follows from a server's name: letters, digits and dashes, at most 63 of them.
pub fn hostname_of(name: &str, id: &str) -> String {
    let mut out = String::new();
    for c in name.trim().to_lowercase().chars() {
        match c {
            c if c.is_ascii_alphanumeric() || c == '-' => out.push(c),
            ' ' | '_' | '.' => out.push('-'),
            _ => {}
        }
    }
    let out: String = out.trim_matches('-').chars().take(63).collect();
    match out.trim_end_matches('-') {
        "" => format!("server-{id}"),
        kept => kept.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn host_names_follow_from_names() {
        assert_eq!(hostname_of("Web_1.example.com", "x"), "web-1-example-com");
        assert_eq!(hostname_of("日本語", "x"), "server-x");
        assert_eq!(hostname_of("--a--", "x"), "a");
        assert!(hostname_of(&"a".repeat(200), "x").len() <= 63);
    }
}
