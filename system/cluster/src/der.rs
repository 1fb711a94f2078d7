//! Bytes of certificates and keys as records and messages hold them: hex in JSON, plain in postcard.

use std::fmt;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// Some DER. Its content is not shown in logs, since it may be a key.
#[derive(Clone, PartialEq, Eq)]
pub struct Der(pub Vec<u8>);

impl fmt::Debug for Der {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Der({} bytes)", self.0.len())
    }
}

impl Serialize for Der {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        if serializer.is_human_readable() {
            serializer.serialize_str(&hex::encode(&self.0))
        } else {
            serializer.serialize_bytes(&self.0)
        }
    }
}

impl<'de> Deserialize<'de> for Der {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Der, D::Error> {
        if deserializer.is_human_readable() {
            let text = String::deserialize(deserializer)?;
            hex::decode(text).map(Der).map_err(serde::de::Error::custom)
        } else {
            <&[u8]>::deserialize(deserializer).map(|bytes| Der(bytes.to_vec()))
        }
    }
}
