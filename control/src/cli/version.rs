//! `pilotfish version`: versions of this program, of what it speaks, and of the control plane.

use clap::Args;
use pilotfish_config::kinds::KINDS;
use pilotfish_config::wire;
use serde::Serialize;

use super::client::{Client, Connection};
use super::failed::Failed;
use super::output::Output;
use super::table::Table;
use super::terminal::Terminal;
use crate::api::types::Version as Server;

/// Show the versions of this program and of the control plane.
///
/// The protocol's versions may differ in the second number.
#[derive(Debug, Args)]
#[command(after_help = "\
Prints:
  VERSION    CLIENT  SERVER
  build      0.1.0   0.1.0
  wire       1.0     1.0
  documents  -       7")]
pub struct Version {
    /// Only this program; asks nobody
    #[arg(long)]
    client: bool,

    /// One line
    #[arg(long)]
    short: bool,

    #[command(flatten)]
    output: Output,

    #[command(flatten)]
    connection: Connection,
}

/// This program's versions.
#[derive(Debug, Serialize)]
struct Own {
    build: &'static str,
    wire: String,
    /// `apiVersion`s that are read, by the newest of each group.
    schema: Vec<&'static str>,
}

#[derive(Debug, Serialize)]
struct Versions {
    client: Own,
    #[serde(skip_serializing_if = "Option::is_none")]
    server: Option<Server>,
}

fn own() -> Own {
    let mut schema: Vec<&'static str> =
        KINDS.iter().filter_map(|info| info.versions.first().copied()).collect();
    schema.sort_unstable();
    schema.dedup();
    Own { build: env!("CARGO_PKG_VERSION"), wire: format!("{}.{}", wire::MAJOR, wire::MINOR), schema }
}

impl Version {
    /// Does it. Without a control plane it prints this program's versions, and the failure says why there are no more.
    ///
    /// # Errors
    /// See [`Failed`].
    pub async fn run(self) -> Result<(), Failed> {
        let asked = if self.client { None } else { Some(Client::open(&self.connection).await) };
        let (server, failed) = match asked {
            Some(Ok(client)) => (Some(client.server), None),
            Some(Err(failed)) => (None, Some(failed)),
            None => (None, None),
        };
        let versions = Versions { client: own(), server };
        let short = self.short;
        self.output.print(&versions, |_| if short { line(&versions) } else { table(&versions) })?;
        failed.map_or(Ok(()), Err)
    }
}

fn line(versions: &Versions) -> String {
    let own = format!("pilotfish {} wire {}", versions.client.build, versions.client.wire);
    match &versions.server {
        Some(server) => format!("{own}, server {} wire {}\n", server.build, server.wire),
        None => format!("{own}\n"),
    }
}

fn table(versions: &Versions) -> String {
    let server = versions.server.as_ref();
    let of = |read: fn(&Server) -> String| server.map(read).unwrap_or_default();
    let client = &versions.client;
    let mut table = Table::new(&["VERSION", "CLIENT", "SERVER"]);
    let mut row = |name: &str, own: &str, theirs: String| table.row([name.into(), own.into(), theirs.into()]);
    row("build", client.build, of(|server| server.build.clone()));
    row("wire", &client.wire, of(|server| server.wire.clone()));
    row("schema", &client.schema.join(" "), String::new());
    if server.is_some() {
        row("documents", "", of(|server| server.documents.to_string()));
        row("control", "", of(|server| server.control.clone()));
        row("trust domain", "", of(|server| server.trust_domain.clone()));
    }
    table.print(&Terminal::stdout())
}
