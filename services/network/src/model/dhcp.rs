//! The DHCP options that users may give a port beside the usual ones, by dnsmasq's names or by number (RFC 2132). Pure.

/// Where an extra option goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ExtraOption {
    /// A field of the message: where the boot file is.
    NextServer,
    /// The option of this number.
    Code(u8),
}

/// The number of the option that names the boot file.
pub const BOOT_FILE: u8 = 67;

/// The options that have names, by number.
const NAMED: [(&str, u8); 14] = [
    ("router", 3),
    ("dns-server", 6),
    ("hostname", 12),
    ("domain-name", 15),
    ("root-path", 17),
    ("mtu", 26),
    ("ntp-server", 42),
    ("vendor-class", 60),
    ("tftp-server", 66),
    ("tftp-server-name", 66),
    ("bootfile-name", BOOT_FILE),
    ("domain-search", 119),
    ("tftp-server-address", 150),
    ("path-prefix", 210),
];

impl ExtraOption {
    /// The one of this name or number; none if it is not served.
    pub fn find(name: &str) -> Option<ExtraOption> {
        if ["next-server", "server-ip-address"].contains(&name) {
            return Some(ExtraOption::NextServer);
        }
        let named = NAMED.iter().find(|(known, _)| *known == name).map(|(_, code)| *code);
        let code = named.or_else(|| name.parse().ok().filter(|code| !is_protocols_own(*code)));
        code.map(ExtraOption::Code)
    }
}

/// The options that make DHCP itself work are not a user's to set.
fn is_protocols_own(code: u8) -> bool {
    matches!(code, 0 | 50..=59 | 61 | 82 | 255)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn options_are_known_by_name_and_by_number() {
        for (name, code) in [("mtu", 26), ("26", 26), ("bootfile-name", BOOT_FILE), ("67", BOOT_FILE)] {
            assert_eq!(ExtraOption::find(name), Some(ExtraOption::Code(code)), "{name}");
        }
        assert_eq!(ExtraOption::find("next-server"), Some(ExtraOption::NextServer));
        for not_served in ["", "lease-time", "51", "53", "0", "255", "256", "-1"] {
            assert_eq!(ExtraOption::find(not_served), None, "{not_served}");
        }
    }
}
