//! The process `pilotfish serve`: what it starts in which order, and how it ends.

mod administrators;
mod answer;
mod auth;
mod body;
mod connection;
mod data;
mod handle;
mod listen;
mod rate;
mod route;
mod settings;
mod shutdown;
mod tls;

use std::fmt;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use pilotfish_identity::TrustDomain;
use tokio::net::{TcpListener, UnixListener};
use tokio::sync::watch;
use tokio_rustls::TlsAcceptor;

use crate::log;
use administrators::Administrators;
use auth::Peer;
use connection::Protocol;
use data::DataFolder;
use listen::Places;
use rate::Guard;
pub use settings::{Listener, Settings};
use shutdown::Signals;

/// How long a connection may be silent: one whose peer has a certificate or owns the folder, and any other.
const IDLE: Duration = Duration::from_secs(120);
const IDLE_STRANGER: Duration = Duration::from_secs(15);
/// How long a TLS handshake may take.
const HANDSHAKE: Duration = Duration::from_secs(10);
/// How long open requests may take to end after the first signal.
const ENDING: Duration = Duration::from_secs(4);
/// The trust domain when nobody says one (Istio's).
const TRUST_DOMAIN: &str = "cluster.local";

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
    id: String,
    trust_domain: TrustDomain,
    administrators: Administrators,
    guard: Guard,
    closing: watch::Sender<bool>,
}

/// The open listeners.
#[derive(Debug)]
struct Listening {
    api: TcpListener,
    address: SocketAddr,
    socket: UnixListener,
    path: PathBuf,
}

/// Serves until a signal.
///
/// # Errors
/// It cannot start, or was stopped by a second signal.
pub fn run(settings: Settings) -> Result<(), Failure> {
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

async fn serve(settings: Settings) -> Result<(), Failure> {
    let mut signals =
        Signals::take().map_err(|error| Failure(format!("cannot watch for signals: {error}")))?;
    let data = DataFolder::open(&settings.data)?;
    let listening = Listening::open(&settings, &data)?;
    let trust_domain = settings.trust_domain.clone().or_else(|| TrustDomain::parse(TRUST_DOMAIN).ok());
    let control = Arc::new(Control {
        id: data.control_id(settings.id.as_deref())?,
        trust_domain: trust_domain.ok_or_else(|| Failure("no trust domain".into()))?,
        administrators: Administrators::default(),
        guard: Guard::new(),
        closing: watch::Sender::new(false),
    });
    let token = administrators::token()?;
    control.administrators.add(&token);
    println!("{token}");
    eprintln!("pilotfish: this is the administrator's token; it is shown this once");
    let config = tls::config(&control)?;
    eprintln!(
        "pilotfish: serving listen={} local=off socket={} trust-domain={} store=none",
        listening.address,
        listening.path.display(),
        control.trust_domain
    );
    let path = listening.path.clone();
    let accepting = listening.start(&control, config);
    let signal = signals.next().await;
    log::info!("closing", why = signal);
    let _ = control.closing.send(true);
    accepting.abort_all_listeners();
    let ended = tokio::select! {
        biased;
        signal = signals.again() => Err(Failure(format!("stopped at once by a second {signal}"))),
        () = ended(&control) => Ok(()),
    };
    let _ = std::fs::remove_file(path);
    drop(data);
    ended
}

/// Waits until every connection has ended, for a while.
async fn ended(control: &Control) {
    let _ = tokio::time::timeout(ENDING, control.closing.closed()).await;
}

/// The tasks that accept.
struct Accepting(Vec<tokio::task::JoinHandle<()>>);

impl Accepting {
    fn abort_all_listeners(self) {
        self.0.iter().for_each(tokio::task::JoinHandle::abort);
    }
}

impl Listening {
    fn open(settings: &Settings, data: &DataFolder) -> Result<Listening, Failure> {
        let api = listen::tcp(settings.listen, "--listen")?;
        let address = api.local_addr().map_err(|error| Failure(error.to_string()))?;
        let path =
            std::path::absolute(data.file("pilotfish.sock")).unwrap_or_else(|_| data.file("pilotfish.sock"));
        let socket = listen::unix(&path)?;
        Ok(Listening { api, address, socket, path })
    }

    fn start(self, control: &Arc<Control>, config: TlsAcceptor) -> Accepting {
        let network = tokio::spawn(accept_network(self.api, config, control.clone()));
        let owner = tokio::spawn(accept_owner(self.socket, control.clone()));
        Accepting(vec![network, owner])
    }
}

async fn accept_owner(listener: UnixListener, control: Arc<Control>) {
    let places = Arc::new(tokio::sync::Semaphore::new(listen::FEW));
    loop {
        let Ok(place) = places.clone().acquire_owned().await else { return };
        let (stream, user) = listen::accept_owner(&listener).await;
        let (control, closing) = (control.clone(), control.closing.subscribe());
        tokio::spawn(async move {
            let answer = move |request, activity| {
                handle::answer(control.clone(), Peer::Owner(user.clone()), request, activity)
            };
            connection::serve(stream, Protocol::Either, IDLE, closing, answer).await;
            drop(place);
        });
    }
}

async fn accept_network(listener: TcpListener, tls: TlsAcceptor, control: Arc<Control>) {
    let places = Places::new();
    loop {
        let (stream, address) = listen::accept(&listener).await;
        // Closed at once, so that those who take every place cannot make others wait.
        let Some(stranger) = places.stranger(address.ip()) else { continue };
        tokio::spawn(tls::serve(stream, address, tls.clone(), control.clone(), places.clone(), stranger));
    }
}
