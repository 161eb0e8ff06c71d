//! The decision: what starts where, what ends, what moves, what has no place and why.

use std::sync::Arc;

use super::books::Books;
use super::fill::{self, Lack};
use super::world::{GpuShare, Group, World};
use super::{explain, moves, rebalance, surplus};

/// How far a decision may go.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Replicas that may be on their way from one machine to another at the same time (rebalance); 0: none moves but what has to.
    pub moves: u32,
    /// Higher priorities may evict lower ones.
    pub preempt: bool,
    /// Off: nothing new is placed (`agent_placement` is off).
    pub place: bool,
}

impl Default for Limits {
    fn default() -> Self {
        Limits { moves: 0, preempt: true, place: true }
    }
}

/// What is to be done.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Outcome {
    /// New replicas.
    pub starts: Vec<Start>,
    /// Replicas that end: they are too many, or nobody's.
    pub stops: Vec<Stop>,
    /// Replicas that get another place: the new one starts, and once it is ready the old one ends.
    pub moves: Vec<Move>,
    /// What has no place.
    pub unplaced: Vec<Unplaced>,
    /// Replicas that should move and stay for now.
    pub stays: Vec<Stay>,
}

/// A new replica.
#[derive(Debug, Clone, PartialEq)]
pub struct Start {
    /// Its group.
    pub group: Arc<str>,
    /// Its machine.
    pub node: String,
    /// Its cards.
    pub gpus: Vec<GpuShare>,
}

/// A replica that ends.
#[derive(Debug, Clone, PartialEq)]
pub struct Stop {
    /// Which.
    pub replica: Arc<str>,
    /// Why.
    pub why: StopReason,
}

/// Why a replica ends.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum StopReason {
    /// Fewer are wanted.
    Surplus,
    /// Its agent is not wanted any more.
    NotWanted,
    /// Its machine is lost.
    NodeLost,
    /// This group of a higher priority needs the place.
    Evicted {
        /// [`super::world::Group::id`].
        by: Arc<str>,
    },
    /// It should move, and there is no room for its successor beside it: it ends first, as its disruption budget allows. The
    /// successor is among the starts of a later decision, once this one is gone.
    MakesRoom {
        /// Why it should move.
        why: MoveReason,
    },
}

/// A replica that gets another place.
#[derive(Debug, Clone, PartialEq)]
pub struct Move {
    /// The one that ends.
    pub replica: Arc<str>,
    /// Where the new one starts.
    pub to: Start,
    /// Why.
    pub why: MoveReason,
}

/// Why a replica moves.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum MoveReason {
    /// Its machine is drained, or has a taint now that it does not tolerate.
    Drained,
    /// Its card failed.
    GpuFailed,
    /// What it was started with has changed.
    Changed,
    /// Whole cards become free.
    Rebalanced,
}

/// A replica that should move and stays for now.
#[derive(Debug, Clone, PartialEq)]
pub struct Stay {
    /// Which.
    pub replica: Arc<str>,
    /// Why it should move.
    pub why: MoveReason,
    /// Why it does not, for people: `no other node has room for it, and its disruption budget is used up`.
    pub because: String,
}

/// What of a group has no place.
#[derive(Debug, Clone, PartialEq)]
pub struct Unplaced {
    /// The group.
    pub group: Arc<str>,
    /// So many replicas.
    pub count: u32,
    /// Why, the most frequent first: machines by what keeps the replica from them.
    pub reasons: Vec<Obstacle>,
    /// What would help, in one sentence: the nearest thing to a place.
    pub hint: Option<String>,
}

/// Why machines are not fit.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Obstacle {
    /// So many machines.
    pub nodes: u32,
    /// What is wrong with them: `8 GiB of GPU memory wanted, at most 3 GiB free on a card`.
    pub why: String,
}

/// Decides.
///
/// Groups come by priority, then the largest first. What ends, or is evicted, has its place until it is gone from
/// [`World::held`]; who gets it is decided anew then, and until then nobody else gets it.
pub fn place(world: &World, limits: &Limits) -> Outcome {
    let mut books = Books::new(world);
    let mut out = Outcome::default();
    surplus::stop(&mut books, &mut out);
    if !limits.place {
        off(&books, &mut out);
        return out;
    }
    let mut lacking: Vec<Lack> = Vec::new();
    for group in order(world) {
        moves::away(&mut books, group, &mut out);
        lacking.extend(fill::fill(&mut books, group, limits, &mut out));
    }
    let lacking = again(&mut books, lacking, limits, &mut out);
    if lacking.is_empty() && limits.moves > 0 {
        rebalance::rebalance(&mut books, limits.moves, &mut out);
    }
    out.unplaced = lacking.iter().map(|lack| explain::unplaced(&mut books, lack, limits)).collect();
    out
}

/// Groups that have to be near others get another chance as long as others come.
fn again(books: &mut Books<'_>, mut lacking: Vec<Lack>, limits: &Limits, out: &mut Outcome) -> Vec<Lack> {
    let near = |books: &Books<'_>, lack: &Lack| {
        books.world.groups[lack.group].affinity.iter().any(|rule| rule.required)
    };
    loop {
        let before = out.starts.len();
        let mut still = Vec::with_capacity(lacking.len());
        for lack in lacking {
            if near(books, &lack) && lack.waits == 0 {
                still.extend(fill::fill(books, lack.group, limits, out));
            } else {
                still.push(lack);
            }
        }
        lacking = still;
        if out.starts.len() == before {
            return lacking;
        }
    }
}

/// Higher priorities first, then what takes most of cards (of those that take as much, what takes least besides), then what takes
/// most of a machine, then by name.
fn order(world: &World) -> Vec<usize> {
    let mut order: Vec<usize> = (0..world.groups.len()).collect();
    let size = |group: &Group| {
        let need = &group.need;
        let rest = (need.cpu_milli, need.memory);
        let rest = if need.gpu() { (u64::MAX - rest.0, u64::MAX - rest.1) } else { rest };
        (need.gpus, need.gpu_slice.is_some(), need.gpu_memory, rest)
    };
    order.sort_by(|a, b| {
        let (a, b) = (&world.groups[*a], &world.groups[*b]);
        b.priority.cmp(&a.priority).then_with(|| size(b).cmp(&size(a))).then_with(|| a.id.cmp(&b.id))
    });
    order
}

/// Nothing new is placed.
fn off(books: &Books<'_>, out: &mut Outcome) {
    for (index, group) in books.world.groups.iter().enumerate() {
        let there = u32::try_from(books.active(index).count()).unwrap_or(u32::MAX);
        if there < group.wanted {
            out.unplaced.push(Unplaced {
                group: group.id.clone(),
                count: group.wanted - there,
                reasons: Vec::new(),
                hint: Some("nothing new is placed: the duty `agent_placement` is off".to_owned()),
            });
        }
    }
}
