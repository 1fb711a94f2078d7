//! Exceptions, each with a limit and a reason; they may shrink and go, never grow.
//!
//! A line of `ratchet.txt` is `rule subject limit reason...`; `-` is the limit of rules that do not count.
//! `TIDY_UPDATE=1 cargo test -p tidy` lowers limits and drops lines that nothing needs any more. It raises none.

use std::fmt::Write as _;

use crate::Finding;

/// One exception.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Exception {
    line: usize,
    rule: String,
    subject: String,
    limit: Option<usize>,
    reason: String,
}

/// The exceptions of the tree.
#[derive(Clone, Debug)]
pub struct Ratchet {
    path: String,
    text: String,
    exceptions: Vec<Exception>,
}

/// Lines that are not as the format has them.
pub type Malformed = Vec<Finding>;

impl Ratchet {
    /// Reads the text of the file at `path`.
    pub fn parse(path: &str, text: &str) -> Result<Ratchet, Malformed> {
        let mut exceptions = Vec::new();
        let mut wrong = Vec::new();
        for (index, line) in text.lines().enumerate() {
            if line.trim().is_empty() || line.starts_with('#') {
                continue;
            }
            match exception(index + 1, line) {
                Some(exception) => exceptions.push(exception),
                None => {
                    let message = "write `rule subject limit reason`, the limit `-` where nothing is counted";
                    wrong.push(Finding::at("ratchet", path, index + 1, message));
                }
            }
        }
        if wrong.is_empty() {
            Ok(Ratchet { path: path.to_owned(), text: text.to_owned(), exceptions })
        } else {
            Err(wrong)
        }
    }

    /// What is left of `found` when the exceptions are taken out, and the exceptions that are no longer needed.
    pub fn apply(&self, found: Vec<Finding>) -> Vec<Finding> {
        let mut left: Vec<_> = self.exceptions.iter().filter_map(|e| self.slack(e, &found)).collect();
        left.extend(found.into_iter().filter_map(|finding| self.excess(finding)));
        left
    }

    /// The file's text with limits lowered to what was found, and lines without a finding dropped.
    pub fn lowered(&self, found: &[Finding]) -> String {
        let mut out = String::new();
        for (index, line) in self.text.lines().enumerate() {
            let Some(exception) = self.exceptions.iter().find(|e| e.line == index + 1) else {
                let _ = writeln!(out, "{line}");
                continue;
            };
            let Some(finding) = exception.finding(found) else { continue };
            let limit = exception.limit.map_or("-".to_owned(), |limit| limit.min(finding.amount).to_string());
            let _ = writeln!(out, "{} {} {limit} {}", exception.rule, exception.subject, exception.reason);
        }
        out
    }

    fn excess(&self, mut finding: Finding) -> Option<Finding> {
        let same = |e: &&Exception| e.rule == finding.rule && e.subject == finding.subject;
        match self.exceptions.iter().find(same) {
            None => Some(finding),
            Some(Exception { limit: Some(limit), .. }) if finding.amount > *limit => {
                let _ = write!(finding.message, "; {} allows {limit}, and that may only fall", self.path);
                Some(finding)
            }
            Some(_) => None,
        }
    }

    fn slack(&self, exception: &Exception, found: &[Finding]) -> Option<Finding> {
        let subject = &exception.subject;
        let message = match (exception.finding(found), exception.limit) {
            (None, _) => format!("{subject} needs no exception any more: remove the line"),
            (Some(finding), Some(limit)) if finding.amount < limit => {
                format!("{subject} is down to {}: lower the limit", finding.amount)
            }
            _ => return None,
        };
        let message = format!("{message} (or run TIDY_UPDATE=1 cargo test -p tidy)");
        Some(Finding::at("ratchet", &self.path, exception.line, message))
    }
}

impl Exception {
    fn finding<'a>(&self, found: &'a [Finding]) -> Option<&'a Finding> {
        found.iter().find(|finding| finding.rule == self.rule && finding.subject == self.subject)
    }
}

fn exception(line: usize, text: &str) -> Option<Exception> {
    let mut words = text.split_whitespace();
    let rule = words.next()?.to_owned();
    let subject = words.next()?.to_owned();
    let limit = match words.next()? {
        "-" => None,
        number => Some(number.parse().ok()?),
    };
    let reason = words.collect::<Vec<_>>().join(" ");
    (!reason.is_empty()).then_some(Exception { line, rule, subject, limit, reason })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn finding(subject: &str, amount: usize) -> Finding {
        Finding { amount, ..Finding::at("unwraps", subject, 1, "m") }
    }

    fn messages(found: &[Finding]) -> Vec<&str> {
        found.iter().map(|f| f.message.as_str()).collect()
    }

    #[test]
    fn limits_hold_and_slack_is_told() {
        let text = "# why\nunwraps a 3 because\nunwraps b 2 because\nunsafe c - because\n";
        let ratchet = Ratchet::parse("r", text).unwrap();
        let found = vec![finding("a", 4), finding("b", 1)];
        let left = ratchet.apply(found.clone());
        assert_eq!(left.len(), 3, "{left:?}");
        assert!(messages(&left)[0].starts_with("b is down to 1"));
        assert!(messages(&left)[1].starts_with("c needs no exception"));
        assert!(messages(&left)[2].contains("allows 3"));
        assert_eq!(ratchet.lowered(&found), "# why\nunwraps a 3 because\nunwraps b 1 because\n");
    }

    #[test]
    fn an_exception_needs_a_reason() {
        assert_eq!(Ratchet::parse("r", "unwraps a 3\n").unwrap_err()[0].place, "r:1");
    }
}
