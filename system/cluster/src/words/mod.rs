//! Four words that two people compare: a short authentication string of 44 bits.
//!
//! The list is that of BIP 39 (English, 2048 words, no two alike in their first four letters), Copyright (c) 2013
//! its authors, under the MIT licence; `english.txt` is that list unchanged.

use std::fmt;
use std::str::FromStr;
use std::sync::LazyLock;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

static LIST: LazyLock<Vec<&'static str>> = LazyLock::new(|| include_str!("english.txt").lines().collect());

/// Bits of one word.
const BITS: u32 = 11;

/// Four words. Written with spaces between them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Words([u16; 4]);

impl Words {
    /// The words of the first 44 bits of these.
    pub fn of(bytes: [u8; 8]) -> Words {
        let bits = u64::from_be_bytes(bytes);
        Words([0, 1, 2, 3].map(|turn| (bits >> (64 - BITS * (turn + 1)) & 0x7ff) as u16))
    }
}

impl fmt::Display for Words {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let words: Vec<_> = self.0.iter().filter_map(|n| LIST.get(usize::from(*n)).copied()).collect();
        f.write_str(&words.join(" "))
    }
}

/// A text that is not four words of the list.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("not four words of the list")]
pub struct NotWords;

impl FromStr for Words {
    type Err = NotWords;

    /// Takes them in any case, with any space or hyphens between.
    fn from_str(text: &str) -> Result<Words, NotWords> {
        let text = text.to_lowercase();
        let parts = text.split(|c: char| c.is_whitespace() || c == '-').filter(|part| !part.is_empty());
        let numbers: Option<Vec<u16>> =
            parts.map(|word| LIST.binary_search(&word).ok().and_then(|n| u16::try_from(n).ok())).collect();
        numbers.and_then(|n| n.try_into().ok()).map(Words).ok_or(NotWords)
    }
}

impl Serialize for Words {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Words {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Words, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(serde::de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn the_list_is_whole_sorted_and_told_apart_by_four_letters() {
        assert_eq!(LIST.len(), 2048);
        assert!(LIST.is_sorted());
        let heads: std::collections::BTreeSet<_> = LIST.iter().map(|w| &w[..w.len().min(4)]).collect();
        assert_eq!(heads.len(), 2048);
    }

    #[test]
    fn they_are_read_as_people_type_them() {
        assert_eq!(Words::of([0; 8]).to_string(), "abandon abandon abandon abandon");
        assert_eq!(Words::of([0xff; 8]).to_string(), "zoo zoo zoo zoo");
        assert_eq!("Zoo-zoo  zoo\tZOO".parse(), Ok(Words::of([0xff; 8])));
        for bad in ["", "zoo zoo zoo", "zoo zoo zoo zoo zoo", "zoo zoo zoo zooo"] {
            assert_eq!(bad.parse::<Words>(), Err(NotWords));
        }
    }

    proptest! {
        #[test]
        fn words_read_back_and_hold_44_bits(bytes: [u8; 8], flip in 0..64u32) {
            let words = Words::of(bytes);
            prop_assert_eq!(words.to_string().parse(), Ok(words));
            let other = Words::of((u64::from_be_bytes(bytes) ^ (1 << (63 - flip))).to_be_bytes());
            prop_assert_eq!(other != words, flip < 44);
        }
    }
}
