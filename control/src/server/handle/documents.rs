//! Documents: apply, diff, get, delete, history, rollback, backup.

use std::sync::Arc;

use http::StatusCode;
use pilotfish_config::wire::Key;

use super::Asked;
use crate::api::types::{Applied, Diff, File, Rollback, Submission};
use crate::backup;
use crate::resources::{Refusal, default_deny};
use crate::server::Control;
use crate::server::answer::{Answer, Denied, json, typed};
use crate::server::body::parse;

impl From<Refusal> for Denied {
    fn from(refusal: Refusal) -> Denied {
        match refusal {
            Refusal::Invalid(failure) => Denied::invalid(failure),
            Refusal::Conflict(why) => Denied::new(StatusCode::CONFLICT, why),
            Refusal::NotFound(why) => Denied::not_found(why),
            Refusal::Store(error) => error.into(),
        }
    }
}

/// What was sent, with what only the control plane knows.
fn submission(control: &Control, asked: &Asked) -> Result<Submission, Denied> {
    let mut submission: Submission = parse(&asked.body)?;
    let agents = control.fleet.presence();
    let named = agents.iter().filter_map(|own| own.agent.split_once('/'));
    submission.registered =
        named.map(|(namespace, agent)| format!("{agent}.{namespace}.svc.cluster.local")).collect();
    Ok(submission)
}

pub(super) async fn apply(control: &Control, asked: &Asked) -> Result<Answer, Denied> {
    let submission = submission(control, asked)?;
    let named = |file: &File| file.text.contains("default-deny");
    if control.fleet.default_deny() && submission.files.iter().any(named) {
        let planned = control.resources.plan(&submission).await?;
        let own = default_deny::key();
        if planned.changes.iter().any(|change| change.key == own) {
            return Err(Denied::new(StatusCode::CONFLICT, default_deny::why_not()));
        }
    }
    let applied = control.resources.apply(&submission, asked.caller.name()).await?;
    if !submission.dry_run {
        wrote(asked, "apply", &applied);
    }
    json(&applied)
}

fn wrote(asked: &Asked, what: &str, applied: &Applied) {
    asked.wrote(what, Some(applied.version));
}

pub(super) async fn diff(control: &Control, asked: &Asked) -> Result<Answer, Denied> {
    let submission = submission(control, asked)?;
    let planned = control.resources.plan(&submission).await?;
    let sidecars = tokio::task::block_in_place(|| control.fleet.preview(&planned));
    json(&Diff { documents: planned.differences(), sidecars, warnings: planned.warnings.clone() })
}

pub(super) fn list(control: &Control, asked: &Asked) -> Result<Answer, Denied> {
    let query = asked.query(&["kind", "namespace", "name"])?;
    json(&control.resources.get(query.get("kind"), query.get("namespace"), query.get("name")))
}

pub(super) async fn delete(control: &Control, asked: &Asked) -> Result<Answer, Denied> {
    let (kind, namespace, name) = (asked.segment(0), asked.segment(1), asked.segment(2));
    let key = Key { kind: kind.into(), namespace: namespace.into(), name: name.into() };
    if key == default_deny::key() && control.fleet.default_deny() {
        return Err(Denied::new(StatusCode::CONFLICT, default_deny::why_not()));
    }
    let applied = control.resources.delete(std::slice::from_ref(&key), asked.caller.name()).await?;
    wrote(asked, &format!("delete {key}"), &applied);
    json(&applied)
}

pub(super) async fn history(control: &Control, asked: &Asked) -> Result<Answer, Denied> {
    let limit = asked.query(&["limit"])?.number("limit", 20)?.clamp(1, 1000);
    json(&control.resources.history(limit as usize).await?)
}

pub(super) async fn rollback(control: &Control, asked: &Asked) -> Result<Answer, Denied> {
    let Rollback { version } = parse(&asked.body)?;
    let applied = control.resources.rollback(version, asked.caller.name()).await?;
    wrote(asked, &format!("rollback to {version}"), &applied);
    json(&applied)
}

pub(super) async fn backup(control: &Arc<Control>, asked: &Asked) -> Result<Answer, Denied> {
    let written = backup::write(&*control.store, &control.data).await;
    let bytes = written.map_err(|error| Denied::new(StatusCode::SERVICE_UNAVAILABLE, error.to_string()))?;
    asked.wrote("backup", None);
    Ok(typed(StatusCode::OK, "application/octet-stream", bytes))
}
