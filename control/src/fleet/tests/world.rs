//! A control plane with documents made by hand, and sidecars that speak over channels.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use pilotfish_config::model::{Kind, Meta, ResourceKey, Source};
use pilotfish_config::wire::{
    Document, Endpoint, Heartbeat, Hello, Key, LONGEST_TO_SIDECAR, Ranks, Refused, Report, Resume, State,
    Status, ToControl, ToSidecar, Trust, Update, Versions, Welcome, WireError,
};
use pilotfish_config::{Model, Options, load_texts, wire};
use pilotfish_identity::{SpiffeId, TrustDomain};
use serde_json::value::RawValue;
use tokio::sync::{mpsc, watch};
use tokio::time::timeout;

use crate::fleet::{Fleet, Settings};
use crate::resources::{Committed, Stored};
use crate::store::memory::Memory;

pub(super) const DOMAIN: &str = "mesh.example";

/// Longer than the debounce, shorter than anything else.
pub(super) const QUIET: Duration = Duration::from_millis(150);

/// What a control plane works on.
pub(super) struct World {
    pub(super) store: Arc<Memory>,
    pub(super) documents: watch::Sender<Arc<Committed>>,
    pub(super) trust: watch::Sender<Arc<Trust>>,
    pub(super) actions: watch::Sender<Arc<wire::Actions>>,
}

impl World {
    pub(super) fn new() -> World {
        World {
            store: Arc::new(Memory::new()),
            documents: watch::Sender::new(Arc::new(committed(0, &[]))),
            trust: watch::Sender::new(Arc::default()),
            actions: watch::Sender::new(Arc::default()),
        }
    }

    pub(super) async fn control(&self, id: &str) -> Arc<Fleet> {
        let settings = Settings::new(id, TrustDomain::parse(DOMAIN).unwrap());
        let (documents, trust) = (self.documents.subscribe(), self.trust.subscribe());
        let actions = self.actions.subscribe();
        Fleet::follow(self.store.clone(), documents, trust, actions, settings).await.unwrap()
    }

    /// The next version of the documents.
    pub(super) fn apply(&self, documents: &[(&str, &str)]) -> u64 {
        let version = self.documents.borrow().version + 1;
        self.documents.send_replace(Arc::new(committed(version, documents)));
        version
    }

    pub(super) fn revoke(&self, agents: &[&str]) {
        let id = |agent: &&str| format!("spiffe://{DOMAIN}/ns/default/agent/{agent}");
        let trust = Trust { bundles: BTreeMap::new(), revoked: agents.iter().map(id).collect() };
        self.trust.send_replace(Arc::new(trust));
    }

    /// Holds agents of the namespace `default` to something, and no others.
    pub(super) fn hold(&self, held: &[(&str, wire::Hold)]) {
        let action = |(agent, hold): &(&str, wire::Hold)| wire::Action {
            agent: format!("default/{agent}"),
            hold: hold.clone(),
            until: None,
            since: 0,
            by: String::new(),
            why: String::new(),
        };
        self.actions.send_replace(Arc::new(wire::Actions { actions: held.iter().map(action).collect() }));
    }
}

/// Documents by name; what is in them is the JSON of a spec, their kind is the part of the name before a dot.
pub(super) fn committed(version: u64, documents: &[(&str, &str)]) -> Committed {
    let mut all = BTreeMap::new();
    let mut texts = Vec::new();
    for (name, spec) in documents {
        let kind = name.split('.').next().unwrap();
        let ours = ["AgentCluster", "AgentTemplate", "GpuPool", "Node", "RateLimit"];
        let api = if ours.contains(&kind) { "pilotfish.dev/v1" } else { "networking.istio.io/v1" };
        let named = name.replace('.', "-").to_lowercase();
        let body = format!(
            r#"{{"apiVersion":"{api}","kind":"{kind}","metadata":{{"name":"{named}","namespace":"default"}},"spec":{spec}}}"#
        );
        let key = Key { kind: kind.into(), namespace: "default".into(), name: named };
        let document = Document {
            key: key.clone(),
            source: "test.yaml:1".into(),
            body: RawValue::from_string(body.clone()).unwrap(),
        };
        texts.push(body);
        let meta = meta(&key);
        all.insert(key, Arc::new(Stored { document, digest: (*spec).to_owned(), version, meta }));
    }
    let named: Vec<(&str, &str)> = texts.iter().map(|text| ("test.yaml", text.as_str())).collect();
    let loaded = load_texts(&named, &Options::default());
    let model: Model = loaded.model.unwrap_or_else(|| panic!("{}", loaded.report));
    Committed { version, documents: Arc::new(all), model: Arc::new(model) }
}

