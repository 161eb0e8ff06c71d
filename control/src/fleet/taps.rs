//! Who looks at live calls: what sidecars are told of that, and the calls that come back, on their way to whoever asked.
//!
//! Nobody is waited for: calls that a reader does not take in time are counted and gone.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use pilotfish_config::wire::{MOST_TAPPED, MOST_TAPS, Tap, Tapped, TappedCall};
use tokio::sync::mpsc;

use super::registration::{Facts, Registration};
use super::which::Which;
use super::{Fleet, Shared, hello};
use crate::api::live::TapNote;

/// Calls that wait for one reader.
const WAITING: usize = 512;
/// Calls that one sidecar may tell within a second, over all taps: twice the fastest tap, since messages come in batches.
pub(super) const MOST_IN_A_SECOND: usize = 2 * MOST_TAPPED;

/// Everybody who looks.
#[derive(Debug, Default)]
pub(super) struct Taps {
    /// Counts up with each change.
    version: AtomicU64,
    last: AtomicU64,
    all: Mutex<BTreeMap<u64, Arc<Open>>>,
}

#[derive(Debug)]
struct Open {
    tap: Tap,
    which: Which,
    calls: mpsc::Sender<TappedCall>,
    limited: AtomicU64,
    lost: AtomicU64,
}

/// Somebody who looks; dropping it ends that.
#[derive(Debug)]
pub struct Looking {
    shared: Arc<Shared>,
    open: Arc<Open>,
    calls: mpsc::Receiver<TappedCall>,
}

impl Fleet {
    /// Begins to look at the calls of some sidecars; the tap's id does not matter. `None`: [`MOST_TAPS`] look already.
    pub fn tap(&self, which: Which, tap: Tap) -> Option<Looking> {
        let (sender, calls) = mpsc::channel(WAITING);
        let taps = &self.shared.taps;
        let tap = Tap { id: taps.last.fetch_add(1, Relaxed) + 1, ..tap };
        let open = Open { tap, which, calls: sender, limited: AtomicU64::new(0), lost: AtomicU64::new(0) };
        let open = Arc::new(open);
        {
            let mut all = taps.all();
            if all.len() >= MOST_TAPS {
                return None;
            }
            all.insert(open.tap.id, open.clone());
        }
        self.shared.taps_changed();
        Some(Looking { shared: self.shared.clone(), open, calls })
    }
}

impl Looking {
    /// The next call.
    pub async fn next(&mut self) -> Option<TappedCall> {
        self.calls.recv().await
    }

    /// The next call, if it is there.
    pub fn ready(&mut self) -> Option<TappedCall> {
        self.calls.try_recv().ok()
    }

    /// How it goes.
    pub fn note(&self) -> TapNote {
        let streams = self.shared.streams();
        let sidecars = streams.values().filter(|stream| self.open.which.means(&stream.registration.facts));
        TapNote {
            sidecars: sidecars.count(),
            limited: self.open.limited.load(Relaxed),
            lost: self.open.lost.load(Relaxed),
        }
    }
}

impl Drop for Looking {
    fn drop(&mut self) {
        self.shared.taps.all().remove(&self.open.tap.id);
        self.shared.taps_changed();
    }
}

impl Shared {
    /// Every sidecar may have to be told.
    fn taps_changed(&self) {
        self.taps.version.fetch_add(1, Relaxed);
        self.streams().values().for_each(|stream| stream.wake.notify_one());
    }
}

impl Taps {
    fn all(&self) -> MutexGuard<'_, BTreeMap<u64, Arc<Open>>> {
        self.all.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Counts up with each change.
    pub(super) fn version(&self) -> u64 {
        self.version.load(Relaxed)
    }

    /// Those that look at a sidecar.
    pub(super) fn at(&self, facts: &Facts) -> Vec<Tap> {
        self.all().values().filter(|open| open.which.means(facts)).map(|open| open.tap.clone()).collect()
    }

    /// Takes what a sidecar tells, as far as it was asked for; of the calls the first `most`. How many that were.
    pub(super) fn take(&self, from: &Registration, tapped: Tapped, most: usize) -> usize {
        // Its own taps only, and never under another name.
        let open = self.all().get(&tapped.tap).filter(|open| open.which.means(&from.facts)).cloned();
        let Some(open) = open else { return 0 };
        let (count, told) = (tapped.calls.len(), tapped.calls.len().min(most));
        let limited = tapped.dropped.min(u64::from(u32::MAX)) + (count - told) as u64;
        open.limited.fetch_add(limited, Relaxed);
        for call in tapped.calls.into_iter().take(told) {
            if open.calls.try_send(bounded(from, call)).is_err() {
                open.lost.fetch_add(1, Relaxed);
            }
        }
        told
    }
}

/// A call as a sidecar tells it, within bounds and under the name that it proved.
fn bounded(from: &Registration, mut call: TappedCall) -> TappedCall {
    call.agent = format!("{}/{}", from.facts.namespace, from.facts.agent);
    let TappedCall { direction, peer, method, host, path, reason, rule, cluster, .. } = &mut call;
    for text in [direction, peer, method, host, path, reason, rule, cluster] {
        *text = hello::text(text);
    }
    let TappedCall { endpoint, capability, protocol, trace, request_id, .. } = &mut call;
    for text in [endpoint, capability, protocol, trace, request_id] {
        *text = hello::text(text);
    }
    call
}
