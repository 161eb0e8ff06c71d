//! Whether a call would be allowed, and who may call whom: from documents, with the code that decides in sidecars. For the control
//! plane, and for the command line without one.

pub mod matrix;

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use pilotfish_config::Model;
use pilotfish_config::wire::{Actions, Normalization};
use pilotfish_filters::authz::{Asking, Chain, Claims, Principal, Who};
use pilotfish_filters::call::Caller;
use pilotfish_filters::clock::Micros;
use pilotfish_filters::compile::{CompileOptions, compile_authorization};
use pilotfish_filters::explain::Asked;
use pilotfish_filters::explain::authz::{Told, claims, explain as explain_call};
use pilotfish_filters::held::Held;
use pilotfish_filters::plan::Plan;
use pilotfish_filters::tokens::TokenRule;
use pilotfish_filters::verdict::Reason;

use crate::api::types::{AuthzAnswer, AuthzAsks, AuthzPolicy, AuthzQuestion, AuthzRole};

/// The agent that is called, and what it decides by.
#[derive(Debug)]
pub struct Callee<'m> {
    model: &'m Model,
    options: CompileOptions,
    plan: Plan,
}

impl<'m> Callee<'m> {
    /// The agent that `options` describe.
    pub fn new(model: &'m Model, options: CompileOptions) -> Callee<'m> {
        let plan = compile_authorization(model, &options);
        Callee { model, options, plan }
    }

    /// `namespace/agent`.
    pub fn name(&self) -> String {
        format!("{}/{}", self.options.namespace, self.options.agent)
    }

    /// Its name as a host.
    fn host(&self) -> String {
        format!("{}.{}.svc.cluster.local", self.options.agent, self.options.namespace)
    }

    fn trust_domain(&self) -> &str {
        self.options.trust_domain.as_deref().unwrap_or_default()
    }

    /// Who is held, as its sidecar sees it.
    fn held(&self, actions: &Actions) -> Option<Held> {
        Held::new(actions, Some(self.trust_domain()), &self.name(), |seconds| {
            Micros(seconds.saturating_mul(1_000_000))
        })
    }
}

/// Seconds since 1970.
fn unix() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs()
}

/// An agent by its name, or by its identity.
///
/// # Errors
/// It is neither; in words.
fn principal(text: &str, trust_domain: &str) -> Result<Principal, String> {
    let text = text.strip_prefix("spiffe://").unwrap_or(text);
    let parts: Vec<&str> = text.split('/').collect();
    let (domain, namespace, name) = match parts.as_slice() {
        [name] if !name.is_empty() => (trust_domain, "default", *name),
        [namespace, name] if !namespace.is_empty() && !name.is_empty() => (trust_domain, *namespace, *name),
        [domain, "ns", namespace, "agent" | "sa", name] => (*domain, *namespace, *name),
        _ => {
            let text = text.escape_debug();
            return Err(format!(
                "`{text}` is no agent: NAMESPACE/NAME, or TRUST-DOMAIN/ns/NAMESPACE/agent/NAME"
            ));
        }
    };
    let id = match parts.len() {
        5 => text.to_owned(),
        _ => format!("{domain}/ns/{namespace}/agent/{name}"),
    };
    Ok(Principal {
        id: id.into(),
        trust_domain: domain.into(),
        namespace: Some(namespace.into()),
        name: Some(name.into()),
    })
}

/// What the sidecar of `callee` would decide, and the caller's does before: it normalises the path as far as `sends` says.
///
/// # Errors
/// The question cannot be understood; in words.
pub fn explain(
    callee: &Callee<'_>,
    sends: Normalization,
    question: &AuthzQuestion,
    actions: &Actions,
) -> Result<AuthzAnswer, String> {
    let trust_domain = callee.trust_domain();
    let from = match question.from.as_str() {
        "" => None,
        from => Some(principal(from, trust_domain)?),
    };
    let chain = chain(question, trust_domain)?;
    let mut notes = Vec::new();
    let slash = if question.path.starts_with('/') { "" } else { "/" };
    let host = question.host.clone().unwrap_or_else(|| callee.host());
    let mut asked = Asked::to(&question.method, &host, &format!("{slash}{}", question.path))?;
    for (name, value) in &question.headers {
        asked = asked.header(name, value);
    }
    let asked = asked.body(question.body.clone());
    let written = asked.clone();
    let asked = asked.normalized(sends).and_then(|asked| asked.normalized(callee.options.normalization));
    let asked = match asked {
        Ok(asked) => asked,
        Err(why) => return Ok(malformed(callee, &from, why)),
    };
    if asked != written {
        notes.push(format!("the path becomes {}", pilotfish_filters::call::Head::path(&asked)));
    }
    let caller =
        Caller { ip: question.from_ip.unwrap_or(IpAddr::V4(Ipv4Addr::LOCALHOST)), port: asked.caller().port };
    let token = token(callee, question, &mut notes);
    let who = Who {
        principal: from.as_ref(),
        remote_ip: question.remote_ip,
        destination: question.port.map(|port| SocketAddr::from((Ipv4Addr::LOCALHOST, port))),
        claims: token.as_ref(),
        chain: chain.as_ref(),
        unix: unix(),
        ..Who::default()
    };
    let call = asked.call();
    let asking = Asking { head: &asked, call: &call, caller: &caller, who: &who };
    let mut answer = answer(explain_call(&callee.plan, callee.model, &callee.options, &asking));
    answer.from = from.as_ref().map(|own| own.id.to_string()).unwrap_or_default();
    answer.to = callee.name();
    answer.notes = notes;
    // What the sidecar looks at before: tokens, then who is held. What comes first is told.
    let now = Micros(unix().saturating_mul(1_000_000));
    let held = callee.held(actions);
    if let Some(Err(deny)) = held.map(|held| held.inbound(now, from.as_ref(), chain.as_ref(), &call)) {
        let detail = deny.detail.as_deref().unwrap_or_default();
        refuse(&mut answer, deny.reason.word(), deny.reason.status(), detail, "response action");
    }
    // The first rule that wants a token says who calls; others want theirs besides.
    let rules = callee.plan.tokens().rules();
    let takes = |rule: &TokenRule, claims: &Arc<Claims>| {
        rule.issuer.is_empty() || is_issuer(&claims.all, &rule.issuer)
    };
    let mut wanting = rules.iter().filter(|rule| rule.required);
    if let Some(first) = wanting.next().filter(|rule| token.as_ref().is_none_or(|own| !takes(rule, own))) {
        let detail = format!(
            "RequestAuthentication {} wants a token, and the call has none of its issuer",
            first.name
        );
        refuse(&mut answer, "unauthenticated", 401, &detail, "RequestAuthentication");
    }
    for other in wanting.filter(|rule| token.as_ref().is_some_and(|own| !takes(rule, own))) {
        answer.notes.push(format!("RequestAuthentication {} wants a token of its own besides", other.name));
    }
    Ok(answer)
}

