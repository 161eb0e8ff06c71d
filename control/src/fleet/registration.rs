//! One instance of an agent: what its sidecar said of it, how it is, and how that is kept in the store.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use pilotfish_config::wire::node::Usage;
use pilotfish_config::wire::{Endpoint, Heartbeat, Hello, Reading, Status};
use serde::{Deserialize, Serialize};

use super::hello;

/// What a registration says that does not change while it holds. This is also what the store keeps of it, as JSON.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(super) struct Facts {
    pub(super) agent: String,
    pub(super) namespace: String,
    pub(super) instance: String,
    #[serde(default)]
    pub(super) labels: BTreeMap<String, String>,
    #[serde(default)]
    pub(super) locality: Option<String>,
    #[serde(default)]
    pub(super) address: Option<SocketAddr>,
    pub(super) weight: u32,
    #[serde(default)]
    pub(super) capabilities: Vec<String>,
    #[serde(default)]
    pub(super) build: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) dedup_epoch: Option<String>,
    #[serde(default, skip_serializing_if = "is_zero")]
    pub(super) capacity: u32,
    #[serde(default)]
    pub(super) signs_chains: bool,
    #[serde(default, skip_serializing_if = "Reading::is_usual")]
    pub(super) reading: Reading,
}

#[allow(clippy::trivially_copy_pass_by_ref, reason = "serde's signature")]
fn is_zero(number: &u32) -> bool {
    *number == 0
}

/// A registration as the store keeps it: `endpoint/<namespace>/<agent>/<instance>`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(super) struct Record {
    /// The control plane that its sidecar is connected to, or was last.
    pub(super) owner: String,
    /// Counts up with each stream that brought it, over all control planes: the newest is right.
    pub(super) claim: u64,
    pub(super) status: Status,
    #[serde(default)]
    pub(super) certificate_expires: Option<u64>,
    #[serde(flatten)]
    pub(super) facts: Facts,
}

/// What changes while a registration holds.
#[derive(Debug, Clone)]
pub(super) struct Live {
    pub(super) owner: Arc<str>,
    pub(super) status: Status,
    pub(super) detail: Option<String>,
    pub(super) in_flight: u32,
    /// How long it had had no call, milliseconds, and when that was said, milliseconds since the fleet started.
    pub(super) idle: Option<(u64, u64)>,
    /// What its agent uses.
    pub(super) usage: Option<Usage>,
    pub(super) certificate_expires: Option<u64>,
}

impl Live {
    /// Milliseconds without a call, as was said, and the time since.
    pub(super) fn idle_at(&self, now: u64) -> Option<u64> {
        let (idle, said) = self.idle?;
        Some(if self.in_flight > 0 { 0 } else { idle.saturating_add(now.saturating_sub(said)) })
    }
}

/// One instance of an agent.
#[derive(Debug)]
pub(super) struct Registration {
    /// `<namespace>/<agent>/<instance>`.
    pub(super) id: Arc<str>,
    pub(super) facts: Facts,
    pub(super) claim: u64,
    live: Mutex<Live>,
    /// Milliseconds since the fleet started: the newest sign of life.
    heard: AtomicU64,
    /// The stream that it came by; 0 for one that came from the store.
    pub(super) stream: u64,
}

/// What a heartbeat changed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Beat {
    /// The status before.
    pub(super) before: Status,
    /// The status now.
    pub(super) now: Status,
    /// Whether what the store keeps of it is different.
    pub(super) stored_differs: bool,
}

impl Facts {
    /// What a hello says, which was checked.
    pub(super) fn of(hello: &Hello) -> Facts {
        Facts {
            agent: hello.agent.clone(),
            namespace: hello.namespace.clone(),
            instance: hello.instance.clone(),
            labels: hello.labels.clone(),
            locality: hello.locality.clone().filter(|locality| !locality.is_empty()),
            address: hello.address,
            weight: hello.weight,
            capabilities: hello.capabilities.clone(),
            build: hello::text(&hello.versions.build),
            dedup_epoch: hello.dedup_epoch.clone(),
            capacity: hello.capacity,
            signs_chains: hello.signs_chains,
            reading: hello.reading,
        }
    }

