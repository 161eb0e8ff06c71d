//! A process whose end is waited for, own child or not.

use std::io;
use std::os::fd::OwnedFd;

use rustix::process::{Signal, pidfd_send_signal};
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

use crate::Id;
use crate::id::handle;

/// A process that is watched by its pidfd.
#[derive(Debug)]
pub struct Watched {
    /// Which one.
    pub id: Id,
    /// Readable when it has ended.
    handle: AsyncFd<OwnedFd>,
}

impl Watched {
    /// Finds it; `None`: it has ended. To be called on a runtime.
    ///
    /// # Errors
    /// The kernel's, when there are no descriptors left.
    #[expect(deprecated, reason = "the successor is unsafe to call; an `OwnedFd` is all that it asks for")]
    pub fn find(id: Id) -> io::Result<Option<Watched>> {
        let Some(handle) = handle(id)? else { return Ok(None) };
        let handle = AsyncFd::with_interest(handle, Interest::READABLE)?;
        Ok(Some(Watched { id, handle }))
    }

    /// Waits for its end. May be called again.
    pub async fn ended(&self) {
        // It stays readable: the readiness is not taken. An error is one of the reactor, at the end of the program.
        let _ = self.handle.readable().await;
    }

    /// Sends it a signal; one that has ended gets none.
    pub fn signal(&self, signal: Signal) {
        let _ = pidfd_send_signal(self.handle.get_ref(), signal);
    }
}

#[cfg(test)]
mod tests {
    use std::process::Command;

    use super::*;
    use crate::Stat;

    #[test]
    fn an_end_is_seen_and_not_that_of_another() {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let mut child = Command::new("sleep").arg("60").spawn().unwrap();
        let id = Stat::of(child.id()).unwrap().id;
        runtime.block_on(async {
            assert!(Watched::find(Id { start: id.start + 1, ..id }).unwrap().is_none());
            let watched = Watched::find(id).unwrap().unwrap();
            watched.signal(Signal::KILL);
            watched.ended().await;
            watched.ended().await;
            assert!(Watched::find(id).unwrap().is_none(), "it has ended, though nobody has asked how");
        });
        child.wait().unwrap();
    }
}
