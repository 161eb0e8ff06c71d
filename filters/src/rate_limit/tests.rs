//! Buckets never let more through than they promise, whatever happens to them.

use std::collections::VecDeque;

use super::*;
use crate::call::test_head::TestHead;
use crate::fixture::at;

fn amount(requests: u32, millis: u64, burst: u32) -> LimitAmount {
    LimitAmount { requests, per: Duration::from_millis(millis), burst }
}

fn state(amount: LimitAmount) -> LimitState {
    LimitState::new(at(0), amount, false, WHOLE, 7)
}

fn limit(name: &str, amount: LimitAmount, by: &[LimitKey]) -> Arc<Limit> {
    Arc::new(Limit {
        name: name.into(),
        amount,
        fleet: false,
        dry_run: false,
        by: by.into(),
        state: Arc::new(state(amount)),
    })
}

fn limits(all: &[&Arc<Limit>]) -> RuleLimits {
    RuleLimits(all.iter().map(|limit| Concern { limit: (*limit).clone(), only: Box::default() }).collect())
}

fn get() -> TestHead {
    TestHead::get("http", "search.example.com", "/")
}

/// How many of `tries` calls at `now` get through.
fn through(limits: &RuleLimits, head: &TestHead, now: Micros, tries: u32) -> u32 {
    let (call, mut count) = (Call::default(), 0);
    for _ in 0..tries {
        count += u32::from(limits.admit(now, &Asking { head, call: &call, caller: None }).is_ok());
    }
    count
}

fn take(state: &LimitState, now: Micros) -> bool {
    state.take(None, &state.pace.at(now)).is_ok()
}

fn left(state: &LimitState, now: Micros) -> u32 {
    (0..).take_while(|_| take(state, now)).count() as u32
}

#[test]
fn no_window_has_more_than_the_burst_and_the_rate() {
    for seed in 0..200 {
        let mut rng = fastrand::Rng::with_seed(seed);
        let terms = amount(rng.u32(1..2000), rng.u64(1..5000), rng.u32(1..200));
        let state = state(terms);
        let (mut now, mut admitted) = (at(0), VecDeque::new());
        for _ in 0..2000 {
            now = now.after(Duration::from_micros(rng.u64(..20_000) * u64::from(rng.bool())));
            if take(&state, now) {
                admitted.push_back(now);
            }
        }
        assert!(
            admitted.len() >= terms.burst.min(100) as usize,
            "seed {seed}: a full bucket lets its burst through"
        );
        for from in 0..admitted.len() {
            for to in [
                from,
                (from + 1).min(admitted.len() - 1),
                (from + 50).min(admitted.len() - 1),
                admitted.len() - 1,
            ] {
                let passed = admitted[to].since(admitted[from]).as_secs_f64();
                let most = f64::from(terms.burst) + terms.per_second() * passed;
                let count = to.saturating_sub(from) + 1;
                assert!(count as f64 <= most + 1e-6, "seed {seed}: {count} in {passed} s, {most} allowed");
            }
        }
    }
}

#[test]
fn a_steady_rate_gets_all_of_it() {
    for (requests, millis) in [(1, 86_400_000), (3, 1000), (7, 333), (1000, 1000), (1_000_000, 1000)] {
        let terms = amount(requests, millis, 1);
        let state = state(terms);
        let step = 1e6 / terms.per_second();
        // Taken a thousandth later than due each time: then every call has to be within.
        let mut due = at(0).0 as f64;
        for n in 0..500 {
            assert!(take(&state, Micros(due.ceil() as u64)), "{requests} in {millis} ms, call {n}");
            due += step * 1.001 + 1.0;
        }
    }
}

