//! The worker's buffers: a free list shared by its connections, and the queue of what a connection has to write.

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::io::{self, IoSlice};
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, Waker, ready};

use bytes::{Buf, BufMut, Bytes, BytesMut};
use tokio::io::AsyncWrite;

use super::io::Io;

/// The usual buffer. A head and a small body fit.
pub(crate) const SMALL: usize = 16 * 1024;
/// The buffer for bodies known or seen to be big: one system call moves four times as much.
pub(crate) const BIG: usize = 64 * 1024;
/// Room for a usual head: what asks for it gets a buffer from the list and not one that fits exactly.
pub(crate) const HEAD_ROOM: usize = 1024;
/// The buffer while memory is short.
const TINY: usize = 4 * 1024;
/// Free buffers kept per class and worker; 64 connections at once read without the allocator.
const KEEP: usize = 64;
/// Chunks up to this size are copied behind what already waits: cheaper than another I/O vector.
const COALESCE: usize = 4 * 1024;
/// What a write queue may hold before its source must wait, unless memory is short.
const HIGH_WATER: usize = 64 * 1024;
/// Above so many bytes waiting for slow readers in the whole worker, reads shrink to [`SMALL`] and at twice that to [`TINY`].
const PRESSURE: usize = 4 * 1024 * 1024;

thread_local! {
    static FREE: RefCell<[Vec<BytesMut>; 2]> = const { RefCell::new([Vec::new(), Vec::new()]) };
    static QUEUED: Cell<usize> = const { Cell::new(0) };
}

/// Takes an empty buffer of at least the class that `hint` bytes ask for.
pub(crate) fn take(hint: usize) -> BytesMut {
    let queued = QUEUED.get();
    let (class, size) = if queued > 2 * PRESSURE {
        return BytesMut::with_capacity(TINY);
    } else if hint > SMALL && queued <= PRESSURE {
        (1, BIG)
    } else {
        (0, SMALL)
    };
    let free = FREE.try_with(|free| free.borrow_mut().get_mut(class).and_then(Vec::pop));
    free.ok().flatten().unwrap_or_else(|| BytesMut::with_capacity(size))
}

/// Gives a buffer back. One that is still shared with a chunk on its way is left to the allocator.
pub(crate) fn give(mut buffer: BytesMut) {
    if buffer.capacity() == 0 {
        return;
    }
    buffer.clear();
    let class = if buffer.try_reclaim(BIG) {
        1
    } else if buffer.try_reclaim(SMALL) {
        0
    } else {
        return;
    };
    if buffer.capacity() > 2 * BIG {
        return;
    }
    // At the end of the thread the list may be gone already; then the buffer goes too.
    let _ = FREE.try_with(|free| {
        if let Some(list) = free.borrow_mut().get_mut(class)
            && list.len() < KEEP
        {
            list.push(buffer);
        }
    });
}

/// What a write queue may hold before its source must wait.
#[inline]
pub(crate) fn high_water() -> usize {
    if is_pressed() { TINY } else { HIGH_WATER }
}

/// Makes sure that `buf` has room for a worthwhile read.
pub(crate) fn make_room(buf: &mut BytesMut, hint: usize) {
    if buf.is_empty() {
        let wanted = if hint > SMALL { BIG } else { SMALL };
        if buf.capacity() < wanted && !buf.try_reclaim(wanted) {
            give(std::mem::replace(buf, take(hint)));
        }
    } else if buf.capacity() - buf.len() < 2048 {
        buf.reserve(SMALL.max(buf.len()));
    }
}

/// What waits to be written on one connection: small things in one buffer, big chunks as they came.
#[derive(Debug, Default)]
pub(crate) struct Outbox {
    queue: VecDeque<Bytes>,
    queued: usize,
    tail: BytesMut,
}

impl Outbox {
    /// The bytes that wait.
    #[inline]
    pub(crate) fn len(&self) -> usize {
        self.queued + self.tail.len()
    }

    #[inline]
    pub(crate) fn is_empty(&self) -> bool {
        self.queue.is_empty() && self.tail.is_empty()
    }

    /// The buffer to append to, with room for `room` bytes.
    pub(crate) fn tail(&mut self, room: usize) -> &mut BytesMut {
        if self.tail.capacity() - self.tail.len() < room {
            if self.tail.is_empty() {
                give(std::mem::replace(&mut self.tail, take(0)));
            }
            self.tail.reserve(room);
        }
        &mut self.tail
    }

    /// Queues a chunk.
    pub(crate) fn push(&mut self, data: Bytes) {
        if data.len() <= COALESCE {
            self.tail(data.len()).put_slice(&data);
            return;
        }
        if !self.tail.is_empty() {
            let before = self.tail.split().freeze();
            self.enqueue(before);
        }
        self.enqueue(data);
    }

    fn enqueue(&mut self, data: Bytes) {
        self.queued += data.len();
        QUEUED.set(QUEUED.get() + data.len());
        self.queue.push_back(data);
    }

    fn dequeue(&mut self, n: usize) {
        self.queued -= n;
        QUEUED.set(QUEUED.get().saturating_sub(n));
    }

    /// Writes until nothing waits.
    pub(crate) fn poll_flush(&mut self, io: &mut Io, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        while !self.is_empty() {
            let written = if self.queue.is_empty() {
                ready!(Pin::new(&mut *io).poll_write(cx, &self.tail))?
            } else {
                ready!(self.poll_write_queue(io, cx))?
            };
            if written == 0 {
                return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
            }
            self.advance(written);
        }
        if self.tail.capacity() != 0 {
            give(std::mem::take(&mut self.tail));
        }
        Poll::Ready(Ok(()))
    }

