//! Outlier detection: endpoints that fail in a row are put aside for a while (Envoy's algorithm and numbers).
//!
//! | what | Envoy |
//! |---|---|
//! | 5xx in a row; 502, 503 and 504 in a row; local failures in a row | `consecutive_5xx`, `consecutive_gateway_failure`, `consecutive_local_origin_failure` |
//! | how long | `base_ejection_time` x number of ejections, 300 s at most; it ends at a sweep, each `interval` |
//! | the number of ejections | falls by one at each sweep that finds the endpoint in use |
//! | how many at a time | `max_ejection_percent` of the cluster, but always one |
//!
//! Nothing runs at a sweep: what it would have done is reckoned from the time. The state is two words, so that each ejection
//! happens once; the number of ejected endpoints of a cluster is reserved before an endpoint is ejected and never above
//! what is allowed.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed, Ordering::SeqCst};
use std::time::Duration;

use pilotfish_config::model::OutlierDetection;

use crate::clock::Micros;
use crate::endpoint::Outcome;

/// No ejection is longer, unless `baseEjectionTime` is (Envoy's `max_ejection_time`).
pub const LONGEST_EJECTION: Duration = Duration::from_secs(300);

/// Why an endpoint is ejected.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Cause {
    /// 5xx in a row.
    Errors,
    /// 502, 503, 504 in a row.
    GatewayErrors,
    /// Failures of the connection in a row.
    LocalFailures,
}

impl Cause {
    /// Every cause.
    pub const ALL: [Cause; 3] = [Cause::Errors, Cause::GatewayErrors, Cause::LocalFailures];

    /// The word in metrics: Envoy's.
    pub const fn word(self) -> &'static str {
        match self {
            Cause::Errors => "consecutive-5xx",
            Cause::GatewayErrors => "consecutive-gateway-errors",
            Cause::LocalFailures => "consecutive-local-origin-failures",
        }
    }

    /// What happened, for people: `5 consecutive ...`.
    pub const fn text(self) -> &'static str {
        match self {
            Cause::Errors => "consecutive 5xx",
            Cause::GatewayErrors => "consecutive gateway errors",
            Cause::LocalFailures => "consecutive connection failures",
        }
    }
}

/// What is known of one endpoint.
#[derive(Debug, Default)]
pub struct Outlier {
    /// Failures in a row by [`Cause`], 21 bits each.
    streaks: AtomicU64,
    ejection: AtomicU64,
    /// How many failures led to it.
    failures: AtomicU64,
}

/// The ejection word, taken apart: 1 bit, 2 bits, 13 bits, 48 bits.
#[derive(Debug, Clone, Copy)]
struct Word {
    ejected: bool,
    cause: u8,
    /// How often it was ejected, less the sweeps since; as of `until_ms`.
    times: u16,
    /// When it returns; when it returned.
    until_ms: u64,
}

impl Word {
    fn unpack(word: u64) -> Word {
        Word {
            ejected: word >> 63 != 0,
            cause: (word >> 61) as u8 & 3,
            times: (word >> 48) as u16 & 0x1fff,
            until_ms: word & 0xffff_ffff_ffff,
        }
    }

    fn pack(self) -> u64 {
        u64::from(self.ejected) << 63
            | u64::from(self.cause & 3) << 61
            | u64::from(self.times & 0x1fff) << 48
            | self.until_ms & 0xffff_ffff_ffff
    }
}

/// An ejection as people are told of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Ejected {
    /// Why.
    pub cause: Cause,
    /// How many failures in a row.
    pub failures: u64,
    /// When it returns.
    pub until: Micros,
}

impl Outlier {
    /// Counts a try's end; gives the cause and number of failures when the endpoint should be ejected for them.
    pub fn record(&self, policy: &OutlierDetection, outcome: Outcome) -> Option<(Cause, u32)> {
        let change = Change::of(policy, outcome);
        if change.adds == 0 {
            let before = self.streaks.load(Relaxed);
            if before & !change.keeps != 0 {
                self.streaks.fetch_and(change.keeps, Relaxed);
            }
            return None;
        }
        let mut reached = None;
        // Never gives up: the closure always answers.
        let _ = self.streaks.fetch_update(Relaxed, Relaxed, |before| {
            let after = (before & change.keeps) + change.adds;
            reached = over(policy, after);
            // All of them begin anew, lest a neighbour that is nearly there eject it again at once (Envoy's rule).
            Some(if reached.is_some() { 0 } else { after })
        });
        reached
    }

    /// The ejection that holds now.
    pub fn ejected(&self, now: Micros) -> Option<Ejected> {
        let word = self.load();
        let until = Micros(word.until_ms * 1000);
        (word.ejected && until > now).then(|| Ejected {
            cause: Cause::ALL[usize::from(word.cause).min(2)],
            failures: self.failures.load(Relaxed),
            until,
        })
    }

    /// Until when it is ejected; 0 when it is not, or a time that is over.
    pub(crate) fn until(&self) -> Micros {
        let word = self.load();
        Micros(if word.ejected { word.until_ms * 1000 } else { 0 })
    }