    /// `<namespace>/<agent>`.
    pub(super) fn agent(&self) -> String {
        format!("{}/{}", self.namespace, self.agent)
    }

    /// `<namespace>/<agent>/<instance>`.
    pub(super) fn id(&self) -> String {
        format!("{}/{}/{}", self.namespace, self.agent, self.instance)
    }
}

impl Registration {
    /// One that its sidecar brings by the stream of this number.
    pub(super) fn arriving(
        hello: &Hello,
        owner: &Arc<str>,
        claim: u64,
        stream: u64,
        now: u64,
    ) -> Registration {
        let facts = Facts::of(hello);
        let live = Live {
            owner: owner.clone(),
            status: hello.status,
            detail: None,
            in_flight: 0,
            idle: None,
            usage: None,
            certificate_expires: hello.certificate_expires,
        };
        Registration {
            id: facts.id().into(),
            facts,
            claim,
            live: Mutex::new(live),
            heard: now.into(),
            stream,
        }
    }

    /// One that the store holds.
    pub(super) fn stored(record: Record, now: u64) -> Registration {
        let live = Live {
            owner: record.owner.into(),
            status: record.status,
            detail: None,
            in_flight: 0,
            idle: None,
            usage: None,
            certificate_expires: record.certificate_expires,
        };
        Registration {
            id: record.facts.id().into(),
            facts: record.facts,
            claim: record.claim,
            live: Mutex::new(live),
            heard: now.into(),
            stream: 0,
        }
    }

    /// What the store should hold.
    pub(super) fn record(&self) -> Record {
        let live = self.live();
        Record {
            owner: live.owner.to_string(),
            claim: self.claim,
            status: live.status,
            certificate_expires: live.certificate_expires,
            facts: self.facts.clone(),
        }
    }

    /// What changes.
    pub(super) fn live(&self) -> MutexGuard<'_, Live> {
        self.live.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// When it was last heard, milliseconds since the fleet started.
    pub(super) fn heard(&self) -> u64 {
        self.heard.load(Relaxed)
    }

    /// It was heard now.
    pub(super) fn hear(&self, now: u64) {
        self.heard.fetch_max(now, Relaxed);
    }

    /// Takes a heartbeat in.
    pub(super) fn beat(&self, heartbeat: &Heartbeat, now: u64) -> Beat {
        self.hear(now);
        let mut live = self.live();
        let before = live.status;
        // An agent that said that it ends does not come back: a new process has a new instance.
        if before != Status::Draining {
            live.status = heartbeat.status;
        }
        let detail = heartbeat.detail.as_deref();
        if live.detail.as_deref() != detail {
            live.detail = detail.map(hello::text);
        }
        live.in_flight = heartbeat.in_flight;
        live.idle = heartbeat.idle_ms.map(|idle| (idle, now));
        live.usage = heartbeat.usage.or(live.usage);
        let expires = heartbeat.certificate_expires.or(live.certificate_expires);
        let stored_differs = live.status != before || expires != live.certificate_expires;
        live.certificate_expires = expires;
        Beat { before, now: live.status, stored_differs }
    }

    /// What sidecars get of it, when it may be chosen: `further` are capabilities that documents give it.
    pub(super) fn endpoint(&self, status: Status, further: &[String]) -> Option<Endpoint> {
        let address = self.facts.address.filter(|_| status.is_routable())?;
        Some(Endpoint {
            id: self.id.to_string(),
            agent: self.facts.agent.clone(),
            namespace: self.facts.namespace.clone(),
            trust_domain: None,
            address,
            labels: self.facts.labels.clone(),
            locality: self.facts.locality.clone(),
            weight: self.facts.weight,
            capabilities: self.capabilities(further),
            status,
            dedup_epoch: self.facts.dedup_epoch.clone(),
            capacity: self.facts.capacity,
        })
    }

    /// Its own capabilities and those that documents give it.
    pub(super) fn capabilities(&self, further: &[String]) -> Vec<String> {
        let mut all: Vec<String> = self.facts.capabilities.iter().chain(further).cloned().collect();
        all.sort_unstable();
        all.dedup();
        all
    }
}
