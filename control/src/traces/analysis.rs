//! What a trace says: where its time went, what to do about it.
//!
//! Pure over [`Trace`]: spans become a tree ([`tree`]), the tree a critical path and own times ([`path`]), each span gets
//! somebody whose time it is ([`who`]), and from the numbers come recommendations ([`advice`]). Time and memory grow with
//! the number of spans (times its logarithm), not with their depth.

mod advice;
pub mod compare;
mod path;
#[cfg(test)]
mod tests;
mod tree;
mod who;
pub mod workflow;

use std::collections::{BTreeMap, HashMap};

use crate::api::analysis::{AgentTime, Bottleneck, FanOut, Part, RootCause, Segment, Time, TraceAnalysis};
use crate::traces::span::{Kind, Span, Trace, Value};
use path::Piece;
use tree::{At, Tree};
use who::{Who, maker};

/// Pieces of the critical path that are told.
const MOST_SEGMENTS: usize = 1000;
/// Bottlenecks that are told.
const MOST_BOTTLENECKS: usize = 20;
/// Spans that are named for one bottleneck.
const MOST_EVIDENCE: usize = 5;
/// Agents or capabilities of one trace; what is more is told together.
const MOST_NAMES: usize = 1000;
/// Stands for those.
const OTHERS: &str = "(others)";

/// All that is known of a trace while it is looked at.
struct Looked<'t> {
    tree: Tree<'t>,
    who: Vec<Who>,
    own: Vec<u64>,
    /// Time on the critical path, by span.
    critical: Vec<u64>,
    pieces: Vec<Piece>,
    start: u64,
    total: u64,
}

/// What a trace says.
pub fn analyse(trace: &Trace) -> TraceAnalysis {
    let tree = Tree::of(trace);
    let (who, pieces) = (who::of(&tree), path::critical(&tree));
    let (own, width) = path::own_time(&tree);
    let mut critical = vec![0; tree.nodes.len()];
    for piece in &pieces {
        if let Some(at) = piece.node {
            critical[at] += piece.to - piece.from;
        }
    }
    let start = tree.nodes.iter().map(|node| node.start).min().unwrap_or_default();
    let end = tree.nodes.iter().map(|node| node.end).max().unwrap_or_default();
    let looked = Looked { tree, who, own, critical, pieces, start, total: end - start };
    let mut analysis = TraceAnalysis {
        trace: trace.id.to_string(),
        start_ns: looked.start,
        total_ns: looked.total,
        spans: looked.tree.nodes.len(),
        depth: looked.who.iter().map(|who| who.depth).max().unwrap_or_default(),
        width,
        fan_out: looked.fan_out(),
        time: looked.time(),
        critical_path: looked.segments(),
        left_out: looked.pieces.len().saturating_sub(MOST_SEGMENTS),
        bottlenecks: looked.bottlenecks(),
        agents: looked.agents(),
        capabilities: looked.capabilities(),
        shape: looked.tree.odd,
        ..TraceAnalysis::default()
    };
    looked.failures(&mut analysis);
    analysis.recommendations = advice::of(&looked, &analysis);
    analysis
}

