//! `pilotfish edit`: one document in an editor, until it is taken or given up.

mod draft;

use clap::Args;
use http::StatusCode;

use self::draft::Draft;
use super::apply::finish;
use super::client::{Client, Connection, Trouble};
use super::diff::unified;
use super::failed::Failed;
use super::get::fetch;
use super::kinds::{Kinds, Wanted};
use super::output::Output;
use super::terminal::{Terminal, harmless};
use super::wait::Wait;
use crate::api::types::{Action, Applied, File, Resource, Submission};

/// Edit a stored document in an editor.
///
/// The editor is $VISUAL, $EDITOR or vi. When the control plane refuses it, the editor opens again with the reasons as comments at the top. When somebody
/// else changed the document meanwhile, it opens again with what they changed. Leaving without a change gives it up.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  pilotfish edit vs chat -n production
  EDITOR='code --wait' pilotfish edit vs/chat --wait")]
pub struct Edit {
    /// A kind, or KIND/NAME
    #[arg(value_name = "KIND", value_parser = Kinds, hide_possible_values = true)]
    kind: Wanted,

    /// The document's name
    #[arg(value_name = "NAME")]
    name: Option<String>,

    /// Its namespace
    #[arg(short = 'n', long, value_name = "NAME", default_value = "default")]
    namespace: String,

    #[command(flatten)]
    wait: Wait,

    #[command(flatten)]
    output: Output,

    #[command(flatten)]
    connection: Connection,
}

/// What became of one try.
enum Tried {
    /// Stored.
    Done(Applied),
    /// To be edited again; with this to say.
    Again(String),
}

impl Edit {
    /// Does it.
    ///
    /// # Errors
    /// See [`Failed`].
    pub async fn run(self) -> Result<(), Failed> {
        let client = Client::open(&self.connection).await?;
        let mut current = self.current(&client).await?;
        let mut base = client.server.documents;
        let draft = Draft::new(&current.key, &current.yaml)?;
        let mut refused = None;
        loop {
            let Some(text) = draft.edited(&current.yaml)? else { return given_up(refused) };
            match self.store(&client, &mut current, &mut base, &text).await {
                Ok(Tried::Done(applied)) => {
                    draft.remove();
                    return finish(&client, applied, false, &self.wait, self.output).await;
                }
                Ok(Tried::Again(why)) => {
                    draft.explain(&why, &text)?;
                    refused = Some(why);
                }
                Err(failed) => return Err(draft.kept(failed)),
            }
        }
    }

    async fn current(&self, client: &Client) -> Result<Resource, Failed> {
        let name = self.kind.name.as_ref().or(self.name.as_ref());
        let (Some(_), Some(name)) = (self.kind.one(), name) else {
            return Err(Failed::usage("name one document: `pilotfish edit KIND NAME`"));
        };
        let mut found = fetch(client, &self.kind, Some(&self.namespace), &[name]).await?;
        found.pop().ok_or_else(|| Failed::refused(format!("there is no `{name}`")))
    }

    /// Tries to store the text on top of `base`. When another document changed since, that is no conflict.
    async fn store(
        &self,
        client: &Client,
        current: &mut Resource,
        base: &mut u64,
        text: &str,
    ) -> Result<Tried, Failed> {
        let name = format!("{}.yaml", current.key.name);
        let mut submission = Submission {
            summary: format!("edited {}", current.key),
            files: vec![File { name, text: text.to_owned() }],
            namespace: Some(current.key.namespace.clone()),
            dry_run: true,
            base: Some(*base),
            ..Submission::default()
        };
        loop {
            let answer = match client.post::<_, Applied>("/v1/apply", &submission).await {
                Ok(planned) if submission.dry_run => {
                    if let Some(other) = another(&planned, current) {
                        return Ok(Tried::Again(other));
                    }
                    submission.dry_run = false;
                    continue;
                }
                answer => answer,
            };
            match answer {
                Ok(applied) => return Ok(Tried::Done(applied)),
                Err(Trouble::Refused { status: StatusCode::CONFLICT, .. }) => {
                    let newest = Client::open(&self.connection).await?.server.documents;
                    let theirs = self.current(client).await?;
                    *base = newest;
                    submission.base = Some(newest);
                    if theirs.version != current.version {
                        let changed =
                            unified(&current.yaml, &theirs.yaml, ("before", "theirs"), &Terminal::PIPE);
                        *current = theirs;
                        return Ok(Tried::Again(format!(
                            "Somebody else changed it meanwhile, to version {}. Put what they did into this text, or \
                             it is lost:\n{changed}",
                            current.version
                        )));
                    }
                }
                Err(Trouble::Refused { status: StatusCode::UNPROCESSABLE_ENTITY, failure }) => {
                    let lines = [vec![failure.error], failure.diagnostics].concat();
                    return Ok(Tried::Again(lines.join("\n")));
                }
                Err(trouble) => return Err(trouble.into()),
            }
        }
    }
}

/// The user left the editor without a change: at once, or after a refusal.
fn given_up(refused: Option<String>) -> Result<(), Failed> {
    match refused {
        None => {
            eprintln!("nothing was changed");
            Ok(())
        }
        Some(why) => Err(Failed::refused(format!("given up, nothing was stored: {}", harmless(&why, true)))),
    }
}

/// What the text would do to other documents than the one that is edited.
fn another(planned: &Applied, current: &Resource) -> Option<String> {
    let touches =
        |change: &&crate::api::types::Change| change.action != Action::Unchanged && change.key != current.key;
    let other = planned.changes.iter().find(touches)?;
    Some(format!(
        "This edits {}; kind, name and namespace stay. {} is another document: use `pilotfish apply` for it.",
        current.key, other.key
    ))
}
