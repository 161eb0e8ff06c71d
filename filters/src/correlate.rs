//! Which inbound call an outbound call belongs to, for agents that drop headers.
//!
//! The agent says so by passing `x-pilotfish-call` on; else there is only one call in flight; else they have a session, a task or a
//! conversation in common; else it is one of several, of which only what holds for all of them is certain. A call that names one that
//! has ended is nobody else's: it never passes for that of the only one in flight.

use std::collections::BTreeSet;
use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering::Relaxed};

use crate::call::Call;
use crate::call_path::Agents;
use crate::clock::Micros;
use crate::credentials::SubjectToken;
use crate::delegation::Delegated;
use crate::route::hash::{self, FixedMap};
use crate::shed::Priority;
use crate::text::Text;
use crate::trace::{SpanId, TraceId};

/// Calls that are remembered at once.
pub const MOST: usize = 10_000;
/// Calls that have ended and whose memory is kept for others.
const SPARE: usize = 256;
/// Of so many candidates each is looked at.
const LOOKED_AT: usize = 16;

/// Names one call that is being served, for as long as it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CallId {
    place: u32,
    nonce: u64,
}

impl CallId {
    /// Reads what [`fmt::Display`] writes.
    pub fn parse(text: &[u8]) -> Option<CallId> {
        let text = std::str::from_utf8(text).ok().filter(|text| text.len() == 24)?;
        // The standard library's parser would take a sign.
        if !text.bytes().all(|byte| byte.is_ascii_hexdigit()) {
            return None;
        }
        let (place, nonce) = text.split_at(8);
        Some(CallId {
            place: u32::from_str_radix(place, 16).ok()?,
            nonce: u64::from_str_radix(nonce, 16).ok()?,
        })
    }
}

impl fmt::Display for CallId {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "{:08x}{:016x}", self.place, self.nonce)
    }
}

/// The trace of an inbound call, for the calls that its agent makes for it.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Handed {
    /// The trace.
    pub trace: TraceId,
    /// Whether spans of it are kept.
    pub sampled: bool,
    /// The `random-trace-id` flag.
    pub random: bool,
    /// The workflow that it is part of.
    pub workflow: Text<64>,
}

impl Handed {
    /// What holds for both, when both are of one trace.
    fn shared_with(mut self, other: &Handed) -> Option<Handed> {
        if self.workflow != other.workflow {
            self.workflow = Text::default();
        }
        self.sampled |= other.sampled;
        (self.trace == other.trace).then_some(self)
    }
}

/// What an inbound call hands down to the calls that its agent makes for it.
#[derive(Debug, Default)]
pub struct Inherited {
    /// How many calls of agents hang on one another up to here.
    pub hops: u8,
    /// Who made them.
    pub agents: Agents,
    /// How important it is.
    pub priority: Priority,
    /// When it has to be over.
    pub deadline: Option<Micros>,
    /// Whether a policy on its way forbids circles.
    pub deny_cycles: bool,
    /// Which trace it is part of.
    pub trace: Handed,
    /// Its `tracestate`, if it has one.
    pub tracestate: Option<Arc<str>>,
    /// Its valid token, when tokens are exchanged for others.
    pub token: Option<Arc<SubjectToken>>,
    /// For whom it is; `None`: nobody in the mesh.
    pub delegated: Option<Arc<Delegated>>,
}

/// An inbound call that is being served.
#[derive(Debug)]
pub struct Served {
    /// Its name.
    pub id: CallId,
    /// What it hands down.
    pub inherited: Inherited,
    made: AtomicU32,
    /// The CLIENT span of its newest try.
    client: AtomicU64,
}

impl Served {
    /// A try to the agent begins, with this span.
    pub fn begin_try(&self, span: SpanId) {
        self.client.store(u64::from_be_bytes(span.0), Relaxed);
    }

    /// The CLIENT span of the newest try: who makes the calls that its agent makes for it.
    pub fn client(&self) -> SpanId {
        SpanId(self.client.load(Relaxed).to_be_bytes())
    }

    /// Counts one more call that is made for it; how many there are now.
    pub fn count(&self) -> u32 {
        self.made.fetch_add(1, Relaxed).saturating_add(1)
    }
}

/// What a call has in common with others of its conversation: session, task and context, hashed.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Keys([Option<u64>; 3]);

impl Keys {
    /// Those that are known of a call.
    pub fn of(call: &Call) -> Keys {
        let key = |kind: u64, text: &Option<Box<str>>| {
            text.as_deref().map(|text| hash::key(text.as_bytes()).rotate_left(8) ^ kind)
        };
        // The most specific comes first.
        Keys([key(1, &call.task_id), key(2, &call.context_id), key(3, &call.session)])
    }

