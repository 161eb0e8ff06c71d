//! When to try again: soon at first, then rarer and rarer, never all nodes at the same moment.

use std::time::Duration;

/// Doubles with each failure.
#[derive(Debug)]
pub(super) struct Backoff {
    step: Duration,
    first: Duration,
    longest: Duration,
}

impl Backoff {
    /// Waits from `first` up to `longest`.
    pub(super) const fn new(first: Duration, longest: Duration) -> Backoff {
        Backoff { step: first, first, longest }
    }

    /// It worked: the next failure is the first again.
    pub(super) fn reset(&mut self) {
        self.step = self.first;
    }

    /// How long to wait after one more failure: half to all of the current step.
    pub(super) fn next(&mut self) -> Duration {
        let step = self.step;
        self.step = (step * 2).min(self.longest);
        step.mul_f64(0.5 + fastrand::f64() / 2.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_grow_to_a_limit() {
        let mut backoff = Backoff::new(Duration::from_millis(100), Duration::from_secs(1));
        let waits: Vec<Duration> = (0..6).map(|_| backoff.next()).collect();
        assert!(waits[0] <= Duration::from_millis(100) && waits[0] >= Duration::from_millis(50));
        assert!(waits[5] <= Duration::from_secs(1) && waits[5] >= Duration::from_millis(500), "{waits:?}");
        backoff.reset();
        assert!(backoff.next() <= Duration::from_millis(100));
    }
}
