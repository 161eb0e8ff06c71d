//! Properties of the line and the gate, a stress over threads, and overload against a model of an agent.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::task::{Context, Poll, Waker};
use std::time::Instant;

use super::*;
use crate::clock::Micros;
use crate::concurrency::{Bounds, Limit};

fn poll<T>(waiter: &mut Waiter<T>) -> Poll<Result<T, Overloaded>> {
    waiter.poll(&mut Context::from_waker(Waker::noop()))
}

fn gate(limit: Limit, size: u32) -> std::sync::Arc<Gate> {
    let gate = Gate::new(1);
    gate.configure(limit, QueuePolicy { size, ..QueuePolicy::default() });
    gate
}

fn later(entered: Result<Entered, Overloaded>) -> Waiter<Place> {
    match entered {
        Ok(Entered::Later(waiter)) => waiter,
        other => panic!("it does not wait: {other:?}"),
    }
}

fn now(entered: Result<Entered, Overloaded>) -> Place {
    match entered {
        Ok(Entered::Now(place)) => place,
        other => panic!("it is not served: {other:?}"),
    }
}

#[test]
fn important_calls_go_first_and_equals_in_their_order() {
    let gate = gate(Limit::Fixed(1), 10);
    let place = now(gate.enter(Micros(0), Priority::Default));
    use Priority::{Critical, Default, Sheddable};
    let mut all: Vec<_> = [Sheddable, Default, Default, Critical, Sheddable, Critical]
        .into_iter()
        .map(|priority| later(gate.enter(Micros(1), priority)))
        .collect();
    drop(place);
    let mut order = Vec::new();
    for _ in 0..all.len() {
        let ready: Vec<_> = (0..all.len())
            .filter_map(|at| match poll(&mut all[at]) {
                Poll::Ready(Ok(place)) => Some((at, place)),
                _ => None,
            })
            .collect();
        assert_eq!(ready.len(), 1);
        order.push(ready[0].0);
    }
    assert_eq!(order, [3, 5, 1, 2, 0, 4]);
    assert_eq!((gate.in_service(), gate.line().waiting()), (0, 0));
}

#[test]
fn in_a_full_line_the_longest_waiting_of_the_least_important_gives_way() {
    let gate = gate(Limit::Fixed(1), 2);
    let _place = now(gate.enter(Micros(0), Priority::Default));
    let mut first = later(gate.enter(Micros(1), Priority::Sheddable));
    let mut second = later(gate.enter(Micros(2), Priority::Default));
    let mut third = later(gate.enter(Micros(3), Priority::Default));
    assert!(matches!(poll(&mut first), Poll::Ready(Err(Overloaded))), "the sheddable one gives way");
    let mut fourth = later(gate.enter(Micros(4), Priority::Default));
    assert!(matches!(poll(&mut second), Poll::Ready(Err(Overloaded))), "then the longest waiting");
    assert!(gate.enter(Micros(5), Priority::Sheddable).is_err(), "all who wait are more important");
    let mut fifth = later(gate.enter(Micros(6), Priority::Critical));
    assert!(matches!(poll(&mut third), Poll::Ready(Err(Overloaded))));
    assert!(poll(&mut fourth).is_pending() && poll(&mut fifth).is_pending());
    assert_eq!(Priority::ALL.map(|priority| gate.line().refused(priority)), [2, 2, 0]);
}

#[test]
fn who_goes_away_leaves_the_line_and_what_was_given_to_him_goes_on() {
    let gate = gate(Limit::Fixed(1), 10);
    let place = now(gate.enter(Micros(0), Priority::Default));
    let gone = later(gate.enter(Micros(1), Priority::Critical));
    let mut next = later(gate.enter(Micros(1), Priority::Default));
    let last = later(gate.enter(Micros(1), Priority::Sheddable));
    drop(last);
    assert_eq!(gate.line().waiting(), 2);
    drop(place);
    // The place is the critical call's, whose caller goes away before it sees that.
    assert!(poll(&mut next).is_pending());
    drop(gone);
    assert!(matches!(poll(&mut next), Poll::Ready(Ok(_))));
    drop(next);
    assert_eq!((gate.in_service(), gate.line().waiting()), (0, 0));
}

