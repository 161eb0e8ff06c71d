//! Agents that calls wait for: sidecars ask, placement answers.
//!
//! What other control planes of the store hear is under `placement/asked/<namespace>/<agent>/<control>`, written at most once a second
//! while calls wait and while there is another control plane, and removed after. Why an agent does not come travels the other way, as
//! `placement/not-started/<namespace>/<agent>`, which is removed as soon as it is written: who watches has seen it.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bytes::Bytes;
use pilotfish_config::Model;
use pilotfish_config::model::Deployment;
use pilotfish_config::wire::Key;
use pilotfish_config::wire::node::{Asked, MOST_ASKED, NotStarted};
use tokio::sync::Notify;
use tokio::time::{Duration, Instant, MissedTickBehavior, interval};

use super::stream::Stream;
use super::{Fleet, Shared, hello};
use crate::store::{Batch, Change};

/// Where control planes say what waits at them.
pub(super) const ASKED: &str = "placement/asked/";
/// Where the leader says why an agent does not come.
pub(super) const NOT_STARTED: &str = "placement/not-started/";
/// What is not said again within this time counts no more: sidecars and control planes say it every second.
const HOLDS: Duration = Duration::from_secs(3);
/// How often other control planes are told.
const TELL_EVERY: Duration = Duration::from_secs(1);
/// At most this many in a batch; the store takes 100 operations.
const MOST: usize = 64;
/// Agents that other control planes may ask for, at most; documents bound those that sidecars ask for here.
const MOST_ELSEWHERE: usize = 10_000;

/// Agents that are started on demand, by `<namespace>/<agent>`, with the documents that say so.
pub(super) type OnDemand = BTreeMap<String, Vec<Key>>;

/// Agents that documents start on demand.
pub(super) fn on_demand(model: &Model) -> OnDemand {
    let mut found = OnDemand::new();
    for cluster in &model.agent_clusters {
        let key = &cluster.meta.key;
        for agent in &cluster.agents {
            if agent.rules.deployment == Deployment::Static {
                continue;
            }
            let own = found.entry(format!("{}/{}", key.namespace, agent.name)).or_default();
            own.push(Key {
                kind: key.kind.name().into(),
                namespace: key.namespace.to_string(),
                name: key.name.to_string(),
            });
        }
    }
    found
}

/// Calls that wait, and when that was said.
#[derive(Debug, Clone, Copy)]
struct Waiting {
    calls: u32,
    at: Instant,
}

/// What calls wait for.
#[derive(Debug, Default)]
pub(super) struct Demand {
    said: Mutex<Said>,
    /// There is something to tell other control planes.
    to_tell: Notify,
}

#[derive(Debug, Default)]
struct Said {
    /// By agent, then by stream.
    here: BTreeMap<String, HashMap<u64, Waiting>>,
    /// By agent, then by control plane.
    elsewhere: BTreeMap<String, HashMap<String, Waiting>>,
    /// What the store holds of this control plane's.
    told: BTreeMap<String, u32>,
    /// Agents that do not come, and why; not told to other control planes yet.
    refused: BTreeMap<String, String>,
}

impl Said {
    fn waiting_here(&self, agent: &str, now: Instant) -> u32 {
        self.here.get(agent).map_or(0, |streams| sum(streams.values(), now))
    }

    fn forget_old(&mut self, now: Instant) {
        for streams in self.here.values_mut() {
            streams.retain(|_, waiting| is_fresh(waiting, now));
        }
        self.here.retain(|_, streams| !streams.is_empty());
        for controls in self.elsewhere.values_mut() {
            controls.retain(|_, waiting| is_fresh(waiting, now));
        }
        self.elsewhere.retain(|_, controls| !controls.is_empty());
    }
}

fn is_fresh(waiting: &Waiting, now: Instant) -> bool {
    now.saturating_duration_since(waiting.at) <= HOLDS
}

fn sum<'w>(all: impl Iterator<Item = &'w Waiting>, now: Instant) -> u32 {
    all.filter(|waiting| is_fresh(waiting, now)).fold(0, |sum, waiting| sum.saturating_add(waiting.calls))
}

impl Fleet {
    /// Agents that calls wait for, `namespace/name`, and how many do, at all control planes of the store; not older than 3 s.
    pub fn demand(&self) -> Vec<(String, u32)> {
        let now = Instant::now();
        let said = self.shared.demand.said();
        let agents: BTreeSet<&String> = said.here.keys().chain(said.elsewhere.keys()).collect();
        let counted = agents.into_iter().map(|agent| {
            let elsewhere = said.elsewhere.get(agent).map_or(0, |controls| sum(controls.values(), now));
            (agent.clone(), said.waiting_here(agent, now).saturating_add(elsewhere))
        });
        counted.filter(|(_, waiting)| *waiting > 0).collect()
    }

    /// Tells those who wait for an agent, `namespace/name`, that it will not come soon, and why: their calls fail with that reason.
    pub fn not_started(&self, agent: &str, reason: &str) {
        let reason = hello::text(reason);
        self.shared.tell_not_started(agent, &reason);
        let mut said = self.shared.demand.said();
        if said.elsewhere.contains_key(agent) {
            said.refused.insert(agent.to_owned(), reason);
            drop(said);
            self.shared.demand.to_tell.notify_one();
        }
    }
}

impl Demand {
    /// A stream ended: nobody waits at it.
    pub(super) fn gone(&self, stream: u64) {
        let mut said = self.said();
        for streams in said.here.values_mut() {
            streams.remove(&stream);
        }
        said.here.retain(|_, streams| !streams.is_empty());
    }

