//! cairn-wire
