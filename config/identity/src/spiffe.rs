//! SPIFFE IDs and trust domains (SPIFFE-ID specification, sections 2.1 to 2.4).

use std::fmt;
use std::sync::Arc;

/// A SPIFFE ID has at most this many bytes (section 2.4).
const LONGEST: usize = 2048;
/// A trust domain has at most this many bytes (section 2.4).
const LONGEST_DOMAIN: usize = 255;
/// The namespace of the mesh's own parts.
const SYSTEM: &str = "pilotfish-system";

/// Why a text is no SPIFFE ID or no trust domain.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NotSpiffe(String);

impl fmt::Display for NotSpiffe {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(&self.0)
    }
}

impl std::error::Error for NotSpiffe {}

/// The name of one authority's mesh: lower-case letters, digits, `.`, `-` and `_`.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct TrustDomain(Arc<str>);

impl TrustDomain {
    /// Reads a name, without `spiffe://`.
    ///
    /// # Errors
    /// It is empty, too long, or has a byte that a trust domain may not have.
    pub fn parse(text: &str) -> Result<TrustDomain, NotSpiffe> {
        let good = |byte: u8| matches!(byte, b'a'..=b'z' | b'0'..=b'9' | b'.' | b'-' | b'_');
        if text.is_empty() || text.len() > LONGEST_DOMAIN || !text.bytes().all(good) {
            let shown: String = text.chars().take(64).collect();
            let rule = "lower-case letters, digits, `.`, `-` and `_`";
            return Err(NotSpiffe(format!("`{}` is not a trust domain ({rule})", shown.escape_debug())));
        }
        Ok(TrustDomain(text.into()))
    }

    /// The name.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for TrustDomain {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(&self.0)
    }
}

/// An identity, `spiffe://<trust domain>/<path>`. Agents have the path `/ns/<namespace>/agent/<name>`.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct SpiffeId {
    text: Arc<str>,
    domain: TrustDomain,
}

impl SpiffeId {
    /// Reads `spiffe://domain/path`; a path is required, since an ID without one names no workload.
    ///
    /// # Errors
    /// What the SPIFFE-ID specification forbids: another scheme, a port, a query, empty or dot segments.
    pub fn parse(text: &str) -> Result<SpiffeId, NotSpiffe> {
        let bad = |why: &str| {
            let shown: String = text.chars().take(96).collect();
            NotSpiffe(format!("`{}` is not a SPIFFE ID: {why}", shown.escape_debug()))
        };
        if text.len() > LONGEST {
            return Err(bad("longer than 2048 bytes"));
        }
        let rest = text.strip_prefix("spiffe://").ok_or_else(|| bad("it does not start with spiffe://"))?;
        let (domain, path) = rest.split_once('/').ok_or_else(|| bad("it has no path"))?;
        let domain = TrustDomain::parse(domain)?;
        let good = |byte: u8| matches!(byte, b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'.' | b'-' | b'_');
        for segment in path.split('/') {
            if segment.is_empty() || segment == "." || segment == ".." {
                return Err(bad("a segment of its path is empty, `.` or `..`"));
            }
            if !segment.bytes().all(good) {
                return Err(bad("its path may have letters, digits, `.`, `-` and `_` only"));
            }
        }
        Ok(SpiffeId { text: text.into(), domain })
    }

    /// The identity of an agent.
    ///
    /// # Errors
    /// A name that cannot be a segment of a path.
    pub fn agent(domain: &TrustDomain, namespace: &str, agent: &str) -> Result<SpiffeId, NotSpiffe> {
        SpiffeId::workload(domain, namespace, "agent", agent)
    }

    /// The identity of a service account, as Istio writes it.
    ///
    /// # Errors
    /// A name that cannot be a segment of a path.
    pub fn service_account(
        domain: &TrustDomain,
        namespace: &str,
        account: &str,
    ) -> Result<SpiffeId, NotSpiffe> {
        SpiffeId::workload(domain, namespace, "sa", account)
    }

    /// The identity of a control plane.
    ///
    /// # Errors
    /// A name that cannot be a segment of a path.
    pub fn control(domain: &TrustDomain, name: &str) -> Result<SpiffeId, NotSpiffe> {
        SpiffeId::workload(domain, SYSTEM, "control", name)
    }

    /// The identity of a node, which starts agents.
    ///
    /// # Errors
    /// A name that cannot be a segment of a path.
    pub fn node(domain: &TrustDomain, name: &str) -> Result<SpiffeId, NotSpiffe> {
        SpiffeId::workload(domain, SYSTEM, "node", name)
    }

