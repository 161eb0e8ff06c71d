//! `pilotfish authz explain`: whether a call would be allowed, by which rule, and if not, what to write.

use std::fmt::Write as _;
use std::net::IpAddr;
use std::path::PathBuf;

use clap::Args;
use data_encoding::BASE64URL_NOPAD;
use pilotfish_config::wire::Normalization;
use pilotfish_filters::compile::CompileOptions;
use serde_json::{Map, Value};

use super::Offline;
use crate::api::types::{AuthzAnswer, AuthzPolicy, AuthzQuestion};
use crate::authz::matrix::Agents;
use crate::authz::{Callee, explain};
use crate::cli::agent_name;
use crate::cli::client::{Client, Connection};
use crate::cli::failed::{Failed, Why};
use crate::cli::output::Output;
use crate::cli::table::{Cell, Table};
use crate::cli::terminal::{Terminal, Tone, harmless};

/// Say whether a call would be allowed, by which rule, and what to write if not.
///
/// Nothing is sent: the control plane decides as the sidecar of the agent that is called would, by the documents that it
/// has. With -f the documents of files decide, and no control plane is needed.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  pilotfish authz explain --from web --to chat --method POST --path /v1/messages
  pilotfish authz explain --from web --to tools --path /mcp --body call.json
  pilotfish authz explain --from web --to llm -d '{\"model\":\"small-1\"}' --path /v1/chat/completions
  pilotfish authz explain --from web --to chat --claim iss=https://a --claim 'groups=[\"admin\"]'
  pilotfish authz explain --from web --to chat --token-claims '{\"iss\":\"https://a\",\"sub\":\"u\"}'
  pilotfish authz explain --from billing --to ledger --via web,chat   # acts for chat, chat for web
  pilotfish authz explain --from web --to chat --path //admin --path-normalization merge-slashes
  pilotfish authz explain -f policies/ --to chat --label app=chat --from web

Prints:
  refused with 403 access-denied: GET / of shop/chat, called by cluster.local/ns/shop/agent/web
  no ALLOW rule lets cluster.local/ns/shop/agent/web do GET /
  no rule of shop/writers matches (writers.yaml:2:1)

  POLICY        ACTION  RULE  SAYS
  shop/writers  ALLOW      -  no rule fits, rule 1 nearly

  shop/writers rule 1 does not match:
    method: it wants POST, and this is GET

  To allow it: add to an ALLOW policy for this agent the rule {from: [...], to: [...]}

Exit code 1 when the call would be refused.")]
pub struct Explain {
    /// Who calls: NAMESPACE/AGENT, AGENT, or TRUST-DOMAIN/ns/NAMESPACE/agent/NAME [default: somebody without a certificate]
    #[arg(long, value_name = "AGENT")]
    from: Option<String>,

    /// The agent that is called: NAMESPACE/AGENT, or AGENT
    #[arg(long, value_name = "AGENT")]
    to: String,

    /// Namespace of --from, --to and --via where they name none [default: default]
    #[arg(short = 'n', long, value_name = "NAME")]
    namespace: Option<String>,

    /// Method [default: GET, with --body POST]
    #[arg(short = 'X', long, value_name = "METHOD")]
    method: Option<String>,

    /// Path and query
    #[arg(long, value_name = "PATH", default_value = "/")]
    path: String,

    /// The host that the caller names [default: AGENT.NAMESPACE.svc.cluster.local]
    #[arg(long, value_name = "HOST")]
    host: Option<String>,

    /// A header; repeat it for more
    #[arg(short = 'H', long = "header", value_name = "NAME: VALUE", value_parser = header)]
    headers: Vec<(String, String)>,

    /// The body: JSON, or a file that holds it
    #[arg(short = 'd', long, value_name = "JSON|FILE")]
    body: Option<String>,

    /// What the caller's token says, as JSON
    #[arg(long, value_name = "JSON", conflicts_with = "token")]
    token_claims: Option<String>,

