//! What Istio has no field for is an annotation `pilotfish.dev/...`; an unknown one is an error.

use std::time::Duration;

use crate::model::permission::{Permission, check_resource_path};
use crate::model::{
    Affinity, Algorithm, CircuitBreaker, ConsistentHash, DRY_RUN, HashKey, HashTable, Kind, LoadBalancer,
    StringMap, Subset, TrafficPolicy, Wish, concurrency, dry_run,
};
use crate::raw::{TextMap, nearest};
use crate::units::duration;
use crate::yaml::clip_text;

use super::check::Cx;
use super::health;

/// Our prefix.
pub(super) const PREFIX: &str = "pilotfish.dev/";

/// An annotation that means something.
struct Known {
    /// Its name, without our prefix.
    name: &'static str,
    /// The kinds that it belongs on.
    kinds: &'static [Kind],
    /// Whether it may be written for a single rule of a VirtualService, as `pilotfish.dev/hedge.RULE`, or a single agent of an
    /// AgentCluster; see [`crate::model::Meta::annotation_for`].
    per_rule: bool,
    /// What it does, for the reference.
    doc: &'static str,
    /// Whether a value is good.
    check: fn(&str) -> Result<(), Wrong>,
}

/// What is wrong with a value: it is written after the value, and then what to do.
pub(super) struct Wrong {
    pub what: String,
    pub hint: String,
}

impl Wrong {
    /// `what` continues "`VALUE` ...".
    pub fn new(what: impl Into<String>, hint: impl Into<String>) -> Wrong {
        Wrong { what: what.into(), hint: hint.into() }
    }
}

/// How long keys of calls can be remembered.
const DEDUP_WINDOWS: std::ops::RangeInclusive<Duration> =
    Duration::from_secs(1)..=Duration::from_secs(86_400);

/// The kinds that say what calls need.
const DECLARING: &[Kind] = &[Kind::VirtualService, Kind::AgentCluster, Kind::Sidecar];

