//! One condition of a rule: an attribute of a call, and the values that it must and must not have. Sources and operations are
//! lists of them, as `when` is.

use std::net::IpAddr;

use pilotfish_config::model::Values;
use serde_json::Value;

use super::seen::{Lean, Seen};
use super::text::{Accounts, Bound, Nets, Subjects, Texts, identities, trust_domains};
use crate::authz::{Claims, Principal};
use crate::call::{Call, Protocol};

/// What of a call is compared.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Attribute {
    /// `source.principal`
    Principal,
    /// `source.namespace`
    Namespace,
    /// `source.serviceAccount`
    ServiceAccount,
    /// `source.trustDomain`
    TrustDomain,
    /// `source.ip`
    SourceIp,
    /// `remote.ip`
    RemoteIp,
    /// `destination.ip`
    DestinationIp,
    /// `destination.port`
    DestinationPort,
    /// `connection.sni`
    Sni,
    /// `request.auth.principal`
    RequestPrincipal,
    /// `request.auth.audiences`
    Audiences,
    /// `request.auth.presenter`
    Presenter,
    /// `request.auth.claims[a][b]`
    Claim(Box<[Box<str>]>),
    /// `experimental.envoy.filters.http.ext_authz[a][b]`: what an external authorizer says
    Metadata(Box<[Box<str>]>),
    /// `request.headers[name]`, in lower case
    Header(Box<str>),
    /// The authority.
    Host,
    /// The method.
    Method,
    /// The path without its query.
    Path,
    /// `pilotfish.protocol`
    Protocol,
    /// `pilotfish.capability`
    Capability,
    /// `pilotfish.a2a.method`, `pilotfish.mcp.method`
    RpcMethod(Protocol),
    /// `pilotfish.a2a.skill`
    Skill,
    /// `pilotfish.mcp.tool`
    Tool,
    /// `pilotfish.model`
    Model,
    /// `pilotfish.delegation.depth`
    Depth,
    /// `pilotfish.delegation.origin`
    Origin,
    /// `pilotfish.delegation.agents`
    Agents,
}

/// Values as they are compared.
#[derive(Debug, Clone)]
pub(crate) enum Want {
    Texts(Texts),
    Nets(Nets),
    Ports(Box<[u16]>),
    Accounts(Accounts),
    Subjects(Subjects),
    Bounds(Box<[Bound]>),
}

/// A condition.
#[derive(Debug, Clone)]
pub(crate) struct Condition {
    pub(super) attribute: Attribute,
    /// One has to match; `None`: any value, or none.
    pub(super) any_of: Option<Want>,
    /// None may match.
    pub(super) none_of: Option<Want>,
}

/// What values of a policy mean depends on whose they are.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Within<'a> {
    /// The policy's namespace.
    pub(crate) namespace: &'a str,
    /// The mesh's own trust domain.
    pub(crate) trust_domain: Option<&'a str>,
}

impl Attribute {
    /// The attribute of a `when` key.
    ///
    /// # Errors
    /// Nothing here can tell it; in words.
    pub(crate) fn parse(key: &str) -> Result<Attribute, String> {
        Ok(match key {
            "source.principal" => Attribute::Principal,
            "source.namespace" => Attribute::Namespace,
            "source.serviceAccount" => Attribute::ServiceAccount,
            "source.trustDomain" => Attribute::TrustDomain,
            "source.ip" => Attribute::SourceIp,
            "remote.ip" => Attribute::RemoteIp,
            "destination.ip" => Attribute::DestinationIp,
            "destination.port" => Attribute::DestinationPort,
            "connection.sni" => Attribute::Sni,
            "request.auth.principal" => Attribute::RequestPrincipal,
            "request.auth.audiences" => Attribute::Audiences,
            "request.auth.presenter" => Attribute::Presenter,
            "pilotfish.protocol" => Attribute::Protocol,
            "pilotfish.capability" => Attribute::Capability,
            "pilotfish.a2a.method" => Attribute::RpcMethod(Protocol::A2a),
            "pilotfish.a2a.skill" => Attribute::Skill,
            "pilotfish.mcp.method" => Attribute::RpcMethod(Protocol::Mcp),
            "pilotfish.mcp.tool" => Attribute::Tool,
            "pilotfish.model" => Attribute::Model,
            "pilotfish.delegation.depth" => Attribute::Depth,
            "pilotfish.delegation.origin" => Attribute::Origin,
            "pilotfish.delegation.agents" => Attribute::Agents,
            _ => return Attribute::bracketed(key),
        })
    }