    fn iter(&self) -> impl Iterator<Item = u64> {
        self.0.into_iter().flatten()
    }
}

/// What is known of where an outbound call comes from.
#[derive(Debug, Clone)]
pub enum Correlation {
    /// The agent said so, by an id that only it was given.
    Certain(Arc<Served>),
    /// It is the only one in flight, or the only one of the same conversation.
    Inferred(Arc<Served>),
    /// One of these.
    Ambiguous(Candidates),
    /// Nothing is being served: the agent calls of its own accord.
    None,
}

/// Several calls to which an outbound call may belong.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Candidates {
    /// The largest number of hops among them: depth is bounded whichever it is.
    pub hops: u8,
    /// The agents that are on the paths of all of them; none when they are too many to be looked at.
    pub agents: Agents,
    /// The highest priority among them: nothing is held back because of another's.
    pub priority: Priority,
    /// Some of them.
    pub ids: Vec<CallId>,
    /// Everybody whom they are for.
    pub delegated: Option<Arc<Delegated>>,
}

impl Correlation {
    /// The one call that it belongs to, if that is known.
    pub fn served(&self) -> Option<&Arc<Served>> {
        match self {
            Correlation::Certain(served) | Correlation::Inferred(served) => Some(served),
            Correlation::Ambiguous(_) | Correlation::None => None,
        }
    }

    /// Hops up to here, the agents on the way, the highest priority that it may have.
    pub fn inherited(&self) -> (u8, Agents, Priority) {
        match self {
            Correlation::Certain(served) | Correlation::Inferred(served) => {
                let Inherited { hops, agents, priority, .. } = &served.inherited;
                (*hops, agents.clone(), *priority)
            }
            Correlation::Ambiguous(all) => (all.hops, all.agents.clone(), all.priority),
            Correlation::None => (0, Agents::default(), Priority::Critical),
        }
    }

    /// For whom the call is; `None`: for nobody but the agent.
    pub fn delegated(&self) -> Option<&Arc<Delegated>> {
        match self {
            Correlation::Certain(served) | Correlation::Inferred(served) => {
                served.inherited.delegated.as_ref()
            }
            Correlation::Ambiguous(all) => all.delegated.as_ref(),
            Correlation::None => None,
        }
    }
}

/// The inbound calls that a sidecar's agent serves now.
#[derive(Debug)]
pub struct Table {
    places: Vec<Option<Entry>>,
    free: Vec<u32>,
    /// The places that are taken, in no order.
    live: Vec<u32>,
    /// Calls that found no place.
    untracked: u32,
    /// How many calls have so many hops, and such a priority: the extremes without looking at all of them.
    by_hops: Box<[u32; 256]>,
    by_priority: [u32; 3],
    by_key: BTreeSet<(u64, u32)>,
    /// For whom calls are, by where that is kept, and how many calls.
    by_delegated: FixedMap<usize, (Option<Arc<Delegated>>, u32)>,
    /// Calls that have ended, for others to take their memory.
    spare: Vec<Arc<Served>>,
}

#[derive(Debug)]
struct Entry {
    served: Arc<Served>,
    keys: Keys,
    /// Where it is in `live`.
    at: usize,
}

impl Default for Table {
    fn default() -> Self {
        Table {
            places: Vec::new(),
            free: Vec::new(),
            live: Vec::new(),
            untracked: 0,
            by_hops: Box::new([0; 256]),
            by_priority: [0; 3],
            by_key: BTreeSet::new(),
            by_delegated: FixedMap::default(),
            spare: Vec::new(),
        }
    }
}

impl Table {
    /// A call begins. `None` when there are [`MOST`] already; [`Table::end`] has to be told of it nevertheless.
    pub fn begin(&mut self, inherited: Inherited, keys: Keys, nonce: u64) -> Option<Arc<Served>> {
        let place = match self.free.pop() {
            Some(place) => place,
            None if self.places.len() < MOST => {
                self.places.push(None);
                (self.places.len() - 1) as u32
            }
            None => {
                self.untracked += 1;
                return None;
            }
        };
        self.by_hops[usize::from(inherited.hops)] += 1;
        self.by_priority[inherited.priority as usize] += 1;
        self.by_key.extend(keys.iter().map(|key| (key, place)));
        let delegated = inherited.delegated.as_ref();
        self.by_delegated.entry(address(delegated)).or_insert_with(|| (delegated.cloned(), 0)).1 += 1;
        let id = CallId { place, nonce };
        let (made, client) = (AtomicU32::new(0), AtomicU64::new(0));
        let served = Served { id, inherited, made, client };
        let served = match self.spare.pop() {
            Some(mut spare) => match Arc::get_mut(&mut spare) {
                Some(place) => {
                    *place = served;
                    spare
                }
                None => Arc::new(served),
            },
            None => Arc::new(served),
        };
        if let Some(slot) = self.places.get_mut(place as usize) {
            *slot = Some(Entry { served: Arc::clone(&served), keys, at: self.live.len() });
        }
        self.live.push(place);
        Some(served)
    }

