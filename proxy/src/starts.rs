//! Calls that wait until an agent is started: one line for each agent, first come, first served, for the whole process.
//!
//! Only the first of a line looks whether somebody is there, and whoever leaves calls the next. So what comes up is given out in order,
//! and a thousand calls that wait cost nothing until their turn.

use std::collections::{BTreeMap, VecDeque};
use std::sync::atomic::{AtomicU32, Ordering::Relaxed};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};

use pilotfish_config::wire::node::{Asked, AskedAgent, MOST_ASKED};
use pilotfish_filters::on_demand::OnDemandAgent;
use tokio::sync::Notify;

/// All lines.
#[derive(Debug, Default)]
pub struct Starts {
    /// Calls that wait, over all agents, to be looked at without the lock.
    waiting: AtomicU32,
    lines: Mutex<BTreeMap<Arc<str>, VecDeque<Arc<Ticket>>>>,
    /// Rung when a call begins to wait for an agent that nobody waited for.
    pub asked: Notify,
}

/// What a call is called by.
#[derive(Debug, Default)]
struct Ticket {
    bell: Notify,
    /// Why the agent does not come.
    refused: OnceLock<Arc<str>>,
}

/// As many calls wait for the agent as may.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Full;

/// A place in a line; dropping it leaves the line.
#[derive(Debug)]
pub struct Waiter<'s> {
    starts: &'s Starts,
    agent: Arc<str>,
    ticket: Arc<Ticket>,
}

impl Starts {
    /// A place at the end of an agent's line.
    ///
    /// # Errors
    /// It is full.
    pub fn join(&self, agent: &OnDemandAgent) -> Result<Waiter<'_>, Full> {
        let ticket = Arc::new(Ticket::default());
        let mut lines = self.lines();
        let line = lines.entry(agent.id.clone()).or_default();
        let (before, most) = (line.len(), agent.most_waiting as usize);
        if before < most {
            line.push_back(ticket.clone());
            self.waiting.fetch_add(1, Relaxed);
        }
        if line.is_empty() {
            lines.remove(&agent.id);
        }
        drop(lines);
        if before >= most {
            return Err(Full);
        }
        if before == 0 {
            self.asked.notify_one();
        }
        Ok(Waiter { starts: self, agent: agent.id.clone(), ticket })
    }

    /// There is a new snapshot: the first of each line look.
    pub fn look(&self) {
        if self.waiting.load(Relaxed) > 0 {
            self.lines().values().filter_map(VecDeque::front).for_each(|ticket| ticket.bell.notify_one());
        }
    }

    /// The agent does not come: all who wait for it now are told.
    pub fn refuse(&self, agent: &str, reason: &str) {
        let reason: Arc<str> = reason.into();
        for ticket in self.lines().get(agent).into_iter().flatten() {
            // The first reason is as good as any other.
            let _ = ticket.refused.set(reason.clone());
            ticket.bell.notify_one();
        }
    }

    /// Calls that wait, by agent.
    pub fn waiting(&self) -> Vec<(Arc<str>, u32)> {
        if self.waiting.load(Relaxed) == 0 {
            return Vec::new();
        }
        let length = |line: &VecDeque<_>| u32::try_from(line.len()).unwrap_or(u32::MAX);
        self.lines().iter().map(|(agent, line)| (agent.clone(), length(line))).collect()
    }

    fn lines(&self) -> MutexGuard<'_, BTreeMap<Arc<str>, VecDeque<Arc<Ticket>>>> {
        self.lines.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Waiter<'_> {
    /// Waits until there is something to look at: a new snapshot for the first, the first place for the others, a refusal.
    pub async fn called(&self) {
        self.ticket.bell.notified().await;
    }

    /// Whether nobody is before it.
    pub fn is_first(&self) -> bool {
        let lines = self.starts.lines();
        lines.get(&self.agent).and_then(VecDeque::front).is_some_and(|first| Arc::ptr_eq(first, &self.ticket))
    }

    /// Why the agent does not come, when somebody said so.
    pub fn refused(&self) -> Option<&str> {
        self.ticket.refused.get().map(AsRef::as_ref)
    }
}

impl Drop for Waiter<'_> {
    fn drop(&mut self) {
        let mut lines = self.starts.lines();
        let Some(line) = lines.get_mut(&self.agent) else { return };
        if let Some(at) = line.iter().position(|own| Arc::ptr_eq(own, &self.ticket)) {
            line.remove(at);
            self.starts.waiting.fetch_sub(1, Relaxed);
        }
        match line.front() {
            Some(next) => next.bell.notify_one(),
            None => drop(lines.remove(&self.agent)),
        }
    }
}

/// What one control plane was told of those who wait.
#[derive(Debug, Default)]
pub struct Told(BTreeMap<Arc<str>, u32>);

impl Told {
    /// What it has to be told now: everybody who waits, and once that nobody does any more. `None`: nothing.
    pub fn next(&mut self, starts: &Starts) -> Option<Asked> {
        let waiting: BTreeMap<Arc<str>, u32> = starts.waiting().into_iter().take(MOST_ASKED).collect();
        let over =
            self.0.keys().filter(|agent| !waiting.contains_key(*agent)).map(|agent| (agent.clone(), 0));
        let all = waiting.iter().map(|(agent, calls)| (agent.clone(), *calls)).chain(over);
        let agents: Vec<AskedAgent> = all
            .take(MOST_ASKED)
            .map(|(agent, waiting)| AskedAgent { agent: agent.to_string(), waiting })
            .collect();
        self.0 = waiting;
        (!agents.is_empty()).then_some(Asked { agents })
    }
}
