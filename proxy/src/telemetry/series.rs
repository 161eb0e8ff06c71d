//! Counters by a name that configuration brings (a rule, a cluster), at a price that a request can pay and with a
//! bound that a long-lived process can: each name has a slot, and what comes after the last slot shares one.

use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::hash::{BuildHasherDefault, Hasher};
use std::sync::{Mutex, PoisonError};

/// Slots, the shared one included.
pub const SLOTS: usize = 256;

/// The name of the slot that is shared.
const OTHER: &str = "other";

/// Where the counters of one name are, in every worker.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Slot(u8);

impl Slot {
    /// The slot that is shared by all names without one of their own.
    pub const SHARED: Slot = Slot(0);

    /// The position in a list of [`SLOTS`].
    pub fn index(self) -> usize {
        usize::from(self.0)
    }
}

/// The names that have a slot; one list for the process. A name keeps its slot, so counters never jump.
#[derive(Debug, Default)]
pub struct Names(Mutex<HashMap<Box<str>, Slot>>);

impl Names {
    /// The slot of `name`; the shared one when all others are taken. Locks: not for every request (see [`Slots::of`]).
    pub fn slot(&self, name: &str) -> Slot {
        let mut slots = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(slot) = slots.get(name) {
            return *slot;
        }
        match u8::try_from(slots.len() + 1) {
            Ok(next) => {
                slots.insert(name.into(), Slot(next));
                Slot(next)
            }
            Err(_) => Slot::SHARED,
        }
    }

    /// The names by slot, for telling and not for requests.
    pub fn list(&self) -> Vec<Box<str>> {
        let slots = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let mut names = vec![Box::from(OTHER); slots.len() + 1];
        for (name, slot) in slots.iter() {
            if let Some(place) = names.get_mut(slot.index()) {
                *place = name.clone();
            }
        }
        names
    }
}

/// One worker's memory of slots: a name of the plan that it serves is found by its address, without reading it.
#[derive(Debug, Default)]
pub struct Slots {
    version: Cell<u64>,
    known: RefCell<HashMap<usize, Slot, BuildHasherDefault<AddressHasher>>>,
}

impl Slots {
    /// The slot of `name`, which is part of the plan of that snapshot version.
    pub fn of(&self, names: &Names, version: u64, name: &str) -> Slot {
        let mut known = self.known.borrow_mut();
        if self.version.replace(version) != version {
            known.clear();
        }
        *known.entry(name.as_ptr().addr()).or_insert_with(|| names.slot(name))
    }
}

/// As [`Slots`], for names that have a number within their plan (rules): one byte pair each in a row, so that ten thousand
/// of them stay in the nearest caches.
#[derive(Debug, Default)]
pub struct NumberedSlots {
    version: Cell<u64>,
    /// 0: not looked up yet; else the slot's position and one more.
    known: RefCell<Vec<u16>>,
}

impl NumberedSlots {
    /// The slot of `name`, which has this number in the plan of that snapshot version.
    pub fn of(&self, names: &Names, version: u64, number: u32, name: &str) -> Slot {
        let mut known = self.known.borrow_mut();
        if self.version.replace(version) != version {
            known.clear();
        }
        let at = number as usize;
        if at >= known.len() {
            known.resize(at + 1, 0);
        }
        if let Some(slot) = known[at].checked_sub(1) {
            return Slot(slot as u8);
        }
        let slot = names.slot(name);
        known[at] = u16::from(slot.0) + 1;
        slot
    }
}

/// As [`Slots`], for names that calls bring: known by their text, up to a bound.
#[derive(Debug, Default)]
pub struct TextSlots(RefCell<HashMap<Box<str>, Slot, BuildHasherDefault<AddressHasher>>>);

impl TextSlots {
    /// Texts that a worker remembers: those with a slot, and the first others.
    const MOST: usize = 4 * SLOTS;

    /// The slot of `name`.
    pub fn of(&self, names: &Names, name: &str) -> Slot {
        let mut known = self.0.borrow_mut();
        if let Some(slot) = known.get(name) {
            return *slot;
        }
        if known.len() >= TextSlots::MOST {
            return Slot::SHARED;
        }
        let slot = names.slot(name);
        known.insert(name.into(), slot);
        slot
    }
}

/// Addresses are spread by one multiplication (Fibonacci hashing).
#[derive(Debug, Default)]
struct AddressHasher(u64);

impl Hasher for AddressHasher {
    fn write(&mut self, bytes: &[u8]) {
        for byte in bytes {
            self.0 = (self.0 ^ u64::from(*byte)).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        }
    }

    fn write_usize(&mut self, address: usize) {
        self.0 = (address as u64).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        self.0 ^= self.0 >> 32;
    }

    fn finish(&self) -> u64 {
        self.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_keeps_its_slot_over_versions_and_workers() {
        let names = Names::default();
        let (first, second) = (Slots::default(), Slots::default());
        let (a, b) = ("default/a/0".to_owned(), "default/b/0".to_owned());
        let slot = first.of(&names, 1, &a);
        assert_ne!(first.of(&names, 1, &b), slot);
        assert_eq!(first.of(&names, 1, &a), slot);
        let a_again = a.clone();
        assert_eq!(second.of(&names, 2, &a_again), slot);
        assert_eq!(first.of(&names, 2, &a_again), slot);
        assert_eq!(names.list(), [Box::from("other"), Box::from(&*a), Box::from(&*b)]);
    }

    #[test]
    fn a_number_means_its_name_in_its_own_plan_only() {
        let (names, slots) = (Names::default(), NumberedSlots::default());
        let first = slots.of(&names, 1, 7, "a");
        assert_eq!((slots.of(&names, 1, 7, "a"), names.slot("a")), (first, first));
        assert_eq!(slots.of(&names, 2, 7, "b"), names.slot("b"));
        assert_eq!(slots.of(&names, 2, 0, "a"), first);
    }

    #[test]
    fn an_address_that_another_name_had_in_an_older_plan_is_not_believed() {
        let names = Names::default();
        let slots = Slots::default();
        let name = "b".to_owned();
        names.slot("a");
        slots.known.borrow_mut().insert(name.as_ptr().addr(), names.slot("a"));
        assert_eq!(slots.of(&names, 1, &name), names.slot("b"));
    }

    #[test]
    fn a_worker_remembers_no_more_texts_than_its_bound() {
        let (names, slots) = (Names::default(), TextSlots::default());
        let first = slots.of(&names, "model-0");
        for n in 0..10_000 {
            slots.of(&names, &format!("model-{n}"));
        }
        assert_eq!((slots.of(&names, "model-0"), slots.of(&names, "model-9999")), (first, Slot::SHARED));
        assert_eq!((slots.0.borrow().len(), names.list().len()), (TextSlots::MOST, SLOTS));
    }

    #[test]
    fn names_without_end_share_the_last_place() {
        let names = Names::default();
        let slots: Vec<Slot> = (0..1000).map(|n| names.slot(&n.to_string())).collect();
        assert_eq!(slots[SLOTS - 2].index(), SLOTS - 1);
        assert!(slots[SLOTS - 1..].iter().all(|slot| *slot == Slot::SHARED));
        assert_eq!(names.slot("3"), slots[3]);
        assert_eq!(names.list().len(), SLOTS);
    }
}
