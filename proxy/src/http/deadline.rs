//! A timer that costs nothing to move: it is re-armed only when it fires early.

use std::cell::RefCell;
use std::future::{Future, poll_fn};
use std::ops::{Deref, DerefMut};
use std::pin::{Pin, pin};
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use tokio::time::{Instant, Sleep, sleep_until};

/// A deadline of one connection. Setting it per request touches no timer wheel: the armed timer is left where it is when it is
/// not later than the new deadline, and moved when it fires.
#[derive(Debug, Default)]
pub struct Deadline {
    at: Option<Instant>,
    timer: Option<Pin<Box<Sleep>>>,
    /// Whom the timer wakes.
    waker: Option<Waker>,
}

impl Deadline {
    /// Expires `after` from now, in place of what was set.
    pub fn set(&mut self, after: Duration) {
        self.at = Instant::now().checked_add(after);
    }

    /// As [`Deadline::set`], but leaves a running deadline alone.
    pub fn start(&mut self, after: Duration) {
        if self.at.is_none() {
            self.set(after);
        }
    }

    /// Never expires.
    pub fn clear(&mut self) {
        self.at = None;
    }

    /// Ready once the deadline has passed; pending for ever while none is set.
    pub fn poll_expired(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let Some(at) = self.at else { return Poll::Pending };
        if let (Some(timer), Some(waker)) = (&self.timer, &self.waker)
            && timer.deadline() <= at
            && !timer.is_elapsed()
            && waker.will_wake(cx.waker())
        {
            // It will wake this task when it fires; to look at it earlier is in vain.
            return Poll::Pending;
        }
        let timer = self.timer.get_or_insert_with(|| Box::pin(sleep_until(at)));
        if timer.deadline() > at {
            timer.as_mut().reset(at);
        }
        while timer.as_mut().poll(cx).is_ready() {
            if Instant::now() >= at {
                return Poll::Ready(());
            }
            timer.as_mut().reset(at);
        }
        self.waker = Some(cx.waker().clone());
        Poll::Pending
    }
}

/// Timers that requests of one worker lend one another: one that is armed already is moved only when it fires, where making one
/// for each request would put it into the timer wheel and take it out again.
#[derive(Debug, Default)]
pub struct Timers(RefCell<Vec<Deadline>>);

/// Timers kept; each is about 150 bytes.
const KEPT: usize = 256;

impl Timers {
    /// A deadline that is not set.
    pub fn take(&self) -> Timer<'_> {
        Timer { timers: self, deadline: self.0.borrow_mut().pop().unwrap_or_default() }
    }

    /// Runs `future` for at most `limit`; `None`: it took longer, and is dropped.
    pub async fn within<T>(&self, limit: Duration, future: impl Future<Output = T>) -> Option<T> {
        let mut timer = self.take();
        timer.set(limit);
        let mut future = pin!(future);
        poll_fn(|cx| match future.as_mut().poll(cx) {
            Poll::Ready(done) => Poll::Ready(Some(done)),
            Poll::Pending => timer.poll_expired(cx).map(|()| None),
        })
        .await
    }
}

/// A lent deadline, which goes back when it is dropped.
#[derive(Debug)]
pub struct Timer<'a> {
    timers: &'a Timers,
    deadline: Deadline,
}

impl Deref for Timer<'_> {
    type Target = Deadline;
    fn deref(&self) -> &Deadline {
        &self.deadline
    }
}

impl DerefMut for Timer<'_> {
    fn deref_mut(&mut self) -> &mut Deadline {
        &mut self.deadline
    }
}

impl Drop for Timer<'_> {
    fn drop(&mut self) {
        let mut kept = self.timers.0.borrow_mut();
        if kept.len() < KEPT {
            self.deadline.clear();
            // Its task may end, and must not be kept for it.
            self.deadline.waker = None;
            kept.push(std::mem::take(&mut self.deadline));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_moved_deadline_expires_at_its_last_time_only() {
        let mut deadline = Deadline::default();
        let start = Instant::now();
        deadline.set(Duration::from_secs(5));
        assert!(futures_poll(&mut deadline).await.is_pending());
        tokio::time::advance(Duration::from_secs(3)).await;
        deadline.set(Duration::from_secs(5));
        std::future::poll_fn(|cx| deadline.poll_expired(cx)).await;
        assert_eq!(start.elapsed().as_secs(), 8);
        deadline.set(Duration::from_secs(60));
        assert!(futures_poll(&mut deadline).await.is_pending());
        deadline.set(Duration::from_secs(1));
        std::future::poll_fn(|cx| deadline.poll_expired(cx)).await;
        assert_eq!(start.elapsed().as_secs(), 9);
    }

    #[tokio::test(start_paused = true)]
    async fn a_lent_timer_is_armed_for_its_newest_borrower_only() {
        let timers = Timers::default();
        let start = Instant::now();
        let quick = timers.within(Duration::from_secs(1), std::future::ready(7)).await;
        assert_eq!(quick, Some(7));
        let wait = tokio::time::sleep(Duration::from_millis(500));
        assert_eq!(timers.within(Duration::from_secs(1), wait).await, Some(()));
        // The timer that is armed for 1 s fires in between and is moved.
        let late = timers.within(Duration::from_secs(5), std::future::pending::<()>()).await;
        assert_eq!((late, start.elapsed().as_millis()), (None, 5500));
        let soon = timers.within(Duration::from_millis(10), std::future::pending::<()>()).await;
        assert_eq!((soon, start.elapsed().as_millis()), (None, 5510));
        assert_eq!(timers.0.borrow().len(), 1, "one after the other they need one timer");
    }

    async fn futures_poll(deadline: &mut Deadline) -> Poll<()> {
        std::future::poll_fn(|cx| Poll::Ready(deadline.poll_expired(cx))).await
    }
}
