//! How an exchange on a client's connection ends, so that the next request starts where it must or the connection closes.

use std::future::poll_fn;
use std::task::Poll;

use bytes::Bytes;
use http::Version;

use super::{Answer, Conn};
use crate::http::body::Framing;
use crate::http::h1::chunked::Step;
use crate::http::h1::reader::Reader;
use crate::http::head::ResponseHead;
use crate::http::io::Io;

impl Conn {
    /// Whether the exchange ended in the ordinary way, so that there is nothing to settle.
    pub(crate) fn is_settled(&self) -> bool {
        self.keep_alive
            && self.answer == Answer::Finished
            && self.reader.is_done()
            && self.transport.out.is_empty()
    }

    /// Ends the exchange: everything written, the rest of the request's body read when it is little. Whether the connection
    /// can take another request.
    pub(crate) async fn settle(&mut self) -> bool {
        if matches!(self.transport.io, Io::Gone) {
            return false;
        }
        if self.answer != Answer::Finished {
            // Nothing, or half an answer: only a hard close tells the client so.
            return false;
        }
        if poll_fn(|cx| self.poll_flush(cx)).await.is_err() {
            return false;
        }
        if self.keep_alive && !self.reader.is_done() {
            self.keep_alive = self.drain().await;
        }
        if !self.keep_alive {
            self.linger().await;
        }
        self.keep_alive
    }

    /// Reads and drops what is left of the request body, up to the limit; whether that was all.
    async fn drain(&mut self) -> bool {
        let mut dropped = 0;
        self.deadline.set(self.limits.linger);
        poll_fn(|cx| {
            loop {
                match self.reader.decode(&mut self.transport.inbuf) {
                    Ok(Step::Data(data)) => dropped += data.len(),
                    Ok(Step::End(_)) => return Poll::Ready(true),
                    Err(_) => return Poll::Ready(false),
                    Ok(Step::More) => match self.transport.poll_fill(cx, 0) {
                        Poll::Ready(Ok(n)) if n > 0 => {}
                        Poll::Ready(_) => return Poll::Ready(false),
                        Poll::Pending => return self.deadline.poll_expired(cx).map(|()| false),
                    },
                }
                if dropped > self.limits.max_drain {
                    return Poll::Ready(false);
                }
            }
        })
        .await
    }

    /// Refuses what came: writes the answer and closes.
    pub(crate) async fn refuse(&mut self, head: &ResponseHead, body: Bytes) {
        self.version = Version::HTTP_11;
        self.is_head = false;
        self.is_connect = false;
        self.continue_due = false;
        self.keep_alive = false;
        self.answer = Answer::None;
        // What follows is unknown: read on as if it were all one body, so that the answer is not lost to a reset.
        self.reader = Reader::UntilClose;
        self.respond(head, Framing::Length(body.len() as u64));
        self.push(body);
        self.finish(None);
        if poll_fn(|cx| self.poll_flush(cx)).await.is_ok() {
            self.linger().await;
        }
    }

    /// Closes the writing side and reads on for a moment when the client may still be sending: closing a socket with unread
    /// bytes resets it, and the client might never see its answer.
    async fn linger(&mut self) {
        let nothing_follows = self.reader.is_done() && self.transport.inbuf.is_empty();
        self.deadline.set(self.limits.linger);
        // TLS has a last word to write, for which a peer that reads nothing leaves no room.
        let closed = poll_fn(|cx| match self.transport.poll_shutdown(cx) {
            Poll::Ready(closed) => Poll::Ready(closed.is_ok()),
            Poll::Pending => self.deadline.poll_expired(cx).map(|()| false),
        });
        if !closed.await || nothing_follows {
            return;
        }
        let mut dropped = 0;
        poll_fn(|cx| {
            loop {
                self.transport.inbuf.clear();
                match self.transport.poll_fill(cx, 0) {
                    Poll::Ready(Ok(n)) if n > 0 && dropped <= 16 * self.limits.max_drain => dropped += n,
                    Poll::Ready(_) => return Poll::Ready(()),
                    Poll::Pending => return self.deadline.poll_expired(cx),
                }
            }
        })
        .await;
    }
}
