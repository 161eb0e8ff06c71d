//! What operators ask the sidecar. On TCP only what may be read by anyone on the loopback: `/ready`, `/live` and
//! `/metrics`. The rest is on a Unix socket that only this user may open: `/config`, `/why`, and `/drain` by POST.
//!
//! It runs on the background runtime with a small responder of its own, so it answers while the workers are busy.

mod config;
mod responder;
mod why;

use std::io;
use std::net::SocketAddr;
use std::os::unix::fs::FileTypeExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustix::fs::{Mode, fchmod};
use socket2::{Domain, SockAddr, Socket, Type};
use tokio::net::{TcpListener, UnixListener};

use crate::bootstrap::Settings;
use crate::server::Shared;
use crate::shutdown::Phase;
use crate::telemetry::metrics;
use responder::Answer;

/// The two listeners of the administration. Dropping it removes the Unix socket.
#[derive(Debug)]
pub struct Admin {
    tcp: std::net::TcpListener,
    address: SocketAddr,
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
    /// Opens both listeners.
    ///
    /// # Errors
    /// The kernel's, with the address or path in the text.
    pub fn bind(settings: &Settings) -> io::Result<Self> {
        let tcp = crate::listen::bind(settings.admin, 1)?.remove(0);
        let address = tcp.local_addr()?;
        let path = settings.admin_socket_path();
        let socket = bind_private(&path).map_err(|error| {
            io::Error::new(error.kind(), format!("cannot listen on {}: {error}", path.display()))
        })?;
        Ok(Admin { tcp, address, socket, path })
    }

    /// The TCP address, with the port that the kernel chose.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// The Unix socket's path.
    pub fn socket_path(&self) -> &Path {
        &self.path
    }

    /// Answers on both listeners from now on, in tasks of the current runtime; they end with the guard's drop.
    ///
    /// # Errors
    /// The listeners cannot be registered with the runtime.
    pub fn start(self, shared: &Arc<Shared>) -> io::Result<SocketFile> {
        let file = SocketFile(self.path);
        let tcp = TcpListener::from_std(self.tcp)?;
        let socket = UnixListener::from_std(self.socket)?;
        let anyone = shared.clone();
        tokio::spawn(responder::serve(
            async move || Ok(tcp.accept().await?.0),
            move |method, path| answer(&anyone, Surface::Anyone, method, path),
        ));
        let owner = shared.clone();
        tokio::spawn(responder::serve(
            async move || Ok(socket.accept().await?.0),
            move |method, path| answer(&owner, Surface::Owner, method, path),
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
fn answer(shared: &Shared, surface: Surface, method: &str, path: &str) -> Answer {
    let (path, query) = path.split_once('?').unwrap_or((path, ""));
    let reads = matches!(method, "GET" | "HEAD");
    match (path, surface) {
        ("/live", _) if reads => Answer::text(200, "live\n"),
        ("/ready", _) if reads => match shared.drain.phase() {
            Phase::Serving => Answer::text(200, "ready\n"),
            _ => Answer::text(503, "draining\n"),
        },
        ("/metrics", _) if reads => Answer::new(200, metrics::CONTENT_TYPE, metrics::render(shared)),
        ("/config", Surface::Owner) if reads => Answer::new(200, "application/json", config::render(shared)),
        ("/why", Surface::Owner) if reads => why::answer(shared, query),
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

#[cfg(test)]
mod tests;
