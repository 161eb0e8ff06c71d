//! A trace as a tree with a bar for each span, as wide as the terminal.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::fmt::Write as _;

use pilotfish_filters::trace::SpanId;
use unicode_width::UnicodeWidthStr;

use super::human;
use super::table::cut;
use super::terminal::{Terminal, Tone, harmless};
use crate::traces::span::{Kind, Span, Trace, Value};

/// The width of what is no terminal.
const COLUMNS: usize = 120;
/// Levels that are drawn; what is deeper stands below the last of them, with its level.
const LEVELS: usize = 16;
/// A child may begin so much before its parent before its clock is doubted, nanoseconds.
const DOUBT: u64 = 1_000_000;
/// Time that no span covers is told from so much on, in thousandths of the whole.
const GAP: u64 = 20;

/// One line of the tree.
#[derive(Debug)]
struct Row<'t> {
    /// None: it stands for parents that are not known.
    span: Option<&'t Span>,
    /// What is drawn before the name.
    branch: String,
    /// It began before its parent did.
    doubtful: bool,
}

/// The tree, each span once, whatever their parents say.
fn rows(trace: &Trace) -> Vec<Row<'_>> {
    let known: HashSet<SpanId> = trace.spans.iter().map(|span| span.id).collect();
    let mut below: HashMap<SpanId, Vec<&Span>> = HashMap::new();
    let (mut roots, mut orphans) = (Vec::new(), Vec::new());
    for span in &trace.spans {
        match span.parent {
            None => roots.push(span),
            Some(parent) if known.contains(&parent) => below.entry(parent).or_default().push(span),
            Some(_) => orphans.push(span),
        }
    }
    let mut tree = Drawn { below, seen: HashSet::new(), rows: Vec::new() };
    tree.draw(&roots, 0, "");
    // Whoever hangs on himself is reached from nowhere: his circle is cut at its first span.
    let mut circles = Vec::new();
    let mut reached: HashSet<SpanId> = tree.seen.clone();
    for span in orphans.iter().copied().chain(&trace.spans) {
        if reached.contains(&span.id) {
            continue;
        }
        circles.push(span);
        let mut next = vec![span];
        while let Some(span) = next.pop() {
            if reached.insert(span.id) {
                next.extend(tree.below.get(&span.id).into_iter().flatten());
            }
        }
    }
    if !circles.is_empty() {
        circles.sort_by_key(|span| (span.start, span.id));
        tree.rows.push(Row { span: None, branch: String::new(), doubtful: false });
        tree.draw(&circles, 1, "");
    }
    tree.rows
}

struct Drawn<'t> {
    below: HashMap<SpanId, Vec<&'t Span>>,
    seen: HashSet<SpanId>,
    rows: Vec<Row<'t>>,
}

impl<'t> Drawn<'t> {
    /// Draws spans and all below them; without recursion, as a chain may be long.
    fn draw(&mut self, tops: &[&'t Span], level: usize, before: &str) {
        type Waiting<'t> = (&'t Span, usize, String, bool, Option<u64>);
        let mut waiting: Vec<Waiting<'t>> = Vec::new();
        let push = |waiting: &mut Vec<Waiting<'t>>, spans: &[&'t Span], level: usize, before: &str, start| {
            for (at, span) in spans.iter().enumerate().rev() {
                waiting.push((span, level, before.to_owned(), at + 1 == spans.len(), start));
            }
        };
        push(&mut waiting, tops, level, before, None);
        while let Some((span, level, before, last, above)) = waiting.pop() {
            if !self.seen.insert(span.id) {
                continue;
            }
            let branch = match level {
                0 => String::new(),
                1..=LEVELS => format!("{before}{}", if last { "└─ " } else { "├─ " }),
                deep => format!("{before}({deep}) "),
            };
            let doubtful = above.is_some_and(|start: u64| span.start + DOUBT < start);
            self.rows.push(Row { span: Some(span), branch, doubtful });
            let after = match level {
                0 => before,
                1..LEVELS => format!("{before}{}", if last { "   " } else { "│  " }),
                _ => before,
            };
            let mut children = self.below.remove(&span.id).unwrap_or_default();
            children.sort_by_key(|child| (child.start, child.id));
            push(&mut waiting, &children, level + 1, &after, Some(span.start));
        }
    }
}

