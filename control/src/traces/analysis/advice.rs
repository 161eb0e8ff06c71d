//! What to do about it: findings with the numbers behind them. Words and limits are here, arithmetic is elsewhere.

use std::cmp::Reverse;
use std::collections::{BTreeMap, HashMap};

use super::tree::At;
use super::who::maker;
use super::{Looked, total};
use crate::api::analysis::{Bottleneck, Part, Recommendation, Severity, TraceAnalysis};
use crate::cli::human;

/// Below this nothing is worth a recommendation about time: 10 ms.
const WORTH: u64 = 10_000_000;
/// Spans that are named.
const MOST_EVIDENCE: usize = 10;
/// Calls below one span that are many.
const MANY_CALLS: usize = 20;
/// Calls one below the other that are many.
const DEEP: usize = 6;

/// Of one trace, the most important first.
pub(super) fn of(looked: &Looked<'_>, analysis: &TraceAnalysis) -> Vec<Recommendation> {
    let mut all: Vec<Recommendation> = Vec::new();
    all.extend(error(analysis));
    all.extend(refusals(looked, analysis));
    all.extend(slowest(analysis));
    all.extend(mesh(analysis));
    all.extend(sequential(looked));
    all.extend(repeated(looked));
    all.extend(retries(looked, analysis));
    all.extend(structure(analysis));
    all.extend(oddities(analysis));
    all.sort_by_key(|one| Reverse((one.severity, one.saving_ns)));
    all
}

fn time(nanoseconds: u64) -> String {
    human::latency(nanoseconds / 1000)
}

/// A part of the whole in percent, rounded down.
pub(super) fn percent(part: u64, whole: u64) -> u64 {
    u64::try_from(u128::from(part) * 100 / u128::from(whole.max(1))).unwrap_or(100)
}

fn error(analysis: &TraceAnalysis) -> Option<Recommendation> {
    let cause = analysis.root_cause.as_ref()?;
    let spread = if cause.recovered {
        "; what waited for it did not fail".to_owned()
    } else if cause.spread.is_empty() {
        String::new()
    } else {
        format!("; it made {} fail", cause.spread.join(", then "))
    };
    Some(Recommendation {
        id: "error".into(),
        severity: if cause.recovered { Severity::Info } else { Severity::Critical },
        finding: format!(
            "the first of {} began at {} in {} `{}`, {} after the start: {}{spread}",
            human::count(usize::try_from(analysis.errors).unwrap_or(usize::MAX), "error"),
            cause.agent,
            cause.span,
            cause.name,
            time(cause.at_ns),
            cause.why
        ),
        advice: format!("look there first: the log of {}, and `pilotfish why` for the call", cause.agent),
        saving_ns: 0,
        evidence: vec![cause.span.clone()],
    })
}

fn refusals(looked: &Looked<'_>, analysis: &TraceAnalysis) -> Option<Recommendation> {
    let refusals: u64 = analysis.refusals.values().sum();
    let (reason, count) = analysis.refusals.iter().max_by_key(|(_, count)| **count)?;
    let refused =
        (0..looked.tree.nodes.len()).filter(|at| looked.span(*at).text("pilotfish.reason").is_some());
    let all: Vec<String> =
        analysis.refusals.iter().map(|(reason, count)| format!("{count} x {reason}")).collect();
    Some(Recommendation {
        id: "refusals".into(),
        severity: Severity::Warning,
        finding: format!(
            "sidecars refused {}: {}",
            human::count(usize::try_from(refusals).unwrap_or(usize::MAX), "call"),
            all.join(", ")
        ),
        advice: format!(
            "`{reason}` ({count}) says which rule or limit did: `pilotfish why` shows the call's decision"
        ),
        saving_ns: 0,
        evidence: refused.take(MOST_EVIDENCE).map(|at| looked.id(at)).collect(),
    })
}

/// One agent or host that most of the time is spent on.
fn slowest(analysis: &TraceAnalysis) -> Option<Recommendation> {
    let by_whom = analysis.agents.iter().max_by_key(|own| own.critical_ns)?;
    let share = percent(by_whom.critical_ns, analysis.total_ns);
    if share < 40 || by_whom.critical_ns < WORTH {
        return None;
    }
    let mine =
        |own: &&Bottleneck| own.agent == by_whom.agent && matches!(own.part, Part::Agent | Part::Outside);
    let first = analysis.bottlenecks.iter().find(mine)?;
    let (of, whole, name) = (time(by_whom.critical_ns), time(analysis.total_ns), &by_whom.agent);
    let calls = human::count(usize::try_from(first.spans).unwrap_or(usize::MAX), "call");
    let capability = first.capability.as_ref().map(|name| format!(" for {name}")).unwrap_or_default();
    let numbers = format!(
        "{of} of {whole} ({share} %): `{}`{capability}, {calls}, the longest {}",
        first.name,
        time(first.longest_ns)
    );
    let severity = if share >= 60 { Severity::Warning } else { Severity::Info };
    let (id, finding, advice) = if first.part == Part::Outside {
        (
            "outside",
            format!("{name}, which sends no spans, answers for {numbers}"),
            format!(
                "shorten what is asked of {name} (less input, a smaller model, a cache), or ask it in parallel"
            ),
        )
    } else {
        (
            "bottleneck",
            format!("own work of {name} takes {numbers}"),
            format!("make {name} faster first: nothing else shortens this trace by as much"),
        )
    };
    Some(Recommendation {
        id: id.into(),
        severity,
        finding,
        advice,
        saving_ns: by_whom.critical_ns,
        evidence: first.evidence.clone(),
    })
}

