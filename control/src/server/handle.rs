//! One request: its row, its caller, its body, its answer; and a line in the log for each write.

use std::sync::Arc;

use bytes::Bytes;
use http::{Request, StatusCode};
use hyper::body::Incoming;

use super::Control;
use super::answer::{Answer, Denied, json};
use super::auth::{Caller, Peer};
use super::body;
use super::connection::Activity;
use super::route::{self, Asks, Query};
use crate::api::types::Version;
use pilotfish_config::wire;

/// What a handler may look at.
#[derive(Debug)]
struct Asked {
    asks: Asks,
    caller: Caller,
    /// The segments that stand for `{}` in the row.
    segments: Vec<String>,
    query: Option<String>,
    body: Bytes,
    activity: Arc<Activity>,
}

impl Asked {
    fn query(&self, known: &[&str]) -> Result<Query, Denied> {
        Query::read(self.query.as_deref(), known)
    }
}

/// Answers one request of the API.
pub(super) async fn answer(
    control: Arc<Control>,
    peer: Peer,
    request: Request<Incoming>,
    activity: Arc<Activity>,
) -> Answer {
    match admitted(&control, &peer, request, activity).await {
        Ok(answer) => answer,
        Err(denied) => denied.answer(),
    }
}

async fn admitted(
    control: &Arc<Control>,
    peer: &Peer,
    request: Request<Incoming>,
    activity: Arc<Activity>,
) -> Result<Answer, Denied> {
    let (head, incoming) = request.into_parts();
    let (route, segments) = route::find(&head.method, head.uri.path())?;
    let caller = control.admit(route.needs, peer, &head.headers).await?;
    let body = body::read(incoming, route.longest, &activity).await?;
    let query = head.uri.query().map(str::to_owned);
    let asked = Asked { asks: route.asks, caller, segments, query, body, activity };
    dispatch(control, asked).await
}

async fn dispatch(control: &Arc<Control>, asked: Asked) -> Result<Answer, Denied> {
    match asked.asks {
        Asks::Version => {
            asked.query(&[])?;
            json(&Version {
                build: env!("CARGO_PKG_VERSION").into(),
                wire: format!("{}.{}", wire::MAJOR, wire::MINOR),
                documents: 0,
                control: control.id.clone(),
                trust_domain: control.trust_domain.to_string(),
            })
        }
        _ => Err(Denied::new(StatusCode::NOT_IMPLEMENTED, "not in this build yet")),
    }
}
