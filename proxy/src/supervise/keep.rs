//! Keeps the agent running: from one process to the next.
//!
//! An end is followed by a start after a pause: 100 ms, doubled with each quick end up to 30 s, and 100 ms again after a
//! process that was ready for 60 s. Kubernetes pauses from 10 s to 5 min, which is for containers whose image may have to be
//! pulled; an agent that lost a race for a port or a file is back within a second here, and one that cannot run costs little.
//! After five quick ends in a row the agent is in a crash loop, and is told so; it is still tried.
//!
//! A ready agent whose probe fails is `degraded` and goes on running: as in Kubernetes a readiness probe restarts nothing.

use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

use pilotfish_client::Backoff;
use pilotfish_config::wire::Status;
use pilotfish_config::wire::node::{ReplicaPhase, ReplicaState};
use pilotfish_processes::{Exit, Id, Stat, Traits, listener, signal_group};
use rustix::process::Signal;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::watch;
use tokio::time::{Instant, MissedTickBehavior};

use super::environment::{self, Environment};
use super::guard::Guard;
use super::launch::{self, NotLaunched, Order};
use super::output::Output;
use super::place::{Agent, Copy, GONE, Place, is_free};
use super::process::{End, Process};
use super::usage::Meter;
use super::{Run, Supervised, Wanted};
use crate::bootstrap::{Duty, OnSidecarLoss};
use crate::health::Health;
use crate::server::Shared;
use crate::telemetry::log;

/// What the node reads: [`ReplicaState`] as JSON.
const STATE: &str = "supervisor.json";
/// The first pause, and the longest.
const PAUSE: (Duration, Duration) = (Duration::from_millis(100), Duration::from_secs(30));
/// A process that was ready for so long ran well.
const WELL: Duration = Duration::from_secs(60);
/// So many quick ends in a row are a crash loop.
const CRASH_LOOP: u32 = 5;
/// What an agent that ended by itself left behind may take to end after SIGTERM.
const LEFT: Duration = Duration::from_secs(1);
/// How often it is looked at what the agent uses.
const MEASURE: Duration = Duration::from_secs(5);
/// How long another launcher may take to become the agent, or to give up.
const ANOTHER: Duration = Duration::from_secs(5);
const LOOK: Duration = Duration::from_millis(10);

/// Keeps one agent.
#[derive(Debug)]
pub struct Keeper {
    shared: Arc<Shared>,
    place: Place,
    asked: watch::Receiver<Wanted>,
    environment: Environment,
    outbound: u16,
    output: Output,
    forwarded: Forwarded,
    /// Ends what the sidecar's end leaves, when that is asked for.
    _guard: Option<Guard>,
    /// Quick ends in a row.
    quick: u32,
    pause: Backoff,
    rng: fastrand::Rng,
    /// A process was started before, so that the next start is a further one.
    again: bool,
    /// It was said that the state cannot be written.
    said: bool,
}

/// Why there is no process of the agent any more.
#[derive(Debug)]
enum Trouble {
    /// It ended, or was ended.
    Ended(String),
    /// It could not be started.
    NotStarted(String),
}

impl Keeper {
    /// Prepares everything but the agent.
    ///
    /// # Errors
    /// The kernel's or the disk's.
    pub fn new(
        shared: Arc<Shared>,
        place: Place,
        outbound: SocketAddr,
        otlp: Option<SocketAddr>,
        asked: watch::Receiver<Wanted>,
    ) -> io::Result<Keeper> {
        let settings = &shared.settings;
        let secret = shared.local_secret.as_ref();
        let environment = environment::of(settings, outbound, otlp, secret, place.mark());
        let output = Output::start(&shared, place.dir.path())?;
        let before = std::fs::read(place.dir.path().join(STATE)).unwrap_or_default();
        // After a stop in order it begins from nothing.
        let before: Option<ReplicaState> = serde_json::from_slice(&before).ok();
        let before = before.filter(|before| before.phase != ReplicaPhase::Gone && place.agent().is_some());
        let kills = settings.supervise.on_sidecar_loss == OnSidecarLoss::Kill;
        let cgroup = settings.supervise.agent_cgroup.clone();
        let guard = kills.then(|| Guard::start(&place, cgroup)).transpose()?;
        let mut keeper = Keeper {
            forwarded: Forwarded::take()?,
            _guard: guard,
            environment,
            outbound: outbound.port(),
            output,
            quick: 0,
            pause: Backoff::new(PAUSE.0, PAUSE.1),
            rng: fastrand::Rng::new(),
            again: before.is_some(),
            said: false,
            shared,
            place,
            asked,
        };
        let restarts = before.map_or(0, |before| before.restarts);
        keeper.tell(|state| state.restarts = restarts);
        Ok(keeper)
    }

