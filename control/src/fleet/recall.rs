//! Whole traces of what went wrong: a sidecar names traces of calls that failed, and all the others are asked for what they
//! remember of them. Each is asked for a trace once, as far as the last few hundred are remembered.

use std::collections::{BTreeSet, VecDeque};
use std::sync::{Mutex, PoisonError};

use pilotfish_config::wire::{MOST_TRACES, Traces};

use super::Shared;
use super::stream::Stream;

/// Traces that a sidecar was asked for and is not asked for again.
const REMEMBERED: usize = 4 * MOST_TRACES;

/// What one sidecar was asked for, and has to be.
#[derive(Debug, Default)]
pub(super) struct Recalls(Mutex<Known>);

#[derive(Debug, Default)]
struct Known {
    /// To be asked for; at most [`MOST_TRACES`], of more the oldest are left out.
    due: VecDeque<Box<str>>,
    /// Asked for, or told by the sidecar itself.
    known: BTreeSet<Box<str>>,
    order: VecDeque<Box<str>>,
}

impl Known {
    /// Whether it is new.
    fn remember(&mut self, trace: &str) -> bool {
        if !self.known.insert(trace.into()) {
            return false;
        }
        self.order.push_back(trace.into());
        if self.order.len() > REMEMBERED
            && let Some(oldest) = self.order.pop_front()
        {
            self.known.remove(&oldest);
        }
        true
    }
}

impl Recalls {
    fn with<T>(&self, act: impl FnOnce(&mut Known) -> T) -> T {
        act(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// What is to be asked for now.
    pub(super) fn take(&self) -> Option<Traces> {
        let due = self.with(|known| std::mem::take(&mut known.due));
        (!due.is_empty()).then(|| Traces { traces: due.into_iter().map(String::from).collect() })
    }

    /// Whether there is something new to ask for.
    fn add(&self, traces: &[&str]) -> bool {
        self.with(|known| {
            let before = known.due.len();
            for trace in traces {
                if known.remember(trace) {
                    known.due.push_back((*trace).into());
                }
            }
            let added = known.due.len() > before;
            let surplus = known.due.len().saturating_sub(MOST_TRACES);
            known.due.drain(..surplus);
            added
        })
    }
}

/// A sidecar names traces: the others are asked. What is no trace's id is nobody's business.
pub(super) fn ask(shared: &Shared, from: &Stream, traces: &Traces) {
    let is_id =
        |id: &&str| id.len() == 32 && id.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'));
    let named: Vec<&str> = traces.traces.iter().take(MOST_TRACES).map(String::as_str).filter(is_id).collect();
    // It has told what it remembers, and tells of what ends later.
    from.recalls.with(|known| {
        for trace in &named {
            known.remember(trace);
        }
    });
    for (number, stream) in shared.streams().iter() {
        if *number != from.number && stream.recalls.add(&named) {
            stream.wake.notify_one();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_trace_is_asked_for_once_and_never_too_many() {
        let recalls = Recalls::default();
        assert!(recalls.add(&["a", "b", "a"]));
        assert_eq!(recalls.take().unwrap().traces, ["a", "b"]);
        assert!(!recalls.add(&["b"]) && recalls.take().is_none());
        let many: Vec<String> = (0..10_000).map(|n| format!("t{n}")).collect();
        assert!(recalls.add(&many.iter().map(String::as_str).collect::<Vec<_>>()));
        let due = recalls.take().unwrap().traces;
        assert_eq!((due.len(), due.last().unwrap().as_str()), (MOST_TRACES, "t9999"));
        recalls.with(|known| assert!(known.known.len() == REMEMBERED && known.order.len() == REMEMBERED));
    }
}
