//! Distributions by what they are of, where requests choose that: a table of a bounded size for each worker. Its one writer pays
//! no lock and no atomic read-modify-write; who reads it meanwhile sees each number as it was a moment ago.

use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, Ordering, fence};
use std::time::Duration;

use pilotfish_filters::clock::Micros;
use pilotfish_filters::trace::{SpanId, TraceId};

use super::Counter;
use super::family::{Distribution, Exemplar, Unit};

/// The most buckets that a distribution has.
const BUCKETS: usize = 17;

/// What a distribution is of: numbers of a few bits each, one behind the other. The lowest bit says that it is the one that all
/// share who came too late for one of their own.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Key(u64);

impl Key {
    /// Of this kind, which says nothing else if there is no room for more; 0 to 15.
    pub const fn of(kind: u8) -> Key {
        Key(kind as u64)
    }

    /// With one more number, of so many bits.
    #[must_use]
    pub const fn with(self, bits: u32, number: u64) -> Key {
        Key((self.0 << bits) | (number & ((1 << bits) - 1)))
    }

    /// Takes the number that came last.
    pub fn take(&mut self, bits: u32) -> u64 {
        let number = self.0 & ((1 << bits) - 1);
        self.0 >>= bits;
        number
    }

    fn spread(self) -> usize {
        let mixed = self.0.wrapping_mul(0x9e37_79b9_7f4a_7c15);
        (mixed ^ (mixed >> 32)) as usize
    }
}

/// What is said beside a value, of a call whose trace is kept.
#[derive(Debug, Clone, Copy)]
pub struct Traced {
    /// The trace.
    pub trace: TraceId,
    /// The span.
    pub span: SpanId,
    /// When, by the process's clock.
    pub at: Micros,
}

/// A worker's distributions of one sort.
#[derive(Debug)]
pub struct Table {
    most: usize,
    count: Counter,
    /// Allocated with the first value; twice as many as there may be, so that a search is short.
    places: OnceLock<Box<[Place]>>,
}

type Place = OnceLock<Box<Series>>;

#[derive(Debug)]
struct Series {
    key: Key,
    shared: bool,
    bounds: &'static [u64],
    counts: [Counter; BUCKETS],
    sum: Counter,
    exemplars: OnceLock<Box<[Kept; BUCKETS]>>,
}

impl Table {
    /// For at most so many, and one for each kind that the others of it share.
    pub const fn new(most: usize) -> Table {
        Table { most, count: Counter(AtomicU64::new(0)), places: OnceLock::new() }
    }

    /// Counts a value; `bounds` (at most 16) are those of its kind. When there is no room, it counts for `kind`. Only the thread
    /// that owns the table may call this.
    pub fn record(&self, key: Key, kind: Key, bounds: &'static [u64], value: u64, traced: Option<Traced>) {
        let Some(series) = self.series(key, kind, bounds) else { return };
        let bucket = series.bounds.iter().position(|bound| value <= *bound).unwrap_or(series.bounds.len());
        let bucket = bucket.min(BUCKETS - 1);
        series.counts[bucket].add(1);
        series.sum.add(value);
        if let Some(traced) = traced {
            let all = series.exemplars.get_or_init(|| Box::new(std::array::from_fn(|_| Kept::default())));
            all[bucket].set(&traced, value);
        }
    }

    fn series(&self, key: Key, kind: Key, bounds: &'static [u64]) -> Option<&Series> {
        let places = self
            .places
            .get_or_init(|| (0..(2 * self.most).next_power_of_two()).map(|_| Place::new()).collect());
        if let Some(known) = find(places, key, false, |place| place.get()) {
            return Some(known);
        }
        let (key, shared) = if self.count.get() < self.most as u64 {
            self.count.add(1);
            (key, false)
        } else {
            (kind, true)
        };
        find(places, key, shared, |place| {
            Some(place.get_or_init(|| {
                Box::new(Series {
                    key,
                    shared,
                    bounds,
                    counts: std::array::from_fn(|_| Counter::default()),
                    sum: Counter::default(),
                    exemplars: OnceLock::new(),
                })
            }))
        })
    }

    /// Each distribution as it is now, as if of microseconds, with whether it is one that is shared. `epoch`: when the process's
    /// clock was 0, since 1970.
    pub fn each(&self, epoch: Duration, mut tell: impl FnMut(Key, bool, Distribution)) {
        let places = self.places.get().map(|places| &places[..]).unwrap_or_default();
        for series in places.iter().filter_map(|place| place.get()) {
            let mut values = Distribution::new(Unit::Micros, series.bounds);
            for (own, count) in values.counts.iter_mut().zip(&series.counts) {
                *own = count.get();
            }
            values.sum = series.sum.get();
            if let Some(kept) = series.exemplars.get() {
                values.exemplars = kept[..values.counts.len()].iter().map(|one| one.get(epoch)).collect();
            }
            tell(series.key, series.shared, values);
        }
    }
}

/// The place of a key, or what `empty` makes of the first that is free.
fn find<'t>(
    places: &'t [Place],
    key: Key,
    shared: bool,
    empty: impl Fn(&'t Place) -> Option<&'t Box<Series>>,
) -> Option<&'t Series> {
    let mask = places.len() - 1;
    let start = key.spread();
    for step in 0..places.len() {
        let place = &places[(start + step) & mask];
        match place.get() {
            Some(series) if series.key == key && series.shared == shared => return Some(series),
            Some(_) => {}
            None => return empty(place).map(|series| &**series),
        }
    }
    None
}

