//! `pilotfish authz`: who may call whom, and why.

mod explain;
mod matrix;

use std::path::PathBuf;

use clap::{Args, Subcommand};
use pilotfish_config::model::{Model, StringMap};
use pilotfish_config::{Options, load_texts};
use pilotfish_filters::compile::CompileOptions;

use super::failed::Failed;
use super::files;
use crate::authz::matrix::Agents;

/// Who may call whom, and by which rule.
///
/// The decision is that of the sidecar of the agent that is called: made by the same code, of the same documents
/// (AuthorizationPolicy, AgentSecurityPolicy, RoleBinding, RequestAuthentication). Nothing is sent to any agent.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  pilotfish authz explain --from web --to chat --method POST --path /v1/messages
  pilotfish authz explain --from production/web --to production/chat --body call.json -o json
  pilotfish authz matrix
  pilotfish authz matrix -n production --method GET --path /health
  pilotfish authz matrix -f policies/                     # no control plane needed")]
pub struct Authz {
    #[command(subcommand)]
    command: AuthzCommand,
}

#[derive(Debug, Subcommand)]
enum AuthzCommand {
    Explain(Box<explain::Explain>),
    Matrix(Box<matrix::Matrix>),
}

impl Authz {
    /// Does it.
    ///
    /// # Errors
    /// See [`Failed`].
    pub async fn run(self) -> Result<(), Failed> {
        match self.command {
            AuthzCommand::Explain(explain) => explain.run().await,
            AuthzCommand::Matrix(matrix) => matrix.run().await,
        }
    }
}

/// Documents in files, instead of those of a control plane.
#[derive(Debug, Args)]
struct Offline {
    /// Decide by these files or folders, without a control plane; `-` reads standard input
    #[arg(short = 'f', long = "file", value_name = "PATH", num_args = 1..)]
    files: Vec<PathBuf>,

    /// With -f: the mesh's own trust domain
    #[arg(long, value_name = "NAME", default_value = "cluster.local", requires = "files")]
    trust_domain: String,

    /// With -f: nobody may call whom no ALLOW policy lets in
    #[arg(long, requires = "files")]
    default_deny: bool,
}

impl Offline {
    fn is_on(&self) -> bool {
        !self.files.is_empty()
    }

    /// The documents' meaning.
    fn model(&self) -> Result<Model, Failed> {
        let files = files::read(&self.files)?;
        let texts: Vec<(&str, &str)> =
            files.iter().map(|file| (file.name.as_str(), file.text.as_str())).collect();
        let loaded = load_texts(&texts, &Options::default());
        let errors = || {
            let errors = loaded.report.diagnostics.iter();
            let errors = errors.filter(|found| found.severity == pilotfish_config::Severity::Error);
            errors.map(ToString::to_string).collect::<Vec<_>>().join("\n")
        };
        loaded.model.clone().ok_or_else(|| Failed::refused(format!("the files are not valid:\n{}", errors())))
    }

    /// How the agent that is called is compiled.
    fn options(&self, agents: &Agents, to: &str, labels: StringMap) -> CompileOptions {
        let (namespace, agent) = to.split_once('/').unwrap_or(("default", to));
        let mut own = agents.labels(namespace, agent);
        own.extend(labels);
        CompileOptions {
            agent: agent.to_owned(),
            namespace: namespace.to_owned(),
            labels: own,
            trust_domain: Some(self.trust_domain.clone()),
            default_deny: self.default_deny,
            ..CompileOptions::default()
        }
    }
}
