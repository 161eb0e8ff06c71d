//! Rate limits: who may call how often. What a call has to be within, and the buckets that all workers share.

mod bucket;
mod keyed;

use std::hash::Hasher;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Duration;

use pilotfish_config::model::{Host, LimitAmount, LimitKey};

use crate::call::{Call, Head};
use crate::clock::Micros;
use crate::route::split_authority;
use crate::verdict::{Deny, Reason};
pub use bucket::WHOLE;
use bucket::{Bucket, Moment, Pace, Terms};
use keyed::Keyed;
pub use keyed::MOST_KEYS;

/// The slice of a fleet-wide limit that a sidecar has before its control plane has said anything: a hundredth.
pub const FIRST_SHARE: u32 = WHOLE / 100;

/// The limits that may concern calls of a rule, or calls to the agent. Most rules have none.
#[derive(Debug, Clone, Default)]
pub struct RuleLimits(pub(crate) Box<[Concern]>);

/// A limit, and which calls of the rule it concerns.
#[derive(Debug, Clone)]
pub(crate) struct Concern {
    pub(crate) limit: Arc<Limit>,
    /// Any of these; none: all calls.
    pub(crate) only: Box<[Only]>,
}

/// A call that a limit concerns.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Only {
    /// It asks for this capability; in lower case.
    Asks(Box<str>),
    /// Its host is one of these names.
    Host(Box<[Host]>),
}

/// One RateLimit as a plan sees it. What was spent is in its [`LimitState`].
#[derive(Debug)]
pub struct Limit {
    /// `namespace/name` of the document.
    pub name: Box<str>,
    /// What the document says.
    pub amount: LimitAmount,
    /// Whether it is a total of the fleet.
    pub fleet: bool,
    /// Whether it only counts.
    pub dry_run: bool,
    /// What tells calls apart; empty: one bucket.
    pub(crate) by: Box<[LimitKey]>,
    /// What was spent.
    pub state: Arc<LimitState>,
}

/// What outlives a plan of a limit. One for the process.
#[derive(Debug)]
pub struct LimitState {
    pace: Pace,
    one: Bucket,
    /// Calls that were admitted, since the start.
    allowed: AtomicU64,
    /// Calls that were not, or in a dry run would not have been.
    limited: AtomicU64,
    keyed: Keyed,
}

/// Where a token came from.
#[derive(Debug, Clone, Copy)]
enum Taken {
    One,
    Keyed(keyed::From),
}

/// What a limit has counted since the start of the process.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Counts {
    /// Calls that were admitted.
    pub allowed: u64,
    /// Calls that were refused, or would be without `dryRun`.
    pub limited: u64,
}

impl LimitState {
    /// Full buckets. `seed` makes the hashes of keys unguessable.
    pub(crate) fn new(now: Micros, amount: LimitAmount, fleet: bool, share: u32, seed: u64) -> LimitState {
        LimitState {
            pace: Pace::new(now, Terms { amount, share, fleet }),
            one: Bucket::default(),
            allowed: AtomicU64::new(0),
            limited: AtomicU64::new(0),
            keyed: Keyed::new(seed),
        }
    }

    /// The amount of a plan that begins to serve. What was spent stays spent, at most a whole bucket of it.
    fn settle(&self, now: Micros, amount: LimitAmount, fleet: bool, first: u32) {
        let line = self.pace.settle(now, |before| {
            let share = if before.fleet == fleet { before.share } else { first };
            Terms { amount, share, fleet }
        });
        if let Some(line) = line {
            self.one.forgive(line);
            self.keyed.forgive(line);
        }
    }

    /// The slice of a fleet-wide limit from now on, in parts of [`WHOLE`]. What is left in the buckets stays as it is.
    pub fn set_share(&self, now: Micros, share: u32) {
        if self.pace.terms().fleet {
            self.pace.share(now, share);
        }
    }

    /// The slice that holds now.
    pub fn share(&self) -> u32 {
        self.pace.terms().share
    }

    /// What was counted.
    pub fn counts(&self) -> Counts {
        Counts { allowed: self.allowed.load(Relaxed), limited: self.limited.load(Relaxed) }
    }

