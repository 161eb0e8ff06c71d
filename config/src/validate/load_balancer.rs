//! loadBalancer: algorithm, hash, localities, warm-up.

use std::collections::HashSet;

use crate::model::{
    Algorithm, ConsistentHash, Distribute, Failover, FailoverLabel, HashCookie, HashKey, HashTable,
    LoadBalancer, LocalityMode, LocalityPolicy, Warmup,
};
use crate::raw::{
    ConsistentHashSpec, DistributeSpec, FailoverSpec, HttpCookieSpec, LoadBalancerSpec, LocalitySpec,
    MaglevSpec, SimpleLb, Text, WarmupSpec,
};
use crate::yaml::{Node, clip_text};

use super::check::Cx;
use super::headers::is_header_name;

/// How an endpoint is chosen.
pub(super) fn load_balancer(cx: &mut Cx<'_>, spec: &LoadBalancerSpec<'_>) -> LoadBalancer {
    let algorithm = match (&spec.simple, &spec.consistent_hash) {
        (_, Some(hash)) => consistent_hash(cx, hash),
        (Some(simple), None) => match simple.value {
            SimpleLb::Unspecified | SimpleLb::LeastConn | SimpleLb::LeastRequest => Algorithm::LeastRequest,
            SimpleLb::Random => Algorithm::Random,
            SimpleLb::Passthrough => Algorithm::Passthrough,
            SimpleLb::RoundRobin => Algorithm::RoundRobin,
        },
        (None, None) => Algorithm::default(),
    };
    if let Some(simple) = spec.simple.filter(|simple| simple.value == SimpleLb::LeastConn) {
        cx.warn(simple.node, "deprecated", "write LEAST_REQUEST");
    }
    let old = spec.warmup_duration_secs.map(|time| Warmup {
        duration: cx.duration(time),
        minimum_percent: 10.0,
        aggression: 1.0,
    });
    let locality = match (&spec.locality_lb_setting, &spec.zone_aware_lb_setting) {
        (Some(locality), _) => Some(self::locality(cx, locality)),
        (None, Some(zone)) => {
            let failover = zone.failover.iter().flatten().filter_map(|f| failover(cx, f)).collect::<Vec<_>>();
            let labels = failover_labels(zone.failover_priority.as_deref().unwrap_or_default());
            let enabled = zone.enabled.is_none_or(|enabled| enabled.value);
            Some(LocalityPolicy { enabled, mode: mode(Vec::new(), failover, labels) })
        }
        (None, None) => None,
    };
    LoadBalancer {
        algorithm,
        locality,
        warmup: spec.warmup.as_ref().and_then(|warmup| self::warmup(cx, warmup)).or(old),
    }
}

fn consistent_hash(cx: &mut Cx<'_>, spec: &ConsistentHashSpec<'_>) -> Algorithm {
    let Some(key) = hash_key(cx, spec) else { return Algorithm::default() };
    let minimum = spec.minimum_ring_size.filter(|size| size.value > 0);
    let table = if let Some(maglev) = &spec.maglev {
        HashTable::Maglev { size: maglev_size(cx, maglev) }
    } else {
        let size = spec.ring_hash.as_ref().and_then(|ring| ring.minimum_ring_size).or(minimum);
        if let Some(size) = size.filter(|size| size.value > 8_388_608) {
            cx.error_hint(
                size.node,
                format!("{} is too large", size.value),
                "at most 8388608, Envoy's limit",
            );
        }
        HashTable::Ring { minimum_size: size.map_or(1024, |size| size.value.min(8_388_608)) }
    };
    Algorithm::ConsistentHash(ConsistentHash { key, table, balance_factor: None })
}

fn hash_key(cx: &mut Cx<'_>, spec: &ConsistentHashSpec<'_>) -> Option<HashKey> {
    if let Some(header) = spec.http_header_name {
        if !is_header_name(header.value) && !header.value.starts_with(':') {
            cx.error(header.node, format!("`{}` is not a header name", clip_text(header.value)));
        }
        return Some(HashKey::Header(header.value.to_ascii_lowercase()));
    }
    if let Some(cookie) = &spec.http_cookie {
        return hash_cookie(cx, cookie).map(HashKey::Cookie);
    }
    if let Some(name) = spec.http_query_parameter_name {
        return Some(HashKey::QueryParameter(cx.not_empty(name)));
    }
    if spec.use_source_ip.is_some_and(|use_ip| use_ip.value) {
        return Some(HashKey::SourceIp);
    }
    let hint = "write httpHeaderName, httpCookie, useSourceIp or httpQueryParameterName";
    cx.warn(spec.node, "nothing is hashed, so nothing keeps a caller on one endpoint", hint);
    None
}