    /// A name with a `/` would make another path of it.
    fn workload(
        domain: &TrustDomain,
        namespace: &str,
        kind: &str,
        name: &str,
    ) -> Result<SpiffeId, NotSpiffe> {
        if let Some(bad) = [namespace, name].iter().find(|part| part.contains('/')) {
            let shown: String = bad.chars().take(64).collect();
            return Err(NotSpiffe(format!("`{}` is no name: it has a `/`", shown.escape_debug())));
        }
        SpiffeId::parse(&format!("spiffe://{domain}/ns/{namespace}/{kind}/{name}"))
    }

    /// The whole ID.
    pub fn as_str(&self) -> &str {
        &self.text
    }

    /// Its trust domain.
    pub fn trust_domain(&self) -> &TrustDomain {
        &self.domain
    }

    /// Namespace and name, when it is an agent's.
    pub fn as_agent(&self) -> Option<(&str, &str)> {
        self.named("agent")
    }

    /// Namespace and name, when it is a service account's.
    pub fn as_service_account(&self) -> Option<(&str, &str)> {
        self.named("sa")
    }

    /// The name, when it is a control plane's.
    pub fn as_control(&self) -> Option<&str> {
        self.named("control").filter(|(namespace, _)| *namespace == SYSTEM).map(|(_, name)| name)
    }

    /// The node's name, if it is one.
    pub fn as_node(&self) -> Option<&str> {
        self.named("node").filter(|(namespace, _)| *namespace == SYSTEM).map(|(_, name)| name)
    }

    fn named(&self, what: &str) -> Option<(&str, &str)> {
        let path = self.text.get("spiffe://".len() + self.domain.as_str().len()..)?;
        let mut parts = path.strip_prefix("/ns/")?.split('/');
        let (namespace, kind, name) = (parts.next()?, parts.next()?, parts.next()?);
        (kind == what && parts.next().is_none()).then_some((namespace, name))
    }
}

impl fmt::Display for SpiffeId {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(&self.text)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_agents_identity_reads_back() {
        let domain = TrustDomain::parse("mesh.example").unwrap();
        let id = SpiffeId::agent(&domain, "production", "planner").unwrap();
        assert_eq!(id.as_str(), "spiffe://mesh.example/ns/production/agent/planner");
        let read = SpiffeId::parse(id.as_str()).unwrap();
        assert_eq!(read.as_agent(), Some(("production", "planner")));
        assert_eq!(read.as_service_account(), None);
        assert_eq!(read.trust_domain(), &domain);
        assert_eq!(read.as_control(), None);
        let control = SpiffeId::control(&domain, "c1").unwrap();
        assert_eq!((control.as_control(), control.as_agent()), (Some("c1"), None));
        assert_eq!(SpiffeId::parse("spiffe://d/ns/other/control/c1").unwrap().as_control(), None);
        let node = SpiffeId::node(&domain, "n1").unwrap();
        assert_eq!((node.as_node(), node.as_agent(), node.as_control()), (Some("n1"), None, None));
        let account = SpiffeId::service_account(&domain, "n", "s").unwrap();
        assert_eq!(account.as_service_account(), Some(("n", "s")));
    }

    #[test]
    fn what_the_specification_forbids_is_refused() {
        for bad in [
            "",
            "spiffe://",
            "spiffe://d",
            "spiffe://d/",
            "spiffe:///p",
            "SPIFFE://d/p",
            "https://d/p",
            "spiffe://D/p",
            "spiffe://d:80/p",
            "spiffe://u@d/p",
            "spiffe://d/p?q",
            "spiffe://d/p#f",
            "spiffe://d/a//b",
            "spiffe://d/a/",
            "spiffe://d/./b",
            "spiffe://d/../b",
            "spiffe://d/%41",
            "spiffe://d/a b",
            "spiffe://d/\u{e9}",
        ] {
            assert!(SpiffeId::parse(bad).is_err(), "{bad}");
        }
        assert!(SpiffeId::parse(&format!("spiffe://d/{}", "a".repeat(3000))).is_err());
        assert!(TrustDomain::parse(&"a".repeat(256)).is_err());
        let domain = TrustDomain::parse("d").unwrap();
        for bad in ["", "a/b", "..", "a b"] {
            assert!(
                SpiffeId::agent(&domain, bad, "x").is_err() && SpiffeId::agent(&domain, "x", bad).is_err()
            );
        }
    }
}
