//! OutboundCredentials of one sidecar: what it shows to which host on its agent's behalf.
//!
//! Only which one it is: the secret itself is not part of a plan.

use std::fmt;
use std::sync::Arc;

use pilotfish_config::model::Secret;
use zeroize::Zeroizing;

use crate::route::hash::FixedMap;

/// The longest name of a host (RFC 1035 section 2.3.4), a last dot included.
const LONGEST_NAME: usize = 254;

/// One credential.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Credential {
    /// `namespace/name` of its document.
    pub name: Box<str>,
    /// The hosts that it is for, as written.
    pub hosts: Box<[Box<str>]>,
    /// Over plaintext too, and over TLS that is not verified.
    pub insecure: bool,
    /// Where the secret is to be had.
    pub secret: Secret,
}

/// Those that are for this sidecar, by host.
#[derive(Debug, Default)]
pub struct Credentials {
    pub(crate) all: Box<[Arc<Credential>]>,
    pub(crate) names: FixedMap<Box<str>, u32>,
    /// `.example.com`, the longest first.
    pub(crate) below: Box<[(Box<str>, u32)]>,
    pub(crate) exchanges: bool,
}

impl Credential {
    /// Whether it is for whom the inbound call came from.
    pub fn is_for_another(&self) -> bool {
        matches!(&self.secret, Secret::Exchange(_, exchange) if exchange.subject_file.is_none())
    }
}

impl Credentials {
    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.all.is_empty()
    }

    /// All of them; [`Credentials::of`] gives places in this list.
    pub fn all(&self) -> &[Arc<Credential>] {
        &self.all
    }

    /// Whether tokens of inbound calls are exchanged for others, so that they have to be kept for as long as their calls are served.
    pub fn exchanges(&self) -> bool {
        self.exchanges
    }

    /// The one for a host (`host` or `host:port`, in any case, perhaps with a last dot), by its place in [`Credentials::all`].
    pub fn of(&self, authority: &str) -> Option<usize> {
        if self.all.is_empty() {
            return None;
        }
        let mut buffer = [0; LONGEST_NAME];
        let host = host(authority, &mut buffer)?;
        let at = match self.names.get(host) {
            Some(at) => at,
            None => self.below.iter().find(|(below, _)| is_below(host, below)).map(|(_, at)| at)?,
        };
        Some(*at as usize)
    }
}

/// The valid token of an inbound call, for as long as the call is served, to be exchanged for others.
pub struct SubjectToken {
    text: Zeroizing<Box<str>>,
    /// SHA-256 of it.
    pub digest: [u8; 32],
}

impl SubjectToken {
    /// A token that was valid.
    pub fn new(text: &str, digest: [u8; 32]) -> Self {
        SubjectToken { text: Zeroizing::new(text.into()), digest }
    }

    /// It itself.
    pub fn expose(&self) -> &str {
        &self.text
    }
}

impl fmt::Debug for SubjectToken {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str("(secret)")
    }
}

fn is_below(host: &str, below: &str) -> bool {
    host.len() > below.len() && host.ends_with(below)
}

/// The host of an authority in lower case, without port and last dot. Addresses have no credentials.
fn host<'b>(authority: &str, buffer: &'b mut [u8; LONGEST_NAME]) -> Option<&'b str> {
    let host = match authority.rsplit_once(':') {
        Some((host, port)) if port.bytes().all(|b| b.is_ascii_digit()) => host,
        Some(_) => return None,
        None => authority,
    };
    let host = host.strip_suffix('.').unwrap_or(host);
    let plain = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'.' | b'_');
    if host.is_empty() || !host.bytes().all(plain) {
        return None;
    }
    let lower = buffer.get_mut(..host.len())?;
    lower.copy_from_slice(host.as_bytes());
    lower.make_ascii_lowercase();
    std::str::from_utf8(lower).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn credentials(hosts: &[&str]) -> Credentials {
        let credential = |host: &&str| {
            Arc::new(Credential {
                name: (*host).into(),
                hosts: [Box::from(*host)].into(),
                insecure: false,
                secret: Secret::Basic { username: Ok("a".into()), password_file: "/p".into() },
            })
        };
        let all = hosts.iter().map(credential).collect();
        crate::compile::credentials::by_host(all)
    }

    #[test]
    fn the_most_exact_host_decides_in_every_spelling() {
        let all = credentials(&["*.example.com", "api.example.com", "*.eu.example.com"]);
        for (authority, expected) in [
            ("api.example.com", Some("api.example.com")),
            ("API.Example.COM:8443", Some("api.example.com")),
            ("api.example.com.", Some("api.example.com")),
            ("api.example.com.:443", Some("api.example.com")),
            ("x.example.com", Some("*.example.com")),
            ("x.api.example.com", Some("*.example.com")),
            ("x.eu.example.com", Some("*.eu.example.com")),
            ("eu.example.com", Some("*.example.com")),
            ("example.com", None),
            (".example.com", None),
            ("notexample.com", None),
            ("api.example.com.evil.test", None),
            ("api.example.com:443:80", None),
            ("api.example.com:", Some("api.example.com")),
            ("api.example.com:x", None),
            ("user@api.example.com", None),
            ("api.example.com/x", None),
            ("api.example.com\0.evil.test", None),
            ("[::1]:80", None),
            ("", None),
        ] {
            let found = all.of(authority).map(|at| &*all.all()[at].name);
            assert_eq!(found, expected, "{authority:?}");
        }
        assert_eq!(all.of(&format!("{}.example.com", "a".repeat(300))), None);
        assert_eq!(Credentials::default().of("api.example.com"), None);
    }
}