    fn poll_write_queue(&self, io: &mut Io, cx: &mut Context<'_>) -> Poll<io::Result<usize>> {
        const VECTORS: usize = 16;
        let mut vectors = [IoSlice::new(&[]); VECTORS];
        let chunks = self.queue.iter().map(|chunk| chunk.as_ref()).chain(std::iter::once(self.tail.as_ref()));
        let mut used = 0;
        for (slot, chunk) in vectors.iter_mut().zip(chunks.filter(|chunk| !chunk.is_empty())) {
            *slot = IoSlice::new(chunk);
            used += 1;
        }
        Pin::new(io).poll_write_vectored(cx, vectors.get(..used).unwrap_or_default())
    }

    fn advance(&mut self, mut written: usize) {
        while written > 0 {
            let Some(first) = self.queue.front_mut() else {
                self.tail.advance(written.min(self.tail.len()));
                return;
            };
            let n = first.len().min(written);
            first.advance(n);
            let done = first.is_empty();
            self.dequeue(n);
            written -= n;
            if done {
                self.queue.pop_front();
            }
        }
    }
}

impl Drop for Outbox {
    fn drop(&mut self) {
        QUEUED.set(QUEUED.get().saturating_sub(self.queued));
        give(std::mem::take(&mut self.tail));
    }
}

/// Whether so much waits for slow readers that each may have no more than one chunk on its way.
pub(crate) fn is_pressed() -> bool {
    QUEUED.get() > PRESSURE
}

/// A chunk that counts as queued until it is written or dropped, wherever it waits: for a window, or inside the `h2` crate.
#[derive(Debug, Default)]
pub(crate) struct Tracked {
    data: Bytes,
    gate: Option<Rc<Gate>>,
}

impl Tracked {
    pub(crate) fn len(&self) -> usize {
        self.data.len()
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.data.is_empty()
    }

    /// Takes the first `n` bytes; both parts go on counting.
    pub(crate) fn split_to(&mut self, n: usize) -> Tracked {
        Tracked { data: self.data.split_to(n), gate: None }
    }

    /// Holds this gate shut until the chunk is gone.
    pub(crate) fn behind(mut self, gate: &Rc<Gate>) -> Tracked {
        gate.shut.set(true);
        self.gate = Some(gate.clone());
        self
    }
}

/// Lets one chunk of a stream pass at a time, while memory is short.
#[derive(Debug, Default)]
pub(crate) struct Gate {
    shut: Cell<bool>,
    waiting: RefCell<Option<Waker>>,
}

impl Gate {
    /// Ready when the chunk before is gone.
    pub(crate) fn poll_open(&self, cx: &Context<'_>) -> Poll<()> {
        if !self.shut.get() {
            return Poll::Ready(());
        }
        *self.waiting.borrow_mut() = Some(cx.waker().clone());
        Poll::Pending
    }

    fn open(&self) {
        self.shut.set(false);
        let waiting = self.waiting.borrow_mut().take();
        if let Some(waker) = waiting {
            waker.wake();
        }
    }
}

impl From<Bytes> for Tracked {
    fn from(data: Bytes) -> Self {
        QUEUED.set(QUEUED.get() + data.len());
        Tracked { data, gate: None }
    }
}

impl Buf for Tracked {
    fn remaining(&self) -> usize {
        self.data.len()
    }

    fn chunk(&self) -> &[u8] {
        &self.data
    }

    fn advance(&mut self, n: usize) {
        self.data.advance(n);
        QUEUED.set(QUEUED.get().saturating_sub(n));
    }
}

impl Drop for Tracked {
    fn drop(&mut self) {
        QUEUED.set(QUEUED.get().saturating_sub(self.data.len()));
        if let Some(gate) = self.gate.take() {
            gate.open();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_buffer_comes_back_to_the_list_only_when_nobody_shares_it() {
        let mut buffer = take(0);
        buffer.put_slice(b"abcdef");
        let chunk = buffer.split_to(3).freeze();
        let before = FREE.with_borrow(|free| free[0].len());
        give(buffer);
        assert_eq!(FREE.with_borrow(|free| free[0].len()), before);
        drop(chunk);
        let mut buffer = take(0);
        buffer.put_slice(b"abcdef");
        drop(buffer.split_to(3).freeze());
        give(buffer);
        assert_eq!(FREE.with_borrow(|free| free[0].len()), before + 1);
        assert!(take(0).capacity() >= SMALL);
    }

    #[test]
    fn reads_shrink_while_much_is_queued() {
        let mut outbox = Outbox::default();
        assert!(take(BIG).capacity() >= BIG);
        outbox.push(Bytes::from(vec![0; PRESSURE + 1]));
        assert_eq!(take(BIG).capacity(), SMALL);
        outbox.push(Bytes::from(vec![0; PRESSURE]));
        assert_eq!(take(BIG).capacity(), TINY);
        drop(outbox);
        assert!(take(BIG).capacity() >= BIG);
    }

    #[test]
    fn big_chunks_keep_their_order_with_small_ones() {
        let mut outbox = Outbox::default();
        outbox.push(Bytes::from_static(b"head"));
        outbox.push(Bytes::from(vec![b'x'; COALESCE + 1]));
        outbox.push(Bytes::from_static(b"tail"));
        assert_eq!(outbox.len(), COALESCE + 9);
        outbox.advance(5);
        assert_eq!(outbox.queue.len(), 1);
        outbox.advance(COALESCE);
        assert_eq!((outbox.queue.len(), outbox.tail.as_ref()), (0, &b"tail"[..]));
    }
}
