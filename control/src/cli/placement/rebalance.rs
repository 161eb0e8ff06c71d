//! `pilotfish placement rebalance`: replicas move so that whole cards become free.

use clap::Args;

use crate::api::types::{Moved, Rebalance as Wanted};
use crate::cli::client::{Client, Connection};
use crate::cli::failed::Failed;
use crate::cli::output::Output;
use crate::cli::terminal::harmless;

/// Move replicas so that whole GPUs become free
///
/// Each new replica is ready and receives calls before the old one drains, and disruption budgets hold.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  pilotfish placement rebalance --dry-run
  pilotfish placement rebalance --moves 3")]
pub struct Rebalance {
    /// At most so many replicas move
    #[arg(long, value_name = "N", default_value_t = 10, value_parser = clap::value_parser!(u32).range(1..))]
    moves: u32,

    /// Say what would move; move nothing
    #[arg(long)]
    dry_run: bool,

    #[command(flatten)]
    output: Output,

    #[command(flatten)]
    connection: Connection,
}

impl Rebalance {
    /// Does it.
    ///
    /// # Errors
    /// See [`Failed`].
    pub async fn run(self) -> Result<(), Failed> {
        let client = Client::open(&self.connection).await?;
        let wanted = Wanted { moves: self.moves, dry_run: self.dry_run };
        let moved: Moved = client.post("/v1/placement/rebalance", &wanted).await?;
        self.output.print(&moved, |_| {
            if moved.moves.is_empty() {
                return "no move would free a GPU\n".into();
            }
            let end = if self.dry_run { " (dry run)" } else { "" };
            moved.moves.iter().map(|line| format!("{}{end}\n", harmless(line, false))).collect()
        })
    }
}
