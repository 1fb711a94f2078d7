//! Rules about packages from outside: their licences, their sources, banned ones, and several versions of one.
//!
//! What is allowed stands in `deny.toml`, which cargo-deny reads too; this check needs nothing installed. What is
//! used is what `cargo metadata` says of the lock file, for the one platform that Cairn runs on.

use std::collections::BTreeMap;
use std::io;
use std::process::Command;

use serde_json::Value;

use crate::Finding;
use crate::spdx::satisfied;
use crate::tree::{File, Tree};

const PLATFORM: &str = "x86_64-unknown-linux-gnu";
const POLICY: &str = "deny.toml";

/// A package of the lock file that is built for the platform.
#[derive(Clone, Debug)]
pub struct Package {
    /// Its name.
    pub name: String,
    /// Its version.
    pub version: String,
    /// Its licence expression; empty if it names none.
    pub licence: String,
    /// Where it is from; `None` if from this workspace.
    pub source: Option<String>,
}

/// An entry of a list in `deny.toml`: `{ crate = "name@version", allow = [...], reason = "..." }`.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Entry {
    line: usize,
    name: String,
    version: Option<String>,
    allow: Vec<String>,
    has_reason: bool,
}

/// What `deny.toml` says, as far as it is read here.
#[derive(Debug, Default)]
struct Policy {
    licences: Vec<String>,
    exceptions: Vec<Entry>,
    banned: Vec<Entry>,
    several: Vec<Entry>,
}

/// Everything that is wrong with these packages.
pub fn check(tree: &Tree, packages: &[Package]) -> Vec<Finding> {
    let Some(file) = tree.file(POLICY) else {
        return vec![Finding::at("policy", POLICY, 1, "is missing: it says which packages may be used")];
    };
    let policy = Policy::parse(file);
    let outside: Vec<_> = packages.iter().filter(|package| package.source.is_some()).collect();
    let mut found = policy.reasons();
    found.extend(policy.stale(&outside));
    for package in &outside {
        found.extend(policy.licence(package));
        found.extend(policy.ban(package));
        found.extend(source(package));
    }
    found.extend(policy.duplicates(&outside));
    found
}

/// Asks cargo what the lock file holds. Needs no network if the packages are on this machine already.
pub fn locked(tree: &Tree) -> io::Result<Vec<Package>> {
    let answer = metadata(tree, true).or_else(|_| metadata(tree, false))?;
    let answer: Value = serde_json::from_slice(&answer)?;
    let all = answer["packages"].as_array().cloned().unwrap_or_default();
    Ok(all.iter().map(package).collect())
}

fn metadata(tree: &Tree, offline: bool) -> io::Result<Vec<u8>> {
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let mut command = Command::new(cargo);
    command.current_dir(&tree.root).args([
        "metadata",
        "--locked",
        "--format-version=1",
        "--filter-platform",
        PLATFORM,
    ]);
    if offline {
        command.arg("--offline");
    }
    let output = command.output()?;
    if output.status.success() {
        return Ok(output.stdout);
    }
    Err(io::Error::other(format!("cargo metadata: {}", String::from_utf8_lossy(&output.stderr))))
}

fn package(value: &Value) -> Package {
    let text = |key: &str| value[key].as_str().unwrap_or_default().to_owned();
    Package {
        name: text("name"),
        version: text("version"),
        licence: text("license"),
        source: value["source"].as_str().map(str::to_owned),
    }
}

fn source(package: &Package) -> Option<Finding> {
    let from = package.source.as_deref()?;
    (!from.starts_with("registry+")).then(|| {
        let message = format!("{} comes from {from}: use a release from the registry", package.name);
        Finding::at("source", "Cargo.lock", 1, message)
    })
}

