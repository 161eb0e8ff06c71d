//! Calls of the agent to others: the edges of the graph of agents, as the control plane is told of them.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use pilotfish_config::wire::{EDGE_BOUNDS, Edge};
use tokio::time::Instant;

use super::agentic::{Vocabulary, Words};
use super::family::Distribution;
use super::http::place;
use super::requests::merged;
use super::table::{Key, Table};
use super::{BUCKETS, WorkerMetrics};
use crate::listen::Direction;
use crate::server::Shared;
use crate::telemetry::call::CallRecord;

/// The most that a worker tells apart.
pub(super) const MOST: usize = 256;

const KIND: Key = Key::of(0);

const _: () = {
    let mut n = 0;
    while n < BUCKETS.len() {
        assert!(BUCKETS[n] == EDGE_BOUNDS[n], "edges are told with the bounds of OpenTelemetry's durations");
        n += 1;
    }
};

/// Counts a call of the agent to another. One that was refused before it was known where it leads is nobody's.
pub(super) fn ended(table: &Table, call: &CallRecord, Vocabulary { words, known }: Vocabulary<'_>) {
    if call.direction == Direction::Inbound || call.cluster.is_empty() {
        return;
    }
    let agent = call.tried().last().map(|one| one.agent.as_str()).filter(|agent| !agent.is_empty());
    let to = known.agents.of(&words.agents, agent.unwrap_or_else(|| host(call.cluster.as_str())));
    let capability = (!call.capability.is_empty())
        .then(|| known.capabilities.of(&words.capabilities, call.capability.as_str()));
    let failed = call.status >= 500 || call.status == 0;
    let key = KIND.with(9, place(Some(to))).with(9, place(capability)).with(1, failed.into());
    table.record(key, KIND, &BUCKETS, call.stages.ended, None);
}

/// The host of a cluster by its name, `host:port` or `host:port|subset`.
fn host(cluster: &str) -> &str {
    let address = cluster.split_once('|').map_or(cluster, |(address, _)| address);
    address.rsplit_once(':').map_or(address, |(host, _)| host)
}

/// Between two reports at least.
const EVERY: Duration = Duration::from_secs(5);

/// What the control plane was told, so that it is told only what is new.
#[derive(Debug, Default)]
pub struct Edges {
    told: BTreeMap<(bool, Key), Distribution>,
    last: Option<Instant>,
}

impl Edges {
    /// Calls that ended since the last report; nothing when that was less than five seconds ago.
    pub fn report(&mut self, shared: &Shared, now: Instant) -> Vec<Edge> {
        if self.last.is_some_and(|last| now.duration_since(last) < EVERY) {
            return Vec::new();
        }
        self.last = Some(now);
        self.news(&shared.metrics, &shared.words)
    }

    fn news(&mut self, workers: &[Arc<WorkerMetrics>], words: &Words) -> Vec<Edge> {
        let now = merged(workers.iter().map(|worker| &worker.edges), Duration::ZERO);
        let (agents, capabilities) = (words.agents.list(), words.capabilities.list());
        let named = |names: &[Box<str>], place: u64| {
            let slot = usize::try_from(place).ok()?.checked_sub(1)?;
            Some(names.get(slot).map_or("other", |name| &**name).to_owned())
        };
        let mut news: BTreeMap<(u64, u64), Edge> = BTreeMap::new();
        for ((shared, key), values) in &now {
            let told = self.told.get(&(*shared, *key));
            let since = |now: u64, told: Option<u64>| now.wrapping_sub(told.unwrap_or(0));
            let calls = since(values.count(), told.map(Distribution::count));
            if calls == 0 {
                continue;
            }
            let (failed, capability, to) = match *key {
                _ if *shared => (0, 0, 1),
                mut key => (key.take(1), key.take(9), key.take(9)),
            };
            let edge = news.entry((to, capability)).or_insert_with(|| Edge {
                to: named(&agents, to).unwrap_or_else(|| "other".to_owned()),
                capability: named(&capabilities, capability),
                calls: 0,
                errors: 0,
                sum_us: 0,
                buckets: vec![0; values.counts.len()],
            });
            let add = |to: &mut u32, more: u64| {
                *to = to.saturating_add(u32::try_from(more).unwrap_or(u32::MAX));
            };
            add(&mut edge.calls, calls);
            add(&mut edge.errors, if failed == 1 { calls } else { 0 });
            edge.sum_us = edge.sum_us.saturating_add(since(values.sum, told.map(|told| told.sum)));
            for (n, bucket) in edge.buckets.iter_mut().enumerate() {
                add(bucket, since(values.counts[n], told.map(|told| told.counts[n])));
            }
        }
        self.told = now;
        news.into_values().collect()
    }
}

