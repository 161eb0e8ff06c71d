//! When to try again: soon at first, then rarer and rarer, never all of a mesh at the same moment.

use std::time::Duration;

/// After the first failure.
const FIRST: Duration = Duration::from_millis(50);

/// At most; a control plane that comes back is found within this time.
const LONGEST: Duration = Duration::from_secs(5);

/// Doubles with each failure. Randomness is passed in.
#[derive(Debug)]
pub struct Backoff {
    step: Duration,
    first: Duration,
    longest: Duration,
}

impl Default for Backoff {
    /// For what is wanted at once: 50 ms, at most 5 s.
    fn default() -> Self {
        Backoff::new(FIRST, LONGEST)
    }
}

impl Backoff {
    /// Waits from `first` up to `longest`.
    pub const fn new(first: Duration, longest: Duration) -> Self {
        Backoff { step: first, first, longest }
    }

    /// It worked: the next failure is the first again.
    pub fn reset(&mut self) {
        self.step = self.first;
    }

    /// How long to wait after one more failure: half to all of the current step.
    pub fn next(&mut self, rng: &mut fastrand::Rng) -> Duration {
        let step = self.step;
        self.step = (step * 2).min(self.longest);
        step.mul_f64(0.5 + rng.f64() / 2.0)
    }

    /// How long to wait after a refusal that the same request would get again.
    pub fn slow(&mut self, rng: &mut fastrand::Rng) -> Duration {
        self.step = self.longest;
        self.longest.mul_f64(2.0 + 2.0 * rng.f64())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_grow_to_a_limit_and_differ() {
        let mut rng = fastrand::Rng::with_seed(1);
        let mut backoff = Backoff::default();
        let waits: Vec<Duration> = (0..12).map(|_| backoff.next(&mut rng)).collect();
        assert!(waits[0] >= FIRST / 2 && waits[0] <= FIRST, "{waits:?}");
        assert!(waits.iter().all(|wait| *wait <= LONGEST), "{waits:?}");
        assert!(waits[10] >= LONGEST / 2 && waits[10] != waits[11], "{waits:?}");
        let in_all: Duration = waits[..5].iter().sum();
        assert!(in_all < Duration::from_secs(2), "another control plane is found within 2 s: {waits:?}");
        assert!(backoff.slow(&mut rng) >= 2 * LONGEST);
        backoff.reset();
        assert!(backoff.next(&mut rng) <= FIRST);
    }
}