    /// One claim of the caller's token, besides --token or --token-claims; VALUE is JSON or a text. Repeat it for more
    #[arg(long = "claim", value_name = "NAME=VALUE", value_parser = claim)]
    claims: Vec<(String, Value)>,

    /// A file with the caller's token; it is decoded, not verified
    #[arg(long, value_name = "FILE")]
    token: Option<PathBuf>,

    /// The agents for whom the caller acts, first to last
    #[arg(long, visible_alias = "on-behalf-of", value_name = "AGENT,...", value_delimiter = ',')]
    via: Vec<String>,

    /// Where that began, an identity or ISSUER/SUBJECT of a token [default: the first of --via]
    #[arg(long, value_name = "WHO")]
    origin: Option<String>,

    /// The caller's address [default: 127.0.0.1]
    #[arg(long, value_name = "IP")]
    from_ip: Option<IpAddr>,

    /// The address of the client behind proxies that are trusted, for remoteIpBlocks and remote.ip [default: --from-ip]
    #[arg(long, value_name = "IP")]
    remote_ip: Option<IpAddr>,

    /// How far sidecars normalise paths: none, base, merge-slashes, decode-and-merge-slashes [default: what the sidecars of
    /// the two agents run with, as they tell the control plane; base where there is none]
    #[arg(long, value_name = "MODE", value_parser = normalization)]
    path_normalization: Option<Normalization>,

    /// The port that the agent itself listens on
    #[arg(long, value_name = "PORT")]
    port: Option<u16>,

    /// With -f: a label of the agent that is called; repeat it, or separate several by commas
    #[arg(long = "label", visible_alias = "labels", value_name = "KEY=VALUE", value_delimiter = ',', value_parser = label, requires = "files")]
    labels: Vec<(String, String)>,

    #[command(flatten)]
    offline: Offline,

    #[command(flatten)]
    output: Output,

    #[command(flatten)]
    connection: Connection,
}

fn header(text: &str) -> Result<(String, String), String> {
    let (name, value) = text.split_once(':').ok_or("expected `NAME: VALUE`")?;
    Ok((name.trim().to_ascii_lowercase(), value.trim().to_owned()))
}

fn claim(text: &str) -> Result<(String, Value), String> {
    let (name, value) = text.split_once('=').ok_or("expected NAME=VALUE")?;
    let value = serde_json::from_str(value).unwrap_or_else(|_| Value::from(value));
    Ok((name.to_owned(), value))
}

fn normalization(text: &str) -> Result<Normalization, String> {
    let word = text.to_ascii_lowercase().replace('_', "-");
    serde_json::from_value(Value::from(word))
        .map_err(|_| "expected none, base, merge-slashes or decode-and-merge-slashes".into())
}

fn label(text: &str) -> Result<(String, String), String> {
    let (key, value) = text.split_once('=').ok_or("expected KEY=VALUE")?;
    Ok((key.to_owned(), value.to_owned()))
}

impl Explain {
    /// Does it.
    ///
    /// # Errors
    /// See [`Failed`].
    pub async fn run(self) -> Result<(), Failed> {
        let question = self.question()?;
        let answer: AuthzAnswer = if self.offline.is_on() {
            let model = self.offline.model()?;
            let labels = self.labels.iter().cloned().collect();
            let options = self.offline.options(&Agents::declared(&model), &question.to, labels);
            let sends = question.normalization.unwrap_or_default();
            let options = CompileOptions { normalization: sends, ..options };
            explain(&Callee::new(&model, options), sends, &question, &Default::default())
                .map_err(Failed::usage)?
        } else {
            let client = Client::open(&self.connection).await?;
            client.post("/v1/authz/explain", &question).await?
        };
        self.output.print(&answer, |_| text(&answer, &question, &Terminal::stdout()))?;
        match answer.allowed {
            true => Ok(()),
            false => Err(Failed::told(Why::Refused)),
        }
    }

