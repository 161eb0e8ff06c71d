//! `pilotfish delete`: removes documents.

use clap::Args;
use http::StatusCode;
use pilotfish_config::wire::Key;
use pilotfish_config::yaml::{Limits, Node, Type, compose};

use super::apply::finish;
use super::client::{Client, Connection, Trouble, encoded};
use super::failed::Failed;
use super::files::Files;
use super::kinds::{Kinds, Wanted};
use super::output::Output;
use super::wait::Wait;
use crate::api::types::{Applied, File};

/// Remove documents.
///
/// A removal is a new version; `pilotfish rollback` brings them back.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  pilotfish delete vs chat -n production
  pilotfish delete vs/chat dr/chat --wait
  pilotfish delete se old-a old-b -n production
  pilotfish delete -f routes.yaml                # what the file names, whatever else it says

Prints:
  VirtualService production/chat removed
  version 8")]
pub struct Delete {
    /// A kind, or KIND/NAME
    #[arg(value_name = "KIND", value_parser = Kinds, hide_possible_values = true)]
    #[arg(required_unless_present = "paths", conflicts_with = "paths")]
    kind: Option<Wanted>,

    /// Names of this kind; or KIND/NAME again
    #[arg(value_name = "NAME", conflicts_with = "paths")]
    names: Vec<String>,

    /// Remove the documents that these files name; `-` reads standard input
    #[arg(short = 'f', long = "file", value_name = "PATH", num_args = 1..)]
    paths: Vec<std::path::PathBuf>,

    /// Their namespace, with -f of those that name none
    #[arg(short = 'n', long, value_name = "NAME", default_value = "default")]
    namespace: String,

    /// What is not there is no error
    #[arg(long)]
    ignore_not_found: bool,

    #[command(flatten)]
    wait: Wait,

    #[command(flatten)]
    output: Output,

    #[command(flatten)]
    connection: Connection,
}

impl Delete {
    /// Does it.
    ///
    /// # Errors
    /// See [`Failed`].
    pub async fn run(self) -> Result<(), Failed> {
        let keys = self.keys()?;
        let client = Client::open(&self.connection).await?;
        let mut all = Applied { version: client.server.documents, changes: Vec::new(), warnings: Vec::new() };
        for key in &keys {
            let path = [&key.kind, &key.namespace, &key.name].map(|part| encoded(part)).join("/");
            match client.delete::<Applied>(&format!("/v1/resources/{path}")).await {
                Ok(applied) => {
                    all.version = applied.version;
                    all.changes.extend(applied.changes);
                    all.warnings = applied.warnings;
                }
                Err(Trouble::Refused { status: StatusCode::NOT_FOUND, .. }) if self.ignore_not_found => {}
                // Earlier ones are gone by now, and that has to be said.
                Err(trouble) if all.changes.is_empty() => return Err(trouble.into()),
                Err(trouble) => {
                    finish(&client, all, false, &Wait::default(), self.output).await?;
                    return Err(trouble.into());
                }
            }
        }
        finish(&client, all, false, &self.wait, self.output).await
    }

    fn keys(&self) -> Result<Vec<Key>, Failed> {
        let Some(wanted) = &self.kind else { return self.keys_of_files() };
        let Some(kind) = wanted.one() else {
            return Err(Failed::usage("name one kind; what is removed together can be given by -f"));
        };
        let names: Vec<&String> = wanted.name.iter().chain(&self.names).collect();
        if names.is_empty() {
            return Err(Failed::usage(format!(
                "which {kind}? Give its name; `pilotfish get {kind}` lists them"
            )));
        }
        let key = |name: &String| {
            // `vs/a vs/b`, as kubectl takes it too.
            let other = Wanted::parse(name).filter(|own| own.name.is_some());
            let (kind, name) = match &other {
                Some(Wanted { kinds, name: Some(name) }) => (kinds.first().copied().unwrap_or(kind), name),
                _ => (kind, name),
            };
            Key { kind: kind.into(), namespace: self.namespace.clone(), name: name.clone() }
        };
        Ok(names.into_iter().map(key).collect())
    }

    fn keys_of_files(&self) -> Result<Vec<Key>, Failed> {
        let files =
            Files { paths: self.paths.clone(), namespace: None, strict_istio: false }.submission()?.files;
        let mut keys = Vec::new();
        for file in &files {
            keys_of(file, &self.namespace, &mut keys)?;
        }
        if keys.is_empty() { Err(Failed::refused("the files name no document")) } else { Ok(keys) }
    }
}

/// The keys of a file's documents; nothing else of them has to be right.
fn keys_of(file: &File, namespace: &str, keys: &mut Vec<Key>) -> Result<(), Failed> {
    let (tree, problems) = compose(&file.name.as_str().into(), &file.text, &Limits::default());
    if let Some(problem) = problems.first() {
        let at = problem.at;
        return Err(Failed::refused(format!("{}:{}:{}: {}", file.name, at.line, at.column, problem.message)));
    }
    for document in tree.documents().filter(|document| document.kind() != Type::Null) {
        let items: Vec<Node<'_>> = match document.get("items") {
            Some(items) => items.children().collect(),
            None => vec![document],
        };
        for item in items {
            let meta = item.get("metadata");
            let of = |node: Option<Node<'_>>, name| {
                node.and_then(|node| node.get(name)).and_then(Node::scalar).map(|text| text.text.to_owned())
            };
            let (Some(kind), Some(name)) = (of(Some(item), "kind"), of(meta, "name")) else {
                let line = item.at().line;
                return Err(Failed::refused(format!(
                    "{}:{line}: a document without kind or metadata.name",
                    file.name
                )));
            };
            let namespace = of(meta, "namespace").unwrap_or_else(|| namespace.to_owned());
            keys.push(Key { kind, namespace, name });
        }
    }
    Ok(())
}
