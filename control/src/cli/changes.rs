//! What a change did, as lines: `VirtualService production/chat created`.

use std::fmt::Write as _;

use super::human::count;
use super::terminal::{Terminal, Tone, harmless};
use crate::api::types::{Action, Applied, Change};

/// The word of an action.
pub const fn word(action: Action) -> &'static str {
    match action {
        Action::Created => "created",
        Action::Changed => "changed",
        Action::Unchanged => "unchanged",
        Action::Removed => "removed",
    }
}

/// The colour of an action.
pub const fn tone(action: Action) -> Tone {
    match action {
        Action::Created => Tone::Good,
        Action::Changed => Tone::Warn,
        Action::Unchanged => Tone::Dim,
        Action::Removed => Tone::Bad,
    }
}

/// One document of a change.
pub fn line(change: &Change, terminal: &Terminal) -> String {
    let painted = terminal.paint(tone(change.action), word(change.action));
    format!("{} {painted}", harmless(&change.key.to_string(), false))
}

/// Every document, then the version.
pub fn applied(applied: &Applied, dry_run: bool, terminal: &Terminal) -> String {
    let mut text = String::new();
    for change in &applied.changes {
        let _ = writeln!(text, "{}{}", line(change, terminal), if dry_run { " (dry run)" } else { "" });
    }
    let nothing = applied.changes.iter().all(|change| change.action == Action::Unchanged);
    let _ = match (dry_run, nothing) {
        (true, _) => writeln!(text, "nothing was stored; the version is still {}", applied.version),
        (false, true) => writeln!(text, "version {} (nothing differs)", applied.version),
        (false, false) => writeln!(text, "version {}", applied.version),
    };
    text
}

/// In a few words: `2 created, 1 removed`.
pub fn tally(changes: &[Change]) -> String {
    let number = |action| changes.iter().filter(|change| change.action == action).count();
    let part = |action| match number(action) {
        0 => None,
        number => Some(format!("{number} {}", word(action))),
    };
    let parts: Vec<String> =
        [Action::Created, Action::Changed, Action::Removed].into_iter().filter_map(part).collect();
    match (parts.is_empty(), changes) {
        (false, _) => parts.join(", "),
        (true, []) => "nothing".into(),
        (true, changes) => format!("{} unchanged", count(changes.len(), "document")),
    }
}
