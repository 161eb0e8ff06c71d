//! Identities: tokens, joins, renewals, revocations, roots.

use std::collections::BTreeMap;
use std::time::{Duration, UNIX_EPOCH};

use http::StatusCode;
use pilotfish_config::wire::{Join, Joined, Renew};
use pilotfish_identity::SpiffeId;

use super::{Asked, done};
use crate::api::types::{AgentName, NewAdministrator, NewToken, Pem};
use crate::ca::CaError;
use crate::ca::tokens::{Bearer, NotMade, NotSpent};
use crate::ca::trust::NotTrusted;
use crate::log;
use crate::server::Control;
use crate::server::answer::{Answer, Denied, json};
use crate::server::auth::{ADMINISTRATORS, Caller};
use crate::server::body::parse;
use crate::server::status::count;

/// An administrator's certificate lives at most this long, seconds: 90 days.
const LONGEST_ADMINISTRATOR: u64 = 90 * 86_400;

impl From<NotMade> for Denied {
    fn from(error: NotMade) -> Denied {
        match error {
            NotMade::Invalid(why) => Denied::bad(why),
            NotMade::Store(error) => error.into(),
        }
    }
}

impl From<NotTrusted> for Denied {
    fn from(error: NotTrusted) -> Denied {
        match error {
            NotTrusted::Store(error) => error.into(),
            NotTrusted::Unknown(_) => Denied::not_found(error.to_string()),
            NotTrusted::InUse(_) => Denied::new(StatusCode::CONFLICT, error.to_string()),
            _ => Denied::bad(error.to_string()),
        }
    }
}

impl From<CaError> for Denied {
    fn from(error: CaError) -> Denied {
        match error {
            CaError::Request(_) => Denied::bad(error.to_string()),
            CaError::Foreign(_) => Denied::forbidden(error.to_string()),
            CaError::Ended => Denied::unavailable(error.to_string()),
            _ => Denied::failed(error.to_string()),
        }
    }
}

pub(super) async fn new_token(control: &Control, asked: &Asked) -> Result<Answer, Denied> {
    let wanted: NewToken = parse(&asked.body)?;
    let token = control.tokens.create(&wanted).await?;
    let whom = match wanted.node {
        true => format!("the node {}", wanted.agent),
        false => format!("{}/{}", wanted.namespace, wanted.agent),
    };
    asked.wrote(&format!("join token for {whom}"), None);
    json(&token)
}

/// The identity of an agent or of a node of this mesh.
fn identity(control: &Control, whose: Bearer<'_>) -> Result<SpiffeId, Denied> {
    let id = match whose {
        Bearer::Agent { namespace, agent } => SpiffeId::agent(&control.trust_domain, namespace, agent),
        Bearer::Node(name) => SpiffeId::node(&control.trust_domain, name),
    };
    id.map_err(|error| Denied::bad(error.to_string()))
}

fn bearer<'a>(node: bool, namespace: &'a str, name: &'a str) -> Bearer<'a> {
    if node { Bearer::Node(name) } else { Bearer::Agent { namespace, agent: name } }
}

pub(super) async fn revoke(control: &Control, asked: &Asked) -> Result<Answer, Denied> {
    let named: AgentName = parse(&asked.body)?;
    let id = identity(control, bearer(named.node, &named.namespace, &named.agent))?;
    control.trust.revoke(&id).await?;
    asked.wrote(&format!("revoke {id}"), None);
    done(format!("{id} is revoked: its connections close, and it gets no certificate until it is readmitted"))
}

pub(super) async fn readmit(control: &Control, asked: &Asked) -> Result<Answer, Denied> {
    let named: AgentName = parse(&asked.body)?;
    let id = identity(control, bearer(named.node, &named.namespace, &named.agent))?;
    control.trust.readmit(&id).await?;
    asked.wrote(&format!("readmit {id}"), None);
    done(format!("{id} is admitted again"))
}

pub(super) fn trust(control: &Control, asked: &Asked) -> Result<Answer, Denied> {
    asked.query(&[])?;
    json(&control.trust.status(&control.authority)?)
}

pub(super) async fn add_root(control: &Control, asked: &Asked) -> Result<Answer, Denied> {
    let Pem { pem } = parse(&asked.body)?;
    control.trust.add_root(&pem).await?;
    asked.wrote("add a root", None);
    json(&control.trust.status(&control.authority)?)
}

