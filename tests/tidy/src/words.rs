//! Words that may not stand in the tree, in any text file.
//!
//! The tree stands alone: it names no folder of a machine it was built on, no host that packages come from (those are
//! the machine's own configuration to name), and no tool that somebody happened to write it with.

use crate::Finding;
use crate::tree::Tree;

/// Each in two halves, so that this file does not hold what it forbids.
const WORDS: [(&str, &str, &str); 14] = [
    ("/wo", "rk/", "a folder of one machine: find the place from the workspace's root or an option"),
    ("/home", "/", "a folder of one machine: find the place from the workspace's root or an option"),
    ("deb.debian", ".org", "a package host: take it from the machine's own apt configuration"),
    ("security.debian", ".org", "a package host: take it from the machine's own apt configuration"),
    ("archive.ubuntu", ".com", "a package host: take it from the machine's own apt configuration"),
    ("pypi", ".org", "a package host: take it from the machine's own pip configuration"),
    ("pythonhosted", ".org", "a package host: take it from the machine's own pip configuration"),
    ("npmjs", ".", "a package host: take it from the machine's own configuration"),
    ("static.crates", ".io", "a package host: cargo knows its own"),
    ("index.crates", ".io", "a package host: cargo knows its own"),
    ("clau", "de", "the name of a tool that the project does not need"),
    ("anthro", "pic", "the name of a tool that the project does not need"),
    ("copi", "lot", "the name of a tool that the project does not need"),
    ("chat", "gpt", "the name of a tool that the project does not need"),
];

/// Written by cargo, which names its registry.
const NOT_OURS: [&str; 1] = ["Cargo.lock"];

/// Every place where a forbidden word stands.
pub fn check(tree: &Tree) -> Vec<Finding> {
    let mut found = Vec::new();
    let words: Vec<_> = WORDS.iter().map(|(head, tail, why)| (format!("{head}{tail}"), *why)).collect();
    for file in tree.files.iter().filter(|file| !NOT_OURS.contains(&file.path.as_str())) {
        for (index, line) in file.text.lines().enumerate() {
            let line = line.to_ascii_lowercase();
            for (word, why) in &words {
                if holds(&line, word) {
                    found.push(Finding::at("word", &file.path, index + 1, format!("`{word}`: {why}")));
                }
            }
        }
    }
    found
}

/// Whether the word stands in the line, a path only where it begins at the root.
fn holds(line: &str, word: &str) -> bool {
    line.match_indices(word).any(|(at, _)| {
        let before = line[..at].chars().next_back();
        !word.starts_with('/') || before.is_none_or(|c| !c.is_alphanumeric() && !"_-.})*~".contains(c))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_are_found_and_parts_of_paths_are_not() {
        let bad = format!("see {}{}x", WORDS[0].0, WORDS[0].1);
        let good = format!("target{}{}x", WORDS[0].0, WORDS[0].1);
        let found = check(&Tree::of(&[("a.md", &format!("{good}\n{bad}\n")), ("Cargo.lock", &bad)]));
        assert_eq!(found.len(), 1);
        assert_eq!(found[0].place, "a.md:2");
    }
}