    fn bracketed(key: &str) -> Result<Attribute, String> {
        let names = |rest: &str| {
            let inner = rest.strip_prefix('[').and_then(|rest| rest.strip_suffix(']'));
            let names = inner.map(|inner| inner.split("][").map(Box::from).collect::<Box<[Box<str>]>>());
            let is_name = |name: &str| !name.is_empty() && !name.contains(['[', ']']);
            names.filter(|names| names.iter().all(|name| is_name(name)))
        };
        if let Some(rest) = key.strip_prefix("request.auth.claims") {
            let why = || format!("`{key}` names no claim; such as request.auth.claims[groups]");
            return names(rest).map(Attribute::Claim).ok_or_else(why);
        }
        if let Some(rest) = key.strip_prefix("experimental.envoy.filters.http.ext_authz") {
            let why =
                || format!("`{key}` names nothing that an authorizer says; such as `...ext_authz[team]`");
            return names(rest).map(Attribute::Metadata).ok_or_else(why);
        }
        if let Some(rest) = key.strip_prefix("request.headers[") {
            let name = rest.strip_suffix(']').unwrap_or_default().to_ascii_lowercase();
            return match name.as_str() {
                ":authority" | "host" => Ok(Attribute::Host),
                ":method" => Ok(Attribute::Method),
                name if crate::headers::is_header_name(name) => Ok(Attribute::Header(name.into())),
                _ => Err(format!("`{key}` names no header; such as request.headers[x-team]")),
            };
        }
        Err(match key.starts_with("experimental.envoy.filters.") {
            true => format!(
                "`{key}` is metadata of a filter of Envoy that there is not here: only `http.ext_authz`, an external authorizer's"
            ),
            false => format!("`{key}` is not an attribute"),
        })
    }

    /// Whether the body may have to be read for it.
    pub(super) fn reads_body(&self) -> bool {
        matches!(
            self,
            Attribute::Protocol
                | Attribute::Capability
                | Attribute::RpcMethod(_)
                | Attribute::Skill
                | Attribute::Tool
                | Attribute::Model
        )
    }

    fn want(&self, values: &[String], within: Within<'_>) -> Result<Want, String> {
        Ok(match self {
            Attribute::Principal | Attribute::Agents | Attribute::Origin => {
                Want::Texts(identities(values, within.trust_domain))
            }
            Attribute::TrustDomain => Want::Texts(trust_domains(values, within.trust_domain)),
            Attribute::Namespace => Want::Texts(Texts::globs(values)),
            Attribute::ServiceAccount => Want::Accounts(Accounts::new(values, within.namespace)?),
            Attribute::SourceIp | Attribute::RemoteIp | Attribute::DestinationIp => {
                Want::Nets(Nets::new(values)?)
            }
            Attribute::DestinationPort => {
                let port = |text: &String| text.parse().map_err(|_| format!("`{text}` is not a port"));
                Want::Ports(values.iter().map(port).collect::<Result<_, String>>()?)
            }
            Attribute::RequestPrincipal => Want::Subjects(Subjects::new(values)),
            // Connections say theirs in lower case.
            Attribute::Host | Attribute::Sni => {
                Want::Texts(Texts::new(values.iter().map(|value| value.to_ascii_lowercase())))
            }
            Attribute::Path => Want::Texts(Texts::paths(values)),
            Attribute::Depth => {
                Want::Bounds(values.iter().map(|text| Bound::parse(text)).collect::<Result<_, String>>()?)
            }
            // `[value]` means an element of a list in Istio; here an element counts as the value itself does.
            Attribute::Metadata(_) => Want::Texts(Texts::new(values.iter().map(|value| {
                let element = value.strip_prefix('[').and_then(|rest| rest.strip_suffix(']'));
                element.unwrap_or(value).to_owned()
            }))),
            _ => Want::Texts(Texts::new(values)),
        })
    }
}