/// The first and last moment of a trace.
pub(super) fn extent(trace: &Trace) -> (u64, u64) {
    let start = trace.spans.iter().map(|span| span.start).min().unwrap_or_default();
    (start, trace.spans.iter().map(|span| span.end).max().unwrap_or_default().max(start))
}

/// The whole picture. Spans in `critical` are those that the trace waited for.
pub(super) fn draw(trace: &Trace, critical: &HashSet<String>, terminal: &Terminal) -> String {
    let rows = rows(trace);
    let columns = terminal.size.map_or(COLUMNS, |(columns, _)| columns).max(40);
    let shown: Vec<Shown> = rows.iter().map(|row| Shown::of(row, critical)).collect();
    let widest = |text: &dyn Fn(&Shown) -> &str, least: usize, most: usize| {
        shown.iter().map(|row| text(row).width()).max().unwrap_or(0).clamp(least, most.max(least))
    };
    let name = shown.iter().map(|row| row.name.width() + row.tail.width()).max().unwrap_or(0);
    let name = name.clamp(4, (columns * 2 / 5).max(4));
    let agent = widest(&|row| &row.agent, 5, columns / 5);
    let time = widest(&|row| &row.time, 4, 10);
    let bar = columns.saturating_sub(name + agent + time + 6).max(8);
    let (start, end) = extent(trace);
    let mut text = String::new();
    let heads = format!("{}  {}  {:>time$}", padded("SPAN", name), padded("AGENT", agent), "TIME");
    let _ = writeln!(text, "{}", terminal.paint(Tone::Strong, &heads));
    for (row, shown) in rows.iter().zip(&shown) {
        let room = name.saturating_sub(shown.tail.width()).max(name / 2);
        let title = cut(&format!("{}{}", cut(&shown.name, room), shown.tail), name);
        let title = padded(&title, name);
        let title = if shown.error { terminal.paint(Tone::Bad, &title) } else { title };
        let mut line =
            format!("{title}  {}  {:>time$}", padded(&cut(&shown.agent, agent), agent), shown.time);
        if let Some(span) = row.span {
            let tone = match (shown.error, shown.critical) {
                (true, _) => Tone::Bad,
                (false, true) => Tone::Place,
                (false, false) => Tone::Dim,
            };
            let (before, length) = place(span, start, end, bar);
            let filled = if shown.critical || critical.is_empty() { "█" } else { "▒" }.repeat(length);
            let _ = write!(line, "  {}{}", " ".repeat(before), terminal.paint(tone, &filled));
        }
        let _ = writeln!(text, "{}", line.trim_end());
    }
    text + &legend(&shown, &gaps(trace), critical)
}

fn padded(text: &str, width: usize) -> String {
    format!("{text}{}", " ".repeat(width.saturating_sub(text.width())))
}

/// Where a span's bar begins, and how long it is.
fn place(span: &Span, start: u64, end: u64, columns: usize) -> (usize, usize) {
    let whole = u128::from((end - start).max(1));
    let at = |time: u64| {
        let place = u128::from(time.saturating_sub(start)) * columns as u128 / whole;
        usize::try_from(place).unwrap_or(columns)
    };
    let before = at(span.start).min(columns - 1);
    (before, at(span.end).saturating_sub(before).clamp(1, columns - before))
}

/// What a line shows.
struct Shown {
    name: String,
    /// What stays when the name is cut: why it failed, and its marks.
    tail: String,
    agent: String,
    time: String,
    error: bool,
    critical: bool,
    marks: Vec<&'static str>,
}

