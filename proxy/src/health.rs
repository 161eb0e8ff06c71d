//! How the local agent is, and how others are ([`endpoints`], [`notice`]). The agent: probes on the background runtime, by Kubernetes' rules (thresholds, codes, defaults).
//!
//! An agent begins `initializing` and is asked twice a second until it is `ready`. A ready agent that fails too often in
//! a row is `degraded`: chosen only when no other is ready, since its sidecar may be wrong and the agent may serve.

pub mod endpoints;
pub mod exec;
pub mod grpc;
pub mod http;
pub mod notice;

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use pilotfish_config::model::{Probe, ProbeMethod};
use pilotfish_config::wire::Status;
use tokio::net::TcpStream;
use tokio::sync::watch;
use tokio::time::Instant;

use crate::bootstrap::{Duty, HostPort, ProbeKind, Settings};
use crate::resolve::Dns;
use crate::server::Shared;
use crate::supervise::{Run, Supervised};
use crate::telemetry::log;

/// How often an agent is asked that was never ready.
const IMPATIENT: Duration = Duration::from_millis(500);
/// How often one that this sidecar has just started is: calls wait for it.
const AT_ONCE: Duration = Duration::from_millis(20);

/// How the agent is, as its probes say.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Health {
    /// In one word.
    pub status: Status,
    /// Why, when it is not ready.
    pub detail: Option<String>,
}

impl Health {
    /// Before the first probe: ready when nobody will ask.
    pub fn at_start(settings: &Settings) -> Health {
        let status = if asks(settings) { Status::Initializing } else { Status::Ready };
        Health { status, detail: None }
    }
}

/// Whether probes run: when a flag says so, or when others choose this agent by what its sidecar says of it.
fn asks(settings: &Settings) -> bool {
    settings.control.probe.is_some()
        || settings.supervise.is_on()
        || (settings.app.is_some() && !settings.control.addresses.is_empty())
}

/// One thing to ask, and how its answers count.
#[derive(Debug, Clone, PartialEq)]
pub struct Plan {
    what: What,
    delay: Duration,
    interval: Duration,
    timeout: Duration,
    success: u32,
    failures: u32,
}

#[derive(Debug, Clone, PartialEq)]
enum What {
    Http {
        address: HostPort,
        request: http::Request,
    },
    Grpc {
        address: HostPort,
        service: String,
    },
    Tcp {
        address: HostPort,
    },
    Exec {
        command: Vec<String>,
    },
    /// A probe that cannot be done, and why.
    Impossible(String),
}

impl Plan {
    /// What the flags say; `None`: nothing.
    fn of_flags(settings: &Settings) -> Option<Plan> {
        let control = &settings.control;
        let kind = control.probe.clone()?;
        Some(Plan { what: what(kind, settings.app.as_ref()), ..Plan::with_times(settings) })
    }

    /// What is asked when nobody says what: whether the agent accepts connections.
    fn default(settings: &Settings) -> Option<Plan> {
        let address = settings.app.clone()?;
        Some(Plan { what: What::Tcp { address }, ..Plan::with_times(settings) })
    }

    fn with_times(settings: &Settings) -> Plan {
        let control = &settings.control;
        Plan {
            what: What::Impossible(String::new()),
            delay: Duration::ZERO,
            interval: control.probe_interval.max(Duration::from_millis(10)),
            timeout: control.probe_timeout,
            success: control.probe_success,
            failures: control.probe_failures,
        }
    }

