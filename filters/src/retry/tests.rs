//! What is repeated and what never is: tables, and random courses of failures through policy, budget and selection.

use std::sync::Arc;

use super::*;
use crate::balance::{Algorithm, Pick};
use crate::budget::{BudgetPolicy, RetryPermit};
use crate::clock::Micros;
use crate::fixture::{Make, at, number};

const METHODS: [&str; 8] = ["GET", "HEAD", "OPTIONS", "TRACE", "PUT", "DELETE", "POST", "PATCH"];

fn answered(status: u16) -> Happened {
    Happened::Answered(Answer { status, ..Answer::default() })
}

fn grpc(code: u32) -> Happened {
    Happened::Answered(Answer { status: 200, grpc: Some(code), ..Answer::default() })
}

fn pushed(status: u16, pushback: Pushback) -> Happened {
    Happened::Answered(Answer { status, pushback, ..Answer::default() })
}

fn on(words: &str) -> RetryOn {
    let numbers: Vec<u16> = words.split(',').filter_map(|word| word.parse().ok()).collect();
    RetryOn::new(words.split(',').filter_map(Word::parse), &numbers)
}

fn policy(words: &str) -> RetryPolicy {
    RetryPolicy { on: on(words), ..RetryPolicy::default() }
}

#[test]
fn retry_words_cover_what_envoys_do() {
    use Happened::{NotConnected, NotProcessed, Reset, Stale, TimedOut};
    let limited = Happened::Answered(Answer { status: 429, rate_limited: true, ..Answer::default() });
    let all = [
        ("not-connected", NotConnected),
        ("not-processed", NotProcessed),
        ("stale", Stale),
        ("reset", Reset),
        ("timed-out", TimedOut),
        ("200", answered(200)),
        ("409", answered(409)),
        ("429", answered(429)),
        ("limited", limited),
        ("500", answered(500)),
        ("503", answered(503)),
        ("grpc-1", grpc(1)),
        ("grpc-4", grpc(4)),
        ("grpc-8", grpc(8)),
        ("grpc-13", grpc(13)),
        ("grpc-14", grpc(14)),
    ];
    for (words, covered) in [
        ("5xx", "not-connected not-processed stale reset timed-out 500 503"),
        ("gateway-error", "not-connected not-processed stale reset timed-out 503"),
        ("reset", "not-connected not-processed stale reset timed-out"),
        ("reset-before-request", "not-connected"),
        ("connect-failure", "not-connected stale"),
        ("retriable-4xx", "409"),
        ("refused-stream", "not-processed"),
        ("envoy-ratelimited", "limited"),
        ("cancelled", "grpc-1"),
        ("deadline-exceeded", "grpc-4"),
        ("internal", "grpc-13"),
        ("resource-exhausted", "grpc-8"),
        ("unavailable", "grpc-14"),
        ("429,500", "429 500"),
        ("retriable-status-codes", ""),
        ("retriable-headers", ""),
        (
            "connect-failure,refused-stream,unavailable,cancelled",
            "not-connected not-processed stale grpc-1 grpc-14",
        ),
    ] {
        let on = on(words);
        let found: Vec<&str> =
            all.iter().filter(|(_, what)| on.covers(*what)).map(|(name, _)| *name).collect();
        assert_eq!(found.join(" "), covered, "{words}");
    }
    assert_eq!(on("connect-failure,refused-stream,unavailable,cancelled"), RetryOn::default());
    assert_eq!(RetryOn::default().words().count(), 4);
}

#[test]
fn what_may_have_been_done_is_repeated_only_where_twice_is_once() {
    let after = [Happened::Stale, Happened::Reset, Happened::TimedOut, answered(503), grpc(14)];
    for method in METHODS {
        let nature = Nature::of(method);
        let idempotent = !matches!(method, "POST" | "PATCH");
        for safety in [Safety::Strict, Safety::Istio] {
            for never_started in [Happened::NotConnected, Happened::NotProcessed] {
                for keyed in [Keyed::No, Keyed::There] {
                    assert_eq!(may_repeat(nature, keyed, safety, never_started), Where::Anywhere, "{method}");
                }
            }
            for happened in after {
                let expected = match (idempotent, safety) {
                    (false, Safety::Strict) => Where::Nowhere,
                    _ => Where::Anywhere,
                };
                assert_eq!(
                    may_repeat(nature, Keyed::No, safety, happened),
                    expected,
                    "{method} {happened:?}"
                );
                assert_eq!(
                    may_repeat(nature, Keyed::There, safety, happened),
                    Where::Same,
                    "{method} {happened:?}"
                );
            }
        }
    }
}