impl Looked<'_> {
    fn span(&self, at: At) -> &Span {
        self.tree.nodes[at].span
    }

    /// What a span is about. A sidecar's try is called as its call is: its own name is the method alone.
    fn name(&self, at: At) -> &str {
        let span = self.span(at);
        let call = self.tree.nodes[at].parent.map(|parent| self.span(parent));
        let own = |span: &Span| span.text("pilotfish.direction").is_some();
        match call {
            Some(call) if span.kind == Kind::Client && own(span) && own(call) => &call.name,
            _ => &span.name,
        }
    }

    fn id(&self, at: At) -> String {
        self.span(at).id.to_string()
    }

    fn duration(&self, at: At) -> u64 {
        self.tree.nodes[at].end - self.tree.nodes[at].start
    }

    fn time(&self) -> Time {
        let mut time = Time::default();
        for piece in &self.pieces {
            let own = match piece.node.map_or(Part::Nobody, |at| self.who[at].part) {
                Part::Agent => &mut time.agent_ns,
                Part::Mesh => &mut time.mesh_ns,
                Part::Outside => &mut time.outside_ns,
                Part::Nobody => &mut time.nobody_ns,
            };
            *own += piece.to - piece.from;
        }
        time
    }

    fn segments(&self) -> Vec<Segment> {
        let segment = |piece: &Piece| {
            let times = Segment {
                at_ns: piece.from - self.start,
                duration_ns: piece.to - piece.from,
                part: Part::Nobody,
                ..Segment::default()
            };
            let Some(at) = piece.node else { return times };
            let (who, name) = (&self.who[at], self.name(at).to_owned());
            Segment { span: Some(self.id(at)), agent: who.agent.clone(), name, part: who.part, ..times }
        };
        self.pieces.iter().take(MOST_SEGMENTS).map(segment).collect()
    }

    /// The most calls below one span.
    fn fan_out(&self) -> FanOut {
        let mut calls: HashMap<At, usize> = HashMap::new();
        for (at, node) in self.tree.nodes.iter().enumerate() {
            if let Some(parent) = node.parent.filter(|_| self.who[at].call) {
                *calls.entry(parent).or_default() += 1;
            }
        }
        let most = calls.into_iter().max_by_key(|(at, calls)| (*calls, std::cmp::Reverse(*at)));
        most.map_or_else(FanOut::default, |(at, calls)| FanOut { calls, agent: maker(self.span(at)) })
    }

    fn bottlenecks(&self) -> Vec<Bottleneck> {
        type Key<'k> = (&'k str, &'k str, Option<&'k str>, Part);
        let mut groups: HashMap<Key<'_>, Vec<At>> = HashMap::new();
        for (at, who) in self.who.iter().enumerate().filter(|(at, _)| self.own[*at] > 0) {
            let key = (who.agent.as_str(), self.name(at), who.capability.as_deref(), who.part);
            groups.entry(key).or_default().push(at);
        }
        let sum = |of: &[At], by: &[u64]| total(of.iter().map(|at| by[*at]));
        let mut ranked: Vec<(u64, u64, Key<'_>, Vec<At>)> = groups
            .into_iter()
            .map(|(key, spans)| (sum(&spans, &self.critical), sum(&spans, &self.own), key, spans))
            .collect();
        ranked.sort_by(|a, b| (b.0, b.1).cmp(&(a.0, a.1)).then_with(|| a.2.cmp(&b.2)));
        ranked.truncate(MOST_BOTTLENECKS);
        let told = |(critical_ns, self_ns, key, mut spans): (u64, u64, Key<'_>, Vec<At>)| {
            spans.sort_by_key(|at| (std::cmp::Reverse(self.own[*at]), *at));
            Bottleneck {
                agent: key.0.to_owned(),
                name: key.1.to_owned(),
                capability: key.2.map(str::to_owned),
                part: key.3,
                spans: spans.len() as u64,
                self_ns,
                longest_ns: spans.first().map_or(0, |at| self.own[*at]),
                critical_ns,
                evidence: spans.iter().take(MOST_EVIDENCE).map(|at| self.id(*at)).collect(),
            }
        };
        ranked.into_iter().map(told).collect()
    }

    fn agents(&self) -> Vec<AgentTime> {
        let mut agents: BTreeMap<String, AgentTime> = BTreeMap::new();
        let used = self.usage();
        for (at, who) in self.who.iter().enumerate() {
            let (span, made_by) = (self.span(at), maker(self.span(at)));
            let own = entry(&mut agents, &made_by);
            own.spans += 1;
            own.errors += u64::from(span.error);
            own.retries += u64::from(is_retry(span));
            if let Some((input, output)) = used.get(&at) {
                own.input_tokens += input;
                own.output_tokens += output;
            }
            if matches!(who.part, Part::Agent | Part::Outside) {
                let whose = entry(&mut agents, &who.agent);
                whose.self_ns = whose.self_ns.saturating_add(self.own[at]);
                whose.critical_ns += self.critical[at];
            }
        }
        let mut agents: Vec<AgentTime> = agents.into_values().collect();
        agents.sort_by_key(|own| std::cmp::Reverse((own.critical_ns, own.self_ns)));
        agents
    }

    /// Tokens by span, input and output. Several spans of one call tell the same: the innermost counts.
    fn usage(&self) -> HashMap<At, (u64, u64)> {
        let tokens =
            |at: At, name: &str| self.span(at).number(name).and_then(|count| u64::try_from(count).ok());
        let mut used = HashMap::new();
        let mut below = vec![false; self.tree.nodes.len()];
        for at in self.tree.order.iter().rev() {
            let told = (tokens(*at, "gen_ai.usage.input_tokens"), tokens(*at, "gen_ai.usage.output_tokens"));
            let own = told.0.is_some() || told.1.is_some();
            if own && !below[*at] {
                // No call reads a thousand billion tokens.
                let sane = |count: Option<u64>| count.unwrap_or_default().min(1_000_000_000_000);
                used.insert(*at, (sane(told.0), sane(told.1)));
            }
            if let Some(parent) = self.tree.nodes[*at].parent {
                below[parent] |= own || below[*at];
            }
        }
        used
    }

    fn capabilities(&self) -> BTreeMap<String, u64> {
        let mut capabilities = BTreeMap::new();
        for (at, who) in self.who.iter().enumerate().filter(|(_, who)| who.part != Part::Mesh) {
            if let Some(name) = &who.capability {
                let room = capabilities.len() < MOST_NAMES || capabilities.contains_key(name);
                let name = if room { name.clone() } else { OTHERS.to_owned() };
                let sum: &mut u64 = capabilities.entry(name).or_default();
                *sum = sum.saturating_add(self.own[at]);
            }
        }
        capabilities
    }

    /// Retries, refusals, errors, and where the first began.
    fn failures(&self, analysis: &mut TraceAnalysis) {
        let mut failed_below = vec![false; self.tree.nodes.len()];
        for (at, node) in self.tree.nodes.iter().enumerate() {
            let span = node.span;
            analysis.errors += u64::from(span.error);
            if let Some(reason) = span.text("pilotfish.reason")
                && node.parent.is_none_or(|above| self.span(above).text("pilotfish.reason") != Some(reason))
            {
                let room = analysis.refusals.len() < MOST_NAMES || analysis.refusals.contains_key(reason);
                let reason = if room { reason } else { OTHERS };
                *analysis.refusals.entry(reason.to_owned()).or_default() += 1;
            }
            if let Some(parent) = node.parent.filter(|_| span.error) {
                failed_below[parent] = true;
            }
            if is_retry(span) {
                analysis.retries += 1;
            }
            let tries = self.tries(at);
            let given_up = total(tries.iter().rev().skip(1).map(|one| self.duration(*one)));
            analysis.retried_ns = analysis.retried_ns.saturating_add(given_up);
        }
        let began = (0..self.tree.nodes.len()).filter(|at| self.span(*at).error && !failed_below[*at]);
        // One that was got over, by another try or otherwise, is none of the whole.
        let first = began.min_by_key(|at| (self.is_recovered(*at), self.tree.nodes[*at].end, *at));
        analysis.root_cause = first.map(|at| self.root_cause(at));
    }

    /// Tries of a call, when there were several, by start.
    fn tries(&self, at: At) -> Vec<At> {
        let children = self.tree.children(at);
        if !children.iter().any(|child| is_retry(self.span(*child))) {
            return Vec::new();
        }
        children.iter().copied().filter(|child| self.span(*child).kind == Kind::Client).collect()
    }

    /// What waited for it did not fail.
    fn is_recovered(&self, at: At) -> bool {
        self.tree.nodes[at].parent.is_some_and(|parent| !self.span(parent).error)
    }

    fn root_cause(&self, at: At) -> RootCause {
        let span = self.span(at);
        let mut spread: Vec<String> = Vec::new();
        let mut above = self.tree.nodes[at].parent;
        while let Some(one) = above.filter(|one| self.span(*one).error && spread.len() < 32) {
            let agent = maker(self.span(one));
            if agent != self.who[at].agent && spread.last() != Some(&agent) {
                spread.push(agent);
            }
            above = self.tree.nodes[one].parent;
        }
        RootCause {
            span: self.id(at),
            agent: self.who[at].agent.clone(),
            name: self.name(at).to_owned(),
            why: why(span),
            at_ns: self.tree.nodes[at].end - self.start,
            recovered: self.is_recovered(at),
            spread,
        }
    }
}

