//! Rules about `Cargo.toml` files: where versions stand, and which way dependencies point.
//!
//! Reads the few lines of TOML that manifests here consist of; a form it does not know is a finding, not a pass.

use crate::Finding;
use crate::tree::{File, Tree};

/// Which packages of the workspace each may depend on. Arrows point one way, from services to the system; what is
/// not listed depends on nothing of ours. The binary `cairn` puts all together.
const MAY_USE: [(&str, &[&str]); 17] = [
    ("cairn-state", &[]),
    ("cairn-wire", &["cairn-state"]),
    ("cairn-cluster", &["cairn-state", "cairn-wire"]),
    ("cairn-node", &["cairn-state", "cairn-cluster"]),
    ("cairn-shards", &["cairn-state", "cairn-wire"]),
    ("cairn-gateway", &["cairn-state"]),
    ("cairn-identity", &[STATE, SHARDS, WIRE, GATEWAY]),
    ("cairn-placement", &[STATE, SHARDS, WIRE, GATEWAY]),
    ("cairn-image", &[STATE, SHARDS, WIRE, GATEWAY]),
    ("cairn-network", &[STATE, SHARDS, WIRE, GATEWAY]),
    ("cairn-block", &[STATE, SHARDS, WIRE, GATEWAY, "cairn-image"]),
    (
        "cairn-compute",
        &[STATE, SHARDS, WIRE, GATEWAY, "cairn-image", "cairn-block", "cairn-network", "cairn-placement"],
    ),
    ("cairn-witness", &["cairn-state", "cairn-wire", "cairn-cluster"]),
    ("bench", &["image-builder", SHARDS, STATE, WIRE]),
    ("harness", &["image-builder"]),
    ("truth", &["image-builder", SHARDS, STATE, WIRE]),
    ("image-builder", &[]),
];
const STATE: &str = "cairn-state";
const SHARDS: &str = "cairn-shards";
const WIRE: &str = "cairn-wire";
const GATEWAY: &str = "cairn-gateway";
/// May depend on every package.
const TOP: &str = "cairn";

/// A dependency of a manifest.
struct Dependency<'a> {
    line: usize,
    name: &'a str,
    inherited: bool,
    /// Whether only tests use it.
    dev: bool,
}

/// Everything that is wrong with the manifests.
pub fn check(tree: &Tree) -> Vec<Finding> {
    let mut found = Vec::new();
    if tree.file("Cargo.lock").is_none() {
        found.push(Finding::at(
            "lock",
            "Cargo.lock",
            1,
            "is missing: run `cargo generate-lockfile` and commit it",
        ));
    }
    let manifests: Vec<_> = tree.files.iter().filter(|file| file.path.ends_with("/Cargo.toml")).collect();
    let ours: Vec<_> = manifests.iter().filter_map(|file| package_name(&file.text)).collect();
    for manifest in &manifests {
        found.extend(inheritance(manifest));
        found.extend(direction(manifest, &ours));
        found.extend(lints(manifest));
    }
    found
}

fn inheritance<'a>(manifest: &'a File) -> impl Iterator<Item = Finding> + 'a {
    dependencies(&manifest.text).into_iter().filter(|d| !d.inherited).map(|d| {
        let message = format!(
            "`{}` names its own version: put it into [workspace.dependencies] and write `{}.workspace = true`",
            d.name, d.name
        );
        Finding::at("version", &manifest.path, d.line, message)
    })
}

/// Tests of a service may stand on any other, to be whole; those of the system may not.
fn direction(manifest: &File, ours: &[&str]) -> Vec<Finding> {
    let Some(package) = package_name(&manifest.text) else {
        return vec![Finding::at("manifest", &manifest.path, 1, "has no [package] name")];
    };
    if package == TOP {
        return Vec::new();
    }
    let allowed = MAY_USE.iter().find(|(name, _)| *name == package).map_or(&[][..], |(_, allowed)| allowed);
    dependencies(&manifest.text)
        .into_iter()
        .filter(|d| ours.contains(&d.name) && d.name != package && !allowed.contains(&d.name))
        .filter(|d| !(d.dev && manifest.path.starts_with("services/")))
        .map(|d| {
            let message = format!(
                "{package} may not depend on {}: arrows point from services to the system, see ARCHITECTURE.md; a new \
                 arrow is added to MAY_USE in tests/tidy/src/manifests.rs",
                d.name
            );
            Finding::at("direction", &manifest.path, d.line, message)
        })
        .collect()
}