    /// It has ended.
    pub fn end(&mut self, served: Option<&Served>) {
        let Some(served) = served else {
            self.untracked = self.untracked.saturating_sub(1);
            return;
        };
        let place = served.id.place;
        let Some(entry) = self.places.get_mut(place as usize).and_then(Option::take) else { return };
        self.live.swap_remove(entry.at);
        if let Some(moved) = self.live.get(entry.at)
            && let Some(Some(moved)) = self.places.get_mut(*moved as usize)
        {
            moved.at = entry.at;
        }
        for key in entry.keys.iter() {
            self.by_key.remove(&(key, place));
        }
        self.by_hops[usize::from(served.inherited.hops)] -= 1;
        self.by_priority[served.inherited.priority as usize] -= 1;
        let delegated = address(served.inherited.delegated.as_ref());
        if let Some((_, calls)) = self.by_delegated.get_mut(&delegated) {
            *calls -= 1;
            if *calls == 0 {
                self.by_delegated.remove(&delegated);
            }
        }
        self.free.push(place);
    }

    /// One that has ended is not needed any more by whoever began it.
    pub fn reuse(&mut self, mut served: Arc<Served>) {
        if self.spare.len() < SPARE
            && let Some(own) = Arc::get_mut(&mut served)
        {
            own.inherited = Inherited::default();
            self.spare.push(served);
        }
    }

    /// How many calls are being served.
    pub fn len(&self) -> usize {
        self.live.len() + self.untracked as usize
    }

    /// Whether none is.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Which of them a call belongs to: `said` is the id that the agent passed on, `keys` are the call's.
    pub fn find(&self, said: Option<CallId>, keys: &Keys) -> Correlation {
        match self.look(said, keys) {
            Look::Certain(served) => Correlation::Certain(Arc::clone(served)),
            Look::Inferred(served) => Correlation::Inferred(Arc::clone(served)),
            Look::Same(key) => {
                let delegated =
                    Delegated::any_of(self.same(key).map(|served| served.inherited.delegated.as_ref()));
                Correlation::Ambiguous(Candidates { delegated, ..candidates(self.same(key)) })
            }
            Look::Any => Correlation::Ambiguous(self.any()),
            Look::Nothing => Correlation::None,
        }
    }

    /// The trace that a call belongs to, if that is certain: of several calls, only one that all of them are part of.
    pub fn find_trace(&self, said: Option<CallId>, keys: &Keys) -> Option<Joined> {
        let joined = match self.look(said, keys) {
            Look::Certain(served) | Look::Inferred(served) => Joined {
                handed: served.inherited.trace,
                span: served.client(),
                tracestate: served.inherited.tracestate.clone(),
            },
            Look::Same(key) => Joined::all(self.same(key))?,
            Look::Any if self.untracked > 0 || self.live.len() > LOOKED_AT => return None,
            Look::Any => Joined::all(self.live.iter().filter_map(|place| self.at(*place)))?,
            Look::Nothing => return None,
        };
        (!joined.handed.trace.is_none()).then_some(joined)
    }

