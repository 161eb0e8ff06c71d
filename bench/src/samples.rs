//! Latency samples and what is said of them.

use serde_json::{Value, json};

/// Every sample of a run, in units of 10 ns (enough for 42 s), so that percentiles are exact.
#[derive(Default)]
pub struct Samples(Vec<u32>);

impl Samples {
    /// Room for `n` samples without a further allocation while the run lasts.
    pub fn with_capacity(n: usize) -> Self {
        Self(Vec::with_capacity(n))
    }

    /// Adds one sample, in nanoseconds.
    pub fn push(&mut self, ns: u64) {
        self.0.push(u32::try_from(ns / 10).unwrap_or(u32::MAX));
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Forgets all of them.
    pub fn clear(&mut self) {
        self.0.clear();
    }

    /// Percentiles in microseconds, as a JSON object.
    pub fn summary(&mut self) -> Value {
        self.0.sort_unstable();
        let at = |q: f64| match self.0.len() {
            0 => 0.0,
            n => f64::from(self.0[((n - 1) as f64 * q) as usize]) / 100.0,
        };
        json!({
            "n": self.0.len(), "p50": at(0.5), "p90": at(0.9), "p99": at(0.99), "p99.9": at(0.999), "max": at(1.0),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentiles_are_taken_from_the_sorted_samples_in_microseconds() {
        let mut samples = Samples::default();
        for us in (1..=1000u64).rev() {
            samples.push(us * 1000);
        }
        let summary = samples.summary();
        assert_eq!(summary["n"], 1000);
        assert_eq!(summary["p50"], 500.0);
        assert_eq!(summary["p99"], 990.0);
        assert_eq!(summary["max"], 1000.0);
    }

    #[test]
    fn no_samples_are_zero_not_a_panic() {
        assert_eq!(Samples::default().summary()["p99"], 0.0);
    }
}
