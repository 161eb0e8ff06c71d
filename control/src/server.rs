//! The process `pilotfish serve`: what it starts in which order, and how it ends.

mod administrators;
mod answer;
mod auth;
mod authority;
mod body;
mod connection;
mod data;
mod founding;
mod handle;
mod jaeger;
mod listen;
mod measured;
mod node_stream;
mod otlp;
mod page;
mod places;
mod ports;
mod rate;
mod route;
mod sessions;
mod settings;
mod shutdown;
mod status;
mod stream;
mod tls;
mod token_file;
mod trusted;

use std::fmt;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use pilotfish_identity::{Bundles, Identity, LiveIdentity, TrustDomain};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use tokio::sync::watch;

use crate::actions::Actions;
use crate::alerts::Alerts;
use crate::audit::{self, AuditStore};
use crate::ca::Authority;
use crate::ca::tokens::Tokens;
use crate::ca::trust::Trust;
use crate::fleet::{self, Fleet};
use crate::log;
use crate::orchestrator::executor::Executor;
#[cfg(feature = "kubernetes")]
use crate::orchestrator::executor::kubernetes::Kubernetes;
use crate::orchestrator::{self, Orchestrator};
use crate::resources::{Resources, default_deny};
use crate::store::{self, Store};
use crate::traces::store::TraceStore;
use data::DataFolder;
use listen::Listening;
use measured::Measured;
use otlp::Otlp;
use page::Page;
use rate::Guard;
use sessions::Sessions;
pub use settings::{ExecutorKind, Listener, PlacementSettings, Settings, TraceSettings};
use shutdown::Signals;
use status::Metrics;
use token_file::FileToken;

/// How long open requests may take to end after the first signal.
const ENDING: Duration = Duration::from_secs(4);

/// With fewer descriptors a fleet of a thousand sidecars does not fit.
const FEW_DESCRIPTORS: u64 = 2048;

/// Why the process cannot start or go on: one sentence with what to do.
#[derive(Debug)]
pub struct Failure(String);

impl fmt::Display for Failure {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(&self.0)
    }
}

impl std::error::Error for Failure {}

/// What every request may use.
#[derive(Debug)]
struct Control {
    /// The name of this control plane.
    id: String,
    /// Its data folder.
    data: PathBuf,
    trust_domain: TrustDomain,
    store: Arc<dyn Store>,
    store_calls: measured::Ledger,
    /// How long sidecars' certificates are valid.
    leaf_ttl: Duration,
    authority: Authority,
    tokens: Tokens,
    trust: Arc<Trust>,
    actions: Arc<Actions>,
    resources: Arc<Resources>,
    fleet: Arc<Fleet>,
    audit: Arc<AuditStore>,
    traces: Arc<TraceStore>,
    alerts: Arc<Alerts>,
    orchestrator: Arc<Orchestrator>,
    otlp: Otlp,
    /// Who shows it may read traces.
    jaeger_token: Option<FileToken>,
    /// Own certificate, and whose certificates are taken.
    live: Arc<LiveIdentity>,
    /// Rings after each change of `live`.
    trust_changes: watch::Sender<()>,
    guard: Guard,
    page: Option<Page>,
    sessions: Sessions,
    metrics: Metrics,
    /// Turns true once; who subscribes keeps the process waiting for it.
    closing: watch::Sender<bool>,
}

/// Serves until a signal.
///
/// # Errors
/// It cannot start, or was stopped by a second signal.
pub fn run(settings: Settings) -> Result<(), Failure> {
    raise_descriptors();
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(settings.workers)
        .thread_name("serve")
        .enable_all()
        .build()
        .map_err(|error| Failure(format!("cannot start threads: {error}")))?;
    let ended = runtime.block_on(serve(settings));
    // What still runs has had its time.
    runtime.shutdown_background();
    ended
}

/// Takes all the descriptors that the system allows: each sidecar needs one.
fn raise_descriptors() {
    let limit = getrlimit(Resource::Nofile);
    let _ = setrlimit(Resource::Nofile, Rlimit { current: limit.maximum, maximum: limit.maximum });
    let now = getrlimit(Resource::Nofile).current.unwrap_or(u64::MAX);
    if now < FEW_DESCRIPTORS {
        log::warn!("few descriptors: raise `ulimit -n` or LimitNOFILE", limit = now);
    }
}

