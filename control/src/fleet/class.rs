//! What sidecars of one class are given: its digest, what changed lately, and the updates made of that.
//!
//! A class holds no set of its own. Its set is what its scope sees of the view; of the past it remembers only which
//! documents and endpoints each step touched. An update from an earlier step is what was touched since, as it is now.
//! It is made once, and shared by all streams that were at that step.

mod frames;

use std::collections::{BTreeSet, HashMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bytes::Bytes;
use pilotfish_config::wire::{Key, Resume};
use pilotfish_filters::scope::ScopeClass;
use tokio::time::Instant;

use super::documents;
use super::ranks::Ranked;
use super::scope::Scope;
use super::sum::Sum;
use super::view::{Dirty, View};
pub(super) use frames::framed;

/// At most this many steps are remembered.
const MOST_STEPS: usize = 1024;
/// At most this many touched documents and endpoints, over all steps: more is hardly less than everything.
const MOST_TOUCHED: usize = 16 << 10;

/// What a stream was sent last.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Sent {
    pub(super) version: u64,
    pub(super) digest: Arc<str>,
}

/// Sidecars that see the same.
#[derive(Debug)]
pub(super) struct Class {
    pub(super) name: ScopeClass,
    inner: Mutex<Inner>,
}

#[derive(Debug)]
struct Inner {
    scope: Arc<Scope>,
    view: Arc<View>,
    sum: Sum,
    steps: VecDeque<Step>,
    /// Documents and endpoints that `steps` touch.
    touched: usize,
    full: Option<Bytes>,
    deltas: HashMap<u64, Bytes>,
    /// Ranks up to a number, by the number before the first.
    ranks: (u64, HashMap<u64, RankFrame>),
    /// Since when no stream uses it.
    unused: Option<Instant>,
}

/// A frame of ranks, and its reporter when there is one only.
#[derive(Debug, Clone, Default)]
struct RankFrame {
    frame: Option<Bytes>,
    sole: Option<Arc<str>>,
}

/// A version of the set, and what led to it.
#[derive(Debug)]
struct Step {
    version: u64,
    digest: Arc<str>,
    documents: Span,
    keys: Vec<Key>,
    ids: Vec<Arc<str>>,
    trust: bool,
    actions: bool,
}

/// Versions of the documents in a step.
#[derive(Debug, Clone, Copy)]
struct Span {
    /// The first that this step brought; above `brought` when it brought none.
    first: u64,
    /// The newest that it brought.
    brought: u64,
    /// The newest that it has: later ones changed nothing here.
    newest: u64,
}

/// What a version of the documents came to in a class.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Within {
    /// It changed nothing that the class sees.
    Unconcerned,
    /// Who serves this version of the set, or a later one, serves it.
    Since(u64),
}

impl Class {
    /// A class that begins with what its scope sees of `view`.
    pub(super) fn new(scope: Arc<Scope>, view: Arc<View>) -> Class {
        let sum = whole(&scope, &view);
        let committed = view.committed.version;
        let first = Step {
            version: view.version,
            digest: sum.text().into(),
            documents: Span { first: 0, brought: committed, newest: committed },
            keys: Vec::new(),
            ids: Vec::new(),
            trust: false,
            actions: false,
        };
        let inner = Inner {
            scope: scope.clone(),
            view,
            sum,
            steps: VecDeque::from([first]),
            touched: 0,
            full: None,
            deltas: HashMap::new(),
            ranks: (0, HashMap::new()),
            unused: None,
        };
        Class { name: scope.class().clone(), inner: Mutex::new(inner) }
    }

    /// Goes on to `view`, which differs by `dirty`; a `scope` is one that may see other things than before. Gives
    /// whether the set of this class is different.
    pub(super) fn advance(&self, view: &Arc<View>, dirty: &Dirty, scope: Option<Arc<Scope>>) -> bool {
        let mut inner = self.lock();
        let step = inner.step(view, dirty, scope);
        let different = !step.keys.is_empty() || !step.ids.is_empty() || step.trust || step.actions;
        if different {
            inner.push(step);
        } else if let Some(last) = inner.steps.back_mut() {
            last.documents.newest = view.committed.version;
        }
        different
    }

