//! One replica: its sidecar is started, watched, adopted and ended here.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use pilotfish_client::Backoff;
use pilotfish_config::wire::node::{ReplicaOrder, ReplicaPhase, ReplicaState};
use pilotfish_processes::{Ending, Exit, LOOK, Stat, Traits, Watched};
use rustix::process::Signal;
use tokio::sync::{mpsc, watch};
use tokio::time::{Instant, sleep, timeout};

use super::cgroups::{Cgroup, Cgroups};
use super::place::{Common, Place};
use super::ports::Pool;
use super::reaper::Reaper;
use super::replicas;
use super::states::{States, now_ms};
use crate::log;

/// Between two starts of a sidecar that ended.
const AGAIN: (Duration, Duration) = (Duration::from_millis(100), Duration::from_secs(30));
/// A sidecar that ended by itself so often in a row has failed. Not the first time: somebody else may take a port between its choice and
/// the sidecar's start, and the next start takes another.
const FAILED_AFTER: u32 = 3;
/// A sidecar that lived so long ended for another reason than the one before.
const LIVED: Duration = Duration::from_secs(60);
/// How long a sidecar may take beyond its agent's time to stop: its own drain (45 s and 2 s) and some more.
const DRAIN: Duration = Duration::from_secs(50);
/// After so long a process that was killed is left to the kernel: it waits for a device.
const GONE: Duration = Duration::from_secs(10);
/// How often the supervisor's file is read: while it starts, and then.
const READ: (Duration, Duration) = (Duration::from_millis(200), Duration::from_secs(1));

/// What should be of a replica.
#[derive(Debug, Clone)]
pub(super) enum Wish {
    /// No set has come since the node started: what is there stays, nothing comes.
    Unknown,
    /// It should run.
    Run(Arc<ReplicaOrder>),
    /// It is in no set.
    Stop,
}

/// What replicas of a node share.
#[derive(Debug)]
pub(super) struct Host {
    /// The folder of their folders.
    pub(super) folder: PathBuf,
    /// Where logs of those that are gone are kept.
    pub(super) ended: PathBuf,
    /// For each command line.
    pub(super) common: Common,
    /// Their ports.
    pub(super) ports: Pool,
    /// Their cgroups.
    pub(super) cgroups: Option<Cgroups>,
    /// Starts and takes in.
    pub(super) reaper: Arc<Reaper>,
    /// How they are.
    pub(super) states: States,
}

/// Why nothing was started.
enum NotStarted {
    /// Something else is wished by now.
    Changed,
    /// For people.
    Failed(String),
}

impl From<std::io::Error> for NotStarted {
    fn from(error: std::io::Error) -> NotStarted {
        NotStarted::Failed(error.to_string())
    }
}

/// One replica.
pub(super) struct Replica {
    host: Arc<Host>,
    place: Place,
    wish: watch::Receiver<Wish>,
    tokens: mpsc::Receiver<Result<String, String>>,
    state: ReplicaState,
    backoff: Backoff,
    /// How often its sidecar ended by itself, in a row.
    ends: u32,
    started: bool,
    since: Instant,
}

impl Replica {
    /// One that was ordered, or whose folder was found.
    pub(super) fn new(
        host: Arc<Host>,
        place: Place,
        id: &str,
        wish: watch::Receiver<Wish>,
        tokens: mpsc::Receiver<Result<String, String>>,
    ) -> Replica {
        let state = ReplicaState {
            id: id.to_owned(),
            generation: place.order().map(|order| order.generation).unwrap_or_default(),
            phase: ReplicaPhase::Starting,
            reason: None,
            restarts: 0,
            sidecar_restarts: 0,
            pid: None,
            since_ms: now_ms(),
            usage: None,
        };
        let backoff = Backoff::new(AGAIN.0, AGAIN.1);
        Replica { host, place, wish, tokens, state, backoff, ends: 0, started: false, since: Instant::now() }
    }

