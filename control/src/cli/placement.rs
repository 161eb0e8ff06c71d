//! `pilotfish placement`: what runs where, why, and what would.

mod explain;
mod list;
mod plan;
mod rebalance;
pub mod rows;

use clap::{Args, Subcommand};

use super::failed::Failed;

/// Show where agents run, why some do not, and where they would.
///
/// The agents of AgentCluster documents are placed by the control plane: it chooses a node and GPUs for each replica, and the
/// node starts it. Without a subcommand this lists agents: how many replicas are WANTED, have a place (PLACED) and serve
/// (READY), and why the others do not.
#[derive(Debug, Args)]
#[command(
    args_conflicts_with_subcommands = true,
    after_help = "\
Examples:
  pilotfish placement
  pilotfish placement --replicas --node gpu-1
  pilotfish placement --problems
  pilotfish placement explain production/conversation-agent
  pilotfish placement plan -f agents.yaml --nodes fleet.yaml     # no control plane needed
  pilotfish placement rebalance --dry-run

Prints:
  AGENT               NAMESPACE   STRATEGY  WANTED  PLACED  READY  REASON
  conversation-agent  production  static        50      38     38  12 have no place: no free GPU
  escalation-agent    production  static        10      10     10  -

  4 nodes, 38 of 38 GPUs given out; 48 of 60 replicas are ready"
)]
pub struct Placement {
    #[command(subcommand)]
    command: Option<PlacementCommand>,

    #[command(flatten)]
    list: list::List,
}

#[derive(Debug, Subcommand)]
enum PlacementCommand {
    List(list::List),
    Explain(explain::Explain),
    Plan(plan::Plan),
    Rebalance(rebalance::Rebalance),
}

impl Placement {
    /// Does it.
    ///
    /// # Errors
    /// See [`Failed`].
    pub async fn run(self) -> Result<(), Failed> {
        match self.command {
            None => self.list.run().await,
            Some(PlacementCommand::List(list)) => list.run().await,
            Some(PlacementCommand::Explain(explain)) => explain.run().await,
            Some(PlacementCommand::Plan(plan)) => plan.run().await,
            Some(PlacementCommand::Rebalance(rebalance)) => rebalance.run().await,
        }
    }
}
