//! cairn-identity
