//! The listeners: how many connections there may be, who is at their other end, and what they get.

use std::collections::HashMap;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::os::unix::fs::FileTypeExt;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use rustix::fs::{Mode, fchmod};
use socket2::{Domain, Protocol, SockAddr, Socket, TcpKeepalive, Type};
use tokio::net::{TcpListener, TcpStream, UnixListener, UnixStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use super::Failure;
use crate::log;

/// Connections that the kernel keeps until they are accepted; `net.core.somaxconn` caps it.
const BACKLOG: i32 = 4096;
/// How long a listener rests after the kernel refused an accept for want of descriptors or memory (nginx: 500 ms).
const REST: Duration = Duration::from_millis(100);
/// Connections at a time whose peer has shown no certificate, together and from one address; more are closed at once.
const STRANGERS: usize = 1024;
const STRANGERS_OF_ONE: usize = 256;
/// Connections at a time of peers with a certificate: 10,000 sidecars, and as many again while they reconnect.
const MEMBERS: usize = 20_000;
/// Connections at a time on the Unix socket, the page and the status listener, each.
pub(super) const FEW: usize = 256;

/// Opens a TCP listener.
///
/// # Errors
/// The kernel's, with address and advice.
pub(super) fn tcp(address: SocketAddr, flag: &str) -> Result<TcpListener, Failure> {
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
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
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
pub(super) fn unix(path: &Path) -> Result<UnixListener, Failure> {
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
pub(super) async fn accept_owner(listener: &UnixListener) -> (UnixStream, String) {
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

/// The places for connections of the TLS listener.
#[derive(Debug)]
pub(super) struct Places {
    strangers: Mutex<Strangers>,
    members: Arc<Semaphore>,
}

#[derive(Debug, Default)]
struct Strangers {
    all: usize,
    by_address: HashMap<IpAddr, usize>,
}

/// A stranger's place; dropping it gives it back.
#[derive(Debug)]
pub(super) struct Stranger {
    places: Arc<Places>,
    address: IpAddr,
}

impl Places {
    pub(super) fn new() -> Arc<Places> {
        Arc::new(Places { strangers: Mutex::default(), members: Arc::new(Semaphore::new(MEMBERS)) })
    }

    /// A place for a peer that is not known yet; none when too many are there.
    pub(super) fn stranger(self: &Arc<Places>, address: IpAddr) -> Option<Stranger> {
        let mut strangers = self.strangers.lock().unwrap_or_else(PoisonError::into_inner);
        let address = network(address);
        if strangers.all >= STRANGERS
            || strangers.by_address.get(&address).is_some_and(|n| *n >= STRANGERS_OF_ONE)
        {
            return None;
        }
        strangers.all += 1;
        *strangers.by_address.entry(address).or_default() += 1;
        Some(Stranger { places: self.clone(), address })
    }

    /// A place for a peer with a certificate.
    pub(super) fn member(&self) -> Option<OwnedSemaphorePermit> {
        self.members.clone().try_acquire_owned().ok()
    }
}

impl Drop for Stranger {
    fn drop(&mut self) {
        let mut strangers = self.places.strangers.lock().unwrap_or_else(PoisonError::into_inner);
        strangers.all -= 1;
        if let Some(count) = strangers.by_address.get_mut(&self.address) {
            *count -= 1;
            if *count == 0 {
                strangers.by_address.remove(&self.address);
            }
        }
    }
}

/// One owner's addresses: an IPv4 address, or the /64 that an IPv6 host can choose from.
pub(super) fn network(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V6(v6) => IpAddr::V6((v6.to_bits() >> 64 << 64).into()),
        v4 => v4,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_address_cannot_take_every_place() {
        let places = Places::new();
        let one: IpAddr = "2001:db8::1".parse().unwrap();
        let held: Vec<_> = std::iter::from_fn(|| places.stranger(one)).take(STRANGERS).collect();
        assert_eq!(held.len(), STRANGERS_OF_ONE);
        assert!(places.stranger("2001:db8::2".parse().unwrap()).is_none(), "the same /64");
        assert!(places.stranger("2001:db8:0:1::1".parse().unwrap()).is_some());
        drop(held);
        assert!(places.stranger(one).is_some());
    }
}