    fn said(&self) -> MutexGuard<'_, Said> {
        self.said.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Shared {
    /// A sidecar says what its calls wait for. Agents that its documents do not start on demand are left out.
    pub(super) fn asked(&self, stream: &Stream, asked: &Asked) {
        let (view, scope, now) = (self.view(), stream.class().scope(), Instant::now());
        let mut more = false;
        let mut said = self.demand.said();
        for one in asked.agents.iter().take(MOST_ASKED) {
            let sees = |documents: &Vec<Key>| documents.iter().any(|key| scope.document(key));
            if !view.on_demand.get(&one.agent).is_some_and(sees) {
                continue;
            }
            let before = said.waiting_here(&one.agent, now);
            let streams = said.here.entry(one.agent.clone()).or_default();
            match one.waiting {
                0 => drop(streams.remove(&stream.number)),
                calls => drop(streams.insert(stream.number, Waiting { calls, at: now })),
            }
            more |= said.waiting_here(&one.agent, now) != before;
        }
        said.forget_old(now);
        drop(said);
        if more {
            self.registry.wake_placement();
            self.demand.to_tell.notify_one();
        }
    }

    /// Streams here whose calls wait for this agent are told.
    fn tell_not_started(&self, agent: &str, reason: &str) {
        let numbers: Vec<u64> = self
            .demand
            .said()
            .here
            .get(agent)
            .into_iter()
            .flat_map(|streams| streams.keys().copied())
            .collect();
        let streams = self.streams();
        for stream in numbers.iter().filter_map(|number| streams.get(number)) {
            stream.not_started(NotStarted { agent: agent.to_owned(), reason: reason.to_owned() });
        }
    }

    /// Another control plane says what waits there.
    pub(super) fn heard_asked(&self, change: &Change) {
        let Some((agent, control)) = change.key.strip_prefix(ASKED).and_then(agent_and_rest) else { return };
        if *control == *self.id {
            return;
        }
        let calls = change.value.as_deref().and_then(number).unwrap_or(0);
        let now = Instant::now();
        let mut said = self.demand.said();
        said.forget_old(now);
        if calls > 0 && said.elsewhere.len() >= MOST_ELSEWHERE && !said.elsewhere.contains_key(agent) {
            return;
        }
        let controls = said.elsewhere.entry(agent.to_owned()).or_default();
        let before = controls.get(control).map_or(0, |waiting| waiting.calls);
        match calls {
            0 => drop(controls.remove(control)),
            calls => drop(controls.insert(control.to_owned(), Waiting { calls, at: now })),
        }
        drop(said);
        if calls != before {
            self.registry.wake_placement();
        }
    }

    /// The leader says why an agent does not come.
    pub(super) fn heard_not_started(&self, change: &Change) {
        let Some(agent) = change.key.strip_prefix(NOT_STARTED) else { return };
        if let Some(reason) = change.value.as_deref().and_then(|value| std::str::from_utf8(value).ok()) {
            self.tell_not_started(agent, &hello::text(reason));
        }
    }
}

/// `<namespace>/<agent>`, and what follows.
fn agent_and_rest(key: &str) -> Option<(&str, &str)> {
    let slash = key.match_indices('/').nth(1)?.0;
    Some((key.get(..slash)?, key.get(slash + 1..)?))
}

fn number(value: &[u8]) -> Option<u32> {
    std::str::from_utf8(value).ok()?.parse().ok()
}

/// Tells the other control planes, until the task is aborted.
pub(super) async fn run(shared: Arc<Shared>) {
    let mut ticks = interval(TELL_EVERY);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        let idle = {
            let said = shared.demand.said();
            said.here.is_empty() && said.told.is_empty() && said.refused.is_empty()
        };
        if idle {
            shared.demand.to_tell.notified().await;
        }
        tell(&shared).await;
        ticks.tick().await;
    }
}

/// Says what waits here, if somebody is there who could want to know, and takes back what waits no more.
async fn tell(shared: &Shared) {
    let now = Instant::now();
    let others = shared.peers.others(shared);
    let (waiting, gone, refused) = {
        let mut said = shared.demand.said();
        said.forget_old(now);
        let agents = said.here.keys().filter(|_| others);
        let waiting: BTreeMap<String, u32> =
            agents.map(|agent| (agent.clone(), said.waiting_here(agent, now))).collect();
        let gone: Vec<String> =
            said.told.keys().filter(|agent| !waiting.contains_key(*agent)).cloned().collect();
        (waiting, gone, std::mem::take(&mut said.refused))
    };
    let key = |agent: &str| format!("{ASKED}{agent}/{}", shared.id);
    let put = waiting.iter().map(|(agent, calls)| (key(agent), Bytes::from(calls.to_string())));
    let put: Vec<_> = put.collect();
    for some in put.chunks(MOST) {
        // What does not arrive is said again in a second.
        let _ = shared.store.batch(Batch { put: some.to_vec(), ..Batch::default() }).await;
    }
    let delete: Vec<_> = gone.iter().map(|agent| key(agent)).collect();
    let mut cleared = true;
    for some in delete.chunks(MOST) {
        let batch = Batch { delete: some.to_vec(), ..Batch::default() };
        cleared &= shared.store.batch(batch).await.is_ok();
    }
    {
        let mut said = shared.demand.said();
        if cleared {
            said.told.clear();
        }
        said.told.extend(waiting);
    }
    for (agent, reason) in refused {
        let key = format!("{NOT_STARTED}{agent}");
        let put = vec![(key.clone(), Bytes::from(reason))];
        if shared.store.batch(Batch { put, ..Batch::default() }).await.is_ok() {
            let _ = shared.store.batch(Batch { delete: vec![key], ..Batch::default() }).await;
        }
    }
}
