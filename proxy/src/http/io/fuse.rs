//! A switch in a connection that can be thrown from outside of the task that uses it.

use std::cell::{Cell, RefCell};
use std::task::{Context, Waker};

/// Cuts a connection, or lets nothing new begin on it. On one thread, like the connection itself.
#[derive(Debug, Default)]
pub struct Fuse {
    blown: Cell<bool>,
    retired: Cell<bool>,
    reader: RefCell<Option<Waker>>,
    writer: RefCell<Option<Waker>>,
}

impl Fuse {
    /// Cuts: every further operation fails, and whoever waits for the connection is woken to see it.
    pub fn blow(&self) {
        self.blown.set(true);
        self.retired.set(true);
        for waiting in [&self.reader, &self.writer] {
            let waker = waiting.borrow_mut().take();
            if let Some(waker) = waker {
                waker.wake();
            }
        }
    }

    /// Whether the connection was cut.
    #[inline]
    pub fn is_blown(&self) -> bool {
        self.blown.get()
    }

    /// From now on no exchange may begin; one under way goes on.
    pub fn retire(&self) {
        self.retired.set(true);
    }

    /// Whether no exchange may begin any more.
    #[inline]
    pub fn is_retired(&self) -> bool {
        self.retired.get()
    }

    /// Whom to wake when the connection is cut while it is waited for.
    pub fn watch_reading(&self, cx: &Context<'_>) {
        keep(&self.reader, cx);
    }

    /// As [`Fuse::watch_reading`], for writes.
    pub(crate) fn watch_writing(&self, cx: &Context<'_>) {
        keep(&self.writer, cx);
    }
}

fn keep(slot: &RefCell<Option<Waker>>, cx: &Context<'_>) {
    let mut slot = slot.borrow_mut();
    match &mut *slot {
        Some(known) if known.will_wake(cx.waker()) => {}
        Some(known) => known.clone_from(cx.waker()),
        None => *slot = Some(cx.waker().clone()),
    }
}