    /// Makes what runs equal to what is wished, until it is wished away and gone.
    pub(super) async fn run(mut self) {
        let mut alive = self.adopt();
        loop {
            let wish = self.wish.borrow_and_update().clone();
            alive = match (wish, alive) {
                (Wish::Stop, alive) => {
                    self.say(ReplicaPhase::Stopping, None);
                    self.end(alive.as_ref()).await;
                    replicas::keep_log(&self.host.ended, &self.state.id, &self.place);
                    self.place.remove();
                    self.host.ports.free(&self.state.id);
                    self.state.pid = None;
                    self.state.usage = None;
                    self.say(ReplicaPhase::Gone, None);
                    return;
                }
                (Wish::Run(order), Some(process)) if order.generation != self.state.generation => {
                    self.say(ReplicaPhase::Stopping, Some("what was ordered has changed".into()));
                    self.end(Some(&process)).await;
                    self.begin_again();
                    None
                }
                (_, Some(process)) => self.look_after(process).await,
                (Wish::Run(order), None) => self.start(&order).await,
                (Wish::Unknown, None) => match self.place.order() {
                    // Its agent lives: it needs a sidecar now, whoever leads.
                    Some(order) if self.lives() => self.start(&order).await,
                    _ => {
                        self.changed().await;
                        None
                    }
                },
            };
        }
    }

    /// The sidecar that an earlier node started.
    fn adopt(&mut self) -> Option<Watched> {
        if let Some(ports) = self.place.ports() {
            self.host.ports.keep(&self.state.id, ports);
        }
        let which = self.place.sidecar()?;
        let process = Watched::find(which.id()?).ok().flatten()?;
        log::info!("a replica was adopted", replica = self.state.id, sidecar = which.pid);
        self.started = true;
        self.read_supervisor();
        self.say(self.state.phase, self.state.reason.clone());
        Some(process)
    }

    /// Waits until something else is wished. A node that ends drops the sender: then nothing more happens here.
    async fn changed(&mut self) {
        if self.wish.changed().await.is_err() {
            std::future::pending::<()>().await;
        }
    }

    /// Watches a sidecar. Gives it back when something else is wished, none when it has ended.
    async fn look_after(&mut self, process: Watched) -> Option<Watched> {
        let slow = READ.1;
        loop {
            let every = if self.state.phase == ReplicaPhase::Starting { READ.0 } else { slow };
            tokio::select! {
                biased;
                () = process.ended() => break,
                () = self.changed() => return Some(process),
                () = sleep(every) => {
                    self.read_supervisor();
                    self.place.cut_log();
                    if self.place.has_identity() {
                        self.place.drop_token();
                    }
                    self.host.states.set(&self.state);
                }
            }
        }
        self.ended(&process).await;
        None
    }

    /// A sidecar has ended without being told to: waits before the next one.
    async fn ended(&mut self, process: &Watched) {
        self.place.drop_token();
        let exit = self.host.reaper.exit(process.id.pid).await;
        let how = exit.map(|exit| format!(" {exit}")).unwrap_or_default();
        let said = self.place.last_words().map(|said| format!(": {said}")).unwrap_or_default();
        let reason = format!("its sidecar ended{how}{said}");
        let lives = self.lives();
        log::warn!("a sidecar ended", replica = self.state.id, why = reason, agent_lives = lives);
        if !lives {
            self.state.pid = None;
            self.state.usage = None;
        }
        if self.since.elapsed() >= LIVED {
            self.begin_again();
        }
        self.ends += 1;
        if self.without("health_monitoring") {
            self.say(
                ReplicaPhase::Failed,
                Some(format!("{reason}; health_monitoring is off, so it stays so")),
            );
            return self.changed().await;
        }
        let again = self.backoff.next(&mut fastrand::Rng::new());
        // An agent that lives goes on with its work meanwhile.
        let phase = match exit {
            _ if lives => self.state.phase,
            Some(Exit::Code(1..)) if self.ends >= FAILED_AFTER => ReplicaPhase::Failed,
            _ => ReplicaPhase::Starting,
        };
        self.say(phase, Some(reason));
        self.pause(again).await;
    }

    /// What went wrong before says nothing of what comes.
    fn begin_again(&mut self) {
        self.backoff.reset();
        self.ends = 0;
    }

    /// Waits, unless something else is wished.
    async fn pause(&mut self, time: Duration) {
        let _ = timeout(time, self.changed()).await;
    }

