//! New connections: the one place that opens sockets to the outside (or connections in a simulated network).

use std::io;
use std::net::SocketAddr;
use std::path::Path;
use std::time::Duration;

use pilotfish_config::model::TcpKeepalive;
use pilotfish_filters::verdict::{Deny, Reason};
use socket2::SockRef;
use tokio::net::{TcpStream, UnixStream};

use crate::http::Io;
use crate::net::Net;

/// Where to connect to.
#[derive(Debug, Clone, Copy)]
pub enum Address<'a> {
    /// TCP.
    Tcp(SocketAddr),
    /// A Unix socket.
    Unix(&'a Path),
}

/// How long a sidecar may leave bytes unacknowledged before its connection is given up; it is asked for a sign of life
/// after a second of silence. So a peer that died is noticed within 2 s, while a request waits for its answer too.
pub const MESH_SILENCE: Duration = Duration::from_secs(2);

/// Connects within `timeout`. Small writes are never held back (TCP_NODELAY). `mesh`: to another sidecar.
///
/// # Errors
/// `connect-failed`, `connect-timeout`.
pub async fn connect(
    net: &Net,
    address: Address<'_>,
    timeout: Duration,
    keepalive: Option<&TcpKeepalive>,
    mesh: bool,
) -> Result<Io, Deny> {
    let connecting = async {
        match (net, address) {
            (Net::System, Address::Tcp(address)) => {
                let stream = TcpStream::connect(address).await?;
                stream.set_nodelay(true)?;
                if let Some(keepalive) = keepalive {
                    set_keepalive(&stream, keepalive)?;
                } else if mesh {
                    let second = Duration::from_secs(1);
                    let often = socket2::TcpKeepalive::new().with_time(second).with_interval(second);
                    SockRef::from(&stream).set_tcp_keepalive(&often)?;
                }
                if mesh {
                    SockRef::from(&stream).set_tcp_user_timeout(Some(MESH_SILENCE))?;
                }
                Ok(Io::Tcp(stream))
            }
            #[cfg(feature = "sim")]
            (Net::Simulated(network), Address::Tcp(address)) => network.connect(address, mesh).await,
            (_, Address::Unix(path)) => Ok(Io::Unix(UnixStream::connect(path).await?)),
        }
    };
    match tokio::time::timeout(timeout, connecting).await {
        Ok(Ok(io)) => Ok(io),
        Ok(Err(error)) => Err(failed(address, &error)),
        Err(_) => Err(Deny::with(
            Reason::ConnectTimeout,
            format!("{address} did not accept within {} ms", timeout.as_millis()),
        )),
    }
}

fn failed(address: Address<'_>, error: &io::Error) -> Deny {
    Deny::with(Reason::ConnectFailed, format!("{address}: {error}"))
}

fn set_keepalive(stream: &TcpStream, keepalive: &TcpKeepalive) -> io::Result<()> {
    let mut wanted = socket2::TcpKeepalive::new();
    if let Some(time) = keepalive.time {
        wanted = wanted.with_time(time);
    }
    if let Some(interval) = keepalive.interval {
        wanted = wanted.with_interval(interval);
    }
    if let Some(probes) = keepalive.probes {
        wanted = wanted.with_retries(probes);
    }
    SockRef::from(stream).set_tcp_keepalive(&wanted)
}

impl std::fmt::Display for Address<'_> {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Address::Tcp(address) => address.fmt(out),
            Address::Unix(path) => path.display().fmt(out),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_sidecar_that_dies_is_noticed_while_a_request_waits() {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = Address::Tcp(listener.local_addr().unwrap());
        let patience = Duration::from_secs(5);
        for mesh in [true, false] {
            let io = connect(&Net::System, address, patience, None, mesh).await.unwrap();
            let socket = SockRef::from(io.as_tcp().unwrap());
            assert_eq!(socket.keepalive().unwrap(), mesh);
            assert_eq!(socket.tcp_user_timeout().unwrap(), mesh.then_some(MESH_SILENCE));
            if mesh {
                assert_eq!(socket.tcp_keepalive_time().unwrap(), Duration::from_secs(1));
                assert_eq!(socket.tcp_keepalive_interval().unwrap(), Duration::from_secs(1));
            }
        }
    }
}
