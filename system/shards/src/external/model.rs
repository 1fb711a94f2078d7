//! The records of backends that keep volumes elsewhere.
//!
//! Only types, their keys and what makes a text fit for one. Sizes are bytes. Each record has one writer, named in its docs.

use std::fmt;

use cairn_state::Record;
use serde::{Deserialize, Serialize};

use crate::crypt::keys::SealedKey;

/// The longest name of a backend, and of what it is made of.
const NAME_MAX: usize = 64;
/// The most monitors that are named.
const MONITORS_MAX: usize = 16;

/// Where a cluster is, and as whom it is used.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Access {
    /// Its monitors' addresses, in the forms that Ceph's `mon_host` takes.
    pub monitors: Vec<String>,
    /// The pool that volumes are in.
    pub pool: String,
    /// The user, without `client.` before it.
    pub user: String,
}

impl Access {
    /// What is wrong with it, if anything: all of it is written into a configuration file, so it must be of these letters.
    pub fn objection(&self) -> Option<String> {
        if self.monitors.is_empty() || self.monitors.len() > MONITORS_MAX {
            return Some(format!("between one and {MONITORS_MAX} monitors must be named"));
        }
        let address = |c: char| c.is_ascii_alphanumeric() || ".:-[]/,".contains(c);
        let odd = |text: &String| text.is_empty() || text.len() > 256 || !text.chars().all(address);
        if let Some(odd) = self.monitors.iter().find(|m| odd(m)) {
            return Some(format!(
                "{odd:?} is no monitor's address; it has the form 192.0.2.1 or 192.0.2.1:3300"
            ));
        }
        let parts = [("pool", &self.pool), ("user", &self.user)];
        let odd = parts.into_iter().find(|(_, text)| !is_word(text));
        odd.map(|(what, text)| {
            format!("{text:?} is no name of a {what}: letters, digits, '.', '_' and '-' are")
        })
    }
}

/// Whether a text can be a name: it begins with a letter or digit, so that no program takes it for an option.
pub fn is_word(text: &str) -> bool {
    let inner = |c: char| c.is_ascii_alphanumeric() || "._-".contains(c);
    let begins = text.starts_with(|c: char| c.is_ascii_alphanumeric());
    begins && text.len() <= NAME_MAX && text.chars().all(inner)
}

/// A cluster that volumes may be in. Writer: the controller, through [`crate::external::orders`] alone.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Backend {
    /// What types call it.
    pub name: String,
    /// Where it is.
    pub access: Access,
    /// Its user's key.
    pub key: SealedKey,
}

impl Record for Backend {
    const KIND: &'static str = "shards/backend";

    fn id(&self) -> String {
        self.name.clone()
    }
}

/// A backend as a node sees it. Writer: the storage agent of `node`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct BackendStatus {
    /// The backend's name.
    pub backend: String,
    /// The node that reports.
    pub node: String,
    /// Why it cannot be used there, if it cannot.
    pub error: Option<String>,
    /// Bytes that its volumes may take in all.
    pub size: u64,
    /// Bytes that they may still take.
    pub free: u64,
}

impl Record for BackendStatus {
    const KIND: &'static str = "shards/backend-status";

    fn id(&self) -> String {
        format!("{}/{}", self.backend, self.node)
    }
}

/// A user's key, shown to nobody.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Secret(pub String);

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret")
    }
}

impl Secret {
    /// The key in a file: alone, or as `key = ...` of a keyring.
    pub fn of_file(text: &str) -> Option<Secret> {
        let lines = text.lines().map(str::trim).filter(|l| !l.is_empty() && !l.starts_with(['#', ';']));
        let named = |line: &str| {
            line.strip_prefix("key")?.trim_start().strip_prefix('=').map(|k| k.trim().to_owned())
        };
        let lines: Vec<&str> = lines.collect();
        let found = lines.iter().find_map(|line| named(line)).or_else(|| match lines[..] {
            [only] => Some(only.to_owned()),
            _ => None,
        })?;
        let letter = |c: char| c.is_ascii_alphanumeric() || "+/=".contains(c);
        (found.len() >= 16 && found.len() <= 256 && found.chars().all(letter)).then_some(Secret(found))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_is_found_in_either_form_of_file() {
        let key = "AQBHxQJnAAAAABAAsomethingsomethinge8g==";
        let found = |text: &str| Secret::of_file(text).map(|s| s.0);
        assert_eq!(found(&format!("{key}\n")).as_deref(), Some(key));
        assert_eq!(
            found(&format!("[client.cairn]\n\tkey = {key}\n\tcaps mon = \"x\"\n")).as_deref(),
            Some(key)
        );
        assert_eq!(found(&format!("{key}\n{key}\n")), None);
        assert_eq!(found("short"), None);
        assert_eq!(found("key = AQBHxQJnAAAAABAA\u{1b}]0;somethingsomething"), None);
        assert_eq!(format!("{:?}", Secret(key.into())), "Secret");
    }

    #[test]
    fn what_could_say_more_in_a_configuration_file_is_refused() {
        let good = Access {
            monitors: vec!["10.0.0.1".into(), "[v2:10.0.0.2:3300/0]".into()],
            pool: "volumes".into(),
            user: "cairn".into(),
        };
        assert_eq!(good.objection(), None);
        for (bad, word) in [
            (Access { monitors: vec![], ..good.clone() }, "monitors"),
            (Access { monitors: vec!["a\nlog_file=/x".into()], ..good.clone() }, "address"),
            (Access { pool: "--help".into(), ..good.clone() }, "pool"),
            (Access { user: "a b".into(), ..good.clone() }, "user"),
        ] {
            assert!(bad.objection().is_some_and(|o| o.contains(word)), "{word}");
        }
    }
}
