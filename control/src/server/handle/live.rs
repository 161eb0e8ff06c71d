//! What sidecars are asked while somebody waits: live calls, and why one went as it did.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::StatusCode;
use http_body_util::BodyExt;
use pilotfish_config::wire::{MOST_ACCOUNTS, MOST_TAPPED, MOST_TAPS, Tap, Why};
use pilotfish_filters::expression::Expression;
use pilotfish_filters::trace::TraceId;
use tokio::sync::mpsc;
use tokio::time::{MissedTickBehavior, interval};

use super::Asked;
use crate::api::live::{TapLine, TapNote};
use crate::fleet::{Looking, Which};
use crate::server::Control;
use crate::server::answer::{Answer, Denied, json, typed};
use crate::server::body::Pieces;

/// Calls that a tap shows within a second, of each sidecar, unless it asks for another rate.
const RATE: u64 = 100;
/// How often the reader is told how it goes, if that changed, ...
const NOTE_EVERY: Duration = Duration::from_secs(1);
/// ... and after how many of these in any case: so a reader that is gone is noticed, and one that is there knows that it is.
const NOTES_OF_SILENCE: u32 = 10;
/// Lines that travel together, bytes.
const BATCH: usize = 64 << 10;
/// The longest id of a request that is looked for.
const LONGEST_ID: usize = 256;

/// What sidecars remember of calls.
pub(super) async fn why(control: &Control, asked: &Asked) -> Result<Answer, Denied> {
    let query = asked.query(&["request", "trace", "last", "agent"])?;
    let which = which(query.get("agent"))?;
    let mut why = Why {
        request: query.get("request").map(str::to_owned),
        trace: query.get("trace").map(str::to_ascii_lowercase),
        ..Why::default()
    };
    if query.get("last").is_some() {
        let most = query.number("last", 0)?.min(MOST_ACCOUNTS as u64);
        why.last = Some(u32::try_from(most).unwrap_or(u32::MAX));
    }
    let given = [why.request.is_some(), why.trace.is_some(), why.last.is_some()];
    if given.iter().filter(|given| **given).count() != 1 {
        return Err(Denied::bad("one of request=ID, trace=ID and last=N is needed"));
    }
    if why.request.as_ref().is_some_and(|id| id.len() > LONGEST_ID) {
        return Err(Denied::bad(format!("a request's id has at most {LONGEST_ID} bytes")));
    }
    if why.trace.as_deref().is_some_and(|id| TraceId::parse(id).is_none()) {
        return Err(Denied::bad("a trace has 32 hexadecimal digits, not all 0"));
    }
    let accounts = control.fleet.why(&which, &why).await;
    json(&accounts.ok_or_else(|| Denied::unavailable("too many questions at a time; ask again"))?)
}

/// Live calls, one JSON object a line.
pub(super) async fn tap(control: &Arc<Control>, asked: &Asked) -> Result<Answer, Denied> {
    let query = asked.query(&["agent", "capability", "status", "match", "rate"])?;
    let which = which(query.get("agent"))?;
    if let Some(text) = query.get("status")
        && !is_status(text)
    {
        return Err(Denied::bad(format!(
            "status: `{}` is neither a status (503) nor a class of them (5xx)",
            text.escape_debug()
        )));
    }
    if let Some(text) = query.get("match") {
        let expression = Expression::compile(text).map_err(|error| Denied::bad(format!("match: {error}")))?;
        if let Some(header) = expression.headers().first() {
            let why = format!(
                "match: a tap does not know headers (`{header}`); ask for what the call was: call.agent, response.code"
            );
            return Err(Denied::bad(why));
        }
    }
    let rate = query.number("rate", RATE)?;
    if !(1..=MOST_TAPPED as u64).contains(&rate) {
        return Err(Denied::bad(format!("rate: 1 to {MOST_TAPPED} calls a second of each sidecar")));
    }
    let tap = Tap {
        id: 0,
        capability: query.get("capability").map(str::to_owned),
        status: query.get("status").map(str::to_ascii_lowercase),
        matching: query.get("match").map(str::to_owned),
        rate: u32::try_from(rate).unwrap_or(u32::MAX),
    };
    let looking = control.fleet.tap(which, tap).ok_or_else(|| {
        let why = format!("{MOST_TAPS} taps are open, as many as there may be; end one of them");
        Denied::new(StatusCode::TOO_MANY_REQUESTS, why)
    })?;
    asked.wrote("tap", None);
    let (lines, body) = mpsc::channel(1);
    tokio::spawn(tell(control.clone(), looking, lines));
    let body = Pieces::of(body, &asked.activity).boxed_unsync();
    let head = typed(StatusCode::OK, "application/x-ndjson", "").into_parts().0;
    Ok(http::Response::from_parts(head, body))
}

fn which(agents: Option<&str>) -> Result<Which, Denied> {
    Which::parse(agents.unwrap_or_default()).map_err(|why| Denied::bad(format!("agent: {why}")))
}

/// `503`, `5xx`; `0` is for callers that left first.
fn is_status(text: &str) -> bool {
    match text.to_ascii_lowercase().as_bytes() {
        [b'0'] => true,
        [b'1'..=b'5', b'x', b'x'] => true,
        [b'1'..=b'9', rest @ ..] => rest.len() == 2 && rest.iter().all(u8::is_ascii_digit),
        _ => false,
    }
}

/// Writes lines until the reader is gone or the process is about to end. A reader that is slow loses calls, and is told.
async fn tell(control: Arc<Control>, mut looking: Looking, lines: mpsc::Sender<Bytes>) {
    let mut closing = control.closing.subscribe();
    let mut ticks = interval(NOTE_EVERY);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let (mut told, mut silent): (Option<TapNote>, u32) = (None, 0);
    loop {
        let mut batch = Vec::new();
        tokio::select! {
            biased;
            _ = closing.wait_for(|closing| *closing) => return,
            () = lines.closed() => return,
            _ = ticks.tick() => {
                let note = looking.note();
                silent += 1;
                if told != Some(note) || silent >= NOTES_OF_SILENCE {
                    write(&mut batch, &TapLine::Note { note });
                    (told, silent) = (Some(note), 0);
                }
            }
            call = looking.next() => {
                let Some(call) = call else { return };
                silent = 0;
                write(&mut batch, &TapLine::Call(Box::new(call)));
                while batch.len() < BATCH && let Some(call) = looking.ready() {
                    write(&mut batch, &TapLine::Call(Box::new(call)));
                }
            }
        }
        if batch.is_empty() {
            continue;
        }
        tokio::select! {
            biased;
            _ = closing.wait_for(|closing| *closing) => return,
            sent = lines.send(batch.into()) => if sent.is_err() { return },
        }
    }
}

fn write(batch: &mut Vec<u8>, line: &TapLine) {
    if serde_json::to_writer(&mut *batch, line).is_ok() {
        batch.push(b'\n');
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_status_is_a_number_or_a_class() {
        for good in ["200", "503", "5xx", "4XX", "0"] {
            assert!(is_status(good), "{good}");
        }
        for bad in ["", "20", "6xx", "xxx", "2000", "50x", "-1", "٥xx", "5xx "] {
            assert!(!is_status(bad), "{bad}");
        }
    }
}
