//! `pilotfish placement plan`: where agents would run. With nodes from files no control plane is asked.

mod answer;

use std::path::PathBuf;
use std::sync::Arc;

use clap::Args;
use pilotfish_config::model::{Model, Taint};
use pilotfish_config::{Options, Severity, admit_among};

use self::answer::Planned;
use crate::api::types::{File, NodeRow, PlacementView, ReplicaRow, Resource};
use crate::cli::client::{Client, Connection};
use crate::cli::failed::{Failed, Why};
use crate::cli::files;
use crate::cli::output::Output;
use crate::cli::terminal::Terminal;
use crate::placement::demand::{Demand, demand};
use crate::placement::place::{Limits, place};
use crate::placement::world::{Card, Held, Machine, MachineState, World};

/// Kinds that placement reads.
const KINDS: [&str; 4] = ["AgentCluster", "AgentTemplate", "GpuPool", "Node"];

/// Say where agents would run, and what would have no place
///
/// Nothing is changed. With --nodes (or documents of the kind Node among the files of -f) no control plane is needed: agents
/// are placed on those nodes as if nothing ran there. Without, they are placed on the nodes of the control plane, beside the
/// documents that it has (the files' take the place of those of the same name) and around what runs there.
///
/// Agents that start only when asked for are placed as if all of them were. Exit code 0: everything has a place; 1: something
/// has none, or a document is refused.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  pilotfish placement plan -f agents.yaml --nodes fleet.yaml
  pilotfish placement plan -f agents.yaml                        # on the nodes of the control plane
  pilotfish placement plan -f agents.yaml --empty -o json | jq '.unplaced'

Prints:
  AGENT               NAMESPACE   STRATEGY  WANTED  PLACED  MISSING
  conversation-agent  production  static        50      38       12
  escalation-agent    production  static        10      10        0

  NODE   LOCALITY  REPLICAS    CPU       MEMORY  GPUS     GPU MEMORY
  gpu-1  eu/eu-a         24  48/64  96 GiB/1 TiB  8/8  640 GiB/640 GiB
  ...

  production/conversation-agent: 12 of 50 replicas have no place
  NODES  WHY NOT
      3  all 8 GPUs are taken")]
pub struct Plan {
    /// Files or folders with AgentCluster, AgentTemplate and GpuPool documents; `-` reads standard input
    #[arg(short = 'f', long = "file", value_name = "PATH", required = true, num_args = 1..)]
    files: Vec<PathBuf>,

    /// Files or folders with Node documents [default: the nodes of the control plane]
    #[arg(long, value_name = "PATH", num_args = 1..)]
    nodes: Vec<PathBuf>,

    /// On the nodes of the control plane as if nothing ran there
    #[arg(long, conflicts_with = "nodes")]
    empty: bool,

    /// The namespace of documents that name none
    #[arg(short = 'n', long, value_name = "NAME", default_value = "default")]
    namespace: String,

    #[command(flatten)]
    output: Output,

    #[command(flatten)]
    connection: Connection,
}

/// What a control plane has.
#[derive(Default)]
struct There {
    documents: Vec<Resource>,
    view: PlacementView,
}

impl Plan {
    /// Does it.
    ///
    /// # Errors
    /// See [`Failed`].
    pub async fn run(self) -> Result<(), Failed> {
        let mut files = files::read(&self.files)?;
        if !self.nodes.is_empty() {
            files.extend(files::read(&self.nodes)?);
        }
        // Documents first: what is wrong with them needs no control plane to be said.
        let alone = self.nodes.is_empty().then(|| self.load(&files, &[])).transpose()?;
        let there = match alone {
            Some((model, _)) if demand(&model, &|_| None).machines.is_empty() => Some(self.ask().await?),
            _ => None,
        };
        let documents = there.as_ref().map_or(&[][..], |there| &there.documents);
        let (model, warned) = self.load(&files, documents)?;
        let mut demand = demand(&model, &|_| None);
        // What was said of a file, with its line, is not said again.
        demand.notes.retain(|note| {
            let words = note.split_once(": ").map_or(note.as_str(), |(_, words)| words);
            !warned.iter().any(|line| line.contains(words))
        });
        if demand.groups.is_empty() {
            return Err(Failed::usage("there is no AgentCluster with agents in the files of -f"));
        }
        let world = world(&demand, there.as_ref().map(|there| &there.view), self.empty);
        if world.nodes.is_empty() {
            return Err(Failed::usage(match there {
                Some(_) => "the control plane has no nodes; give some with --nodes",
                None => "there is no document of the kind Node in the files of --nodes",
            }));
        }
        if there.is_none() {
            files::warn(&warned);
        }
        let outcome = place(&world, &Limits::default());
        let planned = Planned::new(&demand, &world, &outcome);
        self.output.print(&planned, |wide| planned.text(wide, &Terminal::stdout()))?;
        if planned.unplaced.is_empty() { Ok(()) } else { Err(Failed::told(Why::Refused)) }
    }