#[test]
fn a_standing_line_serves_the_newest_and_drops_from_the_front() {
    let gate = gate(Limit::Fixed(1), 100);
    let place = now(gate.enter(Micros(0), Priority::Default));
    let at = |ms: u64| Micros(ms * 1000);
    let mut old: Vec<_> = (0..5).map(|i| later(gate.enter(at(i), Priority::Default))).collect();
    let mut newest = later(gate.enter(at(1200), Priority::Default));
    for waiter in &mut old[..4] {
        assert!(matches!(poll(waiter), Poll::Ready(Err(Overloaded))), "dropped: they wait in vain");
    }
    assert!(poll(&mut old[4]).is_pending(), "as many stay as there are places");
    drop(place);
    assert!(matches!(poll(&mut newest), Poll::Ready(Ok(_))), "the newest goes first");
}

#[test]
fn sheddable_calls_get_one_place_in_ten_that_critical_calls_leave() {
    let gate = gate(Limit::Fixed(1), 1000);
    let place = now(gate.enter(Micros(0), Priority::Default));
    let mut waiting: Vec<_> = (0..200)
        .map(|i| {
            let priority = if i % 2 == 0 { Priority::Default } else { Priority::Sheddable };
            (priority, later(gate.enter(Micros(1), priority)))
        })
        .collect();
    drop(place);
    let mut served = BTreeMap::new();
    for _ in 0..100 {
        let at = (0..waiting.len()).find(|at| waiting[*at].1.is_given()).unwrap();
        let (priority, mut waiter) = waiting.swap_remove(at);
        *served.entry(priority).or_insert(0) += 1;
        drop(poll(&mut waiter));
    }
    assert_eq!(served[&Priority::Sheddable], 10);
}

#[test]
fn a_lower_limit_takes_no_place_away_and_a_higher_one_lets_waiting_calls_in() {
    let gate = gate(Limit::Fixed(3), 10);
    let mut places: Vec<_> = (0..3).map(|_| now(gate.enter(Micros(0), Priority::Default))).collect();
    let mut waiting: Vec<_> = (0..4).map(|_| later(gate.enter(Micros(1), Priority::Default))).collect();
    gate.configure(Limit::Fixed(1), QueuePolicy::default());
    places.pop();
    places.pop();
    assert_eq!(gate.in_service(), 1);
    assert!(waiting.iter_mut().all(|waiter| poll(waiter).is_pending()));
    gate.configure(Limit::Fixed(3), QueuePolicy::default());
    assert_eq!(gate.in_service(), 3, "two of those who wait");
    gate.configure(Limit::None, QueuePolicy::default());
    assert!(waiting.iter_mut().all(|waiter| matches!(poll(waiter), Poll::Ready(Ok(_)))));
    assert_eq!(gate.line().waiting(), 0);
}

/// Random calls, ends, departures and changes of the limit on a manual clock: never more than the limit, never an idle place while
/// somebody waits, never more in the line than it holds, and everybody is told.
#[test]
fn random_sequences_never_exceed_the_limit_and_forget_nobody() {
    for seed in 0..60 {
        let mut rng = fastrand::Rng::with_seed(seed);
        let (mut limit, size) = (rng.u32(1..6), rng.u32(0..8));
        let policy = QueuePolicy { size, ..QueuePolicy::default() };
        let gate = Gate::new(seed);
        gate.configure(Limit::Fixed(limit), policy);
        let (mut places, mut waiting, mut time) = (Vec::new(), Vec::<Waiter<Place>>::new(), Micros(0));
        let mut lowered = false;
        for _ in 0..3000 {
            time = time.after(Duration::from_millis(rng.u64(..30)));
            match rng.u8(..100) {
                0..45 => match gate.enter(time, Priority::ALL[rng.usize(..3)]) {
                    Ok(Entered::Now(place)) => places.push(place),
                    Ok(Entered::Later(waiter)) => waiting.push(waiter),
                    Err(Overloaded) => {}
                },
                45..85 if !places.is_empty() => drop(places.swap_remove(rng.usize(..places.len()))),
                85..92 if !waiting.is_empty() => drop(waiting.swap_remove(rng.usize(..waiting.len()))),
                92..94 => {
                    let new = rng.u32(1..6);
                    lowered |= new < limit;
                    limit = new;
                    gate.configure(Limit::Fixed(limit), policy);
                }
                _ => {}
            }
            waiting = std::mem::take(&mut waiting)
                .into_iter()
                .filter_map(|mut waiter| match poll(&mut waiter) {
                    Poll::Pending if waiter.until() <= time => {
                        assert!(waiter.give_up().is_err());
                        None
                    }
                    Poll::Pending => Some(waiter),
                    Poll::Ready(Ok(place)) => {
                        places.push(place);
                        None
                    }
                    Poll::Ready(Err(Overloaded)) => None,
                })
                .collect();
            assert_eq!(gate.in_service() as usize, places.len(), "seed {seed}");
            assert_eq!(gate.line().waiting() as usize, waiting.len(), "seed {seed}");
            assert!(lowered || places.len() <= limit as usize, "seed {seed}: {} of {limit}", places.len());
            lowered &= places.len() > limit as usize;
            assert!(waiting.len() <= size as usize, "seed {seed}: {} wait", waiting.len());
            assert!(waiting.is_empty() || places.len() >= limit as usize, "seed {seed}: an idle place");
        }
        drop((places, waiting));
        assert_eq!((gate.in_service(), gate.line().waiting()), (0, 0), "seed {seed}");
    }
}

