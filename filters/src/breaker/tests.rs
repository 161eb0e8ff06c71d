//! The breaker against a model, with a manual clock; and one probe at a time with real threads.

use std::collections::VecDeque;
use std::sync::atomic::AtomicI64;

use super::*;
use crate::fixture::at;

fn policy() -> CircuitBreaker {
    CircuitBreaker::default()
}

fn fail(breaker: &Breaker, now: u64) -> Option<Step> {
    let ticket = breaker.enter(at(now)).expect("it is shut");
    breaker.record(&policy(), ticket, at(now), Outcome::Answered(500), 0)
}

fn succeed(breaker: &Breaker, now: u64) -> Option<Step> {
    let ticket = breaker.enter(at(now)).expect("it is shut");
    breaker.record(&policy(), ticket, at(now), Outcome::Answered(200), 0)
}

/// Fails until it opens.
fn trip(breaker: &Breaker, now: u64) {
    while fail(breaker, now) != Some(Step::Opened) {}
}

#[test]
fn breaker_opens_after_seven_failures_in_a_row_and_a_success_breaks_the_row() {
    let breaker = Breaker::default();
    let rowed = CircuitBreaker { success_rate: None, ..policy() };
    let end = |outcome| {
        let ticket = breaker.enter(at(0)).unwrap();
        breaker.record(&rowed, ticket, at(0), outcome, 0)
    };
    for _ in 0..6 {
        assert_eq!(end(Outcome::Answered(503)), None);
    }
    assert_eq!(end(Outcome::Answered(404)), None);
    for outcome in [Outcome::Reset, Outcome::TimedOut, Outcome::Unreachable, Outcome::Answered(500)] {
        assert_eq!(end(outcome), None);
    }
    for _ in 0..20 {
        assert_eq!(end(Outcome::Answered(429)), None, "429 counts in the rate only");
    }
    assert_eq!((end(Outcome::Reset), end(Outcome::Reset)), (None, None));
    assert_eq!(end(Outcome::Reset), Some(Step::Opened));
    assert_eq!(breaker.enter(at(0)), None);
}

#[test]
fn breaker_opens_when_too_few_of_enough_succeed_within_the_window() {
    let breaker = Breaker::default();
    for bad in 0..4 {
        assert_eq!(fail(&breaker, bad), None, "four say nothing yet");
    }
    assert_eq!(succeed(&breaker, 10), Some(Step::Opened), "one of five");
    let breaker = Breaker::default();
    for bad in 0..4 {
        fail(&breaker, bad);
    }
    for good in 0..16 {
        assert_eq!(succeed(&breaker, 11_000 + good), None, "the failures are older than the window");
    }
    for _ in 0..4 {
        assert_eq!(fail(&breaker, 12_000), None, "16 of 20 are 80 %");
    }
    assert_eq!(fail(&breaker, 12_000), Some(Step::Opened));
}

#[test]
fn breaker_stays_open_twice_as_long_each_time_and_closes_on_a_good_probe() {
    let breaker = Breaker::default();
    trip(&breaker, 0);
    let mut now = 0;
    for seconds in [1, 2, 4, 8, 16, 32, 60, 60] {
        assert_eq!(breaker.left(at(now)), Duration::from_secs(seconds));
        assert_eq!(breaker.enter(at(now + seconds * 1000 - 1)), None);
        now += seconds * 1000;
        assert_eq!(fail(&breaker, now), Some(Step::Opened));
    }
    now += 60_000;
    assert_eq!(succeed(&breaker, now), Some(Step::Closed));
    for _ in 0..4 {
        assert_eq!(fail(&breaker, now), None, "it begins anew");
    }
    trip(&breaker, now);
    assert_eq!(breaker.left(at(now)), Duration::from_secs(1));
}