    /// What a WorkloadGroup says.
    fn of_group(probe: &Probe, app: Option<&HostPort>) -> Plan {
        let seconds = |seconds: u32| Duration::from_secs(seconds.into());
        let own = || app.map_or_else(|| "127.0.0.1".to_owned(), |app| app.host.clone());
        let at = |host: &Option<String>, port: u16| HostPort {
            host: host.clone().filter(|host| !host.is_empty()).unwrap_or_else(own),
            port,
        };
        let what = match &probe.method {
            ProbeMethod::HttpGet { scheme, .. } if scheme.eq_ignore_ascii_case("https") => What::Impossible(
                "a WorkloadGroup's probe by HTTPS is not supported: use HTTP, TCP or exec".into(),
            ),
            ProbeMethod::HttpGet { path, port, host, headers, .. } => {
                let address = HostPort { host: own(), port: *port };
                let name = host.clone().filter(|host| !host.is_empty());
                let name = name.unwrap_or_else(|| address.to_string());
                What::Http { address, request: http::Request::new(path, &name, headers) }
            }
            ProbeMethod::Tcp { host, port } => What::Tcp { address: at(host, *port) },
            ProbeMethod::Grpc { port, service } => {
                What::Grpc { address: at(&None, *port), service: service.clone().unwrap_or_default() }
            }
            ProbeMethod::Exec(command) => What::Exec { command: command.clone() },
        };
        Plan {
            what,
            delay: seconds(probe.initial_delay_seconds),
            interval: seconds(probe.period_seconds.max(1)),
            timeout: seconds(probe.timeout_seconds.max(1)),
            success: probe.success_threshold.max(1),
            failures: probe.failure_threshold.max(1),
        }
    }
}

fn what(kind: ProbeKind, app: Option<&HostPort>) -> What {
    let at_app = |ask: &dyn Fn(HostPort) -> What| {
        app.cloned().map_or_else(
            || What::Impossible("--probe asks the agent at --app, and there is none".into()),
            ask,
        )
    };
    match kind {
        ProbeKind::Http(path) => at_app(&|address| {
            let request = http::Request::new(&path, &address.to_string(), &[]);
            What::Http { address, request }
        }),
        ProbeKind::Grpc(service) => at_app(&|address| What::Grpc { address, service: service.clone() }),
        ProbeKind::Tcp => at_app(&|address| What::Tcp { address }),
        ProbeKind::Exec(command) => What::Exec { command: vec!["sh".into(), "-c".into(), command] },
    }
}

/// Counts answers, and says what they come to.
#[derive(Debug)]
struct Judge {
    status: Status,
    good: u32,
    bad: u32,
}

impl Judge {
    fn new() -> Self {
        Judge { status: Status::Initializing, good: 0, bad: 0 }
    }

    fn answer(&mut self, good: bool, plan: &Plan) -> Status {
        if good {
            (self.good, self.bad) = (self.good.saturating_add(1), 0);
            if self.good >= plan.success {
                self.status = Status::Ready;
            }
        } else {
            (self.good, self.bad) = (0, self.bad.saturating_add(1));
            if self.status == Status::Ready && self.bad >= plan.failures {
                self.status = Status::Degraded;
            }
        }
        self.status
    }
}

/// Probes for the life of the process.
pub async fn run(shared: Arc<Shared>) {
    if !asks(&shared.settings) {
        return;
    }
    let mut judge = Judge::new();
    let mut delayed = false;
    let mut process = Process::of(&shared);
    loop {
        if process.is_another().await {
            (judge, delayed) = (Judge::new(), false);
        }
        if !shared.settings.supervise.does(Duty::TaskCoordination) {
            say(&shared, Health { status: Status::Ready, detail: None });
            process.over().await;
            continue;
        }
        let Some(plan) = current_plan(&shared) else { return };
        if !delayed {
            delayed = true;
            tokio::time::sleep(plan.delay).await;
        }
        let result = ask(&shared.dns, &plan).await;
        if process.is_over() {
            // What it said is no news of the next one.
            continue;
        }
        let status = judge.answer(result.is_ok(), &plan);
        let detail = result.err().filter(|_| status != Status::Ready);
        say(&shared, Health { status, detail });
        let impatient = status == Status::Initializing;
        let pause = if impatient { plan.interval.min(process.impatient()) } else { plan.interval };
        process.wait(pause).await;
    }
}

/// The agent's process that is asked, when this sidecar supervises it.
struct Process {
    runs: Option<watch::Receiver<Run>>,
    number: u64,
    since: Instant,
}

