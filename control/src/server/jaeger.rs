//! Jaeger's query API (v1), for its page and for Grafana: on a loopback port of its own, to those who show a token.
//!
//! Every program of this machine reaches the port, and what traces tell is not for every program. So each request needs
//! `Authorization: Bearer`: the token of `--jaeger-token-file`, which reads traces and nothing else, or an
//! administrator's. The page's port serves the same to a session.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use http::header::{HOST, ORIGIN};
use http::request::Parts;
use http::{HeaderValue, Method, Request, StatusCode};
use hyper::body::Incoming;
use serde::Serialize;

use super::Control;
use super::answer::{Answer, Denied, typed};
use super::auth;
use super::handle::traces::reading;
use super::route::pairs;
use crate::traces::jaeger::{self, Operation};
use crate::traces::store::{Search, TraceStore};
use pilotfish_filters::trace::TraceId;

/// Traces of a search when nobody says how many, and at most.
const LIMIT: usize = 20;
const MOST: usize = 200;
/// Spans of all traces of a search together; there it ends.
const SPANS: usize = 50_000;

/// Whether a path is one of this API.
pub(super) fn is(path: &str) -> bool {
    path.starts_with("/api/")
}

/// Answers a request of the own listener.
pub(super) async fn answer(control: Arc<Control>, from: SocketAddr, request: Request<Incoming>) -> Answer {
    let (head, _) = request.into_parts();
    match admitted(&control, from, &head).await {
        Ok(()) => ask(&control, &head).await,
        Err(denied) => told(&denied),
    }
}

/// Whether a request may read: it shows a token, and no page of a browser sent it.
async fn admitted(control: &Control, from: SocketAddr, head: &Parts) -> Result<(), Denied> {
    // A rebound DNS name would come with its own name.
    let host = head.headers.get(HOST).and_then(|host| host.to_str().ok()).unwrap_or_default();
    let name = host.rsplit_once(':').map_or(host, |(name, _)| name);
    let own = name == "localhost"
        || name.trim_matches(['[', ']']).parse().is_ok_and(|ip: std::net::IpAddr| ip.is_loopback());
    if !own && !name.is_empty() {
        return Err(Denied::new(
            StatusCode::MISDIRECTED_REQUEST,
            "the host must be a loopback address or localhost",
        ));
    }
    if head.headers.contains_key(ORIGIN) {
        return Err(Denied::forbidden("requests of browsers' pages are not answered"));
    }
    let token = auth::bearer(&head.headers);
    if let (Some(wanted), Some(token)) = (&control.jaeger_token, token) {
        control.guard.may_try(from.ip())?;
        if wanted.is(token) {
            return Ok(());
        }
    }
    match control.by_token(from, &head.headers).await {
        Ok(_) => Ok(()),
        Err(denied) if denied.status() == StatusCode::UNAUTHORIZED => Err(Denied::unproven(
            "send `Authorization: Bearer TOKEN`, the token of --jaeger-token-file or an administrator's; in Grafana \
             under HTTP headers of the data source",
        )),
        Err(denied) => Err(denied),
    }
}

/// Answers a request of one who may read.
pub(super) async fn ask(control: &Control, head: &Parts) -> Answer {
    if head.method != Method::GET {
        return told(&Denied::method("GET"));
    }
    answered(control.traces.clone(), head).await.unwrap_or_else(|denied| told(&denied))
}

async fn answered(traces: Arc<TraceStore>, head: &Parts) -> Result<Answer, Denied> {
    let query = pairs(head.uri.query())?;
    let get = |name: &str| {
        let found = query.iter().find(|(key, _)| key == name);
        found.map(|(_, value)| value.as_str()).filter(|value| !value.is_empty())
    };
    let path = head.uri.path().strip_prefix("/api/").unwrap_or_default();
    if let Some(service) = path.strip_prefix("services/").and_then(|rest| rest.strip_suffix("/operations")) {
        let service =
            super::route::decode(service, false).ok_or_else(|| Denied::bad("bad escape in the path"))?;
        let names = traces.operations(&service);
        return json(&jaeger::wrapped(&names, names.len()));
    }
    if let Some(id) = path.strip_prefix("traces/") {
        let id = id_of(id)?;
        let data = reading(traces, move |traces| traces.otlp(id)).await?;
        let data = data.ok_or_else(|| Denied::not_found("trace not found"))?;
        return json(&jaeger::wrapped([jaeger::trace(id, &data)], 0));
    }
    match path {
        "services" => {
            let names = traces.services();
            json(&jaeger::wrapped(&names, names.len()))
        }
        "operations" => {
            let service = get("service").ok_or_else(|| Denied::bad("parameter 'service' is required"))?;
            let names = traces.operations(service).into_iter();
            let all: Vec<Operation> = names.map(|name| Operation { name, kind: "" }).collect();
            json(&jaeger::wrapped(&all, all.len()))
        }
        "traces" => {
            let ids = query.iter().filter(|(key, _)| key == "traceID").map(|(_, id)| id_of(id));
            let ids = ids.take(MOST).collect::<Result<Vec<_>, _>>()?;
            let search = wanted(&query, SystemTime::now())?;
            let found = reading(traces, move |traces| found(traces, ids, &search)).await?;
            json(&jaeger::wrapped(found, 0))
        }
        // The page shows who calls whom, from what sidecars count.
        "dependencies" => json(&jaeger::wrapped([(); 0], 0)),
        _ => Err(Denied::not_found("there is no such path; Jaeger's query API is under /api/")),
    }
}

