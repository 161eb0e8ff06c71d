//! Which span is responsible for each moment, and what each did itself.

use super::tree::{At, Tree};

/// A piece of time of a span; none: no span covers it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Piece {
    pub(super) node: Option<At>,
    pub(super) from: u64,
    pub(super) to: u64,
}

/// The critical path from the first start to the last end, in order, without gaps. Seen from the end: a span is waiting
/// for whichever child ended last; what no child covers is its own. A child counts only while its parent runs.
pub(super) fn critical(tree: &Tree<'_>) -> Vec<Piece> {
    let from = tree.nodes.iter().map(|node| node.start).min().unwrap_or_default();
    let to = tree.nodes.iter().map(|node| node.end).max().unwrap_or_default();
    let mut pieces = Vec::new();
    let mut stack = vec![Frame::new(tree, None, from, to)];
    while let Some(frame) = stack.last_mut() {
        let mut inner = None;
        while let Some(child) = frame.waiting.pop() {
            let node = &tree.nodes[child];
            let (start, end) = (node.start.max(frame.from), node.end.min(frame.at));
            if start < end {
                push(&mut pieces, frame.node, end, frame.at);
                frame.at = start;
                inner = Some(Frame::new(tree, Some(child), start, end));
                break;
            }
        }
        match inner {
            Some(inner) => stack.push(inner),
            None => {
                push(&mut pieces, frame.node, frame.from, frame.at);
                stack.pop();
            }
        }
    }
    pieces.reverse();
    pieces
}

/// A span that is being walked through, from its end to its start.
struct Frame {
    node: Option<At>,
    from: u64,
    /// What is later is told.
    at: u64,
    /// Children, the one that ended last at the end.
    waiting: Vec<At>,
}

impl Frame {
    fn new(tree: &Tree<'_>, node: Option<At>, from: u64, to: u64) -> Frame {
        let mut waiting = node.map_or(tree.roots.as_slice(), |at| tree.children(at)).to_vec();
        waiting.sort_by_key(|at| (tree.nodes[*at].end, std::cmp::Reverse(tree.nodes[*at].start)));
        Frame { node, from, at: to, waiting }
    }
}

/// Pieces come from the last to the first.
fn push(pieces: &mut Vec<Piece>, node: Option<At>, from: u64, to: u64) {
    if from >= to {
        return;
    }
    match pieces.last_mut() {
        Some(later) if later.node == node && later.from == to => later.from = from,
        _ => pieces.push(Piece { node, from, to }),
    }
}

/// What no child of a span covers, by span; and how many spans did something of their own at the same time at most.
pub(super) fn own_time(tree: &Tree<'_>) -> (Vec<u64>, usize) {
    let mut own = vec![0; tree.nodes.len()];
    // Times at which something of its own begins (+1) or ends (-1).
    let mut edges: Vec<(u64, i32)> = Vec::new();
    for (at, node) in tree.nodes.iter().enumerate() {
        let mut piece = |from: u64, to: u64| {
            if from < to {
                own[at] += to - from;
                edges.extend([(from, 1), (to, -1)]);
            }
        };
        let mut covered = node.start;
        // By start, so that one pass will do.
        for child in tree.children(at) {
            let child = &tree.nodes[*child];
            let (start, end) =
                (child.start.clamp(node.start, node.end), child.end.clamp(node.start, node.end));
            piece(covered, start);
            covered = covered.max(end);
        }
        piece(covered, node.end);
    }
    // Ends come before starts of the same moment.
    edges.sort_unstable();
    let (mut now, mut most) = (0_i32, 0);
    for (_, step) in edges {
        now += step;
        most = most.max(now);
    }
    (own, usize::try_from(most).unwrap_or_default())
}