fn hash_cookie(cx: &mut Cx<'_>, spec: &HttpCookieSpec<'_>) -> Option<HashCookie> {
    let name = spec.name?;
    // A cookie's name is a token, as a header's is (RFC 6265 section 4.1.1).
    if !is_header_name(name.value) {
        cx.error(name.node, format!("`{}` is not a cookie name", clip_text(name.value)));
    }
    let mut seen = HashSet::new();
    let mut attributes = Vec::new();
    for attribute in spec.attributes.iter().flatten() {
        let Some(name) = attribute.name else { continue };
        cx.not_empty(name);
        if !seen.insert(name.value) {
            cx.error(name.node, format!("the attribute `{}` is there already", clip_text(name.value)));
        }
        attributes.push((name.value.to_owned(), attribute.value.map(|value| value.value.to_owned())));
    }
    let path = spec.path.filter(|path| !path.value.is_empty()).map(|path| path.value.to_owned());
    Some(HashCookie { name: name.value.to_owned(), path, ttl: spec.ttl.map(|ttl| ttl.value), attributes })
}

fn maglev_size(cx: &mut Cx<'_>, spec: &MaglevSpec<'_>) -> u64 {
    const DEFAULT: u64 = 65_537;
    let Some(size) = spec.table_size else { return DEFAULT };
    if size.value == 0 || size.value >= 5_000_011 || !is_prime(size.value) {
        let hint = "a prime below 5000011, such as 65537";
        cx.error_hint(size.node, format!("{} is not a size of a Maglev table", size.value), hint);
        return DEFAULT;
    }
    size.value
}

/// Trial division; only called for numbers below 5,000,011.
fn is_prime(number: u64) -> bool {
    number >= 2
        && (2..).take_while(|factor| factor * factor <= number).all(|factor| !number.is_multiple_of(factor))
}

