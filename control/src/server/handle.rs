//! One request: its row, its caller, its body, its answer; and a line in the log for each write.

mod actions;
mod alerts;
mod analysis;
mod audit;
mod authz;
mod documents;
mod fleet;
mod graph;
mod identity;
mod live;
mod placement;
pub(super) mod traces;

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Instant;

use bytes::Bytes;
use http::Request;
use http::request::Parts;
use hyper::body::Incoming;
use pilotfish_config::wire;

use super::Control;
use super::answer::{Answer, Denied, json};
use super::auth::{Caller, Peer};
use super::body;
use super::connection::Activity;
use super::route::{self, Asks, Query, Route};
use super::{node_stream, stream};
use crate::api::types::{Done, Link, Version};
use crate::log;

/// What a handler may look at.
#[derive(Debug)]
struct Asked {
    /// From where, on the network.
    from: Option<SocketAddr>,
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

    fn segment(&self, index: usize) -> &str {
        self.segments.get(index).map_or("", String::as_str)
    }

    /// The line in the log that every write leaves.
    fn wrote(&self, what: &str, version: Option<u64>) {
        match version {
            Some(version) => {
                log::info!("administration", who = self.caller.name(), did = what, version = version)
            }
            None => log::info!("administration", who = self.caller.name(), did = what),
        }
    }
}

/// Answers one request of the API.
pub(super) async fn answer(
    control: Arc<Control>,
    peer: Peer,
    request: Request<Incoming>,
    activity: Arc<Activity>,
) -> Answer {
    let answered = admitted(&control, &peer, request, activity).await.unwrap_or_else(Denied::answer);
    control.metrics.answered(answered.status());
    answered
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
    perform(control, Admitted { route, segments, caller, from: peer.address(), head }, incoming, activity)
        .await
}

/// A request that may be made.
#[derive(Debug)]
pub(super) struct Admitted {
    pub(super) route: &'static Route,
    pub(super) segments: Vec<String>,
    pub(super) caller: Caller,
    pub(super) from: Option<SocketAddr>,
    pub(super) head: Parts,
}

/// Does what a row says.
pub(super) async fn perform(
    control: &Arc<Control>,
    admitted: Admitted,
    incoming: Incoming,
    activity: Arc<Activity>,
) -> Result<Answer, Denied> {
    let Admitted { route, segments, caller, from, head } = admitted;
    if let (Asks::Stream, Caller::Sidecar(peer)) = (route.asks, &caller) {
        return stream::open(control, peer, &head, incoming, &activity);
    }
    if let (Asks::NodeStream, Caller::Sidecar(peer)) = (route.asks, &caller) {
        return node_stream::open(control, peer, &head, incoming, &activity);
    }
    if let (Asks::Spans, Caller::Sidecar(peer)) = (route.asks, &caller) {
        return traces::take(control, peer, &head, incoming, &activity).await;
    }
    let body = body::read(incoming, route.longest, &activity).await?;
    let asked = Asked { from, caller, segments, query: head.uri.query().map(str::to_owned), body, activity };
    dispatch(control, route.asks, &asked).await
}

async fn dispatch(control: &Arc<Control>, asks: Asks, asked: &Asked) -> Result<Answer, Denied> {
    match asks {
        Asks::Version => version(control, asked),
        Asks::Apply => documents::apply(control, asked).await,
        Asks::Diff => documents::diff(control, asked).await,
        Asks::Resources => documents::list(control, asked),
        Asks::Delete => documents::delete(control, asked).await,
        Asks::History => documents::history(control, asked).await,
        Asks::Rollback => documents::rollback(control, asked).await,
        Asks::Backup => documents::backup(control, asked).await,
        Asks::Status => fleet::status(control, asked),
        Asks::Wait => fleet::wait(control, asked).await,
        Asks::Agents => fleet::agents(control, asked),
        Asks::Explain => fleet::explain(control, asked),
        Asks::NewToken => identity::new_token(control, asked).await,
        Asks::Revoke => identity::revoke(control, asked).await,
        Asks::Readmit => identity::readmit(control, asked).await,
        Asks::Trust => identity::trust(control, asked),
        Asks::AddRoot => identity::add_root(control, asked).await,
        Asks::RemoveRoot => identity::remove_root(control, asked).await,
        Asks::Join => identity::join(control, asked).await,
        Asks::Renew => identity::renew(control, asked).await,
        Asks::NewAdministrator => identity::new_administrator(control, asked),
        Asks::Ui => link(control, asked),
        Asks::Traces => traces::search(control, asked).await,
        Asks::Trace => traces::one(control, asked).await,
        Asks::Analysis => analysis::analysis(control, asked).await,
        Asks::Changes => analysis::changes(control, asked).await,
        Asks::Alerts => alerts::list(control, asked),
        Asks::Graph => graph::graph(control, asked),
        Asks::Why => live::why(control, asked).await,
        Asks::Tap => live::tap(control, asked).await,
        Asks::Placement => placement::view(control, asked),
        Asks::Placed => placement::explain(control, asked),
        Asks::Scale => placement::scale(control, asked).await,
        Asks::Mark => placement::mark(control, asked).await,
        Asks::Rebalance => placement::rebalance(control, asked).await,
        Asks::Tail => placement::tail(control, asked).await,
        Asks::Audit => audit::list(control, asked).await,
        Asks::AuditVerify => audit::verify(control, asked).await,
        Asks::AuditHolders => audit::holders(control, asked).await,
        Asks::AuthzExplain => authz::explain(control, asked),
        Asks::AuthzMatrix => authz::matrix(control, asked),
        Asks::PolicyReport => authz::report(control, asked),
        Asks::Actions => actions::list(control, asked),
        Asks::Act => actions::act(control, asked).await,
        Asks::Stream | Asks::Spans | Asks::NodeStream => {
            Err(Denied::forbidden("this needs a sidecar's certificate, over TLS"))
        }
    }
}

fn version(control: &Control, asked: &Asked) -> Result<Answer, Denied> {
    asked.query(&[])?;
    json(&Version {
        build: env!("CARGO_PKG_VERSION").into(),
        wire: format!("{}.{}", wire::MAJOR, wire::MINOR),
        documents: control.resources.newest().version,
        control: control.id.clone(),
        trust_domain: control.trust_domain.to_string(),
    })
}

/// A link that opens the page once.
fn link(control: &Control, asked: &Asked) -> Result<Answer, Denied> {
    let Some(page) = &control.page else {
        return Err(Denied::not_found("this control plane has no page; start it with --local ADDR"));
    };
    let code =
        control.sessions.link(Instant::now()).map_err(|failure| Denied::failed(failure.to_string()))?;
    asked.wrote("link to the page", None);
    json(&Link { url: page.link(&code) })
}

fn done(message: impl Into<String>) -> Result<Answer, Denied> {
    json(&Done { message: message.into() })
}