#[test]
fn many_threads_share_one_bucket() {
    let state = state(amount(100, 1000, 50));
    let clock = AtomicU64::new(at(0).0);
    let count: u32 = std::thread::scope(|scope| {
        let worker = || {
            (0..20_000).map(|_| u32::from(take(&state, Micros(clock.fetch_add(10, Relaxed))))).sum::<u32>()
        };
        let threads: Vec<_> = (0..8).map(|_| scope.spawn(worker)).collect();
        threads.into_iter().map(|thread| thread.join().unwrap()).sum()
    });
    // 160,000 steps of 10 us are 1.6 s; a call that comes with an old time is refused rather than let through.
    assert!((100..=50 + 160).contains(&count), "{count}");
}

#[test]
fn the_wait_that_is_told_is_the_wait_that_it_takes() {
    let mut rng = fastrand::Rng::with_seed(5);
    for _ in 0..300 {
        let state = state(amount(rng.u32(1..5000), rng.u64(1..100_000), rng.u32(1..20)));
        let mut now = at(0);
        left(&state, now);
        let moment = state.pace.at(now);
        let wait = moment.wait(state.missing(None, &moment).unwrap());
        let just_before = now.after(wait.saturating_sub(Duration::from_micros(2)));
        assert!(state.missing(None, &state.pace.at(just_before)).is_some());
        now = now.after(wait);
        assert!(take(&state, now), "{wait:?}");
    }
}

#[test]
fn another_amount_keeps_what_was_spent() {
    let spend = |burst, spent| {
        let state = state(amount(1, 3_600_000, burst));
        assert_eq!((0..spent).filter(|_| take(&state, at(0))).count(), spent);
        state
    };
    let settle = |state: &LimitState, burst| state.settle(at(0), amount(1, 3_600_000, burst), false, WHOLE);
    let raised = spend(5, 3);
    settle(&raised, 10);
    assert_eq!(left(&raised, at(0)), 7);
    let lowered = spend(10, 3);
    settle(&lowered, 5);
    assert_eq!(left(&lowered, at(0)), 2);
    let below = spend(10, 8);
    settle(&below, 5);
    assert_eq!(left(&below, at(0)), 0);
    assert!(take(&below, at(3_600_001)), "no debt is left of what does not fit");
    let unused = spend(5, 0);
    settle(&unused, 9);
    assert_eq!(left(&unused, at(0)), 9);
    let to_and_fro = spend(5, 2);
    for burst in [50, 3, 700, 5] {
        settle(&to_and_fro, burst);
    }
    assert_eq!(left(&to_and_fro, at(0)), 3);
}

#[test]
fn another_amount_keeps_what_was_spent_of_keys() {
    let state = state(amount(1, 3_600_000, 4));
    let count = |key| (0..).take_while(|_| state.take(Some(key), &state.pace.at(at(0))).is_ok()).count();
    state.take(Some(1), &state.pace.at(at(0))).unwrap();
    assert_eq!(count(2), 4);
    state.settle(at(0), amount(1, 3_600_000, 2), false, WHOLE);
    assert_eq!((count(1), count(2), count(3)), (1, 0, 2));
    state.settle(at(0), amount(1, 3_600_000, 5), false, WHOLE);
    assert_eq!((count(1), count(2), count(4)), (3, 3, 5));
}

#[test]
fn a_moved_slice_brings_no_tokens() {
    let terms = amount(100, 1000, 100);
    let sidecars = [WHOLE / 2, WHOLE / 2].map(|share| LimitState::new(at(0), terms, true, share, 1));
    let mut rng = fastrand::Rng::with_seed(3);
    let (mut now, mut admitted, mut first) = (at(0), 0, WHOLE / 2);
    for _ in 0..5000 {
        now = now.after(Duration::from_millis(rng.u64(..5)));
        if rng.u8(..50) == 0 {
            let next = rng.u32(1..WHOLE);
            // The one that gets less is told first.
            let mut both = [(0, next), (1, WHOLE - next)];
            if next > first {
                both.reverse();
            }
            both.iter().for_each(|(at, share)| sidecars[*at].set_share(now, *share));
            first = next;
        }
        admitted +=
            u32::from(take(&sidecars[rng.usize(..2)], now)) + u32::from(take(&sidecars[rng.usize(..2)], now));
    }
    let most = 100.0 + 100.0 * now.since(at(0)).as_secs_f64();
    assert!(f64::from(admitted) <= most + 1.0, "{admitted} of {most}");
    assert!(f64::from(admitted) > most * 0.5, "{admitted} of {most}");
}