fn locality(cx: &mut Cx<'_>, spec: &LocalitySpec<'_>) -> LocalityPolicy {
    let distribute: Vec<_> =
        spec.distribute.iter().flatten().filter_map(|d| self::distribute(cx, d)).collect();
    let failover: Vec<_> = spec.failover.iter().flatten().filter_map(|f| failover(cx, f)).collect();
    let labels = spec.failover_priority.as_deref().unwrap_or_default();
    if !distribute.is_empty() && !failover.is_empty() {
        cx.error(spec.node, "`distribute` and `failover` exclude each other");
    }
    if let Some(topology) =
        labels.iter().find(|label| label.value.starts_with("topology.") && !failover.is_empty())
    {
        let message = format!("`failover` and `{}` in `failoverPriority` exclude each other", topology.value);
        cx.error(topology.node, message);
    }
    let froms: Vec<(Node<'_>, &str)> =
        spec.distribute.iter().flatten().filter_map(|d| d.from.map(|from| (from.node, from.value))).collect();
    overlapping(cx, &froms);
    let enabled = spec.enabled.is_none_or(|enabled| enabled.value);
    LocalityPolicy { enabled, mode: mode(distribute, failover, failover_labels(labels)) }
}

fn mode(distribute: Vec<Distribute>, failover: Vec<Failover>, labels: Vec<FailoverLabel>) -> LocalityMode {
    if !distribute.is_empty() {
        LocalityMode::Distribute(distribute)
    } else if !labels.is_empty() {
        LocalityMode::FailoverPriority(labels)
    } else if !failover.is_empty() {
        LocalityMode::Failover(failover)
    } else {
        LocalityMode::Nearest
    }
}

fn failover_labels(labels: &[Text<'_>]) -> Vec<FailoverLabel> {
    let label = |label: &Text<'_>| match label.value.split_once('=') {
        Some((key, value)) => FailoverLabel { key: key.to_owned(), value: Some(value.to_owned()) },
        None => FailoverLabel { key: label.value.to_owned(), value: None },
    };
    labels.iter().map(label).collect()
}

fn distribute(cx: &mut Cx<'_>, spec: &DistributeSpec<'_>) -> Option<Distribute> {
    let from = spec.from.map_or("", |from| from.value);
    let at = spec.from.map_or(spec.node, |from| from.node);
    locality_pattern(cx, at, from);
    let mut to = Vec::new();
    let mut sum = 0u64;
    let mut places = Vec::new();
    for (place, weight) in spec.to.iter().flatten() {
        locality_pattern(cx, place.node, place.value);
        places.push((place.node, place.value));
        if !(1..=100).contains(&weight.value) {
            cx.error_hint(weight.node, format!("{} is not a share", weight.value), "allowed: 1 to 100");
        }
        sum += u64::from(weight.value);
        to.push((place.value.to_owned(), weight.value));
    }
    if sum != 100 {
        let at = spec.node.get("to").unwrap_or(spec.node);
        cx.error(at, format!("the shares add up to {sum}, not to 100"));
    }
    overlapping(cx, &places);
    Some(Distribute { from: from.to_owned(), to })
}

/// `region/zone/subzone`, where `*` may be the last part.
fn locality_pattern(cx: &mut Cx<'_>, node: Node<'_>, text: &str) {
    let parts: Vec<&str> = text.split('/').collect();
    let empty = parts.iter().any(|part| part.is_empty());
    let star = parts.iter().rev().skip(1).any(|part| part.contains('*'));
    if empty || star || parts.len() > 3 {
        let message = format!("`{}` is not a locality", clip_text(text));
        cx.error_hint(node, message, "write region/zone/subzone; `*` may be the last part");
    }
}

/// No locality may be covered by another one of the list.
fn overlapping(cx: &mut Cx<'_>, places: &[(Node<'_>, &str)]) {
    // Lists are short; a long one is not worth a quadratic search.
    for (position, (node, place)) in places.iter().enumerate().take(200) {
        let covers = |a: &str, b: &str| {
            let stem = a.strip_suffix('*').map(|stem| stem.trim_end_matches('/'));
            let stem = stem.unwrap_or(a);
            stem.is_empty() || a == b || b.strip_prefix(stem).is_some_and(|rest| rest.starts_with('/'))
        };
        if let Some((_, other)) =
            places[..position].iter().find(|(_, o)| covers(o, place) || covers(place, o))
        {
            cx.error(
                *node,
                format!("the localities `{}` and `{}` overlap", clip_text(other), clip_text(place)),
            );
        }
    }
}

fn failover(cx: &mut Cx<'_>, spec: &FailoverSpec<'_>) -> Option<Failover> {
    let (from, to) = (spec.from?, spec.to?);
    if from.value == to.value {
        cx.error(to.node, "a region cannot fail over to itself");
    }
    for region in [from, to] {
        if region.value.contains(['/', '*']) {
            let message = format!("`{}` is not a region", clip_text(region.value));
            cx.error_hint(region.node, message, "failover is between regions: no `/`, no `*`");
        }
    }
    Some(Failover { from: from.value.to_owned(), to: to.value.to_owned() })
}

fn warmup(cx: &mut Cx<'_>, spec: &WarmupSpec<'_>) -> Option<Warmup> {
    if let Some(aggression) = spec.aggression.filter(|aggression| aggression.value <= 0.0) {
        cx.error_hint(aggression.node, format!("{} is not an aggression", aggression.value), "above 0");
    }
    let minimum_percent = spec.minimum_percent.map_or(10.0, |percent| cx.percent(percent));
    let duration = cx.duration(spec.duration?);
    Some(Warmup { duration, minimum_percent, aggression: spec.aggression.map_or(1.0, |a| a.value) })
}

#[cfg(test)]
mod tests {
    use super::is_prime;

    #[test]
    fn primes() {
        for prime in [2, 3, 5, 7, 9, 15, 1024, 65_537] {
            assert_eq!(is_prime(prime), (2..prime).all(|f| prime % f != 0), "{prime}");
        }
        assert!(!is_prime(0) && !is_prime(1) && !is_prime(65_536) && is_prime(65_537));
    }
}
