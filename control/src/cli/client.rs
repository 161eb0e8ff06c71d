//! The control plane as a command sees it: where it is, how to prove who asks, one request at a time.

mod connect;
mod tls;

use std::fmt::Write as _;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use bytes::Bytes;
use clap::Args;
use http::header::{AUTHORIZATION, CONTENT_TYPE, HOST};
use http::{Method, Request, Response, StatusCode};
use http_body_util::{BodyExt, Full, Limited};
use hyper::body::Incoming;
use pilotfish_config::{units, wire};
use serde::Serialize;
use serde::de::DeserializeOwned;

use self::connect::Target;
use super::failed::{Failed, Why};
use super::terminal::harmless;
use crate::api::types::{Failure, Version};

/// The longest answer that is read into memory: ten thousand sidecars' status is 5 MB.
const LONGEST_ANSWER: usize = 512 << 20;

/// What to do when another control plane leads.
const ELSEWHERE: &str =
    "\nname the one that leads with --control, or all of them, separated by commas: then each is tried";

const HEADING: &str = "How to reach the control plane";

/// How to reach the control plane, and how to prove who asks. Flags win over environment variables.
#[derive(Debug, Clone, Default, Args)]
#[command(next_help_heading = HEADING)]
pub struct Connection {
    /// Address of a control plane, https://HOST[:15012]; several, separated by commas, are tried in turn. Without it
    /// the command uses the Unix socket of a control plane on this machine [env: PILOTFISH_CONTROL]
    #[arg(long, value_name = "URL", conflicts_with = "data")]
    pub control: Option<String>,

    /// Data folder of a `pilotfish serve` on this machine; its Unix socket is there. [env: PILOTFISH_DATA] [default:
    /// /var/lib/pilotfish for root, else $XDG_DATA_HOME/pilotfish or ~/.local/share/pilotfish]
    #[arg(long, value_name = "DIR")]
    pub data: Option<PathBuf>,

    /// SHA-256 of the root certificate that must vouch for the control plane, as `trust list` prints it
    #[arg(long, env = "PILOTFISH_CA_FINGERPRINT", value_name = "SHA256")]
    pub ca_fingerprint: Option<String>,

    /// File with the root certificates (PEM) one of which must vouch for the control plane
    #[arg(long, env = "PILOTFISH_CA_FILE", value_name = "FILE", conflicts_with = "ca_fingerprint")]
    pub ca_file: Option<PathBuf>,

    /// File with the administrator's token, which the first `pilotfish serve` printed. The token itself may be in
    /// PILOTFISH_ADMIN_TOKEN
    #[arg(long, env = "PILOTFISH_ADMIN_TOKEN_FILE", value_name = "FILE")]
    pub admin_token_file: Option<PathBuf>,

    /// Client certificate (PEM) of an administrator, instead of a token
    #[arg(long, env = "PILOTFISH_CLIENT_CERT", value_name = "FILE", requires = "client_key")]
    pub client_cert: Option<PathBuf>,

    /// Key (PEM) of --client-cert
    #[arg(long, env = "PILOTFISH_CLIENT_KEY", value_name = "FILE", requires = "client_cert")]
    pub client_key: Option<PathBuf>,

    /// How long to wait for an answer
    #[arg(long, value_name = "DURATION", default_value = "30s", value_parser = units::duration)]
    pub request_timeout: Duration,
}

/// Why a request has no good answer.
#[derive(Debug)]
pub enum Trouble {
    /// The control plane refused it.
    Refused {
        /// The HTTP status.
        status: StatusCode,
        /// Its words.
        failure: Failure,
    },
    /// There was no answer, or none that can be understood.
    Failed(Failed),
}

impl From<Failed> for Trouble {
    fn from(failed: Failed) -> Trouble {
        Trouble::Failed(failed)
    }
}

impl From<Trouble> for Failed {
    fn from(trouble: Trouble) -> Failed {
        match trouble {
            Trouble::Failed(failed) => failed,
            Trouble::Refused { status, failure } => {
                let why = match status {
                    StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN => Why::NotAuthorised,
                    _ => Why::Refused,
                };
                let mut message = harmless(&failure.error, true);
                if status == StatusCode::MISDIRECTED_REQUEST {
                    message.push_str(ELSEWHERE);
                }
                for line in &failure.diagnostics {
                    // A hint may show several lines of YAML.
                    let _ = write!(message, "\n{}", harmless(line, true));
                }
                Failed { why, message }
            }
        }
    }
}

