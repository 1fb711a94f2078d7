//! Sealing with AES-256-GCM, and random bytes. Holds keys in memory; never logs them or what they seal.

use cairn_gateway::ApiError;
use ring::aead::{AES_256_GCM, Aad, LessSafeKey, NONCE_LEN, Nonce, UnboundKey};
use ring::rand::{SecureRandom, SystemRandom};

/// A key ready for use.
pub struct Sealer(LessSafeKey);

impl Sealer {
    /// Takes 32 bytes in hex.
    pub fn from_hex(secret: &str) -> Result<Sealer, ApiError> {
        let bytes = hex::decode(secret).map_err(|_| ApiError::internal("a key is not hex"))?;
        let key = UnboundKey::new(&AES_256_GCM, &bytes);
        key.map(|k| Sealer(LessSafeKey::new(k))).map_err(|_| ApiError::internal("a key is not of 32 bytes"))
    }

    /// Nonce, ciphertext and tag. The nonce is random: a key may seal 2^32 messages before a repeat is likely,
    /// so keys are rotated long before. `aad` is bound to the message but not part of it.
    pub fn seal(&self, aad: &[u8], plain: &[u8]) -> Result<Vec<u8>, ApiError> {
        let nonce: [u8; NONCE_LEN] = random()?;
        let mut sealed = plain.to_vec();
        self.0
            .seal_in_place_append_tag(Nonce::assume_unique_for_key(nonce), Aad::from(aad), &mut sealed)
            .map_err(|_| ApiError::internal("sealing failed"))?;
        Ok([&nonce[..], &sealed].concat())
    }

    /// The message, if it was sealed with this key and `aad`.
    pub fn open(&self, aad: &[u8], sealed: &[u8]) -> Option<Vec<u8>> {
        let (nonce, rest) = sealed.split_at_checked(NONCE_LEN)?;
        let nonce = Nonce::try_assume_unique_for_key(nonce).ok()?;
        let mut buffer = rest.to_vec();
        let length = self.0.open_in_place(nonce, Aad::from(aad), &mut buffer).ok()?.len();
        buffer.truncate(length);
        Some(buffer)
    }
}

/// Random bytes from the kernel.
pub fn random<const N: usize>() -> Result<[u8; N], ApiError> {
    let mut bytes = [0; N];
    SystemRandom::new().fill(&mut bytes).map_err(|_| ApiError::internal("no random bytes"))?;
    Ok(bytes)
}

/// SHA-256.
pub fn sha256(bytes: &[u8]) -> [u8; 32] {
    let mut out = [0; 32];
    out.copy_from_slice(ring::digest::digest(&ring::digest::SHA256, bytes).as_ref());
    out
}

/// Whether two secrets are the same, in a time that does not tell where they differ.
pub fn same(a: &[u8], b: &[u8]) -> bool {
    // Of digests, so that neither the length nor the place of a difference shows.
    let (a, b) = (sha256(a), sha256(b));
    a.iter().zip(&b).fold(0, |d, (x, y)| d | (x ^ y)) == 0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_same_key_and_context_open_an_unchanged_message() {
        let (a, b) =
            (Sealer::from_hex(&"a1".repeat(32)).unwrap(), Sealer::from_hex(&"b2".repeat(32)).unwrap());
        let mut sealed = a.seal(b"ctx", b"secret").unwrap();
        assert_eq!(a.open(b"ctx", &sealed).unwrap(), b"secret");
        assert_eq!(a.open(b"other", &sealed), None);
        assert_eq!(b.open(b"ctx", &sealed), None);
        assert_eq!(a.open(b"ctx", &sealed[..5]), None);
        *sealed.last_mut().unwrap() ^= 1;
        assert_eq!(a.open(b"ctx", &sealed), None);
    }
}