impl Shown {
    fn of(row: &Row<'_>, critical: &HashSet<String>) -> Shown {
        let Some(span) = row.span else {
            let name = format!("{}(parent not known)", row.branch);
            let none = String::new;
            return Shown {
                name,
                tail: none(),
                agent: none(),
                time: none(),
                error: false,
                critical: false,
                marks: Vec::new(),
            };
        };
        let mut marks = Vec::new();
        let is = |name: &str| matches!(span.attribute(name), Some(Value::Bool(true)));
        if is("pilotfish.trace.inferred") {
            marks.push("inferred");
        }
        if is("pilotfish.trace.partial") {
            marks.push("partial");
        }
        if row.doubtful {
            marks.push("clock");
        }
        let mut said: Vec<String> = Vec::new();
        if let Some(tries) = span.number("http.request.resend_count").filter(|tries| *tries > 0) {
            said.push(format!("try {}", tries.saturating_add(1)));
        }
        said.extend(marks.iter().map(|mark| (*mark).to_owned()));
        let error = span.error.then(|| reason(span));
        let to = towards(span).filter(|_| span.kind == Kind::Client);
        // Whom a call went to says more than its rule, which its caller's line has.
        let own = match (to, span.text("pilotfish.rule")) {
            (Some(_), Some(rule)) => span.name.strip_suffix(rule).unwrap_or(&span.name).trim_end(),
            _ => &span.name,
        };
        let mut name = format!("{}{}", row.branch, harmless(own, false));
        if let Some(to) = to {
            let _ = write!(name, " -> {}", harmless(to, false));
        }
        let mut tail = String::new();
        if let Some(reason) = error {
            let _ = write!(tail, " {}", harmless(&reason, false));
        }
        if !said.is_empty() {
            let _ = write!(tail, " [{}]", said.join(", "));
        }
        Shown {
            name,
            tail,
            agent: harmless(&span.resource.agent(), false),
            time: human::latency(span.duration() / 1_000),
            error: span.error,
            critical: critical.contains(&span.id.to_string()),
            marks,
        }
    }
}

/// Whom a span calls.
fn towards(span: &Span) -> Option<&str> {
    span.text("pilotfish.agent").or_else(|| span.text("server.address")).filter(|to| !to.is_empty())
}

/// Why a span failed, shortly.
fn reason(span: &Span) -> String {
    let status = span.number("http.response.status_code").map(|status| status.to_string());
    let word = span.text("pilotfish.reason").or_else(|| span.text("error.type"));
    match (status, word) {
        (Some(status), Some(word)) if status != word => format!("{status} {word}"),
        (Some(status), _) => status,
        (None, Some(word)) => word.to_owned(),
        (None, None) => "error".to_owned(),
    }
}

/// Times that no span covers, as begin and length from the start of the trace.
fn gaps(trace: &Trace) -> Vec<(u64, u64)> {
    let (start, end) = extent(trace);
    let mut spans: Vec<(u64, u64)> = trace.spans.iter().map(|span| (span.start, span.end)).collect();
    spans.sort_unstable();
    let (mut gaps, mut covered) = (Vec::new(), start);
    for (from, to) in spans {
        if from > covered && (from - covered).saturating_mul(1000) >= (end - start).saturating_mul(GAP) {
            gaps.push((covered - start, from - covered));
        }
        covered = covered.max(to);
    }
    gaps
}

