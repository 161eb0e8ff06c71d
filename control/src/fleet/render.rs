//! Gathers what changed until there is a moment of quiet, then moves every class on by one step.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use pilotfish_config::wire::{Actions, Hold, Trust};
use pilotfish_filters::scope::ScopeClass;
use pilotfish_identity::{SpiffeId, TrustDomain};
use tokio::sync::watch;
use tokio::time::{Duration, Instant, sleep_until};

use super::Shared;
use super::class::Class;
use super::documents;
use super::registry::Urgency;
use super::scope::Scope;
use super::version::Counter;
use super::view::{Dirty, View};
use crate::resources::Committed;

/// An endpoint that must not be chosen any more waits no longer than this, whatever else changes meanwhile: an
/// expired lease is to be gone everywhere within a second.
const SOON: Duration = Duration::from_millis(500);
/// How long a class without streams is remembered, for sidecars that come back.
const REMEMBERED: Duration = Duration::from_secs(60);

/// The task that renders.
#[derive(Debug)]
pub(super) struct Renderer {
    shared: Arc<Shared>,
    documents: watch::Receiver<Arc<Committed>>,
    trust: watch::Receiver<Arc<Trust>>,
    actions: watch::Receiver<Arc<Actions>>,
    counter: Counter,
    view: View,
    /// Whether the senders of documents, trust and actions are gone.
    closed: (bool, bool, bool),
}

impl Renderer {
    pub(super) fn new(
        shared: Arc<Shared>,
        documents: watch::Receiver<Arc<Committed>>,
        trust: watch::Receiver<Arc<Trust>>,
        actions: watch::Receiver<Arc<Actions>>,
    ) -> Renderer {
        let view = (*shared.view()).clone();
        let counter = Counter::new(shared.store.clone());
        Renderer { shared, documents, trust, actions, counter, view, closed: (false, false, false) }
    }

    /// Renders whenever there is something to render, until the task is aborted.
    pub(super) async fn run(mut self) {
        loop {
            self.gather().await;
            self.render().await;
        }
    }

    /// Returns when changes came, and then no more for a while.
    async fn gather(&mut self) {
        let (quiet, longest) = (self.shared.settings.quiet, self.shared.settings.longest_quiet);
        let mut urgency = self.change().await;
        let mut due = Instant::now() + longest;
        loop {
            let now = Instant::now();
            match urgency {
                Urgency::Now => return,
                Urgency::Soon => due = due.min(now + SOON),
                Urgency::Usual => {}
            }
            tokio::select! {
                biased;
                () = sleep_until(due.min(now + quiet)) => return,
                next = self.change() => urgency = next,
            }
        }
    }

    /// The next change.
    async fn change(&mut self) -> Urgency {
        loop {
            tokio::select! {
                biased;
                changed = self.documents.changed(), if !self.closed.0 => match changed {
                    Ok(()) => return Urgency::Usual,
                    Err(_) => self.closed.0 = true,
                },
                // A revocation waits for nothing, and trust changes seldom.
                changed = self.trust.changed(), if !self.closed.1 => match changed {
                    Ok(()) => return Urgency::Now,
                    Err(_) => self.closed.1 = true,
                },
                // Nor does what somebody holds an agent to.
                changed = self.actions.changed(), if !self.closed.2 => match changed {
                    Ok(()) => return Urgency::Now,
                    Err(_) => self.closed.2 = true,
                },
                () = self.shared.registry.to_render.notified() => {
                    if let Some(urgency) = self.shared.registry.urgency() {
                        return urgency;
                    }
                }
            }
        }
    }

    /// Renders what there is.
    pub(super) async fn render(&mut self) {
        let committed = self.documents.borrow_and_update().clone();
        let trust = self.trust.borrow_and_update().clone();
        let actions = self.actions.borrow_and_update().clone();
        let rescope = !Arc::ptr_eq(&committed, &self.view.committed);
        self.shared.registry.revoke(revoked(&trust, &self.shared.settings.trust_domain));
        self.shared.registry.quarantine(quarantined(&actions));
        let given = self.view.given.clone();
        let mut dirty = self.view.advance(committed, trust, actions);
        let mut ids = self.shared.registry.take_unrendered();
        for agent in documents::agents_differing(&given, &self.view.given) {
            ids.extend(self.shared.registry.instances(&agent).iter().map(|own| own.id.clone()));
        }
        self.show(ids, &mut dirty);
        if !dirty.is_empty() || self.view.version == 0 {
            self.view.version = self.counter.number(&self.view.sum.text()).await;
        }
        self.distribute(&dirty, rescope);
        self.shared.drains.rendered(&self.shared, &self.view, &dirty);
    }