    /// Whether it counts among the ejected ones, though its time may be over.
    pub(crate) fn is_marked(&self) -> bool {
        self.load().ejected
    }

    /// Ejects it. `false`: it is ejected already.
    pub(crate) fn eject(&self, policy: &OutlierDetection, now: Micros, cause: Cause, failures: u32) -> bool {
        let word = self.load();
        if word.ejected {
            return false;
        }
        let longest = LONGEST_EJECTION.max(policy.base_ejection_time);
        let mut times = times_now(word, policy.interval, now);
        if policy.base_ejection_time * u32::from(times) < longest + policy.base_ejection_time {
            times = times.saturating_add(1).min(0x1fff);
        }
        let time = (policy.base_ejection_time * u32::from(times)).min(longest);
        let sweep = millis(policy.interval);
        let until_ms = (now.0 / 1000 + millis(time)).div_ceil(sweep) * sweep;
        let cause = Cause::ALL.iter().position(|known| *known == cause).unwrap_or(0) as u8;
        let next = Word { ejected: true, cause, times, until_ms };
        let done = self.ejection.compare_exchange(word.pack(), next.pack(), SeqCst, SeqCst).is_ok();
        if done {
            self.failures.store(failures.into(), Relaxed);
        }
        done
    }

    /// Takes it back when its time is over, or with `early` at once; whether this call is what took it back.
    pub(crate) fn take_back(&self, now: Micros, early: bool) -> bool {
        let word = self.load();
        let over = word.until_ms <= now.0 / 1000;
        if !word.ejected || !(over || early) {
            return false;
        }
        let until_ms = if over { word.until_ms } else { now.0 / 1000 };
        let next = Word { ejected: false, until_ms, ..word };
        let done = self.ejection.compare_exchange(word.pack(), next.pack(), SeqCst, SeqCst).is_ok();
        if done {
            self.streaks.store(0, Relaxed);
        }
        done
    }

    fn load(&self) -> Word {
        Word::unpack(self.ejection.load(SeqCst))
    }
}

/// How many of `hosts` may be ejected at a time: one at least.
pub fn allowed(policy: &OutlierDetection, hosts: usize) -> u32 {
    let share = hosts.saturating_mul(usize::from(policy.max_ejection_percent.min(100))) / 100;
    u32::try_from(share).unwrap_or(u32::MAX).max(1)
}

fn millis(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX).clamp(1, 1 << 40)
}

/// The number of ejections, less one for each sweep since the last one ended.
fn times_now(word: Word, interval: Duration, now: Micros) -> u16 {
    let sweep = millis(interval);
    let sweeps = (now.0 / 1000 / sweep).saturating_sub(word.until_ms / sweep);
    word.times.saturating_sub(u16::try_from(sweeps).unwrap_or(u16::MAX))
}

/// One failure more of each cause that it counts for, and the streaks that it does not end.
struct Change {
    adds: u64,
    keeps: u64,
}

const PART: u64 = 0x1f_ffff;
/// The largest number that is counted to.
const MOST: u32 = PART as u32;
const ERRORS: u32 = 0;
const GATEWAY: u32 = 21;
const LOCAL: u32 = 42;

impl Change {
    /// Envoy's mapping: unless they are counted apart, local failures count as the 503 or 504 that the caller gets.
    fn of(policy: &OutlierDetection, outcome: Outcome) -> Change {
        let status = match outcome {
            Outcome::Answered(status) if policy.http_errors.contains(&status) => 500.max(status),
            Outcome::Answered(status) => status,
            Outcome::Reset | Outcome::TimedOut | Outcome::Unreachable
                if policy.split_external_local_origin_errors =>
            {
                let on = policy.consecutive_local_origin_failures.is_some();
                return Change { adds: u64::from(on) << LOCAL, keeps: u64::MAX };
            }
            Outcome::TimedOut => 504,
            Outcome::Reset | Outcome::Unreachable => 503,
        };
        // What is off is not counted, so that no count runs over.
        let errors = u64::from(policy.consecutive_5xx_errors.is_some()) << ERRORS;
        let gateway = u64::from(policy.consecutive_gateway_errors.is_some()) << GATEWAY;
        match status {
            502..=504 => Change { adds: errors | gateway, keeps: PART << ERRORS | PART << GATEWAY },
            500.. => Change { adds: errors, keeps: PART << ERRORS },
            _ => Change { adds: 0, keeps: 0 },
        }
    }
}

/// The first cause of which there are enough, gateway errors before others as Envoy does.
fn over(policy: &OutlierDetection, streaks: u64) -> Option<(Cause, u32)> {
    let of = |shift: u32| (streaks >> shift & PART) as u32;
    let limits = [
        (Cause::GatewayErrors, policy.consecutive_gateway_errors, of(GATEWAY)),
        (Cause::Errors, policy.consecutive_5xx_errors, of(ERRORS)),
        (Cause::LocalFailures, policy.consecutive_local_origin_failures, of(LOCAL)),
    ];
    let reached =
        limits.into_iter().find(|(_, limit, found)| limit.is_some_and(|limit| *found >= limit.min(MOST)));
    reached.map(|(cause, _, found)| (cause, found))
}

#[cfg(test)]
mod tests;
