//! Whom to trust: root certificates, by the trust domain that they speak for.

use std::collections::BTreeMap;
use std::fmt::{self, Write as _};
use std::ops::RangeInclusive;
use std::time::SystemTime;

use aws_lc_rs::digest::{Context, SHA256, digest};
use rustls::pki_types::{CertificateDer, TrustAnchor};

use crate::certificate;
use crate::credentials::IdentityError;
use crate::spiffe::TrustDomain;

/// SHA-256 of a certificate's DER.
pub type Fingerprint = [u8; 32];
/// Roots of one trust domain: two during a rotation; many more are a mistake.
const MOST_ROOTS: usize = 64;

/// SHA-256 of a certificate.
pub fn fingerprint(certificate: &CertificateDer<'_>) -> Fingerprint {
    let mut out = [0; 32];
    out.copy_from_slice(digest(&SHA256, certificate.as_ref()).as_ref());
    out
}

/// Lower-case hexadecimal digits.
pub fn hex(bytes: &[u8]) -> String {
    data_encoding::HEXLOWER.encode(bytes)
}

/// A root certificate.
#[derive(Debug, Clone)]
pub(crate) struct Root {
    pub(crate) fingerprint: Fingerprint,
    pub(crate) valid: RangeInclusive<SystemTime>,
}

/// Roots of one trust domain; `anchors[i]` is made of `roots[i]`.
#[derive(Debug, Clone, Default)]
pub(crate) struct Domain {
    pub(crate) roots: Vec<Root>,
    pub(crate) anchors: Vec<TrustAnchor<'static>>,
}

/// Root certificates by trust domain. A root speaks for its own domain only.
#[derive(Clone, Default)]
pub struct Bundles {
    domains: BTreeMap<TrustDomain, Domain>,
    digest: Fingerprint,
}

impl Bundles {
    /// Reads PEM texts with one or more root certificates each.
    ///
    /// # Errors
    /// Which trust domain's text is wrong, and how: a domain without a root, or one that is no authority's certificate.
    pub fn from_pem(texts: &BTreeMap<TrustDomain, String>) -> Result<Bundles, IdentityError> {
        let mut domains = BTreeMap::new();
        for (name, text) in texts {
            let wrong = |why: String| IdentityError::Bundle { domain: name.clone(), why };
            domains.insert(name.clone(), Domain::read(text).map_err(wrong)?);
        }
        let digest = digest_of(&domains);
        Ok(Bundles { domains, digest })
    }

    /// The same, with the names of trust domains as the control plane sends them.
    ///
    /// # Errors
    /// As [`Bundles::from_pem`], and a name that is no trust domain.
    pub fn from_wire(texts: &BTreeMap<String, String>) -> Result<Bundles, IdentityError> {
        let mut read = BTreeMap::new();
        for (name, text) in texts {
            let name = TrustDomain::parse(name).map_err(|error| IdentityError::Name(error.to_string()))?;
            read.insert(name, text.clone());
        }
        Bundles::from_pem(&read)
    }

    /// Roots of one trust domain.
    ///
    /// # Errors
    /// As [`Bundles::from_pem`].
    pub fn one(domain: &TrustDomain, pem: &str) -> Result<Bundles, IdentityError> {
        Bundles::from_pem(&BTreeMap::from([(domain.clone(), pem.to_owned())]))
    }

    /// One root that was found by its fingerprint.
    pub(crate) fn single(name: &TrustDomain, root: &CertificateDer<'_>) -> Result<Bundles, String> {
        let mut domain = Domain::default();
        domain.add(root)?;
        let domains = BTreeMap::from([(name.clone(), domain)]);
        let digest = digest_of(&domains);
        Ok(Bundles { domains, digest })
    }

    /// Trust domains that are known.
    pub fn domains(&self) -> impl Iterator<Item = &TrustDomain> {
        self.domains.keys()
    }

    /// Fingerprints of the roots, by trust domain.
    pub fn fingerprints(&self) -> BTreeMap<&TrustDomain, Vec<Fingerprint>> {
        let roots = |domain: &Domain| domain.roots.iter().map(|root| root.fingerprint).collect();
        self.domains.iter().map(|(name, domain)| (name, roots(domain))).collect()
    }

    /// Whether a root speaks for a trust domain: if not any more, what it authenticated has to end.
    pub fn has_root(&self, domain: &TrustDomain, root: &Fingerprint) -> bool {
        self.domain(domain).is_some_and(|domain| domain.roots.iter().any(|one| one.fingerprint == *root))
    }

    /// Changes whenever a root or a domain does, and only then.
    pub fn digest(&self) -> &Fingerprint {
        &self.digest
    }

    pub(crate) fn domain(&self, name: &TrustDomain) -> Option<&Domain> {
        self.domains.get(name)
    }
}

impl PartialEq for Bundles {
    fn eq(&self, other: &Bundles) -> bool {
        self.digest == other.digest
    }
}

impl Eq for Bundles {}

impl fmt::Debug for Bundles {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut text = String::new();
        for (name, domain) in &self.domains {
            for root in &domain.roots {
                let _ = write!(text, " {name}:{}", hex(&root.fingerprint));
            }
        }
        write!(out, "Bundles({})", text.trim_start())
    }
}

impl Domain {
    fn read(text: &str) -> Result<Domain, String> {
        let mut domain = Domain::default();
        for der in certificate::from_pem(text, MOST_ROOTS)? {
            let number = domain.roots.len() + 1;
            domain.add(&der).map_err(|why| format!("certificate {number}: {why}"))?;
        }
        if domain.roots.is_empty() { Err("there is no certificate in it".into()) } else { Ok(domain) }
    }

    fn add(&mut self, der: &CertificateDer<'_>) -> Result<(), String> {
        let parsed = certificate::parse(der)?;
        if !certificate::is_authority(&parsed) {
            return Err("it is no authority's (CA:TRUE, keyCertSign)".into());
        }
        let root = Root { fingerprint: fingerprint(der), valid: certificate::validity(&parsed) };
        let anchor = webpki::anchor_from_trusted_cert(der).map_err(|error| error.to_string())?;
        if !self.roots.iter().any(|known| known.fingerprint == root.fingerprint) {
            self.anchors.push(anchor.to_owned());
            self.roots.push(root);
        }
        Ok(())
    }
}

fn digest_of(domains: &BTreeMap<TrustDomain, Domain>) -> Fingerprint {
    let mut context = Context::new(&SHA256);
    for (name, domain) in domains {
        context.update(name.as_str().as_bytes());
        context.update(b"\n");
        let mut roots: Vec<_> = domain.roots.iter().map(|root| root.fingerprint).collect();
        roots.sort_unstable();
        for root in roots {
            context.update(b"=");
            context.update(&root);
        }
    }
    let mut out = [0; 32];
    out.copy_from_slice(context.finish().as_ref());
    out
}