    /// Starts the sidecar. `None`: not now; the reason is told, and it was waited.
    async fn start(&mut self, order: &ReplicaOrder) -> Option<Watched> {
        match self.try_start(order).await {
            Ok(process) => {
                self.since = Instant::now();
                Some(process)
            }
            Err(NotStarted::Changed) => None,
            Err(NotStarted::Failed(why)) => {
                log::warn!("a replica cannot be started", replica = self.state.id, why = why);
                self.say(ReplicaPhase::Failed, Some(why));
                let again = self.backoff.next(&mut fastrand::Rng::new());
                self.pause(again).await;
                None
            }
        }
    }

    async fn try_start(&mut self, order: &ReplicaOrder) -> Result<Watched, NotStarted> {
        let mut lives = self.lives();
        if lives && order.generation != self.state.generation {
            self.end(None).await;
            lives = false;
        }
        self.state.generation.clone_from(&order.generation);
        if !lives {
            self.place.drop_supervisor();
            if order.without.iter().any(|duty| duty == "local_scheduling") {
                self.say(
                    ReplicaPhase::Starting,
                    Some("local_scheduling is off: nothing new is started".into()),
                );
                self.changed().await;
                return Err(NotStarted::Changed);
            }
            known(&order.command).map_err(NotStarted::Failed)?;
        }
        self.place.keep_order(order)?;
        let (ports, lost) =
            self.host.ports.choose(&self.state.id, self.place.ports(), lives).map_err(NotStarted::Failed)?;
        self.place.keep_ports(ports)?;
        let moved = (!lost.is_empty()).then(|| {
            let lost: Vec<String> = lost.iter().map(u16::to_string).collect();
            format!("somebody else has port {}: another one was taken", lost.join(" and "))
        });
        if !lives && self.state.phase != ReplicaPhase::Starting {
            self.say(ReplicaPhase::Starting, moved.clone().or_else(|| self.state.reason.clone()));
        }
        let needs_token = !self.place.has_identity();
        if needs_token {
            let token = self.token().await?;
            self.place.put_token(&token)?;
        }
        let cgroup = self.cgroup(order);
        let command = self.place.command(&self.host.common, order, ports, needs_token, cgroup.as_ref());
        let pid = command.and_then(|mut command| self.host.reaper.spawn(&mut command));
        let pid = pid.map_err(|error| {
            self.place.drop_token();
            NotStarted::Failed(format!("its sidecar cannot be started: {error}"))
        })?;
        if self.started {
            self.state.sidecar_restarts += 1;
        }
        self.started = true;
        let phase = if lives { self.state.phase } else { ReplicaPhase::Starting };
        self.say(phase, moved.or_else(|| lives.then(|| self.state.reason.clone()).flatten()));
        let found = Stat::of(pid).map(|stat| Watched::find(stat.id)).transpose()?.flatten();
        match found {
            Some(process) => Ok(process),
            None => {
                let how = self.host.reaper.exit(pid).await.map(|exit| format!(" {exit}")).unwrap_or_default();
                let said = self.place.last_words().map(|said| format!(": {said}")).unwrap_or_default();
                Err(NotStarted::Failed(format!("its sidecar ended at once{how}{said}")))
            }
        }
    }

    /// Asks the control plane for the replica's identity.
    async fn token(&mut self) -> Result<String, NotStarted> {
        while self.tokens.try_recv().is_ok() {}
        if self.state.phase != ReplicaPhase::Starting || self.state.reason.is_none() {
            self.say(ReplicaPhase::Starting, Some("waits for an identity from the control plane".into()));
        }
        self.host.states.needs(&self.state.id, true);
        let answer = tokio::select! {
            biased;
            token = self.tokens.recv() => token,
            changed = self.wish.changed() => match changed {
                Ok(()) => None,
                Err(_) => std::future::pending().await,
            },
        };
        self.host.states.needs(&self.state.id, false);
        match answer {
            Some(Ok(token)) => Ok(token),
            Some(Err(why)) => {
                Err(NotStarted::Failed(format!("the control plane gives it no identity: {why}")))
            }
            None => Err(NotStarted::Changed),
        }
    }