#[cfg(test)]
mod tests {
    use super::super::agentic::KnownWords;
    use super::*;

    fn call(agent: &str, cluster: &str, status: u16) -> CallRecord {
        let mut call = CallRecord { status, ..CallRecord::default() };
        call.cluster.set(cluster);
        call.stages.ended = 6_000;
        let one = call.begin_try(Default::default(), None, Default::default());
        one.agent.set(agent);
        call
    }

    /// To whom, for what, calls, errors, microseconds, calls in buckets.
    type Told<'a> = (&'a str, Option<&'a str>, u32, u32, u64, u32);

    fn told(edges: &[Edge]) -> Vec<Told<'_>> {
        edges
            .iter()
            .map(|edge| {
                let in_buckets = edge.buckets.iter().sum();
                (&*edge.to, edge.capability.as_deref(), edge.calls, edge.errors, edge.sum_us, in_buckets)
            })
            .collect()
    }

    #[test]
    fn only_what_is_new_is_told_of_all_workers_together() {
        let (words, known) = (Words::default(), [KnownWords::default(), KnownWords::default()]);
        let workers: Vec<_> = (0..2).map(|_| Arc::new(WorkerMetrics::default())).collect();
        let count = |worker: usize, call: &CallRecord| {
            workers[worker].called(call, Vocabulary { words: &words, known: &known[worker] });
        };
        let mut edges = Edges::default();
        assert_eq!(edges.news(&workers, &words), []);
        count(0, &call("default/nlp", "nlp.mesh:80", 200));
        count(1, &call("default/nlp", "nlp.mesh:80", 503));
        count(1, &call("", "db.test:5432|v1", 0));
        let mut wants = call("default/nlp", "nlp.mesh:80", 200);
        wants.capability.set("translate");
        count(0, &wants);
        count(0, &CallRecord { direction: Direction::Inbound, ..wants.clone() });
        count(0, &call("", "", 404));
        assert_eq!(
            told(&edges.news(&workers, &words)),
            [
                ("default/nlp", None, 2, 1, 12_000, 2),
                ("default/nlp", Some("translate"), 1, 0, 6_000, 1),
                ("db.test", None, 1, 1, 6_000, 1),
            ]
        );
        assert_eq!(edges.news(&workers, &words), []);
        count(1, &call("default/nlp", "nlp.mesh:80", 200));
        assert_eq!(told(&edges.news(&workers, &words)), [("default/nlp", None, 1, 0, 6_000, 1)]);
    }

    #[test]
    fn agents_without_end_are_told_together() {
        let (words, known) = (Words::default(), KnownWords::default());
        let workers = [Arc::new(WorkerMetrics::default())];
        for n in 0..5_000 {
            let names = Vocabulary { words: &words, known: &known };
            workers[0].called(&call(&format!("default/a-{n}"), "a:80", 200), names);
        }
        let news = Edges::default().news(&workers, &words);
        assert!(news.len() <= MOST + 1, "{}", news.len());
        assert_eq!(news.iter().map(|edge| edge.calls).sum::<u32>(), 5_000);
    }
}
