//! Response actions: agents that people, or detectors, hold to something. Kept in the store, so that every control plane of it says the
//! same, across restarts.
//!
//! | key of the store | value |
//! |---|---|
//! | `actions/<namespace>/<agent>` | a `wire::Action` as JSON |
//!
//! One that has ended is told to nobody any more; the first control plane that notices removes it.

#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::{Duration, SystemTime};

use pilotfish_config::wire::{self, Action};
use tokio::sync::watch;
use tokio::task::AbortHandle;

use crate::ca::Clock;
use crate::log;
use crate::store::{Batch, Change, Entry, Expect, Revision, Store, StoreError};

const PREFIX: &str = "actions/";
/// The most agents that are held at a time: each sidecar is told of all of them.
pub const MOST: usize = 10_000;
/// How soon a watch that ended is begun again.
const AGAIN: Duration = Duration::from_millis(200);
/// How often what has ended and could not be removed is tried again.
const TIDY: Duration = Duration::from_secs(30);

/// Why nothing was changed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum NotHeld {
    /// Too many agents are held.
    TooMany,
    /// The agent is not held.
    Free(String),
    /// The store.
    Store(StoreError),
}

impl fmt::Display for NotHeld {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            NotHeld::TooMany => {
                write!(out, "{MOST} agents are held, which is the most: release others first")
            }
            NotHeld::Free(agent) => write!(out, "{agent} is neither quarantined nor restricted"),
            NotHeld::Store(error) => write!(out, "{error}"),
        }
    }
}

impl std::error::Error for NotHeld {}

impl From<StoreError> for NotHeld {
    fn from(error: StoreError) -> NotHeld {
        NotHeld::Store(error)
    }
}

#[derive(Debug, Default)]
struct State {
    /// What of the store is in here.
    revision: Revision,
    /// By agent, with the revision that wrote it.
    known: BTreeMap<String, (Action, Revision)>,
}

/// Who is held, as the store says it now.
pub struct Actions {
    store: Arc<dyn Store>,
    clock: Clock,
    state: Mutex<State>,
    published: watch::Sender<Arc<wire::Actions>>,
    following: Mutex<Option<AbortHandle>>,
}

impl Actions {
    /// Reads the store, and follows it until this is dropped.
    ///
    /// # Errors
    /// The store is not available.
    pub async fn open(store: Arc<dyn Store>, clock: Clock) -> Result<Arc<Actions>, StoreError> {
        let actions = Arc::new(Actions {
            store,
            clock,
            state: Mutex::default(),
            published: watch::Sender::new(Arc::default()),
            following: Mutex::default(),
        });
        actions.refresh().await?;
        let task = tokio::spawn(follow(Arc::downgrade(&actions)));
        *actions.following.lock().unwrap_or_else(PoisonError::into_inner) = Some(task.abort_handle());
        Ok(actions)
    }

    /// What sidecars have to be told, now and from now on.
    pub fn watch(&self) -> watch::Receiver<Arc<wire::Actions>> {
        self.published.subscribe()
    }

    /// What sidecars have to be told now.
    pub fn newest(&self) -> Arc<wire::Actions> {
        self.published.borrow().clone()
    }

    /// Seconds since 1970.
    pub fn now(&self) -> u64 {
        (self.clock)().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default().as_secs()
    }

    /// When so many seconds from now are over, in whole seconds since 1970: a little late rather than early.
    pub fn end_of(&self, seconds: u64) -> u64 {
        let now = (self.clock)().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
        (now + Duration::from_secs(seconds) + Duration::from_nanos(999_999_999)).as_secs()
    }

    /// Holds an agent to something, in place of what it was held to before.
    ///
    /// # Errors
    /// Too many agents are held; the store is not available.
    pub async fn hold(&self, action: &Action) -> Result<(), NotHeld> {
        {
            let state = self.lock();
            if state.known.len() >= MOST && !state.known.contains_key(&action.agent) {
                return Err(NotHeld::TooMany);
            }
        }
        // Serializing a message of plain texts and numbers cannot fail.
        let value = serde_json::to_vec(action).unwrap_or_default();
        let put = vec![(format!("{PREFIX}{}", action.agent), value.into())];
        self.store.batch(Batch { put, ..Batch::default() }).await?;
        Ok(self.refresh().await?)
    }

    /// Ends what an agent is held to; gives what that was.
    ///
    /// # Errors
    /// It is not held; the store is not available.
    pub async fn release(&self, agent: &str) -> Result<Action, NotHeld> {
        // Somebody else may have written it a moment ago.
        self.refresh().await?;
        let held = self.newest().actions.iter().find(|action| action.agent == agent).cloned();
        let held = held.ok_or_else(|| NotHeld::Free(agent.to_owned()))?;
        self.store.batch(Batch { delete: vec![format!("{PREFIX}{agent}")], ..Batch::default() }).await?;
        self.refresh().await?;
        Ok(held)
    }

