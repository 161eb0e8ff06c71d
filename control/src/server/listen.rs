//! The listeners: how many connections there may be, who is at their other end, and what they get.

use std::io;
use std::net::SocketAddr;
use std::os::unix::fs::FileTypeExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use http::Request;
use hyper::body::Incoming;
use rustix::fs::{Mode, fchmod};
use socket2::{Domain, Protocol as Transport, SockAddr, Socket, TcpKeepalive, Type};
use tokio::net::{TcpListener, TcpStream, UnixListener, UnixStream};
use tokio::sync::Semaphore;
use tokio::task::JoinHandle;
use tokio_rustls::TlsAcceptor;

use super::answer::Answer;
use super::auth::Peer;
use super::connection::{self, Activity, Protocol};
use super::data::DataFolder;
use super::ports::Ports;
use super::settings::{Listener, Settings};
use super::{Control, Failure, handle, status, tls};
use crate::log;

/// Connections that the kernel keeps until they are accepted; `net.core.somaxconn` caps it.
const BACKLOG: i32 = 4096;
/// How long a listener rests after the kernel refused an accept for want of descriptors or memory (nginx: 500 ms).
const REST: Duration = Duration::from_millis(100);
/// Connections at a time on the Unix socket, the page and the status listener, each.
const FEW: usize = 256;
/// How long a connection of these may be silent: the Unix socket's, and the others'.
const IDLE: Duration = Duration::from_secs(120);
const IDLE_PLAIN: Duration = Duration::from_secs(30);

/// Opens a TCP listener.
///
/// # Errors
/// The kernel's, with address and advice.
fn tcp(address: SocketAddr, flag: &str) -> Result<TcpListener, Failure> {
    open(address).and_then(TcpListener::from_std).map_err(|error| {
        let advice = match error.kind() {
            io::ErrorKind::AddrInUse => {
                format!("another process listens there; stop it, or choose another port by {flag}")
            }
            io::ErrorKind::PermissionDenied => format!("choose a port over 1023 by {flag}"),
            _ => format!("choose another address by {flag}"),
        };
        Failure(format!("cannot listen on {address}: {error}; {advice}"))
    })
}

fn open(address: SocketAddr) -> io::Result<std::net::TcpListener> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(Transport::TCP))?;
    socket.set_reuse_address(true)?;
    // Linux gives these two to every accepted socket.
    socket.set_tcp_nodelay(true)?;
    socket.set_tcp_keepalive(&TcpKeepalive::new().with_time(Duration::from_secs(60)))?;
    socket.set_nonblocking(true)?;
    socket.bind(&address.into())?;
    socket.listen(BACKLOG)?;
    Ok(socket.into())
}

/// A Unix socket that no other user can open, not even for a moment: Linux takes a socket's mode for its file.
///
/// # Errors
/// The kernel's, with the path.
fn unix(path: &Path) -> Result<UnixListener, Failure> {
    let bind = || {
        // The folder is locked, so whatever socket lies here is a dead process's.
        if std::fs::symlink_metadata(path).is_ok_and(|meta| meta.file_type().is_socket()) {
            std::fs::remove_file(path)?;
        }
        let socket = Socket::new(Domain::UNIX, Type::STREAM, None)?;
        fchmod(&socket, Mode::RUSR | Mode::WUSR)?;
        socket.bind(&SockAddr::unix(path)?)?;
        socket.set_nonblocking(true)?;
        socket.listen(64)?;
        UnixListener::from_std(socket.into())
    };
    bind().map_err(|error: io::Error| {
        Failure(format!(
            "cannot listen on the Unix socket {}: {error}; a path has at most 107 bytes",
            path.display()
        ))
    })
}

/// The open listeners.
#[derive(Debug)]
pub(super) struct Listening {
    api: TcpListener,
    pub(super) address: SocketAddr,
    local: Option<TcpListener>,
    pub(super) local_address: Option<SocketAddr>,
    status: Option<TcpListener>,
    pub(super) status_address: Option<SocketAddr>,
    /// Of traces.
    pub(super) ports: Ports,
    socket: UnixListener,
    file: SocketFile,
}

/// The tasks that accept; dropping this ends them and removes the Unix socket.
#[derive(Debug)]
pub(super) struct Accepting {
    tasks: Vec<JoinHandle<()>>,
    _file: SocketFile,
}

impl Drop for Accepting {
    fn drop(&mut self) {
        self.tasks.iter().for_each(JoinHandle::abort);
    }
}

/// The Unix socket's file; dropping it removes the file.
#[derive(Debug)]
struct SocketFile(PathBuf);

impl Drop for SocketFile {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.0);
    }
}

impl Listening {
    /// Opens all that the settings ask for.
    ///
    /// # Errors
    /// One cannot be opened.
    pub(super) fn open(settings: &Settings, data: &DataFolder) -> Result<Listening, Failure> {
        let (api, address) = named(settings.listen, "--listen")?;
        let (local, local_address) = optional(settings.local, "--local")?;
        let (status, status_address) = optional(settings.status, "--status")?;
        let ports = Ports::open(&settings.traces)?;
        let path = data.file(crate::paths::SOCKET);
        let path = std::path::absolute(&path).unwrap_or(path);
        let socket = unix(&path)?;
        let file = SocketFile(path);
        Ok(Listening { api, address, local, local_address, status, status_address, ports, socket, file })
    }

