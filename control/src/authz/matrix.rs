//! Who may call whom: every agent with every agent.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv4Addr};

use pilotfish_config::Model;
use pilotfish_config::model::StringMap;
use pilotfish_config::wire::{Actions, Hold};
use pilotfish_filters::authz::reach::{Known, Reach};
use pilotfish_filters::authz::{Asking, Principal, Who};
use pilotfish_filters::call::Caller;
use pilotfish_filters::compile::CompileOptions;
use pilotfish_filters::explain::Asked;

use super::{Callee, principal, unix};
use crate::api::types::{AuthzCalls, AuthzCell, AuthzMatrix};
use crate::cli::agent_name::near;

/// So many agents are looked at, on each side.
const MOST: usize = 1000;

/// An agent: where it is, and what of it decides which policies are for it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Agents(BTreeMap<(String, String), Own>);

/// What is known of one.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
struct Own {
    labels: StringMap,
    /// Its sidecar runs with `--default-deny`.
    default_deny: bool,
}

impl Agents {
    /// Those that documents declare.
    pub fn declared(model: &Model) -> Agents {
        let mut agents = Agents::default();
        for cluster in &model.agent_clusters {
            for agent in &cluster.agents {
                agents.add(cluster.meta.namespace(), &agent.name, &agent.labels, false);
            }
        }
        for entry in &model.workload_entries {
            if let Some(agent) = &entry.workload.agent {
                agents.add(entry.meta.namespace(), agent, &entry.workload.labels, false);
            }
        }
        agents
    }

    /// One more; what was said last of it holds.
    pub fn add(&mut self, namespace: &str, agent: &str, labels: &StringMap, default_deny: bool) {
        let own = Own { labels: labels.clone(), default_deny };
        self.0.insert((namespace.to_owned(), agent.to_owned()), own);
    }

    /// That nobody knows an agent (`namespace/name`), and which was probably meant; nothing is said of identities.
    pub fn unknown(&self, agent: &str) -> Option<String> {
        let (namespace, name) = agent.split_once('/').filter(|(_, name)| !name.contains('/'))?;
        if self.own(namespace, name).is_some() {
            return None;
        }
        let known: Vec<String> =
            self.0.keys().map(|(namespace, name)| format!("{namespace}/{name}")).collect();
        let near = near(agent, known.iter().map(String::as_str));
        let near = near.map(|near| format!(" (did you mean {near}?)")).unwrap_or_default();
        Some(format!("no agent {agent} is registered or declared{near}"))
    }

    fn own(&self, namespace: &str, agent: &str) -> Option<&Own> {
        self.0.get(&(namespace.to_owned(), agent.to_owned()))
    }

    /// The labels of one.
    pub fn labels(&self, namespace: &str, agent: &str) -> StringMap {
        self.own(namespace, agent).map(|own| own.labels.clone()).unwrap_or_default()
    }
}

/// Who may call whom.
///
/// # Errors
/// The calls cannot be understood; in words.
pub fn matrix(
    model: &Model,
    agents: &Agents,
    trust_domain: &str,
    calls: &AuthzCalls,
    actions: &Actions,
) -> Result<AuthzMatrix, String> {
    let asked = asked(calls)?;
    let name = |(namespace, agent): &(String, String)| format!("{namespace}/{agent}");
    let is_called = |(namespace, _): &&(String, String)| {
        calls.namespace.as_ref().is_none_or(|wanted| wanted == namespace)
    };
    let callers: Vec<&(String, String)> = agents.0.keys().take(MOST).collect();
    let callees: Vec<&(String, String)> = agents.0.keys().filter(is_called).take(MOST).collect();
    let mut matrix = AuthzMatrix {
        callers: callers.iter().map(|own| name(own)).collect(),
        callees: callees.iter().map(|own| name(own)).collect(),
        rows: vec![Vec::with_capacity(callees.len()); callers.len()],
        notes: vec!["each caller acts for itself, with its certificate and without a token".into()],
        ..AuthzMatrix::default()
    };
    if agents.0.len() > MOST {
        matrix.notes.push(format!("there are {} agents; the first {MOST} by name are shown", agents.0.len()));
    }
    let identities = callers.iter().map(|own| principal(&name(own), trust_domain));
    let identities: Vec<Principal> = identities.collect::<Result<_, _>>()?;
    let (held, restricted) = (held(actions, true), held(actions, false));
    for (namespace, agent) in callees {
        let callee = Callee::new(
            model,
            CompileOptions {
                agent: agent.clone(),
                namespace: namespace.clone(),
                labels: agents.labels(namespace, agent),
                trust_domain: Some(trust_domain.to_owned()),
                default_deny: agents.own(namespace, agent).is_some_and(|own| own.default_deny),
                ..CompileOptions::default()
            },
        );
        for (row, caller) in matrix.rows.iter_mut().zip(&identities) {
            let both = [&callee.name(), caller.id.as_ref()];
            row.push(match both.iter().any(|own| held.contains(&agent_of(own))) {
                true => AuthzCell::Held,
                // What it asks for is not known here: the restriction lets some of its calls go.
                false => match cell(&callee, caller, calls, &asked) {
                    AuthzCell::Yes if restricted.contains(&agent_of(&caller.id)) => AuthzCell::Some,
                    cell => cell,
                },
            });
        }
    }
    Ok(matrix)
}