    /// Runs until it is asked to stop, and the agent is gone.
    pub async fn run(mut self) {
        let mut process = self.adopt().await;
        loop {
            let started = match process.take() {
                Some(process) => Ok(process),
                None if self.stops() => break,
                None => self.start().await,
            };
            let trouble = match started {
                Ok(process) => match self.look_after(process).await {
                    Some(why) => Trouble::Ended(why),
                    None => break,
                },
                Err(why) => Trouble::NotStarted(why),
            };
            if !self.rest(trouble).await {
                break;
            }
        }
        self.tell(|state| (state.phase, state.pid, state.usage) = (ReplicaPhase::Gone, None, None));
    }

    fn stops(&self) -> bool {
        *self.asked.borrow() != Wanted::Run
    }

    /// The agent that an earlier sidecar started, if it runs and is what is asked for.
    async fn adopt(&mut self) -> Option<Process> {
        match self.place.copy() {
            Copy::None => None,
            Copy::Left(agent) => {
                log::warn!("the agent has ended while no sidecar was there, what it started is ended too");
                self.end_left(agent.as_ref().and_then(Agent::id), None, LEFT).await;
                None
            }
            Copy::Alive(agent) => {
                let process = Process::adopt(agent.id()?)?;
                if agent.digest == self.environment.digest {
                    log::info!("the agent of the sidecar before is adopted", pid = process.id.pid);
                    return Some(process);
                }
                log::info!(
                    "the agent's command, ports or secret are others than before: it is stopped, and started anew",
                    pid = process.id.pid
                );
                self.stop(process).await;
                None
            }
        }
    }

    /// Starts the agent.
    async fn start(&mut self) -> Result<Process, String> {
        let until = Instant::now() + ANOTHER;
        loop {
            match self.place.copy() {
                Copy::None => {}
                Copy::Alive(agent) => {
                    if let Some(process) = agent.id().and_then(Process::adopt) {
                        log::info!(
                            "another start of the agent was quicker, it is adopted",
                            pid = agent.which.pid
                        );
                        return Ok(process);
                    }
                }
                Copy::Left(agent) => {
                    let left = self.end_left(agent.as_ref().and_then(Agent::id), None, LEFT).await;
                    if let Some(left) = left.first() {
                        return Err(format!(
                            "a process of the agent before cannot be ended: {} (pid {})",
                            left.name, left.id.pid
                        ));
                    }
                }
            }
            match self.launch().await {
                Ok(process) => return Ok(process),
                // Its launcher may not have come as far as to say who it is.
                Err(NotLaunched::Another) if Instant::now() < until => tokio::time::sleep(LOOK).await,
                Err(NotLaunched::Another) => return Err("another copy of the agent is being started".into()),
                Err(NotLaunched::Cannot(why)) => return Err(why),
            }
        }
    }

    async fn launch(&mut self) -> Result<Process, NotLaunched> {
        let settings = &self.shared.settings.supervise;
        let app = SocketAddr::new(Ipv4Addr::LOCALHOST.into(), self.place.app());
        if !is_free(app) {
            let port = app.port();
            let taker = tokio::task::spawn_blocking(move || listener(port)).await.ok().flatten();
            let who = taker.map(|stat| format!(" ({}, pid {})", stat.name, stat.id.pid)).unwrap_or_default();
            return Err(NotLaunched::Cannot(format!("port {port} is taken by another process{who}")));
        }
        let order = Order {
            dir: self.place.dir.path().to_owned(),
            cgroup: settings.agent_cgroup.clone(),
            with: (settings.on_sidecar_loss == OnSidecarLoss::Kill).then(std::process::id),
            app: app.port(),
            outbound: self.outbound,
            digest: self.environment.digest.clone(),
        };
        let (child, id) = launch::launch(&order, &settings.command, &self.environment).await?;
        log::info!("the agent is started", pid = id.pid, port = app.port());
        let restarted = u32::from(std::mem::replace(&mut self.again, true));
        self.tell(|state| state.restarts = state.restarts.saturating_add(restarted));
        Ok(Process::child(child, id))
    }

