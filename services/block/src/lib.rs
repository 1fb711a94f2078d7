//! cairn-block
