//! Services that the sidecar itself asks: authorizers, token endpoints, issuers. A host that a ServiceEntry or an agent has is reached as
//! calls to it are, by its endpoints and its DestinationRule.

use pilotfish_config::model::Secret;

use crate::authorizer::Authorizers;
use crate::cluster::{ClusterId, Clusters};
use crate::credentials::Credentials;
use crate::plan::{Questioned, Service, host_and_port};
use crate::tokens::{KeySource, TokenRules};

/// What the documents name. Short names of services are of `namespace`.
pub(super) fn compile(
    clusters: &Clusters,
    namespace: &str,
    authorizers: &Authorizers,
    tokens: &TokenRules,
    credentials: &Credentials,
) -> Questioned {
    let authorizers = authorizers.list.iter().map(|one| &*one.origin);
    let issuers = tokens.rules().iter().filter_map(|rule| match &rule.keys {
        KeySource::Uri { uri, .. } => Some(&**uri),
        KeySource::Discovery { issuer, .. } => Some(&**issuer),
        KeySource::Inline(_) => None,
    });
    let endpoints = credentials.all().iter().filter_map(|credential| match &credential.secret {
        Secret::Client(endpoint) | Secret::Exchange(endpoint, _) => Some(endpoint.url.as_str()),
        Secret::Key { .. } | Secret::Basic { .. } => None,
    });
    let mut services: Vec<Service> = Vec::new();
    for url in authorizers.chain(issuers).chain(endpoints) {
        let Some((host, port)) = host_and_port(url) else { continue };
        if services.iter().any(|known| known.port == port && *known.host == *host) {
            continue;
        }
        let cluster = find(clusters, namespace, &host, port);
        services.push(Service { host: host.into(), port, cluster });
    }
    Questioned(services.into())
}

/// The service that a host means: itself, else the in-cluster service that it is a short name of.
fn find(clusters: &Clusters, namespace: &str, host: &str, port: u16) -> Option<ClusterId> {
    if clusters.knows(host) {
        return clusters.find(host, Some(port), None);
    }
    let short = host.strip_suffix(".svc").unwrap_or(host);
    let full = match short.matches('.').count() {
        0 => format!("{short}.{namespace}.svc.cluster.local"),
        1 => format!("{short}.svc.cluster.local"),
        _ => return None,
    };
    clusters.find(&full, Some(port), None)
}