#[test]
fn breaker_jitter_lengthens_by_half_at_most_and_never_over_the_longest() {
    for (chance, millis) in [(0, 1000), (u32::MAX / 2, 1250), (u32::MAX, 1500)] {
        let breaker = Breaker::default();
        for _ in 0..7 {
            let ticket = breaker.enter(at(0));
            if let Some(ticket) = ticket {
                breaker.record(&policy(), ticket, at(0), Outcome::Reset, chance);
            }
        }
        let left = breaker.left(at(0)).as_millis();
        assert!((millis..=millis + 1).contains(&left), "{left}");
    }
    let word = opened(&policy(), Word::unpack(0), 63, at(0), u32::MAX);
    assert_eq!(word.until_ms, at(60_000).0 / 1000);
}

#[test]
fn breaker_probe_that_is_limited_or_lost_does_not_close_it() {
    let breaker = Breaker::default();
    trip(&breaker, 0);
    let ticket = breaker.enter(at(1000)).unwrap();
    assert!(ticket.probe && breaker.enter(at(100_000)).is_none(), "one at a time");
    let limited = breaker.record(&policy(), ticket, at(1000), Outcome::Answered(429), 0);
    assert_eq!(limited, Some(Step::Opened));
    let lost = breaker.enter(at(3000)).unwrap();
    breaker.abandon(lost);
    let next = breaker.enter(at(3000)).expect("a lost probe makes room for the next");
    breaker.abandon(lost);
    assert_eq!(breaker.enter(at(3000)), None, "it gives its place back once");
    assert_eq!(breaker.record(&policy(), lost, at(3000), Outcome::Answered(200), 0), None, "too late");
    assert_eq!(breaker.record(&policy(), next, at(3000), Outcome::Answered(200), 0), Some(Step::Closed));
}

#[test]
fn breaker_ignores_calls_that_began_before_its_last_step() {
    let breaker = Breaker::default();
    let old: Vec<Ticket> = (0..20).map(|_| breaker.enter(at(0)).unwrap()).collect();
    trip(&breaker, 0);
    for ticket in &old[..10] {
        assert_eq!(breaker.record(&policy(), *ticket, at(10), Outcome::Answered(200), 0), None);
    }
    assert_eq!(breaker.state(), State::Open, "their success closes nothing");
    assert_eq!(succeed(&breaker, 1000), Some(Step::Closed));
    for ticket in &old[10..] {
        assert_eq!(breaker.record(&policy(), *ticket, at(1001), Outcome::Reset, 0), None);
    }
    assert_eq!(breaker.state(), State::Closed, "their failure opens nothing");
}

/// What a breaker is to be, written as plainly as possible.
struct Model {
    state: State,
    streak: u32,
    calls: VecDeque<(u64, bool)>,
    until: u64,
    open_ms: u64,
    /// Calls of before do not count.
    era: u32,
}

impl Model {
    fn enter(&mut self, now: u64) -> Option<bool> {
        match self.state {
            State::Closed => Some(false),
            State::Open if now >= self.until => {
                (self.state, self.era) = (State::Probing, self.era + 1);
                Some(true)
            }
            _ => None,
        }
    }

    fn open(&mut self, now: u64, open_ms: u64) {
        (self.state, self.until, self.open_ms, self.era) =
            (State::Open, now + open_ms, open_ms, self.era + 1);
    }

    fn record(&mut self, now: u64, era: u32, probe: bool, outcome: Outcome) {
        if era != self.era {
            return;
        }
        let limited = outcome == Outcome::Answered(429);
        let good = !limited && !outcome.is_failure();
        if probe {
            match good {
                true => {
                    (self.state, self.streak, self.era) = (State::Closed, 0, self.era + 1);
                    self.calls.clear();
                }
                false => self.open(now, (self.open_ms * 2).min(60_000)),
            }
            return;
        }
        self.streak = if good { 0 } else { self.streak + u32::from(!limited) };
        self.calls.push_back((now / 1000, good));
        self.calls.retain(|(second, _)| now / 1000 - second < 10);
        let ok = self.calls.iter().filter(|(_, good)| *good).count();
        let low = self.calls.len() >= 5 && ok * 10 < self.calls.len() * 8;
        if (self.streak >= 7 && !good && !limited) || low {
            self.open(now, 1000);
        }
    }
}

