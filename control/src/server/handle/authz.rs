//! Who may call whom, and why.

use std::sync::Arc;

use super::Asked;
use crate::api::types::{AuthzCalls, AuthzQuestion};
use crate::authz::matrix;
use crate::governance;
use crate::server::Control;
use crate::server::answer::{Answer, Denied, json};
use crate::server::body::parse;

pub(super) fn explain(control: &Arc<Control>, asked: &Asked) -> Result<Answer, Denied> {
    // The page asks by GET, as whoever may read.
    let question = match asked.body.is_empty() {
        true => question(asked)?,
        false => parse(&asked.body)?,
    };
    let explained = tokio::task::block_in_place(|| control.fleet.authz_explain(&question));
    json(&explained.map_err(Denied::bad)?)
}

fn question(asked: &Asked) -> Result<AuthzQuestion, Denied> {
    let query = asked.query(&["from", "to", "method", "path", "host", "capability", "tool"])?;
    let own = |name: &str| query.get(name).map(str::to_owned);
    // The calls that a cell of the matrix is about.
    let calls = AuthzCalls {
        method: own("method"),
        path: own("path"),
        capability: own("capability"),
        tool: own("tool"),
        ..AuthzCalls::default()
    };
    let (method, path, body) = matrix::call(&calls).map_err(Denied::bad)?;
    Ok(AuthzQuestion {
        from: own("from").unwrap_or_default(),
        to: own("to").ok_or_else(|| Denied::bad("parameter `to` is missing: who is called"))?,
        method,
        path,
        body,
        host: own("host"),
        ..AuthzQuestion::default()
    })
}

pub(super) fn matrix(control: &Arc<Control>, asked: &Asked) -> Result<Answer, Denied> {
    let query = asked.query(&["namespace", "method", "path", "capability", "tool"])?;
    let own = |name: &str| query.get(name).map(str::to_owned);
    let calls = AuthzCalls {
        namespace: own("namespace"),
        method: own("method"),
        path: own("path"),
        capability: own("capability"),
        tool: own("tool"),
    };
    // Every agent's policies are compiled for it.
    let found = tokio::task::block_in_place(|| control.fleet.authz_matrix(&calls));
    json(&found.map_err(Denied::bad)?)
}

/// What AgentSecurityPolicies say, and what of it is enforced.
pub(super) fn report(control: &Arc<Control>, asked: &Asked) -> Result<Answer, Denied> {
    let query = asked.query(&["name", "namespace"])?;
    let registered = control.fleet.presence().into_iter().map(|own| own.agent);
    let mut reports = governance::report(&control.resources.newest().model, registered);
    reports.policies.retain(|policy| policy.is_named(query.get("name"), query.get("namespace")));
    json(&reports)
}
