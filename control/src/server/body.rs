//! Bodies: a request's is read whole, up to its limits; an answer's may go on piece by piece.

use std::convert::Infallible;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use http::StatusCode;
use http_body_util::BodyExt;
use hyper::body::{Body, Frame, Incoming};
use serde::de::DeserializeOwned;
use tokio::sync::mpsc;

use super::answer::Denied;
use super::connection::{Activity, Long};

/// How long a whole body may take.
const TIME: Duration = Duration::from_secs(60);

/// The whole body, at most `longest` bytes.
///
/// # Errors
/// 413 when it is longer, 408 when it takes too long, 400 when it breaks off.
pub(super) async fn read(body: Incoming, longest: usize, activity: &Activity) -> Result<Bytes, Denied> {
    let too_long = || {
        Denied::new(
            StatusCode::PAYLOAD_TOO_LARGE,
            format!("the body is longer than the {longest} bytes taken here"),
        )
    };
    if body.size_hint().lower() > longest as u64 {
        return Err(too_long());
    }
    let collect = async {
        let (mut body, mut bytes) = (body, BytesMut::new());
        while let Some(frame) = body.frame().await {
            let frame = frame.map_err(|_| Denied::bad("the body broke off"))?;
            activity.moved();
            let Ok(data) = frame.into_data() else { continue };
            if bytes.len() + data.len() > longest {
                return Err(too_long());
            }
            bytes.extend_from_slice(&data);
        }
        Ok(bytes.freeze())
    };
    let late = |_| Denied::new(StatusCode::REQUEST_TIMEOUT, "the body took too long to arrive");
    tokio::time::timeout(TIME, collect).await.map_err(late)?
}

/// A body as JSON.
///
/// # Errors
/// 400, with the place of what is wrong.
pub(super) fn parse<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, Denied> {
    serde_json::from_slice(bytes)
        .map_err(|error| Denied::bad(format!("the body is not as expected: {error}")))
}

/// The body of an answer that goes on for as long as somebody sends pieces of it. Its connection is not idle meanwhile.
#[derive(Debug)]
pub(super) struct Pieces {
    pieces: mpsc::Receiver<Bytes>,
    _long: Long,
}

impl Pieces {
    /// What comes from `pieces`.
    pub(super) fn of(pieces: mpsc::Receiver<Bytes>, activity: &Arc<Activity>) -> Pieces {
        Pieces { pieces, _long: activity.long() }
    }
}

impl Body for Pieces {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        self.pieces.poll_recv(cx).map(|piece| piece.map(|bytes| Ok(Frame::data(bytes))))
    }
}
