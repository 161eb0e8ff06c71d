//! Those who wait for a place, across threads. The lock is taken only when somebody waits: [`Line::is_empty`] is one load.

use std::sync::atomic::{AtomicU32, AtomicU64, Ordering, fence};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};

use super::queue::{Joined, Queue};
use super::{Priority, QueuePolicy};
use crate::clock::Micros;

/// A line of calls that wait for a `T`: a place, or a lease on an endpoint.
#[derive(Debug)]
pub struct Line<T> {
    /// The length of the queue, to be looked at without the lock.
    waiting: AtomicU32,
    /// Refused so far, by priority.
    refused: [AtomicU64; 3],
    inner: Mutex<Inner<T>>,
}

#[derive(Debug)]
struct Inner<T> {
    queue: Queue<Arc<Ticket<T>>>,
    policy: QueuePolicy,
    /// The newest time that anybody said: who leaves has no clock.
    latest: Micros,
}

impl<T> Default for Line<T> {
    fn default() -> Self {
        Line {
            waiting: AtomicU32::new(0),
            refused: Default::default(),
            inner: Mutex::new(Inner {
                queue: Queue::default(),
                policy: QueuePolicy::default(),
                latest: Micros::default(),
            }),
        }
    }
}

/// What a waiting call is told by.
#[derive(Debug)]
struct Ticket<T>(Mutex<State<T>>);

#[derive(Debug)]
enum State<T> {
    Waiting(Option<Waker>),
    Given(T),
    Refused,
    /// Its caller took what was given, or has gone.
    Over,
}

/// There are more calls than places, and this one does not wait for one, or not any longer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Overloaded;

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // What a panicking thread left is whole: nothing in here panics halfway.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl<T> Ticket<T> {
    /// Replaces what it says. What it said before and the waker are the caller's, to be used without locks.
    fn say(&self, state: State<T>) -> (State<T>, Option<Waker>) {
        let mut before = std::mem::replace(&mut *lock(&self.0), state);
        let waker = match &mut before {
            State::Waiting(waker) => waker.take(),
            _ => None,
        };
        (before, waker)
    }
}

impl<T> Line<T> {
    /// Whether nobody waits.
    #[inline]
    pub fn is_empty(&self) -> bool {
        self.waiting.load(Ordering::SeqCst) == 0
    }

    /// Calls that wait now.
    pub fn waiting(&self) -> u32 {
        self.waiting.load(Ordering::Relaxed)
    }

    /// Calls that were refused so far, by priority: they found no room to wait, waited too long, or gave way.
    pub fn refused(&self, priority: Priority) -> u64 {
        self.refused[priority as usize].load(Ordering::Relaxed)
    }

    /// How many may wait and how long, from now on.
    pub fn set_policy(&self, policy: QueuePolicy) {
        lock(&self.inner).policy = policy;
    }

    /// Waits for a place; `places` is how many there are. What was given meanwhile is in the waiter at once: whoever joins has
    /// to look again whether a place is free, since one may have been left just before.
    ///
    /// # Errors
    /// The line is full of calls that are at least as important.
    pub fn join(
        self: &Arc<Self>,
        now: Micros,
        priority: Priority,
        places: u32,
    ) -> Result<Waiter<T>, Overloaded> {
        let ticket = Arc::new(Ticket(Mutex::new(State::Waiting(None))));
        let mut inner = lock(&self.inner);
        let inner_ref = &mut *inner;
        inner_ref.latest = inner_ref.latest.max(now);
        let until = now.after(inner_ref.policy.longest(priority));
        let Joined { id, dropped } =
            inner_ref.queue.join(now, priority, Arc::clone(&ticket), &inner_ref.policy, places);
        let told: Vec<_> = dropped
            .into_iter()
            .map(|(class, ticket)| {
                self.count_refused(class);
                ticket.say(State::Refused)
            })
            .collect();
        self.publish(&inner.queue);
        drop(inner);
        wake(told);
        // Counted before the caller looks for a place once more, whatever it looks at.
        fence(Ordering::SeqCst);
        let id = id.ok_or(Overloaded)?;
        Ok(Waiter { line: Arc::clone(self), ticket, priority, id, until })
    }

    /// Gives `place` to the call whose turn it is; gives it back when nobody waits.
    ///
    /// # Errors
    /// The place, which nobody waits for.
    pub fn give(&self, place: T) -> Result<(), T> {
        let mut inner = lock(&self.inner);
        let now = inner.latest;
        let Some(ticket) = inner.queue.pop(now) else { return Err(place) };
        // Under the lock: who is not in the queue any more was told already.
        let told = ticket.say(State::Given(place));
        self.publish(&inner.queue);
        drop(inner);
        wake([told]);
        Ok(())
    }

    fn publish(&self, queue: &Queue<Arc<Ticket<T>>>) {
        self.waiting.store(u32::try_from(queue.len()).unwrap_or(u32::MAX), Ordering::SeqCst);
    }

    fn count_refused(&self, priority: Priority) {
        self.refused[priority as usize].fetch_add(1, Ordering::Relaxed);
    }
}

fn wake<T>(told: impl IntoIterator<Item = (State<T>, Option<Waker>)>) {
    told.into_iter().filter_map(|(_, waker)| waker).for_each(Waker::wake);
}

/// A call in a [`Line`]. Dropping it leaves the line; what was given to it meanwhile is dropped too.
#[derive(Debug)]
pub struct Waiter<T> {
    line: Arc<Line<T>>,
    ticket: Arc<Ticket<T>>,
    priority: Priority,
    id: u64,
    until: Micros,
}

impl<T> Waiter<T> {
    /// When it has waited long enough by its priority.
    pub fn until(&self) -> Micros {
        self.until
    }

    /// Ready when a place was given, or the call was refused for others.
    pub fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Result<T, Overloaded>> {
        let mut state = lock(&self.ticket.0);
        match &mut *state {
            State::Waiting(waker) => {
                match waker {
                    Some(waker) => waker.clone_from(cx.waker()),
                    None => *waker = Some(cx.waker().clone()),
                }
                Poll::Pending
            }
            State::Refused | State::Over => Poll::Ready(Err(Overloaded)),
            State::Given(_) => match std::mem::replace(&mut *state, State::Over) {
                State::Given(place) => Poll::Ready(Ok(place)),
                _ => Poll::Ready(Err(Overloaded)),
            },
        }
    }

    #[cfg(test)]
    pub(super) fn is_given(&self) -> bool {
        matches!(*lock(&self.ticket.0), State::Given(_))
    }

    /// Its time is over: leaves the line as one that was refused, unless a place was given just now.
    ///
    /// # Errors
    /// None was.
    pub fn give_up(self) -> Result<T, Overloaded> {
        match self.leave() {
            State::Given(place) => Ok(place),
            State::Waiting(_) => {
                self.line.count_refused(self.priority);
                Err(Overloaded)
            }
            _ => Err(Overloaded),
        }
    }

    /// Out of the line; what the ticket said is the caller's, to be dropped without locks.
    fn leave(&self) -> State<T> {
        let mut inner = lock(&self.line.inner);
        if inner.queue.remove(self.priority, self.id).is_some() {
            self.line.publish(&inner.queue);
        }
        drop(inner);
        self.ticket.say(State::Over).0
    }
}

impl<T> Drop for Waiter<T> {
    fn drop(&mut self) {
        drop(self.leave());
    }
}