/// Nothing here reads it.
fn meta(key: &Key) -> Meta {
    let kind = Kind::ALL.iter().find(|kind| kind.name() == key.kind).unwrap();
    let key =
        ResourceKey { kind: *kind, namespace: key.namespace.as_str().into(), name: key.name.as_str().into() };
    Meta {
        key,
        labels: BTreeMap::new(),
        annotations: BTreeMap::new(),
        source: Source { file: "test.yaml".into(), line: 1, column: 1 },
    }
}

pub(super) fn service(name: &str) -> String {
    format!(
        r#"{{"hosts":["{name}.example"],"ports":[{{"number":80,"name":"http","protocol":"HTTP"}}],"resolution":"DNS"}}"#
    )
}

pub(super) fn hello(agent: &str, number: u32) -> Hello {
    Hello {
        capacity: 0,
        versions: Versions::own(),
        agent: agent.into(),
        namespace: "default".into(),
        instance: format!("{number:032x}"),
        labels: BTreeMap::new(),
        locality: None,
        address: Some(format!("10.0.0.1:{}", 1000 + number).parse().unwrap()),
        weight: 1,
        capabilities: Vec::new(),
        status: Status::Ready,
        resume: None,
        certificate_expires: None,
        dedup_epoch: None,
        signs_chains: true,
        reading: Default::default(),
    }
}

pub(super) fn peer(agent: &str) -> SpiffeId {
    SpiffeId::parse(&format!("spiffe://{DOMAIN}/ns/default/agent/{agent}")).unwrap()
}

pub(super) fn beat(status: Status) -> Heartbeat {
    Heartbeat {
        idle_ms: None,
        usage: None,
        status,
        detail: None,
        in_flight: 0,
        reports: Vec::new(),
        certificate_expires: None,
        limits: Vec::new(),
        edges: Vec::new(),
    }
}

/// What a sidecar holds.
#[derive(Debug, Clone, Default, PartialEq)]
pub(super) struct Held {
    pub(super) resume: Option<Resume>,
    pub(super) documents: BTreeMap<Key, String>,
    pub(super) endpoints: BTreeMap<String, Endpoint>,
    pub(super) trust: Option<Trust>,
    pub(super) actions: Option<wire::Actions>,
}

impl Held {
    pub(super) fn apply(&mut self, update: Update) {
        if update.full {
            *self = Held::default();
        }
        for key in update.documents_gone {
            self.documents.remove(&key);
        }
        for document in update.documents {
            self.documents.insert(document.key, document.body.get().to_owned());
        }
        for id in update.endpoints_gone {
            self.endpoints.remove(&id);
        }
        for endpoint in update.endpoints {
            self.endpoints.insert(endpoint.id.clone(), endpoint);
        }
        self.trust = update.trust.or(self.trust.take());
        self.actions = update.actions.or(self.actions.take());
        self.resume = Some(Resume { version: update.version, digest: update.digest });
    }
}

/// A simulated sidecar with an open stream.
pub(super) struct Sidecar {
    pub(super) id: String,
    pub(super) held: Held,
    to: mpsc::Sender<Result<ToControl, WireError>>,
    from: mpsc::Receiver<Bytes>,
}

impl Sidecar {
    /// Opens a stream; the hello is sent, nothing is read yet.
    pub(super) async fn open(fleet: &Arc<Fleet>, peer: SpiffeId, hello: Hello) -> Sidecar {
        let (to, incoming) = mpsc::channel(1);
        let (outgoing, from) = mpsc::channel(1);
        let fleet = fleet.clone();
        tokio::spawn(async move { fleet.serve(peer, incoming, outgoing).await });
        let id = format!("{}/{}/{}", hello.namespace, hello.agent, hello.instance);
        let sidecar = Sidecar { id, held: Held::default(), to, from };
        sidecar.send(ToControl::Hello(Box::new(hello))).await;
        sidecar
    }

