//! The workloads: what each asks of a proxy, and of which proxies.

use std::collections::BTreeMap;

use crate::peers::{BIG_RING, BIG_TABLE, Peer, SMALL_TABLE, Setup};
use crate::policies;

/// A piece of work that proxies are compared on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Work {
    /// HTTP/1.1 keep-alive, 1 KiB answers.
    H1,
    /// The same through tables and rings of two sizes.
    Table,
    /// 1 MiB answers.
    Body,
    /// HTTP/2 in, HTTP/1.1 out.
    H2c,
    /// Consistent hash over 100 endpoints.
    Hash,
    /// Open loop at a fixed rate.
    Latency,
    /// Event streams.
    Events,
    /// Memory of a proxy with nothing to do.
    Idle,
    /// A new table of 10,000 rules while requests run.
    Reload,
    /// Two processes with mutual TLS between them.
    Mesh,
    /// New mutual TLS connections to the inbound one.
    Handshakes,
    /// The control plane under a fleet of simulated sidecars.
    Fleet,
    /// The control plane under a fleet of simulated nodes.
    Nodes,
    /// From `pilotfish apply` to the first answer of a new process agent.
    Start,
    /// Where replicas go.
    Placement,
    /// Every policy of resilience on a route that needs none of them.
    Policies,
    /// Telling nothing, a trace in a hundred, every trace.
    Telemetry,
    /// A thousand rules about callers, and a record of each decision.
    Authz,
    /// Ten thousand roles to a sidecar.
    Roles,
    /// Tokens of callers.
    Tokens,
    /// Spans into the control plane's trace store, and searches in it.
    Spans,
    /// One of ten endpoints answers 500.
    Failing,
    /// One of ten endpoints is 20 times slower.
    Slow,
    /// All endpoints fail, and calls are tried again.
    Storm,
    /// An agent is asked for three times what it can do.
    Overload,
}

/// What was measured, by name.
pub type Values = BTreeMap<String, f64>;

impl Work {
    /// All of them, in the order in which they run.
    pub const ALL: [Self; 25] = [
        Self::H1,
        Self::Table,
        Self::Body,
        Self::H2c,
        Self::Hash,
        Self::Latency,
        Self::Events,
        Self::Idle,
        Self::Reload,
        Self::Mesh,
        Self::Handshakes,
        Self::Fleet,
        Self::Nodes,
        Self::Start,
        Self::Placement,
        Self::Policies,
        Self::Telemetry,
        Self::Authz,
        Self::Roles,
        Self::Tokens,
        Self::Spans,
        Self::Failing,
        Self::Slow,
        Self::Storm,
        Self::Overload,
    ];

