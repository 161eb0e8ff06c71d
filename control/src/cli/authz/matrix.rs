//! `pilotfish authz matrix`: who may call whom, as a table.

use std::collections::BTreeSet;
use std::fmt::Write as _;

use clap::Args;
use pilotfish_config::raw::nearest;

use super::Offline;
use crate::api::types::{AuthzCalls, AuthzCell, AuthzMatrix};
use crate::authz::matrix::{Agents, matrix};
use crate::cli::agent_name::near;
use crate::cli::client::{Client, Connection, query};
use crate::cli::failed::Failed;
use crate::cli::output::Output;
use crate::cli::table::{Cell, Table, cut};
use crate::cli::terminal::{Terminal, Tone};

/// So many agents have a row and a column each; more share them.
const FEW: usize = 12;
/// The longest name of a column.
const LONGEST: usize = 28;
/// Where no terminal says how wide it is.
const WIDTH: usize = 100;

/// Show who may call whom.
///
/// Rows are callers, columns the agents that are called: `yes`, `no`, `some` (it hangs on path, method, tool, header, token or
/// address: ask `pilotfish authz explain`), `ask` (an external authorizer decides), `held` (quarantined). Every agent that is
/// registered or declared is there; of more than twelve those who may do the same share a row (-o wide: never). Each acts for
/// itself, without a token.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  pilotfish authz matrix
  pilotfish authz matrix -n production --method POST --path /v1/messages
  pilotfish authz matrix --to ledger                 # who may call one agent
  pilotfish authz matrix --from 'team-a/*' --to '*-db'
  pilotfish authz matrix --tool delete_file          # MCP
  pilotfish authz matrix --capability translate      # A2A
  pilotfish authz matrix -f policies/ -o json

Prints:
  CALLER           default/chat  default/ledger
  default/billing  no            yes
  default/web      some          no")]
pub struct Matrix {
    /// Only agents of this namespace are called [default: all]
    #[arg(short = 'n', long, value_name = "NAME")]
    namespace: Option<String>,

    /// Only these callers: NAMESPACE/AGENT, AGENT in every namespace, or a part of it with `*`
    #[arg(long, value_name = "AGENT,...", value_delimiter = ',')]
    from: Vec<String>,

    /// Only these agents that are called, as --from
    #[arg(long, value_name = "AGENT,...", value_delimiter = ',')]
    to: Vec<String>,

    /// Calls with this method
    #[arg(short = 'X', long, value_name = "METHOD")]
    method: Option<String>,

    /// Calls of this path
    #[arg(long, value_name = "PATH")]
    path: Option<String>,

    /// Messages that ask for this capability (A2A)
    #[arg(long, value_name = "NAME", conflicts_with = "tool")]
    capability: Option<String>,

    /// Calls of this tool (MCP)
    #[arg(long, value_name = "NAME")]
    tool: Option<String>,

    #[command(flatten)]
    offline: Offline,

    #[command(flatten)]
    output: Output,

    #[command(flatten)]
    connection: Connection,
}

impl Matrix {
    /// Does it.
    ///
    /// # Errors
    /// See [`Failed`].
    pub async fn run(self) -> Result<(), Failed> {
        let found: AuthzMatrix = if self.offline.is_on() {
            let calls = AuthzCalls {
                namespace: self.namespace.clone(),
                method: self.method.clone(),
                path: self.path.clone(),
                capability: self.capability.clone(),
                tool: self.tool.clone(),
            };
            let mut model = self.offline.model()?;
            if self.offline.default_deny {
                crate::resources::default_deny::add(&mut model);
            }
            let agents = Agents::declared(&model);
            let domain = &self.offline.trust_domain;
            let mut found =
                matrix(&model, &agents, domain, &calls, &Default::default()).map_err(Failed::usage)?;
            found.default_deny = self.offline.default_deny;
            found
        } else {
            let client = Client::open(&self.connection).await?;
            let pairs = [
                ("namespace", self.namespace.as_deref()),
                ("method", self.method.as_deref()),
                ("path", self.path.as_deref()),
                ("capability", self.capability.as_deref()),
                ("tool", self.tool.as_deref()),
            ];
            client.get(&query("/v1/authz/matrix", &pairs)).await?
        };
        known(&found, self.namespace.as_deref(), &self.from, &self.to)?;
        let found = narrowed(found, &self.from, &self.to);
        self.output.print(&found, |wide| text(&found, wide, &Terminal::stdout()))
    }
}