fn mesh(analysis: &TraceAnalysis) -> Option<Recommendation> {
    let (own, share) = (analysis.time.mesh_ns, percent(analysis.time.mesh_ns, analysis.total_ns));
    if share < 20 || own < WORTH {
        return None;
    }
    let first = analysis.bottlenecks.iter().find(|own| own.part == Part::Mesh)?;
    Some(Recommendation {
        id: "mesh".into(),
        severity: Severity::Warning,
        finding: format!(
            "sidecars and the network between take {} of {} ({share} %), most of it at {} `{}`",
            time(own),
            time(analysis.total_ns),
            first.agent,
            first.name
        ),
        advice: "look whether calls wait in a queue or for a connection (events of these spans), cross regions, or \
                 time out before they are tried elsewhere"
            .into(),
        saving_ns: own,
        evidence: first.evidence.clone(),
    })
}

/// Calls of one parent that follow each other.
fn sequential(looked: &Looked<'_>) -> Option<Recommendation> {
    let mut best: Option<(u64, Vec<At>)> = None;
    for parent in 0..looked.tree.nodes.len() {
        let children = looked.tree.children(parent);
        let calls: Vec<At> = children.iter().copied().filter(|at| looked.who[*at].call).collect();
        for run in runs(looked, &calls) {
            let whole = total(run.iter().map(|at| looked.duration(*at)));
            let longest = run.iter().map(|at| looked.duration(*at)).max().unwrap_or_default();
            let saving = (whole - longest).min(looked.total);
            if best.as_ref().is_none_or(|(most, _)| saving > *most) {
                best = Some((saving, run));
            }
        }
    }
    let (saving, run) = best?;
    if saving < WORTH || percent(saving, looked.total) < 10 {
        return None;
    }
    let whole = total(run.iter().map(|at| looked.duration(*at)));
    let first = run[0];
    let by = looked.tree.nodes[first].parent.map_or_else(String::new, |parent| maker(looked.span(parent)));
    Some(Recommendation {
        id: "sequential".into(),
        severity: if percent(saving, looked.total) >= 25 { Severity::Warning } else { Severity::Info },
        finding: format!(
            "{by} made {} calls one after the other, {} together; at the same time they would take {}",
            run.len(),
            time(whole),
            time(whole - saving)
        ),
        advice: "a candidate for parallel calls, when none needs the answer of one before".into(),
        saving_ns: saving,
        evidence: run.iter().take(MOST_EVIDENCE).map(|at| looked.id(*at)).collect(),
    })
}

/// Calls by start, in runs that do not overlap.
fn runs(looked: &Looked<'_>, calls: &[At]) -> Vec<Vec<At>> {
    let mut runs: Vec<Vec<At>> = Vec::new();
    let mut until = 0;
    for at in calls {
        let node = &looked.tree.nodes[*at];
        match runs.last_mut() {
            Some(run) if node.start >= until => run.push(*at),
            _ => runs.push(vec![*at]),
        }
        until = until.max(node.end);
    }
    runs.retain(|run| run.len() > 1);
    runs
}

/// The same call of the same agent, several times.
fn repeated(looked: &Looked<'_>) -> Option<Recommendation> {
    let mut same: HashMap<(String, String), Vec<At>> = HashMap::new();
    for at in (0..looked.tree.nodes.len()).filter(|at| looked.who[*at].call) {
        if let Some(what) = identity(looked, at) {
            same.entry((maker(looked.span(at)), what)).or_default().push(at);
        }
    }
    let wasted = |calls: &[At]| -> u64 {
        let all = total(calls.iter().map(|at| looked.duration(*at)));
        all - calls.iter().map(|at| looked.duration(*at)).max().unwrap_or_default()
    };
    let most = same
        .into_iter()
        .filter(|(_, calls)| calls.len() > 1)
        .max_by(|a, b| (wasted(&a.1), a.1.len()).cmp(&(wasted(&b.1), b.1.len())).then_with(|| b.0.cmp(&a.0)));
    let ((agent, what), calls) = most?;
    let saving = wasted(&calls);
    if saving < WORTH && calls.len() < 5 {
        return None;
    }
    Some(Recommendation {
        id: "repeated".into(),
        severity: if percent(saving, looked.total) >= 25 { Severity::Warning } else { Severity::Info },
        finding: format!(
            "{agent} asked {} times for the same, `{what}`; all but the longest took {}",
            calls.len(),
            time(saving)
        ),
        advice: "a candidate for a cache in the agent, or for one call whose answer is passed on".into(),
        saving_ns: saving.min(looked.total),
        evidence: calls.iter().take(MOST_EVIDENCE).map(|at| looked.id(*at)).collect(),
    })
}