/// A request that no stage after the first sees.
fn malformed(callee: &Callee<'_>, from: &Option<Principal>, why: &str) -> AuthzAnswer {
    let mut answer = AuthzAnswer { to: callee.name(), ..AuthzAnswer::default() };
    answer.from = from.as_ref().map(|own| own.id.to_string()).unwrap_or_default();
    refuse(&mut answer, Reason::BadRequest.word(), Reason::BadRequest.status(), why, "the sidecar's parser");
    answer
}

fn refuse(answer: &mut AuthzAnswer, reason: &str, status: u16, detail: &str, by: &str) {
    answer.allowed = false;
    answer.reason = Some(reason.to_owned());
    answer.status = Some(status);
    answer.detail = Some(detail.to_owned());
    answer.by = by.to_owned();
    answer.written = None;
    answer.advice = None;
}

/// For whom the caller acts.
fn chain(question: &AuthzQuestion, trust_domain: &str) -> Result<Option<Chain>, String> {
    if question.via.is_empty() && question.origin.is_none() {
        return Ok(None);
    }
    let agents = question.via.iter().map(|agent| principal(agent, trust_domain));
    let agents: Vec<Principal> = agents.collect::<Result<_, _>>()?;
    let first = agents.first().map(|agent| agent.id.clone());
    let origin = question.origin.as_deref().map(Box::from).or(first).unwrap_or_default();
    Ok(Some(Chain { origin, agents, uncertain: false }))
}

/// What the sidecar would know of a token that is valid.
fn token(callee: &Callee<'_>, question: &AuthzQuestion, notes: &mut Vec<String>) -> Option<Arc<Claims>> {
    let payload = question.claims.clone()?;
    let rules = callee.plan.tokens().rules();
    if rules.is_empty() {
        notes.push(format!(
            "no RequestAuthentication is for {}: its sidecar looks at no token",
            callee.name()
        ));
        return None;
    }
    if !rules.iter().any(|rule| rule.issuer.is_empty() || is_issuer(&payload, &rule.issuer)) {
        let issuer = payload.get("iss").and_then(|issuer| issuer.as_str()).unwrap_or_default().escape_debug();
        notes.push(format!(
            "no RequestAuthentication takes tokens of `{issuer}`: a real one is refused with 401"
        ));
    }
    notes.push("the token is taken at its word: signature, audience and times are not checked here".into());
    Some(Arc::new(claims(payload)))
}

fn is_issuer(payload: &serde_json::Map<String, serde_json::Value>, issuer: &str) -> bool {
    payload.get("iss").and_then(|own| own.as_str()) == Some(issuer)
}

fn answer(told: Told) -> AuthzAnswer {
    let policies = told.policies.into_iter().map(|says| AuthzPolicy {
        policy: says.policy,
        action: says.action.to_owned(),
        dry_run: says.dry_run,
        written: says.written,
        rule: says.rule,
        near: says.near,
        broken: says.broken,
    });
    AuthzAnswer {
        allowed: told.allowed,
        reason: told.reason,
        status: told.status,
        detail: told.detail,
        by: told.by,
        written: told.written,
        asks: told.asks.map(|(provider, by, dry_run)| AuthzAsks { provider, by, dry_run }),
        dry_run: told.dry_run,
        audit: told.audit,
        permission: told.permission,
        resource: told.resource,
        class: told.class,
        clearance: told.clearance,
        roles: told.roles.into_iter().map(|(role, gives)| AuthzRole { role, gives }).collect(),
        policies: policies.collect(),
        advice: told.advice,
        ..AuthzAnswer::default()
    }
}