#[test]
fn keys_have_buckets_of_their_own() {
    let by = [LimitKey::Header("x-tenant".into()), LimitKey::Capability];
    let limits = limits(&[&limit("default/l", amount(1, 60_000, 2), &by)]);
    let (a, b) = (get().with("x-tenant", "a"), get().with("x-tenant", "b"));
    assert_eq!(through(&limits, &a, at(0), 5), 2);
    assert_eq!(through(&limits, &b, at(0), 5), 2);
    assert_eq!(through(&limits, &get(), at(0), 5), 2, "those without the header share one");
    assert_eq!(through(&limits, &get().with("x-tenant", ""), at(0), 5), 2, "an empty value is a value");
    let call = Call { capabilities: vec!["Plan@^1".into(), "search".into()], ..Call::default() };
    let same = Call { capabilities: vec!["search".into(), "plan".into()], ..Call::default() };
    let mut asked = [&call, &same, &same]
        .map(|call| limits.admit(at(0), &Asking { head: &a, call, caller: None }).is_ok());
    assert_eq!(asked, [true, true, false]);
    asked.reverse();
    let callers = self::limits(&[&limit("default/c", amount(1, 60_000, 1), &[LimitKey::Caller])]);
    let from = |caller| callers.admit(at(0), &Asking { head: &a, call: &call, caller }).is_ok();
    assert_eq!([from(Some("x")), from(Some("y")), from(Some("x")), from(None)], [true, true, false, true]);
}

#[test]
fn full_buckets_are_forgotten_and_then_new_keys_share_one() {
    let state = state(amount(1, 1000, 1));
    let take = |key: u64, millis| {
        let spread = key.wrapping_mul(0x9e37_79b9_7f4a_7c15);
        state.take(Some(spread), &state.pace.at(at(millis)))
    };
    for key in 0..MOST_KEYS as u64 {
        assert!(matches!(take(key, 0), Ok(Taken::Keyed(keyed::From::Key(_)))), "{key}");
    }
    assert_eq!(state.keys(), MOST_KEYS);
    // Nobody's bucket is full: one more key gets the bucket of all that have none, the next finds it empty.
    assert!(take(1_000_000, 10).is_ok());
    assert!(take(1_000_001, 10).is_err());
    assert_eq!(state.keys(), MOST_KEYS);
    assert!(take(5, 20).is_err(), "keys that have a bucket keep it");
    // A second later all are full; half of them are used again, and new keys take the places of the others.
    for key in 0..5000 {
        assert!(take(key, 1100).is_ok(), "{key}");
    }
    for key in 2_000_000..2_005_000 {
        assert!(take(key, 1200).is_ok(), "{key}");
        assert!(take(key, 1200).is_err(), "{key} has a bucket of its own");
    }
    for key in 0..5000 {
        assert!(take(key, 1200).is_err(), "{key} was used, so it was not forgotten");
    }
    assert_eq!(state.keys(), MOST_KEYS);
    let overflow = (3_000_000..3_000_010).filter(|key| take(*key, 1300).is_ok()).count();
    assert_eq!(overflow, 1);
}

#[test]
fn threads_with_new_keys_never_keep_too_many() {
    let state = state(amount(1, 50, 1));
    std::thread::scope(|scope| {
        for thread in 0..4 {
            let state = &state;
            scope.spawn(move || {
                let mut rng = fastrand::Rng::with_seed(thread);
                for step in 0..20_000 {
                    let _ = state.take(Some(rng.u64(..)), &state.pace.at(at(step / 100)));
                    assert!(state.keys() <= MOST_KEYS + 4);
                }
            });
        }
    });
    let real: usize = state.keyed.held();
    assert_eq!(state.keys(), real);
    assert!(real <= MOST_KEYS);
}

