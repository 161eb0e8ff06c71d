//! Where the control plane is, and connections to it: a Unix socket, or TLS 1.3 over TCP.

use std::io::{self, ErrorKind};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use bytes::Bytes;
use http::HeaderValue;
use http_body_util::Full;
use hyper::client::conn::http1::{self, SendRequest};
use hyper_util::rt::TokioIo;
use pilotfish_client::Address;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpStream, UnixStream};
use zeroize::Zeroizing;

use super::tls::Tls;
use super::{Connection, Failed, Why};
use crate::paths;

/// How long a connection may take to come up, TLS included.
const CONNECT: Duration = Duration::from_secs(5);
/// Longer files are no token.
const LONGEST_TOKEN: usize = 4096;

type Sender = SendRequest<Full<Bytes>>;

/// Where the control plane is.
#[derive(Debug)]
pub(super) enum Target {
    /// On this machine; who may open the socket is an administrator.
    Socket(PathBuf),
    /// Elsewhere.
    Remote(Remote),
}

/// Control planes of one store, and what proves who asks.
#[derive(Debug)]
pub(super) struct Remote {
    places: Vec<Address>,
    /// Which of them is tried first; counts up.
    first: AtomicUsize,
    tls: Arc<Tls>,
    bearer: Option<HeaderValue>,
}

/// Reads `https://HOST[:PORT]`.
fn address(url: &str) -> Result<Address, Failed> {
    let read = match url.contains('@') {
        true => Err("credentials do not belong into it; use --admin-token-file".to_owned()),
        false => url.parse(),
    };
    read.map_err(|why| {
        Failed::usage(format!("`{}` is no address of a control plane: {why}", url.escape_debug()))
    })
}

impl Target {
    /// By the flags, else by the environment, else the data folder of this user.
    ///
    /// # Errors
    /// An address or a credential that cannot be read.
    pub(super) fn of(connection: &Connection) -> Result<Target, Failed> {
        let from_env = |name: &str| std::env::var(name).ok().filter(|value| !value.is_empty());
        let control = match (&connection.control, &connection.data) {
            (Some(control), _) => Some(control.clone()),
            (None, Some(data)) => return Ok(Target::Socket(paths::socket(data))),
            (None, None) => from_env("PILOTFISH_CONTROL"),
        };
        let Some(control) = control else {
            let data = from_env("PILOTFISH_DATA").map_or_else(paths::default_data, PathBuf::from);
            return Ok(Target::Socket(paths::socket(&data)));
        };
        let places = control.split(',').map(address).collect::<Result<_, _>>()?;
        Ok(Target::Remote(Remote {
            places,
            first: AtomicUsize::new(0),
            tls: Arc::new(Tls::of(connection)?),
            bearer: bearer(connection)?,
        }))
    }

    /// For people.
    pub(super) fn place(&self) -> String {
        match self {
            Target::Socket(path) => format!("the control plane at {}", path.display()),
            Target::Remote(remote) => {
                let all: Vec<String> = remote.places.iter().map(Address::authority).collect();
                format!("the control plane at {}", all.join(" or "))
            }
        }
    }

    /// The first address as a URL.
    pub(super) fn url(&self) -> Option<String> {
        match self {
            Target::Socket(_) => None,
            Target::Remote(remote) => remote.places.first().map(Address::to_string),
        }
    }

    /// How many control planes the user named.
    pub(super) fn places(&self) -> usize {
        match self {
            Target::Socket(_) => 1,
            Target::Remote(remote) => remote.places.len(),
        }
    }

