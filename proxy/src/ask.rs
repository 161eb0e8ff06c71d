//! Requests of the sidecar's own to services outside of the mesh: key sets, token endpoints, external authorizers. Bounded in time and
//! size; TLS by the system's roots or a file; no redirects.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::{Request, Response};

use crate::server::Shared;

/// One question.
#[derive(Debug)]
pub struct Question {
    /// Method, absolute URI (`http` or `https`), headers, body.
    pub request: Request<Bytes>,
    /// HTTP/2 with prior knowledge (gRPC), else HTTP/1.1.
    pub h2: bool,
    /// For all of it: name, connection, handshake, answer.
    pub timeout: Duration,
    /// The longest answer, bytes.
    pub longest: usize,
    /// A file with the roots to trust (PEM) instead of the system's.
    pub roots: Option<std::path::PathBuf>,
    /// Files with a client certificate and its key (PEM).
    pub client: Option<(std::path::PathBuf, std::path::PathBuf)>,
}

/// Asks, on a kept connection if there is one.
///
/// # Errors
/// There is no answer, in words without secrets.
pub async fn ask(_shared: &Arc<Shared>, _question: Question) -> Result<Response<Bytes>, String> {
    Err("not there yet".into())
}