    /// Takes registrations into the view as they are now.
    fn show(&mut self, ids: HashSet<Arc<str>>, dirty: &mut Dirty) {
        let registry = &self.shared.registry;
        let nothing = Vec::new();
        for id in ids {
            let registration = registry.get(&id);
            let shown = registration.filter(|own| !self.shared.replicas.is_silent(own));
            let endpoint = shown.and_then(|registration| {
                let agent = format!("{}/{}", registration.facts.namespace, registration.facts.agent);
                let further = self.view.given.get(&agent).unwrap_or(&nothing);
                registration.endpoint(registry.status(&registration), further)
            });
            dirty.endpoints.extend(self.view.show(&id, endpoint));
        }
    }

    /// Moves classes and streams on.
    fn distribute(&self, dirty: &Dirty, rescope: bool) {
        let view = Arc::new(self.view.clone());
        let mut push = self.shared.push();
        push.view = view.clone();
        let streams: Vec<_> = self.shared.streams().values().cloned().collect();
        let mut scopes: HashMap<ScopeClass, Arc<Scope>> = HashMap::new();
        let mut moves = Vec::new();
        if rescope {
            for stream in &streams {
                let facts = &stream.registration.facts;
                let class = Scope::class_of(&view.committed, facts);
                if class != stream.class().name {
                    moves.push(stream);
                }
                scopes.entry(class).or_insert_with(|| Arc::new(Scope::of(&view.committed, facts)));
            }
            // Those whose sidecars are away, perhaps for a moment.
            push.classes.retain(|name, class| {
                let scope = || class.scope().under(&view.committed).map(Arc::new);
                scopes.contains_key(name)
                    || scope().is_some_and(|scope| scopes.insert(name.clone(), scope).is_none())
            });
        }
        let mut changed: HashSet<ScopeClass> = HashSet::new();
        for class in push.classes.values() {
            let scope = if rescope { scopes.get(&class.name).cloned() } else { None };
            if class.advance(&view, dirty, scope) {
                changed.insert(class.name.clone());
            }
        }
        for stream in &moves {
            let class = push.class_of(&stream.registration.facts);
            stream.move_to(class, view.committed.version);
        }
        forget_unused(&mut push.classes, &streams);
        drop(push);
        let concerned = |stream: &&Arc<super::Stream>| changed.contains(&stream.class().name);
        streams.iter().filter(concerned).for_each(|stream| stream.wake.notify_one());
    }
}

/// Drops classes that no stream uses for a while.
fn forget_unused(classes: &mut HashMap<ScopeClass, Arc<Class>>, streams: &[Arc<super::Stream>]) {
    let used: HashSet<ScopeClass> = streams.iter().map(|stream| stream.class().name.clone()).collect();
    classes.retain(|name, class| match class.used(used.contains(name)) {
        Some(since) => since.elapsed() < REMEMBERED,
        None => true,
    });
}

/// Agents of this trust domain that are revoked, as `<namespace>/<agent>`.
fn revoked(trust: &Trust, own: &TrustDomain) -> HashSet<String> {
    let ids = trust.revoked.iter().filter_map(|text| SpiffeId::parse(text).ok());
    let own = ids.filter(|id| id.trust_domain() == own);
    own.filter_map(|id| id.as_agent().map(|(namespace, name)| format!("{namespace}/{name}"))).collect()
}

/// Agents that are quarantined, as `<namespace>/<agent>`.
fn quarantined(actions: &Actions) -> HashSet<String> {
    let all = actions.actions.iter().filter(|action| action.hold == Hold::Quarantine);
    all.map(|action| action.agent.clone()).collect()
}