    /// Keys that have a bucket of their own now.
    pub fn keys(&self) -> usize {
        self.keyed.len()
    }

    fn missing(&self, key: Option<u64>, moment: &Moment) -> Option<u64> {
        match key {
            None => self.one.missing(moment),
            Some(key) => self.keyed.missing(key, moment),
        }
    }

    fn take(&self, key: Option<u64>, moment: &Moment) -> Result<Taken, u64> {
        match key {
            None => self.one.take(moment).map(|()| Taken::One),
            Some(key) => self.keyed.take(key, moment).map(Taken::Keyed),
        }
    }

    fn give_back(&self, taken: Taken) {
        match taken {
            Taken::One => self.one.give_back(),
            Taken::Keyed(from) => self.keyed.give_back(from),
        }
    }
}

/// A call as limits see it.
#[derive(Debug)]
pub struct Asking<'a, H> {
    /// Its head.
    pub head: &'a H,
    /// What it is.
    pub call: &'a Call,
    /// The SPIFFE ID of its sender, when that is another sidecar; nothing stands for the local agent, or for a sender
    /// without an identity.
    pub caller: Option<&'a str>,
}

impl<H: Head> Asking<'_, H> {
    fn asks_for(&self, capability: &str) -> bool {
        self.capabilities().any(|name| name.eq_ignore_ascii_case(capability))
    }

    /// Names without versions.
    fn capabilities(&self) -> impl Iterator<Item = &str> {
        self.call
            .capabilities
            .iter()
            .map(|wanted| wanted.split_once('@').map_or(&**wanted, |(name, _)| name).trim())
    }

    fn is_to(&self, hosts: &[Host]) -> bool {
        let host = split_authority(self.head.authority()).0.to_ascii_lowercase();
        let host = host.strip_suffix('.').unwrap_or(&host);
        hosts.iter().any(|known| known.covers(host))
    }

    fn key(&self, limit: &Limit) -> Option<u64> {
        if limit.by.is_empty() {
            return None;
        }
        let mut hasher = limit.state.keyed.hasher();
        for part in &limit.by {
            match part {
                LimitKey::Caller => {
                    hasher.write(self.caller.unwrap_or_default().as_bytes());
                }
                LimitKey::Header(name) => match self.head.header(name) {
                    Some(value) => {
                        hasher.write_u8(1);
                        hasher.write(&value);
                    }
                    None => hasher.write_u8(0),
                },
                LimitKey::Capability => {
                    // Their order says nothing.
                    let one = |name: &str| {
                        let mut hasher = limit.state.keyed.hasher();
                        name.bytes().for_each(|byte| hasher.write_u8(byte.to_ascii_lowercase()));
                        hasher.finish()
                    };
                    hasher.write_u64(self.capabilities().map(one).fold(0, u64::wrapping_add));
                }
            }
            // What ends a part cannot be inside of one: header values and SPIFFE IDs have no such byte.
            hasher.write_u8(0xff);
        }
        Some(hasher.finish())
    }
}

impl RuleLimits {
    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The limits.
    pub fn limits(&self) -> impl Iterator<Item = &Arc<Limit>> {
        self.0.iter().map(|concern| &concern.limit)
    }

    /// Takes a token from every limit that concerns the call; from none of them when one has none left.
    ///
    /// # Errors
    /// [`Reason::RateLimited`] with `retry-after`, by the limit that has to be waited for longest.
    pub fn admit<H: Head>(&self, now: Micros, asking: &Asking<'_, H>) -> Result<(), Deny> {
        match &*self.0 {
            [] => Ok(()),
            [only] => match only.concerns(asking) {
                true => only.limit.admit(now, asking),
                false => Ok(()),
            },
            several => admit_all(several, now, asking),
        }
    }
}

impl Concern {
    fn concerns<H: Head>(&self, asking: &Asking<'_, H>) -> bool {
        self.only.is_empty()
            || self.only.iter().any(|only| match only {
                Only::Asks(capability) => asking.asks_for(capability),
                Only::Host(hosts) => asking.is_to(hosts),
            })
    }
}

