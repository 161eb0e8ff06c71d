//! A key is done once: the window against a model, many threads, and the pin over endpoints that fail in every way.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::time::Duration;

use super::*;
use crate::clock::Micros;

#[derive(Debug, Default)]
struct Rung(Arc<AtomicUsize>);

impl Bell for Rung {
    type Listener = Arc<AtomicUsize>;

    fn listen(&self) -> Arc<AtomicUsize> {
        Arc::clone(&self.0)
    }

    fn ring(&self) {
        self.0.fetch_add(1, Relaxed);
    }
}

type Memory = Window<u32, Rung>;
type Its = Ticket<u32, Rung>;

const SECOND: u64 = 1_000_000;

fn id(n: u8) -> window::Id {
    [n; 32]
}

fn at(seconds: u64) -> Micros {
    Micros(seconds * SECOND)
}

fn small(keys: usize) -> DedupSettings {
    DedupSettings { window: Duration::from_secs(10), keys }
}

fn first(claim: Claim<u32, Rung>) -> Its {
    let Claim::First(ticket) = claim else { panic!("not the first: {claim:?}") };
    ticket
}

#[test]
fn dedup_a_key_is_what_the_field_says_quoted_or_bare() {
    for (value, wanted) in [
        ("abc", Some("abc")),
        ("  a b, c  ", Some("a b, c")),
        (r#""abc""#, Some("abc")),
        (r#""a\"b\\c" ; x=1"#, Some(r#"a"b\c"#)),
        ("", None),
        ("  ", None),
        (r#""""#, None),
        (r#""abc"#, None),
        (r#""a\bc""#, None),
        (r#""abc" d"#, None),
        ("a\tb", None),
        ("schlüssel", None),
    ] {
        assert_eq!(key(value.as_bytes()).as_deref(), wanted, "{value}");
    }
    assert!(key(&[b'k'; LONGEST_KEY]).is_some());
    assert!(key(&[b'k'; LONGEST_KEY + 1]).is_none());
    assert!(key(&[&b"\""[..], &[b'k'; 2 * LONGEST_KEY], b"\""].concat()).is_none());
}

#[test]
fn dedup_a_repeat_waits_for_the_first_and_gets_its_answer() {
    let window = Memory::new(1000);
    let body = Some([7; 32]);
    let claim = |seconds| window.claim(id(1), body, small(10), at(seconds));
    let mut ticket = first(claim(0));
    let Claim::Running(bell) = claim(1) else { panic!("it runs") };
    assert!(matches!(window.claim(id(1), Some([8; 32]), small(10), at(1)), Claim::OtherBody));
    assert!(ticket.reserve(100));
    assert_eq!(bell.load(Relaxed), 0);
    ticket.end(Ending::Answered(42), at(100));
    assert_eq!(bell.load(Relaxed), 1);
    assert!(matches!(claim(109), Claim::Kept(answer) if *answer == 42));
    assert!(matches!(window.claim(id(1), Some([8; 32]), small(10), at(109)), Claim::OtherBody));
    assert_eq!((window.keys(), window.bytes()), (1, 100));
    drop(first(claim(110)));
    assert_eq!((window.keys(), window.bytes()), (1, 0));
}

#[test]
fn dedup_what_was_not_begun_frees_its_key_and_what_may_have_been_does_not() {
    let window = Memory::new(1000);
    let claim = |n, seconds| window.claim(id(n), Some([0; 32]), small(10), at(seconds));
    first(claim(1, 0)).end(Ending::NotStarted, at(0));
    assert_eq!(window.keys(), 0);
    first(claim(1, 0)).end(Ending::Unknown, at(5));
    assert!(matches!(claim(1, 14), Claim::Unknown));
    // A ticket that is dropped says no time: the key is remembered for the whole window from the next look on.
    drop(first(claim(2, 0)));
    assert!(matches!(claim(2, 1000), Claim::Unknown));
    assert!(matches!(claim(2, 1009), Claim::Unknown));
    first(claim(2, 1010)).end(Ending::NotKept, at(1010));
    assert!(matches!(claim(2, 1019), Claim::NotKept));
}

#[test]
fn dedup_an_answer_without_its_whole_request_or_without_room_is_not_kept() {
    let window = Memory::new(100);
    let claim = |n, body| window.claim(id(n), body, small(10), at(0));
    let ticket = first(claim(1, None));
    assert!(matches!(claim(1, Some([1; 32])), Claim::Running(_)), "nobody knows the first's body yet");
    ticket.end(Ending::Answered(1), at(0));
    assert!(matches!(claim(1, Some([1; 32])), Claim::NotKept));
    let ticket = first(claim(2, None));
    ticket.body_is([1; 32]);
    assert!(matches!(claim(2, Some([2; 32])), Claim::OtherBody));
    ticket.end(Ending::Answered(2), at(0));
    assert!(matches!(claim(2, Some([1; 32])), Claim::Kept(_)));

    let (mut one, mut two) = (first(claim(3, Some([0; 32]))), first(claim(4, Some([0; 32]))));
    assert!(one.reserve(60) && two.reserve(40) && !two.reserve(1));
    assert_eq!(window.bytes(), 60, "who gets no more gives back what it had");
    one.will_not_keep();
    assert_eq!(window.bytes(), 0);
    assert!(matches!(claim(3, Some([0; 32])), Claim::NotKept), "known before it has ended");
}

/// Random calls, ends and times against a model that remembers for each key when it may be done again.
#[test]
fn dedup_never_lets_two_through() {
    for seed in 0..300 {
        let mut rng = fastrand::Rng::with_seed(seed);
        let settings = DedupSettings { window: Duration::from_secs(rng.u64(1..20)), keys: rng.usize(1..6) };
        let (window, mut now) = (Memory::new(50), Micros(0));
        let mut running: Vec<(u8, Its)> = Vec::new();
        // Until when a key must not be done again; `None`: for as long as it runs.
        let mut taken: BTreeMap<u8, Option<Micros>> = BTreeMap::new();
        for _ in 0..400 {
            now = now.after(Duration::from_millis(rng.u64(0..3000)));
            taken.retain(|_, until| until.is_none_or(|until| until > now));
            if rng.u8(..3) == 0 && !running.is_empty() {
                let (key, mut ticket) = running.swap_remove(rng.usize(..running.len()));
                let until = now.after(settings.window);
                let ending = match rng.u8(..4) {
                    0 => Ending::NotStarted,
                    1 => Ending::Unknown,
                    2 => Ending::NotKept,
                    _ if ticket.reserve(rng.usize(..30)) => Ending::Answered(u32::from(key)),
                    _ => Ending::NotKept,
                };
                match ending {
                    Ending::NotStarted => drop(taken.remove(&key)),
                    _ => drop(taken.insert(key, Some(until))),
                }
                ticket.end(ending, now);
                continue;
            }
            let key = rng.u8(..12);
            let claim = window.claim(id(key), Some([key; 32]), settings, now);
            match (&claim, taken.get(&key)) {
                (Claim::First(_), None) => {}
                (Claim::First(_), Some(_)) => panic!("seed {seed}: key {key} is done twice"),
                (Claim::Full, None) => assert!(taken.len() >= settings.keys, "seed {seed}: there is room"),
                (Claim::Running(_), Some(None)) => {}
                (Claim::Kept(answer), Some(Some(_))) => assert_eq!(**answer, u32::from(key)),
                (Claim::NotKept | Claim::Unknown, Some(Some(_))) => {}
                other => panic!("seed {seed}: key {key}: {other:?}"),
            }
            if let Claim::First(ticket) = claim {
                taken.insert(key, None);
                running.push((key, ticket));
            }
            assert!(window.keys() <= settings.keys && window.bytes() <= 50);
        }
        drop(running);
    }
}

/// All workers claim the same keys at once: each key is done by one.
#[test]
fn dedup_never_lets_two_through_of_many_threads() {
    let window = Memory::new(1 << 20);
    let done: Arc<[AtomicUsize]> = (0..200).map(|_| AtomicUsize::new(0)).collect();
    std::thread::scope(|scope| {
        for thread in 0..4 {
            let (window, done) = (&window, &done);
            scope.spawn(move || {
                let mut order: Vec<u8> = (0..200).collect();
                fastrand::Rng::with_seed(thread).shuffle(&mut order);
                for key in order {
                    let claim = window.claim(id(key), Some([0; 32]), small(1000), at(0));
                    if let Claim::First(ticket) = claim {
                        done[usize::from(key)].fetch_add(1, Relaxed);
                        ticket.end(Ending::Answered(0), at(0));
                    }
                }
            });
        }
    });
    assert!(done.iter().all(|times| times.load(Relaxed) == 1));
    assert_eq!(window.keys(), 200);
}

/// A call of the model, and where its try under way went: the endpoint and the epoch.
type Call = (Option<Pin>, Option<(usize, u32)>);

/// A receiving sidecar of the model: its window's epoch, and whether it has begun the call.
#[derive(Default)]
struct Receiver {
    epoch: u32,
    begun: bool,
}

/// A few calls with one key, at once and one after the other, over endpoints that fail in every way, restart, and forget:
/// whatever happens there is at most one execution.
#[test]
fn dedup_a_pinned_call_is_never_done_twice() {
    let mut lost = 0;
    for seed in 0..5000 {
        let mut rng = fastrand::Rng::with_seed(seed);
        let address = |n: usize| SocketAddr::from(([10, 0, 0, 1], 1000 + n as u16));
        let mut receivers: Vec<Receiver> = (0..3).map(|_| Receiver::default()).collect();
        // What the calling sidecar believes.
        let mut known: Vec<u32> = vec![0; 3];
        let pins = Arc::new(Pins::default());
        let mut calls: Vec<Call> = (0..3).map(|_| (None, None)).collect();
        let mut executions = 0;
        for step in 0..40 {
            if rng.u8(..8) == 0 {
                let restarted = &mut receivers[rng.usize(..3)];
                *restarted = Receiver { epoch: restarted.epoch + 1, begun: false };
            }
            let (call, under_way) = &mut calls[rng.usize(..3)];
            let Some(pin) = call else {
                *call = pins.take(id(1), small(10), at(step / 20));
                continue;
            };
            if let Some((at, epoch)) = under_way.take() {
                let receiver = &mut receivers[at];
                // It arrives or not; then it is refused, or done, and its answer lost on the way or not.
                let how = match rng.u8(..6) {
                    0 => Tried::NotStarted,
                    _ if receiver.epoch != epoch => {
                        known[at] = receiver.epoch;
                        Tried::OtherEpoch
                    }
                    1 => Tried::MayHaveStarted,
                    _ => {
                        executions += u32::from(!std::mem::replace(&mut receiver.begun, true));
                        Tried::MayHaveStarted
                    }
                };
                let was_bound = pin.is_bound();
                match rng.u8(..5) {
                    // The caller goes away: nobody hears how it ended.
                    0 if how == Tried::MayHaveStarted => *call = None,
                    _ => {
                        pin.tried(how);
                        assert!(pin.is_bound() || !was_bound, "seed {seed}: never forgotten");
                    }
                }
                continue;
            }
            let place = match pin.next() {
                _ if rng.u8(..8) == 0 => {
                    *call = None;
                    continue;
                }
                Where::Nowhere => {
                    lost += 1;
                    continue;
                }
                Where::Only(..) if rng.u8(..16) == 0 => {
                    pin.gone();
                    continue;
                }
                Where::Only(endpoint, epoch) => {
                    (usize::from(endpoint.port() - 1000), epoch.parse::<u32>().unwrap())
                }
                Where::Anywhere => {
                    let at = rng.usize(..3);
                    (at, known[at])
                }
            };
            // Another call may be placed between the question and the choice.
            if pin.choose(address(place.0), &Arc::from(place.1.to_string())) {
                *under_way = Some(place);
            }
        }
        assert!(executions <= 1, "seed {seed}: done {executions} times");
        drop(calls);
        assert!(pins.keys() <= 1);
    }
    assert!(lost > 100, "the model reaches the end of what can be known");
}

#[test]
fn dedup_a_key_stays_where_it_may_have_been_done_and_is_forgotten_in_time() {
    let pins = Arc::new(Pins::default());
    let endpoint = |n| SocketAddr::from(([10, 0, 0, 1], n));
    let (one, two): (Arc<str>, Arc<str>) = ("e1".into(), "e2".into());
    let take = |n, seconds| pins.take(id(n), small(2), at(seconds)).unwrap();
    let mut pin = take(1, 0);
    assert_eq!(pin.next(), Where::Anywhere);
    assert!(pin.choose(endpoint(1), &one));
    pin.tried(Tried::NotStarted);
    assert_eq!(pin.next(), Where::Anywhere, "nothing was begun");
    assert!(pin.choose(endpoint(2), &two));
    assert!(!take(1, 0).choose(endpoint(1), &one), "the same call at the same time goes to the same place");
    pin.tried(Tried::MayHaveStarted);
    drop(pin);
    let mut again = take(1, 5);
    assert_eq!(again.next(), Where::Only(endpoint(2), Arc::clone(&two)));
    assert!(again.choose(endpoint(2), &two));
    again.tried(Tried::NotStarted);
    assert_eq!(again.next(), Where::Only(endpoint(2), Arc::clone(&two)), "the try before may have begun it");
    assert!(again.choose(endpoint(2), &two));
    again.tried(Tried::OtherEpoch);
    assert_eq!((again.next(), again.is_bound()), (Where::Nowhere, true));
    drop(again);
    let other = take(2, 6);
    assert!(pins.take(id(3), small(2), at(6)).is_none(), "full, and nothing may be forgotten");
    drop(other);
    assert!(pins.take(id(3), small(2), at(6)).is_some());
    assert_eq!(take(1, 15).next(), Where::Nowhere);
    // A look into the same part of the table times what was dropped.
    drop(take(17, 16));
    assert_eq!(take(1, 26).next(), Where::Anywhere, "ten seconds after the last call with this key");
}