#[test]
fn retry_waits_double_with_full_jitter_up_to_ten_times_the_first() {
    let policy = RetryPolicy { attempts: 100, ..policy("5xx") };
    let mut rng = fastrand::Rng::with_seed(3);
    for (tries, cap) in [(1, 25), (2, 50), (3, 100), (4, 200), (5, 250), (6, 250), (60, 250), (100, 250)] {
        let waits: Vec<Duration> = (0..500)
            .map(|_| policy.again(tries, Nature::Safe, Keyed::No, answered(503), &mut rng).unwrap().wait)
            .collect();
        let (least, most) = (*waits.iter().min().unwrap(), *waits.iter().max().unwrap());
        let cap = Duration::from_millis(cap);
        assert!(most <= cap && most > cap * 9 / 10 && least < cap / 10, "try {tries}: {least:?} to {most:?}");
    }
    assert_eq!(policy.again(101, Nature::Safe, Keyed::No, answered(503), &mut rng), None);
}

#[test]
fn retry_after_and_pushback_are_honoured_up_to_300_s() {
    let mut rng = fastrand::Rng::with_seed(1);
    let mut wait = |pushback| {
        let again = policy("5xx").again(1, Nature::Safe, Keyed::No, pushed(503, pushback), &mut rng);
        again.map(|again| again.wait)
    };
    let two = wait(Pushback::After(Duration::from_secs(2))).unwrap();
    assert!(two >= Duration::from_secs(2) && two < Duration::from_millis(2100), "{two:?}");
    assert_eq!(wait(Pushback::After(Duration::from_secs(300))), Some(Duration::from_secs(300)));
    assert_eq!(wait(Pushback::Never), None);
    let now = || 784_111_777 - 30; // 30 s before the RFC's example.
    for (grpc, after, expected) in [
        (None, None, Pushback::None),
        (None, Some("7"), Pushback::After(Duration::from_secs(7))),
        (None, Some(" 7 "), Pushback::After(Duration::from_secs(7))),
        (None, Some("301"), Pushback::After(Duration::from_secs(300))),
        (None, Some("99999999999999999999999"), Pushback::After(Duration::from_secs(300))),
        (None, Some("-7"), Pushback::None),
        (None, Some("soon"), Pushback::None),
        (None, Some(""), Pushback::None),
        (None, Some("Sun, 06 Nov 1994 08:49:37 GMT"), Pushback::After(Duration::from_secs(30))),
        (None, Some("Sun, 06 Nov 1994 07:49:37 GMT"), Pushback::After(Duration::ZERO)),
        (None, Some("Sun, 06 Nov 2094 07:49:37 GMT"), Pushback::After(Duration::from_secs(300))),
        (None, Some("Sun, 06 Xyz 1994 07:49:37 GMT"), Pushback::None),
        (Some("250"), Some("7"), Pushback::After(Duration::from_millis(250))),
        (Some("-1"), Some("7"), Pushback::Never),
        (Some("x"), None, Pushback::Never),
        (Some("999999999"), None, Pushback::After(Duration::from_secs(300))),
    ] {
        let read = Pushback::read(grpc.map(str::as_bytes), after.map(str::as_bytes), now);
        assert_eq!(read, expected, "{grpc:?} {after:?}");
    }
    assert_eq!(after::date(b"Thu, 01 Jan 1970 00:00:00 GMT"), Some(0));
    assert_eq!(after::date(b"Thu, 29 Feb 2024 23:59:59 GMT"), Some(1_709_251_199));
    assert_eq!(after::date(b"Fri, 31 Dec 9999 23:59:59 GMT"), Some(253_402_300_799));
}

#[test]
fn a_body_is_kept_only_for_a_retry_that_could_send_it_again() {
    let default = RetryPolicy::default();
    let off = RetryPolicy { attempts: 0, ..RetryPolicy::default() };
    let istio = RetryPolicy { safety: Safety::Istio, ..RetryPolicy::default() };
    // A POST over HTTP/1.1 that was begun is never sent again.
    assert!(!default.may_replay(Nature::Once, Keyed::No, false));
    assert!(default.may_replay(Nature::Once, Keyed::No, true));
    assert!(default.may_replay(Nature::Once, Keyed::There, false));
    assert!(default.may_replay(Nature::Idempotent, Keyed::No, false));
    assert!(istio.may_replay(Nature::Once, Keyed::No, false));
    assert!(!off.may_replay(Nature::Idempotent, Keyed::No, true));
    // A receiving sidecar may have another window than was thought, and then the call is sent again at once.
    assert!(off.may_replay(Nature::Once, Keyed::There, false));
}

