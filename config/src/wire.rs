//! What the control plane and a sidecar say to each other: messages, and the frames that carry them.
//!
//! One stream for each sidecar, a `POST /v1/stream` over HTTP/2 whose bodies are frames in both directions: four bytes of
//! length (big-endian), then one JSON object. A reader ignores fields and message types that it does not know, so
//! minor versions mix; another major version is refused by the hello.

mod action;
mod audit;
mod frames;
pub mod node;
mod reading;
mod telemetry;
mod why;

use std::collections::BTreeMap;
use std::fmt;
use std::net::SocketAddr;

use serde::{Deserialize, Deserializer, Serialize};
use serde_json::value::RawValue;

pub use action::{Action, Actions, Hold};
pub use audit::{AuditBatch, AuditRecord, AuditTaken, AuditWhat};
pub use frames::{Frames, WireError, frame};
use frames::{Tagged, read};
pub use reading::{Normalization, Reading};
pub use telemetry::{
    EDGE_BOUNDS, Edge, MOST_TAPPED, MOST_TAPS, MOST_TRACES, Tap, Tapped, TappedCall, Taps, Traces,
};
pub use why::{
    Account, ActsFor, Answered, Attempt, Candidate, Choice, Explained, LONGEST_EXPLAINED, MOST_ACCOUNTS,
    PassedOver, RunnerUp, StageTimes, StartedFor, Why,
};

/// The version of the protocol; one that differs is refused.
pub const MAJOR: u16 = 1;
/// Counts up with each addition; any other is served.
pub const MINOR: u16 = 4;
/// The longest frame that a control plane takes from a sidecar, in bytes.
pub const LONGEST_TO_CONTROL: usize = 4 << 20;
/// The longest frame that a sidecar takes from its control plane, in bytes.
pub const LONGEST_TO_SIDECAR: usize = 256 << 20;

/// From a sidecar to its control plane. The first message is a [`ToControl::Hello`].
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "kebab-case")]
pub enum ToControl {
    /// Who it is, and what it has.
    Hello(Box<Hello>),
    /// What became of the newest update.
    State(State),
    /// It lives; comes every third of the lease.
    Heartbeat(Heartbeat),
    /// Traces of calls that failed or were slow here and that are not sampled: the other sidecars are asked what they know.
    Partial(Traces),
    /// Calls that somebody looks at.
    Tapped(Tapped),
    /// What it remembers of calls that it was asked for.
    Answered(Answered),
    /// Calls wait for agents that are started on demand.
    Asked(node::Asked),
    /// Records of the audit log; answered by [`ToSidecar::AuditTaken`].
    Audit(AuditBatch),
    /// Something of a later minor version.
    #[serde(other)]
    Unknown,
}

/// From the control plane to a sidecar. The first message is a [`ToSidecar::Welcome`] or [`ToSidecar::Refused`].
#[derive(Debug, Clone, Serialize)]
#[serde(tag = "type", rename_all = "kebab-case")]
pub enum ToSidecar {
    /// The hello was taken.
    Welcome(Welcome),
    /// What changed.
    Update(Box<Update>),
    /// What other sidecars measured.
    Ranks(Ranks),
    /// Its slices of rate limits of the whole fleet.
    Shares(Shares),
    /// Traces that are not sampled, of which the sidecar is to send what it knows.
    Recall(Traces),
    /// Who looks at calls: everybody who does, whenever that changes.
    Taps(Taps),
    /// Why did these calls go as they did?
    Why(Why),
    /// An agent that calls wait for will not come soon.
    NotStarted(node::NotStarted),
    /// Records of the audit log are stored.
    AuditTaken(AuditTaken),
    /// No sidecar chooses this one any more: the answer to the status [`Status::Draining`].
    Drained {},
    /// Not served; the stream ends.
    Refused(Refused),
    /// Something of a later minor version.
    Unknown,
}

/// By hand: what serde derives for a tagged enum keeps values in a form of its own, which has no place for the text of
/// documents. So the type is read first, then the message. Works on text and bytes, as frames are, not on streams.
impl<'de> Deserialize<'de> for ToSidecar {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let Tagged { kind, text } = Tagged::read(deserializer)?;
        Ok(match &*kind {
            "welcome" => ToSidecar::Welcome(read(text)?),
            "update" => ToSidecar::Update(read(text)?),
            "ranks" => ToSidecar::Ranks(read(text)?),
            "shares" => ToSidecar::Shares(read(text)?),
            "recall" => ToSidecar::Recall(read(text)?),
            "taps" => ToSidecar::Taps(read(text)?),
            "why" => ToSidecar::Why(read(text)?),
            "not-started" => ToSidecar::NotStarted(read(text)?),
            "audit-taken" => ToSidecar::AuditTaken(read(text)?),
            "drained" => ToSidecar::Drained {},
            "refused" => ToSidecar::Refused(read(text)?),
            _ => ToSidecar::Unknown,
        })
    }
}

