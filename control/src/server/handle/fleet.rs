//! The fleet: its sidecars, its agents, and what a request would get.

use std::time::Duration;

use super::Asked;
use crate::api::types::Question;
use crate::server::Control;
use crate::server::answer::{Answer, Denied, json};
use crate::server::body::parse;

/// The longest that a `wait` may take; a client asks again.
const LONGEST_WAIT: u64 = 10 * 60 * 1000;

pub(super) fn status(control: &Control, asked: &Asked) -> Result<Answer, Denied> {
    asked.query(&[])?;
    json(&control.fleet.status())
}

pub(super) async fn wait(control: &Control, asked: &Asked) -> Result<Answer, Denied> {
    let query = asked.query(&["version", "timeout_ms"])?;
    let newest = control.resources.newest().version;
    let version = query.number("version", newest)?;
    if version > newest {
        return Err(Denied::not_found(format!("there is no version {version}; the newest is {newest}")));
    }
    let timeout = Duration::from_millis(query.number("timeout_ms", 30_000)?.min(LONGEST_WAIT));
    let _long = asked.activity.long();
    let mut closing = control.closing.subscribe();
    tokio::select! {
        waited = control.fleet.wait(version, timeout) => json(&waited),
        _ = closing.wait_for(|closing| *closing) => {
            Err(Denied::unavailable("the control plane is ending; ask again"))
        }
    }
}

pub(super) fn agents(control: &Control, asked: &Asked) -> Result<Answer, Denied> {
    let query = asked.query(&["capability", "constraint"])?;
    let agents = control.fleet.agents(query.get("capability"), query.get("constraint"));
    json(&agents.map_err(Denied::bad)?)
}

pub(super) fn explain(control: &Control, asked: &Asked) -> Result<Answer, Denied> {
    let question: Question = parse(&asked.body)?;
    // A plan is compiled for it, which takes a while when there are ten thousand routes.
    let explained = tokio::task::block_in_place(|| control.fleet.explain(&question));
    json(&explained.map_err(Denied::bad)?)
}
