//! The tree as it is, against every rule. What fails is printed with its place and what to do about it.
//!
//! `TIDY_UPDATE=1 cargo test -p tidy` lowers the limits in `ratchet.txt` to what is there.

use std::fs;

use tidy::{Finding, Ratchet, Tree, manifests, packages, pages, source, words};

const RATCHET: &str = "tests/tidy/ratchet.txt";

fn report(found: &[Finding]) {
    let lines: Vec<_> = found.iter().map(ToString::to_string).collect();
    assert!(found.is_empty(), "{} finding(s):\n{}\n", lines.len(), lines.join("\n"));
}

#[test]
fn sources_and_manifests() {
    let tree = Tree::read().expect("the tree can be read");
    let mut found = source::check(&tree);
    found.extend(manifests::check(&tree));
    let text = tree.file(RATCHET).map(|file| file.text.clone()).unwrap_or_default();
    let ratchet = match Ratchet::parse(RATCHET, &text) {
        Ok(ratchet) => ratchet,
        Err(malformed) => return report(&malformed),
    };
    if std::env::var_os("TIDY_UPDATE").is_some() {
        let lowered = ratchet.lowered(&found);
        fs::write(tree.root.join(RATCHET), &lowered).expect("the ratchet can be written");
        return report(&Ratchet::parse(RATCHET, &lowered).expect("still well formed").apply(found));
    }
    report(&ratchet.apply(found));
}

#[test]
fn forbidden_words() {
    report(&words::check(&Tree::read().expect("the tree can be read")));
}

#[test]
fn pages_name_what_is_there() {
    report(&pages::check(&Tree::read().expect("the tree can be read")));
}

#[test]
fn packages_from_outside() {
    let tree = Tree::read().expect("the tree can be read");
    let locked = packages::locked(&tree).expect("cargo reads the lock file");
    report(&packages::check(&tree, &locked));
}
