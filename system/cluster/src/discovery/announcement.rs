//! What a node says about itself on the link, as TXT records (RFC 6763, 6): `v` the form of the rest (1), `node`,
//! `name`, `cloud`, `phase`, `founded`, `members`, `used`, `proto`. Unknown ones are passed over.

use cairn_wire::remote::{PeerId, Versions};

/// The form of the records.
const FORM: &str = "1";
/// The longest value that is taken.
const VALUE_BYTES_MAX: usize = 64;

/// How far a node has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Phase {
    /// It says that it will found a cloud of this id.
    Founding,
    /// It belongs to the cloud.
    Member,
    /// It asks to be let in by the cloud, or looks for one.
    Asking,
}

impl Phase {
    const fn text(self) -> &'static str {
        match self {
            Phase::Founding => "founding",
            Phase::Member => "member",
            Phase::Asking => "asking",
        }
    }
}

/// What a node says about itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Announcement {
    /// Its identity; unproven.
    pub node: PeerId,
    /// Its name.
    pub name: String,
    /// The id of its cloud, or of the one it claims or asks; empty if there is none.
    pub cloud: String,
    /// How far it has come.
    pub phase: Phase,
    /// When the cloud was founded, by its founder's clock, in seconds since 1970.
    pub founded_s: i64,
    /// How many members the cloud has.
    pub members: u32,
    /// Whether the cloud holds anything of a user's.
    pub in_use: bool,
    /// What it speaks.
    pub versions: Versions,
}

/// Records that say nothing that can be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("no announcement of a node: {0}")]
pub struct NotAnAnnouncement(&'static str);

impl Announcement {
    /// The records.
    pub fn records(&self) -> Vec<(String, String)> {
        let Versions { oldest, newest } = self.versions;
        [
            ("v", FORM.to_owned()),
            ("node", self.node.to_string()),
            ("name", self.name.clone()),
            ("cloud", self.cloud.clone()),
            ("phase", self.phase.text().to_owned()),
            ("founded", self.founded_s.to_string()),
            ("members", self.members.to_string()),
            ("used", u8::from(self.in_use).to_string()),
            ("proto", format!("{oldest}-{newest}")),
        ]
        .map(|(key, value)| (key.to_owned(), value))
        .into()
    }

    /// Reads the records of another node. They may be anything.
    pub fn read<'a>(value: impl Fn(&str) -> Option<&'a str>) -> Result<Announcement, NotAnAnnouncement> {
        let get =
            |key, what| value(key).filter(|v| v.len() <= VALUE_BYTES_MAX).ok_or(NotAnAnnouncement(what));
        // It is shown to people.
        let plain = |key, what| {
            let fits = |text: &&str| text.bytes().all(|c| c.is_ascii_alphanumeric() || c == b'-');
            get(key, what)
                .and_then(|text| Some(text).filter(fits).map(str::to_owned).ok_or(NotAnAnnouncement(what)))
        };
        if get("v", "no form")? != FORM {
            return Err(NotAnAnnouncement("a form of another release"));
        }
        let phases = [Phase::Founding, Phase::Member, Phase::Asking];
        let phase = get("phase", "no phase")?;
        let (oldest, newest) =
            get("proto", "no versions")?.split_once('-').ok_or(NotAnAnnouncement("no versions"))?;
        let number = |text: &str| text.parse().map_err(|_| NotAnAnnouncement("no number"));
        Ok(Announcement {
            node: get("node", "no id")?.parse().map_err(|_| NotAnAnnouncement("no id"))?,
            name: plain("name", "no name")?,
            cloud: plain("cloud", "no cloud")?,
            phase: phases.into_iter().find(|p| p.text() == phase).ok_or(NotAnAnnouncement("no phase"))?,
            founded_s: get("founded", "no time")?.parse().map_err(|_| NotAnAnnouncement("no time"))?,
            members: get("members", "no members")?.parse().map_err(|_| NotAnAnnouncement("no members"))?,
            in_use: get("used", "no use")? == "1",
            versions: Versions { oldest: number(oldest)?, newest: number(newest)? },
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::HashMap;

    fn announcement() -> Announcement {
        Announcement {
            node: PeerId::new([7; 32]),
            name: "cairn-0a0b0c".into(),
            cloud: "5b1f0f0e-5a8c-4c3b-9d5e-0a0b0c0d0e0f".into(),
            phase: Phase::Member,
            founded_s: 1_800_000_000,
            members: 3,
            in_use: true,
            versions: Versions { oldest: 1, newest: 2 },
        }
    }

    fn read(records: &HashMap<String, String>) -> Result<Announcement, NotAnAnnouncement> {
        Announcement::read(|key| records.get(key).map(String::as_str))
    }

    #[test]
    fn an_announcement_reads_back_and_fits_a_packet() {
        let records: HashMap<_, _> = announcement().records().into_iter().collect();
        assert_eq!(read(&records).unwrap(), announcement());
        let bytes: usize = records.iter().map(|(k, v)| k.len() + v.len() + 2).sum();
        assert!(bytes < 400, "{bytes} bytes of TXT");
        let nothing = Announcement { cloud: String::new(), phase: Phase::Asking, ..announcement() };
        assert_eq!(read(&nothing.records().into_iter().collect()).unwrap(), nothing);
    }

    proptest! {
        #[test]
        fn any_one_record_may_be_missing_or_junk_and_nothing_breaks(at in 0..9usize, junk in ".{0,80}") {
            let mut records: HashMap<_, _> = announcement().records().into_iter().collect();
            let key = announcement().records()[at].0.clone();
            records.insert(key.clone(), junk);
            if let Ok(read) = read(&records) {
                let plain = |c: char| c.is_ascii_alphanumeric() || c == '-';
                prop_assert!(read.name.chars().all(plain) && read.cloud.chars().all(plain));
            }
            records.remove(&key);
            prop_assert!(read(&records).is_err());
        }
    }
}
