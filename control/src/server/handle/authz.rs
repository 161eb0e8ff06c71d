//! Who may call whom, and why.

use std::sync::Arc;

use super::Asked;
use crate::api::types::{AuthzCalls, AuthzQuestion};
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
    let query = asked.query(&["from", "to", "method", "path", "host"])?;
    let own = |name: &str| query.get(name).map(str::to_owned);
    Ok(AuthzQuestion {
        from: own("from").unwrap_or_default(),
        to: own("to").ok_or_else(|| Denied::bad("parameter `to` is missing: who is called"))?,
        method: own("method").unwrap_or_else(|| "GET".into()),
        path: own("path").unwrap_or_else(|| "/".into()),
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

pub(super) fn report(_control: &Arc<Control>, _asked: &Asked) -> Result<Answer, Denied> {
    Err(Denied::not_found("not there yet"))
}
