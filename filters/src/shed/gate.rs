//! The calls that are served at once, for the whole process: a limit, fixed or found by latency, and the line before it.
//!
//! Below the limit a call costs one atomic addition and one subtraction.

use std::cell::Cell;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use super::{Line, Overloaded, Priority, QueuePolicy, Waiter};
use crate::clock::Micros;
use crate::concurrency::{Limit, Limiter};

/// Places for calls that are served at once. All workers share it, and it outlives a plan.
#[derive(Debug)]
pub struct Gate {
    places: Places,
    line: Arc<Line<Place>>,
    limiter: Limiter,
}

/// Its own cache lines: every call writes to it.
#[derive(Debug)]
#[repr(align(128))]
struct Places {
    taken: AtomicU32,
    limit: AtomicU32,
}

/// How a call came in.
#[derive(Debug)]
pub enum Entered {
    /// It is served now.
    Now(Place),
    /// It waits for a place.
    Later(Waiter<Place>),
}

impl Gate {
    /// A gate without a limit. `seed`: for the choice of when latency is measured anew.
    pub fn new(seed: u64) -> Arc<Gate> {
        Arc::new(Gate {
            places: Places { taken: AtomicU32::new(0), limit: AtomicU32::new(u32::MAX) },
            line: Arc::default(),
            limiter: Limiter::new(seed),
        })
    }

    /// What holds from now on. Calls that are served stay; a found limit stays when it is within the new bounds.
    pub fn configure(self: &Arc<Self>, limit: Limit, queue: QueuePolicy) {
        self.line.set_policy(queue);
        let limit = self.limiter.configure(limit);
        self.places.limit.store(limit, Ordering::SeqCst);
        self.admit_waiting();
    }

    /// Enters at once when a place is free and nobody waits, else waits.
    ///
    /// # Errors
    /// The line is full.
    pub fn enter(self: &Arc<Self>, now: Micros, priority: Priority) -> Result<Entered, Overloaded> {
        if self.line.is_empty()
            && let Some(place) = self.take()
        {
            return Ok(Entered::Now(place));
        }
        // When every call is cut there is no answer that ends a window.
        self.follow(self.limiter.tick(now));
        let waiter = self.line.join(now, priority, self.limit())?;
        // A place that was left before the call was seen to wait is given now, to whoever has its turn.
        self.admit_waiting();
        Ok(Entered::Later(waiter))
    }

    fn take(self: &Arc<Self>) -> Option<Place> {
        let limit = self.places.limit.load(Ordering::SeqCst);
        let more = |taken| (taken < limit).then_some(taken + 1);
        let before = self.places.taken.fetch_update(Ordering::SeqCst, Ordering::SeqCst, more).ok()?;
        Some(Place { gate: Some(Arc::clone(self)), alongside: before + 1, told: Cell::new(false) })
    }

    /// Gives free places to those who wait. Every way that a place gets free or a call begins to wait ends here, so none is
    /// missed: who waits is counted before it looks for a place, and a place is given back before one looks for who waits.
    fn admit_waiting(self: &Arc<Self>) {
        while !self.line.is_empty() {
            let Some(place) = self.take() else { return };
            if let Err(mut unwanted) = self.line.give(place) {
                unwanted.gate = None;
                // Not dropped as a place: that would look for who waits once more.
                self.places.taken.fetch_sub(1, Ordering::SeqCst);
            }
        }
    }

    fn follow(self: &Arc<Self>, found: Option<u32>) {
        if let Some(limit) = found {
            self.places.limit.store(limit, Ordering::SeqCst);
            self.admit_waiting();
        }
    }

    /// Calls that are served now.
    pub fn in_service(&self) -> u32 {
        self.places.taken.load(Ordering::Relaxed)
    }

    /// The limit now; [`u32::MAX`]: none.
    pub fn limit(&self) -> u32 {
        self.places.limit.load(Ordering::Relaxed)
    }

    /// Those who wait.
    pub fn line(&self) -> &Line<Place> {
        &self.line
    }

    /// Whether the limit follows the latency.
    pub fn is_adaptive(&self) -> bool {
        self.limiter.is_adaptive()
    }
}

/// A place among the calls that are served at once. Dropping it, in whichever way, gives it back.
#[derive(Debug)]
pub struct Place {
    /// `None`: it was given back already.
    gate: Option<Arc<Gate>>,
    /// Calls that were served when this one began, with it.
    alongside: u32,
    /// Whether it is known how the call went.
    told: Cell<bool>,
}

impl Place {
    /// How the call went: `latency` is the time from sending it until the head of its answer; `None`: there was none (a reset, a
    /// timeout). At most once a call.
    pub fn answered(&self, now: Micros, latency: Option<Duration>) {
        let Some(gate) = &self.gate else { return };
        self.told.set(true);
        gate.follow(gate.limiter.sample(now, latency, self.alongside));
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        if let Some(gate) = self.gate.take() {
            if !self.told.get() {
                // Cut by its deadline or given up by its caller: too slow for one of them.
                gate.limiter.abandoned(self.alongside);
            }
            gate.places.taken.fetch_sub(1, Ordering::SeqCst);
            gate.admit_waiting();
        }
    }
}
