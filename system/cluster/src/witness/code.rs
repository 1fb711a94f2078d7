//! What a witness's owner hands to a cloud's: the beginning of the hash that is its identity, and a secret.
//!
//! Who has it reaches that very machine and no other, and is served. Typed once by a person, over whatever channel they
//! trust.

use std::fmt;
use std::str::FromStr;

use cairn_wire::remote::PeerId;

use crate::handshake::hash;
use crate::token::{self, NoRandomness};

/// How many bytes of the identity it has: as many as nobody finds another key for.
const ID_BYTES: usize = 16;
/// How many characters the secret has, five bits each.
const SECRET_CHARS: usize = 24;

/// What lets a cloud be served. Known to the witness, and to who was given it.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(String);

/// A text that is no code.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error(
    "a witness's code is 32 hex digits, a dot, and {SECRET_CHARS} characters: as \"cairn-witness code\" shows it"
)]
pub struct NotACode;

impl Secret {
    /// A new one.
    pub fn generate() -> Result<Secret, NoRandomness> {
        token::random(SECRET_CHARS).map(Secret)
    }

    /// Its characters, for where it is kept and for the witness itself to check.
    pub fn reveal(&self) -> &str {
        &self.0
    }

    /// Whether this is it. Hashes are compared, so how long that takes tells nothing.
    pub fn is(&self, text: &str) -> bool {
        let of = |text: &str| hash("cairn witness: secret", &[text.as_bytes()]);
        of(&self.0) == of(text)
    }
}

impl FromStr for Secret {
    type Err = NotACode;

    fn from_str(text: &str) -> Result<Secret, NotACode> {
        let text = text.trim();
        match token::is_of_alphabet(text) && text.len() == SECRET_CHARS {
            true => Ok(Secret(text.into())),
            false => Err(NotACode),
        }
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret")
    }
}

/// The code.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Code {
    id: [u8; ID_BYTES],
    /// What lets a cloud be served.
    pub secret: Secret,
}

impl Code {
    /// The code of a witness.
    pub fn of(id: PeerId, secret: Secret) -> Code {
        let mut start = [0; ID_BYTES];
        start.copy_from_slice(&id.as_bytes()[..ID_BYTES]);
        Code { id: start, secret }
    }

    /// Whether it is this one's.
    pub fn is_of(&self, id: PeerId) -> bool {
        id.as_bytes().starts_with(&self.id)
    }

    /// The whole code, for a person's eyes.
    pub fn reveal(&self) -> String {
        format!("{}.{}", hex::encode(self.id), self.secret.reveal())
    }
}

impl FromStr for Code {
    type Err = NotACode;

    fn from_str(text: &str) -> Result<Code, NotACode> {
        let (start, secret) = text.trim().split_once('.').ok_or(NotACode)?;
        let mut id = [0; ID_BYTES];
        hex::decode_to_slice(start, &mut id).map_err(|_| NotACode)?;
        Ok(Code { id, secret: secret.parse()? })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_code_reads_back_and_is_of_one_machine() {
        let id = PeerId::of_key(b"a key");
        let code = Code::of(id, Secret::generate().unwrap());
        let read: Code = format!(" {}\n", code.reveal()).parse().unwrap();
        assert_eq!(read, code);
        assert!(read.is_of(id) && !read.is_of(PeerId::of_key(b"another")));
        assert!(read.secret.is(code.secret.reveal()) && !read.secret.is(""));
        assert!(!format!("{code:?}").contains(code.secret.reveal()));
        for bad in ["", ".", "00.x", &code.reveal()[1..], &format!("{}x", code.reveal())] {
            assert_eq!(bad.parse::<Code>(), Err(NotACode));
        }
    }
}
