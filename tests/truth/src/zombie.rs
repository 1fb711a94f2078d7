//! A front-end that goes on after another guest has its volume: its node was frozen or cut off, and knows nothing of it.
//! Nothing of what it asks for may be told as done, nor be seen by anybody. The model does not know its writes.

use std::time::{Duration, Instant};

use crate::dice::Dice;
use crate::front_end::{Data, FLUSH, Guest, OUT};
use crate::model::Model;
use crate::stamp::{SECTOR, stamp};

/// Its requests under way at most.
const DEPTH: usize = 8;
/// Sectors of the longest.
const LONGEST: u64 = 64;
/// How long it rests between two.
const REST: Duration = Duration::from_millis(1);

/// The front-end.
pub struct Zombie {
    guest: Guest,
    slots: Vec<Slot>,
    dice: Option<Dice>,
    asked: Instant,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Slot {
    Free,
    /// Asked for when the volume was still its own: done or not.
    Earlier,
    Write,
    Flush,
}

impl Zombie {
    /// One whose guest is no more, with the slots that had requests under way. It asks for nothing yet.
    pub fn new(guest: Guest, under_way: impl Iterator<Item = bool>) -> Zombie {
        let slots = under_way.map(|is| if is { Slot::Earlier } else { Slot::Free }).collect();
        Zombie { guest, slots, dice: None, asked: Instant::now() }
    }

    /// Another guest is served: from now on it writes.
    pub fn rise(&mut self, dice: Dice) {
        self.dice.get_or_insert(dice);
    }

    /// Goes on; answers how many writes it has asked for, or what it was told and must not be.
    pub fn step(&mut self, model: &mut Model) -> Result<u64, String> {
        for (head, _) in self.guest.completed() {
            let slot = head / 3;
            let Some(was) = self.slots.get_mut(usize::from(slot)) else { continue };
            let was = std::mem::replace(was, Slot::Free);
            let what = match was {
                Slot::Write => "write",
                Slot::Flush => "flush",
                Slot::Free | Slot::Earlier => continue,
            };
            if self.guest.status(slot) == 0 {
                return Err(format!("a {what} was told as done to a front-end whose volume another has"));
            }
        }
        let count = self.slots.iter().filter(|slot| matches!(slot, Slot::Write | Slot::Flush)).count();
        let free = self.slots.iter().position(|slot| *slot == Slot::Free);
        let (Some(dice), Some(slot)) = (&mut self.dice, free) else { return Ok(0) };
        if count >= DEPTH || self.asked.elapsed() < REST {
            return Ok(0);
        }
        self.asked = Instant::now();
        if dice.percent(10) {
            self.guest.submit(slot as u16, FLUSH, 0, &Data::None);
            self.slots[slot] = Slot::Flush;
        } else {
            let len = dice.of(1..LONGEST + 1);
            let start = dice.of(0..model.sectors() - len) / 8 * 8;
            let (write, mut bytes) = (model.number(), vec![0; len as usize * SECTOR]);
            for (sector, bytes) in (start..).zip(bytes.chunks_exact_mut(SECTOR)) {
                stamp(bytes, sector, write);
            }
            self.guest.submit(slot as u16, OUT, start, &Data::Out(&bytes));
            self.slots[slot] = Slot::Write;
        }
        self.guest.kick();
        Ok(1)
    }
}