    fn question(&self) -> Result<AuthzQuestion, Failed> {
        let agent = |name: &String| match name.matches('/').count() {
            0 | 1 => agent_name::full(name, self.namespace.as_deref().filter(|_| !name.contains('/'))),
            // An identity.
            _ => Ok(name.clone()),
        };
        let body = self.body.as_deref().map(read_body).transpose()?;
        let method =
            self.method.clone().unwrap_or_else(|| if body.is_some() { "POST" } else { "GET" }.into());
        Ok(AuthzQuestion {
            from: self.from.as_ref().map(agent).transpose()?.unwrap_or_default(),
            to: agent(&self.to)?,
            method,
            path: self.path.clone(),
            host: self.host.clone(),
            headers: self.headers.clone(),
            body,
            claims: self.claims()?,
            via: self.via.iter().map(agent).collect::<Result<_, _>>()?,
            origin: self.origin.clone(),
            from_ip: self.from_ip,
            port: self.port,
            remote_ip: self.remote_ip,
            normalization: self.path_normalization,
        })
    }

    fn claims(&self) -> Result<Option<Map<String, Value>>, Failed> {
        let mut claims = self.token_payload()?;
        if !self.claims.is_empty() {
            claims.get_or_insert_default().extend(self.claims.iter().cloned());
        }
        Ok(claims)
    }

    fn token_payload(&self) -> Result<Option<Map<String, Value>>, Failed> {
        let object = |text: &str, what: &str| {
            serde_json::from_str::<Map<String, Value>>(text)
                .map(Some)
                .map_err(|error| Failed::usage(format!("{what} is no JSON object: {error}")))
        };
        if let Some(claims) = &self.token_claims {
            return object(claims, "--token-claims");
        }
        let Some(file) = &self.token else { return Ok(None) };
        let named = file.display();
        let text =
            std::fs::read_to_string(file).map_err(|error| Failed::usage(format!("{named}: {error}")))?;
        let payload = text.trim().split('.').nth(1).unwrap_or_default();
        let decoded = BASE64URL_NOPAD.decode(payload.trim_end_matches('=').as_bytes()).ok();
        let decoded = decoded.and_then(|bytes| String::from_utf8(bytes).ok());
        let decoded = decoded
            .ok_or_else(|| Failed::usage(format!("{named} holds no token (header.payload.signature)")))?;
        object(&decoded, "the token's payload")
    }
}

/// JSON as it is, or a file's text.
fn read_body(body: &str) -> Result<String, Failed> {
    let file = match body.strip_prefix('@') {
        Some(file) => file,
        None if body.trim_start().starts_with(['{', '[']) || body.is_empty() => return Ok(body.to_owned()),
        None => body,
    };
    std::fs::read_to_string(file).map_err(|error| {
        Failed::usage(format!("--body is neither JSON nor a file: {}: {error}", file.escape_debug()))
    })
}

fn text(answer: &AuthzAnswer, question: &AuthzQuestion, terminal: &Terminal) -> String {
    let mut text = String::new();
    let clean = |text: &str| harmless(text, false);
    let verdict = match (&answer.reason, answer.status) {
        (Some(reason), status) => {
            terminal.paint(Tone::Bad, &format!("refused with {} {reason}", status.unwrap_or(403)))
        }
        _ => terminal.paint(Tone::Good, "allowed"),
    };
    let from = if answer.from.is_empty() { "somebody without a certificate" } else { &answer.from };
    let what = format!("{} {} of {}, called by {from}", question.method, question.path, answer.to);
    let _ = writeln!(text, "{verdict}: {}", clean(&what));
    if let Some(detail) = &answer.detail {
        let _ = writeln!(text, "{}", clean(detail));
    }
    match (answer.by.as_str(), &answer.written) {
        ("", _) if !answer.policies.is_empty() => {
            text.push_str("no ALLOW policy is for this agent, so every agent of the mesh may call it, but for what others refuse\n")
        }
        ("", _) => text.push_str("no policy is for this agent, so every agent of the mesh may call it\n"),
        (by, written) => {
            let by = match by.strip_suffix(" no rule") {
                Some(policy) => format!("no rule of {} matches", clean(policy)),
                None => format!("by {}", clean(by)),
            };
            let place = |written: &String| format!(" ({})", terminal.paint(Tone::Place, &clean(written)));
            let _ = writeln!(text, "{by}{}", written.as_ref().map(place).unwrap_or_default());
        }
    }
    if let Some(asks) = &answer.asks {
        let so = if asks.dry_run {
            "a dry run: its answer is recorded, not obeyed"
        } else {
            "it may refuse the call"
        };
        let _ =
            writeln!(text, "{} is asked before, because of {}; {so}", clean(&asks.provider), clean(&asks.by));
    }
    if let Some(dry) = &answer.dry_run {
        let _ = writeln!(text, "the dry run {} would decide otherwise", clean(dry));
    }
    if answer.audit {
        text.push_str("it is recorded in the audit log\n");
    }
    text.push_str(&rights(answer, terminal));
    text.push_str(&policies(&answer.policies, terminal));
    if (answer.advice.is_some() || !answer.notes.is_empty()) && !text.ends_with("\n\n") {
        text.push('\n');
    }
    if let Some(advice) = &answer.advice {
        let _ = writeln!(text, "{} {}", terminal.paint(Tone::Good, "To allow it:"), clean(advice));
    }
    for note in &answer.notes {
        let _ = writeln!(text, "note: {}", clean(note));
    }
    text
}

