//! Builds the process from its parts and owns the order in which they start:
//! configuration, listeners, workers, then what runs in the background.

use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::mpsc;
use std::sync::{Arc, Mutex, OnceLock};
use std::time::Duration;

use pilotfish_config::model::Probe;
use pilotfish_filters::state::State;
use rustix::process::{Resource, getrlimit, setrlimit};
use tokio::runtime::{Builder, LocalOptions};
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};
use tokio::sync::{Notify, watch};

use crate::actions::Actions;
use crate::admin::Admin;
use crate::ask::Asks;
use crate::audit::Audit;
use crate::authorizers::Authorizers;
use crate::bootstrap::{Secret, Settings, otlp};
use crate::clock::Clock;
use crate::control::{self, NoMember, workload_api};
use crate::credentials::Credentials;
use crate::health::{self, Health};
use crate::listen::callers::Callers;
use crate::listen::{self, Direction, Slots};
use crate::memory::{self, Memory};
use crate::net::{Listener, Net};
use crate::request::dedup::Dedup;
use crate::request::local_secret;
use crate::request::serving::Serving;
use crate::resolve::{self, Dns, Questions, SystemLookup};
use crate::shutdown::{self, Drain, Phase, Signals};
use crate::snapshot::Snapshots;
use crate::source::file::{Event, FileSource, fingerprint};
use crate::source::{self, Publisher};
use crate::starts::Starts;
use crate::supervise::place::Place;
use crate::supervise::{self, Supervised, Supervisor, Wanted};
use crate::telemetry::access_log::AccessLog;
use crate::telemetry::call::CallRecord;
use crate::telemetry::export::Exporter;
use crate::telemetry::log;
use crate::telemetry::metrics::WorkerMetrics;
use crate::telemetry::metrics::agentic::Words;
use crate::telemetry::recall::{self, Recalls};
use crate::telemetry::ring::{self, Answering, Asking, Question};
use crate::telemetry::series::Names;
use crate::telemetry::tap::Taps;
use crate::telemetry::text::push_sentence;
use crate::telemetry::tracing::Tracing;
use crate::tls::Tls;
use crate::tls::files::IdentityFiles;
use crate::tokens::{self, Tokens};
use crate::worker::Worker;

/// How long the end of the process waits for the access log's reader, and for whoever takes telemetry.
const FLUSH: Duration = Duration::from_secs(2);

/// Fewer connections than this for want of descriptors are worth a warning.
const FEW: usize = 1000;

/// What every thread of the process shares.
#[derive(Debug)]
pub struct Shared {
    /// Flags, fixed for the life of the process.
    pub settings: Settings,
    /// The configuration, replaced as a whole.
    pub snapshots: Snapshots,
    /// Counters of endpoints and clusters, which outlive a snapshot.
    pub state: State,
    /// What became of the last attempt to take a configuration.
    pub config: source::Status,
    /// Each worker's counters, by worker number.
    pub metrics: Vec<Arc<WorkerMetrics>>,
    /// Which rules are counted by name.
    pub rules: Names,
    /// Which clusters are counted by name.
    pub clusters: Names,
    /// Which models, tools and agents are.
    pub words: Words,
    /// The access log, when it is asked for.
    pub access_log: AccessLog,
    /// The way to each worker's calls, by worker number; each worker takes its end.
    pub asking: Vec<(Asking, Mutex<Option<Answering>>)>,
    /// Where finished calls go.
    pub exporter: Exporter,
    /// Who looks at calls as they end.
    pub taps: Taps,
    /// Which traces are kept, and how their context is written.
    pub tracing: Tracing,
    /// Traces that are to be whole although nobody keeps them.
    pub recalls: Recalls,
    /// Who the sidecar is, and whom it trusts.
    pub tls: Tls,
    /// Which agents are held to something.
    pub actions: Actions,
    /// Whence the sidecar's own questions are asked.
    pub asks: Asks,
    /// Keys of token issuers.
    pub tokens: Tokens,
    /// What is shown on the agent's behalf.
    pub credentials: Credentials,
    /// External authorizers.
    pub authorizers: Authorizers,
    /// What was decided.
    pub audit: Audit,
    /// Names to addresses.
    pub dns: Arc<Dns>,
    /// What outbound calls have to show, when that is asked for.
    pub local_secret: Option<Secret>,
    /// How the agent is.
    pub health: watch::Sender<Health>,
    /// The agent's process, when this sidecar supervises it.
    pub supervised: Option<Supervised>,
    /// How the newest documents want that to be found out.
    pub probe: Mutex<Option<Probe>>,
    /// Where the process listens; empty until it does.
    pub listening: OnceLock<Listening>,
    /// Where connections are made.
    pub net: Net,
    /// The one clock of the process.
    pub clock: Clock,
    /// What the agent serves now.
    pub serving: Serving,
    /// Calls that wait until an agent is started.
    pub starts: Starts,
    /// How far the shutdown has come.
    pub drain: Drain,
    /// Which calls with a key were done.
    pub dedup: Dedup,
    /// The connections of each caller of the inbound listener.
    pub callers: Arc<Callers>,
    /// Whether there is memory for new work.
    pub memory: Memory,
    /// Rung when a request waits for a place in a cluster's connection limit: workers give up idle connections.
    pub pressure: Notify,
}

