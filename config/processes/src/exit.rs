//! How a process ended, and in which words that is said.

use std::fmt;
use std::os::unix::process::ExitStatusExt;
use std::process::ExitStatus;

use rustix::process::{Signal, WaitStatus};

/// How a process ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Exit {
    /// With this code.
    Code(i32),
    /// By this signal.
    Signal(i32),
}

impl Exit {
    /// Of a child of the standard library or of tokio; `None`: it was only stopped.
    pub fn of(status: ExitStatus) -> Option<Exit> {
        status.code().map(Exit::Code).or(status.signal().map(Exit::Signal))
    }

    /// Of a child that was taken in by `wait`; `None`: it was only stopped.
    pub fn of_wait(status: WaitStatus) -> Option<Exit> {
        status.exit_status().map(Exit::Code).or(status.terminating_signal().map(Exit::Signal))
    }
}

/// For the end of a sentence: "with exit code 3", "by SIGSEGV".
impl fmt::Display for Exit {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Exit::Code(code) => write!(out, "with exit code {code}"),
            Exit::Signal(signal) => match name(*signal) {
                Some(name) => write!(out, "by {name}"),
                None => write!(out, "by signal {signal}"),
            },
        }
    }
}

/// A signal's name, of those that end programs.
fn name(signal: i32) -> Option<&'static str> {
    let named = [
        (Signal::HUP, "SIGHUP"),
        (Signal::INT, "SIGINT"),
        (Signal::QUIT, "SIGQUIT"),
        (Signal::ILL, "SIGILL"),
        (Signal::ABORT, "SIGABRT"),
        (Signal::BUS, "SIGBUS"),
        (Signal::FPE, "SIGFPE"),
        (Signal::KILL, "SIGKILL"),
        (Signal::SEGV, "SIGSEGV"),
        (Signal::PIPE, "SIGPIPE"),
        (Signal::TERM, "SIGTERM"),
    ];
    named.iter().find(|(known, _)| known.as_raw() == signal).map(|(_, name)| *name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_exit_says_how() {
        let said = |raw| Exit::of(ExitStatus::from_raw(raw)).unwrap().to_string();
        assert_eq!(said(3 << 8), "with exit code 3");
        assert_eq!(said(11), "by SIGSEGV");
        assert_eq!(said(64), "by signal 64");
    }
}