/// Every annotation.
const KNOWN: &[Known] = &[
    Known {
        name: "hash-balance-factor",
        kinds: &[Kind::DestinationRule],
        per_rule: false,
        doc: "With consistent hashing no endpoint gets more than this times the average load: above 1, at most 10.",
        check: |value| match balance_factor(value) {
            Some(_) => Ok(()),
            None => Err(Wrong::new(
                "is not a balance factor",
                "a number above 1 and at most 10, such as \"1.25\" (Envoy's 125)",
            )),
        },
    },
    Known {
        name: "affinity",
        kinds: &[Kind::DestinationRule, Kind::VirtualService],
        per_rule: false,
        doc: "Calls of one conversation go to one endpoint: `contextId`, `session` or `user`.",
        check: |value| word(value, &["contextId", "session", "user"]),
    },
    Known {
        name: "load-balancer",
        kinds: &[Kind::DestinationRule],
        per_rule: false,
        doc: "`peak-ewma`: two random endpoints, the one with the lower latency x load.",
        check: |value| word(value, &["peak-ewma"]),
    },
    Known {
        name: "agent",
        kinds: &[Kind::ServiceEntry, Kind::WorkloadEntry],
        per_rule: false,
        doc: "The agent of an AgentCluster that the endpoints belong to; gives them its capabilities.",
        check: anything,
    },
    Known {
        name: "mesh",
        kinds: &[Kind::ServiceEntry, Kind::WorkloadEntry],
        per_rule: false,
        doc: "`\"true\"`: the port is the inbound port of the endpoint's sidecar.",
        check: |value| word(value, &["true", "false"]),
    },
    Known {
        name: "trust-domain",
        kinds: &[Kind::ServiceEntry, Kind::WorkloadEntry],
        per_rule: false,
        doc: "The trust domain of the endpoint's certificate.",
        check: anything,
    },
    Known {
        name: "retry-safety",
        kinds: &[Kind::VirtualService],
        per_rule: true,
        doc: "`istio`: what `retryOn` says is repeated even when the call may have started and is not safe to do twice.",
        check: |value| word(value, &["istio"]),
    },
    Known {
        name: "retry-buffer-bytes",
        kinds: &[Kind::VirtualService],
        per_rule: true,
        doc: "How many bytes of a request's body are kept for another try (65536 by default); a call with more is not repeated.",
        check: super::retry::buffer_bytes,
    },
    Known {
        name: "hedge",
        kinds: &[Kind::VirtualService],
        per_rule: true,
        doc: "A time, or `p95` (of the destination's own times): when a GET, HEAD or OPTIONS call has no answer by then, one more try is sent to another endpoint, within the retry budget; the first answer wins.",
        check: super::retry::hedge,
    },
    Known {
        name: "response-header-timeout",
        kinds: &[Kind::VirtualService],
        per_rule: true,
        doc: "The longest time until the head of an answer is there, over all tries, such as `\"30s\"`; none by default. Then `504 try-timeout`.",
        check: |value| time(value, false),
    },
    Known {
        name: "stream-idle-timeout",
        kinds: &[Kind::VirtualService, Kind::Sidecar],
        per_rule: true,
        doc: "The longest time in which nothing moves on a call in either direction (5 min, Envoy's default); `\"0s\"`: any. The receiving sidecar is told; on a Sidecar it is for inbound calls of which it is not.",
        check: |value| time(value, true),
    },
    Known {
        name: "max-hops",
        kinds: &[Kind::VirtualService, Kind::Sidecar],
        per_rule: true,
        doc: "How many calls of agents may hang on one another: 1 to 64, 16 by default. Then `508 too-many-hops`. The receiver's Sidecar counts too; the stricter holds.",
        check: |value| number(value, 1, 64),
    },
    Known {
        name: "call-cycles",
        kinds: &[Kind::VirtualService, Kind::Sidecar],
        per_rule: true,
        doc: "What happens to a call that comes back to an agent on its path: `warn` (the default: it is counted, and goes on) or `deny` (`508 call-cycle`). One `deny` on the path is enough.",
        check: |value| word(value, &["warn", "deny"]),
    },
    Known {
        name: "fan-out-limit",
        kinds: &[Kind::VirtualService, Kind::Sidecar],
        per_rule: true,
        doc: "How many calls an agent may make for one call that it serves: 1 to 1000000; no limit by default. Then `429 fan-out`.",
        check: |value| number(value, 1, 1_000_000),
    },
    Known {
        name: "max-priority",
        kinds: &[Kind::VirtualService, Kind::Sidecar],
        per_rule: true,
        doc: "The highest `agent-priority` that a call may have: `sheddable`, `default` or `critical` (the default).",
        check: |value| word(value, &["sheddable", "default", "critical"]),
    },
    Known {
        name: "dedup-window",
        kinds: &[Kind::Sidecar],
        per_rule: false,
        doc: "How long the key of a call is remembered after the call has ended (10 min by default): `1s` to `24h`.",
        check: |value| match crate::units::duration(value) {
            Ok(time) if DEDUP_WINDOWS.contains(&time) => Ok(()),
            _ => Err(Wrong::new(
                "is not a time to remember keys for",
                "from \"1s\" to \"24h\", such as \"10m\"",
            )),
        },
    },
    Known {
        name: "dedup-keys",
        kinds: &[Kind::Sidecar],
        per_rule: false,
        doc: "How many keys of calls are remembered (10,000 by default): 1 to 1,000,000. A full window refuses calls with a key: `dedup-full`.",
        check: |value| match value.parse() {
            Ok(1..=1_000_000_u32) => Ok(()),
            _ => Err(Wrong::new("is not a number of keys", "from \"1\" to \"1000000\"")),
        },
    },
    Known {
        name: "circuit-breaker",
        kinds: &[Kind::DestinationRule, Kind::AgentCluster],
        per_rule: false,
        doc: "A breaker for each endpoint (Linkerd's): `on`, `off`, or parts that differ from \
              `consecutive=7,success-rate=0.8,window=10s,min-requests=5,open=1s..60s`. It opens after that many failures in \
              a row, or when a smaller share of at least `min-requests` calls succeeds in the window; then one live call at \
              a time probes, after 1 s, doubling to 60 s. On an AgentCluster: for its agents' endpoints, where no \
              DestinationRule says otherwise.",
        check: |value| health::circuit_breaker(value).map(drop),
    },
    Known {
        name: "health-check",
        kinds: &[Kind::ServiceEntry, Kind::AgentCluster],
        per_rule: false,
        doc: "How the endpoints are asked whether they are well: `http:/path` (200 to 399 is good), `grpc` or \
              `grpc:service` (the gRPC health protocol) or `tcp`, then perhaps \
              `,interval=10s,timeout=2s,healthy=2,unhealthy=3,jitter=10%,port=N,credential=on` (which shows the host's \
              OutboundCredential, by HTTP); or `off`. On an AgentCluster: for its \
              agents' endpoints, where no ServiceEntry says otherwise. They are asked in the way that calls go there (mutual \
              TLS in the mesh); at a `port` of their own plainly.",
        check: |value| health::health_check(value).map(drop),
    },
    Known {
        name: "command",
        kinds: &[Kind::AgentCluster],
        per_rule: true,
        doc: "The program of its agents that have no `command`, split as a shell splits words, without expansion;               `pilotfish.dev/command.AGENT` for one of them.",
        check: |value| super::runtime::command_text(value).map(drop),
    },
    Known {
        name: "adaptive-concurrency",
        kinds: &[Kind::DestinationRule, Kind::Sidecar],
        per_rule: false,
        doc: "`on`, or `max=200,min=2` (1000 and 2 by default): the number of calls at once follows the latency, by Envoy's gradient. On a Sidecar: of calls to the local agent; on a DestinationRule: of this sidecar's calls to one endpoint.",
        check: |value| {
            concurrency::adaptive(value)
                .map(|_| ())
                .map_err(|what| Wrong::new(what, "`on`, `off`, or the bounds, as in `max=200,min=2`"))
        },
    },
    Known {
        name: "max-concurrency",
        kinds: &[Kind::DestinationRule, Kind::Sidecar],
        per_rule: false,
        doc: "The number of calls at once: to the local agent (Sidecar), or of this sidecar's calls to one endpoint (DestinationRule). With `adaptive-concurrency` its upper bound.",
        check: |value| {
            concurrency::max_concurrency(value)
                .map(|_| ())
                .map_err(|what| Wrong::new(what, "the calls that are served at once, as in \"8\""))
        },
    },
    Known {
        name: "queue",
        kinds: &[Kind::DestinationRule, Kind::Sidecar],
        per_rule: false,
        doc: "`size=100,wait=1s` (the defaults): how many calls wait when `max-concurrency` or `adaptive-concurrency` is reached, and how long one of `agent-priority: default` does; a sheddable one waits a twentieth of it, a critical one until its deadline (at most 30 s).",
        check: |value| {
            concurrency::queue(value)
                .map(|_| ())
                .map_err(|what| Wrong::new(what, "how many wait and how long, as in `size=100,wait=1s`"))
        },
    },
    Known {
        name: "permission",
        kinds: DECLARING,
        per_rule: true,
        doc: "The permission that a call needs (`authorization` of an AgentSecurityPolicy), `domain:verb`: of the calls that the rule \
              is for, to the agent, by the capability, or to all agents of the Sidecar document. The most specific holds, in this \
              order; without any of them MCP needs `mcp:call` on `tools/NAME` or `mcp:read` on `mcp/METHOD`, A2A `a2a:send` or \
              `a2a:read` on `skills/SKILL` or `a2a/METHOD`, a model `model:invoke` on `models/NAME`, and anything else `http:read` \
              or `http:write` on its path.",
        check: |value| Permission::check_needed(value).map_err(|(what, hint)| Wrong::new(what, hint)),
    },
    Known {
        name: "resource",
        kinds: DECLARING,
        per_rule: true,
        doc: "What such a call is about, without a first slash: text, and `{id}` (the segment of the path that \
              `pilotfish.dev/resource-path` names so, else the one after the segment before it in this template), `{path.N}` (the \
              N-th segment), `{header.NAME}` or `{body.FIELD}` (`contextId`, `taskId`, `session`, `model`, `tool`, `skill`, \
              `user`). By default the path.",
        // Together with `resource-path`, in `declared.rs`.
        check: anything,
    },
    Known {
        name: "resource-path",
        kinds: DECLARING,
        per_rule: true,
        doc: "Names segments of the path for `pilotfish.dev/resource`, such as `/v1/conversations/{id}`.",
        check: |value| check_resource_path(value).map_err(|(what, hint)| Wrong::new(what, hint)),
    },
    Known {
        name: "classification",
        kinds: DECLARING,
        per_rule: true,
        doc: "The class of what such a call asks for: one of the `access_levels` of the AgentSecurityPolicy. An answer says its own in \
              the header `agent-classification`.",
        check: |value| {
            let good = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.');
            match !value.is_empty() && value.bytes().all(good) {
                true => Ok(()),
                false => Err(Wrong::new("is not a class", "one of the policy's `access_levels`")),
            }
        },
    },
];

