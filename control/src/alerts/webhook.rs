//! Tells others what fires: `POST` of what Alertmanager's webhook receivers take (version 4), one for each rule.
//!
//! What is to be told waits in a box that holds the newest word on each alert, so it is bounded by the alerts and nothing
//! that a receiver missed is lost. One task empties it; nobody waits for it. A receiver that is away is tried again, at
//! longer and longer intervals; one that refuses is not told the same again. Redirects are not followed.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use http::header::{AUTHORIZATION, CONTENT_TYPE, HOST, USER_AGENT};
use http::{HeaderValue, Method, Request, StatusCode, Uri};
use http_body_util::Full;
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use pilotfish_identity::tls::provider;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, RootCertStore};
use serde::Serialize;
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio::sync::Notify;
use tokio_rustls::TlsConnector;

use super::evaluate::{Alert, State, Turn};
use crate::log;

/// One attempt may take so long, connecting included (Alertmanager's own default for a webhook is the interval of groups).
const ATTEMPT: Duration = Duration::from_secs(10);
/// Between attempts, doubled each time ...
const FIRST_PAUSE: Duration = Duration::from_secs(1);
/// ... up to this.
const LONGEST_PAUSE: Duration = Duration::from_secs(60);
/// Words that wait; more than that are dropped, and counted in the log.
const MOST_WAITING: usize = 10_000;
/// Alerts in one request; the others come with the next.
const MOST_TOLD: usize = 500;
/// Where Debian keeps the machine's authorities.
const SYSTEM_ROOTS: &str = "/etc/ssl/certs/ca-certificates.crt";

/// Whom to tell.
#[derive(Debug, Clone)]
pub struct Webhook {
    uri: Uri,
    host: String,
    port: u16,
    tls: Option<Arc<ClientConfig>>,
    bearer: Option<HeaderValue>,
}

/// What is to be told: by rule, by agent.
#[derive(Debug)]
pub struct Outbox {
    waiting: Mutex<BTreeMap<String, BTreeMap<String, Alert>>>,
    wake: Notify,
    page: String,
}

impl Webhook {
    /// Reads what the flags say: a URL, a file with a bearer token, a file with authorities (PEM) instead of the machine's.
    ///
    /// # Errors
    /// What cannot be used, with the flag's name.
    pub fn new(url: &str, token: Option<&Path>, ca: Option<&Path>) -> Result<Webhook, String> {
        // The URL itself may hold a secret, so that no message shows it.
        let uri: Uri = url.parse().map_err(|error| {
            format!("--alert-webhook: this is no URL ({error}); write http://HOST/PATH or https://HOST/PATH")
        })?;
        let authority = uri.authority().ok_or("--alert-webhook: the URL names no host")?;
        if authority.as_str().contains('@') {
            return Err(
                "--alert-webhook: credentials do not belong into the URL; use --alert-webhook-token-file"
                    .into(),
            );
        }
        let tls = match uri.scheme_str() {
            Some("https") => Some(tls(ca)?),
            Some("http") if ca.is_some() => {
                return Err("--alert-webhook-ca is for an https:// URL".into());
            }
            Some("http") => None,
            _ => return Err("--alert-webhook: the URL has to begin with http:// or https://".into()),
        };
        let host = authority.host().trim_start_matches('[').trim_end_matches(']').to_owned();
        let port = authority.port_u16().unwrap_or(if tls.is_some() { 443 } else { 80 });
        Ok(Webhook { host, port, tls, bearer: token.map(bearer).transpose()?, uri })
    }

    /// Host and port: what may be shown of the URL.
    fn shown(&self) -> String {
        format!("{}:{}", self.host, self.port)
    }

    /// One attempt.
    async fn post(&self, body: Bytes) -> Result<StatusCode, String> {
        let stream = TcpStream::connect((self.host.as_str(), self.port)).await;
        let stream = stream.map_err(|error| format!("cannot connect: {error}"))?;
        let Some(tls) = &self.tls else { return self.spoken(stream, body).await };
        let name = ServerName::try_from(self.host.clone()).map_err(|error| error.to_string())?;
        let stream = TlsConnector::from(tls.clone()).connect(name, stream).await;
        self.spoken(stream.map_err(|error| format!("TLS: {error}"))?, body).await
    }

