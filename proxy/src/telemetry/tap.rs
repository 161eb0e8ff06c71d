//! Live calls for those who look: `pilotfish tap`. Costs one look at an atomic while nobody does.
//!
//! While somebody does, the worker that ends a call holds it against what is asked for, and what fits goes into a bounded
//! queue, from which the task of the control plane's stream takes it. What does not fit, or is too much, is counted.

use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex, PoisonError};

use arc_swap::ArcSwap;
use pilotfish_config::wire::{MOST_TAPPED, MOST_TAPS, Tap, Tapped};
use pilotfish_filters::clock::Micros;
use pilotfish_filters::expression::Expression;

use super::account::tapped;
use super::call::CallRecord;
use crate::server::Shared;

/// Calls that wait to be told.
const WAITING: usize = 1024;
/// The most calls a second that one tap shows, whatever is asked for.
const FASTEST: u32 = MOST_TAPPED as u32;

/// Who looks.
#[derive(Debug, Default)]
pub struct Taps {
    any: AtomicBool,
    all: ArcSwap<Vec<Arc<Filter>>>,
    /// Calls that are to be told, with those who look at them.
    queue: Mutex<Vec<(Vec<u64>, Box<CallRecord>)>>,
}

/// Which calls one of them wants to see.
#[derive(Debug)]
struct Filter {
    asked: Tap,
    status: Option<Status>,
    matching: Option<Expression>,
    /// The second in which calls are counted, and how many there were.
    second: AtomicU64,
    count: AtomicU32,
    dropped: AtomicU64,
}

/// `503`, `5xx`, or `0` for callers that left.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Status {
    Exactly(u16),
    Hundreds(u16),
}

impl Status {
    fn parse(text: &str) -> Option<Status> {
        match text.as_bytes() {
            [digit @ b'1'..=b'5', b'x', b'x'] => Some(Status::Hundreds(u16::from(digit - b'0'))),
            _ => text.parse().ok().map(Status::Exactly),
        }
    }

    fn is(self, status: u16) -> bool {
        match self {
            Status::Exactly(own) => own == status,
            Status::Hundreds(own) => own == status / 100,
        }
    }
}

impl Filter {
    /// What the control plane checked already; a filter that this sidecar cannot read (of a later version) shows nothing.
    fn new(asked: &Tap) -> Option<Filter> {
        let status = asked.status.as_deref().map(|text| Status::parse(text).ok_or(()));
        let matching = asked.matching.as_deref().map(|text| Expression::compile(text).map_err(|_| ()));
        Some(Filter {
            asked: asked.clone(),
            status: status.transpose().ok()?,
            matching: matching.transpose().ok()?,
            second: AtomicU64::new(0),
            count: AtomicU32::new(0),
            dropped: AtomicU64::new(0),
        })
    }

    fn shows(&self, record: &CallRecord) -> bool {
        self.status.is_none_or(|status| status.is(record.status))
            && self.asked.capability.as_deref().is_none_or(|name| name == record.capability.as_str())
            && self.matching.as_ref().is_none_or(|expression| expression.matches(record))
    }

    /// Whether another call may be shown in this second.
    fn admits(&self, now: Micros) -> bool {
        let second = now.0 / 1_000_000;
        if self.second.swap(second, Relaxed) != second {
            self.count.store(0, Relaxed);
        }
        self.count.fetch_add(1, Relaxed) < self.asked.rate.min(FASTEST)
    }
}

impl Taps {
    /// Shows a finished call to those who look.
    #[inline]
    pub fn offer(&self, record: &CallRecord) {
        if self.any.load(Relaxed) {
            self.show(record);
        }
    }

    #[cold]
    fn show(&self, record: &CallRecord) {
        let ended = Micros(record.started.0.saturating_add(record.stages.ended));
        let all = self.all.load();
        let shown: Vec<&Arc<Filter>> = all
            .iter()
            .filter(|filter| filter.shows(record))
            .filter(|filter| {
                let admitted = filter.admits(ended);
                filter.dropped.fetch_add(u64::from(!admitted), Relaxed);
                admitted
            })
            .collect();
        if shown.is_empty() {
            return;
        }
        // A worker never waits for another one, nor for the task that takes them.
        match self.queue.try_lock() {
            Ok(mut queue) if queue.len() < WAITING => {
                let whose = shown.iter().map(|filter| filter.asked.id).collect();
                queue.push((whose, Box::new(record.clone())));
            }
            _ => shown.iter().for_each(|filter| {
                filter.dropped.fetch_add(1, Relaxed);
            }),
        }
    }

    /// From now on these look; those who looked before and still do go on.
    pub fn look(&self, taps: &[Tap]) {
        let before = self.all.load();
        let all: Vec<Arc<Filter>> = taps
            .iter()
            .take(MOST_TAPS)
            .filter_map(|tap| match before.iter().find(|own| own.asked == *tap) {
                Some(own) => Some(own.clone()),
                None => Filter::new(tap).map(Arc::new),
            })
            .collect();
        let any = !all.is_empty();
        self.all.store(Arc::new(all));
        self.any.store(any, Relaxed);
        if !any {
            *self.queue.lock().unwrap_or_else(PoisonError::into_inner) = Vec::new();
        }
    }

    /// How many look.
    pub fn count(&self) -> usize {
        self.all.load().len()
    }

    /// What is to be told since the last time: a message for each who looks and has news.
    pub fn take(&self, shared: &Shared) -> Vec<Tapped> {
        let queue = std::mem::take(&mut *self.queue.lock().unwrap_or_else(PoisonError::into_inner));
        let all = self.all.load();
        let mut told: Vec<Tapped> =
            all.iter().map(|filter| Tapped { tap: filter.asked.id, ..Tapped::default() }).collect();
        for (whose, record) in queue {
            let call = tapped(shared, &record);
            for tap in told.iter_mut().filter(|tap| whose.contains(&tap.tap)) {
                if tap.calls.len() < MOST_TAPPED {
                    tap.calls.push(call.clone());
                } else {
                    tap.dropped += 1;
                }
            }
        }
        for (filter, tap) in all.iter().zip(&mut told) {
            tap.dropped += filter.dropped.swap(0, Relaxed);
        }
        told.retain(|tap| !tap.calls.is_empty() || tap.dropped > 0);
        told
    }
}

/// Those who look by one stream: they do not any more when it ends.
#[derive(Debug)]
pub struct Looking<'a>(pub &'a Taps);

impl Drop for Looking<'_> {
    fn drop(&mut self) {
        self.0.look(&[]);
    }
}
