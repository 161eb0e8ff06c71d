//! What operators ask the sidecar. On TCP only what may be read by anyone on the loopback: `/ready`, `/live` and
//! `/metrics`; `--status` opens one more listener with the same three. The rest is on a Unix socket that only this user may open: `/config`, `/why`, and `/drain` by POST.
//!
//! It runs on the background runtime with a small responder of its own, so it answers while the workers are busy.

pub mod ask;
mod config;
mod responder;
mod why;

use std::io;
use std::net::SocketAddr;
use std::os::unix::fs::FileTypeExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use pilotfish_config::wire::Status;
use rustix::fs::{Mode, fchmod};
use socket2::{Domain, SockAddr, Socket, Type};
use tokio::net::{TcpListener, UnixListener};

use crate::bootstrap::Settings;
use crate::server::Shared;
use crate::shutdown::Phase;
use crate::telemetry::metrics;
use responder::{Answer, Asked};

/// The listeners of the administration. Dropping it removes the Unix socket.
#[derive(Debug)]
pub struct Admin {
    tcp: std::net::TcpListener,
    address: SocketAddr,
    status: Option<(std::net::TcpListener, SocketAddr)>,
    socket: std::os::unix::net::UnixListener,
    path: PathBuf,
}

/// Who may be asking.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Surface {
    /// Any process that reaches the TCP port.
    Anyone,
    /// The user that the sidecar runs as.
    Owner,
}

impl Admin {
    /// Opens the listeners.
    ///
    /// # Errors
    /// The kernel's, with the address or path in the text.
    pub fn bind(settings: &Settings) -> io::Result<Self> {
        let tcp = crate::listen::bind(settings.admin, 1)?.remove(0);
        let address = tcp.local_addr()?;
        let status = match settings.control.status {
            Some(status) => {
                let listener = crate::listen::bind(status, 1)?.remove(0);
                let address = listener.local_addr()?;
                Some((listener, address))
            }
            None => None,
        };
        let path = settings.admin_socket_path();
        let socket = bind_private(&path).map_err(|error| {
            io::Error::new(error.kind(), format!("cannot listen on {}: {error}", path.display()))
        })?;
        Ok(Admin { tcp, address, status, socket, path })
    }

    /// The TCP address, with the port that the kernel chose.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// The address of `--status`, when there is one.
    pub fn status(&self) -> Option<SocketAddr> {
        self.status.as_ref().map(|(_, address)| *address)
    }

    /// The Unix socket's path.
    pub fn socket_path(&self) -> &Path {
        &self.path
    }

    /// Answers on all listeners from now on, in tasks of the current runtime; they end with the guard's drop.
    ///
    /// # Errors
    /// The listeners cannot be registered with the runtime.
    pub fn start(self, shared: &Arc<Shared>) -> io::Result<SocketFile> {
        let file = SocketFile(self.path);
        for listener in [self.tcp].into_iter().chain(self.status.map(|(listener, _)| listener)) {
            let tcp = TcpListener::from_std(listener)?;
            let anyone = shared.clone();
            tokio::spawn(responder::serve(
                async move || Ok(tcp.accept().await?.0),
                move |asked| answer(anyone.clone(), Surface::Anyone, asked),
            ));
        }
        let socket = UnixListener::from_std(self.socket)?;
        let owner = shared.clone();
        tokio::spawn(responder::serve(
            async move || Ok(socket.accept().await?.0),
            move |asked| answer(owner.clone(), Surface::Owner, asked),
        ));
        Ok(file)
    }
}

/// The Unix socket's file; dropping it removes the file.
#[derive(Debug)]
pub struct SocketFile(PathBuf);

impl Drop for SocketFile {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.0);
    }
}

/// A Unix socket that no other user can open, not even for a moment: Linux takes a socket's mode for its file.
fn bind_private(path: &Path) -> io::Result<std::os::unix::net::UnixListener> {
    remove_stale(path)?;
    let socket = Socket::new(Domain::UNIX, Type::STREAM, None)?;
    fchmod(&socket, Mode::RUSR | Mode::WUSR)?;
    socket.bind(&SockAddr::unix(path)?)?;
    socket.set_nonblocking(true)?;
    socket.listen(64)?;
    Ok(socket.into())
}

/// Removes a socket's file that nobody listens on any more, and nothing else.
fn remove_stale(path: &Path) -> io::Result<()> {
    let is_socket = std::fs::symlink_metadata(path).is_ok_and(|meta| meta.file_type().is_socket());
    match std::os::unix::net::UnixStream::connect(path) {
        Err(error) if is_socket && error.kind() == io::ErrorKind::ConnectionRefused => {
            std::fs::remove_file(path)
        }
        _ => Ok(()),
    }
}

/// What is asked for, and what comes back.
async fn answer(shared: Arc<Shared>, surface: Surface, asked: Asked) -> Answer {
    let (shared, method) = (&*shared, asked.method.as_str());
    let (path, query) = asked.path.split_once('?').unwrap_or((&asked.path, ""));
    let reads = matches!(method, "GET" | "HEAD");
    match (path, surface) {
        ("/live", _) if reads => Answer::text(200, "live\n"),
        ("/ready", _) if reads => ready(shared),
        ("/metrics", _) if reads => {
            let format = metrics::Format::accepted(&asked.accept);
            Answer::new(200, format.content_type(), metrics::render(&metrics::collect(shared), format))
        }
        ("/config", Surface::Owner) if reads => Answer::new(200, "application/json", config::render(shared)),
        ("/why", Surface::Owner) if reads => why::answer(shared, query).await,
        ("/drain", Surface::Owner) if method == "POST" => {
            shared.drain.request();
            Answer::text(202, "draining\n")
        }
        ("/drain", Surface::Owner) => Answer::text(405, "use POST\n").allow("POST"),
        ("/live" | "/ready" | "/metrics", _) | ("/config" | "/why", Surface::Owner) => {
            Answer::text(405, "use GET\n").allow("GET, HEAD")
        }
        ("/config" | "/why" | "/drain", Surface::Anyone) => {
            Answer::text(404, "only on the Unix socket (--admin-socket)\n")
        }
        _ if surface == Surface::Owner => {
            Answer::text(404, "/ready /live /metrics /config /why, POST /drain\n")
        }
        _ => Answer::text(404, "/ready /live /metrics\n"),
    }
}

/// Whether calls should come here: it serves, and its agent is well.
fn ready(shared: &Shared) -> Answer {
    if shared.drain.phase() != Phase::Serving {
        return Answer::text(503, "draining\n");
    }
    if shared.listening.get().is_none() && !shared.settings.control.addresses.is_empty() {
        return Answer::text(503, "waiting for the control plane\n");
    }
    let health = shared.health.borrow().clone();
    match (health.status, health.detail) {
        (Status::Ready, _) => Answer::text(200, "ready\n"),
        (status, None) => Answer::text(503, &format!("the agent is {}\n", status.word())),
        (status, Some(why)) => Answer::text(503, &format!("the agent is {}: {why}\n", status.word())),
    }
}

#[cfg(test)]
mod tests;