/// What the call needs, and who gives it.
fn rights(answer: &AuthzAnswer, terminal: &Terminal) -> String {
    let mut text = String::new();
    if let Some(permission) = &answer.permission {
        let resource = answer.resource.as_deref().unwrap_or("?");
        let _ = writeln!(text, "it needs {} on {}", harmless(permission, false), harmless(resource, false));
    }
    if let Some(class) = &answer.class {
        let clearance = answer.clearance.as_deref();
        let clearance =
            clearance.map(|most| format!("; the caller may see {most} at most")).unwrap_or_default();
        let _ = writeln!(text, "it asks for what is {class}{clearance}");
    }
    if !answer.roles.is_empty() {
        let mut table = Table::new(&["ROLE OF THE CALLER", "GIVES IT"]);
        for role in &answer.roles {
            let gives = if role.gives { Cell::toned("yes", Tone::Good) } else { "no".into() };
            table.row([role.role.as_str().into(), gives]);
        }
        let _ = write!(text, "\n{}", table.print(terminal));
    }
    text
}

fn policies(policies: &[AuthzPolicy], terminal: &Terminal) -> String {
    if policies.is_empty() {
        return String::new();
    }
    let mut table = Table::new(&["POLICY", "ACTION", ">RULE", "SAYS"]);
    for policy in policies {
        let action =
            if policy.dry_run { format!("{} (dry run)", policy.action) } else { policy.action.clone() };
        let rule = policy.rule.map(|rule| rule.to_string()).unwrap_or_default();
        let says = match (&policy.broken, &policy.rule, &policy.near) {
            (Some(why), _, _) => Cell::toned(format!("cannot be enforced: {why}"), Tone::Bad),
            (None, Some(_), _) => Cell::from(format!("matches ({})", policy.written)),
            (None, None, Some((rule, _))) => format!("no rule fits, rule {rule} nearly").into(),
            (None, None, None) => "it has no rules".into(),
        };
        table.row([policy.policy.as_str().into(), action.into(), rule.into(), says]);
    }
    format!("\n{}{}", table.print(terminal), nearly(policies))
}

/// What does not fit in the rules that nearly match, whole: columns are cut on a terminal.
fn nearly(policies: &[AuthzPolicy]) -> String {
    let near = |policy: &&AuthzPolicy| policy.rule.is_none() && policy.broken.is_none();
    let mut text = String::new();
    for policy in policies.iter().filter(near) {
        let Some((rule, misfits)) = &policy.near else { continue };
        let _ = write!(text, "\n{} rule {rule} does not match:\n", harmless(&policy.policy, false));
        for misfit in misfits {
            let _ = writeln!(text, "  {}", harmless(misfit, false));
        }
    }
    if text.is_empty() { text } else { text + "\n" }
}
