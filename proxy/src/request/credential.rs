//! credential: what the sidecar shows on its agent's behalf, for one try that leaves the mesh. After every edit, so that no rule can move
//! it elsewhere; for the host that is connected to and the host that the request names, both.
//!
//! It is in the head only while the head is written: no log, span or record sees it, no other try carries it, and what the agent sent in
//! its place is there again afterwards.

use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;

use http::Method;
use pilotfish_filters::correlate::Correlation;
use pilotfish_filters::credentials::SubjectToken;
use pilotfish_filters::verdict::{Deny, Reason};

use crate::credentials::{Live, Place, Value};
use crate::http::{Framing, RequestHead, Upstream};
use crate::listen::Direction;
use crate::request::ctx::Ctx;
use crate::request::dial::Way;
use crate::request::guard::Hop;
use crate::request::query;
use crate::snapshot::Snapshot;
use crate::tls::dial::Secure;
use crate::upstream::connect::Address;
use crate::worker::Worker;

/// What a try shows.
#[derive(Debug)]
pub struct Shown {
    live: Arc<Live>,
    value: Arc<Value>,
    subject: Option<Arc<SubjectToken>>,
}

/// The credential that a try has to show, if there is one. Cheap where there is none.
///
/// # Errors
/// `credential-unavailable`: the call must not be sent so.
pub fn wanted<'a>(
    ctx: &'a Ctx<'_>,
    way: &Way<'_>,
    head: &RequestHead,
) -> Result<Option<&'a Arc<Live>>, Deny> {
    let credentials = ctx.snapshot.plan.credentials();
    if credentials.is_empty() || way.hop(ctx.direction) != Hop::Outside || way.mesh {
        return Ok(None);
    }
    let named = credentials.of(head.authority());
    let cluster = way.cluster.map(|cluster| &*cluster.host).filter(|host| !host.starts_with('*'));
    let dialed = match cluster {
        Some(host) => credentials.of(host),
        None => named,
    };
    let live = |at: usize| ctx.snapshot.credentials.get(at);
    let found = match (named, dialed) {
        (Some(named), Some(dialed)) if named == dialed => live(named),
        (None, None) => None,
        (named, dialed) => {
            for live in [named, dialed].into_iter().flatten().filter_map(live) {
                live.elsewhere.fetch_add(1, Relaxed);
            }
            None
        }
    };
    let Some(live) = found else { return Ok(None) };
    if let Some(why) = exposed(live, way, head) {
        live.missed.fetch_add(1, Relaxed);
        return Err(refused(live, why));
    }
    Ok(Some(live))
}

/// The credential of a copy of a call: that of the host that the copy goes to, whatever the call itself has shown. A token on behalf of
/// somebody is for the call that he asked for, not for copies.
///
/// # Errors
/// `credential-unavailable`: the copy must not be sent so.
pub fn of_copy<'a>(
    snapshot: &'a Snapshot,
    way: &Way<'_>,
    head: &RequestHead,
) -> Result<Option<&'a Arc<Live>>, Deny> {
    let credentials = snapshot.plan.credentials();
    if credentials.is_empty() || way.hop(Direction::Outbound) != Hop::Outside || way.mesh {
        return Ok(None);
    }
    let host = way.cluster.map(|cluster| &*cluster.host).filter(|host| !host.starts_with('*'));
    let live = host.and_then(|host| credentials.of(host)).and_then(|at| snapshot.credentials.get(at));
    let Some(live) = live.filter(|live| !live.credential.is_for_another()) else { return Ok(None) };
    match exposed(live, way, head) {
        None => Ok(Some(live)),
        Some(why) => {
            live.missed.fetch_add(1, Relaxed);
            Err(refused(live, why))
        }
    }
}

/// Has what a copy is to show.
///
/// # Errors
/// `credential-unavailable`.
pub async fn for_copy(worker: &Worker, live: &Arc<Live>) -> Result<Shown, Deny> {
    show(worker, live, None).await
}