fn entry<'m>(agents: &'m mut BTreeMap<String, AgentTime>, name: &str) -> &'m mut AgentTime {
    let room = agents.len() < MOST_NAMES || agents.contains_key(name);
    let name = if room { name } else { OTHERS };
    agents
        .entry(name.to_owned())
        .or_insert_with(|| AgentTime { agent: name.to_owned(), ..AgentTime::default() })
}

/// What spans say may be anything, so that sums end at the largest number.
fn total(times: impl Iterator<Item = u64>) -> u64 {
    times.fold(0, u64::saturating_add)
}

fn is_retry(span: &Span) -> bool {
    span.kind == Kind::Client && span.number("http.request.resend_count").is_some_and(|count| count > 0)
}

/// What a span says went wrong.
fn why(span: &Span) -> String {
    let status = match span.attribute("http.response.status_code") {
        Some(Value::Number(status)) => Some(format!("status {status}")),
        _ => None,
    };
    let word = span.text("pilotfish.reason").or_else(|| span.text("error.type")).map(str::to_owned);
    let parts = [Some(span.message.clone()).filter(|text| !text.is_empty()), word, status];
    let mut told: Vec<String> = Vec::new();
    for part in parts.into_iter().flatten() {
        if !told.iter().any(|known| known.contains(&part)) {
            told.push(part);
        }
    }
    if told.is_empty() { "it does not say why".into() } else { told.join(", ") }
}