impl Shared {
    /// Calls that the workers remember.
    pub async fn calls(&self, question: &Question) -> Vec<CallRecord> {
        let mut found = Vec::new();
        for (asking, _) in &self.asking {
            found.append(&mut asking.ask(question.clone()).await);
        }
        found
    }

    /// The state before anything is loaded, and the resolver's end of its `dns`.
    ///
    /// # Errors
    /// The access log cannot be opened.
    pub fn new(settings: Settings) -> io::Result<(Arc<Self>, Questions)> {
        Shared::within(Net::System, settings)
    }

    /// The same within a network.
    ///
    /// # Errors
    /// As [`Shared::new`].
    pub fn within(net: Net, settings: Settings) -> io::Result<(Arc<Self>, Questions)> {
        let metrics = (0..settings.workers).map(|_| Arc::new(WorkerMetrics::default())).collect();
        let ways = (0..settings.workers).map(|_| ring::channel());
        let asking = ways.map(|(asking, answering)| (asking, Mutex::new(Some(answering)))).collect();
        let access_log = AccessLog::open(&settings.access_log)?;
        let (dns, questions) = Dns::new();
        let secret = settings.control.local_secret_file.as_deref().map(local_secret::read);
        let local_secret = secret.transpose().map_err(io::Error::other)?;
        let health = watch::Sender::new(Health::at_start(&settings));
        let (state, clock) = (State::default(), Clock::start());
        let serving = Serving::new(&settings);
        let callers = Callers::new(settings.most_connections_per_caller());
        let memory = Memory::new(settings.memory_limit.map(|limit| limit.0));
        let supervised = settings.supervise.is_on().then(Supervised::default);
        let shared = Shared {
            snapshots: Snapshots::empty(&state, clock.now(), settings.workers)?,
            state,
            config: source::Status::default(),
            metrics,
            rules: Names::default(),
            clusters: Names::default(),
            words: Words::default(),
            access_log,
            asking,
            exporter: Exporter::default(),
            taps: Taps::default(),
            tracing: Tracing::new(&settings.telemetry),
            recalls: Recalls::default(),
            tls: Tls::new()?,
            actions: Actions::default(),
            asks: Asks::default(),
            tokens: Tokens::default(),
            credentials: Credentials::default(),
            authorizers: Authorizers::default(),
            audit: Audit::new(&settings),
            dns: Arc::new(dns),
            local_secret,
            health,
            supervised,
            probe: Mutex::default(),
            listening: OnceLock::new(),
            net,
            clock,
            serving,
            starts: Starts::default(),
            drain: Drain::default(),
            dedup: Dedup::new(),
            callers,
            memory,
            pressure: Notify::new(),
            settings,
        };
        Ok((Arc::new(shared), questions))
    }
}

/// The addresses that the process listens on, with the ports that the kernel chose.
#[derive(Debug, Clone, Copy)]
pub struct Listening {
    /// For the agent's own calls.
    pub outbound: SocketAddr,
    /// For calls from the mesh.
    pub inbound: SocketAddr,
    /// For probes and metrics.
    pub admin: SocketAddr,
}

