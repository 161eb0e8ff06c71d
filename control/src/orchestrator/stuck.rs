//! What was tried in vain: moves whose new replica did not come up, replicas that a node cannot start. Each is tried again, later each
//! time and not for ever.

use std::collections::HashMap;
use std::sync::Arc;

use tokio::time::{Duration, Instant};

/// How long is waited before a move is tried again: doubled with each failure, to at most the last.
const FIRST_WAIT: Duration = Duration::from_secs(10);
const LONGEST_WAIT: Duration = Duration::from_secs(300);
/// How long a replica that its node cannot start is left to the node, which tries by itself.
const PATIENCE: Duration = Duration::from_secs(15);
/// Other nodes that are tried for one group before it is left where it is.
const MOST_NODES: usize = 5;
/// How long a node that could not start a group's replica is avoided for that group.
const AVOIDED: Duration = Duration::from_secs(600);
/// Entries of each kind; what is more is not remembered.
const MOST: usize = 10_000;
const MOST_AVOIDED: usize = 256;

/// A thing that did not work.
#[derive(Debug, Clone)]
struct Again {
    failures: u32,
    not_before: Instant,
    why: String,
}

/// What was tried in vain.
#[derive(Debug, Default)]
pub struct Stuck {
    /// Moves, by the replica that should leave.
    moves: HashMap<Arc<str>, Again>,
    /// Since when a replica cannot be started, and how often another node was looked for in vain.
    failed: HashMap<Arc<str>, Again>,
    /// Nodes that could not start a group's replica, and until when they are avoided.
    avoided: HashMap<(Arc<str>, String), Instant>,
}

impl Stuck {
    /// A move's new replica did not become ready.
    pub fn move_failed(&mut self, replica: &Arc<str>, why: String, now: Instant) {
        later(&mut self.moves, replica, why, now);
    }

    /// Why a replica stays that should move, while that is not to be tried.
    pub fn held_back(&self, replica: &str, now: Instant) -> Option<&str> {
        self.moves.get(replica).filter(|again| now < again.not_before).map(|again| again.why.as_str())
    }

    /// A node says that it cannot start a replica; gives whether another node should be looked for now.
    pub fn failed(&mut self, replica: &Arc<str>, group: &Arc<str>, now: Instant) -> bool {
        if self.failed.len() >= MOST && !self.failed.contains_key(replica) {
            return false;
        }
        let first = Again { failures: 0, not_before: now + PATIENCE, why: String::new() };
        let due = self.failed.entry(replica.clone()).or_insert(first).not_before <= now;
        due && self.avoided.keys().filter(|(of, _)| of == group).count() < MOST_NODES
    }

    /// A replica is not failed any more, or not there.
    pub fn forget(&mut self, replica: &str) {
        self.failed.remove(replica);
        self.moves.remove(replica);
    }

    /// A node is tried for a group no more, for a while.
    pub fn avoid(&mut self, group: &Arc<str>, node: &str, now: Instant) {
        if self.avoided.len() < MOST_AVOIDED {
            self.avoided.insert((group.clone(), node.to_owned()), now + AVOIDED);
        }
    }

    /// There is no other node for a replica that cannot be started: it stays, and is tried later.
    pub fn nowhere_else(&mut self, replica: &Arc<str>, now: Instant) {
        later(&mut self.failed, replica, String::new(), now);
    }

    /// Nodes that are avoided, by group.
    pub fn avoided(&self) -> impl Iterator<Item = (&Arc<str>, &str)> {
        self.avoided.keys().map(|(group, node)| (group, node.as_str()))
    }

    /// Forgets what is over; gives whether anything was.
    pub fn expire(&mut self, now: Instant) -> bool {
        let before = self.avoided.len();
        self.avoided.retain(|_, until| now < *until);
        let over = |again: &Again| now < again.not_before + LONGEST_WAIT;
        self.moves.retain(|_, again| over(again));
        before != self.avoided.len()
    }

    /// When something may be tried again.
    pub fn next(&self, now: Instant) -> Option<Instant> {
        let waits = self.moves.values().chain(self.failed.values()).map(|again| again.not_before);
        waits.chain(self.avoided.values().copied()).filter(|at| *at > now).min()
    }
}

fn later(of: &mut HashMap<Arc<str>, Again>, replica: &Arc<str>, why: String, now: Instant) {
    if of.len() >= MOST && !of.contains_key(replica) {
        return;
    }
    let again =
        of.entry(replica.clone()).or_insert(Again { failures: 0, not_before: now, why: String::new() });
    let wait = FIRST_WAIT.saturating_mul(1 << again.failures.min(8)).min(LONGEST_WAIT);
    again.failures += 1;
    (again.not_before, again.why) = (now + wait, why);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_failure_waits_longer_and_other_nodes_are_few() {
        let (mut stuck, start) = (Stuck::default(), Instant::now());
        let (replica, group): (Arc<str>, Arc<str>) = ("a/b/c".into(), "a/b".into());
        let mut now = start;
        let mut waits = Vec::new();
        for _ in 0..7 {
            stuck.move_failed(&replica, "it did not start".into(), now);
            assert_eq!(stuck.held_back("a/b/c", now), Some("it did not start"));
            let next = stuck.next(now).unwrap();
            waits.push((next - now).as_secs());
            now = next;
            assert_eq!(stuck.held_back("a/b/c", now), None);
        }
        assert_eq!(waits, [10, 20, 40, 80, 160, 300, 300]);
        // A node has its time, then others are tried, but not all of a large fleet.
        let mut now = start;
        assert!(!stuck.failed(&replica, &group, now));
        now += PATIENCE;
        for node in 0..MOST_NODES {
            assert!(stuck.failed(&replica, &group, now), "{node}");
            stuck.avoid(&group, &format!("node-{node}"), now);
        }
        assert!(!stuck.failed(&replica, &group, now));
        assert!(stuck.expire(now + AVOIDED) && stuck.avoided().count() == 0);
        stuck.nowhere_else(&replica, now);
        assert!(!stuck.failed(&replica, &group, now));
        stuck.forget("a/b/c");
        assert!(!stuck.failed(&replica, &group, now), "its patience begins anew");
    }
}
