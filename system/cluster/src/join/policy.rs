//! Whether a node is let in, from the policy, its token and the time.

use jiff::Timestamp;

use crate::membership::{JoinPolicy, Otherwise};

/// What a node showed of a token.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Shown {
    /// Nothing.
    Nothing,
    /// The proof of one that is good.
    Good,
    /// Something that is no proof, or of a token that is not (or no longer) one of this cloud.
    Bad,
}

/// What is done about it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// It is let in.
    Admit,
    /// A person decides.
    Ask,
    /// It is not.
    Refuse(&'static str),
}

/// The verdict. A bad token is refused even while joining is open: whoever gave the node a token meant it for a
/// cloud that knows it.
pub fn decide(policy: &JoinPolicy, shown: Shown, now: Timestamp) -> Verdict {
    match (shown, policy.otherwise) {
        (Shown::Bad, _) => Verdict::Refuse("the token is not one of this cloud, or has ended"),
        (Shown::Good, _) => Verdict::Admit,
        _ if policy.open_until.is_some_and(|until| now < until) => Verdict::Admit,
        (Shown::Nothing, Otherwise::Ask) => Verdict::Ask,
        (Shown::Nothing, Otherwise::Token) => Verdict::Refuse("this cloud lets nodes in by token only"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_case() {
        let at = |s| Timestamp::from_second(s).unwrap();
        let policy = |otherwise| JoinPolicy { open_until: Some(at(100)), otherwise };
        let (ask, token) = (policy(Otherwise::Ask), policy(Otherwise::Token));
        for (policy, shown, now, expected) in [
            (&ask, Shown::Nothing, 99, "Admit"),
            (&token, Shown::Nothing, 99, "Admit"),
            (&ask, Shown::Nothing, 100, "Ask"),
            (&token, Shown::Nothing, 100, "Refuse"),
            (&ask, Shown::Good, 100, "Admit"),
            (&token, Shown::Good, 100, "Admit"),
            (&ask, Shown::Bad, 99, "Refuse"),
            (&token, Shown::Bad, 100, "Refuse"),
        ] {
            let verdict = format!("{:?}", decide(policy, shown, at(now)));
            assert!(verdict.starts_with(expected), "{policy:?} {shown:?} {now}: {verdict}");
        }
        assert_eq!(decide(&JoinPolicy::default(), Shown::Nothing, at(0)), Verdict::Ask);
    }
}
