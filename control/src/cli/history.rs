//! `pilotfish history` and `pilotfish rollback`: versions of the documents.

use clap::Args;

use super::apply::finish;
use super::changes::tally;
use super::client::{Client, Connection, query};
use super::failed::Failed;
use super::human;
use super::output::Output;
use super::table::Table;
use super::terminal::Terminal;
use super::wait::Wait;
use crate::api::types::{Applied, Commit, Rollback as Wanted};

/// List the versions of the documents.
#[derive(Debug, Args)]
#[command(after_help = "\
Prints:
  VERSION  WHEN       AUTHOR  CHANGES               DOCUMENTS  SUMMARY
        7  3 min ago  root    1 changed                    12  half of the traffic to v2
        6  2 h ago    root    2 created, 1 removed         12  mesh/")]
pub struct History {
    /// At most so many
    #[arg(long, value_name = "N", default_value_t = 20, value_parser = clap::value_parser!(u32).range(1..))]
    limit: u32,

    #[command(flatten)]
    output: Output,

    #[command(flatten)]
    connection: Connection,
}

impl History {
    /// Does it.
    ///
    /// # Errors
    /// See [`Failed`].
    pub async fn run(self) -> Result<(), Failed> {
        let client = Client::open(&self.connection).await?;
        let limit = self.limit.to_string();
        let commits: Vec<Commit> = client.get(&query("/v1/history", &[("limit", Some(&limit))])).await?;
        if commits.is_empty() && !self.output.is_data() {
            eprintln!("nothing was applied yet");
            return Ok(());
        }
        self.output.print(&commits, |wide| table(&commits, wide, human::now()).print(&Terminal::stdout()))
    }
}

fn table(commits: &[Commit], wide: bool, now: u64) -> Table {
    let mut table = Table::new(&[">VERSION", "WHEN", "AUTHOR", "CHANGES", ">DOCUMENTS", "SUMMARY"]);
    for commit in commits {
        let when = if wide { human::date(commit.time) } else { human::moment(commit.time, now) };
        table.row([
            commit.version.to_string().into(),
            when.into(),
            commit.author.as_str().into(),
            tally(&commit.changes).into(),
            commit.documents.to_string().into(),
            commit.summary.as_str().into(),
        ]);
    }
    table
}

/// Make a new version with the documents of an old one.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  pilotfish history
  pilotfish rollback 6 --wait")]
pub struct Rollback {
    /// The version whose documents are wanted
    #[arg(value_name = "VERSION")]
    version: u64,

    #[command(flatten)]
    wait: Wait,

    #[command(flatten)]
    output: Output,

    #[command(flatten)]
    connection: Connection,
}

impl Rollback {
    /// Does it.
    ///
    /// # Errors
    /// See [`Failed`].
    pub async fn run(self) -> Result<(), Failed> {
        let client = Client::open(&self.connection).await?;
        let applied: Applied = client.post("/v1/rollback", &Wanted { version: self.version }).await?;
        finish(&client, applied, false, &self.wait, self.output).await
    }
}