/// Why the process cannot start, or ended other than by a drain.
#[derive(Debug)]
pub enum Failure {
    /// A setting is wrong: where, and what it should be.
    Usage(String),
    /// The configuration is not taken, and there is no last good one yet.
    Refused(source::Refused),
    /// The kernel refused something: an address, a file, a thread.
    Io(io::Error),
    /// It cannot become a member of its mesh.
    Mesh(NoMember),
    /// A worker ended although nobody asked it to.
    WorkerDied(usize),
    /// A second signal cut what was in flight.
    Interrupted(&'static str),
}

impl From<io::Error> for Failure {
    fn from(error: io::Error) -> Self {
        Failure::Io(error)
    }
}

impl Failure {
    /// The exit code: 2 for a wrong setting, as for a wrong flag; 3 for a join that is refused, so that a supervisor can tell it from what a restart helps.
    pub fn code(&self) -> u8 {
        match self {
            Failure::Usage(_) => 2,
            Failure::Mesh(NoMember::Refused(_)) => 3,
            _ => 1,
        }
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Failure::Refused(refused) => {
                let mut text = String::new();
                for line in &refused.lines {
                    push_sentence(&mut text, line);
                    text.push('\n');
                }
                out.write_str(&text)?;
                write!(out, "pilotfish-proxy: the configuration is not valid, nothing is served")
            }
            Failure::Usage(why) => write!(out, "error: {why}\n\nFor more information, try '--help'."),
            Failure::Io(error) => write!(out, "pilotfish-proxy: {error}"),
            Failure::Mesh(why) => write!(out, "pilotfish-proxy: {why}"),
            Failure::WorkerDied(index) => write!(out, "pilotfish-proxy: worker {index} died"),
            Failure::Interrupted(signal) => {
                write!(out, "pilotfish-proxy: stopped at once by a second {signal}")
            }
        }
    }
}

/// Runs the sidecar until it has drained.
///
/// # Errors
/// It cannot start, or a worker died.
pub fn run(mut settings: Settings) -> Result<(), Failure> {
    fit_descriptors(&mut settings);
    let telemetry = settings.telemetry.otlp.plan(&otlp::environment).map_err(Failure::Usage)?;
    let place = supervise::place::prepare(&mut settings)?;
    let (shared, questions) = Shared::new(settings)?;
    let background = Builder::new_current_thread().enable_all().build()?;
    background.block_on(serve(shared, questions, telemetry, place))
}

async fn serve(
    shared: Arc<Shared>,
    questions: Questions,
    telemetry: otlp::Plan,
    place: Option<Place>,
) -> Result<(), Failure> {
    let mut signals = Signals::take()?;
    shared.asks.start(tokio::runtime::Handle::current());
    let (configuration, events) = mpsc::channel();
    start_identity(&shared)?;
    tokio::select! {
        biased;
        signal = signals.next() => {
            log::info!("stopped before it had an identity", why = signal);
            return Ok(());
        }
        () = identity_from_workload_api(&shared) => {}
    }
    start_resolver(&shared, questions, configuration.clone());
    let settings = &shared.settings;
    let mut events = Some(events);
    if settings.control.addresses.is_empty()
        && let Some(events) = events.take()
    {
        start_configuration(&shared, configuration.clone(), events).await?;
        tokio::spawn(health::run(shared.clone()));
    }
    tokio::spawn(memory::watch(shared.clone()));
    let outbound = listen::bind(settings.outbound, settings.workers)?;
    let inbound = listen::bind(settings.inbound, settings.workers)?;
    let admin = Admin::bind(settings)?;
    let listening = Listening {
        outbound: outbound[0].local_addr()?,
        inbound: inbound[0].local_addr()?,
        admin: admin.address(),
    };
    let announcement = announcement(settings, &listening, &admin);
    let _socket_file = admin.start(&shared)?;
    // Early, since it may take its time: what it calls meanwhile waits in the kernel.
    let mut agent = supervise::start(&shared, place, &listening)?;
    if let Some(events) = events {
        // Callers that come earlier wait in the kernel: there is nothing to answer them by yet.
        let member = control::start(&shared, listening.inbound, configuration.clone(), events);
        let result = tokio::select! {
            biased;
            signal = signals.next() => {
                log::info!("stopped before it was a member of the mesh", why = signal);
                Err(Ok(()))
            }
            result = member => result.map_err(|why| Err(Failure::Mesh(why))),
        };
        if let Err(ends) = result {
            return stop_agent(&mut agent, &mut signals).await.and(ends);
        }
    }
    let _ = shared.listening.set(listening);
    shared.exporter.start(&shared, telemetry);
    shared.audit.start(&shared);
    if shared.settings.access_log.otlp && !shared.exporter.takes_logs() {
        log::warn!("--access-log-otlp: there is no collector for log records; --otlp-endpoint names one");
    }
    tokio::spawn(health::endpoints::run(shared.clone()));
    tokio::spawn(health::notice::run(shared.clone()));
    tokio::spawn(recall::run(shared.clone()));
    tokio::spawn(tokens::fetch::run(shared.clone()));
    let mut workers = start_workers(&shared, outbound, inbound)?;
    eprintln!("{announcement}");

    let why = tokio::select! {
        biased;
        signal = signals.next() => signal,
        () = shared.drain.requested() => "request",
        died = workers.recv() => return Err(Failure::WorkerDied(died.unwrap_or_default())),
    };
    log::info!("draining", why = why, deadline = format!("{:?}", settings.drain));
    let served = async {
        for _ in 0..settings.workers {
            workers.recv().await;
        }
    };
    let result = tokio::select! {
        biased;
        signal = signals.again() => Err(Failure::Interrupted(signal)),
        () = shutdown::run(&shared.drain, settings.drain_delay, settings.drain, served) => Ok(()),
    };
    let result = match (result, &mut agent) {
        (Err(failure), Some(agent)) => {
            agent.stop(Wanted::Kill).await;
            Err(failure)
        }
        (result, _) => result.and(stop_agent(&mut agent, &mut signals).await),
    };
    shared.access_log.flush(FLUSH);
    shared.audit.end(FLUSH);
    shared.exporter.flush(FLUSH).await;
    let _ = configuration.send(Event::Stop);
    if result.is_ok() {
        log::info!("drained");
    }
    result
}

