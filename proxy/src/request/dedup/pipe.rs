//! A queue between two tasks of one worker, bounded by the bytes in it. Each end notices when the other is dropped.

use std::cell::RefCell;
use std::collections::VecDeque;
use std::future::poll_fn;
use std::rc::Rc;
use std::task::{Context, Poll, Waker};

/// Bytes that wait before the sender has to.
const ROOM: usize = 64 * 1024;

struct Queue<T> {
    items: VecDeque<(T, usize)>,
    bytes: usize,
    /// Whether everything was sent; a sender that is dropped before has broken off.
    finished: bool,
    sender: bool,
    receiver: bool,
    /// Of the other end's task.
    wake_sender: Option<Waker>,
    wake_receiver: Option<Waker>,
}

/// The receiver was dropped.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Gone;

/// The end that gives.
pub struct Sender<T>(Rc<RefCell<Queue<T>>>);

/// The end that takes.
pub struct Receiver<T>(Rc<RefCell<Queue<T>>>);

/// A queue.
pub fn pipe<T>() -> (Sender<T>, Receiver<T>) {
    let queue = Queue {
        items: VecDeque::new(),
        bytes: 0,
        finished: false,
        sender: true,
        receiver: true,
        wake_sender: None,
        wake_receiver: None,
    };
    let queue = Rc::new(RefCell::new(queue));
    (Sender(Rc::clone(&queue)), Receiver(queue))
}

impl<T> Sender<T> {
    /// Ready when there is room. The task is also woken when the receiver goes, ready or not.
    pub fn poll_ready(&self, cx: &mut Context<'_>) -> Poll<Result<(), Gone>> {
        let mut queue = self.0.borrow_mut();
        if !queue.receiver {
            return Poll::Ready(Err(Gone));
        }
        queue.wake_sender = Some(cx.waker().clone());
        if queue.bytes < ROOM { Poll::Ready(Ok(())) } else { Poll::Pending }
    }

    /// Queues an item that counts as `bytes`; without effect when the receiver is gone.
    pub fn send(&self, item: T, bytes: usize) {
        let mut queue = self.0.borrow_mut();
        if queue.receiver {
            queue.items.push_back((item, bytes));
            queue.bytes += bytes;
            wake(queue.wake_receiver.take());
        }
    }

    /// Everything was sent.
    pub fn finish(self) {
        self.0.borrow_mut().finished = true;
    }

    /// Waits until the receiver is dropped.
    pub async fn gone(&self) {
        poll_fn(|cx| match self.poll_ready(cx) {
            Poll::Ready(Err(Gone)) => Poll::Ready(()),
            _ => Poll::Pending,
        })
        .await;
    }
}

impl<T> Drop for Sender<T> {
    fn drop(&mut self) {
        let mut queue = self.0.borrow_mut();
        queue.sender = false;
        wake(queue.wake_receiver.take());
    }
}

impl<T> Receiver<T> {
    /// The next item; `None` when the sender is gone and nothing is left.
    pub fn poll_next(&mut self, cx: &mut Context<'_>) -> Poll<Option<T>> {
        let mut queue = self.0.borrow_mut();
        if let Some((item, bytes)) = queue.items.pop_front() {
            queue.bytes -= bytes;
            wake(queue.wake_sender.take());
            return Poll::Ready(Some(item));
        }
        if !queue.sender {
            return Poll::Ready(None);
        }
        queue.wake_receiver = Some(cx.waker().clone());
        Poll::Pending
    }

    /// Whether everything that was sent was taken, and the sender said that this is all.
    pub fn is_finished(&self) -> bool {
        let queue = self.0.borrow();
        queue.finished && queue.items.is_empty()
    }
}

impl<T> Drop for Receiver<T> {
    fn drop(&mut self) {
        let mut queue = self.0.borrow_mut();
        queue.receiver = false;
        queue.items.clear();
        wake(queue.wake_sender.take());
    }
}

fn wake(waker: Option<Waker>) {
    if let Some(waker) = waker {
        waker.wake();
    }
}
