//! The latencies of one window, as a histogram of atomics: adding is one increment, without a lock.

use std::sync::atomic::{AtomicU32, Ordering::Relaxed};
use std::time::Duration;

/// Buckets for each doubling: a bucket is 6 % wide at most, far less than the 25 % that latency may grow.
const STEPS: usize = 16;
/// From 16 us to 2^36 us (19 hours) in doublings.
const DOUBLINGS: usize = 32;

/// Samples since the last [`Window::take`].
#[derive(Debug)]
pub(super) struct Window {
    buckets: Box<[AtomicU32]>,
    count: AtomicU32,
    failed: AtomicU32,
    most: AtomicU32,
    /// Calls that began with more than so many at once say nothing about the limit of now.
    up_to: AtomicU32,
}

impl Default for Window {
    fn default() -> Self {
        Window {
            buckets: (0..STEPS * DOUBLINGS).map(|_| AtomicU32::new(0)).collect(),
            count: AtomicU32::new(0),
            failed: AtomicU32::new(0),
            most: AtomicU32::new(0),
            up_to: AtomicU32::new(u32::MAX),
        }
    }
}

/// What a window says.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Summary {
    /// The median latency, microseconds; `None`: no call was answered.
    pub median: Option<f64>,
    /// Calls that were answered.
    pub answered: u32,
    /// Calls that failed.
    pub failed: u32,
    /// The most calls that were served at once.
    pub most: u32,
}

impl Window {
    /// How many there are.
    pub(super) fn count(&self) -> u32 {
        self.count.load(Relaxed)
    }

    /// Adds one.
    pub(super) fn add(&self, latency: Option<Duration>, alongside: u32) {
        if alongside > self.up_to.load(Relaxed) {
            return;
        }
        if self.most.load(Relaxed) < alongside {
            self.most.fetch_max(alongside, Relaxed);
        }
        match latency {
            None => self.failed.fetch_add(1, Relaxed),
            Some(latency) => match self.buckets.get(bucket(latency)) {
                Some(bucket) => bucket.fetch_add(1, Relaxed),
                None => 0,
            },
        };
        self.count.fetch_add(1, Relaxed);
    }

    /// What it says; the next window begins. Samples that are added at the same time are in one of the two.
    pub(super) fn take(&self) -> Summary {
        let counts: Vec<u32> = self.buckets.iter().map(|bucket| bucket.swap(0, Relaxed)).collect();
        self.count.store(0, Relaxed);
        let answered = counts.iter().sum::<u32>();
        let mut left = answered.div_ceil(2);
        let median = counts.iter().position(|count| {
            let here = left <= *count && left > 0;
            left = left.saturating_sub(*count);
            here
        });
        Summary {
            median: median.map(middle),
            answered,
            failed: self.failed.swap(0, Relaxed),
            most: self.most.swap(0, Relaxed),
        }
    }

    /// Only calls that began with at most so many at once count from now on.
    pub(super) fn admit_up_to(&self, most: u32) {
        self.up_to.store(most, Relaxed);
    }
}

fn bucket(latency: Duration) -> usize {
    let micros = u64::try_from(latency.as_micros()).unwrap_or(u64::MAX).max(STEPS as u64);
    let doubling = micros.ilog2() - STEPS.ilog2();
    let step = (micros >> doubling) as usize - STEPS;
    (doubling as usize * STEPS + step).min(STEPS * DOUBLINGS - 1)
}

/// The middle of a bucket, microseconds.
fn middle(bucket: usize) -> f64 {
    let (doubling, step) = (bucket / STEPS, bucket % STEPS);
    (STEPS as f64 + step as f64 + 0.5) * 2f64.powi(doubling as i32)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_median_is_within_a_bucket_of_the_truth() {
        let mut rng = fastrand::Rng::with_seed(7);
        for _ in 0..200 {
            let window = Window::default();
            let scale = 10f64.powf(rng.f64() * 6.0 + 1.3);
            let mut all: Vec<f64> = (0..rng.usize(1..200)).map(|_| scale * (1.0 + rng.f64() * 5.0)).collect();
            all.iter().for_each(|micros| {
                window.add(Some(Duration::from_micros(*micros as u64)), 1);
            });
            all.sort_by(f64::total_cmp);
            let truth = all[(all.len() - 1) / 2];
            let median = window.take().median.unwrap();
            assert!((median / truth - 1.0).abs() < 0.07, "{median} instead of {truth}");
        }
        assert_eq!(Window::default().take().median, None);
    }

    #[test]
    fn the_longest_and_the_shortest_latency_have_a_bucket() {
        let window = Window::default();
        for latency in [Duration::ZERO, Duration::MAX, Duration::from_secs(86_400)] {
            window.add(Some(latency), 1);
        }
        assert_eq!(window.take().answered, 3);
    }
}
