//! What a rule says about retries, and which failures its words cover.

use std::time::Duration;

use super::Happened;

/// When to try again, compiled for a rule. The default is Istio's, with our stricter [`Safety`].
#[derive(Debug, Clone, PartialEq)]
pub struct RetryPolicy {
    /// Tries after the first (2, Istio's default); 0: none.
    pub attempts: u32,
    /// The longest time until the head of one try's answer, connecting included; `None`: the call's own.
    pub per_try_timeout: Option<Duration>,
    /// Which failures.
    pub on: RetryOn,
    /// Whether endpoints of other localities and priorities come before those of the own one that failed (no, Istio's default).
    pub remote_localities: bool,
    /// Whether endpoints that failed are passed over while there are others (yes, Istio's default).
    pub ignore_previous_hosts: bool,
    /// The first wait (25 ms, Envoy's default).
    pub backoff: Duration,
    /// What may be repeated at all.
    pub safety: Safety,
    /// How many bytes of a request's body are kept for another try (64 KiB); a call with more is not repeatable.
    pub buffer: usize,
}

/// How many bytes of a body are kept when nobody says (Linkerd's limit, too).
pub const BUFFER: usize = 64 * 1024;

impl Default for RetryPolicy {
    fn default() -> Self {
        RetryPolicy {
            attempts: 2,
            per_try_timeout: None,
            on: RetryOn::default(),
            remote_localities: false,
            ignore_previous_hosts: true,
            backoff: Duration::from_millis(25),
            safety: Safety::Strict,
            buffer: BUFFER,
        }
    }
}

impl RetryPolicy {
    /// For `/config`.
    pub(crate) fn describe(&self) -> serde_json::Value {
        serde_json::json!({
            "attempts": self.attempts,
            "on": self.on.words().collect::<Vec<_>>(),
            "per_try_timeout_ms": self.per_try_timeout.map(|time| time.as_millis() as u64),
            "backoff_ms": self.backoff.as_millis() as u64,
            "unsafe": self.safety == Safety::Istio,
            "buffer_bytes": self.buffer,
        })
    }
}

/// What may be repeated when it may have been done.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Safety {
    /// Only methods that RFC 9110 calls idempotent.
    #[default]
    Strict,
    /// Every method, as Istio does (`pilotfish.dev/retry-safety: istio`).
    Istio,
}

/// A word of `retryOn`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Word {
    /// `5xx`: any such answer, or none at all.
    Any5xx,
    /// `gateway-error`: 502, 503, 504, or no answer.
    GatewayError,
    /// `reset`: no answer.
    Reset,
    /// `reset-before-request`: no answer, and the request's head was not sent.
    ResetBeforeRequest,
    /// `connect-failure`: no connection; a kept one that had been closed counts as none.
    ConnectFailure,
    /// `retriable-4xx`: 409, as in Envoy.
    Retriable4xx,
    /// `refused-stream`: REFUSED_STREAM, or a stream above GOAWAY's last one.
    RefusedStream,
    /// `envoy-ratelimited`: the answer has `x-envoy-ratelimited`.
    EnvoyRateLimited,
    /// gRPC 1.
    Cancelled,
    /// gRPC 4.
    DeadlineExceeded,
    /// gRPC 13.
    Internal,
    /// gRPC 8.
    ResourceExhausted,
    /// gRPC 14.
    Unavailable,
}

/// Every word that acts, as it is written. `retriable-status-codes` acts by the numbers beside it; `retriable-headers` and
/// `http3-post-connect-failure` never do: Istio has no field for the former's headers, and there is no HTTP/3.
const WORDS: &[(&str, Word)] = &[
    ("5xx", Word::Any5xx),
    ("gateway-error", Word::GatewayError),
    ("reset", Word::Reset),
    ("reset-before-request", Word::ResetBeforeRequest),
    ("connect-failure", Word::ConnectFailure),
    ("retriable-4xx", Word::Retriable4xx),
    ("refused-stream", Word::RefusedStream),
    ("envoy-ratelimited", Word::EnvoyRateLimited),
    ("cancelled", Word::Cancelled),
    ("deadline-exceeded", Word::DeadlineExceeded),
    ("internal", Word::Internal),
    ("resource-exhausted", Word::ResourceExhausted),
    ("unavailable", Word::Unavailable),
];

impl Word {
    /// The word that is written so, if it acts.
    pub fn parse(word: &str) -> Option<Word> {
        WORDS.iter().find(|(known, _)| *known == word).map(|(_, word)| *word)
    }

    const fn bit(self) -> u16 {
        1 << self as u16
    }
}

/// The failures after which there is another try.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RetryOn {
    words: u16,
    statuses: Box<[u16]>,
}

impl Default for RetryOn {
    /// Istio's: `connect-failure,refused-stream,unavailable,cancelled`.
    fn default() -> Self {
        let words = [Word::ConnectFailure, Word::RefusedStream, Word::Unavailable, Word::Cancelled];
        RetryOn::new(words, &[])
    }
}

impl RetryOn {
    /// These words, and answers with these statuses.
    pub fn new(words: impl IntoIterator<Item = Word>, statuses: &[u16]) -> RetryOn {
        let words = words.into_iter().fold(0, |all, word| all | word.bit());
        RetryOn { words, statuses: statuses.into() }
    }

    /// Whether there is another try after this.
    pub fn covers(&self, happened: Happened) -> bool {
        use Word::{Any5xx, ConnectFailure, GatewayError, RefusedStream, Reset, ResetBeforeRequest};
        let no_answer = [Any5xx, GatewayError, Reset];
        match happened {
            Happened::NotConnected => self.any(&no_answer) || self.any(&[ConnectFailure, ResetBeforeRequest]),
            Happened::NotProcessed => self.any(&no_answer) || self.has(RefusedStream),
            Happened::Stale => self.any(&no_answer) || self.has(ConnectFailure),
            Happened::Reset | Happened::TimedOut => self.any(&no_answer),
            // Envoy: whoever limits the rate is asked again only by those who say so.
            Happened::Answered(answer) if answer.rate_limited => self.has(Word::EnvoyRateLimited),
            Happened::Answered(answer) => {
                self.covers_status(answer.status) || answer.grpc.is_some_and(|code| self.covers_grpc(code))
            }
        }
    }

    fn covers_status(&self, status: u16) -> bool {
        (self.has(Word::Any5xx) && (500..=599).contains(&status))
            || (self.has(Word::GatewayError) && (502..=504).contains(&status))
            || (self.has(Word::Retriable4xx) && status == 409)
            || self.statuses.contains(&status)
    }

    fn covers_grpc(&self, code: u32) -> bool {
        match code {
            1 => self.has(Word::Cancelled),
            4 => self.has(Word::DeadlineExceeded),
            8 => self.has(Word::ResourceExhausted),
            13 => self.has(Word::Internal),
            14 => self.has(Word::Unavailable),
            _ => false,
        }
    }

    /// The words and statuses, as they are written.
    pub fn words(&self) -> impl Iterator<Item = String> + '_ {
        let words = WORDS.iter().filter(|(_, word)| self.has(*word)).map(|(text, _)| (*text).to_owned());
        words.chain(self.statuses.iter().map(u16::to_string))
    }

    fn has(&self, word: Word) -> bool {
        self.words & word.bit() != 0
    }

    fn any(&self, words: &[Word]) -> bool {
        words.iter().any(|word| self.has(*word))
    }
}
