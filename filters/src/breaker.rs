//! The breaker of one endpoint: closed, open, probing (Linkerd's unified breaker).
//!
//! ```text
//! closed --7 failures in a row, or under 80 % of at least 5 succeed in 10 s--> open
//! open   --its time is over: 1 s, twice as long each time, 60 s at most------> probing: one live call
//! probing --it succeeds--> closed        probing --it fails, or 429--> open, for longer
//! probing --it ends without a result--> open, with its time over
//! ```
//!
//! The state is one word, so each step is one compare-and-swap and happens once, however many workers try. Its number
//! (`generation`) grows with every step: a call that began before a step has no say after it.

use std::sync::atomic::{AtomicU32, AtomicU64, Ordering::Relaxed, Ordering::SeqCst};
use std::time::Duration;

use pilotfish_config::model::CircuitBreaker;

use crate::clock::Micros;
use crate::endpoint::Outcome;

/// The window is cut into this many parts (Linkerd's).
const BUCKETS: usize = 10;
/// A time open is longer by up to this share of itself, by chance (Linkerd's).
const JITTER: f64 = 0.5;

/// Where a breaker stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum State {
    /// Calls pass and are counted.
    Closed,
    /// No call passes.
    Open,
    /// One call is under way whose end decides.
    Probing,
}

/// A step that a breaker took.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Step {
    /// It opened, for the first time or again.
    Opened,
    /// A probe set out.
    Probing,
    /// It closed.
    Closed,
}

/// What a call may do by the breaker, and what it is told by when it ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Ticket {
    generation: u16,
    /// Whether it is the probe.
    pub probe: bool,
}

/// One endpoint's breaker. Whether it does anything is its policy's business, which a configuration may change.
#[derive(Debug)]
pub struct Breaker {
    word: AtomicU64,
    /// Failures in a row.
    streak: AtomicU32,
    /// The part of time in which a call last went badly; see [`slot`].
    last_bad: AtomicU32,
    buckets: [AtomicU64; BUCKETS],
}

impl Default for Breaker {
    fn default() -> Breaker {
        Breaker {
            word: AtomicU64::new(0),
            streak: AtomicU32::new(0),
            last_bad: AtomicU32::new(0),
            buckets: Default::default(),
        }
    }
}

/// The state word, taken apart: 2 bits, 6 bits, 16 bits, 40 bits (34 years).
#[derive(Debug, Clone, Copy)]
struct Word {
    state: State,
    doublings: u8,
    generation: u16,
    until_ms: u64,
}

impl Word {
    fn unpack(word: u64) -> Word {
        let state = match word >> 62 {
            0 => State::Closed,
            1 => State::Open,
            _ => State::Probing,
        };
        Word {
            state,
            doublings: (word >> 56) as u8 & 0x3f,
            generation: (word >> 40) as u16,
            until_ms: word & 0xff_ffff_ffff,
        }
    }

    fn pack(self) -> u64 {
        (self.state as u64) << 62
            | u64::from(self.doublings & 0x3f) << 56
            | u64::from(self.generation) << 40
            | self.until_ms & 0xff_ffff_ffff
    }

    fn step(self, state: State) -> Word {
        Word { state, generation: self.generation.wrapping_add(1), ..self }
    }

    fn is_over(self, now: Micros) -> bool {
        now.0 / 1000 >= self.until_ms
    }
}

/// How a call counts.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Judged {
    Good,
    /// 429: it counts in the rate only, and a probe that gets it has failed (Linkerd's).
    Limited,
    Bad,
}

impl Judged {
    fn of(outcome: Outcome) -> Judged {
        match outcome {
            Outcome::Answered(429) => Judged::Limited,
            _ if outcome.is_failure() => Judged::Bad,
            _ => Judged::Good,
        }
    }
}

impl Breaker {
    /// Where it stands.
    pub fn state(&self) -> State {
        self.load().state
    }

    /// Whether a call may pass now: it is closed, or its time is over and nobody probes yet.
    pub fn admits(&self, now: Micros) -> bool {
        let word = self.load();
        match word.state {
            State::Closed => true,
            State::Open => word.is_over(now),
            State::Probing => false,
        }
    }

    /// How long it still lets nobody pass; zero when it is closed or its time is over.
    pub fn left(&self, now: Micros) -> Duration {
        let word = self.load();
        match word.state {
            State::Closed => Duration::ZERO,
            _ => Micros(word.until_ms * 1000).since(now),
        }
    }

    /// A call's ticket; `None`: it must not pass. When this breaker's time is over, exactly one call gets the probe.
    pub fn enter(&self, now: Micros) -> Option<Ticket> {
        loop {
            let word = self.load();
            match word.state {
                State::Closed => return Some(Ticket { generation: word.generation, probe: false }),
                State::Open if word.is_over(now) => {
                    let probing = word.step(State::Probing);
                    if self.swap(word, probing) {
                        return Some(Ticket { generation: probing.generation, probe: true });
                    }
                }
                State::Open | State::Probing => return None,
            }
        }
    }

