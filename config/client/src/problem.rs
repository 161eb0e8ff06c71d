//! Why a control plane gives no answer, or talks no more.

use std::fmt;
use std::io;

/// Why there is no answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Problem {
    /// It cannot be reached, or is not able to answer now: later, or at another one.
    Away(String),
    /// Who answers is no control plane of this mesh.
    Impostor(String),
    /// It refuses: the same request will not succeed.
    Refused(String),
}

impl fmt::Display for Problem {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Problem::Away(why) | Problem::Impostor(why) | Problem::Refused(why) => out.write_str(why),
        }
    }
}

/// Why messages come or go no more.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Cut {
    /// The control plane went away.
    Away(String),
    /// What it sends is no message.
    Broken(String),
}

impl fmt::Display for Cut {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Cut::Away(why) | Cut::Broken(why) => out.write_str(why),
        }
    }
}

impl From<Cut> for Problem {
    fn from(cut: Cut) -> Problem {
        Problem::Away(cut.to_string())
    }
}

pub(crate) fn away(error: impl fmt::Display) -> Problem {
    Problem::Away(error.to_string())
}

/// A connection that broke. One that just ended, as when the control plane was killed, is said so in our own words:
/// rustls' point to its manual.
pub(crate) fn broke(error: &h2::Error) -> String {
    match error.get_io() {
        Some(io) if io.kind() == io::ErrorKind::UnexpectedEof => "it closed the connection".to_owned(),
        _ => error.to_string(),
    }
}

/// What an answer other than 200 means.
pub(crate) fn refusal(status: u16, body: &[u8]) -> Problem {
    let said = serde_json::from_slice::<pilotfish_config::wire::Failure>(body).map(|failure| failure.error);
    let said = said.unwrap_or_else(|_| format!("it answers {status}"));
    match status {
        400..=499 if !matches!(status, 408 | 409 | 425 | 429) => Problem::Refused(said),
        _ => Problem::Away(said),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_stays_so_is_a_refusal() {
        let said = |status| refusal(status, br#"{"error":"no"}"#);
        assert_eq!(said(403), Problem::Refused("no".into()));
        for later in [408, 409, 425, 429, 500, 503] {
            assert_eq!(said(later), Problem::Away("no".into()), "{later}");
        }
        assert_eq!(refusal(404, b"<html>"), Problem::Refused("it answers 404".into()));
    }
}
