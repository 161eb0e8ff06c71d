//! Whole traces of what went wrong: a call that failed or was slow, though nobody keeps its trace, is told of; then so is what
//! this sidecar and, asked by the control plane, the others remember of its trace.

use std::cell::RefCell;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use pilotfish_config::wire::{MOST_TRACES, Traces};
use pilotfish_filters::clock::Micros;
use pilotfish_filters::sampling::PerSecond;
use pilotfish_filters::trace::TraceId;
use tokio::sync::Notify;

use super::ring::Question;
use crate::server::Shared;

/// Calls that failed are gathered for so long before others are asked.
const GATHER: Duration = Duration::from_millis(200);
/// Calls of a process that are told of in a second, because they failed; when everything fails, some of it will do.
const MOST_PER_SECOND: u32 = 500;
/// Places for traces that are asked for.
const WANTED: usize = 2048;

/// What the whole process knows of traces that are to be whole.
#[derive(Debug, Default)]
pub struct Recalls {
    rate: PerSecond,
    /// Traces of calls that went wrong here.
    found: Asked,
    /// The same, once this sidecar has told what it remembers: for the control plane.
    told: Asked,
    /// Traces that others ask for.
    asked: Asked,
}

/// Traces, and a bell that rings when there are some.
#[derive(Debug, Default)]
struct Asked {
    traces: Mutex<Vec<TraceId>>,
    bell: Notify,
}

impl Asked {
    fn lock(&self) -> MutexGuard<'_, Vec<TraceId>> {
        self.traces.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Adds some; of too many the oldest are forgotten.
    fn add(&self, more: &[TraceId]) {
        let mut traces = self.lock();
        traces.extend(more);
        let surplus = traces.len().saturating_sub(MOST_TRACES);
        traces.drain(..surplus);
        self.bell.notify_one();
    }

    /// Waits until there are some, then a while for more; each once.
    async fn next(&self, gather: Duration) -> Vec<TraceId> {
        loop {
            self.bell.notified().await;
            if !gather.is_zero() {
                tokio::time::sleep(gather).await;
            }
            let mut traces = std::mem::take(&mut *self.lock());
            traces.sort_unstable();
            traces.dedup();
            if !traces.is_empty() {
                return traces;
            }
        }
    }
}

impl Recalls {
    /// A call failed or was slow: whether it is told of. Never waits; when many fail at once, some are left out.
    pub fn found(&self, trace: TraceId, now: Micros) -> bool {
        if !self.rate.take(MOST_PER_SECOND, now) {
            return false;
        }
        if let Ok(mut traces) = self.found.traces.try_lock()
            && traces.len() < MOST_TRACES
            && traces.last() != Some(&trace)
        {
            traces.push(trace);
            if traces.len() == 1 {
                self.found.bell.notify_one();
            }
        }
        true
    }

    /// The control plane asks for what is remembered of these.
    pub fn ask(&self, traces: &Traces) {
        let read = traces.traces.iter().take(MOST_TRACES).filter_map(|id| TraceId::parse(id));
        let read: Vec<TraceId> = read.collect();
        if !read.is_empty() {
            self.asked.add(&read);
        }
    }

    /// What the control plane has to ask the other sidecars for, when there is something.
    pub async fn next(&self) -> Traces {
        let traces = self.told.next(Duration::ZERO).await;
        Traces { traces: traces.iter().map(TraceId::to_string).collect() }
    }
}

/// Tells what this sidecar remembers of traces that went wrong here or elsewhere, for the life of the process.
pub async fn run(shared: Arc<Shared>) {
    let recalls = &shared.recalls;
    let for_others = async {
        loop {
            tell(&shared, recalls.asked.next(Duration::ZERO).await).await;
        }
    };
    let own = async {
        loop {
            let traces = recalls.found.next(GATHER).await;
            recalls.told.add(&traces);
            tell(&shared, traces).await;
        }
    };
    tokio::join!(for_others, own);
}

async fn tell(shared: &Shared, traces: Vec<TraceId>) {
    shared.calls(&Question::Recall(traces.into())).await;
}

/// Traces that were asked for lately, so that what ends later is told of too. Of a fixed size: of two that fall into the same
/// place the newer stays.
#[derive(Debug, Default)]
pub struct Wanted(RefCell<Box<[TraceId]>>);

impl Wanted {
    /// Remembers them.
    pub fn add(&self, traces: &[TraceId]) {
        let mut places = self.0.borrow_mut();
        if places.is_empty() {
            *places = vec![TraceId::default(); WANTED].into();
        }
        for trace in traces {
            if let Some(place) = places.get_mut(place(*trace)) {
                *place = *trace;
            }
        }
    }

    /// Whether a trace was asked for.
    pub fn has(&self, trace: TraceId) -> bool {
        self.0.borrow().get(place(trace)) == Some(&trace)
    }
}

fn place(trace: TraceId) -> usize {
    let [.., high, low] = trace.0;
    usize::from(u16::from_be_bytes([high, low])) % WANTED
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_wanted_is_found_and_bounded() {
        let (wanted, mut rng) = (Wanted::default(), fastrand::Rng::with_seed(1));
        let traces: Vec<TraceId> = (0..10).map(|_| TraceId::new(&mut rng)).collect();
        assert!(!wanted.has(traces[0]));
        wanted.add(&traces[..5]);
        assert!(traces[..5].iter().all(|trace| wanted.has(*trace)));
        assert!(!traces[5..].iter().any(|trace| wanted.has(*trace)));
        for _ in 0..10_000 {
            wanted.add(&[TraceId::new(&mut rng)]);
        }
        assert_eq!(wanted.0.borrow().len(), WANTED);
    }

    #[tokio::test(start_paused = true)]
    async fn found_traces_are_gathered_each_once_and_in_bounds() {
        let (recalls, mut rng) = (Recalls::default(), fastrand::Rng::with_seed(1));
        let trace = TraceId::new(&mut rng);
        let mut told = 0;
        for n in 0..2000 {
            let other = if n % 2 == 0 { trace } else { TraceId::new(&mut rng) };
            told += u32::from(recalls.found(other, Micros(0)));
        }
        assert_eq!(told, MOST_PER_SECOND);
        let found = recalls.found.next(GATHER).await;
        assert_eq!(found.len(), MOST_TRACES / 2 + 1);
        assert!(recalls.found(trace, Micros(2_000_000)));
        assert_eq!(recalls.found.next(GATHER).await, [trace]);
    }

    #[tokio::test(start_paused = true)]
    async fn what_is_asked_is_read_with_suspicion() {
        let recalls = Recalls::default();
        let traces = ["nothing", "", &"0".repeat(32), &"1".repeat(32)].map(String::from).to_vec();
        recalls.ask(&Traces { traces });
        assert_eq!(recalls.asked.next(Duration::ZERO).await, [TraceId([0x11; 16])]);
        recalls.ask(&Traces { traces: vec!["2".repeat(32); 10_000] });
        assert_eq!(recalls.asked.next(Duration::ZERO).await, [TraceId([0x22; 16])]);
    }
}
