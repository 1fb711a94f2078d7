//! Tokens to join with: an id that is no secret, and a secret that never crosses the wire.
//!
//! A token is for a personalised ISO or a kernel command line, where no person compares words. The cloud keeps
//! only a key derived from the secret, enough to check a proof. The secret is random, 120 bits, so that a proof
//! seen by anybody tells nothing about it.

use std::fmt;
use std::str::FromStr;

use cairn_state::Record;
use jiff::Timestamp;
use ring::rand::{SecureRandom, SystemRandom};
use serde::{Deserialize, Serialize};

use crate::handshake::{Bytes32, hash};

/// Letters and digits that are not taken for one another; 32 of them, 5 bits each.
const ALPHABET: &[u8; 32] = b"abcdefghjkmnpqrstuvwxyz23456789z";
const ID_CHARS: usize = 8;
const SECRET_CHARS: usize = 24;

/// A token as it is handed out: shown once, then known only to who was given it.
#[derive(Clone, PartialEq, Eq)]
pub struct Token {
    id: String,
    secret: String,
}

impl fmt::Debug for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Token({})", self.id)
    }
}

/// No randomness was to be had.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the system gives no randomness")]
pub struct NoRandomness;

/// A text that is not a token.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a token is {ID_CHARS} characters, a dot, and {SECRET_CHARS} characters")]
pub struct NotAToken;

impl Token {
    /// A new one.
    pub fn generate() -> Result<Token, NoRandomness> {
        Ok(Token { id: random(ID_CHARS)?, secret: random(SECRET_CHARS)? })
    }

    /// What names it.
    pub fn id(&self) -> &str {
        &self.id
    }

    /// What proofs are made and checked with.
    pub fn key(&self) -> Bytes32 {
        hash("cairn join: token", &[self.id.as_bytes(), self.secret.as_bytes()])
    }

    /// The whole token, for its holder's eyes.
    pub fn reveal(&self) -> String {
        format!("{}.{}", self.id, self.secret)
    }
}

impl FromStr for Token {
    type Err = NotAToken;

    fn from_str(text: &str) -> Result<Token, NotAToken> {
        let (id, secret) = text.trim().split_once('.').ok_or(NotAToken)?;
        let fits = |part: &str, chars| part.len() == chars && is_of_alphabet(part);
        match fits(id, ID_CHARS) && fits(secret, SECRET_CHARS) {
            true => Ok(Token { id: id.into(), secret: secret.into() }),
            false => Err(NotAToken),
        }
    }
}

/// 32 random bytes.
pub(crate) fn nonce() -> Result<Bytes32, NoRandomness> {
    let mut bytes = [0; 32];
    SystemRandom::new().fill(&mut bytes).map_err(|_| NoRandomness)?;
    Ok(bytes)
}

/// Whether all of a text is of those letters and digits.
pub(crate) fn is_of_alphabet(text: &str) -> bool {
    text.bytes().all(|c| ALPHABET.contains(&c))
}

/// So many random letters and digits, 32 at most.
pub(crate) fn random(chars: usize) -> Result<String, NoRandomness> {
    let bytes = nonce()?;
    let chars = bytes.iter().take(chars).filter_map(|b| ALPHABET.get(usize::from(b & 31)));
    Ok(chars.map(|c| char::from(*c)).collect())
}

/// A token as the cloud keeps it. Its writer is the controller.
#[derive(Clone, PartialEq, Serialize, Deserialize)]
pub struct TokenRecord {
    /// What names it.
    pub id: String,
    /// What its proofs are checked with, in hex. Never shown.
    key: String,
    /// When it ends, if ever.
    pub expires: Option<Timestamp>,
    /// How many nodes may still join with it; `None` for any number.
    pub uses_left: Option<u32>,
}

impl fmt::Debug for TokenRecord {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "TokenRecord({})", self.id)
    }
}

impl Record for TokenRecord {
    const KIND: &'static str = "cluster/token";

    fn id(&self) -> String {
        self.id.clone()
    }
}

impl TokenRecord {
    /// What is kept of a token.
    pub fn of(token: &Token, expires: Option<Timestamp>, uses_left: Option<u32>) -> TokenRecord {
        TokenRecord { id: token.id.clone(), key: hex::encode(token.key()), expires, uses_left }
    }

    /// Whether it still lets anybody in.
    pub fn is_good(&self, now: Timestamp) -> bool {
        self.expires.is_none_or(|end| now < end) && self.uses_left != Some(0)
    }

    /// What its proofs are checked with.
    pub fn key(&self) -> Option<Bytes32> {
        let mut key = [0; 32];
        hex::decode_to_slice(&self.key, &mut key).ok().map(|()| key)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_reads_back_and_its_record_does_not_hold_it() {
        let token = Token::generate().unwrap();
        assert_eq!(token.reveal().parse::<Token>().unwrap(), token);
        let record = TokenRecord::of(&token, None, Some(1));
        assert_eq!(record.key(), Some(token.key()));
        let json = serde_json::to_string(&record).unwrap();
        assert!(!json.contains(&token.secret) && !format!("{token:?}{record:?}").contains(&token.secret));
        for bad in ["", ".", "abc.def", &token.reveal()[1..], &format!("{}x", token.reveal())] {
            assert_eq!(bad.parse::<Token>(), Err(NotAToken));
        }
    }

    #[test]
    fn it_ends_by_time_and_by_use() {
        let at = |s| Timestamp::from_second(s).unwrap();
        let token = Token::generate().unwrap();
        assert!(TokenRecord::of(&token, Some(at(10)), None).is_good(at(9)));
        assert!(!TokenRecord::of(&token, Some(at(10)), None).is_good(at(10)));
        assert!(!TokenRecord::of(&token, None, Some(0)).is_good(at(1)));
    }
}