/// Our annotations for the reference: name, kinds, whether for single rules, what it does.
pub fn reference() -> impl Iterator<Item = (&'static str, &'static [Kind], bool, &'static str)> {
    KNOWN.iter().map(|known| (known.name, known.kinds, known.per_rule, known.doc))
}

/// For values that are checked elsewhere.
fn anything(_value: &str) -> Result<(), Wrong> {
    Ok(())
}

/// One of some words.
pub(super) fn word(value: &str, known: &[&str]) -> Result<(), Wrong> {
    if known.contains(&value) {
        return Ok(());
    }
    let hint = match nearest(value, known.iter().copied()) {
        Some(near) => format!("did you mean `{near}`?"),
        None => format!("known: {}", known.join(", ")),
    };
    Err(Wrong::new("is not a known value", hint))
}

/// A time above zero, or, where `zero` says so, zero for none.
pub(super) fn time(value: &str, zero: bool) -> Result<(), Wrong> {
    match duration(value) {
        Err(why) => Err(Wrong::new("is not a duration", why)),
        Ok(time) if time.is_zero() && !zero => {
            Err(Wrong::new("is no time at all", "write a time above zero, such as \"30s\""))
        }
        Ok(_) => Ok(()),
    }
}

/// A whole number within bounds.
pub(super) fn number(value: &str, least: u64, most: u64) -> Result<(), Wrong> {
    match value.parse::<u64>() {
        Ok(number) if (least..=most).contains(&number) => Ok(()),
        _ => Err(Wrong::new("is out of range", format!("a whole number from {least} to {most}"))),
    }
}

