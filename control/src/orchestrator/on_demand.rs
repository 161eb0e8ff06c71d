//! How many replicas of an agent that is started on demand should run now, and which of them go first. No clocks, no memory.
//!
//! It does not flap, because it grows for those who wait only by what is not coming yet, and shrinks only by replicas that nobody used
//! for the agent's whole idle time.

use std::time::Duration;

use pilotfish_config::model::{Deployment, OnDemand};

/// One replica that runs, or is about to; those that are leaving are none.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Running {
    /// Its sidecar is registered and may be chosen.
    pub ready: bool,
    /// Calls in flight to it.
    pub in_flight: u32,
    /// How long it has had no call; of one that is not ready, how long it has been starting. `None`: not known.
    pub idle: Option<Duration>,
}

impl Running {
    /// Whether nobody would miss it.
    fn is_idle(&self, limit: Duration) -> bool {
        self.in_flight == 0 && self.idle.is_some_and(|idle| idle >= limit)
    }
}

/// How many should run. `most` is what documents or `pilotfish scale` say, `waiting` the calls that wait for one to start, `capacity` the
/// calls that each takes at a time (0: no limit).
pub fn wanted(deployment: &Deployment, most: u32, replicas: &[Running], waiting: u32, capacity: u32) -> u32 {
    let (warm, OnDemand { idle, .. }) = match deployment {
        Deployment::Static => return most,
        Deployment::PreWarmed { warm, on_demand } => (*warm, on_demand),
        Deployment::JustInTime(on_demand) => (0, on_demand),
    };
    let in_use = count(replicas, |one| one.in_flight > 0);
    // One that does not become ready is given up when nobody waits for it any more.
    let kept = count(replicas, |one| !one.is_idle(*idle) || (!one.ready && waiting > 0));
    let for_waiting = count(replicas, |_| true).saturating_add(missing(replicas, waiting, capacity));
    let for_waiting = if waiting > 0 { for_waiting } else { 0 };
    let wanted = in_use.saturating_add(warm).max(kept).max(for_waiting);
    wanted.min(most).max(in_use)
}

/// How many more are needed for those who wait. One that is not ready counts with all it will take, whatever keeps it: an agent that does
/// not come up is not started again beside itself.
fn missing(replicas: &[Running], waiting: u32, capacity: u32) -> u32 {
    if waiting == 0 {
        return 0;
    }
    if capacity == 0 {
        return u32::from(replicas.is_empty());
    }
    let free = |one: &Running| if one.ready { capacity.saturating_sub(one.in_flight) } else { capacity };
    let free = replicas.iter().fold(0u32, |sum, one| sum.saturating_add(free(one)));
    waiting.saturating_sub(free).div_ceil(capacity)
}

fn count(replicas: &[Running], which: impl Fn(&Running) -> bool) -> u32 {
    u32::try_from(replicas.iter().filter(|one| which(one)).count()).unwrap_or(u32::MAX)
}

