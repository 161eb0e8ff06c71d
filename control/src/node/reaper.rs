//! The node as a parent: of the sidecars that it starts, and of what others left behind.

use std::collections::HashMap;
use std::io;
use std::process::Command;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use pilotfish_processes::Exit;
use rustix::process::{WaitOptions, wait};
use tokio::signal::unix::{SignalKind, signal};
use tokio::time::{Instant, sleep};

/// How long an end that was seen may take until it can be taken in.
const TAKEN_IN: Duration = Duration::from_secs(1);

/// Starts children and takes in all that end, also those that others left behind: the node is their subreaper.
#[derive(Debug, Default)]
pub(super) struct Reaper(Mutex<HashMap<i32, Option<Exit>>>);

impl Reaper {
    /// Makes this process the parent of what its descendants leave behind, and takes in whatever ends.
    ///
    /// # Errors
    /// The system's.
    pub(super) fn start() -> io::Result<Arc<Reaper>> {
        rustix::process::set_child_subreaper(Some(rustix::process::getpid()))?;
        let reaper = Arc::new(Reaper::default());
        let mut ends = signal(SignalKind::child())?;
        let reaping = reaper.clone();
        tokio::spawn(async move {
            while ends.recv().await.is_some() {
                reaping.reap(&mut reaping.lock());
            }
        });
        Ok(reaper)
    }

    /// Starts a child.
    ///
    /// # Errors
    /// The system's.
    pub(super) fn spawn(&self, command: &mut Command) -> io::Result<u32> {
        // Held over the start: nobody else may take in a child that is not known yet.
        let mut known = self.lock();
        let child = command.spawn()?;
        let pid = child.id();
        known.insert(i32::try_from(pid).unwrap_or_default(), None);
        Ok(pid)
    }

    /// How a child that has ended did so; `None` for one that is not ours.
    pub(super) async fn exit(&self, pid: u32) -> Option<Exit> {
        let pid = i32::try_from(pid).ok()?;
        let until = Instant::now() + TAKEN_IN;
        loop {
            {
                let mut known = self.lock();
                self.reap(&mut known);
                match known.get(&pid)? {
                    None if Instant::now() < until => {}
                    _ => return known.remove(&pid)?,
                }
            }
            // Its descriptor may tell of the end before the parent can take it in.
            sleep(Duration::from_millis(1)).await;
        }
    }

    #[expect(clippy::unused_self, reason = "whoever calls holds its lock")]
    fn reap(&self, known: &mut HashMap<i32, Option<Exit>>) {
        // Of every process group: a sidecar has one of its own.
        while let Ok(Some((pid, status))) = wait(WaitOptions::NOHANG) {
            let Some(exit) = Exit::of_wait(status) else { continue };
            if let Some(known) = known.get_mut(&pid.as_raw_nonzero().get()) {
                *known = Some(exit);
            }
        }
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, HashMap<i32, Option<Exit>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