    /// As long as this process lives; gives why it does not any more, or nothing when it was stopped as asked.
    async fn look_after(&mut self, mut process: Process) -> Option<String> {
        let pid = process.id.pid;
        self.tell(|state| {
            if state.phase != ReplicaPhase::CrashLoop {
                state.phase = ReplicaPhase::Starting;
            }
            state.pid = Some(pid);
        });
        let shared = self.shared.clone();
        let mut health = shared.health.subscribe();
        self.say_run(|run| Run { number: run.number + 1, lives: true });
        let limit = shared.settings.supervise.agent_start;
        let deadline = Instant::now() + limit;
        let mut ready: Option<Instant> = None;
        let mut meter = Meter::new(self.traits(Some(process.id)));
        let mut measure = tokio::time::interval_at(Instant::now() + MEASURE, MEASURE);
        let measures = shared.settings.supervise.does(Duty::PerformanceOptimization);
        measure.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let why = loop {
            let event = tokio::select! {
                biased;
                () = asked(&mut self.asked, Wanted::Stop) => Event::Asked,
                end = process.ended() => Event::Ended(end),
                signal = self.forwarded.next() => Event::Signal(signal),
                Ok(()) = health.changed() => Event::Health(health.borrow_and_update().clone()),
                () = tokio::time::sleep_until(deadline), if ready.is_none() => Event::Late,
                _ = measure.tick(), if measures => Event::Measure,
            };
            match event {
                Event::Asked => {
                    self.stop(process).await;
                    return None;
                }
                Event::Ended(end) => break self.why(end, process.id).await,
                Event::Signal(signal) => process.signal(signal),
                Event::Health(Health { status: Status::Ready, .. }) => {
                    ready.get_or_insert_with(Instant::now);
                    self.tell(|state| (state.phase, state.reason) = (ReplicaPhase::Running, None));
                }
                Event::Health(health) if ready.is_some() => self.tell(|state| state.reason = health.detail),
                Event::Health(_) => {}
                Event::Measure => meter = self.measure(meter).await,
                Event::Late => break not_ready(limit, shared.health.borrow().detail.as_deref()),
            }
        };
        self.fell(&why);
        let left = self.end_left(Some(process.id), None, LEFT).await;
        let _ = process.ended().await;
        if let Some(left) = left.first() {
            log::error!("a process of the agent cannot be ended", pid = left.id.pid, name = left.name);
        }
        if ready.is_some_and(|ready| ready.elapsed() >= WELL) {
            self.quick = 0;
            self.pause.reset();
        }
        Some(why)
    }

    /// Looks at what the agent uses.
    async fn measure(&mut self, mut meter: Meter) -> Meter {
        if meter.searches() {
            let again = meter.traits.clone();
            let searching = tokio::task::spawn_blocking(move || {
                meter.search();
                meter
            });
            meter = searching.await.unwrap_or_else(|_| Meter::new(again));
        }
        let (usage, cpu) = meter.look();
        if let Some(known) = self.supervised() {
            known.cpu.fetch_add(cpu, Relaxed);
        }
        self.tell(|state| state.usage = Some(usage));
        meter
    }

    /// What is said of a process that ended by itself.
    async fn why(&mut self, end: End, id: Id) -> String {
        self.output.settle().await;
        let last = self.output.take_last();
        if end == End::How(Exit::Code(0))
            && let Some(child) = self.find(Some(id)).await.first()
        {
            return format!(
                "the command ended with 0 while a child of it still runs ({}, pid {}): it must stay in the foreground",
                child.name, child.id.pid
            );
        }
        if last.is_empty() { end.to_string() } else { format!("{end}: {last}") }
    }

    /// Waits until it is time for the next start; not so when it is asked to stop.
    async fn rest(&mut self, trouble: Trouble) -> bool {
        self.quick += 1;
        let pause = self.pause.next(&mut self.rng);
        let (phase, why) = match trouble {
            Trouble::NotStarted(why) => {
                self.fell(&why);
                (ReplicaPhase::Failed, why)
            }
            Trouble::Ended(why) if !self.recovers() => {
                (ReplicaPhase::Failed, format!("{why} (it is not started anew: failure_recovery is off)"))
            }
            Trouble::Ended(why) if self.quick >= CRASH_LOOP => (ReplicaPhase::CrashLoop, why),
            Trouble::Ended(why) => (ReplicaPhase::Starting, why),
        };
        log::warn!(
            "the agent does not run",
            why = why,
            state = phase.word(),
            next = format!("{pause:.1?}"),
            ends = self.quick
        );
        self.tell(|state| {
            (state.phase, state.reason, state.pid, state.usage) = (phase, Some(why), None, None);
        });
        tokio::select! {
            biased;
            () = asked(&mut self.asked, Wanted::Stop) => false,
            () = tokio::time::sleep(pause), if self.recovers() => true,
        }
    }

    fn recovers(&self) -> bool {
        self.shared.settings.supervise.does(Duty::FailureRecovery)
    }

    /// There is no process that could serve: nobody chooses the agent.
    fn fell(&mut self, why: &str) {
        self.say_run(|run| Run { lives: false, ..run });
        let health = Health { status: Status::Initializing, detail: Some(why.to_owned()) };
        self.shared.health.send_if_modified(|told| {
            let differs = *told != health;
            *told = health.clone();
            differs
        });
    }

