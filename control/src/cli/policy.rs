//! `pilotfish policy report`: what policies say, and what of it is enforced.

use std::fmt::Write as _;
use std::path::PathBuf;

use clap::{Args, Subcommand};
use pilotfish_config::{Options, load_texts};

use super::client::{Client, Connection, encoded};
use super::failed::{Failed, Why};
use super::files;
use super::human::count;
use super::output::Output;
use super::table::{Cell, Table};
use super::terminal::{Terminal, Tone, harmless};
use crate::api::types::{Enforced, PolicyReport, PolicyReports};
use crate::governance;

/// So many roles are shown; `-o json` has all of them.
const ROLES: usize = 50;
/// So many agents are named.
const AGENTS: usize = 8;

/// What security policies say, and what of it is enforced.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  pilotfish policy report
  pilotfish policy report production -n default
  pilotfish policy report -f policies/            # of files, without a control plane
  pilotfish policy report -o json | jq '.policies[].lines[] | select(.state != \"enforced\")'")]
pub struct Policy {
    #[command(subcommand)]
    command: PolicyCommand,
}

#[derive(Debug, Subcommand)]
enum PolicyCommand {
    /// Each AgentSecurityPolicy line by line: how it is enforced, for whom, who has its roles, and what of its frameworks is met
    Report(Box<ReportOf>),
}

#[derive(Debug, Args)]
struct ReportOf {
    /// The policy; all by default
    #[arg(value_name = "NAME")]
    name: Option<String>,

    /// Only policies of this namespace; of files: the namespace of documents that name none
    #[arg(short = 'n', long, value_name = "NAME")]
    namespace: Option<String>,

    /// Files, or folders whose .yaml and .yml files are read, instead of a control plane; `-` reads standard input
    #[arg(short = 'f', long = "file", value_name = "PATH", num_args = 1..)]
    files: Vec<PathBuf>,

    #[command(flatten)]
    output: Output,

    #[command(flatten)]
    connection: Connection,
}

impl Policy {
    /// Does it.
    ///
    /// # Errors
    /// See [`Failed`].
    pub async fn run(self) -> Result<(), Failed> {
        let PolicyCommand::Report(asked) = self.command;
        let reports = if asked.files.is_empty() { asked.ask().await? } else { asked.read()? };
        let within =
            asked.namespace.as_deref().map(|own| format!(" in the namespace `{}`", harmless(own, false)));
        let within = within.unwrap_or_default();
        if let (Some(name), true) = (&asked.name, reports.policies.is_empty()) {
            let name = harmless(name, false);
            return Err(Failed::refused(format!(
                "there is no AgentSecurityPolicy `{name}`{within}; `pilotfish policy report` tells of all"
            )));
        }
        if reports.policies.is_empty() && !asked.output.is_data() {
            eprintln!("there is no AgentSecurityPolicy{within}");
        }
        asked.output.print(&reports, |_| text(&reports, &Terminal::stdout()))
    }
}

impl ReportOf {
    async fn ask(&self) -> Result<PolicyReports, Failed> {
        let mut path = "/v1/policies/report".to_owned();
        let filters = [("name", &self.name), ("namespace", &self.namespace)];
        for (key, value) in filters.iter().filter_map(|(key, value)| Some((key, value.as_ref()?))) {
            let _ = write!(path, "{}{key}={}", if path.contains('?') { '&' } else { '?' }, encoded(value));
        }
        Ok(Client::open(&self.connection).await?.get(&path).await?)
    }

    fn read(&self) -> Result<PolicyReports, Failed> {
        let files = files::read(&self.files)?;
        let texts: Vec<(&str, &str)> =
            files.iter().map(|file| (file.name.as_str(), file.text.as_str())).collect();
        let namespace = self.namespace.clone().unwrap_or_else(|| "default".into());
        let options = Options { default_namespace: namespace, ..Options::default() };
        let loaded = load_texts(&texts, &options);
        let Some(model) = loaded.model else {
            for diagnostic in &loaded.report.diagnostics {
                eprintln!("{}", files::coloured(&diagnostic.to_string(), &Terminal::stderr()));
            }
            return Err(Failed::told(Why::Refused));
        };
        let mut reports = governance::report(&model, []);
        reports.policies.retain(|policy| policy.is_named(self.name.as_deref(), self.namespace.as_deref()));
        Ok(reports)
    }
}

fn text(reports: &PolicyReports, terminal: &Terminal) -> String {
    let parts: Vec<String> = reports.policies.iter().map(|policy| one(policy, terminal)).collect();
    parts.join("\n")
}

fn one(policy: &PolicyReport, terminal: &Terminal) -> String {
    let mut text = String::new();
    let name = harmless(&format!("AgentSecurityPolicy {}", policy.policy), false);
    let _ = writeln!(text, "{}: for {}", terminal.paint(Tone::Strong, &name), agents(&policy.agents));
    let mut lines = Table::new(&["LINE", "SAYS", "STATE", "HOW"]).folding();
    for line in &policy.lines {
        lines.row([
            line.field.as_str().into(),
            line.says.as_str().into(),
            state(line.state),
            line.how.as_str().into(),
        ]);
    }
    if !lines.is_empty() {
        let _ = write!(text, "\n{}", lines.print(terminal));
    }
    if !policy.roles.is_empty() {
        let _ = write!(text, "\n{}", roles(policy, terminal));
    }
    for framework in &policy.frameworks {
        if framework.asks.is_empty() {
            let _ =
                writeln!(text, "\n{}: recorded; nothing is known of it", harmless(&framework.name, false));
            continue;
        }
        let mut asks = Table::new(&["FRAMEWORK", "ASKS FOR", "STATE", "BY"]).folding();
        for line in &framework.asks {
            asks.row([
                framework.name.as_str().into(),
                line.asks.as_str().into(),
                state(line.state),
                line.how.as_str().into(),
            ]);
        }
        let _ = write!(text, "\n{}", asks.print(terminal));
    }
    text
}

fn agents(agents: &[String]) -> String {
    if agents.is_empty() {
        return "no agent that is known".to_owned();
    }
    let shown = agents.iter().take(AGENTS).map(String::as_str).collect::<Vec<_>>().join(", ");
    let more = if agents.len() > AGENTS { ", ..." } else { "" };
    format!("{} ({}{more})", count(agents.len(), "agent"), harmless(&shown, false))
}

fn roles(policy: &PolicyReport, terminal: &Terminal) -> String {
    let mut table = Table::new(&["ROLE", "HELD BY", "CLEARANCE", "PERMISSIONS", "RESOURCES"]);
    for role in policy.roles.iter().take(ROLES) {
        let held = match role.held_by.is_empty() {
            true => Cell::toned("nobody that is known", Tone::Warn),
            false => role.held_by.join(", ").into(),
        };
        table.row([
            role.role.as_str().into(),
            held,
            role.clearance.as_str().into(),
            role.permissions.join(", ").into(),
            role.resources.join(", ").into(),
        ]);
    }
    let mut text = table.print(terminal);
    if policy.roles.len() > ROLES {
        let _ = writeln!(text, "and {} more (-o json has all)", count(policy.roles.len() - ROLES, "role"));
    }
    text
}

fn state(state: Enforced) -> Cell {
    match state {
        Enforced::Enforced => Cell::toned("enforced", Tone::Good),
        Enforced::Partly => Cell::toned("partly", Tone::Warn),
        Enforced::Not => Cell::toned("not enforced", Tone::Bad),
        Enforced::NotAskedFor => Cell::toned("not asked for", Tone::Warn),
    }
}