/// Who else would see it.
fn exposed(live: &Live, way: &Way<'_>, head: &RequestHead) -> Option<&'static str> {
    if head.method == Method::TRACE {
        return Some("TRACE sends back to the agent what it carries");
    }
    if live.credential.insecure {
        return None;
    }
    match way.secure {
        Secure::Outside(..) => {
            let tls = way.cluster.and_then(|cluster| cluster.settings.tls.as_ref());
            tls.is_some_and(|tls| tls.insecure_skip_verify == Some(true)).then_some(
                "it is not shown to a host that is not verified (insecureSkipVerify); `insecure: true` would allow it",
            )
        }
        Secure::Mesh(..) => None,
        Secure::Plain if stays_here(way) => None,
        Secure::Plain => Some(
            "it is not sent in plaintext; a DestinationRule with `tls: {mode: SIMPLE}` for the host encrypts it, `insecure: true` \
             would send it",
        ),
    }
}

/// Whether the other end is on this machine because a document says so, not because a name leads here.
fn stays_here(way: &Way<'_>) -> bool {
    match way.address {
        Address::Unix(_) => true,
        Address::Tcp(address) => way.literal && address.ip().is_loopback(),
    }
}

fn refused(live: &Live, why: &str) -> Deny {
    Deny::with(Reason::CredentialUnavailable, format!("credential {}: {why}", live.credential.name))
}

/// Has what is to be shown; waits only for a token that is not there yet.
///
/// # Errors
/// `credential-unavailable`.
pub async fn obtain(worker: &Worker, ctx: &Ctx<'_>, live: &Arc<Live>) -> Result<Shown, Deny> {
    let subject = match live.credential.is_for_another() {
        true => Some(subject(ctx).map_err(|why| missed(live, why))?),
        false => None,
    };
    show(worker, live, subject).await
}

async fn show(worker: &Worker, live: &Arc<Live>, subject: Option<Arc<SubjectToken>>) -> Result<Shown, Deny> {
    let value = live.value(&worker.shared, subject.as_ref()).await.map_err(|why| missed(live, &why))?;
    live.shown.fetch_add(1, Relaxed);
    Ok(Shown { live: live.clone(), value, subject })
}

fn missed(live: &Live, why: &str) -> Deny {
    live.missed.fetch_add(1, Relaxed);
    refused(live, why)
}

/// The token of the inbound call that this call belongs to.
fn subject(ctx: &Ctx<'_>) -> Result<Arc<SubjectToken>, &'static str> {
    match &ctx.standing.belongs {
        Some(Correlation::Ambiguous(_)) => Err(
            "it is not certain for which of the calls that the agent serves this one is made; the agent says so by passing on \
             x-pilotfish-call, while it serves that call",
        ),
        Some(Correlation::Certain(served) | Correlation::Inferred(served)) => served
            .inherited
            .token
            .clone()
            .ok_or("the call that the agent serves brought no valid token that could be exchanged"),
        Some(Correlation::None) | None => Err("the agent serves no call whose token could be exchanged"),
    }
}

impl Shown {
    /// Queues the request's head with it.
    ///
    /// # Errors
    /// `credential-unavailable`: it cannot be written.
    pub fn request(
        &self,
        head: &mut RequestHead,
        upstream: &mut Upstream,
        framing: Framing,
    ) -> Result<(), Deny> {
        let cannot = || refused(&self.live, "it has characters that cannot be sent");
        match self.live.place() {
            Place::Header(name) => {
                let before: Vec<Vec<u8>> = head.headers.get_all(name).map(<[u8]>::to_vec).collect();
                if !head.headers.set(name, self.value.expose().as_bytes()) {
                    return Err(cannot());
                }
                upstream.request(head, framing);
                head.headers.remove(name);
                for value in before {
                    head.headers.append(name, &value);
                }
            }
            Place::Query(name) => {
                let before = head.path_and_query().to_owned();
                if !head.set_path_and_query(&query::set(&before, name, self.value.expose())) {
                    return Err(cannot());
                }
                upstream.request(head, framing);
                head.set_path_and_query(&before);
            }
        }
        Ok(())
    }

    /// The answer's status may say that it was not taken.
    pub fn answered(&self, worker: &Worker, status: u16) {
        if status == 401 {
            self.live.refused(worker.shared.clock.now(), &self.value, self.subject.as_deref());
        }
    }
}

/// A tunnel is about to be opened: nothing can be shown in it.
pub fn tunnelled(ctx: &Ctx<'_>, head: &RequestHead) {
    if ctx.direction == Direction::Outbound
        && let Some(at) = ctx.snapshot.plan.credentials().of(head.authority())
        && let Some(live) = ctx.snapshot.credentials.get(at)
    {
        live.tunnelled(head.authority());
    }
}