    /// What a stream that was sent this has to be sent now; `None` when it is up to date.
    pub(super) fn next(&self, sent: Option<&Sent>) -> Option<(Bytes, Sent)> {
        let mut inner = self.lock();
        let newest = inner.newest();
        if sent.is_some_and(|sent| *sent == newest) {
            return None;
        }
        let from = sent.and_then(|sent| inner.steps.iter().rposition(|step| step.digest == sent.digest));
        let bytes = match from {
            Some(at) => inner.delta(at),
            None => inner.whole(),
        };
        Some((bytes?, newest))
    }

    /// What a sidecar says that it holds, if this class knows it.
    pub(super) fn resumed(&self, resume: &Resume) -> Option<Sent> {
        let inner = self.lock();
        let step = inner.steps.iter().rev().find(|step| *step.digest == *resume.digest)?;
        Some(Sent { version: resume.version, digest: step.digest.clone() })
    }

    /// Whether the set has this endpoint.
    pub(super) fn has_endpoint(&self, id: &str) -> bool {
        let inner = self.lock();
        inner.view.endpoints.get(id).is_some_and(|shown| inner.scope.endpoint(&shown.endpoint))
    }

    /// What a version of the documents came to here.
    pub(super) fn within(&self, documents: u64) -> Within {
        let inner = self.lock();
        let at = inner.steps.iter().position(|step| step.documents.newest >= documents);
        let Some((at, step)) = at.and_then(|at| Some((at, inner.steps.get(at)?))) else {
            return Within::Unconcerned;
        };
        // What the first step changed is not known any more: whoever has it has that.
        let changed = at == 0 || !step.keys.is_empty();
        let brought = (step.documents.first..=step.documents.brought).contains(&documents);
        if changed && brought { Within::Since(step.version) } else { Within::Unconcerned }
    }

    /// The newest version of the documents that a version of the set has; 0 for one that is not known (any more).
    pub(super) fn documents_of(&self, version: u64) -> u64 {
        let inner = self.lock();
        inner.steps.iter().rev().find(|step| step.version == version).map_or(0, |step| step.documents.newest)
    }

    /// The first version of the set that has this version of the documents.
    pub(super) fn version_of(&self, documents: u64) -> u64 {
        let inner = self.lock();
        let step = inner.steps.iter().find(|step| step.documents.newest >= documents);
        step.map_or(u64::MAX, |step| step.version)
    }

    /// The newest version of the documents that was rendered.
    pub(super) fn rendered(&self) -> u64 {
        self.lock().steps.back().map_or(0, |step| step.documents.newest)
    }

    /// What it sees.
    pub(super) fn scope(&self) -> Arc<Scope> {
        self.lock().scope.clone()
    }

    /// Ranks after `from` up to `to` of endpoints that this class sees, as a frame for `reader`; none when it is the
    /// only reporter of all of them. `all` gives what changed since `from`; it is asked once for all streams.
    pub(super) fn ranks(
        &self,
        from: u64,
        to: u64,
        reader: &Arc<str>,
        all: impl FnOnce() -> Vec<Ranked>,
    ) -> Option<Bytes> {
        let mut inner = self.lock();
        if inner.ranks.0 != to {
            inner.ranks = (to, HashMap::new());
        }
        if !inner.ranks.1.contains_key(&from) {
            let made = inner.make_ranks(all());
            inner.ranks.1.insert(from, made);
        }
        let made = inner.ranks.1.get(&from)?;
        if made.sole.as_ref() == Some(reader) { None } else { made.frame.clone() }
    }

