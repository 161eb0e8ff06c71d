//! Host names as rules name them: full names, `*.suffix` wildcards and `*`.

use std::fmt;
use std::ops::Deref;
use std::sync::Arc;

/// A host in lower case: a full name, an IP address, `*.suffix` or `*`. Short names are already resolved.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Host(Arc<str>);

impl Host {
    /// Resolves `name` as Istio does: a name without a dot becomes `<name>.<namespace>.svc.cluster.local`;
    /// `*`, wildcards, IP addresses and dotted names stay as they are, in lower case.
    pub fn resolve(name: &str, namespace: &str) -> Host {
        let plain = name.contains(['.', '*', ':']) || name.is_empty();
        if plain {
            Host(name.to_ascii_lowercase().into())
        } else {
            Host(format!("{}.{namespace}.svc.cluster.local", name.to_ascii_lowercase()).into())
        }
    }

    /// `name` in lower case, not resolved: a name to look up, written in full.
    pub fn verbatim(name: &str) -> Host {
        Host(name.to_ascii_lowercase().into())
    }

    /// The name as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Whether it starts with `*`.
    pub fn is_wildcard(&self) -> bool {
        self.0.starts_with('*')
    }

    /// Whether `name` (lower case, without a port) is this host or covered by this wildcard.
    /// `*.example.com` covers `a.example.com` and `a.b.example.com`, not `example.com`.
    pub fn covers(&self, name: &str) -> bool {
        match self.0.strip_prefix('*') {
            Some(suffix) => name.len() > suffix.len() && name.ends_with(suffix),
            None => &*self.0 == name,
        }
    }

    /// The capability that `<capability>.capability.mesh` asks for.
    pub fn capability(&self) -> Option<&str> {
        self.0.strip_suffix(".capability.mesh").filter(|name| !name.is_empty() && !name.contains('*'))
    }
}

impl Deref for Host {
    type Target = str;
    fn deref(&self) -> &str {
        &self.0
    }
}

impl std::borrow::Borrow<str> for Host {
    fn borrow(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Host {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}", &*self.0)
    }
}

impl fmt::Display for Host {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::Host;

    #[test]
    fn short_names_resolve_in_the_namespace_and_others_stay() {
        for (name, full) in [
            ("Reviews", "reviews.prod.svc.cluster.local"),
            ("*", "*"),
            ("*.Example.com", "*.example.com"),
            ("a.b", "a.b"),
            ("::1", "::1"),
        ] {
            assert_eq!(Host::resolve(name, "prod").as_str(), full);
        }
    }

    #[test]
    fn a_wildcard_covers_what_is_longer_than_its_suffix() {
        let wildcard = Host::resolve("*.example.com", "d");
        assert!(wildcard.covers("a.b.example.com"));
        assert!(!wildcard.covers("example.com"));
        assert!(!wildcard.covers(".example.com"));
        assert!(Host::resolve("*", "d").covers("x"));
        assert_eq!(Host::resolve("nlu.capability.mesh", "d").capability(), Some("nlu"));
    }
}