impl Policy {
    fn parse(file: &File) -> Policy {
        let mut policy = Policy::default();
        let (mut section, mut list) = ("", "");
        for (index, line) in file.text.lines().enumerate() {
            let line = line.trim();
            if line.starts_with('#') || line.is_empty() {
                continue;
            }
            if let Some(name) = line.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')) {
                (section, list) = (name, "");
            } else if let Some(name) = line.strip_suffix(" = [") {
                list = name;
            } else if line == "]" {
                list = "";
            } else {
                policy.take(section, list, index + 1, line);
            }
        }
        policy
    }

    fn take(&mut self, section: &str, list: &str, number: usize, line: &str) {
        match (section, list) {
            ("licenses", "allow") => self.licences.extend(quoted(line)),
            ("licenses", "exceptions") => self.exceptions.extend(entry(number, line)),
            ("bans", "deny") => self.banned.extend(entry(number, line)),
            ("bans", "skip") => self.several.extend(entry(number, line)),
            _ => {}
        }
    }

    fn reasons(&self) -> Vec<Finding> {
        let entries = self.banned.iter().chain(&self.several).filter(|entry| !entry.has_reason);
        entries
            .map(|e| Finding::at("policy", POLICY, e.line, format!("say the reason for `{}`", e.name)))
            .collect()
    }

    /// Exceptions that no package needs.
    fn stale(&self, packages: &[&Package]) -> Vec<Finding> {
        let unused = |e: &&Entry| !packages.iter().any(|package| e.is(package));
        let stale = self.exceptions.iter().chain(&self.several).filter(unused);
        stale
            .map(|e| {
                Finding::at("policy", POLICY, e.line, format!("`{}` is not used any more: remove it", e.name))
            })
            .collect()
    }

    fn licence(&self, package: &Package) -> Option<Finding> {
        let allowed = |licence: &str| {
            let also = self.exceptions.iter().filter(|e| e.is(package)).flat_map(|e| &e.allow);
            self.licences.iter().chain(also).any(|one| one == licence)
        };
        (!satisfied(&package.licence, &allowed)).then(|| {
            let message = format!(
                "{} {} is under `{}`, which is not in the list of licences: use another package, or add it",
                package.name, package.version, package.licence
            );
            Finding::at("licence", POLICY, 1, message)
        })
    }

    fn ban(&self, package: &Package) -> Option<Finding> {
        let entry = self.banned.iter().find(|entry| entry.is(package))?;
        let message = format!(
            "{} {} is banned; see who brings it: cargo tree --invert {}",
            package.name, package.version, package.name
        );
        Some(Finding::at("ban", POLICY, entry.line, message))
    }

    /// Packages built in several versions, all of them but one to be listed.
    fn duplicates(&self, packages: &[&Package]) -> Vec<Finding> {
        let mut by_name: BTreeMap<&str, Vec<&Package>> = BTreeMap::new();
        for package in packages {
            if !self.several.iter().any(|entry| entry.is(package)) {
                by_name.entry(&package.name).or_default().push(package);
            }
        }
        let several = by_name.into_iter().filter(|(_, versions)| versions.len() > 1);
        several.map(|(name, versions)| duplicate(name, &versions)).collect()
    }
}

fn duplicate(name: &str, versions: &[&Package]) -> Finding {
    let versions: Vec<_> = versions.iter().map(|package| package.version.as_str()).collect();
    let message = format!(
        "{name} is built in versions {}: bring them together (cargo tree --duplicates), or list the older in bans.skip \
         with the reason",
        versions.join(" and ")
    );
    Finding::at("duplicate", "Cargo.lock", 1, message)
}

impl Entry {
    /// Whether this is about that package. A version may be cut short: `1` means every 1.x.
    fn is(&self, package: &Package) -> bool {
        self.name == package.name
            && self.version.as_ref().is_none_or(|version| {
                package.version == *version || package.version.starts_with(&format!("{version}."))
            })
    }
}

fn entry(line: usize, text: &str) -> Option<Entry> {
    let mut strings = quoted(text).into_iter();
    let first = strings.next()?;
    let (name, version) = match first.split_once('@') {
        Some((name, version)) => (name.to_owned(), Some(version.to_owned())),
        None => (first, None),
    };
    Some(Entry { line, name, version, allow: strings.collect(), has_reason: text.contains("reason = \"") })
}

fn quoted(line: &str) -> Vec<String> {
    line.split('"').skip(1).step_by(2).map(str::to_owned).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const POLICY_TEXT: &str = r#"
[licenses]
allow = [
  "MIT",
]
exceptions = [
  { crate = "v", allow = ["LGPL-2.1"] },
]
[bans]
deny = [
  { crate = "openssl-sys", reason = "r" },
]
skip = [
  { crate = "d@1", reason = "r" },
]
"#;

    fn package(name: &str, version: &str, licence: &str) -> Package {
        let source = Some("registry+x".to_owned());
        Package { name: name.into(), version: version.into(), licence: licence.into(), source }
    }

    fn found(extra: &[Package]) -> Vec<&'static str> {
        let mut all = vec![
            package("v", "0.1.0", "LGPL-2.1"),
            package("d", "1.2.0", "MIT"),
            package("d", "2.0.0", "MIT"),
        ];
        all.extend_from_slice(extra);
        check(&Tree::of(&[(POLICY, POLICY_TEXT)]), &all).iter().map(|finding| finding.rule).collect()
    }

    #[test]
    fn what_the_policy_allows_passes() {
        assert!(found(&[package("ok", "1.0.0", "MIT OR X")]).is_empty());
    }

    #[test]
    fn what_it_does_not_is_found() {
        let odd = Package { source: Some("git+x".into()), ..package("g", "1.0.0", "MIT") };
        let bad = [package("w", "1.0.0", "LGPL-2.1"), package("openssl-sys", "0.9.0", "MIT"), odd];
        assert_eq!(found(&bad), ["licence", "ban", "source"]);
        assert_eq!(found(&[package("d", "3.0.0", "MIT")]), ["duplicate"]);
    }

    #[test]
    fn unused_exceptions_are_told() {
        let tree = Tree::of(&[(POLICY, POLICY_TEXT)]);
        assert_eq!(check(&tree, &[]).len(), 2);
    }
}
