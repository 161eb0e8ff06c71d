//! The signal that tells a worker's connections to close after their present request.

use std::cell::Cell;
use std::rc::Rc;

use tokio::sync::Notify;

/// Shared by all connections of one worker. Cheap to look at, woken once.
#[derive(Debug, Clone, Default)]
pub struct Closing(Rc<Inner>);

#[derive(Debug, Default)]
struct Inner {
    started: Cell<bool>,
    wake: Notify,
}

impl Closing {
    /// A signal that has not been given.
    pub fn new() -> Self {
        Closing::default()
    }

    /// Gives the signal: idle connections close, busy ones after their request, HTTP/2 connections send GOAWAY.
    pub fn start(&self) {
        self.0.started.set(true);
        self.0.wake.notify_waiters();
    }

    /// Whether the signal was given.
    #[inline]
    pub fn is_started(&self) -> bool {
        self.0.started.get()
    }

    /// Resolves when the signal is given, at once when it already was.
    pub async fn started(&self) {
        // On one thread nothing can happen between the look and the registration that the first poll makes.
        let wake = self.0.wake.notified();
        if !self.is_started() {
            wake.await;
        }
    }
}