/// A control plane that answers, of a version that this program understands.
#[derive(Debug)]
pub struct Client {
    target: Target,
    timeout: Duration,
    /// What answers.
    pub server: Version,
}

impl Client {
    /// Finds the control plane and asks for its version.
    ///
    /// # Errors
    /// It cannot be reached, does not know who asks, or speaks another major version.
    pub async fn open(connection: &Connection) -> Result<Client, Failed> {
        let target = Target::of(connection)?;
        let server = Version {
            build: String::new(),
            wire: String::new(),
            documents: 0,
            control: String::new(),
            trust_domain: String::new(),
        };
        let mut client = Client { target, timeout: connection.request_timeout, server };
        client.server = client.get::<Version>("/v1/version").await?;
        client.check_version()?;
        Ok(client)
    }

    fn check_version(&self) -> Result<(), Failed> {
        let theirs = self.server.wire.split('.').next().and_then(|major| major.parse::<u16>().ok());
        if theirs == Some(wire::MAJOR) {
            return Ok(());
        }
        Err(Failed::refused(format!(
            "the control plane speaks version {} of the protocol (pilotfish {}), this command {}.{} (pilotfish {}); use \
             a pilotfish of the control plane's version",
            harmless(&self.server.wire, false),
            harmless(&self.server.build, false),
            wire::MAJOR,
            wire::MINOR,
            env!("CARGO_PKG_VERSION"),
        )))
    }

    /// Where the control plane is, for people: a path or a URL.
    pub fn place(&self) -> String {
        self.target.place()
    }

    /// The URL that other machines may use, when this command uses one.
    pub fn url(&self) -> Option<String> {
        self.target.url()
    }

    /// Asks for something.
    ///
    /// # Errors
    /// See [`Trouble`].
    pub async fn get<T: DeserializeOwned>(&self, path: &str) -> Result<T, Trouble> {
        self.json(Method::GET, path, Bytes::new(), Duration::ZERO).await
    }

    /// Asks for something that may take `longer` than other answers.
    ///
    /// # Errors
    /// See [`Trouble`].
    pub async fn get_slowly<T: DeserializeOwned>(&self, path: &str, longer: Duration) -> Result<T, Trouble> {
        self.json(Method::GET, path, Bytes::new(), longer).await
    }

    /// Asks for something to be done.
    ///
    /// # Errors
    /// See [`Trouble`].
    pub async fn post<B: Serialize, T: DeserializeOwned>(&self, path: &str, body: &B) -> Result<T, Trouble> {
        let body =
            serde_json::to_vec(body).map_err(|error| Failed::refused(format!("the request: {error}")))?;
        self.json(Method::POST, path, body.into(), Duration::ZERO).await
    }

    /// Asks for something to be removed.
    ///
    /// # Errors
    /// See [`Trouble`].
    pub async fn delete<T: DeserializeOwned>(&self, path: &str) -> Result<T, Trouble> {
        self.json(Method::DELETE, path, Bytes::new(), Duration::ZERO).await
    }

    /// Asks for an answer that is no JSON; its body is still to be read.
    ///
    /// # Errors
    /// See [`Trouble`].
    pub async fn post_for_bytes(&self, path: &str) -> Result<Response<Incoming>, Trouble> {
        self.begun(Method::POST, path).await
    }

    /// As [`Client::post_for_bytes`], for what is only looked at.
    ///
    /// # Errors
    /// See [`Trouble`].
    pub async fn get_for_bytes(&self, path: &str) -> Result<Response<Incoming>, Trouble> {
        self.begun(Method::GET, path).await
    }

    async fn begun(&self, method: Method, path: &str) -> Result<Response<Incoming>, Trouble> {
        let answer = self.in_time(self.timeout, self.send(method, path, Bytes::new())).await?;
        if answer.status().is_success() { Ok(answer) } else { Err(self.refusal(answer).await) }
    }

    async fn json<T: DeserializeOwned>(
        &self,
        method: Method,
        path: &str,
        body: Bytes,
        longer: Duration,
    ) -> Result<T, Trouble> {
        let exchange = async {
            let answer = self.send(method, path, body).await?;
            if !answer.status().is_success() {
                return Err(self.refusal(answer).await);
            }
            let bytes = self.collect(answer).await?;
            serde_json::from_slice(&bytes).map_err(|error| self.not_understood(&error.to_string()).into())
        };
        self.in_time(self.timeout.saturating_add(longer), exchange).await
    }

