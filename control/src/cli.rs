//! Commands and their flags.

pub mod admin;
pub mod agent_name;
pub mod agents;
pub mod alerts;
pub mod analyze;
pub mod apply;
pub mod audit;
pub mod authz;
pub mod backup;
pub mod ca;
mod changes;
pub mod check;
pub mod client;
pub mod compare;
pub mod completion;
pub mod dashboards;
pub mod delete;
pub mod diff;
pub mod edit;
pub mod explain;
pub mod failed;
pub mod files;
pub mod get;
pub mod history;
pub mod hold;
pub mod human;
pub mod kinds;
pub mod logs;
pub mod man;
pub mod mark;
pub mod members;
pub mod node;
pub mod nodes;
pub mod output;
pub mod placement;
pub mod policy;
pub mod restore;
pub mod scale;
pub mod schema;
pub mod serve;
pub mod status;
pub mod table;
pub mod tap;
pub mod terminal;
pub mod token;
pub mod trace;
pub mod traces;
pub mod trust;
pub mod ui;
pub mod version;
pub mod wait;
mod waterfall;
pub mod why;

use std::fmt::Write as _;
use std::process::ExitCode;

use clap::{CommandFactory, FromArgMatches, Parser, Subcommand};

use self::failed::{EXIT_CODES, Failed};

/// Pilotfish: a service mesh for AI agents.
#[derive(Debug, Parser)]
#[command(name = "pilotfish", version, arg_required_else_help = true, after_help = EXIT_CODES)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

/// Each variant has its place in [`GROUPS`].
#[derive(Debug, Subcommand)]
enum Command {
    Serve(Box<serve::Serve>),
    Node(Box<node::Node>),
    Ca(ca::Ca),
    Apply(apply::Apply),
    Diff(diff::Diff),
    Get(get::Get),
    Edit(edit::Edit),
    Delete(delete::Delete),
    History(history::History),
    Rollback(history::Rollback),
    Scale(scale::Scale),
    Cordon(mark::Cordon),
    Uncordon(mark::Uncordon),
    Drain(mark::Drain),
    Status(status::Status),
    Nodes(nodes::Nodes),
    Placement(placement::Placement),
    Logs(logs::Logs),
    Agents(agents::Agents),
    Alerts(alerts::Alerts),
    Analyze(analyze::Analyze),
    Compare(compare::Compare),
    Explain(explain::Explain),
    Why(why::Why),
    Tap(tap::Tap),
    Traces(traces::Traces),
    Trace(trace::Trace),
    Ui(ui::Ui),
    Authz(authz::Authz),
    Policy(policy::Policy),
    Audit(audit::Audit),
    Quarantine(hold::Quarantine),
    Restrict(hold::Restrict),
    Release(hold::Release),
    Token(token::Token),
    Revoke(members::Revoke),
    Readmit(members::Readmit),
    Trust(trust::Trust),
    Admin(admin::Admin),
    Backup(backup::Backup),
    Restore(restore::Restore),
    Check(check::Check),
    Dashboards(dashboards::Dashboards),
    Schema(schema::Schema),
    Completion(completion::Completion),
    Version(version::Version),
    #[command(hide = true)]
    Man(man::Man),
    #[command(hide = true)]
    LaunchSidecar(node::LaunchSidecar),
}

/// Commands as `--help` lists them.
const GROUPS: &[(&str, &[&str])] = &[
    ("Run it", &["serve", "node", "ca", "backup", "restore"]),
    ("Change the mesh", &["apply", "diff", "get", "edit", "delete", "history", "rollback"]),
    ("Where agents run", &["nodes", "placement", "scale", "cordon", "uncordon", "drain", "logs"]),
    (
        "Look at it",
        &[
            "status", "agents", "alerts", "traces", "trace", "analyze", "compare", "explain", "why", "tap",
            "ui",
        ],
    ),
    ("Who may do what", &["authz", "policy", "audit", "quarantine", "restrict", "release"]),
    ("Who belongs to it", &["token", "revoke", "readmit", "trust", "admin"]),
    ("Without a control plane", &["check", "schema", "dashboards", "completion", "version"]),
];

/// The whole command line; its help lists the commands in groups.
fn command() -> clap::Command {
    let command = Cli::command();
    let template = format!(
        "{{about-with-newline}}\n{{usage-heading}} {{usage}}\n{}\nOptions:\n{{options}}{{after-help}}",
        groups(&command)
    );
    command.help_template(template)
}

