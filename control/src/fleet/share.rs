//! Ranks once a second to those who have news to get, and seldom to the other control planes of the store.
//!
//! Each control plane keeps what its own sidecars say of an endpoint under `rank/<control plane>/<endpoint>`, written
//! at most every 5 s, only on news, and only while another control plane lives. There it counts as one more reporter.

use std::sync::Arc;

use pilotfish_config::wire::Report;
use serde::{Deserialize, Serialize};
use tokio::time::{Duration, Instant, MissedTickBehavior, interval};

use super::Shared;
use super::ranks::Ranked;
use crate::store::{Batch, Change};

/// Where ranks are.
pub(super) const PREFIX: &str = "rank/";
/// How often there may be news for a sidecar.
const NEWS_EVERY: Duration = Duration::from_secs(1);
/// How often there may be news for other control planes, in seconds.
const SHARE_EVERY: u64 = 5;
/// At most this many ranks in a batch; the store takes 100 operations.
const MOST: usize = 64;
/// Reporters with this before their name are control planes.
const FOREIGN: &str = "control:";

/// What a control plane's sidecars say of an endpoint.
#[derive(Debug, Serialize, Deserialize)]
struct Word {
    latency_us: u64,
    success: f32,
    in_flight: u32,
    calls: u32,
}

/// Where this control plane's word on an endpoint is.
pub(super) fn key(control: &str, id: &str) -> String {
    format!("{PREFIX}{control}/{id}")
}

/// Spreads news until the task is aborted.
pub(super) async fn run(shared: Arc<Shared>) {
    let mut ticks = interval(NEWS_EVERY);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let (mut known, mut shared_up_to, mut seconds) = (0, 0, 0_u64);
    loop {
        ticks.tick().await;
        seconds += 1;
        let news = shared.ranks.look(Instant::now());
        if news > known {
            known = news;
            shared.streams().values().for_each(|stream| stream.wake.notify_one());
        }
        if seconds.is_multiple_of(SHARE_EVERY) && news > shared_up_to && shared.peers.others(&shared) {
            tell(&shared, &shared.ranks.since(shared_up_to)).await;
            shared_up_to = news;
        }
    }
}

/// Tells the other control planes; what does not arrive is told again with the next news of that endpoint.
async fn tell(shared: &Shared, news: &[Ranked]) {
    let now = Instant::now();
    for some in news.chunks(MOST) {
        let own = some.iter().filter_map(|ranked| shared.ranks.own(&ranked.rank.endpoint, FOREIGN, now));
        let put = own.filter_map(|own| {
            let value = Word {
                latency_us: own.rank.latency_us,
                success: own.rank.success,
                in_flight: own.rank.in_flight,
                calls: own.weight as u32,
            };
            Some((key(&shared.id, &own.rank.endpoint), serde_json::to_vec(&value).ok()?.into()))
        });
        let put: Vec<_> = put.collect();
        if !put.is_empty() {
            let _ = shared.store.batch(Batch { put, ..Batch::default() }).await;
        }
    }
}

/// Takes another control plane's word.
pub(super) fn heard(shared: &Shared, change: &Change) {
    let Some((control, id)) = change.key.strip_prefix(PREFIX).and_then(|rest| rest.split_once('/')) else {
        return;
    };
    if *control == *shared.id {
        return;
    }
    let (Some(value), Some(registration)) = (&change.value, shared.registry.get(id)) else { return };
    let Ok(word) = serde_json::from_slice::<Word>(value) else { return };
    let report = Report {
        endpoint: id.to_owned(),
        latency_us: word.latency_us,
        success: word.success,
        in_flight: word.in_flight,
        calls: word.calls,
        // Only those who report here are asked why they send nothing.
        health: None,
    };
    let reporter: Arc<str> = format!("{FOREIGN}{control}").into();
    shared.ranks.replace(&registration.id, &reporter, &report, Instant::now());
}

/// Clears away what a control plane said.
pub(super) async fn clear(shared: &Shared, control: &str) {
    let Ok(listed) = shared.store.list(&format!("{PREFIX}{control}/")).await else { return };
    for some in listed.entries.chunks(MOST) {
        let delete = some.iter().map(|entry| entry.key.clone()).collect();
        let _ = shared.store.batch(Batch { delete, ..Batch::default() }).await;
    }
}
