//! `pilotfish diff`: what a change would do, document by document and sidecar by sidecar.

use std::fmt::Write as _;

use clap::Args;
use similar::{ChangeTag, TextDiff};

use super::changes;
use super::client::{Client, Connection};
use super::failed::{Failed, Why};
use super::files::{Files, warn};
use super::human::count;
use super::output::Output;
use super::terminal::{Terminal, Tone, harmless};
use crate::api::types::{Diff as Answer, Difference, SidecarDiff};

/// Say what applying files would change.
///
/// Ends with 0 when nothing would, with 1 when something would (as `kubectl diff` does), with 2 or more on failure.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  pilotfish diff -f routes.yaml
  pilotfish diff -f mesh/ --prune -o json
  pilotfish diff -f mesh/ || pilotfish apply -f mesh/ --wait

Prints:
  VirtualService production/chat changed
  --- production/chat
  +++ production/chat
  @@ -7,5 +7,5 @@
  -        weight: 90
  +        weight: 50
  the sidecars of 1 agent would get something else:
    production/web (2 instances): VirtualService production/chat changed")]
pub struct Diff {
    #[command(flatten)]
    files: Files,

    /// Also what `apply --prune` would remove
    #[arg(long)]
    prune: bool,

    #[command(flatten)]
    output: Output,

    #[command(flatten)]
    connection: Connection,
}

impl Diff {
    /// Does it.
    ///
    /// # Errors
    /// See [`Failed`]; differences are [`Why::Refused`], that is exit code 1, and are told already.
    pub async fn run(self) -> Result<(), Failed> {
        let mut submission = self.files.submission()?;
        submission.prune = self.prune;
        let client = Client::open(&self.connection).await?;
        let diff: Answer = client.post("/v1/diff", &submission).await.map_err(|trouble| {
            // 1 means differences here, so a refusal needs another code.
            let failed = Failed::from(trouble);
            let why = if failed.why == Why::Refused { Why::Usage } else { failed.why };
            Failed { why, ..failed }
        })?;
        warn(&diff.warnings);
        self.output.print(&diff, |_| table(&diff, &Terminal::stdout()))?;
        if diff.documents.is_empty() { Ok(()) } else { Err(Failed::told(Why::Refused)) }
    }
}

fn table(diff: &Answer, terminal: &Terminal) -> String {
    let mut text = String::new();
    for difference in &diff.documents {
        text.push_str(&document(difference, terminal));
    }
    if diff.documents.is_empty() {
        return text;
    }
    if diff.sidecars.is_empty() {
        text.push_str("no sidecar would get something else\n");
        return text;
    }
    let agents = count(diff.sidecars.len(), "agent");
    let _ = writeln!(text, "the sidecars of {agents} would get something else:");
    for sidecar in &diff.sidecars {
        let _ = writeln!(text, "  {}", concerned(sidecar, terminal));
    }
    text
}

fn document(difference: &Difference, terminal: &Terminal) -> String {
    let word = terminal.paint(changes::tone(difference.action), changes::word(difference.action));
    let mut text =
        format!("{} {word}\n", terminal.paint(Tone::Strong, &harmless(&difference.key.to_string(), false)));
    let before = difference.before.as_deref().unwrap_or_default();
    let after = difference.after.as_deref().unwrap_or_default();
    let name = harmless(&format!("{}/{}", difference.key.namespace, difference.key.name), false);
    let side = |there: bool| if there { name.as_str() } else { "/dev/null" };
    let (from, to) = (side(difference.before.is_some()), side(difference.after.is_some()));
    text.push_str(&unified(before, after, (from, to), terminal));
    text
}

/// A unified diff with three lines of context.
pub fn unified(before: &str, after: &str, names: (&str, &str), terminal: &Terminal) -> String {
    let diff = TextDiff::from_lines(before, after);
    let mut text = String::new();
    let _ = writeln!(text, "{}", terminal.paint(Tone::Bad, &format!("--- {}", names.0)));
    let _ = writeln!(text, "{}", terminal.paint(Tone::Good, &format!("+++ {}", names.1)));
    for hunk in diff.unified_diff().context_radius(3).iter_hunks() {
        let _ = writeln!(text, "{}", terminal.paint(Tone::Place, &hunk.header().to_string()));
        for change in hunk.iter_changes() {
            let line = harmless(change.value().trim_end_matches('\n'), false);
            let _ = match change.tag() {
                ChangeTag::Delete => writeln!(text, "{}", terminal.paint(Tone::Bad, &format!("-{line}"))),
                ChangeTag::Insert => writeln!(text, "{}", terminal.paint(Tone::Good, &format!("+{line}"))),
                ChangeTag::Equal => writeln!(text, " {line}"),
            };
        }
    }
    text
}

fn concerned(sidecar: &SidecarDiff, terminal: &Terminal) -> String {
    let lines: Vec<String> = sidecar.changes.iter().map(|change| changes::line(change, terminal)).collect();
    let name = harmless(&format!("{}/{}", sidecar.namespace, sidecar.agent), false);
    format!("{name} ({}): {}", count(sidecar.instances, "instance"), lines.join(", "))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_diff_has_context_and_places() {
        let before = "a\nb\nc\nd\ne\nf\n";
        let after = "a\nb\nc\nd\nE\nf\n";
        let text = unified(before, after, ("x", "y"), &Terminal::PIPE);
        assert_eq!(text, "--- x\n+++ y\n@@ -2,5 +2,5 @@\n b\n c\n d\n-e\n+E\n f\n");
    }

    #[test]
    fn colours_are_for_lines_that_differ() {
        let terminal = Terminal { size: None, colour: true };
        let text = unified("a\n", "b\n", ("x", "y"), &terminal);
        assert!(text.contains("\x1b[31m-a\x1b[0m\n\x1b[32m+b\x1b[0m\n"), "{text:?}");
    }
}
