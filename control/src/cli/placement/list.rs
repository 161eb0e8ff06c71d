//! `pilotfish placement list`: agents, or each replica.

use clap::Args;

use super::rows;
use crate::api::types::PlacementView;
use crate::cli::client::{Client, Connection};
use crate::cli::failed::Failed;
use crate::cli::human;
use crate::cli::output::Output;
use crate::cli::terminal::Terminal;

/// List agents with how many replicas are wanted, placed and ready; or each replica
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  pilotfish placement list --agent conversation-agent --replicas
  pilotfish placement list --problems -o json

Prints, with --replicas:
  REPLICA          STATUS      NODE   GPUS          CPU   MEMORY  RESTARTS  SINCE      REASON
  shop/chat/qm...  ready       gpu-1  GPU-8f2b1c3d  1.2  3.1 GiB         0  2 h ago    -
  shop/chat/xk...  crash-loop  gpu-2  GPU-0a77e2c4    -        -         7  3 min ago  exit code 1")]
pub struct List {
    /// Each replica
    #[arg(long)]
    replicas: bool,

    /// Only this namespace
    #[arg(short = 'n', long, value_name = "NAME")]
    namespace: Option<String>,

    /// Only this agent: NAME, or NAMESPACE/NAME
    #[arg(long, value_name = "NAME")]
    agent: Option<String>,

    /// Only what is on this node
    #[arg(long, value_name = "NAME")]
    node: Option<String>,

    /// Only what somebody should look at: no place, not ready, crashing
    #[arg(long)]
    problems: bool,

    #[command(flatten)]
    output: Output,

    #[command(flatten)]
    connection: Connection,
}

impl List {
    /// Does it.
    ///
    /// # Errors
    /// See [`Failed`].
    pub async fn run(self) -> Result<(), Failed> {
        let client = Client::open(&self.connection).await?;
        let whole: PlacementView = client.get("/v1/placement").await?;
        let summary = rows::summary(&whole);
        let view = self.narrowed(whole);
        let nothing = if self.replicas { view.replicas.is_empty() } else { view.agents.is_empty() };
        if nothing && !self.output.is_data() {
            eprintln!("{}", if self.is_narrow() { "nothing fits" } else { EMPTY });
        }
        self.output.print(&view, |wide| self.text(&view, &summary, wide, human::now(), &Terminal::stdout()))
    }

    fn is_narrow(&self) -> bool {
        self.namespace.is_some() || self.agent.is_some() || self.node.is_some() || self.problems
    }

    fn narrowed(&self, mut view: PlacementView) -> PlacementView {
        let fits = |group: &str| {
            let (namespace, agent, _) = rows::parts(group);
            self.namespace.as_ref().is_none_or(|wanted| wanted == namespace)
                && self.agent.as_ref().is_none_or(|wanted| wanted == agent || rows::is_of(group, wanted))
        };
        view.agents.retain(|group| fits(&group.group));
        view.replicas.retain(|replica| fits(&replica.group));
        if let Some(node) = &self.node {
            view.nodes.retain(|row| row.name == *node);
            view.replicas.retain(|replica| replica.node.as_ref() == Some(node));
            let here = |group: &str| view.replicas.iter().any(|replica| replica.group == group);
            view.agents.retain(|group| here(&group.group));
        }
        if self.problems {
            view.agents.retain(rows::lacks);
            view.replicas.retain(rows::ails);
        }
        view
    }

    fn text(&self, view: &PlacementView, summary: &str, wide: bool, now: u64, terminal: &Terminal) -> String {
        let table = match self.replicas {
            true => rows::replicas(&view.replicas, wide, now),
            false => rows::agents(&view.agents, wide),
        };
        let mut text = if table.is_empty() { String::new() } else { table.print(terminal) + "\n" };
        text.push_str(&rows::notes(&view.notes, terminal));
        text + summary + "\n"
    }
}

/// Said when nothing is there at all.
const EMPTY: &str = "nothing is placed: apply an AgentCluster, and start `pilotfish node` on a machine";