    /// The Unix socket's path.
    pub(super) fn socket_path(&self) -> &Path {
        &self.file.0
    }

    /// Serves on all of them from now on.
    pub(super) fn start(self, control: &Arc<Control>, acceptor: TlsAcceptor) -> Accepting {
        let mut tasks = self.ports.start(control, &acceptor);
        tasks.extend([
            tokio::spawn(tls::accept(self.api, acceptor, control.clone())),
            tokio::spawn(serve_owner(self.socket, control.clone())),
        ]);
        if let (Some(listener), Some(page)) = (self.local, control.page) {
            let control = control.clone();
            tasks.push(tokio::spawn(serve_plain(
                listener,
                control.clone(),
                move |from, request, activity| page.answer(control.clone(), from, request, activity),
            )));
        }
        if let Some(listener) = self.status {
            let control = control.clone();
            tasks.push(tokio::spawn(serve_plain(listener, control.clone(), move |_, request, _| {
                let control = control.clone();
                async move { status::answer(&control, &request) }
            })));
        }
        Accepting { tasks, _file: self.file }
    }
}

pub(super) fn named(address: SocketAddr, flag: &str) -> Result<(TcpListener, SocketAddr), Failure> {
    let listener = tcp(address, flag)?;
    let address =
        listener.local_addr().map_err(|error| Failure(format!("cannot listen on {address}: {error}")))?;
    Ok((listener, address))
}

pub(super) fn optional(
    listener: Listener,
    flag: &str,
) -> Result<(Option<TcpListener>, Option<SocketAddr>), Failure> {
    let Listener::On(address) = listener else { return Ok((None, None)) };
    named(address, flag).map(|(listener, address)| (Some(listener), Some(address)))
}

/// Serves the owner of the data folder: everything, without a token.
async fn serve_owner(listener: UnixListener, control: Arc<Control>) {
    let places = Arc::new(Semaphore::new(FEW));
    loop {
        let Ok(place) = places.clone().acquire_owned().await else { return };
        let (stream, user) = accept_owner(&listener).await;
        let (control, closing) = (control.clone(), control.closing.subscribe());
        tokio::spawn(async move {
            let peer = Peer::Owner(user);
            let answer =
                move |request, activity| handle::answer(control.clone(), peer.clone(), request, activity);
            connection::serve(stream, Protocol::Either, IDLE, closing, answer).await;
            drop(place);
        });
    }
}

/// Serves HTTP/1.1 in plain text.
pub(super) async fn serve_plain<A, F>(listener: TcpListener, control: Arc<Control>, answer: A)
where
    A: Fn(SocketAddr, Request<Incoming>, Arc<Activity>) -> F + Clone + Send + Sync + 'static,
    F: Future<Output = Answer> + Send + 'static,
{
    let places = Arc::new(Semaphore::new(FEW));
    loop {
        let (stream, address) = accept(&listener).await;
        let Ok(place) = places.clone().try_acquire_owned() else { continue };
        let (closing, answer) = (control.closing.subscribe(), answer.clone());
        tokio::spawn(async move {
            let answer = move |request, activity| answer(address, request, activity);
            connection::serve(stream, Protocol::Http1, IDLE_PLAIN, closing, answer).await;
            drop(place);
        });
    }
}

/// The next connection of a TCP listener.
pub(super) async fn accept(listener: &TcpListener) -> (TcpStream, SocketAddr) {
    loop {
        match listener.accept().await {
            Ok(accepted) => return accepted,
            Err(error) => rest(&error).await,
        }
    }
}

/// The next connection of a Unix listener, with its user, when that is this process's or root.
async fn accept_owner(listener: &UnixListener) -> (UnixStream, String) {
    let own = rustix::process::geteuid().as_raw();
    loop {
        let stream = match listener.accept().await {
            Ok((stream, _)) => stream,
            Err(error) => {
                rest(&error).await;
                continue;
            }
        };
        match stream.peer_cred() {
            Ok(peer) if peer.uid() == own || peer.uid() == 0 => return (stream, user_name(peer.uid())),
            Ok(peer) => {
                log::warn!("a user who is not the owner was turned away from the socket", uid = peer.uid())
            }
            Err(error) => log::warn!("the user of a connection to the socket is not known", why = error),
        }
    }
}

/// Accepting fails for want of descriptors or because the peer is gone already.
async fn rest(error: &io::Error) {
    if error.kind() != io::ErrorKind::ConnectionAborted {
        log::warn!("cannot accept connections for the moment", why = error);
        tokio::time::sleep(REST).await;
    }
}

/// The user's name as /etc/passwd has it, else the number.
fn user_name(uid: u32) -> String {
    let number = uid.to_string();
    let users = std::fs::read_to_string("/etc/passwd").unwrap_or_default();
    let found = users.lines().find_map(|line| {
        let mut fields = line.split(':');
        let name = fields.next()?;
        (fields.nth(1)? == number).then(|| name.to_owned())
    });
    found.unwrap_or_else(|| format!("uid {number}"))
}