fn lints(manifest: &File) -> Option<Finding> {
    let has = section_lines(&manifest.text, |section| section == "lints")
        .any(|(_, line)| line == "workspace = true");
    (!has).then(|| Finding::at("lints", &manifest.path, 1, "add `[lints]` with `workspace = true`"))
}

/// The package that a manifest is of.
pub fn package_name(manifest: &str) -> Option<&str> {
    section_lines(manifest, |section| section == "package")
        .find_map(|(_, line)| line.strip_prefix("name = \"")?.strip_suffix('"'))
}

fn dependencies(manifest: &str) -> Vec<Dependency<'_>> {
    let of = |dev: bool| {
        let wanted =
            move |section: &str| section.ends_with("dependencies") && section.contains("dev-") == dev;
        section_lines(manifest, wanted).filter_map(move |(line, text)| dependency(line, text, dev))
    };
    of(false).chain(of(true)).collect()
}

fn dependency(line: usize, text: &str, dev: bool) -> Option<Dependency<'_>> {
    let (key, value) = text.split_once('=')?;
    let key = key.trim();
    let name = key.strip_suffix(".workspace").unwrap_or(key);
    let inherited = if name == key { value.contains("workspace = true") } else { value.trim() == "true" };
    Some(Dependency { line, name, inherited, dev })
}

/// The lines of the sections that `wanted` names, without comments, with their numbers.
fn section_lines<'a>(
    manifest: &'a str,
    wanted: impl Fn(&str) -> bool + 'a,
) -> impl Iterator<Item = (usize, &'a str)> + 'a {
    let mut section = "";
    manifest.lines().enumerate().filter_map(move |(index, line)| {
        let line = line.split(" #").next().unwrap_or(line).trim();
        if let Some(name) = line.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')) {
            section = name;
            return None;
        }
        (wanted(section) && !line.is_empty() && !line.starts_with('#')).then_some((index + 1, line))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn manifest(name: &str, rest: &str) -> String {
        format!("[package]\nname = \"{name}\"\n[lints]\nworkspace = true\n[dependencies]\n{rest}")
    }

    fn found(files: &[(&str, String)]) -> Vec<String> {
        let mut all: Vec<(&str, &str)> = files.iter().map(|(path, text)| (*path, text.as_str())).collect();
        all.push(("Cargo.lock", ""));
        check(&Tree::of(&all)).iter().map(|f| format!("{} {}", f.rule, f.place)).collect()
    }

    #[test]
    fn versions_stand_in_the_root_alone() {
        let text =
            manifest("a", "serde.workspace = true\nx = { workspace = true, features = [] }\nlibc = \"1\"");
        assert_eq!(found(&[("a/Cargo.toml", text)]), ["version a/Cargo.toml:8"]);
    }

    #[test]
    fn arrows_point_one_way() {
        let state = manifest("cairn-state", "cairn-image.workspace = true");
        let image = manifest("cairn-image", "cairn-state.workspace = true");
        let cairn = manifest("cairn", "cairn-image.workspace = true");
        let tests = "[dev-dependencies]\ncairn-image.workspace = true";
        let network = manifest("cairn-network", tests);
        let all = [
            ("s/Cargo.toml", state),
            ("i/Cargo.toml", image),
            ("c/Cargo.toml", cairn),
            ("services/n/Cargo.toml", network.clone()),
            ("system/n/Cargo.toml", network),
        ];
        assert_eq!(found(&all), ["direction s/Cargo.toml:6", "direction system/n/Cargo.toml:7"]);
    }

    #[test]
    fn the_lock_file_and_the_lints_are_there() {
        let found = check(&Tree::of(&[("a/Cargo.toml", "[package]\nname = \"a\"\n")]));
        let rules: Vec<_> = found.iter().map(|f| f.rule).collect();
        assert_eq!(rules, ["lock", "lints"]);
    }
}