    /// The model of files, beside stored documents that they do not replace, and the lines of warnings.
    fn load(&self, files: &[File], stored: &[Resource]) -> Result<(Model, Vec<String>), Failed> {
        let options =
            Options { strict_istio: false, default_namespace: self.namespace.clone(), ..Options::default() };
        let texts: Vec<(&str, &str)> =
            files.iter().map(|file| (file.name.as_str(), file.text.as_str())).collect();
        let (loaded, _) = admit_among(&texts, &options, |keys| {
            let replaced = |own: &Resource| {
                keys.iter().any(|key| {
                    key.kind.name() == own.key.kind
                        && *key.namespace == *own.key.namespace
                        && *key.name == *own.key.name
                })
            };
            stored
                .iter()
                .filter(|own| KINDS.contains(&own.key.kind.as_str()) && !replaced(own))
                .map(|own| (own.source.as_str(), own.body.get()))
                .collect()
        });
        let lines = |severity: Severity| -> Vec<String> {
            let all = loaded.report.diagnostics.iter();
            all.filter(|own| own.severity == severity).map(ToString::to_string).collect()
        };
        match loaded.model {
            Some(model) => Ok((model, lines(Severity::Warning))),
            None => {
                files::warn(&lines(Severity::Error));
                Err(Failed::told(Why::Refused))
            }
        }
    }

    async fn ask(&self) -> Result<There, Failed> {
        let client = Client::open(&self.connection).await.map_err(|failed| Failed {
            message: format!(
                "{}\n(no Node documents were given with --nodes, so a control plane is asked)",
                failed.message
            ),
            ..failed
        })?;
        Ok(There { documents: client.get("/v1/resources").await?, view: client.get("/v1/placement").await? })
    }
}

/// What placement decides over.
fn world(demand: &Demand, there: Option<&PlacementView>, empty: bool) -> World {
    let groups: Vec<_> = demand.groups.iter().map(|wanted| wanted.group.clone()).collect();
    let (nodes, held) = match there {
        None => (demand.machines.clone(), Vec::new()),
        Some(view) => {
            let nodes = view.nodes.iter().map(machine).collect();
            let runs = view.replicas.iter().filter(|_| !empty);
            (nodes, runs.filter_map(|row| held(row, demand)).collect())
        }
    };
    World { nodes, pools: demand.pools.clone(), groups, held, traffic: Vec::new() }
}

/// A node of the control plane as placement sees it.
fn machine(row: &NodeRow) -> Machine {
    let locality = row.locality.as_deref().unwrap_or_default();
    let (region, zone) = locality.split_once('/').unwrap_or((locality, ""));
    Machine {
        name: row.name.clone(),
        region: region.into(),
        zone: zone.into(),
        labels: row.labels.clone(),
        taints: row.taints.iter().filter_map(|taint| Taint::parse(taint).ok()).collect(),
        cpu_milli: row.cpu_milli.1,
        memory: row.memory.1,
        gpus: row.gpus.iter().map(card).collect(),
        most_replicas: if row.most_replicas == 0 { u32::MAX } else { row.most_replicas },
        state: match row.status.as_str() {
            "ready" => MachineState::Open,
            "draining" => MachineState::Draining,
            "lost" => MachineState::Lost,
            _ => MachineState::Cordoned,
        },
    }
}

fn card(row: &crate::api::types::GpuRow) -> Card {
    Card {
        id: row.id.clone(),
        model: row.model.clone(),
        memory: row.memory.1,
        healthy: row.failed.is_none(),
        slices: row
            .slices
            .iter()
            .map(|slice| (slice.id.clone(), slice.profile.clone(), slice.memory))
            .collect(),
    }
}

/// A replica that runs, when the plan has its group: others would end.
fn held(row: &ReplicaRow, demand: &Demand) -> Option<Held> {
    let node = row.node.clone()?;
    let wanted = demand.groups.iter().find(|wanted| *wanted.group.id == *row.group)?;
    Some(Held {
        replica: Arc::from(row.id.as_str()),
        group: wanted.group.id.clone(),
        generation: wanted.group.generation.clone(),
        node,
        gpus: row.gpus.clone(),
        need: wanted.group.need.clone(),
        ready: row.status == "ready",
        leaving: row.status == "leaving",
        stopping: row.status == "stopping",
    })
}
