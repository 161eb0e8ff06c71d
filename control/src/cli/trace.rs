//! `pilotfish trace`: where the time of one trace went.

use std::collections::HashSet;
use std::fmt::Write as _;

use clap::Args;
use opentelemetry_proto::tonic::trace::v1::TracesData;
use pilotfish_filters::trace::TraceId;

use super::client::{Client, Connection, encoded};
use super::failed::Failed;
use super::human;
use super::output::Output;
use super::terminal::{Terminal, Tone, harmless};
use super::waterfall;
use crate::traces::analysis::analyse;
use crate::traces::convert;
use crate::traces::span::{Trace as Known, Value};

/// Show one trace as a waterfall: who called whom, how long it took, what failed and was tried again.
///
/// Times are those of the machines that made the spans. With `-o json` the trace is printed as OpenTelemetry's OTLP
/// JSON, as `GET /v1/traces/ID` answers it.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  pilotfish trace 4bf92f3577b34da6a3ce929d0e0e4736
  pilotfish trace 4bf92f35
  pilotfish trace 4bf92f35 -o json > trace.json

Prints:
  SPAN                            AGENT           TIME
  POST /plan                      prod/planner  100 ms  ████████████████████████
  ├─ POST 503                     prod/planner   50 ms    ▒▒▒▒▒▒▒▒▒▒▒▒
  └─ POST -> prod/search [try 2]  prod/planner   40 ms                ██████████
     └─ POST /search              prod/search    20 ms                  ▒▒▒▒▒")]
pub struct Trace {
    /// Its id, 32 hexadecimal digits, or so many of the first that no other begins with them
    #[arg(value_name = "ID", value_parser = id)]
    id: String,

    #[command(flatten)]
    output: Output,

    #[command(flatten)]
    connection: Connection,
}

/// The id as it may be copied from a table.
fn id(text: &str) -> Result<String, String> {
    let digits = text.trim_end_matches('…').to_ascii_lowercase();
    let hex = digits.bytes().all(|byte| byte.is_ascii_hexdigit());
    if hex && (6..=32).contains(&digits.len()) {
        return Ok(digits);
    }
    Err("expected 6 to 32 hexadecimal digits, as `pilotfish traces` shows them".into())
}

impl Trace {
    /// Does it.
    ///
    /// # Errors
    /// See [`Failed`].
    pub async fn run(self) -> Result<(), Failed> {
        let client = Client::open(&self.connection).await?;
        let data: TracesData = client.get(&format!("/v1/traces/{}", encoded(&self.id))).await?;
        self.output.print(&data, |_| shown(&data, &Terminal::stdout()))
    }
}

fn shown(data: &TracesData, terminal: &Terminal) -> String {
    let mut spans =
        data.resource_spans.iter().flat_map(|group| &group.scope_spans).flat_map(|scope| &scope.spans);
    let id = spans.next().and_then(|span| <[u8; 16]>::try_from(&span.trace_id[..]).ok()).unwrap_or_default();
    let trace = convert::trace(TraceId(id), data.clone());
    let critical = critical(&trace);
    format!("{}\n{}", head(&trace, terminal), waterfall::draw(&trace, &critical, terminal))
}

/// What is to be known before the tree.
fn head(trace: &Known, terminal: &Terminal) -> String {
    let (start, end) = waterfall::extent(trace);
    let agents: HashSet<String> = trace.spans.iter().map(|span| span.resource.agent()).collect();
    let errors = trace.spans.iter().filter(|span| span.error).count();
    let retries =
        trace.spans.iter().filter(|span| span.number("http.request.resend_count").is_some_and(|n| n > 0));
    let mut said = vec![
        human::latency((end - start) / 1_000),
        human::count(trace.spans.len(), "span"),
        human::count(agents.len(), "agent"),
    ];
    if errors > 0 {
        said.push(terminal.paint(Tone::Bad, &human::count(errors, "error")));
    }
    match retries.count() {
        0 => {}
        1 => said.push("1 retry".into()),
        count => said.push(format!("{count} retries")),
    }
    if trace.spans.iter().any(|span| span.attribute("pilotfish.trace.partial") == Some(&Value::Bool(true))) {
        said.push("partial".into());
    }
    let mut text = format!("trace {}, {}\n", trace.id, human::date(start / 1_000_000_000));
    let _ = writeln!(text, "{}", said.join(", "));
    if let Some(workflow) = trace.spans.iter().find_map(|span| span.text("pilotfish.workflow.id")) {
        let _ = writeln!(text, "workflow {}", harmless(workflow, false));
    }
    text
}

/// The spans that the trace waited for.
fn critical(trace: &Known) -> HashSet<String> {
    analyse(trace).critical_path.into_iter().filter_map(|piece| piece.span).collect()
}
