//! `pilotfish tap`: live calls of any set of sidecars.

use std::io::{self, Write as _};

use clap::{Args, ValueEnum};
use http_body_util::BodyExt;
use hyper::body::Incoming;
use time::OffsetDateTime;
use unicode_width::UnicodeWidthStr;

use super::client::{Client, Connection, query};
use super::failed::Failed;
use super::human;
use super::table::cut;
use super::terminal::{Terminal, Tone, harmless};
use crate::api::live::{TapLine, TapNote, TappedCall};

/// The longest line that is taken.
const LONGEST_LINE: usize = 1 << 20;
/// Columns of who calls whom, and of what: they grow with what comes, to this.
const WIDEST: usize = 56;
/// What stands beside those two: the time, the side, status, duration, tries.
const BESIDE: usize = 48;

/// Show calls as they end, of any set of sidecars, until Ctrl-C.
///
/// Each sidecar shows what it sees: a call between two agents is shown by the caller's sidecar (`out`) and by the callee's (`in`).
/// Paths come without their query, and nothing of headers or bodies is shown. It costs the sidecars something only while somebody looks.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  pilotfish tap
  pilotfish tap --agent production/web --status 5xx
  pilotfish tap --match 'request.duration > duration(\"500ms\") && call.direction == \"outbound\"'
  pilotfish tap --capability nlu --limit 10 -o json

Prints:
  TIME          SIDE  FROM -> TO                   CALL           STATUS  DURATION  TRIES  WHY
  18:42:03.120  out   default/web -> default/chat  POST /v1/chat     200   12.3 ms      1")]
pub struct Tap {
    /// Only sidecars of these agents: AGENT, NAMESPACE/AGENT or NAMESPACE/*, several separated by commas
    #[arg(long, value_name = "AGENT")]
    agent: Option<String>,

    /// Only calls that ask for this capability
    #[arg(long, value_name = "NAME")]
    capability: Option<String>,

    /// Only calls with this status: 503, or a class as 5xx; 0 for callers that left first
    #[arg(long, value_name = "STATUS")]
    status: Option<String>,

    /// Only calls for which this expression holds, as in a Telemetry resource's filter:
    /// `response.code >= 500 && call.tries > 1`
    #[arg(long = "match", value_name = "EXPR")]
    matching: Option<String>,

    /// At most so many calls a second of each sidecar; more are counted [default: 100]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=1000))]
    rate: Option<u32>,

    /// End after so many calls
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    limit: Option<u64>,

    /// How to write the calls
    #[arg(short = 'o', long = "output", value_name = "FORMAT", default_value = "table")]
    output: Format,

    #[command(flatten)]
    connection: Connection,
}

/// How calls are written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Format {
    /// For people.
    Table,
    /// One JSON object a line.
    Json,
}

impl Tap {
    /// Does it.
    ///
    /// # Errors
    /// See [`Failed`].
    pub async fn run(self) -> Result<(), Failed> {
        let client = Client::open(&self.connection).await?;
        let rate = self.rate.map(|rate| rate.to_string());
        let path = query(
            "/v1/tap",
            &[
                ("agent", self.agent.as_deref()),
                ("capability", self.capability.as_deref()),
                ("status", self.status.as_deref()),
                ("match", self.matching.as_deref()),
                ("rate", rate.as_deref()),
            ],
        );
        let answer = client.get_for_bytes(&path).await?;
        let mut view = View::new(self.output, self.limit, Terminal::stdout());
        let ended = tokio::select! {
            biased;
            _ = tokio::signal::ctrl_c() => Ended::Enough,
            ended = view.follow(answer.into_body()) => ended,
        };
        view.farewell();
        match ended {
            Ended::Enough => Ok(()),
            Ended::Gone(why) => Err(Failed::unreachable(format!("{} ended the tap{why}", client.place()))),
        }
    }
}

/// Why it ends.
enum Ended {
    /// Nobody wants more.
    Enough,
    /// The control plane went away.
    Gone(String),
}

/// What is shown, and what was.
struct View {
    format: Format,
    left: Option<u64>,
    terminal: Terminal,
    /// Widths of the columns who and what.
    widths: (usize, usize),
    headed: bool,
    shown: u64,
    note: Option<TapNote>,
}

impl View {
    fn new(format: Format, left: Option<u64>, terminal: Terminal) -> View {
        View { format, left, terminal, widths: (28, 24), headed: false, shown: 0, note: None }
    }

    async fn follow(&mut self, mut body: Incoming) -> Ended {
        let mut pending: Vec<u8> = Vec::new();
        loop {
            let frame = match body.frame().await {
                Some(Ok(frame)) => frame,
                Some(Err(error)) => return Ended::Gone(format!(": {error}")),
                None => return Ended::Gone(String::new()),
            };
            pending.extend_from_slice(&frame.into_data().unwrap_or_default());
            let whole = pending.iter().rposition(|byte| *byte == b'\n').map_or(0, |at| at + 1);
            let lines: Vec<u8> = pending.drain(..whole).collect();
            for line in lines.split(|byte| *byte == b'\n').filter(|line| !line.is_empty()) {
                // Something of a later version is passed over.
                let Ok(line) = serde_json::from_slice::<TapLine>(line) else { continue };
                if !self.take(line) {
                    return Ended::Enough;
                }
            }
            if pending.len() > LONGEST_LINE {
                return Ended::Gone(": what it sends is no line".into());
            }
        }
    }

