//! What a rule does besides choosing a destination: header edits, regex rewrite, retries, faults, mirrors, CORS.

use std::time::Duration;

use super::{Destination, StringMatch};

/// Edits of both directions.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct HeaderEdits {
    /// Of the request, before it is sent on.
    pub request: HeaderOps,
    /// Of the response, before it is sent back.
    pub response: HeaderOps,
}

impl HeaderEdits {
    /// Whether nothing is edited.
    pub fn is_empty(&self) -> bool {
        self.request.is_empty() && self.response.is_empty()
    }
}

/// Edits of one header section. Names are in lower case (`:authority` too); values are valid field values.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct HeaderOps {
    /// Replaces whatever is there.
    pub set: Vec<(String, String)>,
    /// Adds a value.
    pub add: Vec<(String, String)>,
    /// Removes all values.
    pub remove: Vec<String>,
}

impl HeaderOps {
    /// Whether nothing is edited.
    pub fn is_empty(&self) -> bool {
        self.set.is_empty() && self.add.is_empty() && self.remove.is_empty()
    }
}

/// Replaces what a regular expression matches in the path.
#[derive(Debug, Clone)]
pub struct UriRegexRewrite {
    /// Not anchored; the first match and all further ones are replaced, as Envoy does.
    pub pattern: regex::Regex,
    /// In the regex crate's syntax (`${1}`); RE2's `\1` is already translated.
    pub replacement: String,
}

/// When to try again.
#[derive(Debug, Clone, PartialEq)]
pub struct Retry {
    /// Tries after the first; 0 turns retries off.
    pub attempts: u32,
    /// For each try; `None`: the route's timeout.
    pub per_try_timeout: Option<Duration>,
    /// Conditions, as words.
    pub retry_on: Vec<String>,
    /// Status codes to retry (numeric words of `retryOn`).
    pub status_codes: Vec<u16>,
    /// Try other localities too.
    pub remote_localities: Option<bool>,
    /// Avoid endpoints that already failed (default true).
    pub ignore_previous_hosts: bool,
    /// First wait (25 ms, Envoy's default).
    pub backoff: Duration,
}

/// Faults to inject.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Fault {
    /// Wait before sending on: percentage 0 to 100, time.
    pub delay: Option<(f64, Duration)>,
    /// Answer instead of sending on: percentage 0 to 100, with what.
    pub abort: Option<(f64, Abort)>,
}

/// With what a call is aborted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Abort {
    /// An HTTP status.
    Http(u16),
    /// A gRPC status, 0 to 16.
    Grpc(u8),
    /// An error code of HTTP/2 (RFC 9113 section 7): the stream is reset with it.
    Http2(u32),
}

/// Where a copy goes.
#[derive(Debug, Clone, PartialEq)]
pub struct Mirror {
    /// Where to.
    pub destination: Destination,
    /// Share of the requests, 0 to 100 (default 100).
    pub percentage: f64,
}

/// Cross-origin rules.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Cors {
    /// Origins that are allowed.
    pub allow_origins: Vec<StringMatch>,
    /// Methods.
    pub allow_methods: Vec<String>,
    /// Request headers.
    pub allow_headers: Vec<String>,
    /// Response headers that scripts may read.
    pub expose_headers: Vec<String>,
    /// How long a preflight's answer may be cached.
    pub max_age: Option<Duration>,
    /// Credentials allowed.
    pub allow_credentials: Option<bool>,
    /// Whether preflights that match no origin are sent on (default true).
    pub forward_unmatched_preflights: bool,
}
