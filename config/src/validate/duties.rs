//! What the levels of an orchestrator do, by their `responsibilities`.

use crate::model::{Duties, LEVELS};
use crate::raw::{LevelSpec, OrchestratorSpec, Text, nearest};
use crate::yaml::clip_text;

use super::check::Cx;

/// What each level spans, in the order of [`LEVELS`].
const SCOPES: [&str; 3] = ["global", "node", "agent-group"];

/// Reads what is on: everything that no level leaves out of its list.
pub(super) fn read(cx: &mut Cx<'_>, spec: &OrchestratorSpec<'_>) -> Duties {
    let mut duties = Duties::default();
    if let Some(kind) = spec.kind.filter(|kind| kind.value != "hierarchical") {
        let message = format!("there is no orchestrator `{}`", clip_text(kind.value));
        cx.error_hint(kind.node, message, "known: hierarchical");
    }
    let mut seen: Vec<&str> = Vec::new();
    for level in spec.levels.iter().flatten() {
        let Some(name) = level.name else { continue };
        if seen.contains(&name.value) {
            cx.error(name.node, format!("the level `{}` is there already", clip_text(name.value)));
        }
        seen.push(name.value);
        match LEVELS.iter().position(|(known, _)| *known == name.value) {
            Some(place) => self::level(cx, level, place, &mut duties),
            None => unknown(cx, name, "level", &LEVELS.map(|(known, _)| known)),
        }
    }
    duties
}

fn level(cx: &mut Cx<'_>, spec: &LevelSpec<'_>, place: usize, duties: &mut Duties) {
    let (level, own) = LEVELS[place];
    if let Some(scope) = spec.scope.filter(|scope| scope.value != SCOPES[place]) {
        let message = format!("`{}` does nothing", clip_text(scope.value));
        cx.warn(scope.node, message, format!("the scope of {level} is `{}`", SCOPES[place]));
    }
    let Some(named) = &spec.responsibilities else { return };
    for word in own {
        duties.set(word, named.iter().any(|text| text.value == word));
    }
    for text in named.iter().filter(|text| !own.contains(&text.value)) {
        let all: Vec<&str> = LEVELS.iter().flat_map(|(_, words)| *words).collect();
        let home = LEVELS.iter().find(|(_, words)| words.contains(&text.value));
        match home {
            Some((home, _)) => {
                let message = format!("`{}` is no responsibility of {level}", text.value);
                cx.error_hint(text.node, message, format!("it is one of {home}"));
            }
            None => unknown(cx, *text, "responsibility", &all),
        }
    }
    if named.is_empty() {
        let at = spec.node.get("responsibilities").unwrap_or(spec.node);
        cx.warn(at, format!("{level} does nothing"), "leave `responsibilities` out, and it does everything");
    }
}

fn unknown(cx: &mut Cx<'_>, text: Text<'_>, what: &str, known: &[&str]) {
    let hint = match nearest(text.value, known.iter().copied()) {
        Some(near) => format!("did you mean `{near}`?"),
        None => format!("known: {}", known.join(", ")),
    };
    cx.error_hint(text.node, format!("there is no {what} `{}`", clip_text(text.value)), hint);
}