#[test]
fn a_call_is_within_all_limits_or_takes_from_none() {
    let (wide, narrow) = (
        limit("default/wide", amount(1, 60_000, 10), &[]),
        limit("default/narrow", amount(1, 30_000, 3), &[]),
    );
    let both = limits(&[&wide, &narrow]);
    assert_eq!(through(&both, &get(), at(0), 20), 3);
    assert_eq!(left(&wide.state, at(0)), 7, "a refused call spends nothing");
    assert_eq!(narrow.state.counts(), Counts { allowed: 3, limited: 17 });
    // Now both are empty: the one that takes longer is told.
    let asking = Asking { head: &get(), call: &Call::default(), caller: None };
    let deny = both.admit(at(0), &asking).unwrap_err();
    assert!(deny.detail.unwrap().contains("default/wide"));
}

#[test]
fn what_was_taken_in_vain_is_given_back() {
    // One limit twice: a look at each says yes, and the second taking finds the token gone, as when another was quicker.
    for by in [&[][..], &[LimitKey::Caller]] {
        let limit = limit("default/l", amount(1, 86_400_000, 3), by);
        assert_eq!(through(&limits(&[&limit, &limit]), &get(), at(0), 5), 1);
        assert_eq!(through(&limits(&[&limit]), &get(), at(0), 5), 1, "{by:?}");
    }
}

#[test]
fn many_threads_within_two_limits_lose_no_token() {
    let (one, other) = (
        limit("default/a", amount(1, 86_400_000, 5000), &[]),
        limit("default/b", amount(1, 86_400_000, 3000), &[]),
    );
    let both = limits(&[&one, &other]);
    let count: u32 = std::thread::scope(|scope| {
        let threads: Vec<_> = (0..4).map(|_| scope.spawn(|| through(&both, &get(), at(0), 2000))).collect();
        threads.into_iter().map(|thread| thread.join().unwrap()).sum()
    });
    assert_eq!(count, 3000);
    assert_eq!(left(&one.state, at(0)), 2000);
}

#[test]
fn a_dry_run_counts_and_refuses_nothing() {
    let dry = Arc::new(Limit {
        dry_run: true,
        ..Arc::into_inner(limit("default/dry", amount(1, 60_000, 2), &[])).unwrap()
    });
    assert_eq!(through(&limits(&[&dry]), &get(), at(0), 5), 5);
    assert_eq!(dry.state.counts(), Counts { allowed: 2, limited: 3 });
    let real = limit("default/real", amount(1, 60_000, 4), &[]);
    assert_eq!(through(&limits(&[&dry, &real]), &get(), at(0), 9), 4);
}

#[test]
fn a_refusal_says_when_to_come_back() {
    let limits = limits(&[&limit("default/search", amount(10, 1500, 1), &[])]);
    assert_eq!(through(&limits, &get(), at(0), 2), 1);
    let deny =
        limits.admit(at(0), &Asking { head: &get(), call: &Call::default(), caller: None }).unwrap_err();
    assert_eq!(deny.reason, Reason::RateLimited);
    let header = |name| deny.headers.iter().find(|(known, _)| *known == name).map(|(_, value)| &**value);
    assert_eq!(header("retry-after"), Some("1"), "whole seconds, rounded up");
    assert_eq!(header("ratelimit-policy"), Some("\"default/search\";q=20;w=3"));
    assert_eq!(header("ratelimit"), Some("\"default/search\";r=0;t=1"));
    assert_eq!(in_seconds(5, Duration::from_millis(1)), (5000, 1));
    assert_eq!(in_seconds(7, Duration::from_secs(60)), (7, 60));
    assert_eq!(in_seconds(7, Duration::from_millis(60_500)), (14, 121));
}