    /// Reads everything: who changed something finds it in force at once, without waiting for the watch.
    async fn refresh(&self) -> Result<(), StoreError> {
        let listed = self.store.list(PREFIX).await?;
        let mut state = self.lock();
        if listed.revision >= state.revision {
            state.known.clear();
            listed.entries.into_iter().for_each(|entry| state.set(entry));
            state.revision = listed.revision;
            self.publish(&state);
        }
        Ok(())
    }

    /// Changes of one revision.
    fn take(&self, changes: Vec<Change>) {
        let mut state = self.lock();
        for Change { key, value, revision } in changes {
            if revision < state.revision {
                continue;
            }
            state.revision = revision;
            match value {
                Some(value) => state.set(Entry { key, value, revision }),
                None => drop(key.strip_prefix(PREFIX).and_then(|agent| state.known.remove(agent))),
            }
        }
        self.publish(&state);
    }

    fn publish(&self, state: &State) {
        let now = self.now();
        let held = state.known.values().map(|(action, _)| action).filter(|action| !has_ended(action, now));
        let next = wire::Actions { actions: held.cloned().collect() };
        self.published.send_if_modified(|current| {
            let differs = **current != next;
            if differs {
                *current = Arc::new(next);
            }
            differs
        });
    }

    /// How long until something ends, or what has ended has to be removed.
    fn next(&self) -> Option<Duration> {
        let (state, now) = (self.lock(), (self.clock)());
        let ends = state.known.values().filter_map(|(action, _)| action.until);
        ends.map(|until| {
            let at = SystemTime::UNIX_EPOCH.checked_add(Duration::from_secs(until));
            at.and_then(|at| at.duration_since(now).ok()).unwrap_or(TIDY)
        })
        .min()
    }

    /// Tells of what has ended, and removes it: whoever is first.
    async fn tidy(&self) {
        let ended: Vec<(Action, Revision)> = {
            let (state, now) = (self.lock(), self.now());
            self.publish(&state);
            state.known.values().filter(|(action, _)| has_ended(action, now)).cloned().collect()
        };
        for (action, revision) in ended {
            let key = format!("{PREFIX}{}", action.agent);
            let batch = Batch {
                expect: vec![(key.clone(), Expect::At(revision))],
                delete: vec![key],
                ..Batch::default()
            };
            match self.store.batch(batch).await {
                Ok(_) => log::info!("an agent's time is over", agent = action.agent, was = word(&action)),
                // Another control plane was faster.
                Err(StoreError::Conflict) => {}
                Err(error) => {
                    return log::warn!("what an agent was held to cannot be removed", error = error);
                }
            }
        }
        if let Err(error) = self.refresh().await {
            log::warn!("who is held cannot be read", error = error);
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// `quarantined` or `restricted`.
pub fn word(action: &Action) -> &'static str {
    match action.hold {
        wire::Hold::Quarantine => "quarantined",
        wire::Hold::Restrict(_) => "restricted",
    }
}

fn has_ended(action: &Action, now: u64) -> bool {
    action.until.is_some_and(|until| until <= now)
}

/// Takes what others change, and ends what ends, for as long as somebody has the actions.
async fn follow(actions: Weak<Actions>) {
    loop {
        let Some(now) = actions.upgrade() else { return };
        let revision = now.lock().revision;
        let watched = now.store.watch(PREFIX, revision).await;
        drop(now);
        if let Ok(mut changes) = watched {
            loop {
                let Some(next) = actions.upgrade().map(|now| now.next()) else { return };
                // A little late rather than early: seconds are whole.
                let next = next.map_or(Duration::MAX, |next| next + Duration::from_millis(5));
                let changed = tokio::time::timeout(next, changes.recv()).await;
                let Some(now) = actions.upgrade() else { return };
                match changed {
                    Err(_) => now.tidy().await,
                    Ok(Some(Ok(changes))) => now.take(changes),
                    Ok(None | Some(Err(_))) => break,
                }
            }
        }
        tokio::time::sleep(AGAIN).await;
        let Some(now) = actions.upgrade() else { return };
        now.tidy().await;
    }
}

/// What counts where it cannot be read what an agent is held to.
fn unreadable(agent: &str) -> Action {
    Action {
        agent: agent.to_owned(),
        hold: wire::Hold::Quarantine,
        until: None,
        since: 0,
        by: String::new(),
        why: "what it was held to cannot be read".into(),
    }
}

impl State {
    fn set(&mut self, Entry { key, value, revision }: Entry) {
        let Some(agent) = key.strip_prefix(PREFIX) else { return };
        match serde_json::from_slice::<Action>(&value) {
            Ok(action) if action.agent == agent => {
                drop(self.known.insert(agent.to_owned(), (action, revision)))
            }
            // A later version's, or damage: nobody is let go because of it.
            _ => {
                log::warn!("what an agent is held to cannot be read: it is quarantined", agent = agent);
                self.known.insert(agent.to_owned(), (unreadable(agent), revision));
            }
        }
    }
}

impl Drop for Actions {
    fn drop(&mut self) {
        if let Some(task) = self.following.lock().unwrap_or_else(PoisonError::into_inner).take() {
            task.abort();
        }
    }
}

impl fmt::Debug for Actions {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "Actions({})", self.lock().known.len())
    }
}
