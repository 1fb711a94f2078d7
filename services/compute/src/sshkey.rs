//! SSH keys: fingerprints of public ones, and new Ed25519 pairs in OpenSSH's own file form (PROTOCOL.key).
//!
//! A private key goes to its caller and nowhere else: it is never stored and never logged.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use md5::{Digest, Md5};
use ring::rand::{SecureRandom, SystemRandom};
use ring::signature::{Ed25519KeyPair, KeyPair};

/// A new pair.
pub struct Made {
    /// The public half, as in `authorized_keys`.
    pub public: String,
    /// The private half, as a file.
    pub private: String,
}

const KIND: &[u8] = b"ssh-ed25519";
/// The padding of an unencrypted key is to this many bytes.
const BLOCK: usize = 8;

/// Makes a pair.
pub fn generate(comment: &str) -> Result<Made, &'static str> {
    let rng = SystemRandom::new();
    let mut seed = [0u8; 32];
    let mut check = [0u8; 4];
    rng.fill(&mut seed).and_then(|()| rng.fill(&mut check)).map_err(|_| "no random numbers")?;
    let pair = Ed25519KeyPair::from_seed_unchecked(&seed).map_err(|_| "no key from this seed")?;
    let public = pair.public_key().as_ref();
    let blob = [string(KIND), string(public)].concat();
    let line = format!("ssh-ed25519 {} {comment}", STANDARD.encode(&blob));
    Ok(Made { private: file(&blob, public, &seed, check, comment), public: line })
}

/// A length and the bytes themselves, as SSH has them (RFC 4251, section 5).
fn string(bytes: &[u8]) -> Vec<u8> {
    [&(bytes.len() as u32).to_be_bytes(), bytes].concat()
}

fn file(blob: &[u8], public: &[u8], seed: &[u8], check: [u8; 4], comment: &str) -> String {
    let secret = [seed, public].concat();
    let mut inner = [
        check.to_vec(),
        check.to_vec(),
        string(KIND),
        string(public),
        string(&secret),
        string(comment.as_bytes()),
    ]
    .concat();
    let mut pad = 1u8;
    while inner.len() % BLOCK != 0 {
        inner.push(pad);
        pad += 1;
    }
    let whole = [
        b"openssh-key-v1\0".to_vec(),
        string(b"none"),
        string(b"none"),
        string(b""),
        1u32.to_be_bytes().to_vec(),
        string(blob),
        string(&inner),
    ]
    .concat();
    let text = STANDARD.encode(whole);
    let lines: Vec<_> = text.as_bytes().chunks(70).map(|l| String::from_utf8_lossy(l).into_owned()).collect();
    format!("-----BEGIN OPENSSH PRIVATE KEY-----\n{}\n-----END OPENSSH PRIVATE KEY-----\n", lines.join("\n"))
}

/// The MD5 fingerprint of a public key, in pairs of hex digits with colons; none if it is not a public key.
pub fn fingerprint(public_key: &str) -> Option<String> {
    let mut words = public_key.split_whitespace();
    let (kind, text) = (words.next()?, words.next()?);
    let blob = STANDARD.decode(text).ok()?;
    // The blob repeats its kind; if it does not, this is something else.
    let (length, rest) = blob.split_first_chunk::<4>()?;
    let length = u32::from_be_bytes(*length) as usize;
    if rest.get(..length)? != kind.as_bytes() || rest.len() <= length {
        return None;
    }
    let pairs: Vec<_> = Md5::digest(&blob).iter().map(|b| format!("{b:02x}")).collect();
    Some(pairs.join(":"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_new_pair_has_two_halves_of_one_key() {
        let made = generate("me@here").unwrap();
        assert!(made.public.starts_with("ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAI"));
        assert!(made.private.lines().all(|l| l.len() <= 70));
        let blob = STANDARD.decode(made.public.split(' ').nth(1).unwrap()).unwrap();
        let body: String = made.private.lines().filter(|l| !l.starts_with('-')).collect();
        let file = STANDARD.decode(body).unwrap();
        assert!(file.windows(blob.len()).any(|w| w == blob));
        assert_eq!(fingerprint(&made.public).unwrap().len(), 47);
    }

    #[test]
    fn what_is_no_key_has_no_fingerprint() {
        for bad in [
            "",
            "ssh-rsa",
            "ssh-rsa JUNK nova@ubuntu",
            "ssh-rsa AAAA",
            "ssh-dss AAAAC3NzaC1lZDI1NTE5AAAAIA==",
        ] {
            assert_eq!(fingerprint(bad), None, "{bad}");
        }
        let known = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIAABAgMEBQYHCAkKCwwNDg8QERITFBUWFxgZGhscHR4f x";
        assert_eq!(fingerprint(known).map(|f| f.len()), Some(47));
    }
}
