//! cairn-shards