impl Process {
    fn of(shared: &Shared) -> Process {
        let runs = shared.supervised.as_ref().map(Supervised::runs);
        Process { runs, number: 0, since: Instant::now() }
    }

    /// Waits until one runs; whether it is another one than before.
    async fn is_another(&mut self) -> bool {
        let Some(runs) = &mut self.runs else { return false };
        // The sender lives as long as the process.
        let Ok(run) = runs.wait_for(|run| run.lives).await.map(|run| *run) else { return false };
        let another = run.number != self.number;
        if another {
            (self.number, self.since) = (run.number, Instant::now());
        }
        another
    }

    /// Whether it has ended since.
    fn is_over(&self) -> bool {
        let now = self.runs.as_ref().map(|runs| *runs.borrow());
        now.is_some_and(|now| now != Run { number: self.number, lives: true })
    }

    /// How long to wait before one that was never ready is asked again: a twentieth of the time that it took so far.
    fn impatient(&self) -> Duration {
        match self.runs {
            Some(_) => (self.since.elapsed() / 20).clamp(AT_ONCE, IMPATIENT),
            None => IMPATIENT,
        }
    }

    /// Waits, but not beyond its end.
    async fn wait(&mut self, pause: Duration) {
        if self.runs.is_none() {
            return tokio::time::sleep(pause).await;
        }
        let _ = tokio::time::timeout(pause, self.over()).await;
    }

    /// Waits for its end; for ever when it is nobody's.
    async fn over(&mut self) {
        let number = self.number;
        match &mut self.runs {
            Some(runs) => drop(runs.wait_for(|run| *run != Run { number, lives: true }).await),
            None => std::future::pending().await,
        }
    }
}

/// What is asked now: a flag wins, then the newest documents, then the default.
fn current_plan(shared: &Shared) -> Option<Plan> {
    let settings = &shared.settings;
    let group = || {
        let probe = shared.probe.lock().unwrap_or_else(std::sync::PoisonError::into_inner).clone();
        probe.map(|probe| Plan::of_group(&probe, settings.app.as_ref()))
    };
    Plan::of_flags(settings).or_else(group).or_else(|| Plan::default(settings))
}

fn say(shared: &Shared, health: Health) {
    shared.health.send_if_modified(|told| {
        let (changed, differs) = (told.status != health.status, *told != health);
        if changed {
            let why = health.detail.clone().unwrap_or_default();
            match health.status {
                Status::Ready => log::info!("the agent is ready"),
                _ => log::warn!("the agent is not well", status = health.status.word(), why = why),
            }
        }
        *told = health.clone();
        differs
    });
}

/// One probe; an error says what is wrong.
async fn ask(dns: &Dns, plan: &Plan) -> Result<(), String> {
    let probing = async {
        match &plan.what {
            What::Http { address, request } => http::ask(connect(dns, address).await?, request).await,
            What::Grpc { address, service } => grpc::ask(connect(dns, address).await?, service, &[]).await,
            What::Tcp { address } => connect(dns, address).await.map(drop),
            What::Exec { command } => return exec::ask(command, plan.timeout).await,
            What::Impossible(why) => Err(why.clone()),
        }
    };
    // A command is killed by its own limit, before this one.
    let limit =
        plan.timeout + if matches!(plan.what, What::Exec { .. }) { exec::KILLED } else { Duration::ZERO };
    match tokio::time::timeout(limit, probing).await {
        Ok(result) => result,
        Err(_) => Err(format!("no answer within {:?}", plan.timeout)),
    }
}

async fn connect(dns: &Dns, address: &HostPort) -> Result<TcpStream, String> {
    let addresses = dns.lookup(&address.host).await.map_err(|why| format!("cannot resolve: {}", why.0))?;
    let ip = addresses.first().ok_or("the name has no address")?;
    TcpStream::connect(SocketAddr::new(*ip, address.port))
        .await
        .map_err(|error| format!("{address}: {error}"))
}

#[cfg(test)]
mod tests;