impl Condition {
    /// A condition of a policy; `None`: it has no values.
    ///
    /// # Errors
    /// A value means nothing for the attribute; in words.
    pub(crate) fn new(
        attribute: Attribute,
        values: &Values,
        within: Within<'_>,
    ) -> Result<Option<Condition>, String> {
        let want = |values: &[String]| match values {
            [] => Ok(None),
            values => attribute.want(values, within).map(Some),
        };
        let (any_of, none_of) = (want(&values.any_of)?, want(&values.none_of)?);
        let some = any_of.is_some() || none_of.is_some();
        Ok(some.then_some(Condition { attribute, any_of, none_of }))
    }

    pub(super) fn holds(&self, seen: &Seen<'_>, lean: Lean) -> bool {
        self.any_of.as_ref().is_none_or(|want| self.matches(want, seen, lean))
            && self.none_of.as_ref().is_none_or(|want| !self.matches(want, seen, lean.other()))
    }

    fn matches(&self, want: &Want, seen: &Seen<'_>, lean: Lean) -> bool {
        match want {
            Want::Texts(texts) => self.texts(texts, seen, lean),
            Want::Nets(nets) => self.address(seen, lean, |ip| nets.has(ip)),
            Want::Ports(ports) => seen.destination(lean, |address| ports.contains(&address.port())),
            Want::Accounts(accounts) => seen.principal().is_some_and(|principal| accounts.has(principal)),
            Want::Subjects(subjects) => seen.claims().is_some_and(|claims| {
                let text = |name: &str| claims.all.get(name).and_then(Value::as_str).unwrap_or_default();
                subjects.has(text("iss"), text("sub"), lean == Lean::Any)
            }),
            Want::Bounds(bounds) => depth(bounds, seen, lean),
        }
    }

    fn address(&self, seen: &Seen<'_>, lean: Lean, fits: impl Fn(IpAddr) -> bool) -> bool {
        match self.attribute {
            Attribute::SourceIp => fits(seen.asking.caller.ip),
            Attribute::RemoteIp => fits(seen.remote_ip()),
            // Both are the workload's.
            _ => {
                seen.asking.who.arrived.is_some_and(&fits)
                    || seen.destination(lean, |address| fits(address.ip()))
            }
        }
    }