/// Stops the agent in order, when there is one; a second signal kills it.
async fn stop_agent(agent: &mut Option<Supervisor>, signals: &mut Signals) -> Result<(), Failure> {
    let Some(agent) = agent else { return Ok(()) };
    let signal = tokio::select! {
        biased;
        signal = signals.again() => signal,
        () = agent.stop(Wanted::Stop) => return Ok(()),
    };
    agent.stop(Wanted::Kill).await;
    Err(Failure::Interrupted(signal))
}

/// Takes the identity that files give, and follows them. The first has to be good: without it nothing could be verified.
fn start_identity(shared: &Shared) -> Result<(), Failure> {
    let Some(files) = IdentityFiles::of(&shared.settings) else { return Ok(()) };
    let looks = files.looks();
    files
        .take(&shared.tls.live)
        .map_err(|why| Failure::Io(io::Error::other(format!("no identity: {why}"))))?;
    files.follow(shared.tls.live.clone(), looks)?;
    Ok(())
}

/// Takes the identity of `--workload-api`, and follows it. Waits for the first: without it nothing could be verified.
async fn identity_from_workload_api(shared: &Shared) {
    let Some(socket) = shared.settings.control.workload_api.clone() else { return };
    let (first, mut taken) = watch::channel(false);
    tokio::spawn(workload_api::follow(socket, shared.tls.live.clone(), first));
    // It goes on for ever, so the sender lives as long as this waits.
    let _ = taken.wait_for(|taken| *taken).await;
}

/// Keeps names resolved; tells the configuration thread of other addresses.
fn start_resolver(shared: &Arc<Shared>, questions: Questions, configuration: mpsc::Sender<Event>) {
    let lookup = SystemLookup::new(shared.settings.dns_server);
    let changed = move || {
        let _ = configuration.send(Event::Resolved);
    };
    tokio::spawn(resolve::run(lookup, shared.dns.clone(), questions, changed));
}

/// Starts the thread that takes the first configuration and then follows its changes; waits for the first.
async fn start_configuration(
    shared: &Arc<Shared>,
    bell: mpsc::Sender<Event>,
    events: mpsc::Receiver<Event>,
) -> Result<(), Failure> {
    let path = shared.settings.config.clone().unwrap_or_default();
    let mut publisher = Publisher::new(shared.clone());
    let told = bell.clone();
    shared.tls.live.watch(move || {
        let _ = told.send(Event::Resolved);
    });
    let (taken, first) = tokio::sync::oneshot::channel();
    std::thread::Builder::new().name("configuration".into()).spawn(move || {
        let read = fingerprint(&path);
        let result = publisher.reload();
        let good = result.is_ok();
        let _ = taken.send(result);
        if good {
            yield_to_workers();
            FileSource::new(publisher, path, read, bell, events).run();
        }
    })?;
    first.await.map_err(io::Error::other)?.map_err(Failure::Refused)
}