/// What is asked for. Bodies are not known: calls that may have one count only when its size is told.
fn identity(looked: &Looked<'_>, at: At) -> Option<String> {
    let mut span = looked.span(at);
    // A try tells more than the call.
    if span.text("url.full").is_none()
        && let Some(inner) = looked.tree.children(at).first()
        && looked.span(*inner).text("url.full").is_some()
    {
        span = looked.span(*inner);
    }
    let method = span.text("http.request.method").or_else(|| span.text("mcp.method.name"))?;
    let place = match span.text("url.full") {
        Some(url) => url.to_owned(),
        None => format!(
            "{}{}{}",
            span.text("server.address").unwrap_or_default(),
            span.text("url.path")?,
            span.text("url.query").map(|query| format!("?{query}")).unwrap_or_default()
        ),
    };
    let size =
        span.number("http.request.body.size").or_else(|| looked.span(at).number("http.request.body.size"));
    let body = match (method, size) {
        ("GET" | "HEAD" | "OPTIONS", _) => String::new(),
        (_, Some(size)) => format!(" ({size} bytes)"),
        (_, None) => return None,
    };
    let tool = span.text("gen_ai.tool.name").map(|tool| format!(" {tool}")).unwrap_or_default();
    Some(format!("{method} {place}{tool}{body}"))
}

fn retries(looked: &Looked<'_>, analysis: &TraceAnalysis) -> Option<Recommendation> {
    if analysis.retries == 0 {
        return None;
    }
    let mut by: BTreeMap<String, u64> = BTreeMap::new();
    let mut evidence = Vec::new();
    for at in (0..looked.tree.nodes.len()).filter(|at| super::is_retry(looked.span(*at))) {
        let whom =
            looked.span(at).text("pilotfish.cluster").map_or_else(|| maker(looked.span(at)), str::to_owned);
        *by.entry(whom).or_default() += 1;
        if evidence.len() < MOST_EVIDENCE {
            evidence.push(looked.id(at));
        }
    }
    let (whom, _) = by.into_iter().max_by_key(|(_, count)| *count)?;
    let retries = match analysis.retries {
        1 => "one more try".to_owned(),
        more => format!("{more} more tries"),
    };
    Some(Recommendation {
        id: "retries".into(),
        severity: if percent(analysis.retried_ns, looked.total) >= 10 {
            Severity::Warning
        } else {
            Severity::Info
        },
        finding: format!(
            "calls took {retries}, most for {whom}; tries that were given up took {}",
            time(analysis.retried_ns)
        ),
        advice: format!(
            "see why the first tries fail at {whom}; a shorter `perTryTimeout` or outlier detection costs less"
        ),
        saving_ns: analysis.retried_ns.min(looked.total),
        evidence,
    })
}

fn structure(analysis: &TraceAnalysis) -> Vec<Recommendation> {
    let mut all = Vec::new();
    if analysis.fan_out.calls >= MANY_CALLS {
        all.push(Recommendation {
            id: "fan-out".into(),
            finding: format!("{} made {} calls for one", analysis.fan_out.agent, analysis.fan_out.calls),
            advice: "ask for several things at once where the other side can, or limit the loop".into(),
            ..Recommendation::default()
        });
    }
    if analysis.depth >= DEEP {
        all.push(Recommendation {
            id: "depth".into(),
            finding: format!("calls go {} deep", analysis.depth),
            advice: "each waits for the next: let one agent ask several instead of passing the task on"
                .into(),
            ..Recommendation::default()
        });
    }
    all
}

fn oddities(analysis: &TraceAnalysis) -> Vec<Recommendation> {
    let (odd, mut all) = (&analysis.shape, Vec::new());
    if odd.shifted > 0 && odd.largest_shift_ns >= 1_000_000 {
        all.push(Recommendation {
            id: "clock".into(),
            finding: format!(
                "clocks of machines differ by up to {}: {} shifted",
                time(odd.largest_shift_ns),
                human::count(odd.shifted, "span")
            ),
            advice: "let NTP or PTP keep them together; times between machines are estimates until then"
                .into(),
            ..Recommendation::default()
        });
    }
    let missing = odd.orphans + odd.cycles;
    if missing > 0 || odd.partial {
        let why = if odd.partial {
            "the trace was not sampled; what is known was gathered because a call failed or was slow"
                .to_owned()
        } else {
            format!("{} without a parent that is known", human::count(missing, "span"))
        };
        all.push(Recommendation {
            id: "incomplete".into(),
            finding: why,
            advice: "times may be somebody else's; sample more (`--trace-sampling`), or look whether spans are dropped"
                .into(),
            ..Recommendation::default()
        });
    }
    all
}
