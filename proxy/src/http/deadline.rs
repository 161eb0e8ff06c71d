//! A timer that costs nothing to move: it is re-armed only when it fires early.

use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::time::{Instant, Sleep, sleep_until};

/// A deadline of one connection. Setting it per request touches no timer wheel: the armed timer is left where it is when it is
/// not later than the new deadline, and moved when it fires.
#[derive(Debug, Default)]
pub struct Deadline {
    at: Option<Instant>,
    timer: Option<Pin<Box<Sleep>>>,
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
        Poll::Pending
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

    async fn futures_poll(deadline: &mut Deadline) -> Poll<()> {
        std::future::poll_fn(|cx| Poll::Ready(deadline.poll_expired(cx))).await
    }
}
