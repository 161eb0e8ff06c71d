//! The two halves of an HTTP/2 stream, which are the same for a server and a client.

use std::rc::Rc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::{Buf, Bytes};
use h2::{RecvStream, SendStream};

use super::convert;
use crate::http::body::Frame;
use crate::http::buffer::{Gate, Tracked, is_pressed};
use crate::http::deadline::Deadline;
use crate::http::headers::Headers;

/// Why a half cannot go on.
#[derive(Debug)]
pub(crate) enum Broken {
    /// The stream or its connection ended.
    Stream(h2::Error),
    /// The peer is silent, or gives no window.
    Stalled,
}

/// Chunks up to this size are joined while they wait: a frame header and its bookkeeping cost more than the copy.
const SMALL_CHUNK: usize = 2 * 1024;

/// How the outgoing body ends.
#[derive(Debug)]
enum Ending {
    Open,
    Due(Option<Headers>),
    Sent,
}

/// The sending half. One chunk waits in here until its window is there, so a peer that gives none pins one chunk.
#[derive(Debug)]
pub(crate) struct SendHalf {
    stream: Option<SendStream<Tracked>>,
    pending: Tracked,
    /// Made when memory is short for the first time; then one chunk at a time is inside the `h2` crate.
    gate: Option<Rc<Gate>>,
    ending: Ending,
    stall: Deadline,
    patience: Duration,
}

impl SendHalf {
    /// A half that is opened by [`SendHalf::open`].
    pub(crate) fn new(patience: Duration) -> Self {
        SendHalf {
            stream: None,
            pending: Tracked::default(),
            gate: None,
            ending: Ending::Open,
            stall: Deadline::default(),
            patience,
        }
    }

    /// Takes the stream, once its head was sent. `ended` when the head ended it.
    pub(crate) fn open(&mut self, stream: SendStream<Tracked>, ended: bool) {
        self.stream = Some(stream);
        if ended {
            self.ending = Ending::Sent;
        }
    }

    /// The peer's reset of the stream, or the end of its connection.
    pub(crate) fn poll_reset(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        match &mut self.stream {
            Some(stream) => stream.poll_reset(cx).map(|_| ()),
            None => Poll::Pending,
        }
    }

    /// Ready when the waiting chunk is gone, or so small that another can join it.
    pub(crate) fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Broken>> {
        if self.pending.len() <= SMALL_CHUNK { Poll::Ready(Ok(())) } else { self.poll_flush(cx) }
    }

    /// Takes a chunk.
    pub(crate) fn push(&mut self, data: Bytes) {
        if !matches!(self.ending, Ending::Open) || self.stream.is_none() {
            return;
        }
        if self.pending.is_empty() {
            self.pending = data.into();
        } else {
            self.pending = Bytes::from([self.pending.chunk(), data.as_ref()].concat()).into();
        }
    }

    pub(crate) fn finish(&mut self, trailers: Option<Headers>) {
        if matches!(self.ending, Ending::Open) {
            self.ending = Ending::Due(trailers);
        }
    }

