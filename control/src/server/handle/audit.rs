//! The audit log: what was decided, and whether the log is whole.

use std::sync::Arc;
use std::time::SystemTime;

use tokio::sync::Semaphore;

use super::Asked;
use super::traces::moment;
use crate::audit::{AuditStore, Query, holders};
use crate::server::Control;
use crate::server::answer::{Answer, Denied, json};

/// Records that a list has when nobody says how many, and at most.
const LIMIT: u64 = 50;
const MOST: u64 = 10_000;

/// Reads of the store at a time: the others wait, so that none takes the machine.
static READERS: Semaphore = Semaphore::const_new(2);

pub(super) async fn list(control: &Arc<Control>, asked: &Asked) -> Result<Answer, Denied> {
    let query = asked.query(&["agent", "caller", "denied", "since", "until", "trace", "policy", "limit"])?;
    let text = |name: &str| query.get(name).map(str::to_owned);
    let denied = match query.get("denied") {
        None | Some("false") => false,
        Some("true") => true,
        Some(_) => return Err(Denied::bad("parameter `denied` is neither `true` nor `false`")),
    };
    let limit = query.number("limit", LIMIT)?;
    if limit == 0 || limit > MOST {
        return Err(Denied::bad(format!("parameter `limit` is not between 1 and {MOST}")));
    }
    let now = SystemTime::now();
    let wanted = Query {
        agent: text("agent"),
        caller: text("caller"),
        denied,
        since: moment(&query, "since", now)?,
        until: moment(&query, "until", now)?,
        trace: text("trace"),
        policy: text("policy"),
        limit: usize::try_from(limit).unwrap_or(usize::MAX),
    };
    json(&reading(control, move |store| store.find(&wanted)).await?)
}

pub(super) async fn verify(control: &Arc<Control>, asked: &Asked) -> Result<Answer, Denied> {
    let query = asked.query(&["agent"])?;
    let agent = query.get("agent").map(str::to_owned);
    json(&reading(control, move |store| store.verify(agent.as_deref())).await?)
}

pub(super) async fn holders(control: &Arc<Control>, asked: &Asked) -> Result<Answer, Denied> {
    asked.query(&[])?;
    json(&holders::all(control.store.as_ref()).await.map_err(Denied::from)?)
}

/// Reads the store off the threads that serve.
async fn reading<T: Send + 'static>(
    control: &Control,
    read: impl FnOnce(&AuditStore) -> std::io::Result<T> + Send + 'static,
) -> Result<T, Denied> {
    let _place = READERS.acquire().await;
    let store = control.audit.clone();
    let done = tokio::task::spawn_blocking(move || read(&store)).await;
    let done = done.map_err(|_| Denied::failed("the audit log could not be read"))?;
    done.map_err(|error| Denied::failed(format!("the audit log cannot be read: {error}")))
}