    async fn spoken<S>(&self, stream: S, body: Bytes) -> Result<StatusCode, String>
    where
        S: AsyncRead + AsyncWrite + Send + Unpin + 'static,
    {
        let shaken = http1::handshake::<_, Full<Bytes>>(TokioIo::new(stream)).await;
        let (mut sender, connection) = shaken.map_err(|error| error.to_string())?;
        let path = self.uri.path_and_query().map_or("/", |path| path.as_str());
        let mut request = Request::builder()
            .method(Method::POST)
            .uri(path)
            .header(HOST, self.uri.authority().map_or("", |authority| authority.as_str()))
            .header(USER_AGENT, concat!("pilotfish/", env!("CARGO_PKG_VERSION")))
            .header(CONTENT_TYPE, "application/json");
        if let Some(bearer) = &self.bearer {
            request = request.header(AUTHORIZATION, bearer);
        }
        let request = request.body(Full::new(body)).map_err(|error| error.to_string())?;
        // It ends with the answer's head: nobody reads the rest. Not beside the question in one `select!`, since a
        // receiver may answer and close at once.
        let connection = Ended(tokio::spawn(connection));
        let answered = sender.send_request(request).await;
        drop(connection);
        answered.map(|answer| answer.status()).map_err(|error| error.to_string())
    }
}

/// A connection that ends when nobody waits for its answer any more.
#[derive(Debug)]
struct Ended<T>(tokio::task::JoinHandle<T>);

impl<T> Drop for Ended<T> {
    fn drop(&mut self) {
        self.0.abort();
    }
}

/// The token in a file. It is never printed.
fn bearer(file: &Path) -> Result<HeaderValue, String> {
    let flag = format!("--alert-webhook-token-file {}", file.display());
    let text = std::fs::read_to_string(file).map_err(|error| format!("{flag}: {error}"))?;
    let token = text.trim();
    if token.is_empty() || token.len() > 4096 || !token.bytes().all(|byte| byte.is_ascii_graphic()) {
        return Err(format!("{flag}: it is empty or has characters that no token has"));
    }
    let value = HeaderValue::from_str(&format!("Bearer {token}"));
    let mut value = value.map_err(|_| format!("{flag}: it has characters that no token has"))?;
    value.set_sensitive(true);
    Ok(value)
}

fn tls(ca: Option<&Path>) -> Result<Arc<ClientConfig>, String> {
    let path = ca.unwrap_or(Path::new(SYSTEM_ROOTS));
    let about = |error: String| format!("--alert-webhook: the authorities {}: {error}", path.display());
    let text = std::fs::read(path).map_err(|error| about(error.to_string()))?;
    let mut roots = RootCertStore::empty();
    roots.add_parsable_certificates(CertificateDer::pem_slice_iter(&text).flatten());
    if roots.is_empty() {
        return Err(about("there is no certificate in it".into()));
    }
    let config = ClientConfig::builder_with_provider(provider()).with_safe_default_protocol_versions();
    let config = config.map_err(|error| about(error.to_string()))?;
    Ok(Arc::new(config.with_root_certificates(roots).with_no_client_auth()))
}

impl Outbox {
    /// Empty; `page` is what alerts link to.
    pub fn new(page: Option<String>) -> Outbox {
        Outbox { waiting: Mutex::default(), wake: Notify::new(), page: page.unwrap_or_default() }
    }

    /// Has these told; a newer word takes the place of an older one.
    pub fn put(&self, turns: Vec<Turn>) {
        if turns.is_empty() {
            return;
        }
        let mut waiting = self.lock();
        let mut count: usize = waiting.values().map(BTreeMap::len).sum();
        for turn in turns {
            let (Turn::Fires(alert) | Turn::StillFires(alert) | Turn::Resolved(alert)) = turn;
            if count >= MOST_WAITING {
                log::warn!("an alert is not told: too many wait for the webhook", rule = alert.rule.name);
                continue;
            }
            let rule = waiting.entry(alert.rule.name.to_string()).or_default();
            count += usize::from(rule.insert(alert.agent.clone(), alert).is_none());
        }
        drop(waiting);
        self.wake.notify_one();
    }

    /// Alerts of one rule.
    fn take(&self) -> Option<Vec<Alert>> {
        let mut waiting = self.lock();
        let (rule, mut alerts) = waiting.pop_first()?;
        if alerts.len() > MOST_TOLD {
            let rest = alerts.keys().nth(MOST_TOLD).cloned().map(|from| alerts.split_off(&from));
            waiting.insert(rule, rest.unwrap_or_default());
        }
        Some(alerts.into_values().collect())
    }