async fn serve(settings: Settings) -> Result<(), Failure> {
    let mut signals =
        Signals::take().map_err(|error| Failure(format!("cannot watch for signals: {error}")))?;
    let data = DataFolder::open(&settings.data())?;
    let listening = Listening::open(&settings, &data)?;
    let control = start(&settings, &data, &listening).await?;
    let acceptor = tls::acceptor(&control)?;
    announce(&control, &listening, &settings);
    let accepting = listening.start(&control, acceptor);
    let signal = signals.next().await;
    log::info!("closing", why = signal);
    let _ = control.closing.send(true);
    drop(accepting);
    tokio::select! {
        biased;
        signal = signals.again() => Err(Failure(format!("stopped at once by a second {signal}"))),
        // Every connection holds a receiver until it has ended.
        _ = tokio::time::timeout(ENDING, control.closing.closed()) => Ok(()),
    }
}

/// The line that says what serves where.
fn announce(control: &Control, listening: &Listening, settings: &Settings) {
    let or_off = |address: Option<SocketAddr>| address.map_or("off".into(), |address| address.to_string());
    let ports = listening.ports.addresses().map(|(name, address)| format!(" {name}={}", or_off(address)));
    eprintln!(
        "pilotfish: serving listen={} local={} socket={} status={} trust-domain={} store={}{}",
        listening.address,
        or_off(listening.local_address),
        listening.socket_path().display(),
        or_off(listening.status_address),
        control.trust_domain,
        settings.store.as_deref().map_or("file", without_password),
        ports.concat(),
    );
}

/// Where sidecars and nodes reach this control plane.
fn reached_at(settings: &Settings, listen: SocketAddr) -> String {
    match &settings.advertise {
        Some(address) => address.clone(),
        None if listen.ip().is_unspecified() => format!("{}:{}", data::host_name(), listen.port()),
        None => listen.to_string(),
    }
}

/// A URL without what stands before `@`.
fn without_password(url: &str) -> &str {
    url.rsplit_once('@').map_or(url, |(_, rest)| rest)
}

async fn start(
    settings: &Settings,
    data: &DataFolder,
    listening: &Listening,
) -> Result<Arc<Control>, Failure> {
    let id = data.control_id(settings.id.as_deref())?;
    let webhook = settings.webhook().map_err(Failure)?;
    let (store, store_calls) = Measured::around(open_store(settings, data).await?);
    let (authority, live) = identity(settings, data, &store, &id, listening).await?;
    let trust_domain = authority.domain().clone();
    let trust_changes = watch::Sender::new(());
    let bell = trust_changes.clone();
    live.watch(move || {
        bell.send_replace(());
    });
    if let Some(token) = founding::found(&store, &trust_domain).await? {
        println!("{token}");
        eprintln!(
            "pilotfish: the line on standard output is the administrator's token; it is shown this once"
        );
    }
    let unusable = |error| founding::unusable(&error);
    let resources = Resources::open(store.clone(), Some(trust_domain.as_str())).await.map_err(unusable)?;
    let trust = Trust::open(store.clone(), &authority).await.map_err(|error| Failure(error.to_string()))?;
    trusted::apply(&live, &trust_domain, &trust.newest());
    tokio::spawn(trusted::follow_documents(resources.clone(), Arc::downgrade(&trust)));
    let mut fleet = fleet::Settings::new(id.clone(), trust_domain.clone());
    fleet.lease = settings.lease;
    let kept = audit::retention(resources.watch());
    let audit = AuditStore::open(&data.path().join("audit"), settings.audit.audit_disk, kept);
    let audit = Arc::new(audit.map_err(|error| Failure(format!("cannot keep the audit log: {error}")))?);
    fleet.audit = Some(audit.clone());
    let actions = Actions::open(store.clone(), Arc::new(SystemTime::now)).await.map_err(unusable)?;
    let documents = match settings.default_deny {
        true => default_deny::follow(resources.watch()),
        false => resources.watch(),
    };
    let fleet = Fleet::follow(store.clone(), documents, trust.watch(), actions.watch(), fleet);
    let fleet = fleet.await.map_err(unusable)?;
    let token =
        |path: &Option<PathBuf>, flag| path.as_ref().map(|path| FileToken::read(path, flag)).transpose();
    let otlp_token = token(&settings.traces.otlp_token_file, "--otlp-token-file")?;
    let jaeger_token = token(&settings.traces.jaeger_token_file, "--jaeger-token-file")?;
    let traces = TraceStore::open_with(&data.path().join("traces"), settings.traces.limits());
    let traces = traces.map_err(|error| Failure(format!("cannot keep traces: {error}")))?;
    let page = listening.local_address.map(|address| format!("http://{address}"));
    let closing = watch::Sender::new(false);
    let placement = orchestrator::Settings {
        id: id.clone(),
        address: format!("https://{}", reached_at(settings, listening.address)),
        grace: settings.placement.node_grace,
        tokens: Arc::new(Tokens::new(store.clone(), &authority)),
        closing: closing.subscribe(),
    };
    let executor = executor(settings, &store, &authority).await?;
    let orchestrator =
        Orchestrator::start(store.clone(), fleet.clone(), resources.watch(), executor, placement);
    let alerts = Alerts::start(fleet.clone(), resources.watch(), webhook, page);
    let control = Arc::new(Control {
        id,
        data: data.path().to_owned(),
        trust_domain,
        leaf_ttl: settings.leaf_ttl,
        tokens: Tokens::new(store.clone(), &authority),
        store,
        store_calls,
        authority,
        trust,
        actions,
        resources,
        fleet,
        audit,
        traces: Arc::new(traces),
        alerts,
        orchestrator,
        otlp: Otlp::new(otlp_token),
        jaeger_token,
        live,
        trust_changes,
        guard: Guard::new(),
        page: listening.local_address.map(Page::new),
        sessions: Sessions::default(),
        metrics: Metrics::default(),
        closing,
    });
    tokio::spawn(trusted::follow_store(Arc::downgrade(&control)));
    tokio::spawn(audit::holders::stay(
        Arc::downgrade(&control.store),
        control.id.clone(),
        format!("https://{}", reached_at(settings, listening.address)),
    ));
    tokio::spawn(authority::look_after(
        Arc::downgrade(&control),
        authority::names(settings, listening.address),
    ));
    Ok(control)
}

