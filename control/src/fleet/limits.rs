//! Rate limits of the whole fleet: who gets which slice. Pure; time comes as a parameter.
//!
//! A slice is in proportion to what its sidecar wanted lately; a twentieth is shared out evenly, so that new use can begin
//! everywhere. Slices never add up to more than there is, also while they move: what one sidecar loses is given to
//! others once it has said that it keeps the smaller slice.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use pilotfish_config::wire::LimitUse;

/// The whole limit; slices are parts of it.
pub(super) const WHOLE: u32 = 1_000_000;
/// This part of a limit is shared out evenly.
const EVENLY: f64 = 0.05;
/// What was wanted counts for about as long as this.
const MEMORY: Duration = Duration::from_secs(1);
/// Slices move when one is off by more than a tenth of it: not for every call more or less.
const WORTH_IT: u32 = 10;
/// At most so many slices of a sidecar are on their way.
const MOST_SENT: usize = 32;
/// After so many reports that do not know of a slice it is sent again.
const SAY_AGAIN: u8 = 8;
/// More calls in a second than any sidecar serves: what says so is garbage.
const MOST: f64 = 1_000_000.0;

/// A sidecar that keeps the limit.
#[derive(Debug, Default)]
struct Member {
    /// Calls a second, recent ones counted more.
    wanted: f64,
    /// What it is to have.
    granted: u32,
    /// The most that it may have now: what it said last, or anything that is still on its way to it.
    held: u32,
    /// Slices that are on their way, with their turns.
    sent: VecDeque<(u32, u32)>,
    turn: u32,
    /// The stream by which it reports; what is on its way by another is lost.
    stream: u64,
    /// Whether `granted` was sent by this stream.
    told: bool,
    /// Reports since something was sent that do not know of it.
    unknown: u8,
}

/// How one limit is shared out among this control plane's sidecars.
#[derive(Debug)]
pub(super) struct Split {
    members: BTreeMap<Arc<str>, Member>,
    since: Duration,
}

impl Split {
    /// Nobody has a slice yet. Times count from any one point.
    pub(super) fn new(now: Duration) -> Split {
        Split { members: BTreeMap::new(), since: now }
    }

    /// Takes in what a sidecar says by its stream of that number.
    pub(super) fn report(&mut self, id: &Arc<str>, stream: u64, used: &LimitUse) {
        let member = self.members.entry(id.clone()).or_default();
        if member.stream != stream {
            member.sent.clear();
            (member.stream, member.told) = (stream, false);
        }
        let over = Duration::from_millis(used.over_ms.into()).as_secs_f64();
        if over > 0.0 {
            let rate = (f64::from(used.wanted) / over).min(MOST);
            let fresh = 1.0 - (-over / MEMORY.as_secs_f64()).exp();
            member.wanted += (rate - member.wanted) * fresh;
        }
        member.sent.retain(|(turn, _)| *turn > used.turn);
        let coming = member.sent.iter().map(|(_, share)| *share).max().unwrap_or(0);
        member.held = coming.max(used.share.min(WHOLE));
        let knows = member.sent.is_empty() && used.share == member.granted;
        member.unknown = if knows { 0 } else { member.unknown.saturating_add(1) };
        if member.unknown >= SAY_AGAIN {
            (member.told, member.unknown) = (false, 0);
        }
    }

    /// Those that are not `there` any more have no slice.
    pub(super) fn keep(&mut self, there: impl Fn(&str) -> bool) {
        self.members.retain(|id, _| there(id));
    }

    /// Shares out `part`, this control plane's part of the whole. `expected`: how many sidecars keep the limit. Until all
    /// of them have said what they have, or `patience` has passed, nobody gets more: a control plane that was
    /// started anew does not know yet what it gave.
    pub(super) fn share_out(&mut self, part: u32, expected: usize, now: Duration, patience: Duration) {
        if self.members.is_empty() {
            return;
        }
        let targets = self.targets(part);
        let is_off = |(member, target): (&Member, &u32)| {
            member.granted.abs_diff(*target) > member.granted.max(*target) / WORTH_IT
        };
        let off = self.members.values().zip(&targets).any(is_off);
        let unfinished = self.members.values().any(|member| member.held > member.granted);
        let total: u64 = self.members.values().map(|member| u64::from(member.granted)).sum();
        if !off && !unfinished && total <= u64::from(part) {
            return;
        }
        for (member, target) in self.members.values_mut().zip(&targets) {
            member.grant(member.held.min(*target));
        }
        if self.members.len() < expected && now < self.since + patience {
            return;
        }
        let held: u64 = self.members.values().map(|member| u64::from(member.held)).sum();
        let free = u64::from(part).saturating_sub(held);
        let gap = |member: &Member, target: u32| u64::from(target.saturating_sub(member.held));
        let gaps: u64 =
            self.members.values().zip(&targets).map(|(member, target)| gap(member, *target)).sum();
        for (member, target) in self.members.values_mut().zip(&targets) {
            let more = gap(member, *target);
            if more > 0 && free > 0 {
                let more = if gaps <= free { more } else { more * free / gaps };
                member.grant(member.held + u32::try_from(more).unwrap_or(0));
                member.held = member.granted;
            }
        }
    }

    /// What each should have, in the order of the members.
    fn targets(&self, part: u32) -> Vec<u32> {
        let count = self.members.len() as f64;
        let wanted: f64 = self.members.values().map(|member| member.wanted).sum();
        let share = |member: &Member| match wanted > 1e-3 {
            true => EVENLY / count + (1.0 - EVENLY) * member.wanted / wanted,
            false => 1.0 / count,
        };
        // Rounded down, so the sum stays below; a sidecar has something always.
        self.members.values().map(|member| ((f64::from(part) * share(member)) as u32).max(1)).collect()
    }

    /// What is to be sent by which stream: a slice and its turn.
    pub(super) fn tell(&mut self) -> Vec<(u64, u32, u32)> {
        let untold = self.members.values_mut().filter(|member| !member.told && member.granted > 0);
        let one = |member: &mut Member| {
            member.told = true;
            member.turn += 1;
            member.sent.push_back((member.turn, member.granted));
            // One that says nothing of so many is taken to have the largest of them.
            if member.sent.len() > MOST_SENT
                && let Some((_, share)) = member.sent.pop_front()
                && let Some((_, next)) = member.sent.front_mut()
            {
                *next = share.max(*next);
            }
            member.held = member.held.max(member.granted);
            (member.stream, member.granted, member.turn)
        };
        untold.map(one).collect()
    }
}

impl Member {
    fn grant(&mut self, share: u32) {
        if share != self.granted {
            self.granted = share;
            self.told = false;
        }
    }
}

#[cfg(test)]
mod tests;
