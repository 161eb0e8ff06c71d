//! What Istio has no field for is an annotation `pilotfish.dev/...`; an unknown one is an error.

use crate::model::{
    Affinity, Algorithm, ConsistentHash, HashKey, HashTable, Kind, LoadBalancer, StringMap, Subset,
    TrafficPolicy,
};
use crate::raw::{TextMap, nearest};
use crate::yaml::{Node, clip_text};

use super::check::Cx;

/// Our prefix.
const PREFIX: &str = "pilotfish.dev/";

/// Annotations (A) and labels (L) that mean something, and on which kinds.
const KNOWN: &[(&str, &[Kind])] = &[
    ("hash-balance-factor", &[Kind::DestinationRule]),
    ("affinity", &[Kind::DestinationRule, Kind::VirtualService]),
    ("load-balancer", &[Kind::DestinationRule]),
    ("agent", &[Kind::ServiceEntry, Kind::WorkloadEntry]),
    ("mesh", &[Kind::ServiceEntry, Kind::WorkloadEntry]),
    ("trust-domain", &[Kind::ServiceEntry, Kind::WorkloadEntry]),
    ("retry-safety", &[Kind::DestinationRule, Kind::VirtualService]),
];

/// Checks the names and values of our annotations on a resource.
pub(super) fn check(cx: &mut Cx<'_>, kind: Kind, annotations: Option<&TextMap<'_>>) {
    for (key, value) in annotations.into_iter().flatten() {
        let Some(name) = key.value.strip_prefix(PREFIX) else { continue };
        let Some((_, kinds)) = KNOWN.iter().find(|(known, _)| *known == name) else {
            let near = nearest(name, KNOWN.iter().map(|(known, _)| *known));
            let hint = near.map(|near| format!("did you mean `{PREFIX}{near}`?"));
            let message = format!("unknown annotation `{}`", clip_text(key.value));
            cx.diagnose.error_at_key(key.node, message, hint);
            continue;
        };
        if !kinds.contains(&kind) {
            let allowed: Vec<&str> = kinds.iter().map(|kind| kind.name()).collect();
            let hint = format!("it belongs on {}", allowed.join(" or "));
            cx.diagnose.warn_at_key(key.node, format!("does nothing on {kind}"), Some(hint));
        }
        value_of(cx, name, value.value, value.node);
    }
}

fn value_of(cx: &mut Cx<'_>, name: &str, value: &str, node: Node<'_>) {
    match name {
        "hash-balance-factor" if balance_factor(value).is_none() => {
            let message = format!("`{}` is not a balance factor", clip_text(value));
            cx.error_hint(node, message, "a number above 1 and at most 10, such as \"1.25\" (Envoy's 125)");
        }
        "affinity" if Affinity::parse(value).is_none() => {
            words(cx, node, value, &Affinity::WORDS.iter().map(|(word, _)| *word).collect::<Vec<_>>());
        }
        "load-balancer" if value != "peak-ewma" => words(cx, node, value, &["peak-ewma"]),
        "mesh" if !matches!(value, "true" | "false") => words(cx, node, value, &["true", "false"]),
        "retry-safety" if value != "istio" => words(cx, node, value, &["istio"]),
        "retry-safety" => cx.warn(node, "not enforced yet", "retries come with a later release"),
        _ => {}
    }
}

fn words(cx: &mut Cx<'_>, node: Node<'_>, value: &str, known: &[&str]) {
    let hint = match nearest(value, known.iter().copied()) {
        Some(near) => format!("did you mean `{near}`?"),
        None => format!("known: {}", known.join(", ")),
    };
    cx.error_hint(node, format!("`{}` is not a known value", clip_text(value)), hint);
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
}

impl PolicyAnnotations {
    /// Reads them; wrong values were reported by [`check`].
    pub fn read(annotations: &StringMap) -> PolicyAnnotations {
        let get = |name: &str| annotations.get(&format!("{PREFIX}{name}")).map(String::as_str);
        PolicyAnnotations {
            balance_factor: get("hash-balance-factor").and_then(balance_factor),
            affinity: get("affinity").and_then(Affinity::parse),
            peak_ewma: get("load-balancer") == Some("peak-ewma"),
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