    /// Learns from a call, and says which step that made. `chance` is any number: it draws the jitter.
    pub fn record(
        &self,
        policy: &CircuitBreaker,
        ticket: Ticket,
        now: Micros,
        outcome: Outcome,
        chance: u32,
    ) -> Option<Step> {
        let judged = Judged::of(outcome);
        let word = self.load();
        if word.generation != ticket.generation {
            return None;
        }
        if ticket.probe {
            let step = match judged {
                Judged::Good => Step::Closed,
                Judged::Limited | Judged::Bad => Step::Opened,
            };
            let next = match step {
                Step::Closed => {
                    self.forget();
                    Word { doublings: 0, until_ms: 0, ..word.step(State::Closed) }
                }
                _ => opened(policy, word, word.doublings.saturating_add(1).min(63), now, chance),
            };
            return self.swap(word, next).then_some(step);
        }
        if word.state != State::Closed || !self.trips(policy, now, judged) {
            return None;
        }
        self.swap(word, opened(policy, word, 0, now, chance)).then_some(Step::Opened)
    }

    /// The probe ended without a result: the next call may probe.
    pub fn abandon(&self, ticket: Ticket) {
        let word = self.load();
        if ticket.probe && word.generation == ticket.generation {
            self.swap(word, word.step(State::Open));
        }
    }

    /// Closes it, because no policy asks for it any more.
    pub fn reset(&self) -> bool {
        let word = self.load();
        if word.state == State::Closed {
            return false;
        }
        self.forget();
        self.swap(word, Word { doublings: 0, until_ms: 0, ..word.step(State::Closed) })
    }

    fn load(&self) -> Word {
        Word::unpack(self.word.load(SeqCst))
    }

    fn swap(&self, from: Word, to: Word) -> bool {
        self.word.compare_exchange(from.pack(), to.pack(), SeqCst, SeqCst).is_ok()
    }

    fn forget(&self) {
        self.streak.store(0, Relaxed);
        self.last_bad.store(0, Relaxed);
        self.buckets.iter().for_each(|bucket| bucket.store(0, Relaxed));
    }

    /// Counts a call; whether it is now too bad.
    fn trips(&self, policy: &CircuitBreaker, now: Micros, judged: Judged) -> bool {
        let slot = slot(policy, now);
        let in_a_row = match judged {
            Judged::Good => {
                if self.streak.load(Relaxed) != 0 {
                    self.streak.store(0, Relaxed);
                }
                0
            }
            Judged::Limited => 0,
            Judged::Bad => self.streak.fetch_add(1, Relaxed).saturating_add(1),
        };
        if let Some(bucket) = self.buckets.get(slot as usize % BUCKETS) {
            // Never gives up: the closure always answers.
            let _ = bucket.fetch_update(Relaxed, Relaxed, |own| Some(counted(own, slot, judged)));
        }
        if judged != Judged::Good {
            self.last_bad.store(slot, Relaxed);
        } else if slot.wrapping_sub(self.last_bad.load(Relaxed)) >= BUCKETS as u32 {
            // Nothing in the window went badly.
            return false;
        }
        policy.consecutive.is_some_and(|most| in_a_row >= most) || self.is_too_low(policy, slot)
    }

    fn is_too_low(&self, policy: &CircuitBreaker, slot: u32) -> bool {
        let Some(least) = policy.success_rate else { return false };
        let (good, bad) = self.buckets.iter().fold((0, 0), |(good, bad), bucket| {
            let (own, own_good, own_bad) = parts(bucket.load(Relaxed));
            let current = slot.wrapping_sub(own) & SLOTS < BUCKETS as u32;
            if current { (good + own_good, bad + own_bad) } else { (good, bad) }
        });
        let all = good + bad;
        all >= u64::from(policy.min_requests) && (good as f64) < least * all as f64
    }
}

/// A bucket: its slot's number in 24 bits, good and bad calls in 20 bits each.
const SLOTS: u32 = 0xff_ffff;
const MOST: u64 = 0xf_ffff;

/// The number of the part of the window that `now` is in. Never 0 for long: 0 is what an empty bucket says.
fn slot(policy: &CircuitBreaker, now: Micros) -> u32 {
    let width = (policy.window / BUCKETS as u32).as_micros().max(1);
    (u128::from(now.0) / width) as u32 & SLOTS
}

fn parts(bucket: u64) -> (u32, u64, u64) {
    ((bucket >> 40) as u32, bucket >> 20 & MOST, bucket & MOST)
}

fn counted(bucket: u64, slot: u32, judged: Judged) -> u64 {
    let (own, good, bad) = parts(bucket);
    let (good, bad) = if own == slot { (good, bad) } else { (0, 0) };
    let (good, bad) = match judged {
        Judged::Good => ((good + 1).min(MOST), bad),
        Judged::Limited | Judged::Bad => (good, (bad + 1).min(MOST)),
    };
    u64::from(slot) << 40 | good << 20 | bad
}

/// Open from `now` on, for twice as long as with one doubling fewer.
fn opened(policy: &CircuitBreaker, word: Word, doublings: u8, now: Micros, chance: u32) -> Word {
    let least = policy.open.as_secs_f64() * f64::from(doublings.min(32)).exp2();
    let jitter = 1.0 + JITTER * f64::from(chance) / f64::from(u32::MAX);
    let time = (least * jitter).min(policy.longest.as_secs_f64());
    let until_ms = (now.0 / 1000).saturating_add((time * 1e3).ceil() as u64);
    Word { doublings, until_ms, ..word.step(State::Open) }
}

#[cfg(test)]
mod tests;
