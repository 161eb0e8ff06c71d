//! `pilotfish analyze`: where the time of a trace or a workflow went, and what to do about it.

use std::fmt::Write as _;

use clap::Args;

use super::client::{Client, Connection, query};
use super::failed::Failed;
use super::human;
use super::output::Output;
use super::table::{Cell, Table};
use super::terminal::{Terminal, Tone, harmless};
use crate::api::analysis::{
    AgentTime, Bottleneck, Part, Recommendation, Segment, Severity, Time, TraceAnalysis, WorkflowAnalysis,
};

/// Pieces of the critical path that a table shows: the longest.
const MOST_PIECES: usize = 15;
/// Bottlenecks and agents that a table shows.
const MOST_ROWS: usize = 10;
/// How long the longest bar is.
const BAR: u64 = 24;

/// Show where the time of a trace, or of a whole workflow, went, and what to do about it.
///
/// The critical path says which span is responsible for each moment: shortening anything else does not shorten the
/// trace. `agent` is agents' own work, `mesh` sidecars and the network between, `outside` hosts that send no spans.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  pilotfish traces --error
  pilotfish analyze 4bf92f3577b34da6a3ce929d0e0e4736
  pilotfish analyze --workflow trip-7 -o json

Prints:
  4.2 s, 36 spans of 4 agents, 3 deep: agents 94 %, mesh 4 %, outside 2 %

  CRITICAL PATH                  AT      TIME  AGENT               SPAN
  ███████████████████░░░░░  120 ms     3.3 s  default/summarizer  POST /summarize

  WARNING  bottleneck: own work of default/summarizer takes 3.3 s of 4.2 s (78 %): ...")]
pub struct Analyze {
    /// The trace: 32 hexadecimal digits, as `pilotfish traces` lists them
    #[arg(value_name = "TRACE", required_unless_present = "workflow", conflicts_with = "workflow")]
    trace: Option<String>,

    /// All traces of this workflow (header `agent-workflow`)
    #[arg(long, value_name = "ID")]
    workflow: Option<String>,

    #[command(flatten)]
    output: Output,

    #[command(flatten)]
    connection: Connection,
}

impl Analyze {
    /// Does it.
    ///
    /// # Errors
    /// See [`Failed`].
    pub async fn run(self) -> Result<(), Failed> {
        let client = Client::open(&self.connection).await?;
        let pairs = [("trace", self.trace.as_deref()), ("workflow", self.workflow.as_deref())];
        let path = query("/v1/analysis", &pairs);
        let terminal = Terminal::stdout();
        if self.workflow.is_some() {
            let answer: WorkflowAnalysis = client.get(&path).await?;
            return self.output.print(&answer, |wide| workflow(&answer, wide, &terminal));
        }
        let answer: TraceAnalysis = client.get(&path).await?;
        self.output.print(&answer, |wide| trace(&answer, wide, &terminal))
    }
}

fn trace(answer: &TraceAnalysis, wide: bool, terminal: &Terminal) -> String {
    let head = format!(
        "{}, {} of {}, {} deep: {}",
        time(answer.total_ns),
        human::count(answer.spans, "span"),
        human::count(answer.agents.len(), "agent"),
        answer.depth,
        whose(&answer.time)
    );
    let mut parts = vec![format!("{}\n", terminal.paint(Tone::Strong, &head))];
    parts.push(path(answer, wide).print(terminal));
    parts.push(bottlenecks(&answer.bottlenecks, answer.total_ns, wide).print(terminal));
    if wide {
        parts.push(agents(&answer.agents).print(terminal));
    }
    parts.push(recommendations(&answer.recommendations, terminal));
    parts.retain(|part| !part.is_empty());
    parts.join("\n")
}

fn workflow(answer: &WorkflowAnalysis, wide: bool, terminal: &Terminal) -> String {
    let more = if answer.more { " (the newest)" } else { "" };
    let head = format!(
        "{}: {}{more}, {} failed, {} from the first to the last, {} of it busy: {}",
        harmless(&answer.workflow, false),
        human::count(answer.traces, "trace"),
        answer.failed,
        time(answer.total_ns),
        time(answer.busy_ns),
        whose(&answer.time)
    );
    let whole = [answer.time.agent_ns, answer.time.mesh_ns, answer.time.outside_ns, answer.time.nobody_ns];
    let whole = whole.into_iter().fold(0, u64::saturating_add);
    let mut parts = vec![format!("{}\n", terminal.paint(Tone::Strong, &head))];
    parts.push(agents(&answer.agents).print(terminal));
    parts.push(bottlenecks(&answer.bottlenecks, whole, wide).print(terminal));
    if wide {
        let mut table = Table::new(&["SLOWEST TRACE", ">TIME"]);
        for (trace, duration) in &answer.slowest {
            table.row([trace.as_str().into(), time(*duration).into()]);
        }
        parts.push(table.print(terminal));
    }
    parts.push(recommendations(&answer.recommendations, terminal));
    parts.retain(|part| !part.is_empty());
    parts.join("\n")
}

/// `agents 94 %, mesh 4 %`: what is there.
fn whose(own: &Time) -> String {
    let named = [
        ("agents", own.agent_ns),
        ("mesh", own.mesh_ns),
        ("outside", own.outside_ns),
        ("nobody", own.nobody_ns),
    ];
    let whole = named.iter().fold(0, |sum: u64, (_, part)| sum.saturating_add(*part));
    let told = named.iter().filter(|(_, part)| *part > 0);
    let told: Vec<String> = told.map(|(name, part)| format!("{name} {}", share(*part, whole))).collect();
    told.join(", ")
}

