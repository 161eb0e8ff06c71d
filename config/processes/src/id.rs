//! Which process: its number and its start, so that a later one of the same number is another.

use std::fs;
use std::io;
use std::os::fd::OwnedFd;

use rustix::process::{Pid, PidfdFlags, Signal, kill_process_group, pidfd_open, pidfd_send_signal};
use serde::{Deserialize, Serialize};

use crate::Stat;

/// One process, never mixed up with a later one of the same number.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Id {
    /// Its number.
    pub pid: u32,
    /// When it started, in the kernel's ticks since the machine did.
    pub start: u64,
}

/// One process as it is written down: also after the machine was started anew it is not mixed up.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Which {
    /// Its number.
    pub pid: u32,
    /// When it started, in the kernel's ticks since the machine did.
    pub start: u64,
    /// Which start of the machine that is of.
    pub boot: String,
}

impl Which {
    /// A process that is there now.
    pub fn of(pid: u32) -> Option<Which> {
        let id = Stat::of(pid)?.id;
        Some(Which { pid: id.pid, start: id.start, boot: boot() })
    }

    /// Which process that was, if it was since the machine started.
    pub fn id(&self) -> Option<Id> {
        (self.boot == boot()).then_some(Id { pid: self.pid, start: self.start })
    }
}

/// This start of the machine; empty where the kernel has no name for it.
pub fn boot() -> String {
    let read = fs::read_to_string("/proc/sys/kernel/random/boot_id");
    read.map(|id| id.trim().to_owned()).unwrap_or_default()
}

/// A handle that stays with the process, also when its number is used again; `None`: it is gone.
///
/// # Errors
/// The kernel's, when there are no descriptors left.
pub(crate) fn handle(id: Id) -> io::Result<Option<OwnedFd>> {
    let Some(pid) = number(id) else { return Ok(None) };
    let handle = match pidfd_open(pid, PidfdFlags::NONBLOCK) {
        Ok(handle) => handle,
        Err(rustix::io::Errno::SRCH) => return Ok(None),
        Err(error) => return Err(error.into()),
    };
    // Opened before it is compared: now it cannot be another one any more.
    Ok(Stat::of(id.pid).filter(|stat| stat.id == id && !stat.zombie).map(|_| handle))
}

/// Sends a signal to exactly this process; whether it was there.
pub fn signal(id: Id, signal: Signal) -> bool {
    handle(id).ok().flatten().is_some_and(|handle| pidfd_send_signal(&handle, signal).is_ok())
}

/// Sends a signal to the group that the process leads.
pub fn signal_group(leader: Id, signal: Signal) {
    // While the leader is there, also unreaped, its number is the group's.
    let here = Stat::of(leader.pid).is_some_and(|stat| stat.id == leader);
    if let Some(pid) = number(leader).filter(|_| here) {
        let _ = kill_process_group(pid, signal);
    }
}

pub(crate) fn number(id: Id) -> Option<Pid> {
    Pid::from_raw(i32::try_from(id.pid).ok()?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_number_that_was_used_again_is_another_process() {
        let own = Stat::of(std::process::id()).unwrap().id;
        assert!(handle(own).unwrap().is_some());
        assert!(handle(Id { start: own.start + 1, ..own }).unwrap().is_none());
    }

    #[test]
    fn a_process_of_an_earlier_start_of_the_machine_is_gone() {
        let own = Which::of(std::process::id()).unwrap();
        assert!(own.start > 0 && own.boot.len() == 36, "{own:?}");
        assert_eq!(own.id(), Some(Id { pid: own.pid, start: own.start }));
        let text = serde_json::to_string(&own).unwrap();
        assert_eq!(serde_json::from_str::<Which>(&text).unwrap(), own);
        assert_eq!(Which { boot: "another".into(), ..own }.id(), None);
    }
}
