//! Spans as a tree, whatever they say of their parents: circles are cut, spans without a known parent are roots, clocks
//! of other machines are corrected as Jaeger does. No recursion, so that depth does not matter.

use std::collections::HashMap;

use pilotfish_filters::trace::SpanId;

use crate::api::analysis::Oddities;
use crate::traces::span::{Kind, Resource, Span, Trace, Value};

/// A parent's or child's place in [`Tree::nodes`].
pub(super) type At = usize;

/// A span with its place in the tree.
#[derive(Debug)]
pub(super) struct Node<'t> {
    pub(super) span: &'t Span,
    pub(super) parent: Option<At>,
    /// By its own machine's clock as it is told, corrected. Nanoseconds since 1970.
    pub(super) start: u64,
    /// Never before the start.
    pub(super) end: u64,
    /// Its children in [`Tree::children`].
    children: (usize, usize),
}

/// A trace that is certainly a forest.
#[derive(Debug)]
pub(super) struct Tree<'t> {
    pub(super) nodes: Vec<Node<'t>>,
    children: Vec<At>,
    /// By start.
    pub(super) roots: Vec<At>,
    /// Every node, parents before their children.
    pub(super) order: Vec<At>,
    pub(super) odd: Oddities,
}

impl<'t> Tree<'t> {
    pub(super) fn of(trace: &'t Trace) -> Tree<'t> {
        let mut odd = Oddities::default();
        let spans = distinct(trace, &mut odd);
        let mut parents = parents(&spans, &mut odd);
        cut_circles(&spans, &mut parents, &mut odd);
        let node = |(span, parent): (&&'t Span, &Option<At>)| Node {
            span,
            parent: *parent,
            start: span.start,
            end: span.end.max(span.start),
            children: (0, 0),
        };
        let nodes: Vec<Node<'t>> = spans.iter().zip(&parents).map(node).collect();
        let mut tree = Tree { nodes, children: Vec::new(), roots: Vec::new(), order: Vec::new(), odd };
        tree.link();
        tree.correct_clocks();
        tree.link();
        tree.odd.roots = tree.roots.len();
        tree.odd.partial =
            spans.iter().any(|span| span.attribute("pilotfish.trace.partial") == Some(&Value::Bool(true)));
        tree
    }

    /// By start.
    pub(super) fn children(&self, at: At) -> &[At] {
        let (from, to) = self.nodes[at].children;
        &self.children[from..to]
    }

    /// Children behind each other in one list, and an order in which parents come first.
    fn link(&mut self) {
        let mut by_parent: Vec<At> = (0..self.nodes.len()).collect();
        // Roots come first: none is less than any parent.
        by_parent.sort_by_key(|at| (self.nodes[*at].parent, self.nodes[*at].start, *at));
        let mut from = 0;
        while from < by_parent.len() {
            let parent = self.nodes[by_parent[from]].parent;
            let rest = &by_parent[from..];
            let count = rest.iter().take_while(|at| self.nodes[**at].parent == parent).count();
            match parent {
                None => self.roots = rest[..count].to_vec(),
                Some(parent) => self.nodes[parent].children = (from, from + count),
            }
            from += count;
        }
        self.children = by_parent;
        self.order = self.roots.clone();
        let mut next = 0;
        while next < self.order.len() {
            let (from, to) = self.nodes[self.order[next]].children;
            self.order.extend_from_slice(&self.children[from..to]);
            next += 1;
        }
    }

    /// A child on another machine has to lie within its parent; when it does not, its clock is off, and everything that
    /// this machine says below it is shifted alike.
    fn correct_clocks(&mut self) {
        let mut shifts: Vec<i128> = vec![0; self.nodes.len()];
        for at in self.order.clone() {
            let Some(parent) = self.nodes[at].parent else { continue };
            let (above, own) = (&self.nodes[parent], &self.nodes[at]);
            shifts[at] = if same_clock(&above.span.resource, &own.span.resource) {
                shifts[parent]
            } else {
                skew(above, own)
            };
            let shift = shifts[at];
            if shift != 0 {
                let node = &mut self.nodes[at];
                (node.start, node.end) = (shifted(node.start, shift), shifted(node.end, shift));
                self.odd.shifted += 1;
                let by = u64::try_from(shift.unsigned_abs()).unwrap_or(u64::MAX);
                self.odd.largest_shift_ns = self.odd.largest_shift_ns.max(by);
            }
        }
    }
}

/// Each span once. Where caller and callee share an id, as B3 allows, both stay.
fn distinct<'t>(trace: &'t Trace, odd: &mut Oddities) -> Vec<&'t Span> {
    let mut seen: HashMap<(SpanId, bool), ()> = HashMap::with_capacity(trace.spans.len());
    let mut spans = Vec::with_capacity(trace.spans.len());
    for span in &trace.spans {
        if seen.insert((span.id, is_callee(span)), ()).is_none() {
            spans.push(span);
        } else {
            odd.duplicates += 1;
        }
    }
    spans
}

