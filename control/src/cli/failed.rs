//! Why a command did not do what it was asked, and the exit code that says so.

use std::fmt;
use std::process::ExitCode;

/// The kinds of failure; each has an exit code that scripts may rely on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Why {
    /// It was refused or failed; 1. Also `diff` that found differences, and a dry run in which something has no place.
    Refused,
    /// It was called wrongly; 2.
    Usage,
    /// The control plane does not know the caller, or does not allow this; 3.
    NotAuthorised,
    /// No control plane answered; 4.
    Unreachable,
    /// Waiting ended before it was so: before every sidecar served it, every replica was ready, a node was empty; 5.
    NotServed,
}

impl Why {
    /// The exit code.
    pub const fn code(self) -> u8 {
        match self {
            Why::Refused => 1,
            Why::Usage => 2,
            Why::NotAuthorised => 3,
            Why::Unreachable => 4,
            Why::NotServed => 5,
        }
    }
}

/// The exit codes, as `--help` shows them.
pub const EXIT_CODES: &str = "\
Exit codes:
  0  done
  1  refused or failed; `diff`: there are differences; `placement plan`: something has no place
  2  called wrongly
  3  not authorised
  4  the control plane cannot be reached
  5  --wait, drain: it is not so yet; with --wait also: a sidecar refused it";

/// A command's failure. An empty message: what is wrong was already printed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Failed {
    /// Its kind.
    pub why: Why,
    /// For people: what is wrong, where, and what to do. May have several lines.
    pub message: String,
}

impl Failed {
    /// It was refused or failed.
    pub fn refused(message: impl Into<String>) -> Failed {
        Failed { why: Why::Refused, message: message.into() }
    }

    /// It was called wrongly.
    pub fn usage(message: impl Into<String>) -> Failed {
        Failed { why: Why::Usage, message: message.into() }
    }

    /// No control plane answered.
    pub fn unreachable(message: impl Into<String>) -> Failed {
        Failed { why: Why::Unreachable, message: message.into() }
    }

    /// A failure that was already told.
    pub fn told(why: Why) -> Failed {
        Failed { why, message: String::new() }
    }

    /// Prints the message, if any, and gives the exit code.
    pub fn report(&self, command: &str) -> ExitCode {
        if !self.message.is_empty() {
            eprintln!("pilotfish {command}: {}", self.message);
        }
        ExitCode::from(self.why.code())
    }
}

impl fmt::Display for Failed {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(&self.message)
    }
}
