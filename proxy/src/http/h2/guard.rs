//! Watches an HTTP/2 connection's bytes for what the `h2` crate does not bound or does not tell: floods of control frames, a
//! peer that reads nothing, the last stream of a GOAWAY.

use std::cell::Cell;
use std::io::{self, IoSlice};
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, ready};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::Instant;

use super::wire::Wire;

const DATA: u8 = 0;
const HEADERS: u8 = 1;
const CONTINUATION: u8 = 9;
const SETTINGS: u8 = 4;
const GOAWAY: u8 = 7;

/// Control frames that may come in a burst.
const BURST: u32 = 2_000;
/// Control frames per second that may come for ever: SETTINGS, PING, PRIORITY, RST_STREAM and unknown ones.
const PER_SECOND: u32 = 200;
/// Bytes that we send for which one more WINDOW_UPDATE is natural.
const BYTES_PER_UPDATE: u64 = 512;

/// What the guard saw, shared with the streams of the connection.
#[derive(Debug, Default)]
pub(crate) struct Seen {
    /// The last stream that the peer says it processes or will process, once it has sent GOAWAY.
    pub(crate) last_stream: Cell<Option<u32>>,
}

/// The connection with the watch on it.
#[derive(Debug)]
pub(crate) struct Guard {
    wire: Wire,
    seen: Rc<Seen>,
    frames: Frames,
    /// Whether the peer's SETTINGS came, which must be its first frame (RFC 9113 section 3.4).
    opened: bool,
    budget: Budget,
}

impl Guard {
    /// Watches `wire`; `preface` bytes come before the first frame.
    pub(crate) fn new(wire: Wire, preface: usize) -> Self {
        Guard {
            wire,
            seen: Rc::default(),
            frames: Frames { skip: preface, ..Frames::default() },
            opened: false,
            budget: Budget { left: BURST, sent: 0, at: Instant::now() },
        }
    }

    /// What was seen, to be asked later.
    pub(crate) fn seen(&self) -> Rc<Seen> {
        self.seen.clone()
    }
}

/// Control frames that may still come.
#[derive(Debug)]
struct Budget {
    left: u32,
    /// Bytes that we had sent when the budget was filled last.
    sent: u64,
    at: Instant,
}

impl Budget {
    /// Pays for one frame; `sent` is what we have sent so far.
    fn spend(&mut self, sent: u64) -> bool {
        if self.left == 0 {
            let now = Instant::now();
            let by_time = now.duration_since(self.at).as_millis() * u128::from(PER_SECOND) / 1000;
            let by_bytes = u128::from((sent - self.sent) / BYTES_PER_UPDATE);
            (self.at, self.sent) = (now, sent);
            self.left = u32::try_from(by_time + by_bytes).unwrap_or(BURST).min(BURST);
        }
        let may = self.left > 0;
        self.left = self.left.saturating_sub(1);
        may
    }
}

/// Finds frame headers in a stream of bytes.
#[derive(Debug, Default)]
struct Frames {
    /// Bytes that are no frame header: the preface, payloads.
    skip: usize,
    /// A frame header that is not complete; a GOAWAY's with its first payload bytes.
    head: [u8; 13],
    filled: usize,
}

impl Frames {
    /// Feeds `bytes`; calls `seen(type, first payload bytes of GOAWAY)` for each frame.
    fn feed(&mut self, mut bytes: &[u8], mut seen: impl FnMut(u8, Option<u32>)) {
        while !bytes.is_empty() {
            if self.skip > 0 {
                let n = self.skip.min(bytes.len());
                self.skip -= n;
                bytes = bytes.get(n..).unwrap_or_default();
                continue;
            }
            let wanted = if self.filled >= 9 { 13 } else { 9 };
            let n = (wanted - self.filled).min(bytes.len());
            let (now, rest) = bytes.split_at(n);
            if let Some(slot) = self.head.get_mut(self.filled..self.filled + n) {
                slot.copy_from_slice(now);
            }
            self.filled += n;
            bytes = rest;
            if self.filled < wanted {
                continue;
            }
            let [a, b, c, kind, _, _, _, _, _, w, x, y, z] = self.head;
            let len = usize::from(a) << 16 | usize::from(b) << 8 | usize::from(c);
            if kind == GOAWAY && wanted == 9 && len >= 4 {
                continue;
            }
            let last = (wanted == 13).then(|| u32::from_be_bytes([w & 0x7f, x, y, z]));
            self.skip = len - if wanted == 13 { 4 } else { 0 };
            self.filled = 0;
            seen(kind, last);
        }
    }
}

impl AsyncRead for Guard {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        let before = buf.filled().len();
        ready!(this.wire.poll_read(cx, buf))?;
        let sent = this.wire.sent();
        let new = buf.filled().get(before..).unwrap_or_default();
        let (budget, seen, opened) = (&mut this.budget, &this.seen, &mut this.opened);
        let (mut flooded, mut misled) = (false, false);
        this.frames.feed(new, |kind, last| {
            if last.is_some() {
                seen.last_stream.set(last);
            }
            misled |= !*opened && kind != SETTINGS;
            *opened = true;
            let counts = !matches!(kind, DATA | HEADERS | CONTINUATION);
            flooded |= counts && !budget.spend(sent);
        });
        if misled {
            return Poll::Ready(Err(io::Error::other("the first frame is not SETTINGS")));
        }
        if flooded {
            return Poll::Ready(Err(io::Error::other("too many control frames")));
        }
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Guard {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        self.wire.poll_write(cx, &[IoSlice::new(buf)])
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        self.wire.poll_write(cx, bufs)
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    /// Nothing: the task that drives the connection writes when it waits (see [`Wire::drive`]).
    fn poll_flush(self: Pin<&mut Self>, _cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.wire.poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn frame(kind: u8, payload: &[u8]) -> Vec<u8> {
        let mut frame = vec![0, (payload.len() >> 8) as u8, payload.len() as u8, kind, 0, 0, 0, 0, 1];
        frame.extend_from_slice(payload);
        frame
    }

    #[test]
    fn frames_are_found_however_the_bytes_are_cut() {
        let mut bytes = b"PRI".to_vec();
        bytes.extend(frame(4, &[0; 300]));
        bytes.extend(frame(0, &[]));
        bytes.extend(frame(GOAWAY, &[0x80, 0, 1, 2, 0, 0, 0, 0, b'x']));
        bytes.extend(frame(6, &[0; 8]));
        for size in [1, 2, 7, 13, 1000] {
            let mut frames = Frames { skip: 3, ..Frames::default() };
            let mut found = Vec::new();
            for piece in bytes.chunks(size) {
                frames.feed(piece, |kind, last| found.push((kind, last)));
            }
            assert_eq!(found, [(4, None), (0, None), (GOAWAY, Some(258)), (6, None)], "cut at {size}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_flood_of_control_frames_runs_out_of_budget() {
        let mut budget = Budget { left: BURST, sent: 0, at: Instant::now() };
        assert!((0..BURST).all(|_| budget.spend(0)));
        assert!(!budget.spend(0));
        tokio::time::advance(Duration::from_secs(1)).await;
        assert!((0..PER_SECOND).all(|_| budget.spend(0)));
        assert!(!budget.spend(0));
        let sent = 3 * BYTES_PER_UPDATE;
        assert!((0..3).all(|_| budget.spend(sent)));
        assert!(!budget.spend(sent));
    }
}
