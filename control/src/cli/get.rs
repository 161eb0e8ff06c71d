//! `pilotfish get`: stored documents.

use clap::{Args, ValueEnum};
use serde_json::Value;
use serde_json::value::RawValue;

use super::client::{Client, Connection, query};
use super::failed::Failed;
use super::kinds::{Kinds, Wanted};
use super::output::{Format, Output};
use super::table::{Cell, Table};
use super::terminal::{self, Terminal};
use crate::api::types::Resource;

/// Show stored documents.
///
/// Kinds are taken in any case, in the plural and by their short names: vs, dr, se, we, wg, ac, asp, sc, pa, ap, ra,
/// tm, td; several are separated by commas; `all` means every kind.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  pilotfish get vs -n production
  pilotfish get virtualservice chat -n production -o yaml
  pilotfish get all -A
  pilotfish get se,we -A -o wide
  pilotfish get vs/chat -o name

Prints:
  NAME   HOSTS  RULES  VERSION
  chat   chat       3        7")]
pub struct Get {
    /// A kind, KIND/NAME, kinds separated by commas, or `all`
    #[arg(value_name = "KIND", value_parser = Kinds, hide_possible_values = true)]
    kind: Wanted,

    /// Only these
    #[arg(value_name = "NAME")]
    names: Vec<String>,

    #[command(flatten)]
    scope: Scope,

    /// How to write them
    #[arg(short = 'o', long = "output", value_name = "FORMAT", default_value = "table")]
    format: Shape,

    #[command(flatten)]
    connection: Connection,
}

/// In which namespace.
#[derive(Debug, Clone, Args)]
pub struct Scope {
    /// The namespace
    #[arg(
        short = 'n',
        long,
        value_name = "NAME",
        default_value = "default",
        conflicts_with = "all_namespaces"
    )]
    pub namespace: String,

    /// Every namespace
    #[arg(short = 'A', long)]
    pub all_namespaces: bool,
}

/// How documents are written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Shape {
    /// For people.
    Table,
    /// For people, with more columns.
    Wide,
    /// One document, or a List.
    Json,
    /// Documents separated by `---`, which `apply -f -` takes again.
    Yaml,
    /// `kind/name`, a line each.
    Name,
}

impl Get {
    /// Does it.
    ///
    /// # Errors
    /// See [`Failed`].
    pub async fn run(self) -> Result<(), Failed> {
        let client = Client::open(&self.connection).await?;
        let names: Vec<&str> =
            self.kind.name.as_deref().into_iter().chain(self.names.iter().map(String::as_str)).collect();
        let namespace = (!self.scope.all_namespaces).then_some(self.scope.namespace.as_str());
        let resources = fetch(&client, &self.kind, namespace, &names).await?;
        if resources.is_empty() && matches!(self.format, Shape::Table | Shape::Wide) {
            eprintln!("{}", self.nothing());
            return Ok(());
        }
        match self.format {
            Shape::Table => terminal::print(&tables(&resources, &self.scope, false)),
            Shape::Wide => terminal::print(&tables(&resources, &self.scope, true)),
            Shape::Yaml => terminal::print(&yaml(&resources)),
            Shape::Json => return json(&resources, names.len() == 1 && resources.len() == 1),
            Shape::Name => {
                terminal::print(&resources.iter().map(|r| format!("{}\n", path(r))).collect::<String>())
            }
        }
        Ok(())
    }

    fn nothing(&self) -> String {
        let what = self.kind.one().map_or("documents".to_owned(), |kind| format!("{kind} documents"));
        if self.scope.all_namespaces {
            format!("there are no {what}")
        } else {
            format!("there are no {what} in the namespace {}; -A looks in all", self.scope.namespace)
        }
    }
}

/// Documents of the kinds and names; a name that is not there is an error.
///
/// # Errors
/// See [`Failed`].
pub async fn fetch(
    client: &Client,
    wanted: &Wanted,
    namespace: Option<&str>,
    names: &[&str],
) -> Result<Vec<Resource>, Failed> {
    let kind = wanted.one();
    let name = if let [name] = names { Some(*name) } else { None };
    let path = query("/v1/resources", &[("kind", kind), ("namespace", namespace), ("name", name)]);
    let mut resources: Vec<Resource> = client.get(&path).await?;
    resources.retain(|resource| {
        let kind = wanted.kinds.is_empty() || wanted.kinds.iter().any(|kind| *kind == resource.key.kind);
        kind && (names.is_empty() || names.contains(&resource.key.name.as_str()))
    });
    resources.sort_by(|left, right| left.key.cmp(&right.key));
    let missing = names.iter().find(|name| !resources.iter().any(|resource| resource.key.name == **name));
    if let Some(missing) = missing {
        let what = kind.unwrap_or("document");
        let place = namespace.map_or("any namespace".to_owned(), |name| format!("the namespace {name}"));
        return Err(Failed::refused(format!("there is no {what} `{missing}` in {place}")));
    }
    Ok(resources)
}

