//! What Telemetry documents say of metrics: which are not told at all, and which labels are left out. It is honoured when metrics
//! are read; what is counted does not change, so a document that goes away brings everything back.

/// Metrics by the names that Istio has for them; a set.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct MetricSet(u16);

impl MetricSet {
    /// Every metric.
    pub const ALL: MetricSet = MetricSet((1 << 10) - 1);
    /// How many calls there were.
    pub const REQUEST_COUNT: MetricSet = MetricSet(1);
    /// How long they took.
    pub const REQUEST_DURATION: MetricSet = MetricSet(1 << 1);
    /// Bytes of their bodies.
    pub const REQUEST_SIZE: MetricSet = MetricSet(1 << 2);
    /// Bytes of their answers' bodies.
    pub const RESPONSE_SIZE: MetricSet = MetricSet(1 << 3);
    /// Connections that were opened.
    pub const TCP_OPENED_CONNECTIONS: MetricSet = MetricSet(1 << 4);

    /// Istio's names, in the order of its enumeration.
    pub const NAMES: [(&'static str, MetricSet); 11] = [
        ("ALL_METRICS", MetricSet::ALL),
        ("REQUEST_COUNT", MetricSet::REQUEST_COUNT),
        ("REQUEST_DURATION", MetricSet::REQUEST_DURATION),
        ("REQUEST_SIZE", MetricSet::REQUEST_SIZE),
        ("RESPONSE_SIZE", MetricSet::RESPONSE_SIZE),
        ("TCP_OPENED_CONNECTIONS", MetricSet::TCP_OPENED_CONNECTIONS),
        ("TCP_CLOSED_CONNECTIONS", MetricSet(1 << 5)),
        ("TCP_SENT_BYTES", MetricSet(1 << 6)),
        ("TCP_RECEIVED_BYTES", MetricSet(1 << 7)),
        ("GRPC_REQUEST_MESSAGES", MetricSet(1 << 8)),
        ("GRPC_RESPONSE_MESSAGES", MetricSet(1 << 9)),
    ];

    /// The one with Istio's name.
    pub fn named(name: &str) -> Option<MetricSet> {
        MetricSet::NAMES.iter().find(|(known, _)| *known == name).map(|(_, set)| *set)
    }

    /// With those of another.
    #[must_use]
    pub const fn with(self, other: MetricSet) -> MetricSet {
        MetricSet(self.0 | other.0)
    }

    /// Without those of another.
    #[must_use]
    pub const fn without(self, other: MetricSet) -> MetricSet {
        MetricSet(self.0 & !other.0)
    }

    /// Whether all of another are in it; of none, no.
    pub const fn has(self, other: MetricSet) -> bool {
        other.0 != 0 && self.0 & other.0 == other.0
    }
}

/// Metrics of calls of one direction.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct MetricsPolicy {
    /// Those that are not told (`disabled`).
    pub disabled: MetricSet,
    /// Labels that are left out (`tagOverrides` with `REMOVE`), and of which metrics; see [`label`].
    pub removed: Box<[(MetricSet, &'static str)]>,
}

/// The label that a tag of Istio's is called here: `response_code` is `http.response.status_code`. Our own names are taken as
/// well, with dots or underscores. `None`: there is no such label, so there is nothing to leave out.
pub fn label(tag: &str) -> Option<&'static str> {
    const ISTIO: [(&str, &str); 7] = [
        ("response_code", "http.response.status_code"),
        ("response_flags", "error.type"),
        ("request_protocol", "network.protocol.version"),
        ("destination_service", "server.address"),
        ("destination_service_name", "server.address"),
        ("request_method", "http.request.method"),
        ("reporter", "pilotfish.direction"),
    ];
    const OWN: [&str; 8] = [
        "http.request.method",
        "http.response.status_code",
        "http.route",
        "error.type",
        "network.protocol.version",
        "url.scheme",
        "server.address",
        "pilotfish.direction",
    ];
    let same = |name: &str| {
        name.len() == tag.len()
            && name.bytes().zip(tag.bytes()).all(|(a, b)| a == b || (a == b'.' && b == b'_'))
    };
    let istio = ISTIO.iter().find(|(name, _)| *name == tag).map(|(_, label)| *label);
    istio.or_else(|| OWN.into_iter().find(|name| same(name)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_metrics_are_each() {
        assert!(MetricSet::NAMES.iter().all(|(_, set)| MetricSet::ALL.has(*set)));
        let some = MetricSet::named("REQUEST_COUNT").unwrap().with(MetricSet::REQUEST_SIZE);
        assert!(some.has(MetricSet::REQUEST_COUNT) && !some.has(MetricSet::ALL));
        assert!(!some.without(MetricSet::REQUEST_COUNT).has(MetricSet::REQUEST_COUNT));
        assert_eq!(MetricSet::named("request_count"), None);
        assert!(!some.has(MetricSet::default()));
    }

    #[test]
    fn labels_are_known_by_three_names() {
        for tag in ["response_code", "http.response.status_code", "http_response_status_code"] {
            assert_eq!(label(tag), Some("http.response.status_code"));
        }
        assert_eq!(label("source_workload"), None);
    }
}
