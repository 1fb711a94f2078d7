//! cairn-network
