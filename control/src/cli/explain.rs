//! `pilotfish explain`: which rule and endpoint a request would get, without sending it.

use std::fmt::Write as _;

use clap::Args;

use super::client::{Client, Connection};
use super::failed::Failed;
use super::output::Output;
use super::table::Table;
use super::terminal::{Terminal, Tone, harmless};
use crate::api::types::{Explanation, Question};

/// Say which rule and endpoint a request would get, and why.
///
/// Nothing is sent. The control plane answers with the router that sidecars use and with what it knows: measurements of the sidecar
/// itself may change the order of candidates. The sidecar's own `/why` knows those.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  pilotfish explain --from production/web http://chat/v1/messages
  pilotfish explain --from production/web -X POST -H 'x-user: anna' http://chat/
  pilotfish explain --from production/web -H 'agent-capability: nlu' -d @call.json http://any/

Exit code 1 when the request would be refused.")]
pub struct Explain {
    /// The agent whose sidecar is asked: NAMESPACE/AGENT, or AGENT of the namespace `default`
    #[arg(long, value_name = "NS/AGENT", value_parser = agent)]
    from: Option<(String, String)>,

    /// Method [default: GET, with -d POST]
    #[arg(short = 'X', long, value_name = "METHOD")]
    method: Option<String>,

    /// A header; repeat it for more
    #[arg(short = 'H', long = "header", value_name = "NAME: VALUE", value_parser = header)]
    headers: Vec<(String, String)>,

    /// The body, for rules that look into it; @FILE reads a file
    #[arg(short = 'd', long = "data-body", value_name = "BODY")]
    body: Option<String>,

    /// What would be asked for: http://host/path, or host/path
    #[arg(value_name = "URL")]
    url: String,

    #[command(flatten)]
    output: Output,

    #[command(flatten)]
    connection: Connection,
}

fn agent(text: &str) -> Result<(String, String), String> {
    let (namespace, agent) = text.split_once('/').unwrap_or(("default", text));
    if namespace.is_empty() || agent.is_empty() || agent.contains('/') {
        return Err("expected NAMESPACE/AGENT".into());
    }
    Ok((namespace.to_owned(), agent.to_owned()))
}

fn header(text: &str) -> Result<(String, String), String> {
    let (name, value) = text.split_once(':').ok_or("expected `NAME: VALUE`")?;
    Ok((name.trim().to_ascii_lowercase(), value.trim().to_owned()))
}

impl Explain {
    /// Does it.
    ///
    /// # Errors
    /// See [`Failed`].
    pub async fn run(self) -> Result<(), Failed> {
        let body = match self.body.as_deref().map(|body| (body, body.strip_prefix('@'))) {
            Some((_, Some(file))) => {
                let text = std::fs::read_to_string(file);
                Some(text.map_err(|error| Failed::usage(format!("{file}: {error}")))?)
            }
            Some((body, None)) => Some(body.to_owned()),
            None => None,
        };
        let (namespace, agent) = self.from.unwrap_or_else(|| ("default".into(), String::new()));
        let method = self.method.unwrap_or_else(|| if body.is_some() { "POST" } else { "GET" }.into());
        let question = Question { agent, namespace, method, url: self.url, headers: self.headers, body };
        let client = Client::open(&self.connection).await?;
        let answer: Explanation = client.post("/v1/explain", &question).await?;
        self.output.print(&answer, |_| text(&answer, &Terminal::stdout()))?;
        match answer.refused {
            Some(_) => Err(Failed::told(super::failed::Why::Refused)),
            None => Ok(()),
        }
    }
}

fn text(answer: &Explanation, terminal: &Terminal) -> String {
    let mut text = String::new();
    for line in &answer.lines {
        let _ = writeln!(text, "{}", harmless(line, false));
    }
    if let Some(word) = &answer.refused {
        let word = terminal.paint(Tone::Bad, &harmless(word, false));
        let _ = writeln!(text, "refused: {word}");
    }
    if !answer.candidates.is_empty() {
        let mut table = Table::new(&["CANDIDATE", "WHY"]);
        for (address, why) in &answer.candidates {
            table.row([address.as_str().into(), why.as_str().into()]);
        }
        let _ = write!(text, "\n{}", table.print(terminal));
    }
    text
}