/// One thread for each worker. The receiver hears each worker's number when it ends.
fn start_workers(
    shared: &Arc<Shared>,
    outbound: Vec<std::net::TcpListener>,
    inbound: Vec<std::net::TcpListener>,
) -> io::Result<UnboundedReceiver<usize>> {
    let (ended, workers) = unbounded_channel();
    for (index, listeners) in outbound.into_iter().zip(inbound).enumerate() {
        let ended = Ended(index, ended.clone());
        let shared = shared.clone();
        let thread = std::thread::Builder::new().name(format!("worker-{index}"));
        thread.spawn(move || {
            if let Err(error) = work(index, shared, listeners.into()) {
                log::error!("worker failed", worker = index, error = error);
            }
            drop(ended);
        })?;
    }
    Ok(workers)
}

/// Tells that a worker ended, by a panic too.
struct Ended(usize, UnboundedSender<usize>);

impl Drop for Ended {
    fn drop(&mut self) {
        let _ = self.1.send(self.0);
    }
}

/// A worker's thread.
fn work(
    index: usize,
    shared: Arc<Shared>,
    [outbound, inbound]: [std::net::TcpListener; 2],
) -> io::Result<()> {
    let runtime = Builder::new_current_thread().enable_all().build_local(LocalOptions::default())?;
    runtime.block_on(async {
        let listeners = [Listener::of(outbound)?, Listener::of(inbound)?];
        let worker = Worker::new(index, shared);
        run_worker(worker, listeners).await
    })
}

/// All that a worker does: its two accept loops (outbound, inbound), and its end.
///
/// # Errors
/// A task of its own panicked.
pub async fn run_worker(worker: Rc<Worker>, listeners: [Listener; 2]) -> io::Result<()> {
    let settings = &worker.shared.settings;
    let limit = settings.max_connections.div_ceil(settings.workers);
    tokio::task::spawn_local(worker.clone().keep_house());
    tokio::task::spawn_local(worker.clone().close_when_draining());
    tokio::task::spawn_local(worker.clone().answer());
    let executions = &worker.executions;
    let mut all_slots = Vec::new();
    let mut loops = Vec::new();
    for (direction, listener) in Direction::ALL.into_iter().zip(listeners) {
        let slots = Slots::new(direction, limit, worker.metrics.clone());
        all_slots.push(slots.clone());
        loops.push(tokio::task::spawn_local(listen::accept(worker.clone(), listener, slots)));
    }
    for accepting in loops {
        accepting.await.map_err(io::Error::other)?;
    }
    let served = async {
        for slots in all_slots {
            slots.idle().await;
        }
        executions.idle().await;
    };
    tokio::select! {
        biased;
        () = served => {}
        // Leaving drops the connections' tasks; each request in flight then names itself in the log.
        () = worker.shared.drain.reached(Phase::Cut) => {}
    }
    Ok(())
}

/// The one line that says that everything listens; scripts and tests read it.
fn announcement(settings: &Settings, listening: &Listening, admin: &Admin) -> String {
    let Listening { outbound, inbound, admin: address } = listening;
    let status = admin.status().map(|status| format!(" status={status}")).unwrap_or_default();
    format!(
        "pilotfish-proxy: listening outbound={outbound} inbound={inbound} admin={address}{status} admin-socket={} workers={}",
        admin.socket_path().display(),
        settings.workers
    )
}

/// Lets the process open as many descriptors as it is allowed to. Each proxied connection takes two, so the listeners
/// serve no more connections than that leaves room for: running out would fail calls that are already accepted.
fn fit_descriptors(settings: &mut Settings) {
    let mut limit = getrlimit(Resource::Nofile);
    limit.current = limit.maximum;
    if let Err(error) = setrlimit(Resource::Nofile, limit) {
        log::warn!("cannot raise the limit of open files", error = error);
    }
    let Some(descriptors) = getrlimit(Resource::Nofile).current else { return };
    let room = usize::try_from(descriptors.saturating_sub(128) / 2).unwrap_or(usize::MAX).max(1);
    if room < settings.max_connections {
        settings.max_connections = room;
        if room < FEW {
            log::warn!("few open files are allowed (ulimit -n), so few connections", connections = room);
        }
    }
}

/// Lowers this thread's priority, so that compiling a large configuration takes no time from requests.
pub(crate) fn yield_to_workers() {
    let _ = rustix::process::setpriority_process(Some(rustix::thread::gettid()), 10);
}