/// What makes replicas exist, when it is not processes on nodes.
#[cfg(feature = "kubernetes")]
async fn executor(
    settings: &Settings,
    store: &Arc<dyn Store>,
    authority: &Authority,
) -> Result<Option<Arc<dyn Executor>>, Failure> {
    if settings.placement.executor == ExecutorKind::Process {
        return Ok(None);
    }
    let mesh = authority.domain().to_string();
    let kubernetes = settings.placement.kubernetes(settings.advertise.as_deref(), &mesh).map_err(Failure)?;
    let tokens = Tokens::new(store.clone(), authority);
    let started = Kubernetes::start(kubernetes, settings.placement.kubeconfig.as_deref(), tokens).await;
    Ok(Some(Arc::new(started.map_err(Failure)?)))
}

/// What makes replicas exist, when it is not processes on nodes.
#[cfg(not(feature = "kubernetes"))]
async fn executor(
    settings: &Settings,
    _: &Arc<dyn Store>,
    _: &Authority,
) -> Result<Option<Arc<dyn Executor>>, Failure> {
    match settings.placement.executor {
        ExecutorKind::Process => Ok(None),
        ExecutorKind::Kubernetes => {
            Err(Failure("--executor kubernetes: this build has none (feature `kubernetes`)".into()))
        }
    }
}

/// The authority, and the identity that this control plane shows and takes.
async fn identity(
    settings: &Settings,
    data: &DataFolder,
    store: &Arc<dyn Store>,
    id: &str,
    listening: &Listening,
) -> Result<(Authority, Arc<LiveIdentity>), Failure> {
    let flag = settings.trust_domain.as_ref();
    let founded = founding::trust_domain(store, flag).await?;
    let authority = authority::open(settings, data, founded.as_ref().or(flag), founded.is_some())?;
    let bundles =
        Bundles::one(authority.domain(), authority.root_pem()).map_err(|error| Failure(error.to_string()))?;
    let live = LiveIdentity::new(Identity { bundles: Arc::new(bundles), ..Identity::default() });
    authority::credential(&authority, &live, id, &authority::names(settings, listening.address))?;
    Ok((authority, live))
}

async fn open_store(settings: &Settings, data: &DataFolder) -> Result<Arc<dyn Store>, Failure> {
    let tls = store::Tls {
        ca: settings.store_ca.clone(),
        cert: settings.store_cert.clone(),
        key: settings.store_key.clone(),
    };
    let opened = store::open(settings.store.as_deref(), data.path(), &tls).await;
    opened.map_err(|error| founding::unusable(&error))
}
