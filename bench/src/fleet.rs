//! The control plane under a fleet: `pilotfish serve` as a process on core 0, simulated sidecars over real TLS and
//! HTTP/2 streams in this process on core 1.
//!
//! First 1,000 sidecars that see everything, and one route that changes: from the start of `pilotfish apply --wait` to
//! its end, which is when all of them said that they serve it. Then 10,000 in 100 namespaces, of which each sees its
//! own (a Sidecar document for all says so): what their heartbeats cost, and what one more endpoint costs a sidecar
//! that sees all 10,000.

pub mod control;
mod link;
pub mod nodes;
mod sidecar;

use std::io;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::{Duration, Instant};

use rustix::thread::{CpuSet, sched_setaffinity};
use tokio::task::JoinSet;
use tokio::time::sleep;

use crate::work::Values;
use control::Control;
use link::Identity;
use sidecar::{Seen, Sidecar};

/// Sidecars that wait for a route.
const WATCHING: usize = 1_000;
/// Sidecars that only live.
const LIVING: usize = 10_000;
/// Namespaces of those.
const NAMESPACES: usize = 100;
/// How often the route changes.
const CHANGES: usize = 7;
/// What the control plane waits for quiet; it is not counted (Istio's 100 ms).
const DEBOUNCE_MS: f64 = 100.0;
/// Sidecars that connect at a time: fewer than a stranger may have connections without a certificate.
const AT_A_TIME: usize = 64;
/// How long heartbeats are measured.
const HEARTBEATS: Duration = Duration::from_secs(15);

/// Runs all of it once.
///
/// # Errors
/// The control plane does not start, refuses, or does not answer in time.
pub fn run(
    binary: &Path,
    dir: &Path,
    port: u16,
    place: crate::process::Place,
    (core, quick): (usize, bool),
) -> io::Result<Values> {
    let control = Control::start(binary, dir, port, place)?;
    on_core(core, &control, measure(&control, if quick { 10 } else { 1 }))
}

/// Does it on a thread of its own, since that stays on one core.
fn on_core(
    core: usize,
    control: &Control,
    work: impl Future<Output = io::Result<Values>> + Send,
) -> io::Result<Values> {
    let measured = std::thread::scope(|scope| {
        let work = scope.spawn(|| {
            let mut cores = CpuSet::new();
            cores.set(core);
            sched_setaffinity(None, &cores)?;
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
            runtime.block_on(work)
        });
        work.join().unwrap_or_else(|_| Err(io::Error::other("the simulated fleet's thread ended early")))
    });
    measured.map_err(|error| io::Error::other(format!("{error}; the control plane said: {}", control.said())))
}

/// Measures with one in `share` of the sidecars.
async fn measure(control: &Control, share: usize) -> io::Result<Values> {
    let mut values = Values::new();
    let put = |values: &mut Values, name: &str, value: f64| {
        values.insert(name.to_owned(), value);
    };
    let seen = Arc::new(Seen::default());

    let mut watching = Fleet::new(control, &seen);
    for agent in 0..WATCHING / 100 {
        watching.connect("bench", &format!("agent-{agent}"), 100 / share).await?;
    }
    control.apply(&control::routes()).await?;
    let mut took = Vec::new();
    let cpu = control.cpu_ns();
    for change in 0..CHANGES {
        // Past the debounce of whatever came before.
        sleep(Duration::from_millis(300)).await;
        let text = control::route(0, change + 1);
        let start = Instant::now();
        control.apply(&text).await?;
        took.push(start.elapsed().as_secs_f64() * 1e3 - DEBOUNCE_MS);
    }
    let cpu = (control.cpu_ns() - cpu) as f64 / 1e6 / CHANGES as f64;
    took.sort_by(f64::total_cmp);
    put(&mut values, "push_ms", took.get(CHANGES / 2).copied().unwrap_or(f64::INFINITY));
    put(&mut values, "push_max_ms", took.last().copied().unwrap_or(f64::INFINITY));
    put(&mut values, "push_cpu_ms", cpu);
    put(&mut values, "push_rss_mib", control.rss_mib());
    drop(watching);

    control.apply(control::NARROW).await?;
    let mut living = Fleet::new(control, &seen);
    let start = Instant::now();
    for namespace in 0..NAMESPACES {
        living.connect(&format!("n{namespace}"), "agent", LIVING / NAMESPACES / share).await?;
    }
    put(&mut values, "connect_s", start.elapsed().as_secs_f64());
    // Leases of the first thousand run out meanwhile.
    sleep(Duration::from_secs(15)).await;
    let (cpu, start) = (control.cpu_ns(), Instant::now());
    let beats = seen.beats.load(Relaxed);
    sleep(HEARTBEATS).await;
    let secs = start.elapsed().as_secs_f64();
    put(&mut values, "heartbeat_cores", (control.cpu_ns() - cpu) as f64 / 1e9 / secs);
    put(&mut values, "beats_per_s", (seen.beats.load(Relaxed) - beats) as f64 / secs);
    put(&mut values, "fleet_rss_mib", control.rss_mib());

    let wide = Arc::new(Seen::default());
    let mut watcher = Fleet::new(control, &wide);
    watcher.connect("watch", "watcher", 1).await?;
    sleep(Duration::from_secs(2)).await;
    put(&mut values, "catalogue_bytes", wide.bytes.load(Relaxed) as f64);
    let before = wide.bytes.load(Relaxed);
    living.connect("more", "agent", 1).await?;
    sleep(Duration::from_secs(2)).await;
    put(&mut values, "delta_bytes", (wide.bytes.load(Relaxed) - before) as f64);
    put(&mut values, "errors", (seen.ended.load(Relaxed) + wide.ended.load(Relaxed)) as f64);
    if wide.bytes.load(Relaxed) == before {
        return Err(io::Error::other("the new endpoint reached nobody"));
    }
    Ok(values)
}

/// Simulated sidecars; dropping it ends them.
struct Fleet<'c> {
    control: &'c Control,
    seen: Arc<Seen>,
    streams: JoinSet<()>,
}

impl<'c> Fleet<'c> {
    fn new(control: &'c Control, seen: &Arc<Seen>) -> Self {
        Fleet { control, seen: seen.clone(), streams: JoinSet::new() }
    }

    /// Joins once for an agent, and connects so many instances of it; returns when each has its first update.
    async fn connect(&mut self, namespace: &str, agent: &str, count: usize) -> io::Result<()> {
        let token = self.control.token(namespace, agent).await?;
        let identity = Identity::join(self.control.address, &token, namespace, agent).await?;
        let mut opening: JoinSet<io::Result<Sidecar>> = JoinSet::new();
        let first = self.streams.len();
        let mut next = 0;
        while next < count || !opening.is_empty() {
            if next < count && opening.len() < AT_A_TIME {
                let (identity, seen) = (identity.clone(), self.seen.clone());
                opening.spawn(async move { Sidecar::open(&identity, first + next, seen).await });
                next += 1;
                continue;
            }
            if let Some(opened) = opening.join_next().await {
                let sidecar = opened.map_err(io::Error::other)??;
                self.streams.spawn(sidecar.live());
            }
        }
        Ok(())
    }
}