/// Versions of protocol and program.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Versions {
    /// [`MAJOR`] of the sender.
    pub major: u16,
    /// [`MINOR`] of the sender.
    pub minor: u16,
    /// The program's version, for people.
    pub build: String,
}

impl Versions {
    /// This build's.
    pub fn own() -> Versions {
        Versions { major: MAJOR, minor: MINOR, build: env!("CARGO_PKG_VERSION").to_owned() }
    }
}

/// A sidecar introduces itself. Agent and namespace must be those of its certificate.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Hello {
    /// Its versions.
    pub versions: Versions,
    /// The agent's name.
    pub agent: String,
    /// The agent's namespace.
    pub namespace: String,
    /// This process, unique and new with each start: 32 hexadecimal digits.
    pub instance: String,
    /// Labels of the workload.
    #[serde(default)]
    pub labels: BTreeMap<String, String>,
    /// `region/zone/subzone`.
    #[serde(default)]
    pub locality: Option<String>,
    /// What others should connect to: its inbound listener. None: it calls others only.
    #[serde(default)]
    pub address: Option<SocketAddr>,
    /// Its share relative to other instances of its agent; 1 by default.
    #[serde(default = "one")]
    pub weight: u32,
    /// What the agent is able to do besides what AgentCluster documents say: `name` or `name@version`.
    #[serde(default)]
    pub capabilities: Vec<String>,
    /// How it is.
    pub status: Status,
    /// What it has from an earlier stream; then only what differs is sent, if the control plane still knows that state.
    #[serde(default)]
    pub resume: Option<Resume>,
    /// When its certificate ends, seconds since 1970.
    #[serde(default)]
    pub certificate_expires: Option<u64>,
    /// Which window its deduplication has, new with each start: 32 hexadecimal digits. None: it does not deduplicate.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub dedup_epoch: Option<String>,
    /// Calls that the agent takes at a time; 0: no limit.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub capacity: u32,
    /// It signs the chain of who asked whom with each call. Sidecars from before there was one do not say so.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub signs_chains: bool,
    /// How it reads and decides, when its flags say something else than usual.
    #[serde(default, skip_serializing_if = "Reading::is_usual")]
    pub reading: Reading,
}

fn one() -> u32 {
    1
}

#[allow(clippy::trivially_copy_pass_by_ref, reason = "serde's signature")]
fn is_zero(number: &u32) -> bool {
    *number == 0
}

/// A state that a sidecar holds.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Resume {
    /// Its version.
    pub version: u64,
    /// [`Update::digest`] of it.
    pub digest: String,
}

/// How an agent is. Only `ready` and `degraded` ones are chosen.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Status {
    /// It has not passed its first health check.
    #[default]
    Initializing,
    /// It serves.
    Ready,
    /// It serves, and says that it is not well: chosen only when no other is ready.
    Degraded,
    /// It is about to end: finishes what it has.
    Draining,
    /// Taken out by an operator or by revocation.
    Quarantined,
}

impl Status {
    /// The word in tables and JSON.
    pub const fn word(self) -> &'static str {
        match self {
            Status::Initializing => "initializing",
            Status::Ready => "ready",
            Status::Degraded => "degraded",
            Status::Draining => "draining",
            Status::Quarantined => "quarantined",
        }
    }

    /// Whether sidecars may send calls to it.
    pub const fn is_routable(self) -> bool {
        matches!(self, Status::Ready | Status::Degraded)
    }
}

/// What became of updates.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct State {
    /// The newest version that was validated and compiled; it is on disk within a second.
    pub accepted: u64,
    /// The newest version that every worker serves.
    pub serving: u64,
    /// The newest version that was refused, until a later one is accepted.
    #[serde(default)]
    pub refused: Option<RefusedVersion>,
}

/// A version that a sidecar does not take; the last good one goes on serving.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RefusedVersion {
    /// Which.
    pub version: u64,
    /// Why, one reason a line.
    pub reasons: Vec<String>,
}

/// Proof of life, and what was measured since the last one.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct Heartbeat {
    /// How the agent is.
    pub status: Status,
    /// Why, when that is not `ready`; for people.
    #[serde(default)]
    pub detail: Option<String>,
    /// Calls in flight to the local agent.
    #[serde(default)]
    pub in_flight: u32,
    /// Endpoints that it measured since the last report, at most once a second.
    #[serde(default)]
    pub reports: Vec<Report>,
    /// When its certificate ends, seconds since 1970.
    #[serde(default)]
    pub certificate_expires: Option<u64>,
    /// What was used of rate limits of the whole fleet; twice a second while any is used, and at once when a slice changed.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub limits: Vec<LimitUse>,
    /// Calls between agents since the last report, at most once in 5 s; only those of which there were some.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub edges: Vec<Edge>,
    /// How long no call of the local agent's has been in flight, milliseconds; 0 while one is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub idle_ms: Option<u64>,
    /// What the agent uses, when the sidecar supervises it; every 5 s.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub usage: Option<node::Usage>,
}

