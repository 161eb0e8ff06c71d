//! Traces: what sidecars send, searches, one trace.

use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use http::request::Parts;
use hyper::body::Incoming;
use pilotfish_filters::trace::TraceId;
use pilotfish_identity::Peer as Identified;
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;
use tokio::sync::Semaphore;

use super::Asked;
use crate::server::Control;
use crate::server::answer::{Answer, Denied, json};
use crate::server::connection::Activity;
use crate::server::otlp;
use crate::server::route::Query;
use crate::traces::batch::Speaker;
use crate::traces::store::{Search, TraceStore};

/// Traces that a list has when nobody says how many, and at most.
const LIMIT: u64 = 20;
const MOST: u64 = 1_000;

/// Takes spans of a sidecar; they are its agent's, whatever they say.
pub(super) async fn take(
    control: &Control,
    peer: &Identified,
    head: &Parts,
    incoming: Incoming,
    activity: &Activity,
) -> Result<Answer, Denied> {
    let Some((namespace, agent)) = peer.id.as_agent() else {
        return Err(Denied::forbidden("spans are taken from sidecars: this certificate is no agent's"));
    };
    let speaker = Speaker { namespace: namespace.into(), agent: agent.into() };
    otlp::take(control, &control.otlp.sidecars, Some(&speaker), head, incoming, activity).await
}

/// Traces that a search finds.
pub(super) async fn search(control: &Control, asked: &Asked) -> Result<Answer, Denied> {
    let query = asked.query(&[
        "agent",
        "operation",
        "min-duration",
        "max-duration",
        "error",
        "since",
        "until",
        "workflow",
        "attribute",
        "limit",
    ])?;
    let search = wanted(&query, SystemTime::now())?;
    json(&reading(control.traces.clone(), move |traces| traces.search(&search)).await?)
}

/// Digits of an id with which a trace may be asked for.
const DIGITS: usize = 6;

/// One trace as OTLP JSON (a `TracesData`), by its id or the first digits of it.
pub(super) async fn one(control: &Control, asked: &Asked) -> Result<Answer, Denied> {
    asked.query(&[])?;
    let text = asked.segment(0).to_ascii_lowercase();
    let is_part = (DIGITS..32).contains(&text.len()) && text.bytes().all(|byte| byte.is_ascii_hexdigit());
    let id = if is_part { whole(control, text).await? } else { id(&text)? };
    match reading(control.traces.clone(), move |traces| traces.otlp(id)).await? {
        Some(data) => json(&data),
        None => Err(unknown(id)),
    }
}

/// The one trace whose id begins with some digits.
async fn whole(control: &Control, digits: String) -> Result<TraceId, Denied> {
    let asked = digits.clone();
    let found = reading(control.traces.clone(), move |traces| Ok(traces.beginning_with(&asked))).await?;
    match found[..] {
        [id] => Ok(id),
        [] => Err(Denied::not_found(format!("no trace is known here whose id begins with {digits}"))),
        _ => Err(Denied::bad(format!("several traces begin with {digits}; give more digits of the id"))),
    }
}

/// A trace's id, as 32 hexadecimal digits.
pub(in crate::server) fn id(text: &str) -> Result<TraceId, Denied> {
    TraceId::parse(text).ok_or_else(|| Denied::bad("a trace id has 32 hexadecimal digits, not all zero"))
}

/// There is no such trace.
pub(in crate::server) fn unknown(id: TraceId) -> Denied {
    Denied::not_found(format!(
        "no trace {id} is known here: it was not sampled, is too old, or is still on its way"
    ))
}

/// Reads of the store at a time: the others wait, so that none takes the machine.
static READERS: Semaphore = Semaphore::const_new(4);

/// Reads the store off the threads that serve.
pub(in crate::server) async fn reading<T: Send + 'static>(
    traces: Arc<TraceStore>,
    read: impl FnOnce(&TraceStore) -> std::io::Result<T> + Send + 'static,
) -> Result<T, Denied> {
    let _place = READERS.acquire().await;
    let done = tokio::task::spawn_blocking(move || read(&traces)).await;
    let done = done.map_err(|_| Denied::failed("the trace store could not be read"))?;
    done.map_err(|error| match error.kind() {
        std::io::ErrorKind::TimedOut => Denied::unavailable(
            "too many traces have to be read for this search; narrow it by agent, time or duration",
        ),
        _ => Denied::failed(format!("the trace store cannot be read: {error}")),
    })
}

/// What a query asks for.
fn wanted(query: &Query, now: SystemTime) -> Result<Search, Denied> {
    let text = |name: &str| query.get(name).map(str::to_owned);
    let attribute = query.get("attribute").map(|pair| {
        let (key, value) = pair.split_once(':').or_else(|| pair.split_once('=')).unwrap_or((pair, ""));
        if key.is_empty() || value.is_empty() {
            return Err(Denied::bad("parameter `attribute` is not `name:value`"));
        }
        Ok((key.to_owned(), value.to_owned()))
    });
    let error = match query.get("error") {
        None => None,
        Some("true") => Some(true),
        Some("false") => Some(false),
        Some(_) => return Err(Denied::bad("parameter `error` is neither `true` nor `false`")),
    };
    let limit = query.number("limit", LIMIT)?;
    if limit == 0 || limit > MOST {
        return Err(Denied::bad(format!("parameter `limit` is not between 1 and {MOST}")));
    }
    Ok(Search {
        agent: text("agent"),
        operation: text("operation"),
        attributes: attribute.transpose()?.into_iter().collect(),
        workflow: text("workflow"),
        error,
        min_duration: duration(query, "min-duration")?,
        max_duration: duration(query, "max-duration")?,
        since: moment(query, "since", now)?,
        until: moment(query, "until", now)?,
        limit: usize::try_from(limit).unwrap_or(usize::MAX),
    })
}

fn nanos(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}

fn duration(query: &Query, name: &str) -> Result<Option<u64>, Denied> {
    let Some(text) = query.get(name) else { return Ok(None) };
    let duration = pilotfish_config::units::duration(text);
    duration
        .map(|duration| Some(nanos(duration)))
        .map_err(|why| Denied::bad(format!("parameter `{name}`: {why}")))
}

/// A moment: how long ago (`1h`), or a time (RFC 3339), as nanoseconds since 1970.
pub(super) fn moment(query: &Query, name: &str, now: SystemTime) -> Result<Option<u64>, Denied> {
    let Some(text) = query.get(name) else { return Ok(None) };
    if let Ok(ago) = pilotfish_config::units::duration(text) {
        return Ok(Some(nanos(now.duration_since(UNIX_EPOCH).unwrap_or_default().saturating_sub(ago))));
    }
    let at = OffsetDateTime::parse(text, &Rfc3339).map_err(|_| {
        Denied::bad(format!(
            "parameter `{name}` is neither how long ago (`1h`) nor a time (`2026-11-21T18:00:00Z`)"
        ))
    })?;
    Ok(Some(u64::try_from(at.unix_timestamp_nanos()).unwrap_or(0)))
}
