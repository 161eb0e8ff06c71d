//! `pilotfish status --watch`: redrawn in place on a terminal, one line for each change elsewhere.

use std::collections::BTreeMap;
use std::time::Duration;

use super::{fetch, placement, screen};
use crate::api::types::{FleetStatus, SidecarStatus};
use crate::cli::client::Client;
use crate::cli::failed::{Failed, Why};
use crate::cli::human;
use crate::cli::output::{Format, Output};
use crate::cli::terminal::{self, Terminal, harmless};

/// How often the status is asked for.
const EVERY: Duration = Duration::from_secs(1);

/// Runs until it is interrupted. A control plane that is away for a while is waited for.
///
/// # Errors
/// The control plane refuses; not that it is away.
pub(super) async fn watch(client: &Client, namespace: Option<&str>, output: Output) -> Result<(), Failed> {
    let terminal = Terminal::stdout();
    let mut drawn = 0;
    let mut last: Option<FleetStatus> = None;
    let mut away = false;
    loop {
        let now = human::now();
        match fetch(client, namespace).await {
            Ok(status) => {
                if output.is_data() {
                    lines_of_data(&status, last.as_ref(), output)?;
                } else if terminal.is_live() {
                    let wide = output.format == Format::Wide;
                    let screen = screen(&status, wide, now, &terminal) + &placement(client).await;
                    drawn = redraw(&screen, drawn, &terminal);
                } else {
                    let lines = changes(last.as_ref(), &status);
                    let stamp = human::date(now);
                    terminal::print(
                        &lines.iter().map(|line| format!("{stamp}  {line}\n")).collect::<String>(),
                    );
                }
                last = Some(status);
                away = false;
            }
            Err(failed) if failed.why == Why::Unreachable => {
                if terminal.is_live() {
                    drawn = redraw(&format!("{}\n", failed.message), drawn, &terminal);
                } else if !away {
                    eprintln!("{}  {}", human::date(now), failed.message);
                }
                away = true;
            }
            Err(failed) => return Err(failed),
        }
        tokio::time::sleep(EVERY).await;
    }
}

/// Draws over the last screen; gives how many lines it has. Nothing is hidden or cleared that an interrupted command
/// would have to restore.
fn redraw(text: &str, drawn: usize, terminal: &Terminal) -> usize {
    let rows = terminal.size.map_or(24, |(_, rows)| rows).saturating_sub(1).max(2);
    let all = text.lines().count();
    let mut lines: Vec<String> = text.lines().take(rows).map(str::to_owned).collect();
    if all > rows {
        lines.truncate(rows - 1);
        lines.push(format!("... {} more lines; -n narrows", all - rows + 1));
    }
    let up = if drawn > 0 { format!("\x1b[{drawn}A") } else { String::new() };
    let body: String = lines.iter().map(|line| format!("{line}\x1b[K\n")).collect();
    terminal::print(&format!("{up}\r{body}\x1b[J"));
    lines.len()
}

/// One object a line, when something differs.
fn lines_of_data(status: &FleetStatus, last: Option<&FleetStatus>, output: Output) -> Result<(), Failed> {
    if last.is_some_and(|last| changes(Some(last), status).is_empty()) {
        return Ok(());
    }
    if output.format == Format::Yaml {
        terminal::print("---\n");
        return output.print(status, |_| String::new());
    }
    let line = serde_json::to_string(status).map_err(|error| Failed::refused(error.to_string()))?;
    terminal::print(&(line + "\n"));
    Ok(())
}

type Name<'a> = (&'a str, &'a str, &'a str);

fn by_name(status: &FleetStatus) -> BTreeMap<Name<'_>, &SidecarStatus> {
    status
        .sidecars
        .iter()
        .map(|sidecar| ((&*sidecar.namespace, &*sidecar.agent, &*sidecar.instance), sidecar))
        .collect()
}

/// What differs, a line each.
fn changes(last: Option<&FleetStatus>, status: &FleetStatus) -> Vec<String> {
    let new = by_name(status);
    let old = last.map(by_name).unwrap_or_default();
    let mut lines = Vec::new();
    if last.is_none_or(|last| last.documents != status.documents) {
        lines.push(format!("documents are version {}", status.documents));
    }
    for (name, sidecar) in &new {
        let title = harmless(&format!("{}/{}", name.0, name.1), false);
        match old.get(name) {
            None => lines.push(format!("{title} {}, serves {}", word(sidecar), sidecar.serving)),
            Some(before) => lines.extend(differences(before, sidecar).map(|line| format!("{title} {line}"))),
        }
    }
    for name in old.keys().filter(|name| !new.contains_key(*name)) {
        lines.push(format!("{} is gone", harmless(&format!("{}/{}", name.0, name.1), false)));
    }
    lines
}

fn word(sidecar: &SidecarStatus) -> &'static str {
    if sidecar.connected { sidecar.status.word() } else { "away" }
}

fn differences<'a>(
    before: &'a SidecarStatus,
    after: &'a SidecarStatus,
) -> impl Iterator<Item = String> + use<'a> {
    let condition = (word(before) != word(after)).then(|| match &after.detail {
        Some(detail) => format!("{}: {}", word(after), harmless(detail, false)),
        None => word(after).to_owned(),
    });
    let serving = (before.serving != after.serving)
        .then(|| format!("serves {} (was {})", after.serving, before.serving));
    let refused = after.refused.as_ref().filter(|refused| before.refused.as_ref() != Some(*refused));
    let refused = refused.map(|refused| {
        format!("refused {}: {}", refused.version, harmless(&refused.reasons.join("; "), false))
    });
    [condition, serving, refused].into_iter().flatten()
}