    /// Shows a line; false when no more is wanted.
    fn take(&mut self, line: TapLine) -> bool {
        match line {
            TapLine::Note { note } => {
                if self.note.is_none_or(|before| before.sidecars != note.sidecars)
                    && self.format == Format::Table
                {
                    eprintln!("looking at {}", human::count(note.sidecars, "sidecar"));
                }
                self.note = Some(note);
                true
            }
            TapLine::Call(call) => {
                let text = match self.format {
                    Format::Json => serde_json::to_string(&call).unwrap_or_default() + "\n",
                    Format::Table => self.row(&call),
                };
                // A reader that went away (`| head`) wants no more.
                let mut out = io::stdout().lock();
                if out.write_all(text.as_bytes()).and_then(|()| out.flush()).is_err() {
                    return false;
                }
                self.shown += 1;
                self.left.is_none_or(|most| self.shown < most)
            }
        }
    }

    fn row(&mut self, call: &TappedCall) -> String {
        let (from, to) = match call.direction.as_str() {
            "inbound" => (&call.peer, &call.agent),
            _ => (&call.agent, &call.peer),
        };
        let who = format!("{} -> {}", harmless(from, false), harmless(to, false));
        let what = format!("{} {}", harmless(&call.method, false), harmless(&call.path, false));
        // On a terminal both share what there is; elsewhere nothing is cut.
        let most =
            self.terminal.size.map(|(columns, _)| (columns.saturating_sub(BESIDE) / 2).clamp(20, WIDEST));
        let grown = |own: usize, text: &str| own.max(text.width().min(most.unwrap_or(WIDEST)));
        self.widths = match most {
            Some(most) => (grown(self.widths.0, &who).min(most), grown(self.widths.1, &what).min(most)),
            None => (grown(self.widths.0, &who), grown(self.widths.1, &what)),
        };
        let fitted = |text: &str, width: usize| {
            let text = if most.is_some() { cut(text, width) } else { text.to_owned() };
            let pad = " ".repeat(width.saturating_sub(text.width()));
            text + &pad
        };
        let side = if call.direction == "inbound" { "in" } else { "out" };
        let status = format!("{:>6}", status(call.status));
        let status = tone(call.status).map_or(status.clone(), |tone| self.terminal.paint(tone, &status));
        let mut text = String::new();
        if !self.headed {
            self.headed = true;
            let (who, what) = (fitted("FROM -> TO", self.widths.0), fitted("CALL", self.widths.1));
            let head = format!("{:<12}  SIDE  {who}  {what}  STATUS  DURATION  TRIES  WHY", "TIME");
            text = self.terminal.paint(Tone::Strong, &head) + "\n";
        }
        let row = format!(
            "{}  {side:<4}  {}  {}  {status}  {:>8}  {:>5}  {}",
            clock(call.time_ns),
            fitted(&who, self.widths.0),
            fitted(&what, self.widths.1),
            human::latency(call.duration_us),
            call.tries,
            harmless(&call.reason, false)
        );
        text + row.trim_end() + "\n"
    }

    /// What was not shown.
    fn farewell(&self) {
        let note = self.note.unwrap_or_default();
        let missed = match (note.limited, note.lost) {
            (0, 0) => String::new(),
            (limited, 0) => format!("; {limited} more than the rate were not shown (--rate)"),
            (0, lost) => format!("; {lost} were lost because they were read too slowly"),
            (limited, lost) => {
                format!(
                    "; {limited} more than the rate (--rate) and {lost} that were read too slowly were not shown"
                )
            }
        };
        if self.format == Format::Table || !missed.is_empty() {
            eprintln!("{}{missed}", human::count(usize::try_from(self.shown).unwrap_or(usize::MAX), "call"));
        }
    }
}

/// A status; 0 means that the caller left first.
pub(super) fn status(status: u16) -> String {
    if status == 0 { "left".into() } else { status.to_string() }
}

/// The colour of a status.
pub(super) fn tone(status: u16) -> Option<Tone> {
    match status {
        0 | 400..500 => Some(Tone::Warn),
        500.. => Some(Tone::Bad),
        _ => None,
    }
}

/// The time of day in UTC, `18:42:03.120`.
pub(super) fn clock(time_ns: u64) -> String {
    let at = OffsetDateTime::from_unix_timestamp_nanos(i128::from(time_ns));
    let Ok(at) = at else { return "-".into() };
    format!("{:02}:{:02}:{:02}.{:03}", at.hour(), at.minute(), at.second(), at.millisecond())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn call(path: &str) -> TappedCall {
        TappedCall {
            time_ns: 1_795_267_205_120_000_000,
            agent: "default/web".into(),
            direction: "outbound".into(),
            peer: "default/chat".into(),
            method: "GET".into(),
            path: path.into(),
            status: 503,
            reason: "breaker-open".into(),
            tries: 2,
            duration_us: 12_300,
            ..TappedCall::default()
        }
    }

    #[test]
    fn rows_line_up_and_steer_no_terminal() {
        let mut view = View::new(Format::Table, None, Terminal::PIPE);
        let text = view.row(&call("/a")) + &view.row(&call("/\x1b[2J"));
        assert_eq!(
            text,
            "TIME          SIDE  FROM -> TO                    CALL                      STATUS  DURATION  TRIES  WHY\n\
             13:20:05.120  out   default/web -> default/chat   GET /a                       503   12.3 ms      2  breaker-open\n\
             13:20:05.120  out   default/web -> default/chat   GET /\\u001b[2J               503   12.3 ms      2  breaker-open\n"
        );
    }

    #[test]
    fn a_terminal_cuts_and_colours() {
        let mut view = View::new(Format::Table, None, Terminal { size: Some((90, 24)), colour: true });
        let text = view.row(&call(&"x".repeat(300)));
        assert!(text.contains("\x1b[31m   503\x1b[0m") && text.contains('…'), "{text}");
        assert_eq!(clock(u64::MAX), "23:34:33.709");
    }
}
