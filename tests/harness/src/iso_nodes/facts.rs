//! What a node's view of its cloud (`/appliance/v1/cluster`) says, held against what is wanted. Pure.

use anyhow::{Context, Result, ensure};
use serde_json::Value;

/// Whether all of so many members are in touch, and enough of them vote under a leader. The error says what is missing.
pub fn check_healthy(overview: &Value, members: u8) -> Result<()> {
    check_members(overview, members)?;
    let (members, voters) = (usize::from(members), voters_of(members));
    let with = |flag: &str| listed(overview, "members").iter().filter(|m| m[flag] == true).count();
    let (alive, vote) = (with("alive"), with("voter"));
    ensure!(alive == members, "{alive} of {members} members are in touch");
    ensure!(vote == voters, "{vote} vote, {voters} shall");
    ensure!(overview["leader"].is_string(), "nobody leads");
    Ok(())
}

/// How many of so many members vote when all is well.
pub fn voters_of(members: u8) -> usize {
    // An even number would only be one more to lose; more than five are no safer.
    usize::from((members.saturating_sub(1) | 1).min(5))
}

/// Whether so many nodes are members.
pub fn check_members(overview: &Value, members: u8) -> Result<()> {
    let states: Vec<_> =
        listed(overview, "members").iter().map(|m| m["state"].as_str().unwrap_or("")).collect();
    let wanted = usize::from(members);
    let member = states.iter().filter(|state| **state == "member").count();
    ensure!(
        member == wanted && states.len() == wanted,
        "the members are {states:?}, {members} shall be active"
    );
    Ok(())
}

/// The name of the node that asks and shows these words.
pub fn asking(overview: &Value, words: &str) -> Result<String> {
    let request = listed(overview, "requests").iter().find(|request| request["words"] == words);
    let request = request.with_context(|| format!("nobody who asks is shown with the words {words}"))?;
    Ok(request["name"].as_str().context("who asks has no name")?.to_owned())
}

fn listed<'a>(overview: &'a Value, what: &str) -> &'a [Value] {
    overview[what].as_array().map_or(&[], Vec::as_slice)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn member(state: &str, voter: bool, alive: bool) -> Value {
        json!({"state": state, "voter": voter, "alive": alive})
    }

    #[test]
    fn a_cloud_is_healthy_when_all_are_in_touch_and_enough_vote_under_a_leader() {
        let of = |members: Vec<Value>, leader: Option<&str>| json!({"members": members, "leader": leader});
        let healthy = of(vec![member("member", true, true); 3], Some("a"));
        assert!(check_healthy(&healthy, 3).is_ok());
        assert!(check_healthy(&healthy, 4).is_err());
        assert!(check_healthy(&of(vec![member("member", true, true); 3], None), 3).is_err());
        assert!(check_healthy(&of(vec![member("member", true, false)], Some("a")), 1).is_err());
        assert!(check_healthy(&of(vec![member("joining", true, true)], Some("a")), 1).is_err());
        let even = vec![member("member", true, true); 2];
        assert!(check_healthy(&of(even, Some("a")), 2).is_err());
        assert!(check_healthy(&json!({}), 1).is_err());
    }

    #[test]
    fn an_odd_number_votes() {
        assert_eq!([1, 2, 3, 4, 5, 6, 9].map(voters_of), [1, 1, 3, 3, 5, 5, 5]);
    }

    #[test]
    fn who_asks_must_show_the_words_that_the_cloud_shows() {
        let overview = json!({"requests": [{"name": "cairn-000001", "words": "a b c d"}]});
        assert_eq!(asking(&overview, "a b c d").unwrap(), "cairn-000001");
        assert!(asking(&overview, "a b c e").is_err() && asking(&json!({}), "").is_err());
    }
}
