//! For `--on-sidecar-loss kill`: this program once more, beside the sidecar, which does nothing but wait for its end and then
//! kill all of the agent. The agent's own process ends with the sidecar by itself; its children do not.

use std::ffi::OsString;
use std::io::{self, Read};
use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::{Child, Command, ExitCode, Stdio};

use pilotfish_processes::Traits;
use serde::{Deserialize, Serialize};

use super::environment;
use super::place::{Agent, GONE, Place, read_agent};

/// The first argument of the guard.
pub const WORD: &str = "guard-agent";

/// What the guard is told, as JSON in its second argument.
#[derive(Debug, Serialize, Deserialize)]
struct Order {
    /// The state folder.
    dir: PathBuf,
    /// The agent's cgroup.
    cgroup: Option<PathBuf>,
    /// The agent's mark.
    mark: String,
}

/// A guard that waits. Its end of the pipe closes with this process, however that ends.
#[derive(Debug)]
pub struct Guard(#[expect(dead_code, reason = "held open")] Child);

impl Guard {
    /// Starts one. It has the folder's lock too, so the next sidecar waits until it is done.
    ///
    /// # Errors
    /// The kernel's.
    pub fn start(place: &Place, cgroup: Option<PathBuf>) -> io::Result<Guard> {
        let order = Order { dir: place.dir.path().to_owned(), cgroup, mark: place.mark().to_owned() };
        let order = serde_json::to_string(&order).map_err(io::Error::other)?;
        let mut guard = Command::new("/proc/self/exe");
        guard.arg0("pilotfish-proxy").args([WORD, &order]);
        for name in environment::removed() {
            guard.env_remove(name);
        }
        // A group of its own: a signal to the sidecar's is not for it.
        guard.process_group(0).stdin(Stdio::piped()).stdout(place.lock()?).stderr(Stdio::null());
        guard.spawn().map(Guard)
    }
}

/// The guard's `main`.
pub fn main(mut arguments: impl Iterator<Item = OsString>) -> ExitCode {
    let order = arguments.next().unwrap_or_default();
    let Ok(order) = serde_json::from_slice::<Order>(order.as_encoded_bytes()) else {
        return ExitCode::from(2);
    };
    // Nothing ever comes but the end.
    let _ = io::stdin().lock().read(&mut [0]);
    let root = read_agent(&order.dir).as_ref().and_then(Agent::id);
    let Order { cgroup, mark, .. } = order;
    let left = Traits { root, cgroup, mark, orphans: false, gone: GONE }.kill();
    if left.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}
