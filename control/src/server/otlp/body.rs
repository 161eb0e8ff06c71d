//! The body of an OTLP request: read, inflated and decoded within what all of them together may take.

use std::io::Read;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use bytes::{Bytes, BytesMut};
use http::StatusCode;
use http_body_util::BodyExt;
use hyper::body::{Body as _, Incoming};
use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
use prost::Message;
use tokio::sync::Semaphore;

use super::super::answer::Denied;
use super::super::connection::Activity;

/// A body as it comes, bytes.
pub(in crate::server) const LONGEST: usize = 8 << 20;
/// A body that was inflated, bytes.
const LONGEST_INFLATED: usize = 16 << 20;
/// A body of JSON, bytes: decoded it takes up to a hundred times as much.
const LONGEST_JSON: usize = 2 << 20;
/// How long a whole body may take.
const TIME: Duration = Duration::from_secs(20);
/// When a sender that was refused may come again, seconds.
const AGAIN: u64 = 1;

/// What bodies that are read at the same time may take together, and how fast they may come.
#[derive(Debug)]
pub(in crate::server) struct Room {
    limit: usize,
    used: AtomicUsize,
    /// Bytes a second, and at once.
    rate: Option<f64>,
    flow: Mutex<(f64, Instant)>,
    /// One body of JSON at a time.
    json: Semaphore,
}

impl Room {
    /// Room for so many bytes at a time.
    pub(super) fn new(limit: usize, rate: Option<f64>) -> Arc<Room> {
        Arc::new(Room {
            limit,
            used: AtomicUsize::new(0),
            rate,
            flow: Mutex::new((0.0, Instant::now())),
            json: Semaphore::new(1),
        })
    }

    /// A place that grows with what is read.
    pub(super) fn place(self: &Arc<Room>) -> Place {
        Place { room: self.clone(), bytes: 0 }
    }

    /// Counts bytes against the rate; false when they come too fast.
    fn flows(&self, bytes: usize, now: Instant) -> bool {
        let Some(rate) = self.rate else { return true };
        let (used, at) = &mut *self.flow.lock().unwrap_or_else(PoisonError::into_inner);
        *used = (*used - now.saturating_duration_since(*at).as_secs_f64() * rate).max(0.0);
        *at = now;
        if *used + bytes as f64 > rate {
            return false;
        }
        *used += bytes as f64;
        true
    }
}

/// What one request takes; dropping it gives it back.
#[derive(Debug)]
pub(super) struct Place {
    room: Arc<Room>,
    bytes: usize,
}

impl Place {
    fn grow(&mut self, bytes: usize) -> Result<(), Denied> {
        let before = self.room.used.fetch_add(bytes, Relaxed);
        self.bytes += bytes;
        if before + bytes > self.room.limit { Err(crowded()) } else { Ok(()) }
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.room.used.fetch_sub(self.bytes, Relaxed);
    }
}

fn crowded() -> Denied {
    let why = "more spans come at once than are taken; send them again later";
    Denied::new(StatusCode::TOO_MANY_REQUESTS, why).after(AGAIN)
}

fn too_long(longest: usize) -> Denied {
    let why = format!("the body is longer than the {longest} bytes taken here; send smaller batches");
    Denied::new(StatusCode::PAYLOAD_TOO_LARGE, why)
}

/// The whole body.
///
/// # Errors
/// 413 when it is too long, 429 when there is no room, 408 when it takes too long, 400 when it breaks off.
pub(super) async fn read(body: Incoming, place: &mut Place, activity: &Activity) -> Result<Bytes, Denied> {
    if body.size_hint().lower() > LONGEST as u64 {
        return Err(too_long(LONGEST));
    }
    let collect = async {
        let (mut body, mut bytes) = (body, BytesMut::new());
        while let Some(frame) = body.frame().await {
            let frame = frame.map_err(|_| Denied::bad("the body broke off"))?;
            activity.moved();
            let Ok(data) = frame.into_data() else { continue };
            if bytes.len() + data.len() > LONGEST {
                return Err(too_long(LONGEST));
            }
            place.grow(data.len())?;
            bytes.extend_from_slice(&data);
        }
        Ok(bytes.freeze())
    };
    let late = |_| Denied::new(StatusCode::REQUEST_TIMEOUT, "the body took too long to arrive");
    let bytes = tokio::time::timeout(TIME, collect).await.map_err(late)??;
    if place.room.flows(bytes.len(), Instant::now()) { Ok(bytes) } else { Err(crowded()) }
}

/// Inflates a body that gzip made, off the threads that serve.
///
/// # Errors
/// 413 when it becomes too long, 429 when there is no room, 400 when gzip did not make it.
pub(super) async fn inflate(bytes: Bytes, mut place: Place) -> Result<(Bytes, Place), Denied> {
    let inflating = tokio::task::spawn_blocking(move || {
        let mut inflated = Vec::new();
        let mut reader = flate2::read::MultiGzDecoder::new(&bytes[..]);
        let mut piece = vec![0; 64 << 10];
        loop {
            let read = reader.read(&mut piece).map_err(|_| Denied::bad("the body is no gzip"))?;
            if read == 0 {
                return Ok((Bytes::from(inflated), place));
            }
            if inflated.len() + read > LONGEST_INFLATED {
                return Err(too_long(LONGEST_INFLATED));
            }
            place.grow(read)?;
            inflated.extend_from_slice(&piece[..read]);
        }
    });
    inflating.await.map_err(|_| Denied::failed("the body could not be inflated"))?
}

/// JSON as the protobuf that it means, off the threads that serve.
///
/// # Errors
/// 413 when it is too long, 400 when it is no OTLP.
pub(super) async fn from_json(bytes: Bytes, place: &Place) -> Result<Bytes, Denied> {
    if bytes.len() > LONGEST_JSON {
        return Err(too_long(LONGEST_JSON));
    }
    let _one = place.room.json.acquire().await;
    let decoding = tokio::task::spawn_blocking(move || {
        let request: ExportTraceServiceRequest = serde_json::from_slice(&bytes)
            .map_err(|error| Denied::bad(format!("the body is no OTLP JSON: {error}")))?;
        Ok(Bytes::from(request.encode_to_vec()))
    });
    decoding.await.map_err(|_| Denied::failed("the body could not be read"))?
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn room_is_bounded_and_comes_back() {
        let room = Room::new(100, None);
        let (mut one, mut other) = (room.place(), room.place());
        assert!(one.grow(60).is_ok() && other.grow(60).is_err());
        drop((one, other));
        assert!(room.place().grow(100).is_ok());
    }

    #[test]
    fn what_comes_too_fast_waits() {
        let room = Room::new(100, Some(1000.0));
        let now = Instant::now();
        assert!(room.flows(1000, now) && !room.flows(1, now));
        assert!(room.flows(500, now + Duration::from_millis(500)));
        assert!(!room.flows(100, now + Duration::from_millis(500)));
    }
}
