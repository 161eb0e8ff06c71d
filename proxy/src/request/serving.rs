//! The inbound calls that the agent serves now, of the whole process: an outbound call may belong to one that another worker serves.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use pilotfish_filters::clock::Micros;
use pilotfish_filters::correlate::{CallId, Correlation, Inherited, Joined, Keys, Served, Table};

use crate::bootstrap::{Settings, Switch};

/// What the agent serves, and its own name on the paths of calls.
#[derive(Debug)]
pub struct Serving {
    own: Box<str>,
    has_agent: bool,
    joins_traces: bool,
    table: Mutex<Table>,
    /// Microseconds; the log is told of circles again after it.
    quiet_until: AtomicU64,
}

/// A call that is being served; [`Serving::end`] has to be told of its end.
#[derive(Debug)]
pub struct Begun(Option<Arc<Served>>);

impl Begun {
    /// The call, unless there are too many at once.
    pub fn served(&self) -> Option<&Arc<Served>> {
        self.0.as_ref()
    }
}

impl Serving {
    /// Nothing yet.
    pub fn new(settings: &Settings) -> Serving {
        Serving {
            own: format!("{}/{}", settings.namespace, settings.agent).into(),
            has_agent: settings.app.is_some(),
            joins_traces: settings.telemetry.inference == Switch::On,
            table: Mutex::default(),
            quiet_until: AtomicU64::new(0),
        }
    }

    /// The agent's name on the path of a call.
    pub fn own(&self) -> &str {
        &self.own
    }

    /// Whether there is an agent whose calls could belong to one another.
    pub fn has_agent(&self) -> bool {
        self.has_agent
    }

    /// Whether calls of an agent that drops headers join the trace of the call that it serves (`--trace-inference`).
    pub fn joins_traces(&self) -> bool {
        self.joins_traces
    }

    /// Whether the log may be told of a circle: it is once in ten seconds.
    pub fn may_warn(&self, now: Micros) -> bool {
        let before = self.quiet_until.load(Relaxed);
        let next = now.after(Duration::from_secs(10)).0;
        before <= now.0 && self.quiet_until.compare_exchange(before, next, Relaxed, Relaxed).is_ok()
    }

    /// A call begins; `nonce` is random.
    pub fn begin(&self, inherited: Inherited, keys: Keys, nonce: u64) -> Begun {
        Begun(self.table().begin(inherited, keys, nonce))
    }

    /// It has ended.
    pub fn end(&self, begun: Begun) {
        let mut table = self.table();
        table.end(begun.0.as_deref());
        if let Some(served) = begun.0 {
            table.reuse(served);
        }
    }

    /// The trace that an outbound call belongs to.
    pub fn find_trace(&self, said: Option<CallId>, keys: &Keys) -> Option<Joined> {
        self.table().find_trace(said, keys)
    }

    /// What an outbound call belongs to.
    pub fn find(&self, said: Option<CallId>, keys: &Keys) -> Correlation {
        self.table().find(said, keys)
    }

    /// Held for some hundred nanoseconds. What a panicking thread left is no worse than what it was.
    fn table(&self) -> MutexGuard<'_, Table> {
        self.table.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