/// An upstream that remembers what it did.
#[derive(Default)]
struct Done {
    /// For each call: how often some endpoint may have done it.
    begun: u32,
    endpoints: Vec<u32>,
}

/// A call that goes its course against endpoints that fail at random: what is decided is what the proxy does.
fn course(seed: u64) {
    let mut rng = fastrand::Rng::with_seed(seed);
    let cluster = Make::even(Algorithm::LeastRequest, rng.u32(1..6)).build();
    let policy = RetryPolicy {
        attempts: rng.u32(..6),
        on: [
            on("5xx,retriable-4xx,429,envoy-ratelimited,unavailable,cancelled,internal"),
            RetryOn::default(),
        ][rng.usize(..2)]
        .clone(),
        safety: [Safety::Strict, Safety::Strict, Safety::Istio][rng.usize(..3)],
        ignore_previous_hosts: rng.bool(),
        ..RetryPolicy::default()
    };
    let method = METHODS[rng.usize(..METHODS.len())];
    let nature = Nature::of(method);
    let (mut now, mut tries, mut done) = (at(0), 0, Done::default());
    let mut tried = Vec::new();
    let mut permit: Option<RetryPermit> = None;
    let ends = now.after(Duration::from_millis(rng.u64(1..2000)));
    loop {
        let pick = Pick { key: None, now, tried: &tried, remote: false, compared: None };
        let lease = cluster.pick(&pick, &mut rng).unwrap();
        tries += 1;
        assert!(tries <= policy.attempts + 1, "seed {seed}: too many tries");
        let happened = match rng.u32(..10) {
            0 | 1 => Happened::NotConnected,
            2 => Happened::NotProcessed,
            3 => Happened::Stale,
            4 => Happened::Reset,
            5 => Happened::TimedOut,
            6 => answered(503),
            7 => grpc(14),
            8 => answered(429),
            _ => answered(200),
        };
        if !happened.never_started() {
            done.begun += 1;
            done.endpoints.push(number(&lease));
        }
        permit.take();
        let again = policy.again(tries, nature, Keyed::No, happened, &mut rng);
        let Some(again) = again else { break };
        if now.after(again.wait) >= ends {
            break;
        }
        if !again.free {
            let budget = BudgetPolicy::default();
            let Some(place) = RetryPermit::try_acquire(&cluster.limits, &budget, now, || cluster.in_flight())
            else {
                break;
            };
            permit = Some(place);
        }
        if policy.ignore_previous_hosts && happened != Happened::Stale {
            tried.push(lease.endpoint().addr);
        }
        now = now.after(again.wait);
        assert!(now < ends, "seed {seed}: a wait goes past the deadline");
    }
    drop(permit);
    assert_eq!(
        (cluster.in_flight(), cluster.limits.budget().active()),
        (0, 0),
        "seed {seed}: a place leaked"
    );
    if nature == Nature::Once && policy.safety == Safety::Strict {
        assert!(
            done.begun <= 1,
            "seed {seed}: {method} may have been done {} times, at {:?}",
            done.begun,
            done.endpoints
        );
    }
}

#[test]
fn no_random_course_of_failures_makes_a_retry_do_twice_what_must_be_done_once() {
    for seed in 0..20_000 {
        course(seed);
    }
}

#[test]
fn a_retry_goes_to_an_endpoint_that_was_not_tried_while_there_is_one() {
    let cluster = Make::even(Algorithm::LeastRequest, 5).build();
    let mut rng = fastrand::Rng::with_seed(9);
    for _ in 0..200 {
        let mut tried = Vec::new();
        for _ in 0..5 {
            let lease = cluster
                .pick(&Pick { key: None, now: at(0), tried: &tried, remote: false, compared: None }, &mut rng)
                .unwrap();
            assert!(!tried.contains(&lease.endpoint().addr));
            tried.push(lease.endpoint().addr);
        }
        // With all of them tried, any is as good.
        assert!(
            cluster
                .pick(&Pick { key: None, now: at(0), tried: &tried, remote: false, compared: None }, &mut rng)
                .is_ok()
        );
    }
}

#[test]
fn the_default_retry_policy_is_istios() {
    let default = RetryPolicy::default();
    assert_eq!((default.attempts, default.backoff), (2, Duration::from_millis(25)));
    assert!(default.ignore_previous_hosts && !default.remote_localities && default.per_try_timeout.is_none());
    assert_eq!((default.safety, default.buffer), (Safety::Strict, 65_536));
    let _ = (Arc::new(default), Micros(0));
}