    /// Hands everything to the connection, as far as the windows allow.
    pub(crate) fn poll_flush(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Broken>> {
        let Some(stream) = &mut self.stream else { return Poll::Ready(Ok(())) };
        while !self.pending.is_empty() {
            stream.reserve_capacity(self.pending.len());
            let mut room = stream.capacity();
            let open = self.gate.as_ref().map_or(Poll::Ready(()), |gate| gate.poll_open(cx));
            while room == 0 {
                match stream.poll_capacity(cx) {
                    Poll::Ready(Some(Ok(n))) => room = n,
                    Poll::Ready(Some(Err(error))) => return Poll::Ready(Err(Broken::Stream(error))),
                    Poll::Ready(None) => {
                        return Poll::Ready(Err(Broken::Stream(h2::Reason::CANCEL.into())));
                    }
                    Poll::Pending => break,
                }
            }
            if room == 0 || open.is_pending() {
                self.stall.start(self.patience);
                ready!(self.stall.poll_expired(cx));
                return Poll::Ready(Err(Broken::Stalled));
            }
            self.stall.clear();
            let mut data = self.pending.split_to(room.min(self.pending.len()));
            if is_pressed() {
                data = data.behind(self.gate.get_or_insert_default());
            }
            let last = self.pending.is_empty() && matches!(self.ending, Ending::Due(None));
            if let Err(error) = stream.send_data(data, last) {
                return Poll::Ready(Err(Broken::Stream(error)));
            }
            if last {
                self.ending = Ending::Sent;
            }
        }
        if let Ending::Due(trailers) = &mut self.ending {
            let sent = match trailers.take() {
                Some(trailers) => stream.send_trailers(convert::to_trailers(&trailers)),
                None => stream.send_data(Bytes::new().into(), true),
            };
            self.ending = Ending::Sent;
            if let Err(error) = sent {
                return Poll::Ready(Err(Broken::Stream(error)));
            }
        }
        Poll::Ready(Ok(()))
    }

    /// Breaks the stream off.
    pub(crate) fn reset(&mut self, reason: h2::Reason) {
        if let Some(stream) = &mut self.stream {
            stream.send_reset(reason);
        }
    }
}

/// The receiving half. The window of a chunk is given back when the next one is asked for: a slow sink slows the sender.
#[derive(Debug)]
pub(crate) struct RecvHalf {
    stream: RecvStream,
    unreleased: usize,
    data_ended: bool,
    done: bool,
    stall: Deadline,
    patience: Option<Duration>,
}

impl RecvHalf {
    /// `patience` is how long the peer may be silent in the middle of its body.
    pub(crate) fn new(stream: RecvStream, patience: Option<Duration>) -> Self {
        let done = stream.is_end_stream();
        RecvHalf { stream, unreleased: 0, data_ended: done, done, stall: Deadline::default(), patience }
    }

    pub(crate) fn is_done(&self) -> bool {
        self.done
    }

    /// From now on the peer may be silent for ever.
    pub(crate) fn be_patient(&mut self) {
        self.patience = None;
        self.stall.clear();
    }

    pub(crate) fn poll_frame(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame, Broken>>> {
        if self.done {
            return Poll::Ready(None);
        }
        if self.unreleased > 0 {
            let n = std::mem::take(&mut self.unreleased);
            // Fails only when the stream is gone, which the next poll says better.
            let _ = self.stream.flow_control().release_capacity(n);
        }
        while !self.data_ended {
            match self.stream.poll_data(cx) {
                Poll::Ready(Some(Ok(data))) if data.is_empty() => {}
                Poll::Ready(Some(Ok(data))) => {
                    self.unreleased = data.len();
                    self.stall.clear();
                    self.done = self.stream.is_end_stream();
                    return Poll::Ready(Some(Ok(Frame::Data(data))));
                }
                Poll::Ready(Some(Err(error))) => return self.broken(Broken::Stream(error)),
                Poll::Ready(None) => self.data_ended = true,
                Poll::Pending => return self.poll_stalled(cx),
            }
        }
        match self.stream.poll_trailers(cx) {
            Poll::Ready(Ok(fields)) => {
                self.done = true;
                let fields =
                    fields.map(|fields| convert::trailers(&fields)).filter(|fields| !fields.is_empty());
                Poll::Ready(fields.map(|fields| Ok(Frame::Trailers(fields))))
            }
            Poll::Ready(Err(error)) => self.broken(Broken::Stream(error)),
            Poll::Pending => self.poll_stalled(cx),
        }
    }

    fn poll_stalled(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame, Broken>>> {
        let Some(patience) = self.patience else { return Poll::Pending };
        self.stall.start(patience);
        ready!(self.stall.poll_expired(cx));
        self.broken(Broken::Stalled)
    }

    fn broken(&mut self, why: Broken) -> Poll<Option<Result<Frame, Broken>>> {
        self.done = true;
        Poll::Ready(Some(Err(why)))
    }
}

impl Drop for RecvHalf {
    fn drop(&mut self) {
        if self.unreleased > 0 {
            let _ = self.stream.flow_control().release_capacity(self.unreleased);
        }
    }
}