    async fn in_time<T>(
        &self,
        limit: Duration,
        exchange: impl Future<Output = Result<T, Trouble>>,
    ) -> Result<T, Trouble> {
        let started = Instant::now();
        tokio::time::timeout(limit, exchange).await.unwrap_or_else(|_| {
            let message = format!(
                "{} did not answer within {:.0} s; see its log, or give it longer with --request-timeout",
                self.place(),
                started.elapsed().as_secs_f64()
            );
            Err(Failed::unreachable(message).into())
        })
    }

    /// Sends it; one that says that another leads is left for the next of those that the user named, and for nobody else: the
    /// request carries an administrator's token.
    async fn send(&self, method: Method, path: &str, body: Bytes) -> Result<Response<Incoming>, Trouble> {
        for _ in 1..self.target.places() {
            let answer = self.once(method.clone(), path, body.clone()).await?;
            if answer.status() != StatusCode::MISDIRECTED_REQUEST {
                return Ok(answer);
            }
            self.target.turn();
        }
        self.once(method, path, body).await
    }

    async fn once(&self, method: Method, path: &str, body: Bytes) -> Result<Response<Incoming>, Trouble> {
        let mut sender = self.target.connect().await?;
        let mut request = Request::builder().method(method).uri(path).header(HOST, self.target.host());
        if let Some(token) = self.target.bearer() {
            request = request.header(AUTHORIZATION, token);
        }
        if !body.is_empty() {
            request = request.header(CONTENT_TYPE, "application/json");
        }
        let request = request
            .body(Full::new(body))
            .map_err(|error| Failed::usage(format!("this cannot be sent as a request: {error}")))?;
        let answer = sender.send_request(request).await;
        answer.map_err(|error| self.gone(&error).into())
    }

    async fn collect(&self, answer: Response<Incoming>) -> Result<Bytes, Trouble> {
        let body = Limited::new(answer.into_body(), LONGEST_ANSWER).collect().await;
        body.map(http_body_util::Collected::to_bytes).map_err(|error| {
            Failed::unreachable(format!("{}: the answer broke off: {error}", self.place())).into()
        })
    }

    async fn refusal(&self, answer: Response<Incoming>) -> Trouble {
        let status = answer.status();
        let bytes = match self.collect(answer).await {
            Ok(bytes) => bytes,
            Err(trouble) => return trouble,
        };
        match serde_json::from_slice::<Failure>(&bytes) {
            Ok(failure) if !failure.error.is_empty() => Trouble::Refused { status, failure },
            _ => self.not_understood(&format!("HTTP status {status} without a reason")).into(),
        }
    }

    fn not_understood(&self, what: &str) -> Failed {
        Failed::refused(format!(
            "what {} answers is not understood ({}); is it a control plane, and of this version?",
            self.place(),
            harmless(what, false)
        ))
    }

    fn gone(&self, error: &hyper::Error) -> Failed {
        Failed::unreachable(format!("{} closed the connection without an answer: {error}", self.place()))
    }
}

/// A path with a query; values are percent-encoded, pairs without a value left out.
pub fn query(path: &str, pairs: &[(&str, Option<&str>)]) -> String {
    let mut text = path.to_owned();
    let given = pairs.iter().filter_map(|(name, value)| Some((name, (*value)?)));
    for (at, (name, value)) in given.enumerate() {
        let _ = write!(text, "{}{name}={}", if at == 0 { '?' } else { '&' }, encoded(value));
    }
    text
}

/// A text as one segment of a path or one value of a query (RFC 3986, section 2.3).
pub fn encoded(text: &str) -> String {
    text.bytes().fold(String::with_capacity(text.len()), |mut out, byte| {
        match byte {
            b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' => out.push(char::from(byte)),
            _ => {
                let _ = write!(out, "%{byte:02X}");
            }
        }
        out
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn queries_are_encoded() {
        assert_eq!(
            query("/v1/x", &[("a", Some("b c/ä&d=%")), ("n", None), ("e", Some(""))]),
            "/v1/x?a=b%20c%2F%C3%A4%26d%3D%25&e="
        );
        assert_eq!(query("/v1/x", &[]), "/v1/x");
    }
}