/// Whether there is an agent for each name that was asked for: a typing error must not look like an empty table.
fn known(found: &AuthzMatrix, namespace: Option<&str>, from: &[String], to: &[String]) -> Result<(), Failed> {
    if let Some(namespace) = namespace.filter(|_| found.callees.is_empty() && !found.callers.is_empty()) {
        let all = found.callers.iter().filter_map(|own| own.split('/').next());
        let all: Vec<&str> = all.collect::<BTreeSet<_>>().into_iter().collect();
        let namespace = namespace.escape_debug();
        return Err(Failed::refused(format!(
            "no agent of the namespace `{namespace}` is registered or declared; there are agents in {}",
            all.join(", ")
        )));
    }
    for (names, wanted) in [(&found.callers, from), (&found.callees, to)] {
        let missing = wanted.iter().find(|own| !names.iter().any(|name| is_named(name, own)));
        let Some(missing) = missing.filter(|_| !names.is_empty()) else { continue };
        let known = names.iter().map(String::as_str);
        let near = match missing.contains('/') {
            true => near(missing, known),
            // Compared without namespaces, which it does not name.
            false => nearest(missing, known.filter_map(|own| own.rsplit('/').next())),
        };
        let near = near.map(|near| format!("; did you mean {near}?")).unwrap_or_default();
        let missing = missing.escape_debug();
        return Err(Failed::refused(format!("no agent `{missing}` is registered or declared{near}")));
    }
    Ok(())
}

/// The part of it that is about these agents; an empty list means all.
fn narrowed(mut found: AuthzMatrix, from: &[String], to: &[String]) -> AuthzMatrix {
    let kept = |names: &[String], wanted: &[String]| -> Vec<usize> {
        let is = |name: &&String| wanted.is_empty() || wanted.iter().any(|own| is_named(name, own));
        names.iter().enumerate().filter(|(_, name)| is(name)).map(|(at, _)| at).collect()
    };
    let (rows, columns) = (kept(&found.callers, from), kept(&found.callees, to));
    let only = |names: &[String], kept: &[usize]| kept.iter().map(|at| names[*at].clone()).collect();
    (found.callers, found.callees) = (only(&found.callers, &rows), only(&found.callees, &columns));
    let row = |at: &usize| columns.iter().map(|column| found.rows[*at][*column]).collect();
    found.rows = rows.iter().map(row).collect();
    found
}

/// Whether `namespace/agent` is meant; `*` stands for any characters, a name without `/` is of every namespace.
fn is_named(full: &str, wanted: &str) -> bool {
    let name = if wanted.contains('/') { full } else { full.rsplit('/').next().unwrap_or(full) };
    let (first, rest) = wanted.split_once('*').map_or((wanted, None), |(first, rest)| (first, Some(rest)));
    let Some(mut left) = name.strip_prefix(first) else { return false };
    let Some(rest) = rest else { return left.is_empty() };
    let mut parts: Vec<&str> = rest.split('*').collect();
    let last = parts.pop().unwrap_or_default();
    for part in parts {
        let Some((_, after)) = left.split_once(part) else { return false };
        left = after;
    }
    left.ends_with(last)
}

/// Names that share what they may do, and what that is.
type Group = (Vec<String>, Vec<AuthzCell>);

/// Those with equal cells together, in the order of the first of each; or each by itself.
fn grouped(names: &[String], cells: impl Iterator<Item = Vec<AuthzCell>>, together: bool) -> Vec<Group> {
    let mut groups: Vec<Group> = Vec::new();
    for (name, cells) in names.iter().zip(cells) {
        match groups.iter_mut().find(|(_, own)| together && *own == cells) {
            Some((names, _)) => names.push(name.clone()),
            None => groups.push((vec![name.clone()], cells)),
        }
    }
    groups
}