/// What one sidecar used of a rate limit since its last report of it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LimitUse {
    /// `<namespace>/<name>` of the RateLimit.
    pub name: String,
    /// Calls that it admitted.
    pub used: u32,
    /// Calls that it admitted or refused.
    pub wanted: u32,
    /// Milliseconds that the report is about.
    pub over_ms: u32,
    /// The slice that it keeps now, in millionths of the whole.
    pub share: u32,
    /// [`Share::turn`] of the newest slice that came by this stream; 0 before any.
    #[serde(default)]
    pub turn: u32,
}

/// What one sidecar measured of one endpoint.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Report {
    /// [`Endpoint::id`].
    pub endpoint: String,
    /// Peak-EWMA latency, microseconds.
    pub latency_us: u64,
    /// Recent share of calls that succeeded, 0 to 1.
    pub success: f32,
    /// Calls in flight from this sidecar.
    pub in_flight: u32,
    /// Calls since the last report.
    pub calls: u32,
    /// Why no calls go there, when none do; told again every 5 s while it lasts.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub health: Option<EndpointHealth>,
}

/// How an endpoint is that a sidecar sends no calls to.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct EndpointHealth {
    /// In one word: `ejected`, `breaker-open`, `check-failed`, `unreachable`, `probing`.
    pub state: String,
    /// Why, for people.
    pub reason: String,
}

/// The answer to a hello that is taken.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Welcome {
    /// Its versions.
    pub versions: Versions,
    /// Which control plane this is, for people.
    pub control: String,
    /// The trust domain.
    pub trust_domain: String,
    /// How long the registration holds without a heartbeat, milliseconds (10,000 by default).
    pub lease_ms: u64,
    /// How often a heartbeat has to come, milliseconds: a third of the lease.
    pub heartbeat_ms: u64,
}

/// What a sidecar has to serve from now on: everything, or what differs from the version before.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Update {
    /// The version that this leads to. Counts up; means the same on every control plane of a store.
    pub version: u64,
    /// Digest of the whole state that this leads to ([`Resume`]).
    pub digest: String,
    /// Whether this is everything; else what is not named stays.
    pub full: bool,
    /// Documents, new or changed.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub documents: Vec<Document>,
    /// Documents that are gone.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub documents_gone: Vec<Key>,
    /// Endpoints, new or changed.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub endpoints: Vec<Endpoint>,
    /// Endpoints that are gone, by [`Endpoint::id`].
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub endpoints_gone: Vec<String>,
    /// Whom to trust, and whom no more; whole whenever it is there.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub trust: Option<Trust>,
    /// Agents that are held to something; whole whenever it is there.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub actions: Option<Actions>,
}

/// What makes a document unique.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Key {
    /// The kind's name.
    pub kind: String,
    /// Its namespace.
    pub namespace: String,
    /// Its name.
    pub name: String,
}

impl fmt::Display for Key {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "{} {}/{}", self.kind, self.namespace, self.name)
    }
}

/// An admitted document.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Document {
    /// What it is.
    pub key: Key,
    /// Where its author wrote it, `routes.yaml:12`; for messages.
    #[serde(default)]
    pub source: String,
    /// The document itself as JSON, with apiVersion, kind, metadata and spec.
    pub body: Box<RawValue>,
}

/// One address of one agent: a registration that other sidecars may choose.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Endpoint {
    /// `<namespace>/<agent>/<instance>`.
    pub id: String,
    /// The agent.
    pub agent: String,
    /// Its namespace.
    pub namespace: String,
    /// Whose certificate it has, when that is not the receiver's own trust domain.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub trust_domain: Option<String>,
    /// Its sidecar's inbound listener.
    pub address: SocketAddr,
    /// Labels.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub labels: BTreeMap<String, String>,
    /// `region/zone/subzone`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub locality: Option<String>,
    /// Its share.
    #[serde(default = "one")]
    pub weight: u32,
    /// What it is able to do, AgentCluster documents included: `name` or `name@version`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub capabilities: Vec<String>,
    /// [`Status::Ready`] or [`Status::Degraded`]; others are not sent.
    pub status: Status,
    /// [`Hello::capacity`].
    #[serde(default, skip_serializing_if = "is_zero")]
    pub capacity: u32,
    /// [`Hello::dedup_epoch`].
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub dedup_epoch: Option<String>,
}

/// Whom to trust.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Trust {
    /// Root certificates (PEM, one or more in a text) by trust domain; the own one and federated ones.
    pub bundles: BTreeMap<String, String>,
    /// SPIFFE IDs whose certificates are not taken any more.
    #[serde(default)]
    pub revoked: Vec<String>,
}