fn found(traces: &TraceStore, ids: Vec<TraceId>, search: &Search) -> std::io::Result<Vec<jaeger::Trace>> {
    let ids = if ids.is_empty() {
        traces.search(search)?.iter().filter_map(|summary| TraceId::parse(&summary.trace)).collect()
    } else {
        ids
    };
    let (mut found, mut spans) = (Vec::new(), 0);
    for id in ids {
        let Some(data) = traces.otlp(id)? else { continue };
        let trace = jaeger::trace(id, &data);
        spans += trace.len();
        found.push(trace);
        if spans > SPANS {
            break;
        }
    }
    Ok(found)
}

/// Jaeger leaves zeros at the beginning out.
fn id_of(text: &str) -> Result<TraceId, Denied> {
    let padded = format!("{text:0>32}");
    TraceId::parse(&padded)
        .ok_or_else(|| Denied::bad("a trace id has up to 32 hexadecimal digits, not all zero"))
}

/// What a query asks for. Jaeger ignores what it does not know, so this does too.
fn wanted(query: &[(String, String)], now: SystemTime) -> Result<Search, Denied> {
    let get = |name: &str| {
        let found = query.iter().find(|(key, _)| key == name);
        found.map(|(_, value)| value.as_str()).filter(|value| !value.is_empty())
    };
    let number = |name: &str| match get(name) {
        None => Ok(None),
        Some(text) => text
            .parse::<u64>()
            .map(Some)
            .map_err(|_| Denied::bad(format!("parameter '{name}' is no whole number"))),
    };
    let duration = |name: &str| match get(name) {
        None => Ok(None),
        Some(text) => pilotfish_config::units::duration(text)
            .map(|duration| Some(nanos(duration)))
            .map_err(|why| Denied::bad(format!("parameter '{name}': {why}"))),
    };
    let mut attributes: Vec<(String, String)> = Vec::new();
    if let Some(tags) = get("tags") {
        let tags: std::collections::BTreeMap<String, String> =
            serde_json::from_str(tags).map_err(|error| {
                Denied::bad(format!("parameter 'tags' is no JSON of names and texts: {error}"))
            })?;
        attributes.extend(tags);
    }
    for (_, tag) in query.iter().filter(|(key, _)| key == "tag") {
        let pair = tag.split_once(':').ok_or_else(|| Denied::bad("parameter 'tag' is not `name:value`"))?;
        attributes.push((pair.0.into(), pair.1.into()));
    }
    let mut error = None;
    attributes.retain(|(key, value)| {
        match (key.as_str(), value.as_str()) {
            ("error", "true") => error = Some(true),
            ("error", "false") => error = Some(false),
            _ => return true,
        }
        false
    });
    let micros = |value: Option<u64>| value.map(|micros| micros.saturating_mul(1_000));
    let lookback = get("lookback")
        .and_then(|text| pilotfish_config::units::duration(text).ok())
        .map(|back| nanos(now.duration_since(UNIX_EPOCH).unwrap_or_default().saturating_sub(back)));
    let limit = number("limit")?.map_or(LIMIT, |limit| usize::try_from(limit).unwrap_or(MOST));
    Ok(Search {
        agent: get("service").map(str::to_owned),
        operation: get("operation").filter(|name| *name != "all").map(str::to_owned),
        attributes,
        error,
        min_duration: duration("minDuration")?,
        max_duration: duration("maxDuration")?,
        since: micros(number("start")?).or(lookback),
        until: micros(number("end")?),
        limit: limit.clamp(1, MOST),
        ..Search::default()
    })
}

fn nanos(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}

fn json<T: Serialize>(value: &T) -> Result<Answer, Denied> {
    super::answer::json(value)
}

/// A refusal in Jaeger's words.
fn told(denied: &Denied) -> Answer {
    let body =
        serde_json::to_vec(&jaeger::failed(denied.status().as_u16(), denied.why())).unwrap_or_default();
    let mut answer = typed(denied.status(), "application/json", body);
    if denied.status() == StatusCode::UNAUTHORIZED {
        answer.headers_mut().insert(http::header::WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
    }
    answer
}
