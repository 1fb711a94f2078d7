//! Which parts of a volume are meant: regions, the unit in which replicas are compared and copied, and areas, the
//! unit in which a replica remembers that it was written. Sets of either. Pure.

use std::ops::Range;

/// Bytes of a region.
pub const REGION: u64 = 1 << 20;
/// Bytes of an area: a mark costs a sync of the disk, so it covers more than what is written next.
pub const AREA: u64 = 16 << 20;
/// Regions per area.
const REGIONS_PER_AREA: u64 = AREA / REGION;

/// How many regions a volume of `size` bytes has.
pub fn regions_of(size: u64) -> u64 {
    size.div_ceil(REGION)
}

/// The units of `unit` bytes that a range of bytes touches.
pub fn units(range: &Range<u64>, unit: u64) -> Range<u64> {
    if range.is_empty() {
        return 0..0;
    }
    range.start / unit..(range.end - 1) / unit + 1
}

/// A set of small numbers. Cheap to ask, to change, and to find the first of.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Marks {
    words: Vec<u64>,
    count: u64,
}

impl Marks {
    /// All numbers below `end`.
    pub fn all(end: u64) -> Marks {
        let mut marks = Marks::default();
        marks.insert_range(0..end);
        marks
    }

    /// Reads what [`Marks::to_bytes`] wrote.
    pub fn from_bytes(bytes: &[u8]) -> Marks {
        let mut marks = Marks::default();
        for (at, byte) in (0u64..).zip(bytes) {
            marks.extend((0..8).filter(|bit| byte >> bit & 1 == 1).map(|bit| at * 8 + bit));
        }
        marks
    }

    /// One bit per number, the lowest first.
    pub fn to_bytes(&self) -> Vec<u8> {
        self.words.iter().flat_map(|word| word.to_le_bytes()).collect()
    }

    /// Adds a number; true if it was not there.
    pub fn insert(&mut self, number: u64) -> bool {
        let (word, bit) = place(number);
        if self.words.len() <= word {
            self.words.resize(word + 1, 0);
        }
        let new = self.words[word] & bit == 0;
        self.words[word] |= bit;
        self.count += u64::from(new);
        new
    }

    /// Adds all numbers of a range.
    pub fn insert_range(&mut self, range: Range<u64>) {
        self.extend(range);
    }

    /// Adds all regions of an area, of so many that there are.
    pub fn insert_area(&mut self, area: u64, regions: u64) {
        let start = area.saturating_mul(REGIONS_PER_AREA);
        self.insert_range(start..start.saturating_add(REGIONS_PER_AREA).min(regions));
    }

    /// Removes a number; true if it was there.
    pub fn remove(&mut self, number: u64) -> bool {
        let (word, bit) = place(number);
        let found = self.words.get(word).is_some_and(|w| w & bit != 0);
        if found {
            self.words[word] &= !bit;
            self.count -= 1;
        }
        found
    }

    /// Whether a number is in it.
    pub fn contains(&self, number: u64) -> bool {
        let (word, bit) = place(number);
        self.words.get(word).is_some_and(|w| w & bit != 0)
    }

    /// Whether any number of a range is in it.
    pub fn intersects(&self, mut range: Range<u64>) -> bool {
        self.count > 0 && range.any(|n| self.contains(n))
    }

    /// How many there are.
    pub fn len(&self) -> u64 {
        self.count
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.count == 0
    }

    /// The numbers, in order.
    pub fn iter(&self) -> impl Iterator<Item = u64> {
        let words = self.words.iter().zip(0u64..).filter(|(word, _)| **word != 0);
        words.flat_map(|(word, at)| {
            (0..64).filter(move |bit| word >> bit & 1 == 1).map(move |bit| at * 64 + bit)
        })
    }
}

impl Extend<u64> for Marks {
    fn extend<I: IntoIterator<Item = u64>>(&mut self, numbers: I) {
        for number in numbers {
            self.insert(number);
        }
    }
}

fn place(number: u64) -> (usize, u64) {
    ((number / 64) as usize, 1 << (number % 64))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn marks_are_a_set() {
        let mut marks = Marks::default();
        assert!(marks.insert(70) && !marks.insert(70) && marks.insert(3));
        assert_eq!(marks.iter().collect::<Vec<_>>(), [3, 70]);
        assert_eq!(Marks::from_bytes(&marks.to_bytes()), marks);
        assert!(marks.intersects(60..71) && !marks.intersects(71..200));
        assert!(marks.remove(3) && !marks.remove(3));
        assert_eq!((marks.len(), marks.is_empty()), (1, false));
        assert_eq!(Marks::all(65).len(), 65);
    }

    #[test]
    fn ranges_touch_whole_units() {
        assert_eq!(units(&(0..1), REGION), 0..1);
        assert_eq!(units(&(REGION - 1..REGION + 1), REGION), 0..2);
        assert_eq!(units(&(7..7), REGION), 0..0);
        let mut marks = Marks::default();
        marks.insert_area(1, 20);
        marks.insert_area(u64::MAX, 20);
        assert_eq!(marks.iter().collect::<Vec<_>>(), [16, 17, 18, 19]);
    }
}
