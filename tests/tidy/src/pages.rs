//! The pages for people: every path they name exists, and every function they name stands in that file.
//!
//! A path is a word in backticks that begins with a folder of the tree; `path::name` names something in it.

use crate::Finding;
use crate::tree::{File, Tree};

/// Folders whose paths are checked.
const FOLDERS: [&str; 6] = ["system/", "services/", "image-builder/", "firmware/", "tests/", ".cargo/"];

/// Pages in the root that name what is not there.
pub fn check(tree: &Tree) -> Vec<Finding> {
    let pages = tree.files.iter().filter(|file| file.path.ends_with(".md") && !file.path.contains('/'));
    pages.flat_map(|page| check_page(tree, page)).collect()
}

fn check_page(tree: &Tree, page: &File) -> Vec<Finding> {
    let mut found = Vec::new();
    for (index, line) in page.text.lines().enumerate() {
        for word in line.split('`').skip(1).step_by(2) {
            if let Some(message) = wrong(tree, word) {
                found.push(Finding::at("page", &page.path, index + 1, message));
            }
        }
    }
    found
}

fn wrong(tree: &Tree, word: &str) -> Option<String> {
    if !FOLDERS.iter().any(|folder| word.starts_with(folder)) || word.contains(['*', '{', '<', ' ', '…']) {
        return None;
    }
    let (path, name) = word.split_once("::").map_or((word, None), |(path, name)| (path, Some(name)));
    if !tree.has(path) {
        return Some(format!("{path} does not exist: name what is there now"));
    }
    let name = name?;
    let last = name.rsplit("::").next().unwrap_or(name).trim_end_matches("()");
    let file = tree.file(path)?;
    let defined = ["fn", "struct", "enum", "trait", "const", "type", "mod"]
        .iter()
        .any(|kind| defines(&file.text, &format!("{kind} {last}")));
    (!defined).then(|| format!("{path} defines no `{last}`: name what is there now"))
}

fn defines(text: &str, definition: &str) -> bool {
    text.match_indices(definition).any(|(at, _)| {
        let after = text[at + definition.len()..].chars().next();
        after.is_none_or(|c| !c.is_alphanumeric() && c != '_')
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pages_name_what_exists() {
        let page = "see `system/a.rs`, `system/a.rs::run` and `system/*`\nnot `system/b.rs`, `system/a.rs::go`, `x/y`\n";
        let found = check(&Tree::of(&[("A.md", page), ("system/a.rs", "fn run() {}\nfn going() {}")]));
        let messages: Vec<_> = found.iter().map(|f| f.message.as_str()).collect();
        assert_eq!(found.len(), 2, "{messages:?}");
        assert!(messages[0].starts_with("system/b.rs") && messages[1].contains("`go`"));
    }
}
