//! What the sidecar itself asks (authorizers, token endpoints, issuers of tokens), and which services of the mesh that is.

use std::sync::Arc;

use super::{ClusterId, Plan};
use crate::cluster::Cluster;

/// The services that documents name, by host and port.
#[derive(Debug, Default)]
pub(crate) struct Questioned(pub(crate) Box<[Service]>);

/// One of them.
#[derive(Debug)]
pub(crate) struct Service {
    /// As it is asked, in lower case.
    pub(crate) host: Box<str>,
    pub(crate) port: u16,
    /// `None`: the mesh does not know it.
    pub(crate) cluster: Option<ClusterId>,
}

impl Plan {
    /// The service that a question of the sidecar's own to this host (in lower case) and port goes to; `None`: the mesh knows none, so
    /// DNS says where it is.
    pub fn questioned(&self, host: &str, port: u16) -> Option<&Arc<Cluster>> {
        let Questioned(services) = &self.questioned;
        match services.iter().find(|service| service.port == port && *service.host == *host) {
            Some(service) => service.cluster.map(|id| self.cluster(id)),
            // An address that only an answer names, such as the `jwks_uri` of OpenID Connect Discovery: it is asked rarely.
            None => self
                .clusters
                .iter()
                .find(|cluster| cluster.port == port && cluster.subset.is_none() && *cluster.host == *host),
        }
    }
}

/// Host, in lower case and without brackets, and port of an `http` or `https` URL.
pub(crate) fn host_and_port(url: &str) -> Option<(String, u16)> {
    let (usual, rest) = match url.split_once("://")? {
        ("https", rest) => (443, rest),
        ("http", rest) => (80, rest),
        _ => return None,
    };
    let authority = rest.split(['/', '?', '#']).next()?;
    let (host, port) = match authority.strip_prefix('[') {
        Some(address) => {
            let (host, port) = address.split_once(']')?;
            (host, port.strip_prefix(':'))
        }
        None => authority.split_once(':').map_or((authority, None), |(host, port)| (host, Some(port))),
    };
    let port = match port {
        None | Some("") => usual,
        Some(port) => port.parse().ok()?,
    };
    (!host.is_empty() && !host.contains('@')).then(|| (host.to_ascii_lowercase(), port))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hosts_and_ports_of_urls() {
        for (url, expected) in [
            ("https://Idp.Example.com/keys?a#b", Some(("idp.example.com", 443))),
            ("http://idp.example.com:8080", Some(("idp.example.com", 8080))),
            ("http://idp.example.com:?x", Some(("idp.example.com", 80))),
            ("https://[::1]:8443/x", Some(("::1", 8443))),
            ("https://[::1]/x", Some(("::1", 443))),
            ("https://idp:99999/", None),
            ("https://user@idp/", None),
            ("https:///x", None),
            ("ftp://idp/", None),
            ("accounts.example.com", None),
        ] {
            let expected = expected.map(|(host, port)| (host.to_owned(), port));
            assert_eq!(host_and_port(url), expected, "{url}");
        }
    }
}