#[test]
fn breaker_makes_no_step_that_its_model_does_not_make() {
    let mut steps = [0; 3];
    for seed in 0..300 {
        let mut rng = fastrand::Rng::with_seed(seed);
        let breaker = Breaker::default();
        let mut model = Model {
            state: State::Closed,
            streak: 0,
            calls: VecDeque::new(),
            until: 0,
            open_ms: 1000,
            era: 0,
        };
        let (mut now, mut calls) = (1_000_000 / 1000 * 1000, Vec::new());
        let ill = rng.f32();
        for _ in 0..400 {
            now += if rng.u8(..10) == 0 { rng.u64(..20_000) } else { rng.u64(..200) };
            let time = Micros(now * 1000);
            match rng.u8(..8) {
                0..4 => {
                    let (own, wanted) = (breaker.enter(time), model.enter(now));
                    assert_eq!(own.map(|ticket| ticket.probe), wanted, "seed {seed} at {now}");
                    calls.extend(own.map(|ticket| (ticket, model.era)));
                }
                4..7 if !calls.is_empty() => {
                    let (ticket, era) = calls.swap_remove(rng.usize(..calls.len()));
                    let outcome = match rng.f32() < ill {
                        true => {
                            rng.choice([Outcome::Reset, Outcome::Answered(500), Outcome::TimedOut]).unwrap()
                        }
                        false if rng.u8(..10) == 0 => Outcome::Answered(429),
                        false => Outcome::Answered(200),
                    };
                    if let Some(step) = breaker.record(&policy(), ticket, time, outcome, 0) {
                        steps[step as usize] += 1;
                    }
                    model.record(now, era, ticket.probe, outcome);
                }
                7 if !calls.is_empty() => {
                    let (ticket, era) = calls.swap_remove(rng.usize(..calls.len()));
                    breaker.abandon(ticket);
                    if ticket.probe && era == model.era {
                        (model.state, model.era) = (State::Open, model.era + 1);
                    }
                }
                _ => {}
            }
            assert_eq!(breaker.state(), model.state, "seed {seed} at {now}");
            let probes = calls.iter().filter(|(ticket, era)| ticket.probe && *era == model.era).count();
            assert_eq!(probes, usize::from(model.state == State::Probing), "seed {seed}: one probe");
        }
    }
    assert!(steps[Step::Opened as usize] > 500 && steps[Step::Closed as usize] > 100, "{steps:?}");
}

#[test]
fn breaker_has_one_probe_at_a_time_among_threads() {
    let breaker = Breaker::default();
    let longest = Duration::from_millis(40);
    let policy = CircuitBreaker { open: Duration::from_millis(10), longest, ..policy() };
    let (probing, most, probes) = (AtomicI64::new(0), AtomicI64::new(0), AtomicI64::new(0));
    let clock = AtomicU64::new(at(0).0);
    std::thread::scope(|scope| {
        for seed in 0..4 {
            let (breaker, policy, clock) = (&breaker, &policy, &clock);
            let (probing, most, probes) = (&probing, &most, &probes);
            scope.spawn(move || {
                let mut rng = fastrand::Rng::with_seed(seed);
                for _ in 0..20_000 {
                    let now = Micros(clock.fetch_add(200, Relaxed));
                    let Some(ticket) = breaker.enter(now) else { continue };
                    if ticket.probe {
                        probes.fetch_add(1, Relaxed);
                        most.fetch_max(probing.fetch_add(1, SeqCst) + 1, SeqCst);
                        std::thread::yield_now();
                        probing.fetch_sub(1, SeqCst);
                    }
                    match rng.u8(..10) {
                        0 => breaker.abandon(ticket),
                        n => {
                            let outcome = if n < 8 { Outcome::Reset } else { Outcome::Answered(200) };
                            breaker.record(policy, ticket, now, outcome, rng.u32(..));
                        }
                    }
                }
            });
        }
    });
    assert_eq!(most.load(SeqCst), 1);
    assert!(probes.load(SeqCst) > 50, "{probes:?}");
    // Nobody holds a probe now, so it is not stuck.
    let later = Micros(clock.load(SeqCst)).after(Duration::from_secs(100));
    assert!(breaker.enter(later).is_some());
}
