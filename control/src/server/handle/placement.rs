//! Placement: what is where, why, and what people change of it.

use std::sync::Arc;

use http::StatusCode;

use super::{Asked, done};
use crate::api::types::{MarkNode, Moved, Rebalance, Scale, TailLines};
use crate::orchestrator::NotDone;
use crate::server::Control;
use crate::server::answer::{Answer, Denied, json};
use crate::server::body::parse;

impl From<NotDone> for Denied {
    fn from(not: NotDone) -> Denied {
        match not {
            NotDone::Unknown(_) => Denied::not_found(not.to_string()),
            NotDone::Invalid(why) => Denied::bad(why),
            NotDone::NotLeading(_) => Denied::new(StatusCode::MISDIRECTED_REQUEST, not.to_string()),
            NotDone::Store(error) => error.into(),
        }
    }
}

pub(super) fn view(control: &Control, asked: &Asked) -> Result<Answer, Denied> {
    asked.query(&[])?;
    json(&control.orchestrator.view()?)
}

pub(super) fn explain(control: &Control, asked: &Asked) -> Result<Answer, Denied> {
    let query = asked.query(&["agent"])?;
    let agent =
        query.get("agent").ok_or_else(|| Denied::bad("parameter `agent` is missing: namespace/name"))?;
    json(&control.orchestrator.explain(agent)?)
}

pub(super) async fn scale(control: &Arc<Control>, asked: &Asked) -> Result<Answer, Denied> {
    let wanted: Scale = parse(&asked.body)?;
    let message =
        control.orchestrator.scale(&wanted.agent, wanted.region.as_deref(), wanted.replicas).await?;
    asked.wrote(&format!("scale {}", wanted.agent), None);
    done(message)
}

pub(super) async fn mark(control: &Arc<Control>, asked: &Asked) -> Result<Answer, Denied> {
    let wanted: MarkNode = parse(&asked.body)?;
    let message = control.orchestrator.mark(&wanted.node, wanted.mark).await?;
    asked.wrote(&format!("mark node {}", wanted.node), None);
    done(message)
}

pub(super) async fn rebalance(control: &Arc<Control>, asked: &Asked) -> Result<Answer, Denied> {
    let wanted: Rebalance = parse(&asked.body)?;
    let moves = control.orchestrator.rebalance(wanted.moves, wanted.dry_run).await?;
    asked.wrote("rebalance", None);
    json(&Moved { moves })
}

pub(super) async fn tail(control: &Arc<Control>, asked: &Asked) -> Result<Answer, Denied> {
    let query = asked.query(&["replica", "lines"])?;
    let replica = query.get("replica").ok_or_else(|| Denied::bad("parameter `replica` is missing"))?;
    let lines = u32::try_from(query.number("lines", 100)?).unwrap_or(u32::MAX).clamp(1, 10_000);
    json(&TailLines { lines: control.orchestrator.tail(replica, lines).await? })
}
