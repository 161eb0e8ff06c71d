//! The connections of one worker that prove nothing: the own agent's, and plaintext ones from elsewhere. What is cut of them when the
//! agent is held.

use std::cell::{Cell, RefCell};
use std::future::{Future, poll_fn};
use std::pin::pin;
use std::rc::{Rc, Weak};
use std::task::Poll;

use pilotfish_filters::held::Grip;

use super::Direction;
use crate::http::io::Fuse;

/// Connections below which nobody looks for closed ones.
const FEW: usize = 64;

/// Those that are open.
#[derive(Debug, Default)]
pub struct Plain {
    open: RefCell<Vec<(Direction, Weak<Fuse>)>>,
    /// When the list is so long, closed connections are looked for.
    tidy_at: Cell<usize>,
}

impl Plain {
    /// Watches a connection until it is closed.
    pub fn add(&self, direction: Direction) -> Rc<Fuse> {
        let fuse = Rc::new(Fuse::default());
        let mut open = self.open.borrow_mut();
        if open.len() >= self.tidy_at.get().max(FEW) {
            open.retain(|(_, fuse)| fuse.strong_count() > 0);
            self.tidy_at.set(2 * open.len());
        }
        open.push((direction, Rc::downgrade(&fuse)));
        fuse
    }

    /// Cuts the agent's own connections, when it is quarantined also those that others made to it. Gives how many those are.
    pub fn cut(&self, grip: Grip) -> usize {
        let mut cut = Vec::new();
        self.open.borrow_mut().retain(|(direction, fuse)| {
            let Some(fuse) = fuse.upgrade() else { return false };
            let goes = grip == Grip::Quarantined || *direction == Direction::Outbound;
            if goes {
                cut.push(fuse);
            }
            !goes
        });
        // Outside of the borrow: a woken task may close what it holds.
        cut.iter().for_each(|fuse| fuse.blow());
        cut.len()
    }
}

/// Serves a connection until it ends, or is cut: then it is dropped with whatever goes through it.
pub async fn until_cut(fuse: Option<Rc<Fuse>>, serving: impl Future<Output = ()>) {
    let mut serving = pin!(serving);
    poll_fn(|cx| {
        if let Some(fuse) = &fuse {
            if fuse.is_blown() {
                return Poll::Ready(());
            }
            fuse.watch_reading(cx);
        }
        serving.as_mut().poll(cx)
    })
    .await;
}
