//! Which names are known, until when, and who waits for them. Time is passed in.

use std::collections::{HashMap, HashSet};
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::oneshot;
use tokio::time::Instant;

use super::{Answer, Answers, Unresolved};

/// TTLs are taken as at least this, so that a TTL of 0 does not become a flood.
const SHORTEST: Duration = Duration::from_secs(1);

/// TTLs are taken as at most this, so that a change of /etc/hosts (which has no TTL) is seen.
const LONGEST: Duration = Duration::from_secs(300);

/// The first pause after a failed look-up; it doubles with each further one, up to [`PAUSE_MAX`].
const PAUSE: Duration = Duration::from_secs(1);

/// The longest pause after failed look-ups.
const PAUSE_MAX: Duration = Duration::from_secs(30);

/// Names that only requests brought; beyond them the ones that expire first are forgotten.
const ASKED: usize = 1024;

/// A worker that waits for an answer.
type Reply = oneshot::Sender<Result<Arc<[IpAddr]>, Unresolved>>;

/// What is known of one name.
#[derive(Debug, Default)]
struct Entry {
    addresses: Option<Arc<[IpAddr]>>,
    /// When it is looked up again, or forgotten when it is not followed. `None` while it is being looked up.
    due: Option<Instant>,
    followed: bool,
    failures: u32,
    waiting: Vec<Reply>,
}

/// All names.
#[derive(Debug, Default)]
pub(super) struct Table {
    entries: HashMap<Box<str>, Entry>,
    /// Who wants to know when each of these names was tried.
    untried: Vec<(HashSet<Box<str>>, std::sync::mpsc::Sender<()>)>,
}

impl Table {
    /// Follows `names` instead of those followed before; gives whether a name left the answers.
    pub(super) fn follow(
        &mut self,
        now: Instant,
        names: Vec<Box<str>>,
        tried: std::sync::mpsc::Sender<()>,
    ) -> bool {
        let before = self.answers().len();
        let wanted: HashSet<Box<str>> = names.into_iter().collect();
        self.entries.retain(|name, entry| {
            entry.followed = wanted.contains(name);
            entry.followed || !entry.waiting.is_empty() || entry.due.is_none()
        });
        let mut untried = HashSet::new();
        for name in wanted {
            let entry = self
                .entries
                .entry(name.clone())
                .or_insert_with(|| Entry { due: Some(now), ..Entry::default() });
            entry.followed = true;
            if entry.addresses.is_none() && entry.failures == 0 {
                untried.insert(name);
            }
        }
        if untried.is_empty() {
            let _ = tried.send(());
        } else {
            self.untried.push((untried, tried));
        }
        self.answers().len() != before
    }

    /// Answers `reply` from memory, or when the look-up that this starts has ended.
    pub(super) fn ask(&mut self, now: Instant, name: Box<str>, reply: Reply) {
        if !self.entries.contains_key(&name) {
            self.make_room();
        }
        let entry = self.entries.entry(name).or_insert_with(|| Entry { due: Some(now), ..Entry::default() });
        let fresh = entry.due.is_some_and(|due| due > now);
        match &entry.addresses {
            // What is followed is refreshed anyway, and its last addresses hold while that fails.
            Some(addresses) if fresh || entry.followed => {
                let _ = reply.send(Ok(addresses.clone()));
            }
            _ => {
                entry.waiting.push(reply);
                if entry.due.is_some() {
                    entry.due = Some(now);
                }
            }
        }
    }

    /// Names to look up now, at most `room`; they count as being looked up until [`Table::finish`].
    pub(super) fn start_due(&mut self, now: Instant, room: usize) -> Vec<Box<str>> {
        self.entries.retain(|_, entry| {
            entry.followed || !entry.waiting.is_empty() || entry.due.is_none_or(|due| due > now)
        });
        let due = self.entries.iter_mut().filter(|(_, entry)| entry.due.is_some_and(|due| due <= now));
        due.take(room)
            .map(|(name, entry)| {
                entry.due = None;
                name.clone()
            })
            .collect()
    }

    /// When a name is due next.
    pub(super) fn next_due(&self) -> Option<Instant> {
        self.entries.values().filter_map(|entry| entry.due).min()
    }

    /// Takes in a look-up's result; gives whether a followed name has other addresses now.
    pub(super) fn finish(&mut self, now: Instant, name: &str, result: Result<Answer, String>) -> bool {
        self.tried(name);
        let Some(entry) = self.entries.get_mut(name) else { return false };
        match result {
            Ok(answer) => {
                entry.failures = 0;
                entry.due = Some(now + answer.ttl.clamp(SHORTEST, LONGEST));
                let changed = !entry.addresses.as_deref().is_some_and(|old| same_set(old, &answer.addresses));
                if changed {
                    entry.addresses = Some(answer.addresses.into());
                }
                if let Some(addresses) = &entry.addresses {
                    for reply in entry.waiting.drain(..) {
                        let _ = reply.send(Ok(addresses.clone()));
                    }
                }
                changed && entry.followed
            }
            Err(why) => {
                let pause = PAUSE * 2u32.saturating_pow(entry.failures);
                entry.due = Some(now + pause.min(PAUSE_MAX));
                entry.failures = entry.failures.saturating_add(1).min(16);
                let why = Unresolved(why.into());
                for reply in entry.waiting.drain(..) {
                    let _ = reply.send(Err(why.clone()));
                }
                false
            }
        }
    }

    /// Whether the configuration uses this name and its last look-up did not fail: then a failure is news.
    pub(super) fn worked(&self, name: &str) -> bool {
        self.entries.get(name).is_some_and(|entry| entry.followed && entry.failures == 0)
    }

    /// What the followed names resolve to.
    pub(super) fn answers(&self) -> Answers {
        let followed = self.entries.iter().filter(|(_, entry)| entry.followed);
        followed
            .filter_map(|(name, entry)| Some((name.clone(), entry.addresses.as_deref()?.to_vec())))
            .collect()
    }

    fn tried(&mut self, name: &str) {
        self.untried.retain_mut(|(names, tried)| {
            names.remove(name);
            if names.is_empty() {
                let _ = tried.send(());
            }
            !names.is_empty()
        });
    }

    /// Forgets the name that expires first among those that only requests brought, when there are too many.
    fn make_room(&mut self) {
        let asked = || self.entries.iter().filter(|(_, entry)| !entry.followed);
        if asked().count() < ASKED {
            return;
        }
        let idle = asked().filter(|(_, entry)| entry.waiting.is_empty());
        let first =
            idle.filter_map(|(name, entry)| Some((entry.due?, name))).min().map(|(_, name)| name.clone());
        if let Some(name) = first {
            self.entries.remove(&name);
        }
    }
}

/// Servers rotate the order of addresses; only another set is a change.
fn same_set(old: &[IpAddr], new: &[IpAddr]) -> bool {
    old.len() == new.len() && new.iter().all(|address| old.contains(address))
}
