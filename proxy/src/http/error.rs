//! What can go wrong with a message, as far as it decides an answer, a retry or a log line.

use std::{fmt, io};

use pilotfish_filters::verdict::Reason;

/// Why a head or a body's framing was not accepted. Nothing of such a message ever goes to the other side.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Bad {
    /// The class, which decides the status.
    pub class: BadClass,
    /// What exactly, for the log and the answer's detail; a constant, so nothing of the message leaks into either.
    pub what: &'static str,
}

/// The classes of unacceptable messages.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BadClass {
    /// Not parseable, or two parsers could read it differently: 400.
    Syntax,
    /// The header section is too large or has too many fields: 431.
    HeadTooLarge,
    /// The request line is too long: 414.
    TargetTooLong,
    /// An HTTP version that is not served here: 505.
    Version,
    /// A transfer coding other than chunked: 501.
    Coding,
    /// An `Expect` other than `100-continue`: 417.
    Expectation,
    /// The head did not arrive in time: 408.
    Timeout,
}

impl Bad {
    /// A syntax error.
    pub const fn syntax(what: &'static str) -> Self {
        Bad { class: BadClass::Syntax, what }
    }

    /// An error of another class.
    pub const fn new(class: BadClass, what: &'static str) -> Self {
        Bad { class, what }
    }

    /// The refusal that a request like this gets.
    pub const fn reason(self) -> Reason {
        match self.class {
            BadClass::Syntax => Reason::BadRequest,
            BadClass::HeadTooLarge => Reason::HeadersTooLarge,
            BadClass::TargetTooLong => Reason::UriTooLong,
            BadClass::Version => Reason::VersionNotSupported,
            BadClass::Coding => Reason::TransferCoding,
            BadClass::Expectation => Reason::ExpectationFailed,
            BadClass::Timeout => Reason::HeaderTimeout,
        }
    }
}

impl fmt::Display for Bad {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.what)
    }
}

/// Why an exchange could not go on. Each variant says whose side broke, which is what retries and reasons depend on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Error {
    /// The client closed, reset its stream, or no longer reads: nothing more can be sent to it.
    ClientGone,
    /// The request body's framing is wrong.
    BadRequest(Bad),
    /// The request body did not come in time.
    BodyTimeout,
    /// The upstream never processed the request (REFUSED_STREAM, or GOAWAY with a lower last stream): safe to repeat always.
    NotProcessed,
    /// The upstream closed before the first byte of its answer. On a reused connection this is the ordinary race with its idle
    /// timeout; whether the request was processed is unknown.
    UpstreamClosed,
    /// The upstream went away without a word before the first byte of its answer: its machine or the way to it is lost.
    UpstreamLost,
    /// The upstream broke off after its answer had begun, or reset the stream.
    UpstreamReset,
    /// The upstream's answer could not be parsed unambiguously.
    BadAnswer(Bad),
    /// The upstream was silent, or did not read, for too long.
    UpstreamTimeout,
    /// Nothing moved in either direction for too long.
    Silent,
}

impl Error {
    /// Whether the downstream side broke.
    pub const fn is_downstream(self) -> bool {
        matches!(self, Error::ClientGone | Error::BadRequest(_) | Error::BodyTimeout)
    }

    /// Whether the upstream is known not to have acted on the request.
    pub const fn never_processed(self) -> bool {
        matches!(self, Error::NotProcessed)
    }

    /// The refusal that the client gets while nothing of an answer has been sent.
    pub const fn reason(self) -> Reason {
        match self {
            Error::ClientGone => Reason::ClientGone,
            Error::BadRequest(bad) => bad.reason(),
            Error::BodyTimeout => Reason::BodyTimeout,
            Error::NotProcessed | Error::UpstreamClosed | Error::UpstreamReset => Reason::UpstreamReset,
            Error::UpstreamLost => Reason::OutcomeUnknown,
            Error::BadAnswer(_) => Reason::BadUpstreamAnswer,
            Error::UpstreamTimeout => Reason::Timeout,
            Error::Silent => Reason::StreamIdle,
        }
    }
}

/// Whether a connection ended because nothing comes from its other end any more, not because that closed it.
pub(crate) fn is_silence(error: &io::Error) -> bool {
    use io::ErrorKind::{HostUnreachable, NetworkUnreachable, TimedOut};
    matches!(error.kind(), TimedOut | HostUnreachable | NetworkUnreachable)
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Error::ClientGone => f.write_str("the client went away"),
            Error::BadRequest(bad) => write!(f, "bad request body: {bad}"),
            Error::BodyTimeout => f.write_str("the request body stalled"),
            Error::NotProcessed => f.write_str("the upstream refused the stream"),
            Error::UpstreamClosed => f.write_str("the upstream closed before it answered"),
            Error::UpstreamLost => f.write_str(
                "the upstream does not answer any more, and nobody can say whether it did the call",
            ),
            Error::UpstreamReset => f.write_str("the upstream broke off"),
            Error::BadAnswer(bad) => write!(f, "bad upstream answer: {bad}"),
            Error::UpstreamTimeout => f.write_str("the upstream stalled"),
            Error::Silent => f.write_str("nothing moved for too long"),
        }
    }
}

impl std::error::Error for Error {}
