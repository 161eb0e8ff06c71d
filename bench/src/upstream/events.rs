//! Event streams: when each is due, and the text of an event.

use std::cmp::Reverse;
use std::collections::BinaryHeap;

use crate::clock::now_ns;

/// The head of the answer; the events follow as chunks.
pub const HEAD: &[u8] =
    b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ncache-control: no-cache\r\ntransfer-encoding: chunked\r\n\r\n";
/// Marks the stamp in an event; it occurs nowhere else in the stream.
pub const MARK: u8 = b'@';
/// Digits of a stamp: nanoseconds, zero-padded.
pub const STAMP_DIGITS: usize = 20;
/// Bytes of an event without its chunk framing.
const EVENT: usize = 200;

/// One client's stream.
pub struct EventStream {
    /// When its next event is to be written, in nanoseconds of `CLOCK_MONOTONIC`.
    pub due: u64,
    /// The time between two events.
    pub interval_ns: u64,
}

impl EventStream {
    /// Reads `?i=MS` (default 5); the first event is due at once.
    pub fn from_target(target: &[u8]) -> Self {
        let text = std::str::from_utf8(target).unwrap_or_default();
        let ms = text.split_once("i=").and_then(|(_, v)| v.parse::<f64>().ok()).unwrap_or(5.0);
        Self { due: now_ns(), interval_ns: (ms.max(0.1) * 1e6) as u64 }
    }
}

/// The order in which streams are due, and the event that they send.
pub struct Events {
    queue: BinaryHeap<Reverse<(u64, usize)>>,
    event: Vec<u8>,
    stamp_at: usize,
}

impl Default for Events {
    fn default() -> Self {
        let mut event = format!("{EVENT:x}\r\ndata: ").into_bytes();
        let payload_from = event.len() - "data: ".len();
        event.push(MARK);
        let stamp_at = event.len();
        event.resize(payload_from + EVENT - 2, b'x');
        event.extend_from_slice(b"\n\n\r\n");
        Self { queue: BinaryHeap::new(), event, stamp_at }
    }
}

impl Events {
    /// Puts a stream in the queue.
    pub fn schedule(&mut self, fd: usize, stream: &EventStream) {
        self.push((fd, stream.due));
    }

    /// Puts a descriptor and its due time in the queue.
    pub fn push(&mut self, (fd, due): (usize, u64)) {
        self.queue.push(Reverse((due, fd)));
    }

    /// How long the loop may sleep; `None`: no stream is open.
    pub fn wait_ns(&self) -> Option<u64> {
        self.queue.peek().map(|Reverse((due, _))| due.saturating_sub(now_ns()))
    }

    /// Takes the descriptor of the next stream that is due, with the time at which it was.
    pub fn next_due(&mut self) -> Option<(usize, u64)> {
        let Reverse((due, fd)) = *self.queue.peek()?;
        if due > now_ns() {
            return None;
        }
        self.queue.pop();
        Some((fd, due))
    }

    /// An event that says that it is now.
    pub fn stamped(&mut self) -> &[u8] {
        let mut now = now_ns();
        for digit in self.event[self.stamp_at..self.stamp_at + STAMP_DIGITS].iter_mut().rev() {
            *digit = b'0' + (now % 10) as u8;
            now /= 10;
        }
        &self.event
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_event_is_one_chunk_of_the_announced_size() {
        let mut events = Events::default();
        let before = now_ns();
        let text = String::from_utf8(events.stamped().to_vec()).unwrap_or_default();
        let (size, rest) = text.split_once("\r\n").unwrap_or_default();
        assert_eq!(usize::from_str_radix(size, 16), Ok(EVENT));
        assert_eq!(rest.len(), EVENT + 2);
        assert!(rest.ends_with("\n\n\r\n"));
        let stamp = &rest["data: @".len()..][..STAMP_DIGITS];
        assert!(stamp.parse::<u64>().is_ok_and(|t| t >= before && t <= now_ns()));
    }

    #[test]
    fn streams_come_in_the_order_in_which_they_are_due() {
        let mut events = Events::default();
        events.push((7, 20));
        events.push((8, 10));
        events.push((9, u64::MAX));
        assert_eq!(events.next_due(), Some((8, 10)));
        assert_eq!(events.next_due(), Some((7, 20)));
        assert_eq!(events.next_due(), None);
    }
}
