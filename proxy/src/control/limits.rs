//! What was used of fleet-wide rate limits, for the control plane that shares them out.

use std::collections::BTreeMap;

use pilotfish_config::wire::{LimitUse, Share};
use pilotfish_filters::clock::Micros;
use pilotfish_filters::plan::Plan;
use pilotfish_filters::rate_limit::Counts;

/// A limit that is not used any more is reported so many times: the control plane forgets slowly what was wanted.
const AFTER_USE: u8 = 10;

/// What one stream was told of one limit.
#[derive(Debug)]
struct Told {
    counts: Counts,
    share: u32,
    /// Of the newest slice that came.
    turn: u32,
    at: Micros,
    /// Reports still to come without use.
    more: u8,
}

/// What one stream was told.
#[derive(Debug, Default)]
pub struct Uses(BTreeMap<Box<str>, Told>);

impl Uses {
    /// What is to be told: limits that are new to the stream, that were used lately, or whose slice changed; with `all`,
    /// every one.
    pub fn collect(&mut self, plan: &Plan, now: Micros, all: bool) -> Vec<LimitUse> {
        let limits = || plan.rate_limits().iter().filter(|limit| limit.fleet);
        if limits().next().is_none() {
            self.0.clear();
            return Vec::new();
        }
        self.0.retain(|name, _| limits().any(|limit| limit.name == *name));
        limits()
            .filter_map(|limit| {
                let (counts, share) = (limit.state.counts(), limit.state.share());
                let Some(told) = self.0.get_mut(&limit.name) else {
                    let told = Told { counts, share, turn: 0, at: now, more: AFTER_USE };
                    self.0.insert(limit.name.clone(), told);
                    return Some(LimitUse {
                        name: limit.name.to_string(),
                        used: 0,
                        wanted: 0,
                        over_ms: 0,
                        share,
                        turn: 0,
                    });
                };
                let since =
                    |now: u64, before: u64| u32::try_from(now.saturating_sub(before)).unwrap_or(u32::MAX);
                let used = since(counts.allowed, told.counts.allowed);
                let wanted = used.saturating_add(since(counts.limited, told.counts.limited));
                told.more = if wanted > 0 { AFTER_USE } else { told.more.saturating_sub(1) };
                if told.more == 0 && share == told.share && !all {
                    return None;
                }
                let over_ms = u32::try_from(now.since(told.at).as_millis()).unwrap_or(u32::MAX);
                (told.counts, told.share, told.at) = (counts, share, now);
                Some(LimitUse { name: limit.name.to_string(), used, wanted, over_ms, share, turn: told.turn })
            })
            .collect()
    }

    /// Keeps other slices from now on. Those of limits that the stream was not told of are nobody's.
    pub fn take(&mut self, plan: &Plan, now: Micros, shares: &[Share]) {
        for share in shares {
            let limit = plan.rate_limits().iter().find(|limit| *limit.name == *share.name && limit.fleet);
            if let (Some(limit), Some(told)) = (limit, self.0.get_mut(share.name.as_str())) {
                limit.state.set_share(now, share.share);
                told.turn = share.turn;
                // It is said at the next opportunity that the slice is kept.
                told.more = told.more.max(2);
            }
        }
    }
}