/// Places in `replicas`, those that should be stopped first at the front: the idlest, then those whose idleness nobody told, and at last
/// those with the fewest calls.
pub fn stop_first(replicas: &[Running]) -> Vec<usize> {
    let mut order: Vec<usize> = (0..replicas.len()).collect();
    let rank = |at: &usize| {
        replicas.get(*at).map(|one| {
            let idle = one.idle.filter(|_| one.in_flight == 0);
            (one.in_flight, std::cmp::Reverse(idle), one.ready)
        })
    };
    order.sort_by_key(rank);
    order
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIMIT: Duration = Duration::from_secs(300);

    fn on_demand() -> OnDemand {
        OnDemand { idle: LIMIT, ..OnDemand::default() }
    }

    fn just_in_time() -> Deployment {
        Deployment::JustInTime(on_demand())
    }

    fn warm(warm: u32) -> Deployment {
        Deployment::PreWarmed { warm, on_demand: on_demand() }
    }

    fn starting(seconds: u64) -> Running {
        Running { ready: false, in_flight: 0, idle: Some(Duration::from_secs(seconds)) }
    }

    fn idle(seconds: u64) -> Running {
        Running { ready: true, ..starting(seconds) }
    }

    fn busy(in_flight: u32) -> Running {
        Running { ready: true, in_flight, idle: Some(Duration::ZERO) }
    }

    #[test]
    fn just_in_time_follows_those_who_wait() {
        let want =
            |replicas: &[Running], waiting, capacity| wanted(&just_in_time(), 5, replicas, waiting, capacity);
        assert_eq!(want(&[], 0, 0), 0);
        assert_eq!((want(&[], 1, 0), want(&[], 40, 0)), (1, 1), "one takes any number");
        assert_eq!((want(&[], 3, 1), want(&[], 4, 2), want(&[], 40, 2)), (3, 2, 5));
        assert_eq!(want(&[starting(1)], 3, 2), 2, "what is coming counts");
        assert_eq!(want(&[starting(1), starting(1)], 3, 2), 2);
        assert_eq!(want(&[busy(2), idle(1)], 3, 2), 3, "so does what is free");
        assert_eq!(want(&[idle(299)], 0, 0), 1);
        assert_eq!(want(&[idle(300)], 0, 0), 0);
        assert_eq!(want(&[idle(300), idle(10), busy(1)], 0, 0), 2);
        assert_eq!(want(&[Running { idle: None, ..idle(0) }], 0, 0), 1, "nobody told");
        assert_eq!((want(&[starting(400)], 1, 0), want(&[starting(400)], 0, 0)), (1, 0));
        assert_eq!(wanted(&just_in_time(), 0, &[], 7, 1), 0, "scaled to none");
        assert_eq!(wanted(&just_in_time(), 1, &[busy(1), busy(1)], 7, 1), 2, "calls end first");
    }

    #[test]
    fn a_warm_pool_is_kept_beside_those_in_use() {
        let want = |replicas: &[Running]| wanted(&warm(2), 4, replicas, 0, 1);
        assert_eq!(want(&[]), 2);
        assert_eq!(want(&[idle(900), idle(900)]), 2);
        assert_eq!(want(&[busy(1), idle(900)]), 3);
        assert_eq!(want(&[busy(1), busy(1), idle(900)]), 4);
        assert_eq!(want(&[busy(1), busy(1), busy(1)]), 4, "no more than there may be");
        assert_eq!(want(&[idle(5), idle(900), idle(900)]), 2);
        assert_eq!(want(&[idle(5), idle(5), idle(900)]), 2);
        assert_eq!(want(&[idle(5), idle(5), idle(5)]), 3);
    }

    #[test]
    fn a_static_agent_has_what_documents_say() {
        assert_eq!(wanted(&Deployment::Static, 3, &[idle(900)], 0, 0), 3);
    }

    #[test]
    fn who_is_needed_least_goes_first() {
        let unknown = Running { idle: None, ..idle(0) };
        let all = [busy(3), idle(5), unknown, busy(1), starting(1), idle(900)];
        assert_eq!(stop_first(&all), [5, 1, 4, 2, 3, 0]);
    }

    fn any(rng: &mut fastrand::Rng) -> Running {
        let idle = rng.bool().then(|| Duration::from_secs(rng.u64(..600)));
        match rng.u8(..3) {
            0 => starting(rng.u64(..600)),
            1 => Running { ready: true, in_flight: 0, idle },
            _ => busy(rng.u32(1..5)),
        }
    }

    #[test]
    fn whatever_happens_the_bounds_hold_and_the_number_settles() {
        for seed in 0..5_000 {
            let mut rng = fastrand::Rng::with_seed(seed);
            let deployment = if rng.bool() { just_in_time() } else { warm(rng.u32(..4)) };
            let (most, capacity, waiting) =
                (rng.u32(..8), rng.u32(..4), rng.u32(..12) * u32::from(rng.bool()));
            let mut replicas: Vec<Running> = (0..rng.usize(..8)).map(|_| any(&mut rng)).collect();
            let in_use = count(&replicas, |one| one.in_flight > 0);
            let want = wanted(&deployment, most, &replicas, waiting, capacity);
            assert!(want >= in_use && want <= most.max(in_use), "seed {seed}");
            assert!(waiting == 0 || most == 0 || want >= 1, "seed {seed}");
            let more = wanted(&deployment, most, &replicas, waiting + 1, capacity);
            assert!(more >= want, "seed {seed}: more wait, fewer run");
            // What is decided is done; then the same situation asks for the same.
            let before = replicas.len();
            for at in stop_first(&replicas).into_iter().take(before.saturating_sub(want as usize)) {
                assert_eq!(replicas[at].in_flight, 0, "seed {seed}: one with calls is stopped");
                replicas[at].idle = Some(Duration::MAX);
            }
            replicas.retain(|one| one.idle != Some(Duration::MAX));
            while replicas.len() < want as usize {
                replicas.push(starting(0));
            }
            assert_eq!(
                wanted(&deployment, most, &replicas, waiting, capacity),
                want,
                "seed {seed}: it flaps"
            );
        }
    }
}
