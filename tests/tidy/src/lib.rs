//! Tidy: what the tree promises about itself, checked by `cargo test -p tidy`.
//!
//! What lives here: a reading of Rust sources that is enough for counting ([`scan`]), and the rules: sources
//! ([`source`]), manifests and the direction of dependencies ([`manifests`]), packages from outside and their
//! licences ([`packages`]), forbidden words ([`words`]), and the paths that the pages name ([`pages`]).
//! Exceptions stand in `ratchet.txt` ([`ratchet`]), those about packages in `deny.toml`, each with its reason.
//!
//! It reads the tree and asks cargo what the lock file means. It must never write anywhere but `ratchet.txt`,
//! and that only to lower a number when asked to.

pub mod manifests;
pub mod packages;
pub mod pages;
pub mod ratchet;
pub mod scan;
pub mod source;
pub mod spdx;
pub mod tree;
pub mod words;

use std::fmt;

pub use ratchet::Ratchet;
pub use tree::Tree;

/// Something that is not as it should be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Finding {
    /// The rule's name, as `ratchet.txt` spells it.
    pub rule: &'static str,
    /// What the exception would be for: a path, a function, a package.
    pub subject: String,
    /// How much of it there is, for rules that count; else 0.
    pub amount: usize,
    /// Where to look, `path:line`.
    pub place: String,
    /// What is wrong, and what to do.
    pub message: String,
}

impl fmt::Display for Finding {
    fn fmt(&self, to: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(to, "{}: {} [{}]", self.place, self.message, self.rule)
    }
}

impl Finding {
    /// A finding that no number goes with, at a line of a file, which is also its subject.
    pub fn at(rule: &'static str, path: &str, line: usize, message: impl Into<String>) -> Finding {
        Finding {
            rule,
            subject: path.to_owned(),
            amount: 0,
            place: format!("{path}:{line}"),
            message: message.into(),
        }
    }
}