/// What others measured of endpoints; outweighed by the receiver's own measurements.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Ranks {
    /// Only those that changed meaningfully.
    pub ranks: Vec<Rank>,
}

/// What all sidecars together measured of one endpoint.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Rank {
    /// [`Endpoint::id`].
    pub endpoint: String,
    /// Microseconds.
    pub latency_us: u64,
    /// 0 to 1.
    pub success: f32,
    /// Calls in flight at the endpoint.
    pub in_flight: u32,
}

/// Slices of rate limits; those that are not named stay. They hold until others come, also without a control plane.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Shares {
    /// Each limit once.
    pub shares: Vec<Share>,
}

/// A sidecar's slice of a rate limit.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Share {
    /// `<namespace>/<name>` of the RateLimit.
    pub name: String,
    /// In millionths of the whole; those of all sidecars are a million at most.
    pub share: u32,
    /// Counts up with each slice of this limit, from 1: what the sidecar says of it tells which one it has.
    pub turn: u32,
}

/// Why a stream is not served.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Refused {
    /// For people: what is wrong and what to do.
    pub reason: String,
    /// Whether the same hello may succeed later.
    pub retry: bool,
}

/// A sidecar wants an identity for its token.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Join {
    /// The token's secret part.
    pub token: String,
    /// The agent's name; the token must be for it.
    pub agent: String,
    /// Its namespace.
    pub namespace: String,
    /// A certificate signing request, PEM; its key never leaves the sidecar.
    pub csr: String,
    /// A node joins, whose name is in `agent`; `namespace` is empty.
    #[serde(default)]
    pub node: bool,
}

/// A sidecar wants a new certificate; it authenticates by its current one.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Renew {
    /// A certificate signing request, PEM.
    pub csr: String,
}

/// An identity.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Joined {
    /// The leaf and its intermediates, PEM.
    pub chain: String,
    /// Roots by trust domain, PEM.
    pub bundles: BTreeMap<String, String>,
    /// The SPIFFE ID.
    pub id: String,
    /// When the certificate ends, seconds since 1970.
    pub expires: u64,
}

/// Why a request was refused.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct Failure {
    /// One sentence: what is wrong and what to do.
    pub error: String,
    /// Errors and warnings of documents, as `file:line:column: error: ...`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub diagnostics: Vec<String>,
}

#[cfg(test)]
mod tests {
    use serde::de::DeserializeOwned;

    use super::*;

    /// What a reader makes of this frame.
    fn read<T: DeserializeOwned>(bytes: &[u8]) -> Result<Option<T>, WireError> {
        let mut frames = Frames::new(LONGEST_TO_CONTROL);
        frames.push(bytes);
        frames.next()
    }

    #[test]
    fn what_a_control_plane_sends_reads_back() {
        let body = RawValue::from_string(r#"{"spec": {"x":1.50}}"#.into()).unwrap();
        let key = Key { kind: "K".into(), namespace: "n".into(), name: "x".into() };
        let update = Update {
            version: 3,
            digest: "d".into(),
            full: false,
            documents: vec![Document { key, source: "a.yaml:1".into(), body }],
            documents_gone: Vec::new(),
            endpoints: Vec::new(),
            endpoints_gone: vec!["e".into()],
            trust: None,
            actions: None,
        };
        let sent = frame(&ToSidecar::Update(Box::new(update))).unwrap();
        let Some(ToSidecar::Update(read)) = self::read(&sent).unwrap() else { panic!("no update") };
        assert_eq!(
            read.documents[0].body.get(),
            r#"{"spec": {"x":1.50}}"#,
            "a document's text stays as it is"
        );
        assert_eq!((read.version, read.endpoints_gone), (3, vec!["e".to_owned()]));
        let sent = frame(&ToSidecar::Drained {}).unwrap();
        assert!(matches!(self::read(&sent), Ok(Some(ToSidecar::Drained {}))));
    }

    #[test]
    fn later_messages_are_passed_over_and_bad_ones_refused() {
        let with = |text: &str| {
            let length = u32::try_from(text.len()).unwrap().to_be_bytes();
            read::<ToSidecar>(&[&length, text.as_bytes()].concat())
        };
        assert!(matches!(with(r#"{"type":"later","x":[1]}"#), Ok(Some(ToSidecar::Unknown))));
        assert!(matches!(
            with(r#"{"type":"refused","reason":"r","retry":true,"later":1}"#),
            Ok(Some(ToSidecar::Refused(_)))
        ));
        for bad in ["", "[]", "{}", "{\"type\":7}", r#"{"type":"update"}"#, r#"{"type":"drained""#] {
            assert!(matches!(with(bad), Err(WireError::NotAMessage(_))), "{bad}");
        }
    }
}