pub(super) async fn remove_root(control: &Control, asked: &Asked) -> Result<Answer, Denied> {
    let fingerprint = asked.segment(0);
    control.trust.remove_root(&control.authority, fingerprint).await?;
    asked.wrote(&format!("remove the root {fingerprint}"), None);
    json(&control.trust.status(&control.authority)?)
}

/// A first certificate for a token. It is signed before the token is spent, so that a bad request costs no token, and
/// handed out only when the token was good.
pub(super) async fn join(control: &Control, asked: &Asked) -> Result<Answer, Denied> {
    if let Some(from) = asked.from {
        control.guard.may_join(from.ip())?;
    }
    let join: Join = parse(&asked.body)?;
    let whose = bearer(join.node, &join.namespace, &join.agent);
    let joined = match identity(control, whose) {
        Ok(id) => sign(control, &join.csr, &id)?,
        // A name that can be nobody's has no token either.
        Err(_) => return Err(refused(control, asked, "nobody's name")),
    };
    match control.tokens.spend(&join.token, whose).await {
        Ok(()) => {}
        Err(NotSpent::Store(error)) => return Err(error.into()),
        Err(NotSpent::Refused(why)) => return Err(refused(control, asked, why)),
    }
    if SpiffeId::parse(&joined.id).is_ok_and(|id| control.trust.is_revoked(&id)) {
        count(&control.metrics.join_refused);
        let sentence =
            format!("{} is revoked: `pilotfish readmit` it, then join with a new token", joined.id);
        return Err(Denied::forbidden(sentence));
    }
    count(&control.metrics.joined);
    log::info!("joined", id = joined.id);
    json(&joined)
}

/// The same answer for every token that is not good; the log knows more.
fn refused(control: &Control, asked: &Asked, why: &'static str) -> Denied {
    count(&control.metrics.join_refused);
    if let Some(from) = asked.from {
        control.guard.failed(from.ip());
        log::warn!("a join was refused", from = from.ip(), why = why);
    }
    Denied::forbidden(NotSpent::Refused("").to_string())
}

/// A new certificate for the identity of the current one, which [`Control::admit`] has looked at.
pub(super) async fn renew(control: &Control, asked: &Asked) -> Result<Answer, Denied> {
    let Caller::Sidecar(peer) = &asked.caller else {
        return Err(Denied::forbidden("this needs a sidecar's certificate, over TLS"));
    };
    let Renew { csr } = parse(&asked.body)?;
    let renewable = peer.id.as_agent().is_some() || peer.id.as_node().is_some();
    if !renewable || control.trust.is_revoked(&peer.id) {
        count(&control.metrics.renew_refused);
        return Err(Denied::forbidden(format!("{} gets no new certificate", peer.id)));
    }
    let joined = sign(control, &csr, &peer.id)?;
    count(&control.metrics.renewed);
    json(&joined)
}

/// A certificate with which an administrator needs no token. It is not renewed, so that it ends by itself.
pub(super) fn new_administrator(control: &Control, asked: &Asked) -> Result<Answer, Denied> {
    let wanted: NewAdministrator = parse(&asked.body)?;
    if !(1..=LONGEST_ADMINISTRATOR).contains(&wanted.ttl_seconds) || wanted.name.contains('/') {
        return Err(Denied::bad("a name without `/`, and 1 second to 90 days, are needed"));
    }
    let id = SpiffeId::parse(&format!("spiffe://{}{ADMINISTRATORS}{}", control.trust_domain, wanted.name));
    let id = id.map_err(|error| Denied::bad(error.to_string()))?;
    let joined = sign_for(control, &wanted.csr, &id, Duration::from_secs(wanted.ttl_seconds))?;
    asked.wrote(&format!("certificate for {id}"), None);
    json(&joined)
}

fn sign(control: &Control, csr: &str, id: &SpiffeId) -> Result<Joined, Denied> {
    sign_for(control, csr, id, control.leaf_ttl)
}

fn sign_for(control: &Control, csr: &str, id: &SpiffeId, ttl: Duration) -> Result<Joined, Denied> {
    let signed = control.authority.sign(csr, id, ttl)?;
    let bundles: BTreeMap<String, String> = control.trust.newest().bundles.clone();
    let expires = signed.expires.duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
    Ok(Joined { chain: signed.chain, bundles, id: id.to_string(), expires })
}
