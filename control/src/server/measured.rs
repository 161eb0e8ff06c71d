//! A store whose calls are counted and timed, for `/metrics`.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use crate::store::{Answer, Batch, Entry, Listed, Revision, Store, StoreError, Watch};

/// Upper bounds of the buckets, microseconds: from a read of memory to a store that is nearly lost.
pub(super) const BUCKETS: [u64; 9] = [100, 500, 1_000, 5_000, 10_000, 50_000, 100_000, 500_000, 2_500_000];

/// The calls of a store, in the order of [`Calls`]' fields.
pub(super) const OPERATIONS: [&str; 4] = ["get", "list", "batch", "watch"];

/// What is known of one kind of call.
#[derive(Debug, Default)]
pub(super) struct Calls {
    buckets: [AtomicU64; BUCKETS.len() + 1],
    micros: AtomicU64,
    errors: AtomicU64,
}

impl Calls {
    fn record<T>(&self, took: Duration, result: &Result<T, StoreError>) {
        let micros = u64::try_from(took.as_micros()).unwrap_or(u64::MAX);
        let bucket = BUCKETS.iter().position(|bound| micros <= *bound).unwrap_or(BUCKETS.len());
        self.buckets[bucket].fetch_add(1, Ordering::Relaxed);
        self.micros.fetch_add(micros, Ordering::Relaxed);
        // A conflict is an answer.
        if matches!(result, Err(StoreError::Unavailable { .. } | StoreError::Corrupt(_))) {
            self.errors.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// Calls in each bucket, not cumulative; the last is of those above all bounds.
    pub(super) fn buckets(&self) -> [u64; BUCKETS.len() + 1] {
        std::array::from_fn(|index| self.buckets[index].load(Ordering::Relaxed))
    }

    /// All calls together, seconds.
    pub(super) fn seconds(&self) -> f64 {
        self.micros.load(Ordering::Relaxed) as f64 / 1e6
    }

    /// Calls that found the store unavailable or unreadable.
    pub(super) fn errors(&self) -> u64 {
        self.errors.load(Ordering::Relaxed)
    }
}

/// Calls by kind, as in [`OPERATIONS`].
pub(super) type Ledger = Arc<[Calls; OPERATIONS.len()]>;

/// A store and its ledger.
#[derive(Debug)]
pub(super) struct Measured {
    store: Arc<dyn Store>,
    calls: Ledger,
}

impl Measured {
    /// Counts the calls of a store from now on.
    pub(super) fn around(store: Arc<dyn Store>) -> (Arc<dyn Store>, Ledger) {
        let calls = Ledger::default();
        (Arc::new(Measured { store, calls: calls.clone() }), calls)
    }

    fn timed<'a, T: Send + 'a>(&'a self, operation: usize, call: Answer<'a, T>) -> Answer<'a, T> {
        Box::pin(async move {
            let begun = Instant::now();
            let result = call.await;
            self.calls[operation].record(begun.elapsed(), &result);
            result
        })
    }
}

impl Store for Measured {
    fn get<'a>(&'a self, key: &'a str) -> Answer<'a, Option<Entry>> {
        self.timed(0, self.store.get(key))
    }

    fn get_many<'a>(&'a self, keys: &'a [String]) -> Answer<'a, Vec<Option<Entry>>> {
        self.timed(0, self.store.get_many(keys))
    }

    fn list<'a>(&'a self, prefix: &'a str) -> Answer<'a, Listed> {
        self.timed(1, self.store.list(prefix))
    }

    fn batch(&self, batch: Batch) -> Answer<'_, Revision> {
        self.timed(2, self.store.batch(batch))
    }

    fn watch<'a>(&'a self, prefix: &'a str, from: Revision) -> Answer<'a, Watch> {
        self.timed(3, self.store.watch(prefix, from))
    }
}
