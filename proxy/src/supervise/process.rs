//! One process of the agent: this sidecar's child, or one that an earlier sidecar started.

use std::os::fd::OwnedFd;
use std::os::unix::process::ExitStatusExt;
use std::process::ExitStatus;

use rustix::process::Signal;
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;
use tokio::process::Child;

use super::processes::{self, Id};

/// It runs, or has just ended.
#[derive(Debug)]
pub struct Process {
    /// Which one.
    pub id: Id,
    how: How,
}

#[derive(Debug)]
enum How {
    Child(Child),
    /// Readable when it has ended.
    Adopted(AsyncFd<OwnedFd>),
}

/// How a process ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum End {
    /// With this code.
    Code(i32),
    /// By this signal.
    Signal(i32),
    /// Only its parent is told, and that was an earlier sidecar.
    Unknown,
}

impl Process {
    /// A process that was started here.
    pub fn child(child: Child, id: Id) -> Process {
        Process { id, how: How::Child(child) }
    }

    /// A process that runs already; `None`: it has ended meanwhile.
    #[expect(deprecated, reason = "the successor is unsafe to call; an `OwnedFd` is all that it asks for")]
    pub fn adopt(id: Id) -> Option<Process> {
        let handle = processes::handle(id)?;
        let handle = AsyncFd::with_interest(handle, Interest::READABLE).ok()?;
        Some(Process { id, how: How::Adopted(handle) })
    }

    /// Waits for its end. May be called again.
    pub async fn ended(&mut self) -> End {
        match &mut self.how {
            How::Child(child) => child.wait().await.map_or(End::Unknown, End::of),
            How::Adopted(handle) => {
                // It stays readable: the readiness is not taken.
                let _ = handle.readable().await;
                End::Unknown
            }
        }
    }

    /// Sends it a signal.
    pub fn signal(&self, signal: Signal) {
        processes::signal(self.id, signal);
    }
}

impl End {
    fn of(status: ExitStatus) -> End {
        match (status.code(), status.signal()) {
            (Some(code), _) => End::Code(code),
            (None, Some(signal)) => End::Signal(signal),
            (None, None) => End::Unknown,
        }
    }
}

impl std::fmt::Display for End {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            End::Code(code) => write!(out, "the command ended with {code}"),
            End::Signal(signal) => match name(*signal) {
                Some(name) => write!(out, "the command was ended by {name}"),
                None => write!(out, "the command was ended by signal {signal}"),
            },
            End::Unknown => out.write_str("the command ended"),
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
    fn an_end_says_how() {
        assert_eq!(End::of(ExitStatus::from_raw(3 << 8)).to_string(), "the command ended with 3");
        assert_eq!(End::of(ExitStatus::from_raw(11)).to_string(), "the command was ended by SIGSEGV");
        assert_eq!(End::of(ExitStatus::from_raw(64)).to_string(), "the command was ended by signal 64");
    }
}