/// Threads that enter, wait, leave and give up at random: the limit holds at every moment, and nobody is left waiting while a
/// place is free (a lost wake-up would end this test by its own time limit).
#[test]
fn over_threads_the_limit_holds_and_no_wake_up_is_lost() {
    const LIMIT: u32 = 3;
    let gate = gate(Limit::Fixed(LIMIT), 64);
    let (inside, failed) = (AtomicU32::new(0), AtomicBool::new(false));
    let wake = |thread: std::thread::Thread| {
        struct Unpark(std::thread::Thread);
        impl std::task::Wake for Unpark {
            fn wake(self: std::sync::Arc<Self>) {
                self.0.unpark();
            }
        }
        Waker::from(std::sync::Arc::new(Unpark(thread)))
    };
    std::thread::scope(|scope| {
        for seed in 0..8 {
            let (gate, inside, failed) = (&gate, &inside, &failed);
            scope.spawn(move || {
                let mut rng = fastrand::Rng::with_seed(seed);
                let waker = wake(std::thread::current());
                for round in 0..4000u64 {
                    // The manual clock stands still: nobody is dropped for having waited.
                    let place = match gate.enter(Micros(round), Priority::ALL[rng.usize(..3)]) {
                        Ok(Entered::Now(place)) => place,
                        Err(Overloaded) => continue,
                        Ok(Entered::Later(mut waiter)) => {
                            let leaves = rng.u8(..) < 40;
                            let began = Instant::now();
                            let place = loop {
                                match waiter.poll(&mut Context::from_waker(&waker)) {
                                    Poll::Ready(place) => break place.ok(),
                                    Poll::Pending if leaves => break None,
                                    Poll::Pending => std::thread::park_timeout(Duration::from_secs(20)),
                                }
                                if began.elapsed() > Duration::from_secs(20) {
                                    failed.store(true, Ordering::SeqCst);
                                    return;
                                }
                            };
                            let Some(place) = place else { continue };
                            place
                        }
                    };
                    if inside.fetch_add(1, Ordering::SeqCst) >= LIMIT {
                        failed.store(true, Ordering::SeqCst);
                    }
                    if rng.bool() {
                        std::thread::yield_now();
                    }
                    inside.fetch_sub(1, Ordering::SeqCst);
                    drop(place);
                }
            });
        }
    });
    assert!(!failed.load(Ordering::SeqCst), "more than the limit at once, or a wake-up was lost");
    assert_eq!((gate.in_service(), gate.line().waiting()), (0, 0));
}

/// An agent with `slots` that serve one call each in `service` on average, asked for three times what it can do: one call in
/// ten is critical, one in five sheddable. Gives the share of capacity that was used by calls that were answered, and by
/// priority the share of calls that were.
struct Overload {
    goodput: f64,
    served: [f64; 3],
    refused_late: bool,
}