    /// Says whether a stream uses it; gives since when none does.
    pub(super) fn used(&self, used: bool) -> Option<Instant> {
        let mut inner = self.lock();
        inner.unused = if used { None } else { Some(inner.unused.unwrap_or_else(Instant::now)) };
        inner.unused
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The sum over what a scope sees.
fn whole(scope: &Scope, view: &View) -> Sum {
    let mut sum = Sum::default();
    sum.add(&view.trust_item);
    view.actions_item.iter().for_each(|item| sum.add(item));
    for (key, stored) in view.committed.documents.iter().filter(|(key, _)| scope.document(key)) {
        sum.add(&documents::item(key, stored));
    }
    for (_, shown) in view.endpoints.iter().filter(|(_, shown)| scope.endpoint(&shown.endpoint)) {
        sum.add(&shown.item);
    }
    sum
}

impl Inner {
    fn newest(&self) -> Sent {
        let last = self.steps.back();
        Sent {
            version: last.map_or(0, |step| step.version),
            digest: last.map_or_else(|| "".into(), |step| step.digest.clone()),
        }
    }

    /// The step to a view that differs by `dirty`, seen by another scope if there is one; goes there.
    fn step(&mut self, view: &Arc<View>, dirty: &Dirty, scope: Option<Arc<Scope>>) -> Step {
        let new = scope.unwrap_or_else(|| self.scope.clone());
        let mut step = self.empty_step(view, dirty);
        if dirty.trust {
            self.sum.remove(&self.view.trust_item);
            self.sum.add(&view.trust_item);
        }
        if dirty.actions {
            self.view.actions_item.iter().for_each(|item| self.sum.remove(item));
            view.actions_item.iter().for_each(|item| self.sum.add(item));
        }
        step.keys = self.step_documents(view, dirty, &new);
        step.ids = self.step_endpoints(view, dirty, &new);
        step.digest = self.sum.text().into();
        (self.view, self.scope) = (view.clone(), new);
        step
    }

    fn step_documents(&mut self, view: &View, dirty: &Dirty, new: &Arc<Scope>) -> Vec<Key> {
        let mut keys: BTreeSet<&Key> = dirty.documents.iter().map(|differing| &differing.key).collect();
        let old = self.scope.clone();
        if !Arc::ptr_eq(&old, new) {
            keys.extend(old.documents_beyond(new).chain(new.documents_beyond(&old)));
        }
        let mut touched = Vec::new();
        for key in keys {
            let before = self.view.committed.documents.get(key).filter(|_| old.document(key));
            let after = view.committed.documents.get(key).filter(|_| new.document(key));
            if before.map(|stored| &stored.digest) == after.map(|stored| &stored.digest) {
                continue;
            }
            before.iter().for_each(|stored| self.sum.remove(&documents::item(key, stored)));
            after.iter().for_each(|stored| self.sum.add(&documents::item(key, stored)));
            touched.push(key.clone());
        }
        touched
    }

    fn step_endpoints(&mut self, view: &View, dirty: &Dirty, new: &Arc<Scope>) -> Vec<Arc<str>> {
        let old = self.scope.clone();
        let same = Arc::ptr_eq(&old, new) || old.is_wide() && new.is_wide();
        let mut ids: BTreeSet<&Arc<str>> = dirty.endpoints.iter().map(|moved| &moved.id).collect();
        if !same {
            // What it may see is another question now, for all of them.
            ids.extend(self.view.endpoints.iter().chain(view.endpoints.iter()).map(|(id, _)| id));
        }
        let mut touched = Vec::new();
        for id in ids {
            let before = self.view.endpoints.get(id).filter(|shown| old.endpoint(&shown.endpoint));
            let after = view.endpoints.get(id).filter(|shown| new.endpoint(&shown.endpoint));
            if before.map(|shown| shown.item) == after.map(|shown| shown.item) {
                continue;
            }
            before.iter().for_each(|shown| self.sum.remove(&shown.item));
            after.iter().for_each(|shown| self.sum.add(&shown.item));
            touched.push(id.clone());
        }
        touched
    }

    fn empty_step(&self, view: &View, dirty: &Dirty) -> Step {
        let before = self.steps.back().map_or(0, |step| step.documents.newest);
        let documents = view.committed.version;
        Step {
            version: view.version,
            digest: "".into(),
            documents: Span { first: before + 1, brought: documents, newest: documents },
            keys: Vec::new(),
            ids: Vec::new(),
            trust: dirty.trust,
            actions: dirty.actions,
        }
    }

    fn push(&mut self, step: Step) {
        self.touched += step.keys.len() + step.ids.len();
        self.steps.push_back(step);
        while self.steps.len() > 1 && (self.steps.len() > MOST_STEPS || self.touched > MOST_TOUCHED) {
            let Some(_) = self.steps.pop_front() else { break };
            // What led to the first step that is left is of no use any more.
            if let Some(first) = self.steps.front_mut() {
                self.touched -= first.keys.len() + first.ids.len();
                (first.keys, first.ids) = (Vec::new(), Vec::new());
            }
        }
        self.full = None;
        self.deltas.clear();
    }
}