fn path(resource: &Resource) -> String {
    format!("{}/{}", resource.key.kind.to_ascii_lowercase(), resource.key.name)
}

fn yaml(resources: &[Resource]) -> String {
    let texts: Vec<&str> = resources.iter().map(|resource| resource.yaml.trim_end()).collect();
    texts.join("\n---\n") + "\n"
}

fn json(resources: &[Resource], single: bool) -> Result<(), Failed> {
    let output = Output { format: Format::Json };
    // Parsed again, so that it is written over several lines.
    let value = |body: &RawValue| serde_json::from_str(body.get()).unwrap_or(Value::Null);
    let bodies: Vec<Value> = resources.iter().map(|resource| value(&resource.body)).collect();
    match (single, bodies.first()) {
        (true, Some(body)) => output.print(body, |_| String::new()),
        _ => {
            let list = serde_json::json!({"apiVersion": "v1", "kind": "List", "items": bodies});
            output.print(&list, |_| String::new())
        }
    }
}

/// One table for each kind.
fn tables(resources: &[Resource], scope: &Scope, wide: bool) -> String {
    let terminal = Terminal::stdout();
    let kinds: Vec<&[Resource]> = resources.chunk_by(|left, right| left.key.kind == right.key.kind).collect();
    let several = kinds.len() > 1;
    let tables: Vec<String> = kinds
        .iter()
        .map(|group| table(group, scope.all_namespaces, several, wide).print(&terminal))
        .collect();
    tables.join("\n")
}

fn table(group: &[Resource], namespaces: bool, kinds: bool, wide: bool) -> Table {
    let kind = group.first().map_or("", |resource| resource.key.kind.as_str());
    let columns = columns(kind);
    let mut heads: Vec<&'static str> = Vec::new();
    if namespaces {
        heads.push("NAMESPACE");
    }
    heads.push("NAME");
    heads.extend(columns.iter().map(|(head, _)| *head));
    heads.push(">VERSION");
    if wide {
        heads.push("SOURCE");
    }
    let mut table = Table::new(&heads);
    for resource in group {
        let body: Value = serde_json::from_str(resource.body.get()).unwrap_or_default();
        let mut cells: Vec<Cell> = Vec::new();
        if namespaces {
            cells.push(resource.key.namespace.as_str().into());
        }
        cells.push(if kinds { path(resource).into() } else { resource.key.name.as_str().into() });
        cells.extend(columns.iter().map(|(_, read)| read(&body["spec"]).into()));
        cells.push(resource.version.to_string().into());
        if wide {
            cells.push(resource.source.as_str().into());
        }
        table.row(cells);
    }
    table
}

/// A heading, and what of a `spec` is under it.
type Column = (&'static str, fn(&Value) -> String);

/// What is worth a column of each kind.
fn columns(kind: &str) -> &'static [Column] {
    match kind {
        "VirtualService" => {
            &[("HOSTS", |spec| list(&spec["hosts"])), (">RULES", |spec| number(&spec["http"]))]
        }
        "DestinationRule" => {
            &[("HOST", |spec| text(&spec["host"])), ("SUBSETS", |spec| names(&spec["subsets"]))]
        }
        "ServiceEntry" => &[
            ("HOSTS", |spec| list(&spec["hosts"])),
            ("RESOLUTION", |spec| text(&spec["resolution"])),
            (">ENDPOINTS", |spec| number(&spec["endpoints"])),
        ],
        "WorkloadEntry" => &[("ADDRESS", |spec| text(&spec["address"]))],
        "AgentCluster" => &[("AGENTS", |spec| names(&spec["agents"]))],
        "GpuPool" => &[
            ("SHARING", |spec| text(&spec["sharing"])),
            ("MODELS", |spec| list(&spec["selector"]["models"])),
        ],
        "Node" => &[("REGION", |spec| text(&spec["region"])), (">GPUS", |spec| number(&spec["gpus"]))],
        "PeerAuthentication" => &[("MODE", |spec| text(&spec["mtls"]["mode"]))],
        "AuthorizationPolicy" => &[("ACTION", |spec| text(&spec["action"]))],
        _ => &[],
    }
}

fn text(value: &Value) -> String {
    value.as_str().unwrap_or_default().to_owned()
}

fn list(value: &Value) -> String {
    let texts: Vec<String> = value.as_array().into_iter().flatten().map(text).collect();
    texts.join(",")
}

fn names(value: &Value) -> String {
    let texts: Vec<String> = value.as_array().into_iter().flatten().map(|item| text(&item["name"])).collect();
    texts.join(",")
}

fn number(value: &Value) -> String {
    value.as_array().map_or(0, Vec::len).to_string()
}