/// Checks the names and values of our annotations on a resource.
pub(super) fn check(cx: &mut Cx<'_>, kind: Kind, annotations: Option<&TextMap<'_>>) {
    for (key, value) in annotations.into_iter().flatten() {
        if key.value == DRY_RUN && kind == Kind::AuthorizationPolicy && dry_run(value.value).is_none() {
            let message = format!("`{}` is neither \"true\" nor \"false\"", clip_text(value.value));
            cx.error_hint(value.node, message, "a dry run is decided and recorded, and not enforced");
        }
        if key.value == DRY_RUN && matches!(kind, Kind::RequestAuthentication | Kind::PeerAuthentication) {
            let message = format!("`{DRY_RUN}` is an AuthorizationPolicy's: this would be enforced");
            cx.diagnose.error_at_key(key.node, message, Some("remove it".into()));
        }
        let Some(name) = key.value.strip_prefix(PREFIX) else { continue };
        let (name, rule) = match name.split_once('.') {
            Some((name, rule)) if matches!(kind, Kind::VirtualService | Kind::AgentCluster) => {
                (name, Some(rule))
            }
            _ => (name, None),
        };
        let Some(known) = KNOWN.iter().find(|known| known.name == name) else {
            let near = nearest(name, KNOWN.iter().map(|known| known.name));
            let hint = near.map(|near| format!("did you mean `{PREFIX}{near}`?"));
            let message = format!("unknown annotation `{}`", clip_text(key.value));
            cx.diagnose.error_at_key(key.node, message, hint);
            continue;
        };
        if !known.kinds.contains(&kind) {
            let allowed: Vec<&str> = known.kinds.iter().map(|kind| kind.name()).collect();
            let hint = format!("it belongs on {}", allowed.join(" or "));
            cx.diagnose.warn_at_key(key.node, format!("does nothing on {kind}"), Some(hint));
        }
        if rule.is_some() && !known.per_rule {
            let single = if kind == Kind::AgentCluster { "agent" } else { "rule" };
            let message = format!("`{PREFIX}{name}` cannot be written for a single {single}");
            cx.diagnose.error_at_key(key.node, message, Some(format!("write `{PREFIX}{name}`")));
        }
        if let Err(Wrong { what, hint }) = (known.check)(value.value) {
            cx.error_hint(value.node, format!("`{}` {what}", clip_text(value.value)), hint);
        }
    }
}

