//! The agent as a process: started, probed, adopted, restarted, measured and stopped by its sidecar.
//!
//! | file | what |
//! |---|---|
//! | [`place`] | what outlives the sidecar: ports, secret, which process the agent is; one sidecar and one agent for a folder |
//! | [`environment`] | what the agent is told |
//! | [`launch`] | the small program between the sidecar and the agent, which takes the agent's lock |
//! | [`guard`] | for `--on-sidecar-loss kill`: what ends the agent's children with the sidecar |
//! | [`keep`] | from one process of the agent to the next: start, readiness, end, pause, crash loop, stop |
//! | [`process`] | one process of the agent, started or adopted, and how it ended |
//! | [`usage`] | time and memory that they use |
//! | [`output`] | what it writes: lines, bounded, to where they go |

pub mod environment;
mod guard;
mod keep;
mod launch;
mod output;
pub mod place;
mod process;
mod usage;

use std::ffi::OsString;
use std::fs::File;
use std::io;
use std::process::ExitCode;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{SystemTime, UNIX_EPOCH};

use pilotfish_config::wire::node::ReplicaState;
use tokio::sync::watch;
use tokio::task::JoinHandle;

use crate::server::{Listening, Shared};
use crate::telemetry::log;
use crate::telemetry::otlp::relay::Relay;
use place::Place;

/// What this program does when the sidecar started it as something else; `None`: it is the sidecar.
pub fn run_as(mut arguments: impl Iterator<Item = OsString>) -> Option<ExitCode> {
    let first = arguments.nth(1)?;
    match first.to_str()? {
        launch::WORD => Some(launch::main(arguments)),
        guard::WORD => Some(guard::main(arguments)),
        _ => None,
    }
}

/// What is known of the agent's process, for those who probe it and report it.
#[derive(Debug, Default)]
pub struct Supervised {
    run: watch::Sender<Run>,
    state: Mutex<ReplicaState>,
    cpu: AtomicU64,
    dropped: Arc<AtomicU64>,
}

/// Which process of the agent it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Run {
    /// Counts up with each start.
    pub number: u64,
    /// It runs.
    pub lives: bool,
}

impl Supervised {
    /// Which process of the agent it is now.
    pub fn runs(&self) -> watch::Receiver<Run> {
        self.run.subscribe()
    }

    /// How the agent is as a process; `id` and `generation` are for its node to say.
    pub fn state(&self) -> ReplicaState {
        self.state.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Time on cores of the processes that were seen, microseconds.
    pub fn cpu_micros(&self) -> u64 {
        self.cpu.load(Relaxed)
    }

    /// Lines of its output that were dropped.
    pub fn dropped_lines(&self) -> u64 {
        self.dropped.load(Relaxed)
    }

    /// Changes the state; gives the new one when that made a difference.
    fn change(&self, change: impl FnOnce(&mut ReplicaState)) -> Option<ReplicaState> {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        let before = state.clone();
        change(&mut state);
        if state.phase != before.phase || state.since_ms == 0 {
            state.since_ms = now_ms();
        }
        (*state != before).then(|| state.clone())
    }
}

fn now_ms() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}

/// What the supervisor is to do.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default)]
pub enum Wanted {
    /// Keep an agent running.
    #[default]
    Run,
    /// Stop it in order: SIGTERM, and after `--agent-stop` SIGKILL.
    Stop,
    /// Kill it.
    Kill,
}

/// The way to the supervisor.
#[derive(Debug)]
pub struct Supervisor {
    wanted: watch::Sender<Wanted>,
    task: JoinHandle<()>,
    /// The folder is this process's until its very end.
    _lock: File,
}

impl Supervisor {
    /// Stops the agent with everything that it started, and waits until that is done. A later call may be more urgent.
    pub async fn stop(&mut self, how: Wanted) {
        self.wanted.send_if_modified(|wanted| {
            let more = how > *wanted;
            if more {
                *wanted = how;
            }
            more
        });
        if !self.task.is_finished() {
            let _ = (&mut self.task).await;
        }
    }
}

/// Begins to supervise, on this thread's runtime, whose thread has to live as long as the process; `None`: there is nothing
/// to supervise.
///
/// # Errors
/// The state folder cannot be written.
pub fn start(
    shared: &Arc<Shared>,
    place: Option<Place>,
    listening: &Listening,
) -> io::Result<Option<Supervisor>> {
    let Some(mut place) = place else { return Ok(None) };
    let relay = Relay::open(shared, place.otlp())?;
    let otlp = relay.as_ref().map(|relay| relay.address);
    relay.map(|relay| relay.start(shared)).transpose()?;
    if let Err(error) = place.keep(listening, otlp) {
        log::error!("the agent's ports are not kept: another sidecar could not adopt it", error = error);
    }
    let lock = place.lock()?;
    let (wanted, asked) = watch::channel(Wanted::Run);
    let keeper = keep::Keeper::new(shared.clone(), place, listening.outbound, otlp, asked)?;
    Ok(Some(Supervisor { wanted, task: tokio::spawn(keeper.run()), _lock: lock }))
}
