//! One process of the agent: this sidecar's child, or one that an earlier sidecar started.

use pilotfish_processes::{Exit, Id, Watched, signal};
use rustix::process::Signal;
use tokio::process::Child;

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
    Adopted(Watched),
}

/// How a process ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum End {
    /// As its parent, this sidecar, was told.
    How(Exit),
    /// Only its parent is told, and that was an earlier sidecar.
    Unknown,
}

impl Process {
    /// A process that was started here.
    pub fn child(child: Child, id: Id) -> Process {
        Process { id, how: How::Child(child) }
    }

    /// A process that runs already; `None`: it has ended meanwhile.
    pub fn adopt(id: Id) -> Option<Process> {
        let watched = Watched::find(id).ok().flatten()?;
        Some(Process { id, how: How::Adopted(watched) })
    }

    /// Waits for its end. May be called again.
    pub async fn ended(&mut self) -> End {
        match &mut self.how {
            How::Child(child) => {
                let exit = child.wait().await.ok().and_then(Exit::of);
                exit.map_or(End::Unknown, End::How)
            }
            How::Adopted(watched) => {
                watched.ended().await;
                End::Unknown
            }
        }
    }

    /// Sends it a signal.
    pub fn signal(&self, number: Signal) {
        match &self.how {
            How::Child(_) => drop(signal(self.id, number)),
            How::Adopted(watched) => watched.signal(number),
        }
    }
}

impl std::fmt::Display for End {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            End::How(Exit::Code(code)) => write!(out, "the command ended with {code}"),
            End::How(exit @ Exit::Signal(_)) => write!(out, "the command was ended {exit}"),
            End::Unknown => out.write_str("the command ended"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_end_says_how() {
        assert_eq!(End::How(Exit::Code(3)).to_string(), "the command ended with 3");
        assert_eq!(End::How(Exit::Signal(11)).to_string(), "the command was ended by SIGSEGV");
        assert_eq!(End::How(Exit::Signal(64)).to_string(), "the command was ended by signal 64");
    }
}