fn legend(shown: &[Shown], gaps: &[(u64, u64)], critical: &HashSet<String>) -> String {
    let meanings = BTreeMap::from([
        ("inferred", "the agent passed no context on; its sidecar saw which call it was serving"),
        ("partial", "it was not sampled, and told because a call failed or was slow"),
        ("clock", "it began before its parent: the clocks of their machines differ"),
    ]);
    let used: HashSet<&str> = shown.iter().flat_map(|row| row.marks.iter().copied()).collect();
    let mut lines: Vec<String> = Vec::new();
    if !critical.is_empty() {
        lines.push("█ the critical path: what the trace waited for".into());
    }
    let meant = meanings.iter().filter(|(mark, _)| used.contains(**mark));
    lines.extend(meant.map(|(mark, meaning)| format!("{mark}: {meaning}")));
    for (at, length) in gaps.iter().take(5) {
        let (at, length) = (human::latency(at / 1_000), human::latency(length / 1_000));
        lines.push(format!("gap: for {length} from {at} on no span says what happened"));
    }
    if lines.is_empty() { String::new() } else { format!("\n{}\n", lines.join("\n")) }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::traces::span::Resource;
    use pilotfish_filters::trace::TraceId;

    const MS: u64 = 1_000_000;

    fn span(id: u8, parent: u8, agent: &str, name: &str, from: u64, to: u64) -> Span {
        Span {
            id: SpanId([id; 8]),
            parent: (parent > 0).then_some(SpanId([parent; 8])),
            name: name.into(),
            kind: Kind::Server,
            start: 1_000 * MS + from * MS,
            end: 1_000 * MS + to * MS,
            error: false,
            message: String::new(),
            attributes: Vec::new(),
            events: Vec::new(),
            resource: Arc::new(Resource {
                service: agent.into(),
                namespace: "prod".into(),
                ..Resource::default()
            }),
        }
    }

    fn trace(spans: Vec<Span>) -> Trace {
        Trace { id: TraceId([1; 16]), spans }
    }

    fn drawn(spans: Vec<Span>, critical: &[u8]) -> String {
        let critical = critical.iter().map(|id| SpanId([*id; 8]).to_string()).collect();
        draw(&trace(spans), &critical, &Terminal { size: Some((80, 24)), colour: false })
    }

    #[test]
    fn a_tree_with_bars() {
        let mut retried = span(3, 1, "planner", "POST", 60, 100);
        retried.kind = Kind::Client;
        retried.attributes = vec![
            ("http.request.resend_count".into(), Value::Number(1)),
            ("pilotfish.agent".into(), Value::Text("prod/search".into())),
        ];
        let mut failed = span(2, 1, "planner", "POST", 10, 60);
        failed.error = true;
        failed.attributes = vec![("http.response.status_code".into(), Value::Number(503))];
        let spans = vec![
            span(1, 0, "planner", "POST /plan", 0, 100),
            failed,
            retried,
            span(4, 3, "search", "POST /search", 70, 90),
        ];
        assert_eq!(
            drawn(spans, &[1, 3]),
            "\
SPAN                            AGENT           TIME
POST /plan                      prod/planner  100 ms  ██████████████████████████
├─ POST 503                     prod/planner   50 ms    ▒▒▒▒▒▒▒▒▒▒▒▒▒
└─ POST -> prod/search [try 2]  prod/planner   40 ms                 ███████████
   └─ POST /search              prod/search    20 ms                    ▒▒▒▒▒

█ the critical path: what the trace waited for
"
        );
    }

    #[test]
    fn orphans_and_circles_are_shown_and_end() {
        let spans = vec![
            span(1, 0, "a", "root", 0, 10),
            span(2, 9, "a", "orphan", 2, 4),
            span(3, 4, "a", "one of a circle", 5, 6),
            span(4, 3, "a", "another", 5, 6),
            span(5, 5, "a", "its own parent", 7, 8),
        ];
        let text = drawn(spans, &[]);
        let lines: Vec<&str> = text.lines().map(|line| line.split("  ").next().unwrap()).collect();
        assert_eq!(lines[1..4], ["root", "(parent not known)", "├─ orphan"]);
        for name in ["one of a circle", "another", "its own parent"] {
            assert_eq!(text.matches(name).count(), 1, "{text}");
        }
    }

    #[test]
    fn what_is_odd_is_marked_and_explained() {
        let mut early = span(2, 1, "b", "GET", 0, 5);
        early.attributes = vec![("pilotfish.trace.inferred".into(), Value::Bool(true))];
        let spans = vec![span(1, 0, "a", "root", 10, 20), early, span(3, 0, "a", "late", 60, 100)];
        let text = drawn(spans, &[]);
        assert!(text.contains("GET [inferred, clock]"), "{text}");
        assert!(text.contains("inferred: the agent passed no context on"), "{text}");
        assert!(text.contains("clock: it began before its parent"), "{text}");
        assert!(text.contains("gap: for 40 ms from 20 ms on no span says"), "{text}");
    }

    #[test]
    fn a_long_chain_fits_and_ends() {
        let chain = |n: u64| {
            let id = |n: u64| SpanId(n.to_be_bytes());
            let mut made = span(1, 0, "a", "\x1b[31mstep", n, 5_000);
            made.id = id(n);
            made.parent = (n > 1).then(|| id(n - 1));
            made
        };
        let text = draw(
            &trace((1..=5_000).map(chain).collect()),
            &HashSet::new(),
            &Terminal { size: Some((80, 24)), colour: false },
        );
        assert_eq!(text.lines().count(), 5_001);
        assert!(text.lines().all(|line| line.width() <= 80 && !line.contains('\x1b')));
        assert!(text.len() < 2 << 20, "{}", text.len());
    }

    #[test]
    fn colours_on_a_terminal_only() {
        let mut failed = span(1, 0, "a", "x", 0, 1);
        failed.error = true;
        let one = trace(vec![failed]);
        assert!(!draw(&one, &HashSet::new(), &Terminal::PIPE).contains('\x1b'));
        let live = Terminal { size: Some((80, 24)), colour: true };
        assert!(draw(&one, &HashSet::new(), &live).contains("\x1b[31m"));
    }
}
