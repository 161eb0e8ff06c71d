//! Requests of the sidecar's own: key sets, token endpoints, external authorizers. Bounded in time and size; no redirects. A service that the
//! mesh knows is reached as calls of the agent would be: its endpoints, its DestinationRule's TLS, mTLS to another sidecar. Whatever else is
//! reached by DNS, with TLS by a file or by the system's roots.
//!
//! They are asked on the background's runtime, from any thread: so connections are kept for the whole process, and no worker waits
//! for a handshake of theirs. Nothing is allocated before the first question.

pub mod connection;
mod kept;
mod way;

use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use http::uri::Scheme;
use http::{HeaderValue, Request, Response, StatusCode, Version, header};
use http_body_util::{BodyExt, Full, LengthLimitError, Limited};
use pilotfish_filters::cluster::Outcome;
use tokio::runtime::Handle;
use tokio::sync::Semaphore;
use tokio::time::Instant;

use crate::delegation;
use crate::server::Shared;
use connection::{USER_AGENT, cause};
use kept::{Files, IDLE, Kept, Key, Open};
use way::{Place, Way};

/// Questions under way at a time, of the whole process.
const AT_ONCE: usize = 64;
/// Endpoints of a service of the mesh to which one question is tried to be connected.
const ENDPOINTS: usize = 3;

/// One question.
#[derive(Debug)]
pub struct Question {
    /// Method, absolute URI (`http` or `https`), headers, body. It may be sent twice: when a kept connection turns out to be closed.
    pub request: Request<Bytes>,
    /// HTTP/2 with prior knowledge (gRPC), else HTTP/1.1.
    pub h2: bool,
    /// For all of it: name, connection, handshake, answer.
    pub timeout: Duration,
    /// The longest answer, bytes.
    pub longest: usize,
    /// A file with the roots to trust (PEM), instead of those of the service's DestinationRule. Read when a connection is made, as
    /// `client`.
    pub roots: Option<PathBuf>,
    /// Files with a client certificate and its key (PEM).
    pub client: Option<(PathBuf, PathBuf)>,
    /// Roots where nobody else names any, instead of the system's.
    pub usual_roots: Option<PathBuf>,
    /// It has a secret in it, which only the service may see.
    pub secret: bool,
    /// A refusal (neither 200 nor 5xx) counts without its body where that is too long, too slow, or breaks off.
    pub refusals: bool,
}

impl Question {
    /// This one: HTTP/1.1, trust as usual, nothing secret.
    pub fn new(request: Request<Bytes>, timeout: Duration, longest: usize) -> Question {
        Question {
            request,
            h2: false,
            timeout,
            longest,
            roots: None,
            client: None,
            usual_roots: None,
            secret: false,
            refusals: false,
        }
    }
}

/// What of an answer is taken.
#[derive(Debug, Clone, Copy)]
struct Taken {
    longest: usize,
    refusals: bool,
    /// Nobody waits for the answer any longer.
    until: Instant,
}

/// Whence questions are asked.
#[derive(Debug)]
pub struct Asks {
    background: OnceLock<Handle>,
    places: Semaphore,
    kept: Mutex<Kept>,
}

impl Default for Asks {
    fn default() -> Self {
        Asks { background: OnceLock::new(), places: Semaphore::const_new(AT_ONCE), kept: Mutex::default() }
    }
}

impl Asks {
    /// From now on questions are asked on this runtime.
    pub fn start(&self, background: Handle) {
        let _ = self.background.set(background);
    }

    /// The runtime that outlives every worker's; none in a simulation.
    pub fn background(&self) -> Option<&Handle> {
        self.background.get()
    }