    /// Another of them is tried first from now on.
    pub(super) fn turn(&self) {
        if let Target::Remote(remote) = self {
            remote.first.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// For the header `Host`.
    pub(super) fn host(&self) -> String {
        match self {
            Target::Socket(_) => "localhost".into(),
            Target::Remote(remote) => remote.places.first().map(Address::authority).unwrap_or_default(),
        }
    }

    /// For the header `Authorization`.
    pub(super) fn bearer(&self) -> Option<HeaderValue> {
        match self {
            Target::Socket(_) => None,
            Target::Remote(remote) => remote.bearer.clone(),
        }
    }

    /// A new connection.
    ///
    /// # Errors
    /// Nobody answers, or it is not the control plane that was meant.
    pub(super) async fn connect(&self) -> Result<Sender, Failed> {
        match self {
            Target::Socket(path) => {
                let stream = UnixStream::connect(path).await.map_err(|error| no_socket(path, &error))?;
                spoken(stream).await
            }
            Target::Remote(remote) => remote.connect().await,
        }
    }
}

impl Remote {
    /// The first that answers.
    async fn connect(&self) -> Result<Sender, Failed> {
        let mut problems: Vec<Failed> = Vec::new();
        let first = self.first.load(Ordering::Relaxed) % self.places.len().max(1);
        for place in self.places.iter().cycle().skip(first).take(self.places.len()) {
            let dialed = tokio::time::timeout(CONNECT, self.dial(place)).await;
            match dialed.unwrap_or_else(|_| Err(late(place))) {
                Ok(sender) => return Ok(sender),
                Err(failed) => problems.push(failed),
            }
        }
        let why = problems.first().map_or(Why::Unreachable, |failed| failed.why);
        let messages: Vec<String> = problems.into_iter().map(|failed| failed.message).collect();
        Err(Failed { why, message: messages.join("\n") })
    }

    async fn dial(&self, place: &Address) -> Result<Sender, Failed> {
        let stream = TcpStream::connect((place.host.as_str(), place.port))
            .await
            .map_err(|error| no_connection(place, &error))?;
        let _ = stream.set_nodelay(true);
        spoken(self.tls.connect(stream, &place.authority()).await?).await
    }
}

/// HTTP over a connection that is up.
async fn spoken<S: AsyncRead + AsyncWrite + Send + Unpin + 'static>(stream: S) -> Result<Sender, Failed> {
    let (sender, connection) = http1::handshake(TokioIo::new(stream))
        .await
        .map_err(|error| Failed::unreachable(format!("the connection broke: {error}")))?;
    // Its errors come back with the request.
    tokio::spawn(connection);
    Ok(sender)
}

fn no_socket(path: &Path, error: &io::Error) -> Failed {
    let data = path.parent().unwrap_or(path).display();
    let start = format!(
        "start one with `pilotfish serve --data {data}`, or name another with --control https://HOST:{} or --data DIR",
        paths::PORT
    );
    let path = path.display();
    match error.kind() {
        ErrorKind::NotFound => {
            Failed::unreachable(format!("no control plane runs here: there is no socket {path}; {start}"))
        }
        ErrorKind::ConnectionRefused => Failed::unreachable(format!(
            "no control plane runs here: the one that made {path} has ended; {start}"
        )),
        ErrorKind::PermissionDenied => Failed {
            why: Why::NotAuthorised,
            message: format!(
                "the socket {path} belongs to another user: run this as the user of the control plane, or use \
                 --control with --admin-token-file"
            ),
        },
        _ => Failed::unreachable(format!("the socket {path}: {error}; {start}")),
    }
}

fn no_connection(place: &Address, error: &io::Error) -> Failed {
    let hint = match error.kind() {
        ErrorKind::ConnectionRefused => {
            ": nothing listens there; is `pilotfish serve` running, with this port in --listen?"
        }
        _ => "; check --control",
    };
    Failed::unreachable(format!(
        "the control plane at {} cannot be reached ({error}){hint}",
        place.authority()
    ))
}

fn late(place: &Address) -> Failed {
    Failed::unreachable(format!(
        "the control plane at {} did not answer within {} s; check --control and what lies between",
        place.authority(),
        CONNECT.as_secs()
    ))
}

/// The administrator's token. Neither it nor a part of it is ever printed.
fn bearer(connection: &Connection) -> Result<Option<HeaderValue>, Failed> {
    let text = match &connection.admin_token_file {
        Some(file) => {
            let text = std::fs::read_to_string(file)
                .map_err(|error| Failed::usage(format!("--admin-token-file {}: {error}", file.display())))?;
            Zeroizing::new(text)
        }
        None => match std::env::var("PILOTFISH_ADMIN_TOKEN") {
            Ok(text) => Zeroizing::new(text),
            Err(_) => return Ok(None),
        },
    };
    let token = text.trim();
    if token.is_empty() || token.len() > LONGEST_TOKEN || !token.bytes().all(|byte| byte.is_ascii_graphic()) {
        return Err(Failed::usage("the administrator's token is empty or has characters that no token has"));
    }
    let mut value = HeaderValue::from_str(&Zeroizing::new(format!("Bearer {token}")))
        .map_err(|_| Failed::usage("the administrator's token has characters that no token has"))?;
    value.set_sensitive(true);
    Ok(Some(value))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_of_control_planes() {
        let place = |url: &str| address(url).map(|place| place.authority()).map_err(|failed| failed.message);
        assert_eq!(place("https://mesh.example").as_deref(), Ok("mesh.example:15012"));
        assert_eq!(place("https://10.0.0.1:1/").as_deref(), Ok("10.0.0.1:1"));
        assert_eq!(place("mesh:15").as_deref(), Ok("mesh:15"));
        assert_eq!(place("https://[::1]:9").as_deref(), Ok("[::1]:9"));
        for bad in
            ["http://mesh", "https://", "https://a:b@c", "https://a b", "https://a:99999", "https://a/x"]
        {
            assert!(place(bad).is_err(), "{bad}");
        }
    }
}
