//! The order of those who wait. Pure: it knows neither threads nor wakers.

use std::collections::VecDeque;

use super::{INTERVAL, Priority, QueuePolicy, SHEDDABLE_TURN, TARGET};
use crate::clock::Micros;

/// Calls that wait, by priority.
#[derive(Debug)]
pub(super) struct Queue<T> {
    /// By [`Priority`], the longest waiting first.
    classes: [VecDeque<Entry<T>>; 3],
    len: usize,
    next: u64,
    /// Since when somebody waits.
    since: Micros,
    /// Places that were given to default calls while sheddable ones waited.
    passed_over: u32,
}

#[derive(Debug)]
struct Entry<T> {
    id: u64,
    since: Micros,
    payload: T,
}

impl<T> Default for Queue<T> {
    fn default() -> Self {
        Queue { classes: Default::default(), len: 0, next: 0, since: Micros::default(), passed_over: 0 }
    }
}

/// What became of a call that wanted to wait, and who has to go for it.
#[derive(Debug)]
pub(super) struct Joined<T> {
    /// Its number, when it waits.
    pub id: Option<u64>,
    /// Those who are refused.
    pub dropped: Vec<(Priority, T)>,
}

impl<T> Queue<T> {
    pub(super) fn len(&self) -> usize {
        self.len
    }

    /// Those who wait with that priority.
    pub(super) fn waiting(&self, priority: Priority) -> usize {
        self.classes[priority as usize].len()
    }

    /// Whether more comes than is served.
    pub(super) fn stands(&self, now: Micros) -> bool {
        self.len > 0 && now.since(self.since) >= INTERVAL
    }

    /// One more waits, `keep` calls at least are not dropped for having waited.
    pub(super) fn join(
        &mut self,
        now: Micros,
        priority: Priority,
        payload: T,
        policy: &QueuePolicy,
        keep: u32,
    ) -> Joined<T> {
        let mut dropped = self.drop_stale(now, keep);
        while self.len > 0 && self.len >= policy.size as usize {
            // Somebody is there, so a least important one is.
            let Some(least) = Priority::ALL.into_iter().find(|class| self.waiting(*class) > 0) else { break };
            if least > priority {
                break;
            }
            if let Some(entry) = self.classes[least as usize].pop_front() {
                self.len -= 1;
                dropped.push((least, entry.payload));
            }
        }
        if self.len >= policy.size as usize {
            dropped.push((priority, payload));
            return Joined { id: None, dropped };
        }
        if self.len == 0 {
            self.since = now;
        }
        let id = self.next;
        self.next += 1;
        self.classes[priority as usize].push_back(Entry { id, since: now, payload });
        self.len += 1;
        Joined { id: Some(id), dropped }
    }

    /// CoDel: from the front of a line that stands.
    fn drop_stale(&mut self, now: Micros, keep: u32) -> Vec<(Priority, T)> {
        let mut dropped = Vec::new();
        if !self.stands(now) {
            return dropped;
        }
        for class in [Priority::Sheddable, Priority::Default] {
            let line = &mut self.classes[class as usize];
            while self.len > keep.max(1) as usize
                && line.front().is_some_and(|first| now.since(first.since) > TARGET)
                && let Some(first) = line.pop_front()
            {
                self.len -= 1;
                dropped.push((class, first.payload));
            }
        }
        dropped
    }

    /// Whose turn it is.
    pub(super) fn pop(&mut self, now: Micros) -> Option<T> {
        let stands = self.stands(now);
        let class = self.turn()?;
        let line = &mut self.classes[class as usize];
        let newest_first = stands && class != Priority::Critical;
        let entry = if newest_first { line.pop_back() } else { line.pop_front() }?;
        self.len -= 1;
        Some(entry.payload)
    }

    fn turn(&mut self) -> Option<Priority> {
        let [sheddable, default, critical] = Priority::ALL.map(|class| self.waiting(class) > 0);
        if critical {
            return Some(Priority::Critical);
        }
        if sheddable && default {
            self.passed_over += 1;
            if self.passed_over < SHEDDABLE_TURN {
                return Some(Priority::Default);
            }
        } else if default {
            return Some(Priority::Default);
        }
        self.passed_over = 0;
        sheddable.then_some(Priority::Sheddable)
    }

    /// Takes one out, wherever it stands; `None`: it is not there any more.
    pub(super) fn remove(&mut self, priority: Priority, id: u64) -> Option<T> {
        let line = &mut self.classes[priority as usize];
        let at = line.binary_search_by_key(&id, |entry| entry.id).ok()?;
        let entry = line.remove(at)?;
        self.len -= 1;
        Some(entry.payload)
    }
}
