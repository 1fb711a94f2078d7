//! What a token says, and its form on the wire.
//!
//! A token is base64url of: version (1 byte), key id (1 byte), nonce (12), sealed payload with tag. Version and key
//! id are bound to the seal. Nothing about a token is stored but its early revocation.

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use cairn_gateway::ApiError;
use serde::{Deserialize, Serialize};

use crate::crypt::Sealer;

/// The form this release writes. 1: the first.
const VERSION: u8 = 1;
/// The longest token that is looked at, in characters.
const LENGTH_MAX: usize = 2048;

/// What a token is for.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Scope {
    /// Nothing but finding out where one may go.
    Unscoped,
    /// A project's id.
    Project(String),
    /// A domain's id.
    Domain(String),
    /// The cloud itself.
    System,
}

/// How the user was authenticated; a set of bits, as tokens made from tokens add to it.
pub mod methods {
    /// A password.
    pub const PASSWORD: u8 = 1;
    /// Another token.
    pub const TOKEN: u8 = 2;
    /// An application credential.
    pub const APPLICATION_CREDENTIAL: u8 = 4;

    /// The methods' names.
    pub fn names(bits: u8) -> Vec<&'static str> {
        [(PASSWORD, "password"), (TOKEN, "token"), (APPLICATION_CREDENTIAL, "application_credential")]
            .into_iter()
            .filter(|(bit, _)| bits & bit != 0)
            .map(|(_, name)| name)
            .collect()
    }
}

/// What a token says. Names and roles are looked up when it is used.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Payload {
    /// The user's id (of an impersonating trust, the trustor's).
    pub user_id: String,
    /// What it is for.
    pub scope: Scope,
    /// When it was issued, in microseconds since the epoch.
    pub issued_us: i64,
    /// When it ends, in seconds since the epoch.
    pub expires_s: i64,
    /// Its own random id, which may be logged.
    pub audit: [u8; 16],
    /// The audit id of the token it was made from.
    pub chain: Option<[u8; 16]>,
    /// How the user was authenticated, see [`methods`].
    pub methods: u8,
    /// The trust it was made with.
    pub trust_id: Option<String>,
    /// The application credential it was made with.
    pub application_credential_id: Option<String>,
}

impl Payload {
    /// The audit id as text.
    pub fn audit_id(&self) -> String {
        URL_SAFE_NO_PAD.encode(self.audit)
    }

    /// `audit_ids` of the API.
    pub fn audit_ids(&self) -> Vec<String> {
        [Some(self.audit), self.chain].into_iter().flatten().map(|a| URL_SAFE_NO_PAD.encode(a)).collect()
    }
}

/// The token for a payload.
pub fn encode(payload: &Payload, key_id: u8, sealer: &Sealer) -> Result<String, ApiError> {
    let plain = postcard::to_stdvec(payload).map_err(ApiError::internal)?;
    let head = [VERSION, key_id];
    let sealed = sealer.seal(&head, &plain)?;
    Ok(URL_SAFE_NO_PAD.encode([&head[..], &sealed].concat()))
}

/// A token taken apart, not yet opened.
pub struct Sealed {
    /// The key that sealed it, so it says.
    pub key_id: u8,
    bytes: Vec<u8>,
}

/// Takes a token apart; `None` if it has not the form of one.
pub fn decode(token: &str) -> Option<Sealed> {
    if token.len() > LENGTH_MAX {
        return None;
    }
    let bytes = URL_SAFE_NO_PAD.decode(token).ok()?;
    let (version, key_id) = (*bytes.first()?, *bytes.get(1)?);
    (version == VERSION).then_some(Sealed { key_id, bytes })
}

impl Sealed {
    /// The payload, if this key sealed it.
    pub fn open(&self, sealer: &Sealer) -> Option<Payload> {
        let (head, sealed) = self.bytes.split_at_checked(2)?;
        postcard::from_bytes(&sealer.open(head, sealed)?).ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn payload() -> Payload {
        Payload {
            user_id: "0123456789abcdef0123456789abcdef".into(),
            scope: Scope::Project("fedcba9876543210fedcba9876543210".into()),
            issued_us: 1_700_000_000_000_001,
            expires_s: 1_700_003_600,
            audit: [7; 16],
            chain: Some([8; 16]),
            methods: methods::PASSWORD | methods::TOKEN,
            trust_id: None,
            application_credential_id: None,
        }
    }

    #[test]
    fn a_token_opens_to_what_was_sealed_and_is_short() {
        let sealer = Sealer::from_hex(&"0f".repeat(32)).unwrap();
        let token = encode(&payload(), 3, &sealer).unwrap();
        let sealed = decode(&token).unwrap();
        assert_eq!((sealed.key_id, sealed.open(&sealer)), (3, Some(payload())));
        assert!(token.len() < 256, "{}", token.len());
    }

    #[test]
    fn what_was_changed_does_not_open() {
        let sealer = Sealer::from_hex(&"0f".repeat(32)).unwrap();
        let token = encode(&payload(), 3, &sealer).unwrap();
        for at in 0..token.len() - 1 {
            let mut other = token.clone().into_bytes();
            other[at] = if other[at] == b'A' { b'B' } else { b'A' };
            let other = String::from_utf8(other).unwrap();
            assert_eq!(decode(&other).and_then(|s| s.open(&sealer)), None, "at {at}");
        }
        assert!(decode("").is_none() && decode("not a token!").is_none());
    }

    #[test]
    fn methods_have_names() {
        assert_eq!(methods::names(payload().methods), ["password", "token"]);
    }
}