impl Limit {
    /// Begins to hold as the document says; what was spent under another amount stays spent. `first`: the slice of a limit
    /// that has just become fleet-wide.
    pub(crate) fn settle(&self, now: Micros, first: u32) {
        let share = if self.fleet { first } else { WHOLE };
        self.state.settle(now, self.amount, self.fleet, share);
    }

    fn admit<H: Head>(&self, now: Micros, asking: &Asking<'_, H>) -> Result<(), Deny> {
        let moment = self.state.pace.at(now);
        match self.state.take(asking.key(self), &moment) {
            Ok(_) => {
                self.state.allowed.fetch_add(1, Relaxed);
                Ok(())
            }
            Err(missing) => self.limited(moment.wait(missing)),
        }
    }

    /// Counts a call that is not within, and refuses it unless the limit only counts.
    fn limited(&self, wait: Duration) -> Result<(), Deny> {
        self.state.limited.fetch_add(1, Relaxed);
        if self.dry_run { Ok(()) } else { Err(self.refusal(wait)) }
    }

    /// 429 as `draft-ietf-httpapi-ratelimit-headers-10` has it: the policy's quota and window, what is left (nothing), and
    /// the seconds until there is more.
    fn refusal(&self, wait: Duration) -> Deny {
        let LimitAmount { requests, per, burst } = self.amount;
        let seconds = wait.as_micros().div_ceil(1_000_000).max(1);
        let (quota, window) = in_seconds(requests, per);
        let detail = format!(
            "RateLimit {}: {requests} requests in {per:?}, {burst} at once{}; the next in {seconds} s",
            self.name,
            if self.fleet { ", by all sidecars together" } else { "" }
        );
        Deny::with(Reason::RateLimited, detail)
            .and_header("retry-after", seconds.to_string())
            .and_header("ratelimit-policy", format!("\"{}\";q={quota};w={window}", self.name))
            .and_header("ratelimit", format!("\"{}\";r=0;t={seconds}", self.name))
    }
}

/// A quota and its window in whole seconds, which is all that the header can say: 10 in 1.5 s are 20 in 3 s.
fn in_seconds(requests: u32, per: Duration) -> (u64, u64) {
    let millis = u64::try_from(per.as_millis()).unwrap_or(u64::MAX).max(1);
    let (mut a, mut b) = (millis, 1000);
    while b > 0 {
        (a, b) = (b, a % b);
    }
    let times = 1000 / a;
    (u64::from(requests) * times, millis * times / 1000)
}

/// All or none. A look at each comes first, so that a call that is refused anyway does not keep tokens from others even
/// for a moment; what changes between the look and the taking is given back.
fn admit_all<H: Head>(concerns: &[Concern], now: Micros, asking: &Asking<'_, H>) -> Result<(), Deny> {
    let mut asked = Vec::with_capacity(concerns.len());
    let mut longest: Option<(Duration, &Limit)> = None;
    for concern in concerns.iter().filter(|concern| concern.concerns(asking)) {
        let limit = &*concern.limit;
        let (moment, key) = (limit.state.pace.at(now), asking.key(limit));
        if let Some(missing) = limit.state.missing(key, &moment).filter(|_| !limit.dry_run) {
            let wait = moment.wait(missing);
            if longest.is_none_or(|(longest, _)| wait > longest) {
                longest = Some((wait, limit));
            }
        }
        asked.push((limit, moment, key));
    }
    if let Some((wait, limit)) = longest {
        return limit.limited(wait);
    }
    let mut taken = Vec::with_capacity(asked.len());
    for (limit, moment, key) in asked {
        match limit.state.take(key, &moment) {
            Ok(token) => taken.push((limit, token)),
            Err(missing) => {
                if let Err(deny) = limit.limited(moment.wait(missing)) {
                    taken.iter().for_each(|(limit, token)| limit.state.give_back(*token));
                    return Err(deny);
                }
            }
        }
    }
    taken.iter().for_each(|(limit, _)| {
        limit.state.allowed.fetch_add(1, Relaxed);
    });
    Ok(())
}

#[cfg(test)]
mod tests;