    fn look(&self, said: Option<CallId>, keys: &Keys) -> Look<'_> {
        if let Some(id) = said {
            return match self.get(id) {
                Some(served) => Look::Certain(served),
                // That call is over. Whoever else is served by now did not ask for this one: it may only not do more than they may.
                None if self.is_empty() => Look::Nothing,
                None => Look::Any,
            };
        }
        match (&*self.live, self.untracked) {
            ([], 0) => return Look::Nothing,
            ([only], 0) => return self.at(*only).map_or(Look::Nothing, Look::Inferred),
            _ => {}
        }
        for key in keys.iter() {
            let mut same = self.same(key);
            match (same.next(), same.next()) {
                (None, _) => {}
                (Some(only), None) => return Look::Inferred(only),
                (Some(_), Some(_)) => return Look::Same(key),
            }
        }
        Look::Any
    }

    /// Those with a key.
    fn same(&self, key: u64) -> impl Iterator<Item = &Arc<Served>> {
        self.by_key.range((key, 0)..=(key, u32::MAX)).filter_map(|(_, place)| self.at(*place))
    }

    fn get(&self, id: CallId) -> Option<&Arc<Served>> {
        self.at(id.place).filter(|served| served.id == id)
    }

    fn at(&self, place: u32) -> Option<&Arc<Served>> {
        self.places.get(place as usize)?.as_ref().map(|entry| &entry.served)
    }

    /// Any of all.
    fn any(&self) -> Candidates {
        let all = self.live.iter().filter_map(|place| self.at(*place));
        if self.untracked == 0 && self.live.len() <= LOOKED_AT {
            return Candidates { delegated: self.anybody(), ..candidates(all) };
        }
        let hops = self.by_hops.iter().rposition(|count| *count > 0).unwrap_or(0);
        let has = |priority: Priority| self.by_priority[priority as usize] > 0;
        let priority = if has(Priority::Critical) {
            Priority::Critical
        } else if has(Priority::Default) || self.untracked > 0 {
            Priority::Default
        } else {
            Priority::Sheddable
        };
        Candidates {
            hops: hops as u8,
            agents: Agents::default(),
            priority,
            ids: all.take(LOOKED_AT).map(|served| served.id).collect(),
            delegated: self.anybody(),
        }
    }

    /// Everybody whom the calls are for. Of calls that found no place nobody knows whom they are for.
    fn anybody(&self) -> Option<Arc<Delegated>> {
        let mut all: Vec<&Option<Arc<Delegated>>> = self.by_delegated.values().map(|(own, _)| own).collect();
        // Whatever order a map has: what is signed is the same for the same calls.
        all.sort_by(|one, other| names(one).cmp(names(other)));
        let lost = (self.untracked > 0).then(|| {
            let agents = vec![Delegated::unknown()];
            Some(Arc::new(Delegated { agents, uncertain: true, ..Delegated::default() }))
        });
        Delegated::any_of(all.into_iter().chain(lost.as_ref()).map(Option::as_ref))
    }
}

/// Where it is kept: calls of one caller share it.
fn address(delegated: Option<&Arc<Delegated>>) -> usize {
    delegated.map_or(0, |own| Arc::as_ptr(own) as usize)
}

fn names(delegated: &Option<Arc<Delegated>>) -> impl Iterator<Item = &str> {
    delegated.iter().flat_map(|own| own.agents.iter().map(|agent| &*agent.id))
}

/// What a table knows of where a call comes from.
enum Look<'a> {
    Certain(&'a Arc<Served>),
    Inferred(&'a Arc<Served>),
    /// One of those with this key.
    Same(u64),
    /// One of all.
    Any,
    Nothing,
}

/// The trace that a call joins.
#[derive(Debug, Clone)]
pub struct Joined {
    /// What the inbound call hands down.
    pub handed: Handed,
    /// The span that makes the call; none when it may be one of several.
    pub span: SpanId,
    /// The `tracestate`; none when it may be one of several.
    pub tracestate: Option<Arc<str>>,
}

impl Joined {
    /// What all have in common; `None`: they are of several traces, or too many.
    fn all<'a>(mut all: impl Iterator<Item = &'a Arc<Served>>) -> Option<Joined> {
        let mut handed = all.next()?.inherited.trace;
        for (number, served) in all.enumerate() {
            handed =
                (number + 1 < LOOKED_AT).then(|| handed.shared_with(&served.inherited.trace)).flatten()?;
        }
        Some(Joined { handed, span: SpanId::default(), tracestate: None })
    }
}

/// What holds whichever of them it is.
fn candidates<'a>(all: impl Iterator<Item = &'a Arc<Served>>) -> Candidates {
    let mut found = Candidates {
        hops: 0,
        agents: Agents::default(),
        priority: Priority::Sheddable,
        ids: Vec::with_capacity(LOOKED_AT),
        delegated: None,
    };
    for (number, served) in all.enumerate() {
        let Inherited { hops, agents, priority, .. } = &served.inherited;
        found.hops = found.hops.max(*hops);
        found.priority = found.priority.max(*priority);
        if number == 0 {
            found.agents = agents.clone();
        } else if number >= LOOKED_AT {
            found.agents = Agents::default();
        } else if found.agents != *agents {
            found.agents = found.agents.shared_with(agents);
        }
        if found.ids.len() < LOOKED_AT {
            found.ids.push(served.id);
        }
    }
    found
}

#[cfg(test)]
mod tests;