fn is_callee(span: &Span) -> bool {
    matches!(span.kind, Kind::Server | Kind::Consumer)
}

fn parents(spans: &[&Span], odd: &mut Oddities) -> Vec<Option<At>> {
    let mut by_id: HashMap<(SpanId, bool), At> = HashMap::with_capacity(spans.len());
    for (at, span) in spans.iter().enumerate() {
        by_id.insert((span.id, is_callee(span)), at);
    }
    let parent = |(at, span): (At, &&Span)| {
        // The callee of a shared id hangs on its caller; what hangs on the id, hangs on the callee.
        if is_callee(span)
            && let Some(caller) = by_id.get(&(span.id, false))
        {
            return Some(*caller);
        }
        let wanted = span.parent?;
        let found = by_id.get(&(wanted, true)).or_else(|| by_id.get(&(wanted, false))).copied();
        match found {
            Some(own) if own == at => {
                odd.cycles += 1;
                None
            }
            Some(found) => Some(found),
            None => {
                odd.orphans += 1;
                None
            }
        }
    };
    spans.iter().enumerate().map(parent).collect()
}

/// A circle is cut above its earliest span.
fn cut_circles(spans: &[&Span], parents: &mut [Option<At>], odd: &mut Oddities) {
    // On which walk a span was seen first; 0: not yet.
    let mut walks = vec![0_usize; parents.len()];
    for from in 0..parents.len() {
        let walk = from + 1;
        let mut at = from;
        while walks[at] == 0 {
            walks[at] = walk;
            match parents[at] {
                Some(parent) => at = parent,
                None => break,
            }
        }
        if walks[at] != walk || parents[at].is_none() {
            continue;
        }
        // The walk came back to itself.
        let (mut earliest, mut next) = (at, parents[at]);
        while let Some(one) = next.filter(|one| *one != at) {
            if (spans[one].start, one) < (spans[earliest].start, earliest) {
                earliest = one;
            }
            next = parents[one];
        }
        parents[earliest] = None;
        odd.cycles += 1;
    }
}

fn same_clock(one: &Resource, other: &Resource) -> bool {
    let text = |of: &Resource, name: &str| {
        of.attributes.iter().find_map(|(key, value)| match value {
            Value::Text(text) if key == name => Some(text.clone()),
            _ => None,
        })
    };
    if std::ptr::eq(one, other) {
        return true;
    }
    for name in ["host.name", "host.id", "service.instance.id"] {
        if let (Some(own), Some(others)) = (text(one, name), text(other, name)) {
            return own == others;
        }
    }
    one.service == other.service && one.namespace == other.namespace
}

/// By how much a child's clock is off, as Jaeger reckons.
fn skew(parent: &Node<'_>, child: &Node<'_>) -> i128 {
    let (above, own) = (i128::from(parent.start), i128::from(child.start));
    let (whole, part) = (parent.end - parent.start, child.end - child.start);
    if matches!(child.span.kind, Kind::Consumer) {
        // What is taken from a queue may well begin when its sender is long done.
        return if own < above { above - own } else { 0 };
    }
    if part > whole {
        // It went on without its caller; all that is known is that it did not begin before.
        return if own < above { above - own } else { 0 };
    }
    if child.start >= parent.start && child.end <= parent.end {
        return 0;
    }
    // The way there and the way back are taken to be equally long.
    above + i128::from((whole - part) / 2) - own
}

fn shifted(time: u64, by: i128) -> u64 {
    u64::try_from((i128::from(time) + by).max(0)).unwrap_or(u64::MAX)
}
