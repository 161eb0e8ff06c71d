//! `pilotfish cordon`, `uncordon` and `drain`: whether replicas may come to a node, and whether those that are there leave.

use std::time::{Duration, Instant};

use clap::Args;
use pilotfish_config::units;

use super::client::{Client, Connection, Trouble};
use super::failed::{Failed, Why};
use super::human::{self, count};
use super::output::Output;
use super::placement::rows;
use super::terminal::{Terminal, harmless};
use super::wait::progress;
use crate::api::types::{Done, Mark, MarkNode, PlacementView, ReplicaRow};

/// How often a wait asks.
pub const ASK: Duration = Duration::from_millis(500);

/// Let nothing new come to a node.
///
/// What runs there stays. `pilotfish uncordon` opens it again.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  pilotfish cordon gpu-1
  pilotfish nodes gpu-1")]
pub struct Cordon {
    #[command(flatten)]
    marked: Marked,
}

/// Let replicas come to a node again.
///
/// After `pilotfish cordon`, or when a drained machine is back from maintenance. What moved away does not move back by itself.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  pilotfish uncordon gpu-1")]
pub struct Uncordon {
    #[command(flatten)]
    marked: Marked,
}

/// Move what runs on a node elsewhere, and let nothing new come.
///
/// Each replica's successor is ready and receives calls before it ends, and disruption budgets hold. The command returns when
/// nothing is left there; interrupting it, or its --timeout, does not stop the drain: `pilotfish uncordon` does.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  pilotfish drain gpu-1 --timeout 10m
  pilotfish drain gpu-1 --no-wait && pilotfish nodes gpu-1

Prints:
  gpu-1 is draining
  nothing is left on gpu-1")]
pub struct Drain {
    #[command(flatten)]
    marked: Marked,

    /// How long to wait until nothing is left; then exit code 5
    #[arg(long, value_name = "DURATION", default_value = "5m", value_parser = units::duration)]
    timeout: Duration,

    /// Return at once
    #[arg(long, conflicts_with = "timeout")]
    no_wait: bool,
}

#[derive(Debug, Args)]
struct Marked {
    /// The node
    #[arg(value_name = "NODE")]
    node: String,

    #[command(flatten)]
    output: Output,

    #[command(flatten)]
    connection: Connection,
}

impl Cordon {
    /// Does it.
    ///
    /// # Errors
    /// See [`Failed`].
    pub async fn run(self) -> Result<(), Failed> {
        self.marked.mark(Mark::Cordoned).await.map(drop)
    }
}

impl Uncordon {
    /// Does it.
    ///
    /// # Errors
    /// See [`Failed`].
    pub async fn run(self) -> Result<(), Failed> {
        self.marked.mark(Mark::Open).await.map(drop)
    }
}

impl Drain {
    /// Does it.
    ///
    /// # Errors
    /// See [`Failed`].
    pub async fn run(self) -> Result<(), Failed> {
        let client = self.marked.mark(Mark::Draining).await?;
        if self.no_wait {
            return Ok(());
        }
        let node = &self.marked.node;
        let terminal = Terminal::stderr();
        let started = Instant::now();
        let mut left: Vec<ReplicaRow> = Vec::new();
        let done = loop {
            if let Some(view) = look(&client).await? {
                left = view.replicas;
                left.retain(|replica| replica.node.as_ref() == Some(node));
                let counted = view.nodes.iter().find(|row| row.name == *node).map_or(0, |row| row.replicas);
                if left.is_empty() && counted == 0 {
                    break true;
                }
            }
            if started.elapsed() >= self.timeout {
                break false;
            }
            let passed = human::span(started.elapsed().as_secs());
            progress(&terminal, &format!("{} left ({passed})", count(left.len(), "replica")));
            tokio::time::sleep(ASK.min(self.timeout.saturating_sub(started.elapsed()))).await;
        };
        progress(&terminal, "");
        if done {
            if !self.marked.output.is_data() {
                super::terminal::print(&format!("nothing is left on {}\n", harmless(node, false)));
            }
            return Ok(());
        }
        Err(stuck(node, &left, self.timeout))
    }
}

/// What placement looks like now; `None` when nobody can say just now.
///
/// # Errors
/// Anything that waiting does not help against.
pub async fn look(client: &Client) -> Result<Option<PlacementView>, Failed> {
    match client.get("/v1/placement").await {
        Ok(view) => Ok(Some(view)),
        // While another control plane takes the lead.
        Err(Trouble::Refused { status: http::StatusCode::MISDIRECTED_REQUEST, .. }) => Ok(None),
        Err(Trouble::Failed(failed)) if failed.why == Why::Unreachable => Ok(None),
        Err(trouble) => Err(trouble.into()),
    }
}

fn stuck(node: &str, left: &[ReplicaRow], timeout: Duration) -> Failed {
    let mut message = format!(
        "{} still on {} after {}; the drain goes on, `pilotfish uncordon` ends it",
        match left.len() {
            0 => "nobody could say what is".into(),
            1 => "1 replica is".into(),
            number => format!("{number} replicas are"),
        },
        harmless(node, false),
        human::span(timeout.as_secs())
    );
    for replica in left.iter().take(10) {
        let (namespace, agent, _) = rows::parts(&replica.group);
        let why = replica.reason.clone().unwrap_or_else(|| {
            format!("{}; `pilotfish placement explain {namespace}/{agent}` says more", replica.status)
        });
        message.push_str(&format!("\n  {}: {}", harmless(&replica.id, false), harmless(&why, false)));
    }
    Failed { why: Why::NotServed, message }
}

impl Marked {
    async fn mark(&self, mark: Mark) -> Result<Client, Failed> {
        let client = Client::open(&self.connection).await?;
        let done: Done = client.post("/v1/nodes/mark", &MarkNode { node: self.node.clone(), mark }).await?;
        self.output.print(&done, |_| format!("{}\n", harmless(&done.message, true)))?;
        Ok(client)
    }
}