    /// Stops the agent in order: SIGTERM to its group, and what is there after `--agent-stop` is killed.
    async fn stop(&mut self, mut process: Process) {
        self.tell(|state| state.phase = ReplicaPhase::Stopping);
        let deadline = Instant::now() + self.shared.settings.supervise.agent_stop;
        if *self.asked.borrow() != Wanted::Kill {
            signal_group(process.id, Signal::TERM);
            // One that was stopped hears it only when it goes on.
            signal_group(process.id, Signal::CONT);
            tokio::select! {
                biased;
                _ = process.ended() => {}
                () = asked(&mut self.asked, Wanted::Kill) => {}
                () = tokio::time::sleep_until(deadline) => {
                    log::warn!("the agent did not end by SIGTERM, it is killed", pid = process.id.pid);
                }
            }
        }
        let ended = tokio::time::timeout(Duration::ZERO, process.ended()).await.is_ok();
        let grace = if ended { deadline.saturating_duration_since(Instant::now()) } else { Duration::ZERO };
        let left = self.end_left(Some(process.id), Some(process.id.pid), grace).await;
        let _ = tokio::time::timeout(LEFT, process.ended()).await;
        if let Some(left) = left.first() {
            log::error!("a process of the agent cannot be ended", pid = left.id.pid, name = left.name);
        }
        self.output.settle().await;
        if let Some(cgroup) = &self.shared.settings.supervise.agent_cgroup {
            let _ = std::fs::remove_dir(cgroup);
        }
        self.say_run(|run| Run { lives: false, ..run });
        log::info!("the agent is stopped", pid = process.id.pid);
    }

    fn traits(&self, root: Option<Id>) -> Traits {
        let cgroup = self.shared.settings.supervise.agent_cgroup.clone();
        Traits { root, cgroup, mark: self.place.mark().to_owned(), orphans: true, gone: GONE }
    }

    async fn find(&self, root: Option<Id>) -> Vec<Stat> {
        let traits = self.traits(root);
        tokio::task::spawn_blocking(move || traits.find()).await.unwrap_or_default()
    }

    /// Ends everything that is the agent's: by SIGTERM, after `grace` by SIGKILL. The session `told` has heard the first.
    /// Gives what cannot be ended.
    async fn end_left(&mut self, root: Option<Id>, told: Option<u32>, grace: Duration) -> Vec<Stat> {
        let traits = self.traits(root);
        let all = traits.clone();
        let ending = tokio::task::spawn_blocking(move || traits.end(told, grace));
        tokio::select! {
            biased;
            left = ending => left.unwrap_or_default(),
            () = asked(&mut self.asked, Wanted::Kill) => {
                tokio::task::spawn_blocking(move || all.kill()).await.unwrap_or_default()
            }
        }
    }

    fn supervised(&self) -> Option<&Supervised> {
        self.shared.supervised.as_ref()
    }

    fn say_run(&self, next: impl FnOnce(Run) -> Run) {
        if let Some(known) = self.supervised() {
            known.run.send_modify(|run| *run = next(*run));
        }
    }

    /// Changes what is known of the agent, also on the disk.
    fn tell(&mut self, change: impl FnOnce(&mut ReplicaState)) {
        let Some(state) = self.supervised().and_then(|known| known.change(change)) else { return };
        let written = serde_json::to_vec(&state)
            .map_err(io::Error::other)
            .and_then(|bytes| self.place.dir.keep(STATE, &bytes));
        if let Err(error) = &written
            && !self.said
        {
            log::error!("the agent's state cannot be written", error = error);
        }
        self.said = written.is_err();
    }
}

/// What happens to a process.
#[derive(Debug)]
enum Event {
    Asked,
    Ended(End),
    Signal(Signal),
    Health(Health),
    /// It is not ready in time.
    Late,
    /// It is time to look at what it uses.
    Measure,
}

/// Waits until at least this much is wanted.
async fn asked(asked: &mut watch::Receiver<Wanted>, least: Wanted) {
    if asked.wait_for(|wanted| *wanted >= least).await.is_err() {
        // Nobody is left who could ask.
        std::future::pending().await
    }
}

fn not_ready(limit: Duration, detail: Option<&str>) -> String {
    match detail {
        Some(detail) => format!("not ready within {limit:?} (--agent-start): {detail}"),
        None => format!("not ready within {limit:?} (--agent-start)"),
    }
}

/// Signals that are meant for the agent.
#[derive(Debug)]
struct Forwarded([tokio::signal::unix::Signal; 3]);

impl Forwarded {
    fn take() -> io::Result<Forwarded> {
        Ok(Forwarded([
            signal(SignalKind::hangup())?,
            signal(SignalKind::user_defined1())?,
            signal(SignalKind::user_defined2())?,
        ]))
    }

    async fn next(&mut self) -> Signal {
        let [hangup, first, second] = &mut self.0;
        tokio::select! {
            biased;
            _ = hangup.recv() => Signal::HUP,
            _ = first.recv() => Signal::USR1,
            _ = second.recv() => Signal::USR2,
        }
    }
}