fn overload(limit: Limit, slots: usize, service: Duration, seed: u64) -> Overload {
    // In each, the agent could serve as many calls as it has slots.
    let rounds = (1500.0 / slots as f64).max(60.0);
    use std::cmp::Reverse;
    use std::collections::{BinaryHeap, VecDeque};
    let mut rng = fastrand::Rng::with_seed(seed);
    let gate = gate(limit, 100);
    let service = service.as_micros() as f64;
    let gap = service / slots as f64 / 3.0;
    // The agent: those that it works on (by when they end), and those that wait inside of it.
    let mut running: BinaryHeap<Reverse<(Micros, u64)>> = BinaryHeap::new();
    let mut inside: VecDeque<u64> = VecDeque::new();
    let mut calls: BTreeMap<u64, (Micros, Place)> = BTreeMap::new();
    let mut waiting: BTreeMap<u64, (Priority, Waiter<Place>)> = BTreeMap::new();
    let (mut asked, mut served, mut refused_late) = ([0f64; 3], [0f64; 3], false);
    let (mut time, mut id, mut ended) = (Micros(1), 0, 0f64);
    let mut arrival = Micros(1);
    // At first the limit is found; then it counts.
    let warm = Micros((service * rounds / 3.0) as u64).max(Micros(5_000_000));
    let end = Micros(warm.0 + (service * rounds) as u64);
    while time < end {
        let next_end = running.peek().map(|Reverse((at, _))| *at);
        let next_limit = waiting.values().map(|(_, waiter)| waiter.until()).min();
        time = [Some(arrival), next_end, next_limit].into_iter().flatten().min().unwrap_or(arrival).max(time);
        let counts = f64::from(u8::from(time >= warm));
        let mut starting = Vec::new();
        if time >= arrival {
            arrival = Micros(time.0 + (-rng.f64().max(1e-9).ln() * gap) as u64 + 1);
            let priority = match rng.u8(..10) {
                0 => Priority::Critical,
                1 | 2 => Priority::Sheddable,
                _ => Priority::Default,
            };
            asked[priority as usize] += counts;
            id += 1;
            match gate.enter(time, priority) {
                Ok(Entered::Now(place)) => {
                    served[priority as usize] += counts;
                    starting.push((id, place));
                }
                Ok(Entered::Later(waiter)) => {
                    waiting.insert(id, (priority, waiter));
                }
                Err(Overloaded) => {}
            }
        }
        while let Some(Reverse((at, done))) = running.peek().copied()
            && at <= time
        {
            running.pop();
            if let Some((began, place)) = calls.remove(&done) {
                place.answered(time, Some(time.since(began)));
            }
            ended += counts;
            if let Some(next) = inside.pop_front() {
                running.push(Reverse((Micros(time.0 + work(&mut rng, service)), next)));
            }
        }
        let told: Vec<u64> = waiting.keys().copied().collect();
        for one in told {
            let Some((priority, mut waiter)) = waiting.remove(&one) else { continue };
            match poll(&mut waiter) {
                Poll::Ready(Ok(place)) => {
                    served[priority as usize] += counts;
                    starting.push((one, place));
                }
                Poll::Ready(Err(Overloaded)) => {}
                Poll::Pending if waiter.until() <= time => {
                    refused_late |= time.since(waiter.until()) > Duration::from_millis(1);
                    drop(waiter.give_up());
                }
                Poll::Pending => {
                    waiting.insert(one, (priority, waiter));
                }
            }
        }
        for (one, place) in starting {
            calls.insert(one, (time, place));
            if running.len() < slots {
                running.push(Reverse((Micros(time.0 + work(&mut rng, service)), one)));
            } else {
                inside.push_back(one);
            }
        }
    }
    let capacity = slots as f64 * rounds;
    let share = |class: usize| served[class] / asked[class].max(1.0);
    Overload { goodput: ended / capacity, served: [share(0), share(1), share(2)], refused_late }
}

fn work(rng: &mut fastrand::Rng, service: f64) -> u64 {
    (service * (0.5 + rng.f64())) as u64
}

#[test]
fn at_three_times_overload_goodput_stays_and_critical_calls_succeed() {
    let of = [(8, 100), (8, 1000), (2, 500), (64, 250), (4, 3000)];
    for (slots, ms) in of {
        for limit in [Limit::Fixed(slots as u32), Limit::Adaptive(Bounds::default())] {
            let result = overload(limit, slots, Duration::from_millis(ms), slots as u64);
            let Overload { goodput, served: [sheddable, default, critical], refused_late } = result;
            let what = format!("{slots} slots, {ms} ms, {limit:?}");
            println!(
                "{what}: goodput {goodput:.3}, sheddable {sheddable:.3}, default {default:.3}, critical {critical:.3}"
            );
            assert!(goodput >= 0.9, "{what}: goodput {goodput:.3}");
            assert!(critical >= 0.99, "{what}: {critical:.4} of the critical calls");
            assert!(default >= 0.1, "{what}: {default:.3} of the default calls");
            assert!(!refused_late, "{what}: a call waited longer than it may");
        }
    }
}