/// A group by its first name.
fn label(names: &[String]) -> String {
    match names {
        [first, rest @ ..] if !rest.is_empty() => format!("{first} +{}", rest.len()),
        names => names.concat(),
    }
}

fn text(found: &AuthzMatrix, wide: bool, terminal: &Terminal) -> String {
    if found.callees.is_empty() || found.callers.is_empty() {
        return "There are no agents: none is registered, and no document declares one.\n".into();
    }
    let columns = (0..found.callees.len()).map(|at| found.rows.iter().map(|row| row[at]).collect());
    let together = !wide && found.callers.len().max(found.callees.len()) > FEW;
    let callees = grouped(&found.callees, columns, together);
    // A row of what is left of the columns.
    let places: Vec<usize> = callees
        .iter()
        .filter_map(|(names, _)| found.callees.iter().position(|own| *own == names[0]))
        .collect();
    let rows = found.rows.iter().map(|row| places.iter().map(|at| row[*at]).collect());
    let callers = grouped(&found.callers, rows, together);
    let heads: Vec<String> = callees.iter().map(|(names, _)| cut(&label(names), LONGEST)).collect();
    let first = callers.iter().map(|(names, _)| label(names).len()).max().unwrap_or(0).max("CALLER".len());
    let limit = terminal.size.map_or(WIDTH, |(columns, _)| columns);
    let mut text = String::new();
    let mut from = 0;
    while from < heads.len() {
        let mut width = first;
        let fitting = heads[from..].iter().take_while(|head| {
            width += head.chars().count().max(4) + 2;
            width <= limit
        });
        let to = from + fitting.count().max(1);
        let mut table =
            Table::with(std::iter::once("CALLER".to_owned()).chain(heads[from..to].iter().cloned()));
        for (names, cells) in &callers {
            let name = Cell::from(label(names));
            table.row(std::iter::once(name).chain(cells[from..to].iter().map(|cell| shown(*cell))));
        }
        if from > 0 {
            text.push('\n');
        }
        text.push_str(&table.print(terminal));
        from = to;
    }
    if [&callers, &callees].iter().any(|groups| groups.iter().any(|(names, _)| names.len() > 1)) {
        text.push_str("\n+N: so many more are alike; -o wide has a row for each\n");
    }
    if found.default_deny {
        text.push_str("default deny: nobody may call an agent whom no ALLOW policy lets in\n");
    }
    for note in &found.notes {
        let _ = writeln!(text, "note: {note}");
    }
    text
}

fn shown(cell: AuthzCell) -> Cell {
    let tone = match cell {
        AuthzCell::Yes => Tone::Good,
        AuthzCell::No => Tone::Dim,
        AuthzCell::Some | AuthzCell::Ask => Tone::Warn,
        AuthzCell::Held => Tone::Bad,
    };
    Cell::toned(cell.word(), tone)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_whole_or_patterns() {
        for (wanted, named, not) in [
            ("web", "team-a/web", "team-a/web2"),
            ("team-a/web", "team-a/web", "team-b/web"),
            ("team-a/*", "team-a/web", "team-b/web"),
            ("*-db", "x/users-db", "x/users-db2"),
            ("a*b*c", "x/a-b-c", "x/a-c"),
            ("*", "x/anything", ""),
        ] {
            assert!(is_named(named, wanted), "{wanted} {named}");
            assert!(not.is_empty() || !is_named(not, wanted), "{wanted} {not}");
        }
    }

    #[test]
    fn only_rows_and_columns_that_were_asked_for_are_left() {
        let names = |names: &[&str]| names.iter().map(ToString::to_string).collect::<Vec<_>>();
        let found = AuthzMatrix {
            callers: names(&["a/x", "a/y", "b/x"]),
            callees: names(&["a/x", "b/x"]),
            rows: vec![vec![AuthzCell::Yes, AuthzCell::No]; 3],
            ..AuthzMatrix::default()
        };
        let left = narrowed(found, &names(&["x"]), &names(&["b/*"]));
        assert_eq!((left.callers, left.callees), (names(&["a/x", "b/x"]), names(&["b/x"])));
        assert_eq!(left.rows, [[AuthzCell::No], [AuthzCell::No]]);
    }
}
