//! `pilotfish traces`: what agents did, one line for each trace, the newest first.

use clap::Args;

use super::client::{Client, Connection, query};
use super::failed::Failed;
use super::human;
use super::output::Output;
use super::table::{Cell, Table};
use super::terminal::{Terminal, Tone};
use crate::traces::store::Summary;

/// So many digits of a trace's id are shown; `pilotfish trace` takes them for the whole.
const DIGITS: usize = 16;

/// List traces: what agents did for each task, the newest first.
///
/// The control plane keeps what sidecars and OpenTelemetry SDKs send (`serve --traces-disk`). A call that failed or was
/// slow is told of although it was not sampled; such a trace is marked `partial`.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  pilotfish traces
  pilotfish traces --agent production/planner --min-duration 500ms --since 1h
  pilotfish traces --error --limit 5 -o json
  pilotfish traces --workflow trip-42
  pilotfish traces --attribute http.response.status_code:503

Prints:
  TIME     TRACE             AGENT               NAME        DURATION  SPANS  AGENTS  NOTE
  3 s ago  4bf92f3577b34da6  production/planner  POST /plan     1.2 s     14       4  error

`pilotfish trace 4bf92f3577b34da6` shows where the time of one went.")]
pub struct Traces {
    /// Only those with a span of this agent: NAMESPACE/AGENT, or AGENT in every namespace
    #[arg(long, value_name = "NS/AGENT")]
    agent: Option<String>,

    /// Only those with a span of this name (of --agent, when it is given)
    #[arg(long, value_name = "NAME")]
    operation: Option<String>,

    /// Only those that took at least so long
    #[arg(long, value_name = "DURATION")]
    min_duration: Option<String>,

    /// Only those that took at most so long
    #[arg(long, value_name = "DURATION")]
    max_duration: Option<String>,

    /// Only those with an error
    #[arg(long)]
    error: bool,

    /// Only those of the last `1h`, or since a time such as 2026-11-21T18:00:00Z
    #[arg(long, value_name = "TIME")]
    since: Option<String>,

    /// Only those before; as --since
    #[arg(long, value_name = "TIME")]
    until: Option<String>,

    /// Only those of this workflow (`agent-workflow`, or the baggage member `workflow.id`)
    #[arg(long, value_name = "ID")]
    workflow: Option<String>,

    /// Only those in which a span, or who made it, has this attribute
    #[arg(long, value_name = "NAME:VALUE")]
    attribute: Option<String>,

    /// At most so many, up to 1000
    #[arg(long, value_name = "N", default_value_t = 20)]
    limit: u32,

    #[command(flatten)]
    output: Output,

    #[command(flatten)]
    connection: Connection,
}

impl Traces {
    /// Does it.
    ///
    /// # Errors
    /// See [`Failed`].
    pub async fn run(self) -> Result<(), Failed> {
        let client = Client::open(&self.connection).await?;
        let limit = self.limit.to_string();
        let pairs = [
            ("agent", self.agent.as_deref()),
            ("operation", self.operation.as_deref()),
            ("min-duration", self.min_duration.as_deref()),
            ("max-duration", self.max_duration.as_deref()),
            ("error", self.error.then_some("true")),
            ("since", self.since.as_deref()),
            ("until", self.until.as_deref()),
            ("workflow", self.workflow.as_deref()),
            ("attribute", self.attribute.as_deref()),
            ("limit", Some(&*limit)),
        ];
        let found: Vec<Summary> = client.get(&query("/v1/traces", &pairs)).await?;
        if found.is_empty() && !self.output.is_data() {
            eprintln!("no trace is known for which this holds");
        }
        self.output.print(&found, |wide| table(&found, wide, &Terminal::stdout(), human::now()))
    }
}

fn table(found: &[Summary], wide: bool, terminal: &Terminal, now: u64) -> String {
    if found.is_empty() {
        return String::new();
    }
    let mut heads = vec!["TIME", "TRACE", "AGENT", "NAME", ">DURATION", ">SPANS", ">AGENTS"];
    if wide {
        heads.push("WORKFLOW");
    }
    // Most of the time there is nothing to say.
    let marked = found.iter().any(|trace| trace.error || trace.partial);
    if marked {
        heads.push("NOTE");
    }
    let mut table = Table::new(&heads);
    for trace in found {
        let id = trace.trace.get(..DIGITS).filter(|_| !wide).unwrap_or(&trace.trace);
        let start = trace.start_ns / 1_000_000_000;
        let mut cells: Vec<Cell> = vec![
            if wide { human::date(start) } else { human::moment(start, now) }.into(),
            id.into(),
            trace.agent.as_str().into(),
            trace.name.as_str().into(),
            human::latency(trace.duration_ns / 1_000).into(),
            trace.spans.to_string().into(),
            trace.agents.to_string().into(),
        ];
        if wide {
            cells.push(trace.workflow.as_str().into());
        }
        if marked {
            cells.push(match (trace.error, trace.partial) {
                (true, true) => Cell::toned("error, partial", Tone::Bad),
                (true, false) => Cell::toned("error", Tone::Bad),
                (false, true) => Cell::toned("partial", Tone::Warn),
                (false, false) => Cell::toned(" ", Tone::Dim),
            });
        }
        table.row(cells);
    }
    table.print(terminal).lines().map(|line| format!("{}\n", line.trim_end())).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_for_each_trace() {
        let one = Summary {
            trace: "4bf92f3577b34da6a3ce929d0e0e4736".into(),
            agent: "prod/planner".into(),
            name: "POST /plan".into(),
            start_ns: 97_000_000_000,
            duration_ns: 1_200_000_000,
            spans: 14,
            agents: 4,
            error: true,
            ..Summary::default()
        };
        let other = Summary { error: false, workflow: "w".into(), duration_ns: 900_000, ..one.clone() };
        assert_eq!(
            table(&[one.clone(), other.clone()], false, &Terminal::PIPE, 100),
            "TIME     TRACE             AGENT         NAME        DURATION  SPANS  AGENTS  NOTE\n\
             3 s ago  4bf92f3577b34da6  prod/planner  POST /plan     1.2 s     14       4  error\n\
             3 s ago  4bf92f3577b34da6  prod/planner  POST /plan    900 us     14       4\n"
        );
        let wide = table(&[other], true, &Terminal::PIPE, 100);
        assert!(wide.contains("4bf92f3577b34da6a3ce929d0e0e4736") && wide.ends_with("  w\n"), "{wide}");
    }
}
