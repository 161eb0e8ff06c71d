//! AuthorizationProviders that this sidecar may have to ask.

use pilotfish_config::model::{AuthorizationProvider, AuthorizerProtocol, Model};

use crate::affinity::hash_bytes;
use crate::authorizer::{Authorizer, Authorizers, Cache, Http, Names, Protocol};

/// Those that policies of the workload name, each as `namespace/name`.
pub(super) fn compile(model: &Model, named: &[&str]) -> Authorizers {
    let full =
        |provider: &AuthorizationProvider| format!("{}/{}", provider.meta.namespace(), provider.meta.name());
    let wanted = model.authorization_providers.iter().map(|provider| (full(provider), provider));
    let wanted = wanted.filter(|(name, _)| named.contains(&&**name));
    Authorizers { list: wanted.map(|(name, provider)| authorizer(&name, provider)).collect() }
}

fn authorizer(name: &str, written: &AuthorizationProvider) -> Authorizer {
    // Everything but where it is written: a document that moved says the same.
    let settings = (
        (&written.host, written.port, &written.tls, &written.protocol, written.timeout),
        (written.fail_open, written.status_on_error, written.body, &written.cache),
    );
    let scheme = if written.tls.is_some() { "https" } else { "http" };
    let host = if written.host.contains(':') { format!("[{}]", written.host) } else { written.host.clone() };
    Authorizer {
        name: name.into(),
        fingerprint: hash_bytes(format!("{name} {settings:?}").as_bytes()),
        origin: format!("{scheme}://{host}:{}", written.port).into(),
        tls: written.tls.clone().unwrap_or_default(),
        protocol: match &written.protocol {
            AuthorizerProtocol::Grpc { context } => Protocol::Grpc { context: context.clone().into() },
            AuthorizerProtocol::Http(http) => Protocol::Http(Box::new(Http {
                path_prefix: http.path_prefix.as_str().into(),
                include: names(&http.include),
                add: http.add.clone().into(),
                to_upstream: names(&http.to_upstream),
                to_downstream_on_deny: http.to_downstream_on_deny.as_deref().map(names),
                to_downstream_on_allow: names(&http.to_downstream_on_allow),
            })),
        },
        timeout: written.timeout,
        fail_open: written.fail_open,
        status_on_error: written.status_on_error,
        body: written.body,
        cache: written.cache.as_ref().map(|cache| Cache {
            ttl: cache.ttl,
            headers: cache.headers.iter().map(|name| name.as_str().into()).collect(),
        }),
    }
}

fn names(list: &[String]) -> Names {
    Names::new(list.iter().map(String::as_str))
}