/// The longest pieces, in their order.
fn path(answer: &TraceAnalysis, wide: bool) -> Table {
    let mut table = Table::new(&["CRITICAL PATH", ">AT", ">TIME", "PART", "AGENT", "SPAN"]);
    let most = if wide { answer.critical_path.len() } else { MOST_PIECES };
    let mut longest: Vec<&Segment> = answer.critical_path.iter().collect();
    longest.sort_by_key(|piece| std::cmp::Reverse(piece.duration_ns));
    longest.truncate(most);
    longest.sort_by_key(|piece| piece.at_ns);
    for piece in longest {
        table.row([
            bar(piece, answer.total_ns).into(),
            time(piece.at_ns).into(),
            time(piece.duration_ns).into(),
            part(piece.part),
            piece.agent.as_str().into(),
            piece.name.as_str().into(),
        ]);
    }
    table
}

/// Where in the trace a piece is.
fn bar(piece: &Segment, whole: u64) -> String {
    let cell =
        |at: u64| u64::try_from(u128::from(at) * u128::from(BAR) / u128::from(whole.max(1))).unwrap_or(BAR);
    let (from, to) = (cell(piece.at_ns).min(BAR - 1), cell(piece.at_ns.saturating_add(piece.duration_ns)));
    let to = to.clamp(from + 1, BAR);
    (0..BAR).map(|at| if at >= from && at < to { '█' } else { '░' }).collect()
}

fn part(part: Part) -> Cell {
    match part {
        Part::Agent => "agent".into(),
        Part::Mesh => Cell::toned("mesh", Tone::Place),
        Part::Outside => Cell::toned("outside", Tone::Warn),
        Part::Nobody => Cell::toned("nobody", Tone::Dim),
    }
}

fn bottlenecks(rows: &[Bottleneck], whole: u64, wide: bool) -> Table {
    let mut table = Table::new(&[
        "BOTTLENECK",
        "PART",
        "SPAN",
        "CAPABILITY",
        ">SPANS",
        ">OWN TIME",
        ">LONGEST",
        ">OF THE TOTAL",
    ]);
    let most = if wide { rows.len() } else { MOST_ROWS };
    for row in rows.iter().take(most) {
        table.row([
            row.agent.as_str().into(),
            part(row.part),
            row.name.as_str().into(),
            row.capability.as_deref().unwrap_or_default().into(),
            row.spans.to_string().into(),
            time(row.self_ns).into(),
            time(row.longest_ns).into(),
            share(row.critical_ns, whole).into(),
        ]);
    }
    table
}

fn agents(rows: &[AgentTime]) -> Table {
    let mut table = Table::new(&[
        "AGENT",
        ">SPANS",
        ">OWN TIME",
        ">CRITICAL",
        ">ERRORS",
        ">RETRIES",
        ">TOKENS IN",
        ">TOKENS OUT",
    ]);
    for row in rows {
        let errors = match row.errors {
            0 => "0".into(),
            errors => Cell::toned(errors.to_string(), Tone::Bad),
        };
        table.row([
            row.agent.as_str().into(),
            row.spans.to_string().into(),
            time(row.self_ns).into(),
            time(row.critical_ns).into(),
            errors,
            row.retries.to_string().into(),
            row.input_tokens.to_string().into(),
            row.output_tokens.to_string().into(),
        ]);
    }
    table
}

fn recommendations(all: &[Recommendation], terminal: &Terminal) -> String {
    let mut text = String::new();
    for one in all {
        let (word, tone) = match one.severity {
            Severity::Info => ("INFO    ", Tone::Dim),
            Severity::Warning => ("WARNING ", Tone::Warn),
            Severity::Critical => ("CRITICAL", Tone::Bad),
        };
        let (word, finding) = (terminal.paint(tone, word), harmless(&one.finding, false));
        let _ = writeln!(text, "{word} {}: {finding}", harmless(&one.id, false));
        let _ = writeln!(text, "         {}", harmless(&one.advice, false));
        if !one.evidence.is_empty() {
            let spans = terminal.paint(Tone::Dim, &harmless(&one.evidence.join(" "), false));
            let _ = writeln!(text, "         spans {spans}");
        }
    }
    text
}

fn time(nanoseconds: u64) -> String {
    human::latency(nanoseconds / 1000)
}

/// A part of the whole, `78 %`.
fn share(part: u64, whole: u64) -> String {
    let percent = u128::from(part) * 100 / u128::from(whole.max(1));
    format!("{percent} %")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bars_are_where_the_time_is() {
        let piece = |at_ns, duration_ns| bar(&Segment { at_ns, duration_ns, ..Segment::default() }, 240);
        assert_eq!(piece(0, 240), "█".repeat(24));
        assert_eq!(piece(120, 120), format!("{}{}", "░".repeat(12), "█".repeat(12)));
        assert_eq!(piece(240, 0), format!("{}█", "░".repeat(23)), "nothing is shown as the least");
        assert_eq!(bar(&Segment::default(), 0).chars().count(), 24);
        assert_eq!(piece(u64::MAX, u64::MAX).chars().count(), 24);
    }

    #[test]
    fn a_trace_is_shown_without_what_is_not_there() {
        let text = trace(&TraceAnalysis::default(), true, &Terminal::PIPE);
        assert!(text.starts_with("0 us, 0 spans of 0 agents, 0 deep: "), "{text}");
        let one = Recommendation { id: "x".into(), finding: "f\x1b[2J".into(), ..Recommendation::default() };
        let text = recommendations(&[one], &Terminal::PIPE);
        assert_eq!(text, "INFO     x: f\\u001b[2J\n         \n");
    }
}