/// An exemplar that one thread writes and others read: a reader that meets the writer sees none.
#[derive(Debug, Default)]
struct Kept {
    /// Odd while it is written; 0: there is none yet.
    turn: AtomicU64,
    words: [AtomicU64; 5],
}

impl Kept {
    fn set(&self, traced: &Traced, value: u64) {
        let turn = self.turn.load(Ordering::Relaxed);
        self.turn.store(turn.wrapping_add(1), Ordering::Relaxed);
        fence(Ordering::Release);
        let trace = u128::from_be_bytes(traced.trace.0);
        let words =
            [(trace >> 64) as u64, trace as u64, u64::from_be_bytes(traced.span.0), value, traced.at.0];
        for (place, word) in self.words.iter().zip(words) {
            place.store(word, Ordering::Relaxed);
        }
        self.turn.store(turn.wrapping_add(2), Ordering::Release);
    }

    fn get(&self, epoch: Duration) -> Option<Exemplar> {
        let before = self.turn.load(Ordering::Acquire);
        if before == 0 || before % 2 == 1 {
            return None;
        }
        let [high, low, span, value, at] = std::array::from_fn(|n| self.words[n].load(Ordering::Relaxed));
        fence(Ordering::Acquire);
        (self.turn.load(Ordering::Relaxed) == before).then(|| Exemplar {
            trace: TraceId((u128::from(high) << 64 | u128::from(low)).to_be_bytes()),
            span: SpanId(span.to_be_bytes()),
            value,
            at: epoch + Duration::from_micros(at),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const BOUNDS: [u64; 2] = [10, 100];

    fn all(table: &Table) -> Vec<(Key, bool, Distribution)> {
        let mut found = Vec::new();
        table.each(Duration::from_secs(1000), |key, shared, values| {
            found.push((key, shared, values));
        });
        found.sort_by_key(|(key, shared, _)| (*shared, *key));
        found
    }

    #[test]
    fn numbers_come_out_of_a_key_as_they_went_in() {
        let mut key = Key::of(3).with(10, 1023).with(1, 0).with(8, 77);
        assert_eq!((key.take(8), key.take(1), key.take(10), key), (77, 0, 1023, Key::of(3)));
    }

    #[test]
    fn nothing_is_allocated_before_the_first_value() {
        let table = Table::new(512);
        assert!(all(&table).is_empty() && table.places.get().is_none());
    }

    #[test]
    fn keys_without_end_share_one_place_for_each_kind() {
        let table = Table::new(64);
        for n in 0..100_000_u64 {
            let kind = Key::of((n % 2) as u8);
            table.record(kind.with(32, n + 1), kind, &BOUNDS, n % 200, None);
        }
        let found = all(&table);
        assert_eq!(found.len(), 66);
        assert_eq!(found.iter().filter(|(_, shared, _)| *shared).count(), 2);
        assert_eq!(found.iter().map(|(.., values)| values.count()).sum::<u64>(), 100_000);
        assert_eq!(table.places.get().unwrap().len(), 128);
    }

    #[test]
    fn a_value_at_a_bound_is_within_it_and_its_exemplar_beside_it() {
        let table = Table::new(4);
        let key = Key::of(1);
        let traced = Traced { trace: TraceId([7; 16]), span: SpanId([8; 8]), at: Micros(2_500_000) };
        table.record(key, key, &BOUNDS, 10, None);
        table.record(key, key, &BOUNDS, 11, Some(traced));
        table.record(key, key, &BOUNDS, 101, None);
        let (_, _, values) = all(&table).remove(0);
        assert_eq!((values.counts, values.sum), (vec![1, 1, 1], 122));
        let kept = Exemplar {
            trace: TraceId([7; 16]),
            span: SpanId([8; 8]),
            value: 11,
            at: Duration::from_micros(1_002_500_000),
        };
        assert_eq!(values.exemplars, [None, Some(kept), None]);
    }

    #[test]
    fn a_reader_never_sees_half_an_exemplar() {
        let table = Table::new(4);
        let key = Key::of(1);
        let done = std::sync::atomic::AtomicBool::new(false);
        std::thread::scope(|scope| {
            let reader = scope.spawn(|| {
                let mut seen = 0;
                while !done.load(Ordering::Relaxed) || seen == 0 {
                    for (_, _, values) in all(&table) {
                        for one in values.exemplars.into_iter().flatten() {
                            let n = one.trace.0[0];
                            assert_eq!((one.trace.0, one.span.0, one.value), ([n; 16], [n; 8], u64::from(n)));
                            seen += 1;
                        }
                    }
                }
            });
            for n in 0..200_000_u32 {
                let n = (n % 250) as u8;
                let traced = Traced { trace: TraceId([n; 16]), span: SpanId([n; 8]), at: Micros(0) };
                table.record(key, key, &[255], u64::from(n), Some(traced));
            }
            done.store(true, Ordering::Relaxed);
            reader.join().unwrap();
        });
    }
}
