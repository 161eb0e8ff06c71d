//! The flag `--wait`: until every sidecar that a version concerns serves it.

use std::fmt::Write as _;
use std::time::{Duration, Instant};

use clap::Args;
use pilotfish_config::units;

use super::client::{Client, query};
use super::failed::{Failed, Why};
use super::human::{self, count};
use super::terminal::{Terminal, harmless};
use crate::api::types::{SidecarStatus, Waited};

/// How often the progress is refreshed on a terminal.
const REFRESH: Duration = Duration::from_millis(250);
/// One question takes at most this long; proxies between would cut longer ones.
const QUESTION: Duration = Duration::from_secs(20);

/// The flag.
#[derive(Debug, Clone, Default, Args)]
pub struct Wait {
    /// Return when every sidecar that it concerns serves the new version, or say who does not and why (exit code 5).
    /// Alone it means 30s
    #[arg(long, value_name = "DURATION", num_args = 0..=1, default_missing_value = "30s", value_parser = units::duration)]
    pub wait: Option<Duration>,
}

impl Wait {
    /// Waits, if it was asked to.
    ///
    /// # Errors
    /// The control plane does not answer. That sidecars do not serve the version is in the answer.
    pub async fn run(&self, client: &Client, version: u64) -> Result<Option<Waited>, Failed> {
        let Some(limit) = self.wait else { return Ok(None) };
        let terminal = Terminal::stderr();
        let started = Instant::now();
        loop {
            let left = limit.saturating_sub(started.elapsed());
            let slice = left.min(if terminal.is_live() { REFRESH } else { QUESTION });
            let slice = Duration::from_millis(u64::try_from(slice.as_millis()).unwrap_or(u64::MAX));
            let asked = Instant::now();
            let waited = ask(client, version, slice).await?;
            // What is not decided is answered when its time is over, not before.
            let decided = waited.done || asked.elapsed() < slice;
            if decided || slice.is_zero() {
                progress(&terminal, "");
                return Ok(Some(waited));
            }
            let served = waited.concerned.saturating_sub(waited.missing.len());
            let total = count(waited.concerned, "sidecar");
            let passed = human::span(started.elapsed().as_secs());
            progress(&terminal, &format!("version {version}: {served} of {total} serve it ({passed})"));
        }
    }
}

async fn ask(client: &Client, version: u64, slice: Duration) -> Result<Waited, Failed> {
    let (version, millis) = (version.to_string(), slice.as_millis().to_string());
    let path = query("/v1/wait", &[("version", Some(&version)), ("timeout_ms", Some(&millis))]);
    Ok(client.get_slowly(&path, slice).await?)
}

/// Replaces the line of progress; only on a terminal.
pub fn progress(terminal: &Terminal, text: &str) {
    if terminal.is_live() {
        eprint!("\r\x1b[K{text}");
    }
}

/// The result for people.
pub fn served(waited: &Waited) -> String {
    match waited.concerned {
        0 => "no sidecar is concerned\n".into(),
        number => format!("{} serve{} it\n", count(number, "sidecar"), if number == 1 { "s" } else { "" }),
    }
}

/// A failure when not all serve it.
///
/// # Errors
/// The sidecars that do not, with reasons.
pub fn verdict(waited: &Waited, version: u64) -> Result<(), Failed> {
    if waited.done {
        return Ok(());
    }
    let missing = waited.missing.len();
    if missing == 0 {
        // Another control plane of the same store took it.
        let message = format!("the control plane that answers does not have version {version} yet");
        return Err(Failed { why: Why::NotServed, message });
    }
    let mut message = format!(
        "{missing} of {} do{} not serve version {version}:",
        count(waited.concerned, "sidecar"),
        if missing == 1 { "es" } else { "" }
    );
    for sidecar in &waited.missing {
        let _ = write!(message, "\n  {}", harmless(&reason(sidecar, version), true));
    }
    Err(Failed { why: Why::NotServed, message })
}

/// Why one sidecar does not serve it.
fn reason(sidecar: &SidecarStatus, version: u64) -> String {
    let name = format!("{}/{} ({})", sidecar.namespace, sidecar.agent, short(&sidecar.instance));
    let at = sidecar.serving;
    // A refusal of an earlier version says nothing of this one.
    match sidecar.refused.as_ref().filter(|refused| refused.version >= version) {
        Some(refused) => format!("{name} refused it and serves {at}: {}", refused.reasons.join("\n    ")),
        None if sidecar.connected => format!("{name} is at version {at}; not yet"),
        None => {
            let seen = human::moment(sidecar.last_contact, human::now());
            format!("{name} is not connected, last seen {seen}, at version {at}")
        }
    }
}

/// Enough of an instance's name to tell it from others.
pub fn short(instance: &str) -> String {
    instance.chars().take(8).collect()
}