/// `namespace/agent` of a name or an identity.
fn agent_of(id: &str) -> String {
    match id.split('/').collect::<Vec<_>>().as_slice() {
        [_, "ns", namespace, _, name] => format!("{namespace}/{name}"),
        _ => id.to_owned(),
    }
}

/// Who is quarantined; otherwise who is restricted.
fn held(actions: &Actions, quarantined: bool) -> BTreeSet<String> {
    let now = unix();
    let holds = actions.actions.iter().filter(|action| action.until.is_none_or(|until| until > now));
    holds
        .filter(|action| (action.hold == Hold::Quarantine) == quarantined)
        .map(|action| action.agent.clone())
        .collect()
}

/// One of the calls: its method, path and body.
///
/// # Errors
/// It would be two calls; in words.
pub fn call(calls: &AuthzCalls) -> Result<(String, String, Option<String>), String> {
    let (path, body) = match (&calls.tool, &calls.capability) {
        (Some(_), Some(_)) => {
            return Err("a call is of a tool (MCP) or of a capability (A2A), not of both".into());
        }
        (Some(tool), None) => {
            let call = serde_json::json!({"jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": {"name": tool}});
            ("/mcp", Some(call.to_string()))
        }
        (None, Some(skill)) => {
            let params = serde_json::json!({"metadata": {"skillId": skill}});
            let call =
                serde_json::json!({"jsonrpc": "2.0", "id": 1, "method": "message/send", "params": params});
            ("/", Some(call.to_string()))
        }
        (None, None) => ("/", None),
    };
    let method = calls.method.as_deref().unwrap_or(if body.is_some() { "POST" } else { "GET" });
    let path = calls.path.as_deref().unwrap_or(path);
    Ok((method.to_owned(), path.to_owned(), body))
}

fn asked(calls: &AuthzCalls) -> Result<Asked, String> {
    let (method, path, body) = call(calls)?;
    let slash = if path.starts_with('/') { "" } else { "/" };
    Ok(Asked::to(&method, "matrix.invalid", &format!("{slash}{path}"))?.body(body))
}

fn cell(callee: &Callee<'_>, caller: &Principal, calls: &AuthzCalls, asked: &Asked) -> AuthzCell {
    let call = asked.call();
    let peer = Caller { ip: IpAddr::V4(Ipv4Addr::LOCALHOST), port: 80 };
    let who = Who { principal: Some(caller), ..Who::default() };
    let asking = Asking { head: asked, call: &call, caller: &peer, who: &who };
    let says_call = calls.tool.is_some() || calls.capability.is_some();
    let says_head = calls.method.is_some() && calls.path.is_some();
    let known = Known {
        asking: &asking,
        method: calls.method.is_some() || says_call,
        path: calls.path.is_some(),
        // A method and a path alone are taken for a call without a body.
        call: says_call || says_head,
    };
    let (reach, asks) = callee.plan.reach(&known);
    let reach = if callee.plan.tokens().is_required() { reach.min(Reach::Some) } else { reach };
    match (reach, asks) {
        (Reach::No, _) => AuthzCell::No,
        (_, true) => AuthzCell::Ask,
        (Reach::Yes, false) => AuthzCell::Yes,
        (Reach::Some, false) => AuthzCell::Some,
    }
}