/// The commands that are there, in groups; one that has no group comes last.
fn groups(command: &clap::Command) -> String {
    let line = |sub: &clap::Command| {
        let about = sub.get_about().map(ToString::to_string).unwrap_or_default();
        // The first clause is enough here; the rest is in the command's own help.
        let about = about.split(['.', ':']).next().unwrap_or_default();
        format!("  {:<11} {about}\n", sub.get_name())
    };
    let mut text = String::new();
    for (title, names) in GROUPS {
        let _ = write!(text, "\n{title}:\n");
        let subs = names.iter().filter_map(|name| command.find_subcommand(name));
        text.extend(subs.map(line));
    }
    let grouped = |name: &str| GROUPS.iter().any(|(_, names)| names.contains(&name));
    let others = command.get_subcommands().filter(|sub| !sub.is_hide_set() && !grouped(sub.get_name()));
    text.extend(others.map(line));
    text
}

/// Runs the command that the arguments name. Usage errors end with 2.
pub fn run() -> ExitCode {
    let matches = command().get_matches();
    let name = matches.subcommand_name().unwrap_or_default().to_owned();
    let done = match Cli::from_arg_matches(&matches) {
        Ok(cli) => dispatch(cli.command),
        Err(error) => error.exit(),
    };
    done.unwrap_or_else(|failed| failed.report(&name))
}

fn dispatch(command: Command) -> Result<ExitCode, Failed> {
    match command {
        Command::Serve(serve) => Ok(serve.run()),
        Command::Node(node) => node.run().map(|()| ExitCode::SUCCESS),
        Command::LaunchSidecar(it) => it.run().map(|()| ExitCode::SUCCESS),
        Command::Check(check) => Ok(check.run()),
        Command::Schema(schema) => Ok(schema.run()),
        Command::Completion(completion) => Ok(completion.run()),
        Command::Restore(it) => it.run().map(|()| ExitCode::SUCCESS),
        Command::Dashboards(it) => it.run().map(|()| ExitCode::SUCCESS),
        Command::Ca(ca) => ca.run().map(|()| ExitCode::SUCCESS),
        Command::Man(man) => man.run().map(|()| ExitCode::SUCCESS),
        other => ask(other).map(|()| ExitCode::SUCCESS),
    }
}

/// Commands that ask a control plane.
fn ask(command: Command) -> Result<(), Failed> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let runtime = runtime.map_err(|error| Failed::refused(format!("cannot start: {error}")))?;
    runtime.block_on(async {
        match command {
            Command::Apply(it) => it.run().await,
            Command::Diff(it) => it.run().await,
            Command::Get(it) => it.run().await,
            Command::Edit(it) => it.run().await,
            Command::Delete(it) => it.run().await,
            Command::History(it) => it.run().await,
            Command::Rollback(it) => it.run().await,
            Command::Scale(it) => it.run().await,
            Command::Cordon(it) => it.run().await,
            Command::Uncordon(it) => it.run().await,
            Command::Drain(it) => it.run().await,
            Command::Nodes(it) => it.run().await,
            Command::Placement(it) => it.run().await,
            Command::Logs(it) => it.run().await,
            Command::Status(it) => it.run().await,
            Command::Agents(it) => it.run().await,
            Command::Alerts(it) => it.run().await,
            Command::Analyze(it) => it.run().await,
            Command::Compare(it) => it.run().await,
            Command::Explain(it) => it.run().await,
            Command::Why(it) => it.run().await,
            Command::Tap(it) => it.run().await,
            Command::Traces(it) => it.run().await,
            Command::Trace(it) => it.run().await,
            Command::Ui(it) => it.run().await,
            Command::Authz(it) => it.run().await,
            Command::Policy(it) => it.run().await,
            Command::Audit(it) => it.run().await,
            Command::Quarantine(it) => it.run().await,
            Command::Restrict(it) => it.run().await,
            Command::Release(it) => it.run().await,
            Command::Token(it) => it.run().await,
            Command::Revoke(it) => it.run().await,
            Command::Readmit(it) => it.run().await,
            Command::Trust(it) => it.run().await,
            Command::Admin(it) => it.run().await,
            Command::Backup(it) => it.run().await,
            Command::Version(it) => it.run().await,
            // `dispatch` has these.
            Command::Serve(_)
            | Command::Node(_)
            | Command::LaunchSidecar(_)
            | Command::Ca(_)
            | Command::Restore(_)
            | Command::Dashboards(_)
            | Command::Check(_)
            | Command::Schema(_)
            | Command::Completion(_)
            | Command::Man(_) => Ok(()),
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Help is at most 100 columns wide where no terminal says otherwise; a line that is longer is broken, and cannot be copied.
    #[test]
    fn examples_are_not_broken_into_lines() {
        fn long(command: &clap::Command, found: &mut Vec<String>) {
            let text = command.get_after_help().map(ToString::to_string).unwrap_or_default();
            let lines = text.lines().filter(|line| line.chars().count() > 100);
            found.extend(lines.map(|line| format!("{}: {line}", command.get_name())));
            command.get_subcommands().for_each(|own| long(own, found));
        }
        let mut found = Vec::new();
        long(&command(), &mut found);
        assert!(found.is_empty(), "{found:#?}");
    }
}