    /// A cgroup that cannot be made is no reason not to run.
    fn cgroup(&self, order: &ReplicaOrder) -> Option<Cgroup> {
        let limited = !order.without.iter().any(|duty| duty == "resource_optimization");
        let (cpu, memory) = if limited { (order.cpu_milli, order.memory) } else { (0, 0) };
        let made = self.host.cgroups.as_ref()?.make(&self.state.id, cpu, memory);
        made.map_err(|error| log::warn!("no cgroup for a replica", replica = self.state.id, why = error)).ok()
    }

    /// Ends the sidecar, which ends its agent; then whatever is left of both.
    async fn end(&mut self, sidecar: Option<&Watched>) {
        let patience =
            Duration::from_millis(self.place.order().map_or(10_000, |order| order.stop_timeout_ms));
        self.place.drop_token();
        if let Some(process) = sidecar {
            process.signal(Signal::TERM);
            if timeout(patience + DRAIN, process.ended()).await.is_err() {
                log::warn!("a sidecar did not end in time and is killed", replica = self.state.id);
                process.signal(Signal::KILL);
                process.ended().await;
            }
            self.host.reaper.exit(process.id.pid).await;
        }
        if self.lives() {
            let why = "some of its processes outlived its sidecar";
            log::warn!("ending what a replica left behind", replica = self.state.id, why = why);
            // A sidecar has given them their time.
            let grace = if sidecar.is_some() { Duration::ZERO } else { patience };
            self.end_left(grace).await;
        }
        if let Some(cgroup) = self.own_cgroup() {
            cgroup.remove();
        }
        self.place.drop_supervisor();
    }

    fn own_cgroup(&self) -> Option<Cgroup> {
        self.host.cgroups.as_ref().map(|cgroups| cgroups.of(&self.state.id))
    }

    /// Ends what there is of the replica, by SIGTERM, and after `grace` by SIGKILL.
    async fn end_left(&self, grace: Duration) {
        let mut ending = Ending::begin(self.traits(), None, grace);
        let left = loop {
            match ending.look() {
                Some(left) => break left,
                None => sleep(LOOK).await,
            }
        };
        if let Some(left) = left.first() {
            let (pid, name) = (left.id.pid, &left.name);
            log::error!("a process cannot be ended", replica = self.state.id, pid = pid, name = name);
        }
    }

    /// What is the replica's, its sidecar too: that has the mark.
    fn traits(&self) -> Traits {
        Traits {
            root: None,
            cgroup: self.own_cgroup().map(|cgroup| cgroup.path().to_owned()),
            mark: self.state.id.clone(),
            orphans: false,
            gone: GONE,
        }
    }

    /// Whether a process of the replica is there.
    fn lives(&self) -> bool {
        !self.traits().find().is_empty()
    }

    fn without(&self, duty: &str) -> bool {
        match &*self.wish.borrow() {
            Wish::Run(order) => order.without.iter().any(|without| without == duty),
            _ => false,
        }
    }

    /// Takes in what the supervisor wrote. An earlier one's word on an agent that has ended was removed before the start.
    fn read_supervisor(&mut self) {
        let Some(said) = self.place.supervisor() else { return };
        self.state.phase = said.phase;
        self.state.reason = said.reason;
        self.state.restarts = said.restarts;
        self.state.pid = said.pid;
        self.state.since_ms = said.since_ms;
        self.state.usage = said.usage;
    }

    /// Tells how it is.
    fn say(&mut self, phase: ReplicaPhase, reason: Option<String>) {
        if self.state.phase != phase {
            self.state.phase = phase;
            self.state.since_ms = now_ms();
        }
        self.state.reason = reason;
        self.host.states.set(&self.state);
    }
}

/// Whether a command is there at all: said before anything is started for it.
fn known(command: &[String]) -> Result<(), String> {
    let Some(program) = command.first().filter(|program| !program.is_empty()) else {
        return Err("there is no command to start".into());
    };
    let found = if program.contains('/') {
        // One that is relative is so to the folder where it starts.
        !program.starts_with('/') || std::path::Path::new(program).exists()
    } else {
        let path = std::env::var_os("PATH").unwrap_or_default();
        std::env::split_paths(&path).any(|folder| folder.join(program).is_file())
    };
    match found {
        true => Ok(()),
        false => Err(format!("no such command on this node: {program}")),
    }
}
