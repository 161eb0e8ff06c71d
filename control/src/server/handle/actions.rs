//! Response actions: quarantine, restriction, and their end.

use std::collections::BTreeSet;
use std::sync::Arc;

use pilotfish_config::model::Capability;
use pilotfish_config::raw::nearest;
use pilotfish_config::wire::{Action, Hold};
use pilotfish_identity::SpiffeId;

use super::{Asked, done};
use crate::actions::{NotHeld, word};
use crate::api::types::Act;
use crate::cli::{agent_name, human};
use crate::server::Control;
use crate::server::answer::{Answer, Denied, json};
use crate::server::body::parse;

/// The longest that an agent is held by time: a year.
const LONGEST: u64 = 366 * 86_400;
/// The longest word on why.
const LONGEST_WHY: usize = 500;
/// The most capabilities that an agent is restricted to.
const MOST_CAPABILITIES: usize = 100;

impl From<NotHeld> for Denied {
    fn from(not: NotHeld) -> Denied {
        match not {
            NotHeld::TooMany => Denied::bad(not.to_string()),
            NotHeld::Free(_) => Denied::not_found(not.to_string()),
            NotHeld::Store(error) => error.into(),
        }
    }
}

pub(super) fn list(control: &Arc<Control>, asked: &Asked) -> Result<Answer, Denied> {
    asked.query(&[])?;
    json(&*control.actions.newest())
}

pub(super) async fn act(control: &Arc<Control>, asked: &Asked) -> Result<Answer, Denied> {
    let act: Act = parse(&asked.body)?;
    let agent = act.agent.as_str();
    let named = agent.split_once('/').ok_or_else(|| Denied::bad("`agent` is no namespace/name"))?;
    SpiffeId::agent(&control.trust_domain, named.0, named.1)
        .map_err(|error| Denied::bad(error.to_string()))?;
    let Some(hold) = act.hold else { return release(control, asked, agent).await };
    let hold = checked(hold)?;
    if !act.force {
        exists(control, agent)?;
    }
    if act.why.len() > LONGEST_WHY {
        return Err(Denied::bad(format!("`why` is longer than {LONGEST_WHY} bytes")));
    }
    let since = control.actions.now();
    let until = match act.for_seconds {
        Some(0) => {
            return Err(Denied::bad("for no time at all: leave `for_seconds` out, or release the agent"));
        }
        Some(seconds) if seconds > LONGEST => {
            return Err(Denied::bad("for more than a year: leave `for_seconds` out"));
        }
        seconds => seconds.map(|seconds| control.actions.end_of(seconds)),
    };
    let by = asked.caller.name().to_owned();
    let action = Action { agent: agent.to_owned(), hold, until, since, by, why: act.why };
    let before = control.actions.newest().actions.iter().find(|own| own.agent == agent).map(word);
    control.actions.hold(&action).await?;
    let (did, now) = match &action.hold {
        Hold::Quarantine => (
            "quarantine".to_owned(),
            "is quarantined: it calls nobody, nobody calls it, and its open connections are cut".to_owned(),
        ),
        Hold::Restrict(to) => {
            let to = to.join(", ");
            (
                format!("restrict to {to}"),
                format!(
                    "may only ask for {to}: its other calls are refused, and its open connections are cut"
                ),
            )
        }
    };
    asked.wrote(&format!("{did} {agent}"), None);
    let ends = match act.for_seconds {
        Some(seconds) => format!("it ends in {}", human::span(seconds)),
        None => "it lasts until somebody ends it".to_owned(),
    };
    // What it was held to is over, were it stricter.
    let instead = before.map_or(String::new(), |before| format!(", in place of what was: it was {before}"));
    let nobody = nobody_has(control, &action.hold);
    done(format!("{agent} {now}; {ends}{instead}\n{nobody}`pilotfish release {agent}` undoes it"))
}

async fn release(control: &Arc<Control>, asked: &Asked, agent: &str) -> Result<Answer, Denied> {
    let held = control.actions.release(agent).await?;
    asked.wrote(&format!("release {agent}"), None);
    done(format!("{agent} is free again: it was {}", word(&held)))
}

/// What an agent is held to, as sidecars compare it.
fn checked(hold: Hold) -> Result<Hold, Denied> {
    let Hold::Restrict(names) = hold else { return Ok(hold) };
    if names.is_empty() || names.len() > MOST_CAPABILITIES {
        return Err(Denied::bad(format!(
            "name 1 to {MOST_CAPABILITIES} capabilities; an agent that may ask for none is quarantined"
        )));
    }
    let mut known = BTreeSet::new();
    for name in &names {
        let capability = Capability::parse(name).map_err(Denied::bad)?;
        if capability.version.is_some() {
            return Err(Denied::bad(format!(
                "`{name}`: an agent is restricted to a capability in all its versions"
            )));
        }
        known.insert(capability.name);
    }
    Ok(Hold::Restrict(known.into_iter().collect()))
}

/// Of which capabilities that an agent is restricted to nobody has heard: it is held all the same, to less than was meant perhaps.
fn nobody_has(control: &Control, hold: &Hold) -> String {
    let Hold::Restrict(wanted) = hold else { return String::new() };
    let known = control.fleet.capability_names();
    let mut text = String::new();
    for name in wanted.iter().filter(|name| !known.contains(*name)) {
        let near = nearest(name, known.iter().map(String::as_str));
        let near = near.map(|near| format!("; did you mean `{near}`?")).unwrap_or_default();
        text += &format!("nobody has the capability `{name}` now{near}\n");
    }
    text
}

/// Whether anybody has heard of an agent: a typing error must not look like a quarantine.
fn exists(control: &Control, agent: &str) -> Result<(), Denied> {
    let mut known: BTreeSet<String> = control.fleet.presence().into_iter().map(|own| own.agent).collect();
    known.extend(control.actions.newest().actions.iter().map(|action| action.agent.clone()));
    let model = &control.resources.newest().model;
    for cluster in &model.agent_clusters {
        let namespace = cluster.meta.namespace();
        known.extend(cluster.agents.iter().map(|own| format!("{namespace}/{}", own.name)));
    }
    if known.contains(agent) {
        return Ok(());
    }
    let near = match agent_name::near(agent, known.iter().map(String::as_str)) {
        Some(near) => format!("did you mean {near}?"),
        None => "`pilotfish agents` lists those that are;".to_owned(),
    };
    Err(Denied::not_found(format!(
        "no agent {agent} is registered or in the documents; {near} --force holds it all the same, for when it comes"
    )))
}
