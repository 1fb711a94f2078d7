//! Encryption at rest: what a volume with a key has on a disk, of any replica, snapshot, clone or backup, is ciphertext.
//!
//! [`xts`] is the cipher, [`keys`] where a volume's key comes from and who may open it, [`layer`] what is put between a
//! volume's users and its replicas, [`recode`] how content comes under another key. Everything below the layer (checksums,
//! replication, scrubbing, backups) sees ciphertext and knows of no key.
//!
//! A key is never logged, never in an answer of an API, and never written but under the cloud's own. Content is not
//! authenticated: who can write a disk can garble what is on it (the checksums find what rots, not who forges).

pub mod keys;
pub mod layer;
pub mod recode;
pub mod xts;

#[cfg(test)]
mod tests;