fn balance_factor(text: &str) -> Option<f64> {
    text.parse::<f64>().ok().filter(|factor| *factor > 1.0 && *factor <= 10.0)
}

/// What the annotations of a DestinationRule change in its policies.
#[derive(Debug, Default, PartialEq)]
pub(super) struct PolicyAnnotations {
    balance_factor: Option<f64>,
    affinity: Option<Affinity>,
    peak_ewma: bool,
    circuit_breaker: Wish<CircuitBreaker>,
}

impl PolicyAnnotations {
    /// Reads them; wrong values were reported by [`check`].
    pub fn read(annotations: &StringMap) -> PolicyAnnotations {
        let get = |name: &str| annotations.get(&format!("{PREFIX}{name}")).map(String::as_str);
        PolicyAnnotations {
            balance_factor: get("hash-balance-factor").and_then(balance_factor),
            affinity: get("affinity").and_then(Affinity::parse),
            peak_ewma: get("load-balancer") == Some("peak-ewma"),
            circuit_breaker: get("circuit-breaker")
                .and_then(|text| health::circuit_breaker(text).ok())
                .unwrap_or_default(),
        }
    }

    /// Applies them to a rule's policy and to every subset's and port's own load balancer.
    pub fn apply(&self, policy: &mut TrafficPolicy, subsets: &mut [Subset]) {
        if *self == PolicyAnnotations::default() {
            return;
        }
        if self.affinity.is_some() || self.peak_ewma {
            policy.load_balancer.get_or_insert_with(LoadBalancer::default);
        }
        policy.circuit_breaker = self.circuit_breaker.clone();
        self.change(policy);
        for own in subsets.iter_mut().filter_map(|subset| subset.policy.as_mut()) {
            self.change(own);
        }
    }

    fn change(&self, policy: &mut TrafficPolicy) {
        let ports = policy.port_level.iter_mut().filter_map(|(_, own)| own.load_balancer.as_mut());
        for balancer in policy.load_balancer.iter_mut().chain(ports) {
            if let Some(affinity) = self.affinity {
                let table = match &balancer.algorithm {
                    Algorithm::ConsistentHash(hash) => hash.table,
                    _ => HashTable::default(),
                };
                let key = HashKey::Affinity(affinity);
                balancer.algorithm =
                    Algorithm::ConsistentHash(ConsistentHash { key, table, balance_factor: None });
            } else if self.peak_ewma && !matches!(balancer.algorithm, Algorithm::ConsistentHash(_)) {
                balancer.algorithm = Algorithm::PeakEwma;
            }
            if let Algorithm::ConsistentHash(hash) = &mut balancer.algorithm {
                hash.balance_factor = self.balance_factor;
            }
        }
    }
}