    fn kept(&self) -> MutexGuard<'_, Kept> {
        self.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Asks, on a kept connection if there is one. Whatever the status, an answer is an answer; its trailers are among its headers.
/// Dropping the future gives the question up.
///
/// # Errors
/// There is no answer, in words without secrets.
pub async fn ask(shared: &Arc<Shared>, question: Question) -> Result<Response<Bytes>, String> {
    let Some(background) = shared.asks.background() else {
        return Err("there is no network for questions of the sidecar's own".into());
    };
    let limit = question.timeout;
    let shared = shared.clone();
    let task = background.spawn(async move {
        let _place = shared
            .asks
            .places
            .try_acquire()
            .map_err(|_| format!("{AT_ONCE} questions of the sidecar's own are under way already"))?;
        let (place, request) = prepare(&question)?;
        let mut key = None;
        let until = Instant::now() + limit;
        let taken = Taken { longest: question.longest, refusals: question.refusals, until };
        let answer = answer(&shared, &place, request, taken, &mut key);
        tokio::time::timeout(limit, answer).await.unwrap_or_else(|_| {
            // The other end may have gone without a word.
            key.iter().for_each(|key| shared.asks.kept().forget(key));
            Err(format!("no answer within {limit:?}"))
        })
    });
    let mut task = Abandoned(task);
    (&mut task.0).await.unwrap_or_else(|_| Err("the sidecar ends".into()))
}

/// Ends the task of a question that nobody waits for any more.
struct Abandoned<T>(tokio::task::JoinHandle<T>);

impl<T> Drop for Abandoned<T> {
    fn drop(&mut self) {
        self.0.abort();
    }
}

/// `key`: where it is being asked.
async fn answer(
    shared: &Arc<Shared>,
    place: &Place,
    request: Request<Full<Bytes>>,
    taken: Taken,
    key: &mut Option<Key>,
) -> Result<Response<Bytes>, String> {
    let (mut tried, mut last) = (Vec::new(), None);
    loop {
        let mut way = Way::find(shared, place, &tried)?;
        if let Some(why) = last.take_if(|_| way.endpoint().is_none_or(|endpoint| tried.contains(&endpoint))) {
            return Err(why);
        }
        *key = Some(way.key.clone());
        let began = shared.clock.now();
        let kept = shared.asks.kept().take(&way.key, shared.tls.live.version());
        if let Some(mut open) = kept {
            if open.connection.is_ready().await
                && let Ok(response) = open.connection.send(own(shared, &open, request.clone())).await
            {
                way.record(&shared.clock, began, Outcome::Answered(response.status().as_u16()));
                return finish(shared, &way.key, open, response, taken).await;
            }
            // The service may have closed it before it saw the question.
            shared.asks.kept().forget(&way.key);
        }
        // Read before: what changes meanwhile is not what was trusted.
        let trust = shared.tls.live.version();
        let (connection, called) = match way.connect(shared).await {
            Ok(made) => made,
            Err(why) => {
                way.record(&shared.clock, began, Outcome::Unreachable);
                tried.extend(way.endpoint());
                if tried.is_empty() || tried.len() >= ENDPOINTS {
                    return Err(why);
                }
                last = Some(why);
                continue;
            }
        };
        let mut open = Open::new(connection, called, trust);
        let request = own(shared, &open, request);
        return match open.connection.send(request).await {
            Ok(response) => {
                way.record(&shared.clock, began, Outcome::Answered(response.status().as_u16()));
                finish(shared, &way.key, open, response, taken).await
            }
            Err(error) => {
                way.record(&shared.clock, began, Outcome::Reset);
                Err(cause(&error))
            }
        };
    }
}

/// To another sidecar a question is a call like any other, of the agent's own accord.
fn own(shared: &Shared, open: &Open, mut request: Request<Full<Bytes>>) -> Request<Full<Bytes>> {
    let chain = open.called.as_ref().and_then(|called| delegation::of_own_accord(&shared.tls, called));
    if let Some(chain) = chain.and_then(|chain| HeaderValue::from_str(&chain).ok()) {
        request.headers_mut().insert(delegation::DELEGATION, chain);
    }
    request
}

/// Reads the answer's body; keeps the connection if it can be used again.
async fn finish(
    shared: &Arc<Shared>,
    key: &Key,
    mut open: Open,
    response: Response<hyper::body::Incoming>,
    taken: Taken,
) -> Result<Response<Bytes>, String> {
    let (mut head, body) = response.into_parts();
    let body = Limited::new(body, taken.longest).collect();
    let refuses = taken.refusals && head.status != StatusCode::OK && !head.status.is_server_error();
    let collected = if refuses {
        // With half of the time that is left it is said in time, whatever becomes of its body.
        let left = taken.until.saturating_duration_since(Instant::now());
        match tokio::time::timeout(left / 2, body).await {
            Ok(Ok(collected)) => collected,
            Ok(Err(_)) | Err(_) => return Ok(Response::from_parts(head, Bytes::new())),
        }
    } else {
        body.await.map_err(|error| match error.downcast_ref::<hyper::Error>() {
            Some(error) => cause(error),
            None if error.is::<LengthLimitError>() => {
                format!("its answer is longer than {} bytes", taken.longest)
            }
            None => error.to_string(),
        })?
    };
    if let Some(trailers) = collected.trailers() {
        for (name, value) in trailers {
            head.headers.entry(name).or_insert_with(|| value.clone());
        }
    }
    // After `connection: close` it never is.
    if tokio::time::timeout(Duration::from_millis(100), open.connection.is_ready()).await == Ok(true) {
        keep(shared, key.clone(), open);
    }
    Ok(Response::from_parts(head, collected.to_bytes()))
}

fn keep(shared: &Arc<Shared>, key: Key, open: Open) {
    let mut kept = shared.asks.kept();
    kept.put(key, open);
    if !std::mem::replace(&mut kept.swept, true) {
        let shared = shared.clone();
        tokio::spawn(async move {
            loop {
                tokio::time::sleep(IDLE / 2).await;
                let mut kept = shared.asks.kept();
                if !kept.sweep() {
                    kept.swept = false;
                    return;
                }
            }
        });
    }
}

/// Where a question goes, and how it is written there.
fn prepare(question: &Question) -> Result<(Place, Request<Full<Bytes>>), String> {
    let uri = question.request.uri();
    let https = match uri.scheme() {
        Some(scheme) if *scheme == Scheme::HTTPS => true,
        Some(scheme) if *scheme == Scheme::HTTP => false,
        _ => return Err(format!("{} begins neither with https:// nor with http://", shown(uri))),
    };
    let authority = uri.authority().ok_or("it names no host")?;
    let host = authority.host();
    let host = host.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')).unwrap_or(host);
    if host.is_empty() || authority.as_str().contains('@') {
        return Err("its URI has to have a host, and no user".into());
    }
    let place = Place {
        host: host.to_ascii_lowercase().into(),
        port: authority.port_u16().unwrap_or(if https { 443 } else { 80 }),
        h2: question.h2,
        https,
        files: Files { roots: question.roots.clone(), client: question.client.clone() },
        usual_roots: question.usual_roots.clone(),
        secret: question.secret,
    };
    let mut request = question.request.clone().map(Full::new);
    request.headers_mut().entry(header::USER_AGENT).or_insert(HeaderValue::from_static(USER_AGENT));
    if question.h2 {
        *request.version_mut() = Version::HTTP_2;
    } else {
        *request.version_mut() = Version::HTTP_11;
        let host = HeaderValue::from_str(authority.as_str()).map_err(|error| error.to_string())?;
        request.headers_mut().entry(header::HOST).or_insert(host);
        let path = uri.path_and_query().map_or("/", |path| path.as_str());
        *request.uri_mut() = path.parse().map_err(|_| "its path is no path of a URI".to_owned())?;
    }
    Ok((place, request))
}

/// A URI without its query, which may be secret.
fn shown(uri: &http::Uri) -> String {
    uri.to_string().split('?').next().unwrap_or_default().to_owned()
}

#[cfg(test)]
mod tests;
