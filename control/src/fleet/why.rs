//! Why calls went as they did: every sidecar that is connected is asked, and what they answer in time is gathered.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use pilotfish_config::wire::{Account, Answered, Explained, LONGEST_EXPLAINED, Why};
use tokio::sync::Notify;
use tokio::time::timeout;

use super::registration::Registration;
use super::stream::Stream;
use super::which::Which;
use super::{Fleet, hello};
use crate::api::live::Accounts;

/// How long sidecars have; they answer from memory.
const WITHIN: Duration = Duration::from_secs(1);
/// Questions at a time.
const AT_A_TIME: usize = 16;
/// Calls in an answer; of more the newest.
const MOST_CALLS: usize = 1000;
/// Names of those who said nothing.
const MOST_SILENT: usize = 100;
/// Tries, policies, choices and candidates of a call, as many as sidecars tell.
const MOST_PARTS: usize = 32;

/// Questions under way.
#[derive(Debug, Default)]
pub(super) struct Asks {
    last: AtomicU64,
    open: Mutex<BTreeMap<u64, Ask>>,
}

#[derive(Debug)]
struct Ask {
    /// Streams that have not answered, and whose they are.
    waiting: BTreeMap<u64, Arc<Registration>>,
    /// Those of them that ended.
    gone: Vec<Arc<Registration>>,
    answered: usize,
    calls: Vec<Account>,
    left_off: u64,
    bell: Arc<Notify>,
}

impl Fleet {
    /// What the connected sidecars that are meant remember of the calls that `why` asks for. `None`: too much is asked at
    /// this moment.
    pub async fn why(&self, which: &Which, why: &Why) -> Option<Accounts> {
        let shared = &self.shared;
        let streams: Vec<Arc<Stream>> = shared
            .streams()
            .values()
            .filter(|stream| which.means(&stream.registration.facts))
            .filter(|stream| !shared.registry.is_revoked(&stream.registration))
            .cloned()
            .collect();
        let bell = Arc::new(Notify::new());
        let ask = Ask {
            waiting: streams.iter().map(|stream| (stream.number, stream.registration.clone())).collect(),
            gone: Vec::new(),
            answered: 0,
            calls: Vec::new(),
            left_off: 0,
            bell: bell.clone(),
        };
        let open = shared.asks.begin(ask)?;
        for stream in &streams {
            stream.ask(Why { ask: open.number, ..why.clone() });
        }
        let all = async {
            while !open.is_answered() {
                bell.notified().await;
            }
        };
        let _ = timeout(WITHIN, all).await;
        let mut elsewhere = 0;
        shared.registry.each(|own| {
            elsewhere +=
                usize::from(own.stream == 0 && which.means(&own.facts) && *own.live().owner != *shared.id);
        });
        Some(Accounts { elsewhere, ..open.end() })
    }
}

/// A question under way; dropping it forgets it.
struct Begun<'a> {
    asks: &'a Asks,
    number: u64,
}

impl Begun<'_> {
    fn is_answered(&self) -> bool {
        self.asks.open().get(&self.number).is_none_or(|ask| ask.waiting.is_empty())
    }

    fn end(self) -> Accounts {
        let Some(ask) = self.asks.open().remove(&self.number) else { return Accounts::default() };
        let mut calls = ask.calls;
        calls.sort_by(|a, b| a.time_ns.cmp(&b.time_ns).then_with(|| a.agent.cmp(&b.agent)));
        let mut silent: Vec<String> = ask.waiting.values().chain(&ask.gone).map(|own| name(own)).collect();
        let silent_count = silent.len();
        silent.sort_unstable();
        silent.truncate(MOST_SILENT);
        Accounts { calls, left_off: ask.left_off, answered: ask.answered, silent, silent_count, elsewhere: 0 }
    }
}

impl Drop for Begun<'_> {
    fn drop(&mut self) {
        self.asks.open().remove(&self.number);
    }
}

impl Asks {
    fn open(&self) -> MutexGuard<'_, BTreeMap<u64, Ask>> {
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn begin(&self, ask: Ask) -> Option<Begun<'_>> {
        let number = self.last.fetch_add(1, Relaxed) + 1;
        let mut open = self.open();
        if open.len() >= AT_A_TIME {
            return None;
        }
        open.insert(number, ask);
        Some(Begun { asks: self, number })
    }

    /// A sidecar's answer, once to each question that it was asked.
    pub(super) fn take(&self, stream: u64, answered: Answered) {
        let mut open = self.open();
        let Some(ask) = open.get_mut(&answered.ask) else { return };
        let Some(from) = ask.waiting.remove(&stream) else { return };
        ask.answered += 1;
        let room = MOST_CALLS.saturating_sub(ask.calls.len());
        let more = answered.calls.len().saturating_sub(room);
        ask.left_off = ask.left_off.saturating_add(answered.left_off).saturating_add(more as u64);
        ask.calls.extend(answered.calls.into_iter().skip(more).map(|call| bounded(&from, call)));
        ask.bell.notify_one();
    }

    /// A stream ended: what it was asked stays unanswered.
    pub(super) fn gone(&self, stream: u64) {
        for ask in self.open().values_mut() {
            if let Some(registration) = ask.waiting.remove(&stream) {
                ask.gone.push(registration);
                ask.bell.notify_one();
            }
        }
    }
}

fn name(registration: &Registration) -> String {
    format!("{}/{}", registration.facts.namespace, registration.facts.agent)
}

/// An account within bounds, under the name that its sidecar proved.
fn bounded(from: &Registration, mut call: Account) -> Account {
    call.agent = name(from);
    let Account { direction, caller, peer, method, host, path, protocol, reason, .. } = &mut call;
    for text in [direction, caller, peer, method, host, path, protocol, reason] {
        *text = hello::text(text);
    }
    let Account { rule, cluster, capability, workflow, trace, span, parent, request_id, .. } = &mut call;
    for text in [rule, cluster, capability, workflow, trace, span, parent, request_id] {
        *text = hello::text(text);
    }
    if let Some(started) = &mut call.started_for {
        started.agent = hello::text(&started.agent);
    }
    call.policies.truncate(MOST_PARTS);
    call.policies.iter_mut().for_each(|word| *word = hello::text(word));
    call.attempts.truncate(MOST_PARTS);
    for attempt in &mut call.attempts {
        for text in [&mut attempt.span, &mut attempt.endpoint, &mut attempt.agent, &mut attempt.ended] {
            *text = hello::text(text);
        }
        if let Some(other) = &mut attempt.runner_up {
            other.endpoint = hello::text(&other.endpoint);
        }
    }
    // What is longer than a sidecar's longest is none of its.
    let fits =
        |own: &Explained| serde_json::to_vec(own).is_ok_and(|text| text.len() <= LONGEST_EXPLAINED + 1024);
    call.explained = call.explained.filter(fits);
    call
}