    /// Its name on the command line and in files.
    pub fn name(self) -> &'static str {
        match self {
            Self::H1 => "h1",
            Self::Table => "table",
            Self::Body => "body",
            Self::H2c => "h2c",
            Self::Hash => "hash",
            Self::Latency => "latency",
            Self::Events => "events",
            Self::Idle => "idle",
            Self::Reload => "reload",
            Self::Mesh => "mesh",
            Self::Handshakes => "handshakes",
            Self::Fleet => "fleet",
            Self::Nodes => "nodes",
            Self::Start => "start",
            Self::Placement => "placement",
            Self::Policies => "policies",
            Self::Telemetry => "telemetry",
            Self::Authz => "authz",
            Self::Roles => "roles",
            Self::Tokens => "tokens",
            Self::Spans => "spans",
            Self::Failing => "failing",
            Self::Slow => "slow",
            Self::Storm => "storm",
            Self::Overload => "overload",
        }
    }

    /// What it is, in a line.
    pub fn title(self) -> &'static str {
        match self {
            Self::H1 => "HTTP/1.1 keep-alive, 64 connections, 1 KiB answers",
            Self::Table => {
                "the same; 10 rules and 10 endpoints against 10,000 rules and 1,000 endpoints in a hash ring"
            }
            Self::Body => "1 MiB answers, 16 connections (a request is a MiB)",
            Self::H2c => "HTTP/2 cleartext (8 connections, 8 streams each) to HTTP/1.1, 1 KiB answers",
            Self::Hash => "consistent hash on a header, 10,000 keys over 100 endpoints, 64 connections",
            Self::Latency => "open loop, Poisson arrivals, 8,000 requests/s, latency from the intended start",
            Self::Events => {
                "event streams, 500 at once, 200-byte events (a request is an event; latency is write to read)"
            }
            Self::Idle => "memory: at the start, and for each of 5,000 connections that went idle",
            Self::Reload => "a table of 10,000 rules rewritten under 2,000 requests/s",
            Self::Mesh => {
                "client, sidecar, mutual TLS 1.3, sidecar, agent: HTTP/1.1 keep-alive, 64 connections, 1 KiB (CPU of both processes)"
            }
            Self::Handshakes => {
                "new mutual TLS 1.3 connections, both sides verified, none resumed, 16 at a time (a request is a connection)"
            }
            Self::Fleet => {
                "control plane: one route to 1,000 sidecars; heartbeats of 10,000; one endpoint more among 10,000"
            }
            Self::Nodes => {
                "control plane: 10,000 replicas ordered on 1,000 nodes with 4,000 cards; what the leases of all of them cost"
            }
            Self::Start => {
                "from `pilotfish apply` to the first answer of an agent that it starts; an agent started by a call"
            }
            Self::Placement => "where 10,000 replicas go, and how full cards get (`placement --help`)",
            Self::Policies => "HTTP/1.1 keep-alive, 64 connections, 1 KiB: every policy against none",
            Self::Telemetry => {
                "HTTP/1.1 keep-alive, 64 connections, 1 KiB: metrics and 1 % of traces, every trace, against nothing told"
            }
            Self::Authz => {
                "inbound sidecar, mutual TLS: 100 AuthorizationPolicies with 1,000 rules, and an audit record of each call, against none (its CPU alone)"
            }
            Self::Roles => "10,000 roles from the store until a sidecar decides by them",
            Self::Tokens => "a caller's token: seen before, and new (one thread, no sockets)",
            Self::Spans => {
                "control plane: 50,000 spans/s by OTLP over HTTP for a minute (a request is a span); searches over a million"
            }
            Self::Failing => "one of ten endpoints answers 500; 1,500 requests/s from a cold start",
            Self::Slow => "ten endpoints of 5 ms, then one of them of 100 ms; 1,500 requests/s",
            Self::Storm => "all endpoints answer 503, five attempts allowed; 64 connections",
            Self::Overload => {
                "an agent of 1,600 calls/s is asked for 4,800/s, a tenth of them critical; an answer after 1 s is useless"
            }
        }
    }

    /// Who takes part.
    pub fn peers(self) -> &'static [Peer] {
        use Peer::{
            Direct, Envoy, Haproxy, HaproxyH2, HaproxySplice, Nginx, Pilotfish, PilotfishBig, Pingora,
        };
        match self {
            Self::H1 => &[Pilotfish, Haproxy, Nginx, Pingora, Envoy],
            Self::Table => &[Pilotfish, PilotfishBig],
            Self::Body => &[Pilotfish, Haproxy, HaproxySplice, Nginx, Pingora, Envoy],
            Self::H2c | Self::Hash | Self::Idle => &[Pilotfish, Haproxy, Nginx, Pingora, Envoy],
            Self::Latency | Self::Events => &[Direct, Pilotfish, Haproxy, Nginx, Pingora, Envoy],
            Self::Reload => &[PilotfishBig],
            Self::Mesh => &[Pilotfish, Haproxy, HaproxyH2, Nginx, Envoy],
            Self::Fleet
            | Self::Nodes
            | Self::Spans
            | Self::Start
            | Self::Placement
            | Self::Roles
            | Self::Tokens => &[Peer::Control],
            Self::Authz => &[Peer::PilotfishOpen, Pilotfish, Peer::PilotfishAudited],
            Self::Policies => &[Pilotfish, Peer::PilotfishPolicies],
            Self::Telemetry => {
                &[Peer::PilotfishOff, Pilotfish, Peer::PilotfishTraced, Envoy, Peer::EnvoyTraced]
            }
            Self::Failing | Self::Storm => &[Pilotfish],
            Self::Slow => &[Pilotfish, Envoy],
            Self::Overload => &[Direct, Pilotfish],
            Self::Handshakes => &[Pilotfish, Haproxy, Nginx, Envoy],
        }
    }

    /// The fewest rounds that its figures need.
    pub fn min_rounds(self) -> usize {
        match self {
            Self::Latency => 7,
            // Two minutes each.
            Self::Fleet
            | Self::Nodes
            | Self::Spans
            | Self::Start
            | Self::Placement
            | Self::Roles
            | Self::Tokens => 1,
            _ => 3,
        }
    }

    /// What `peer` has to do for it, on ports from `port`.
    pub(crate) fn setup(self, peer: Peer, port: u16) -> Setup {
        let upstreams = match (self, peer) {
            (Self::Table | Self::Reload, Peer::PilotfishBig) => BIG_RING,
            (Self::Table, _) => SMALL_TABLE,
            (Self::Hash, _) => 100,
            (Self::Failing | Self::Slow | Self::Storm, _) => policies::ENDPOINTS,
            _ => 1,
        };
        let first = port + 100;
        Setup {
            listen: port,
            upstreams: (first..first + upstreams as u16).collect(),
            h2c: self == Self::H2c,
            hash: self == Self::Hash,
            streams: self == Self::Events,
            rules: if peer == Peer::PilotfishBig { BIG_TABLE } else { SMALL_TABLE },
            plan: 1,
            mesh: policies::mesh(self, peer),
            traced: self == Self::Telemetry,
        }
    }
}
