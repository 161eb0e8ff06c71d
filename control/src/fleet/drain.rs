//! Draining: when no sidecar chooses an agent any more, its own sidecar is told so.
//!
//! That is when every connected sidecar whose set had the endpoint says that it serves a version without it, or is
//! gone. With other control planes alive nobody is told: their sidecars cannot be asked, and who drains does not wait
//! for the word longer than 2 s.

use std::collections::HashSet;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::Shared;
use super::stream::Stream;
use super::view::{Dirty, View};

/// An agent that drains.
#[derive(Debug)]
struct Drain {
    stream: Arc<Stream>,
    /// The version without it, and the streams that do not serve that yet; nothing until it is rendered.
    waiting: Option<(u64, HashSet<u64>)>,
}

/// Who drains.
#[derive(Debug, Default)]
pub(super) struct Drains(Mutex<Vec<Drain>>);

impl Drains {
    /// The agent of this stream drains.
    pub(super) fn request(&self, stream: &Arc<Stream>) {
        self.lock().push(Drain { stream: stream.clone(), waiting: None });
    }

    /// A view was rendered: those whose endpoints are in it no more are waited for from now on.
    pub(super) fn rendered(&self, shared: &Shared, view: &View, dirty: &Dirty) {
        let mut drains = self.lock();
        for drain in drains.iter_mut().filter(|drain| drain.waiting.is_none()) {
            let id = &drain.stream.registration.id;
            if view.endpoints.get(id).is_some() {
                continue;
            }
            let moved = dirty.endpoints.iter().find(|moved| moved.id == *id);
            let had = moved.and_then(|moved| moved.before.as_ref());
            let waiting = had.map_or_else(HashSet::new, |shown| {
                let streams = shared.streams();
                let concerned = streams.values().filter(|stream| {
                    // One that is revoked is sent nothing any more, so it would be waited for in vain.
                    stream.number != drain.stream.number
                        && !shared.registry.is_revoked(&stream.registration)
                        && stream.class().scope().endpoint(&shown.endpoint)
                });
                concerned.map(|stream| stream.number).collect()
            });
            drain.waiting = Some((view.version, waiting));
        }
        let alone = !shared.peers.others(shared);
        finish(&mut drains, alone);
    }

    /// A sidecar serves this version.
    pub(super) fn serving(&self, stream: u64, version: u64) {
        let mut drains = self.lock();
        let mut any = false;
        for (without, waiting) in drains.iter_mut().filter_map(|drain| drain.waiting.as_mut()) {
            any |= *without <= version && waiting.remove(&stream);
        }
        if any {
            finish(&mut drains, true);
        }
    }

    /// A stream ended.
    pub(super) fn gone(&self, stream: u64) {
        let mut drains = self.lock();
        drains.retain(|drain| drain.stream.number != stream);
        drains.iter_mut().filter_map(|drain| drain.waiting.as_mut()).for_each(|(_, waiting)| {
            waiting.remove(&stream);
        });
        finish(&mut drains, true);
    }

    fn lock(&self) -> MutexGuard<'_, Vec<Drain>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Tells those for whom nobody is waited any more; without `alone` they are left to their own clock.
fn finish(drains: &mut Vec<Drain>, alone: bool) {
    drains.retain(|drain| {
        let done = drain.waiting.as_ref().is_some_and(|(_, waiting)| waiting.is_empty());
        if done && alone {
            drain.stream.confirm_drained();
        }
        // Who is not alone when it is rendered is forgotten, and so never told.
        !done && (alone || drain.waiting.is_none())
    });
}