    fn texts(&self, texts: &Texts, seen: &Seen<'_>, lean: Lean) -> bool {
        let fits = |text: Option<&str>| text.is_some_and(|text| texts.matches(text.as_bytes()));
        let who = seen.asking.who;
        match &self.attribute {
            Attribute::Path => seen.path(texts, lean),
            Attribute::Method => seen.method(texts, lean),
            Attribute::Host => seen.host(texts, lean),
            Attribute::Header(name) => seen.header(name, texts, lean),
            Attribute::Principal => fits(seen.principal().map(|principal| &*principal.id)),
            Attribute::Namespace => fits(seen.principal().and_then(|own| own.namespace.as_deref())),
            Attribute::TrustDomain => fits(seen.principal().map(|principal| &*principal.trust_domain)),
            Attribute::Sni => fits(who.sni),
            Attribute::Audiences => {
                seen.claims().is_some_and(|claims| claims.audiences.iter().any(|own| fits(Some(own))))
            }
            Attribute::Presenter => fits(seen.claims().and_then(|claims| claims.presenter.as_deref())),
            Attribute::Claim(path) => seen.claims().is_some_and(|claims| claim(claims, path, texts)),
            Attribute::Metadata(path) => {
                let value = path.iter().try_fold(who.metadata, |value, name| Some(value?.get(&**name)));
                value.flatten().is_some_and(|value| is_one(value, texts))
            }
            Attribute::RpcMethod(protocol) => seen.rpc_method(*protocol, texts, lean),
            Attribute::Protocol => seen.body(lean, |call| {
                let also = call.also.filter(|_| lean == Lean::Any).map(Protocol::word);
                fits(Some(call.protocol.word())) || fits(also)
            }),
            Attribute::Capability => seen.body_if(
                lean,
                |unsure| unsure.skill,
                |call| {
                    let mut own = call.capabilities.iter().chain(&call.skill).map(|name| fits(Some(name)));
                    match lean {
                        Lean::Any => own.any(|fits| fits),
                        Lean::All => {
                            let first = own.next().is_some_and(|fits| fits);
                            first && own.all(|fits| fits)
                        }
                    }
                },
            ),
            Attribute::Skill => {
                let skill = |call: &Call| call.protocol == Protocol::A2a && fits(call.skill.as_deref());
                seen.body_if(lean, |unsure| unsure.skill, skill)
            }
            Attribute::Tool => {
                let is_call = |method: &str| method == "tools/call";
                seen.body(lean, |call| {
                    let called = call.rpc_method.as_deref().is_none_or(is_call);
                    call.protocol == Protocol::Mcp && called && fits(call.tool.as_deref())
                })
            }
            Attribute::Model => seen.body_if(lean, |unsure| unsure.model, |call| fits(call.model.as_deref())),
            // The caller serves several calls, and nobody knows for which it acts.
            Attribute::Origin if who.chain.is_some_and(|chain| chain.uncertain) => seen.unknown(lean),
            Attribute::Origin => fits(who.chain.map(|chain| &*chain.origin)),
            Attribute::Agents => who.chain.is_some_and(|chain| {
                let mut agents = chain.agents.iter().map(|agent| fits(Some(&agent.id)));
                match lean {
                    Lean::All if chain.uncertain => !chain.agents.is_empty() && agents.all(|fits| fits),
                    _ if agents.any(|fits| fits) => true,
                    // Those that are too many to be named may be anybody.
                    _ if chain.agents.iter().any(Principal::is_unknown) => seen.unknown(lean),
                    _ => false,
                }
            }),
            // Their values are no texts.
            Attribute::ServiceAccount
            | Attribute::SourceIp
            | Attribute::RemoteIp
            | Attribute::DestinationIp
            | Attribute::DestinationPort
            | Attribute::RequestPrincipal
            | Attribute::Depth => false,
        }
    }
}

/// How many agents are before the caller. Of one that serves several calls at once, and did not say for which it acts, it is one of them
/// at least, and all of them at most.
fn depth(bounds: &[Bound], seen: &Seen<'_>, lean: Lean) -> bool {
    let has = |depth: u64| bounds.iter().any(|bound| bound.has(depth));
    let Some(chain) = seen.asking.who.chain else { return has(0) };
    let most = chain.agents.len() as u64;
    let mut depths = most.min(1)..=most;
    match chain.uncertain {
        true if depths.clone().any(has) != depths.all(has) => seen.unknown(lean),
        _ => has(most),
    }
}

/// Whether a claim is a list that is written as one text; a claim within others is named with dots.
fn is_delimited(claims: &Claims, path: &[Box<str>]) -> bool {
    let is = |name: &str| match path {
        [only] => **only == *name,
        _ => name.split('.').eq(path.iter().map(|part| &**part)),
    };
    claims.space_delimited.iter().any(|name| is(name))
}

/// A claim's value, or one of its elements when it is a list.
fn claim(claims: &Claims, path: &[Box<str>], texts: &Texts) -> bool {
    let Some((first, rest)) = path.split_first() else { return false };
    let mut value = claims.all.get(&**first);
    for name in rest {
        value = value.and_then(|value| value.get(&**name));
    }
    match value {
        Some(Value::String(text)) if is_delimited(claims, path) => {
            text.split_ascii_whitespace().any(|one| texts.matches(one.as_bytes()))
        }
        Some(value) => is_one(value, texts),
        None => false,
    }
}

/// Whether it, or one of its elements when it is a list, is wanted; numbers and booleans as JSON writes them.
fn is_one(value: &Value, texts: &Texts) -> bool {
    let fits = |value: &Value| match value {
        Value::String(text) => texts.matches(text.as_bytes()),
        Value::Bool(true) => texts.matches(b"true"),
        Value::Bool(false) => texts.matches(b"false"),
        Value::Number(number) => texts.matches(number.to_string().as_bytes()),
        Value::Null | Value::Array(_) | Value::Object(_) => false,
    };
    match value {
        Value::Array(list) => list.iter().any(fits),
        value => fits(value),
    }
}