    /// Connects, and takes the first update.
    pub(super) async fn connect(fleet: &Arc<Fleet>, agent: &str, number: u32) -> Sidecar {
        let mut sidecar = Sidecar::open(fleet, peer(agent), hello(agent, number)).await;
        sidecar.welcome().await;
        let first = sidecar.update().await;
        assert!(first.full);
        sidecar
    }

    pub(super) async fn send(&self, message: ToControl) {
        let _ = self.to.send(Ok(message)).await;
    }

    pub(super) async fn send_garbage(&self) {
        let _ = self.to.send(Err(WireError::NotAMessage("garbage".into()))).await;
    }

    pub(super) async fn beat(&self, status: Status) {
        self.send(ToControl::Heartbeat(beat(status))).await;
    }

    pub(super) async fn report(&self, reports: Vec<Report>) {
        let heartbeat = Heartbeat { reports, ..beat(Status::Ready) };
        self.send(ToControl::Heartbeat(heartbeat)).await;
    }

    /// It serves what it holds.
    pub(super) async fn serves(&self) {
        let version = self.held.resume.as_ref().map_or(0, |resume| resume.version);
        self.send(ToControl::State(State { accepted: version, serving: version, refused: None })).await;
    }

    /// The next message within two seconds; `None` when there is none, or the stream ended.
    pub(super) async fn next(&mut self) -> Option<ToSidecar> {
        let bytes = timeout(Duration::from_secs(2), self.from.recv()).await.ok()??;
        let mut frames = wire::Frames::new(LONGEST_TO_SIDECAR);
        frames.push(&bytes);
        Some(frames.next().unwrap().unwrap())
    }

    /// The next message, when there is one already.
    pub(super) async fn now(&mut self) -> Option<ToSidecar> {
        let bytes = timeout(Duration::from_millis(1), self.from.recv()).await.ok()??;
        let mut frames = wire::Frames::new(LONGEST_TO_SIDECAR);
        frames.push(&bytes);
        Some(frames.next().unwrap().unwrap())
    }

    /// Whether the stream ended.
    pub(super) async fn is_ended(&mut self) -> bool {
        matches!(timeout(Duration::from_secs(2), self.from.recv()).await, Ok(None))
    }

    pub(super) async fn welcome(&mut self) -> Welcome {
        match self.next().await {
            Some(ToSidecar::Welcome(welcome)) => welcome,
            other => panic!("no welcome: {other:?}"),
        }
    }

    /// The next update, which is applied.
    pub(super) async fn update(&mut self) -> Update {
        match self.next().await {
            Some(ToSidecar::Update(update)) => {
                self.held.apply((*update).clone());
                *update
            }
            other => panic!("no update: {other:?}"),
        }
    }

    pub(super) async fn refused(&mut self) -> Refused {
        match self.next().await {
            Some(ToSidecar::Refused(refused)) => refused,
            other => panic!("not refused: {other:?}"),
        }
    }

    pub(super) async fn ranks(&mut self) -> Ranks {
        match self.next().await {
            Some(ToSidecar::Ranks(ranks)) => ranks,
            other => panic!("no ranks: {other:?}"),
        }
    }

    /// Applies updates until nothing comes any more.
    pub(super) async fn settle(&mut self) {
        while let Some(message) = self.next().await {
            if let ToSidecar::Update(update) = message {
                self.held.apply(*update);
            }
        }
    }

    pub(super) fn endpoints(&self) -> Vec<&str> {
        self.held.endpoints.keys().map(String::as_str).collect()
    }
}

pub(super) async fn pass(time: Duration) {
    tokio::time::sleep(time).await;
}

/// Sends heartbeats for `seconds`.
pub(super) async fn live(sidecars: &[&Sidecar], seconds: u64) {
    for _ in 0..seconds {
        for sidecar in sidecars {
            sidecar.beat(Status::Ready).await;
        }
        pass(Duration::from_secs(1)).await;
    }
}