    /// They could not be told; what is newer stays.
    fn put_back(&self, alerts: Vec<Alert>) {
        let mut waiting = self.lock();
        for alert in alerts {
            let rule = waiting.entry(alert.rule.name.to_string()).or_default();
            rule.entry(alert.agent.clone()).or_insert(alert);
        }
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<String, BTreeMap<String, Alert>>> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Empties the box until the task is aborted.
pub(super) async fn run(webhook: Webhook, outbox: Arc<Outbox>) {
    let mut pause = FIRST_PAUSE;
    loop {
        let Some(alerts) = outbox.take() else {
            outbox.wake.notified().await;
            continue;
        };
        let body = match serde_json::to_vec(&Message::of(&alerts, &outbox.page)) {
            Ok(body) => Bytes::from(body),
            Err(error) => {
                log::error!("an alert cannot be written", why = error);
                continue;
            }
        };
        let answered = tokio::time::timeout(ATTEMPT, webhook.post(body)).await;
        let why = match answered.unwrap_or_else(|_| Err("no answer within 10 s".into())) {
            Ok(status) if status.is_success() => {
                pause = FIRST_PAUSE;
                continue;
            }
            Ok(status) if is_refused(status) => {
                let count = alerts.len();
                log::error!(
                    "the webhook refuses alerts",
                    at = webhook.shown(),
                    status = status,
                    alerts = count
                );
                continue;
            }
            Ok(status) => status.to_string(),
            Err(why) => why,
        };
        log::warn!(
            "the webhook is not told yet",
            at = webhook.shown(),
            why = why,
            again_in_s = pause.as_secs()
        );
        outbox.put_back(alerts);
        tokio::time::sleep(pause).await;
        pause = (pause * 2).min(LONGEST_PAUSE);
    }
}

/// Whether the same again would be refused again; a redirect is, because it is not followed.
fn is_refused(status: StatusCode) -> bool {
    let later = [StatusCode::REQUEST_TIMEOUT, StatusCode::TOO_MANY_REQUESTS];
    (status.is_client_error() || status.is_redirection()) && !later.contains(&status)
}

/// What Alertmanager sends to a webhook, version 4.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Message<'a> {
    version: &'static str,
    group_key: String,
    truncated_alerts: u32,
    status: &'static str,
    receiver: &'static str,
    group_labels: BTreeMap<String, String>,
    common_labels: BTreeMap<String, String>,
    common_annotations: BTreeMap<String, String>,
    #[serde(rename = "externalURL")]
    external_url: &'a str,
    alerts: Vec<Told<'a>>,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Told<'a> {
    status: &'static str,
    labels: BTreeMap<String, String>,
    annotations: BTreeMap<String, String>,
    starts_at: String,
    ends_at: String,
    #[serde(rename = "generatorURL")]
    generator_url: &'a str,
    fingerprint: String,
}

impl<'a> Message<'a> {
    /// Of alerts of one rule.
    fn of(alerts: &[Alert], page: &'a str) -> Message<'a> {
        let told: Vec<Told<'a>> = alerts.iter().map(|alert| Told::of(alert, page)).collect();
        let name = alerts.first().map_or("", |alert| alert.rule.rule.meta.name());
        let firing = alerts.iter().any(|alert| alert.state == State::Firing);
        Message {
            version: "4",
            group_key: format!("{{}}:{{alertname={name:?}}}"),
            truncated_alerts: 0,
            status: if firing { "firing" } else { "resolved" },
            receiver: "pilotfish",
            group_labels: [("alertname".to_owned(), name.to_owned())].into(),
            common_labels: common(told.iter().map(|told| &told.labels)),
            common_annotations: common(told.iter().map(|told| &told.annotations)),
            external_url: page,
            alerts: told,
        }
    }
}

impl<'a> Told<'a> {
    fn of(alert: &Alert, page: &'a str) -> Told<'a> {
        let labels = alert.labels();
        let resolved = alert.state == State::Resolved;
        Told {
            status: if resolved { "resolved" } else { "firing" },
            annotations: alert.annotations(),
            starts_at: moment(alert.began),
            // Go's zero time: it has no end yet.
            ends_at: if resolved { moment(alert.since) } else { "0001-01-01T00:00:00Z".into() },
            generator_url: page,
            fingerprint: fingerprint(&labels),
            labels,
        }
    }
}

/// What all have.
fn common<'m>(mut maps: impl Iterator<Item = &'m BTreeMap<String, String>>) -> BTreeMap<String, String> {
    let mut common = maps.next().cloned().unwrap_or_default();
    for map in maps {
        common.retain(|name, value| map.get(name) == Some(value));
    }
    common
}

/// Sixteen hexadecimal digits that are the same for the same labels: Alertmanager's own, FNV-1a over names and values.
fn fingerprint(labels: &BTreeMap<String, String>) -> String {
    let mut hash = 0xcbf2_9ce4_8422_2325_u64;
    let mut take = |byte: u8| hash = (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3);
    for text in labels.iter().flat_map(|(name, value)| [name, value]) {
        text.bytes().for_each(&mut take);
        take(0xff);
    }
    format!("{hash:016x}")
}

/// RFC 3339 of milliseconds since 1970.
fn moment(at: u64) -> String {
    let moment = OffsetDateTime::from_unix_timestamp_nanos(i128::from(at) * 1_000_000).ok();
    moment.and_then(|moment| moment.format(&Rfc3339).ok()).unwrap_or_default()
}

#[cfg(test)]
mod tests;
