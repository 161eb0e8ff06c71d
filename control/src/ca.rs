//! The certificate authority: a root that may be taken away, an intermediate that signs, leaves for agents.
//!
//! | file in `DIR/ca` | what | when it is lost |
//! |---|---|---|
//! | `root.pem` | the root certificate: what everybody trusts | no leaf can be verified: restore it from a backup |
//! | `root.key` | its key, needed to make intermediates only: move it to a safe place after the first start | the intermediate ends within a year, then a new root is needed |
//! | `intermediate.pem` | the certificate that signs leaves, and its key | with `root.key`: a new one is made at the next start |
//! | `trust-domain` | the name of the mesh | it is asked for again |
//!
//! Keys are never in the store: every control plane has an intermediate of its own.

mod files;
mod issue;
pub mod offline;
#[cfg(test)]
mod tests;
pub mod tokens;
pub mod trust;

use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use arc_swap::ArcSwap;
use pilotfish_identity::{
    Bundles, Credentials, Fingerprint, KeyAndRequest, SpiffeId, TrustDomain, fingerprint, hex,
};
use rcgen::KeyPair;
use rustls::pki_types::CertificateDer;

use crate::api::types;
use issue::Signing;
pub use issue::{Intermediate, Name, YEAR, issue_intermediate};

/// The trust domain when nobody says one: Istio's, so that its policies' `principals` mean the same here.
pub const TRUST_DOMAIN: &str = "cluster.local";
/// How long leaves live: short, because revocation has to outlast them, as Istio's workload certificates.
pub const LEAF: Duration = Duration::from_secs(24 * 3600);
/// With less than this left a new intermediate is made.
const RENEW: Duration = Duration::from_secs(120 * 24 * 3600);
/// With less than this left, and no root key to make a new one, people are told.
const WARN: Duration = Duration::from_secs(60 * 24 * 3600);
/// A leaf that would end sooner is not worth signing.
const SHORTEST: Duration = Duration::from_secs(10);

/// The clock.
pub type Clock = Arc<dyn Fn() -> SystemTime + Send + Sync>;

/// Why the authority cannot do something. Never shows a key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum CaError {
    /// A file cannot be read or written.
    File {
        /// Which.
        path: PathBuf,
        /// Why.
        why: String,
    },
    /// The data folder belongs to another trust domain.
    OtherDomain {
        /// The one that the first start chose.
        stored: TrustDomain,
        /// The one that was asked for.
        wanted: TrustDomain,
    },
    /// The certificate or the key that signs cannot be used.
    Unusable(String),
    /// A signing request is not taken.
    Request(String),
    /// An identity of another trust domain.
    Foreign(SpiffeId),
    /// The intermediate has ended, and the root key is not there to make a new one.
    Ended,
    /// Cryptography failed, for want of randomness for example.
    Crypto(String),
}

impl fmt::Display for CaError {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            CaError::File { path, why } => write!(out, "{}: {why}", path.display()),
            CaError::OtherDomain { stored, wanted } => write!(
                out,
                "the data folder is for the trust domain {stored}, not {wanted}: leave --trust-domain out, or \
                 start with an empty --data to make a new mesh"
            ),
            CaError::Unusable(why) => write!(out, "the authority's certificate cannot be used: {why}"),
            CaError::Request(why) => write!(out, "the certificate signing request is not taken: {why}"),
            CaError::Foreign(id) => write!(out, "{id} is of another trust domain"),
            CaError::Ended => out.write_str(
                "the intermediate certificate is about to end or has ended, and root.key is not in the data folder: \
                 bring root.key back and restart, or make one with `pilotfish ca issue-intermediate` and start with \
                 --ca-cert and --ca-key",
            ),
            CaError::Crypto(why) => write!(out, "cryptography failed: {why}"),
        }
    }
}

impl std::error::Error for CaError {}

/// A signed leaf.
#[derive(Debug, Clone)]
pub struct Signed {
    /// The leaf, then the intermediates; PEM.
    pub chain: String,
    /// When it ends.
    pub expires: SystemTime,
}

/// What looking after the authority came to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Upkeep {
    /// Nothing was to do.
    Fine,
    /// A new intermediate signs from now on.
    Renewed,
    /// People have to do something.
    Warning(String),
}

/// Signs leaves.
pub struct Authority {
    domain: TrustDomain,
    folder: PathBuf,
    root: CertificateDer<'static>,
    root_pem: String,
    bundles: Bundles,
    signing: ArcSwap<Signing>,
    brought: bool,
    clock: Clock,
}

impl Authority {
    /// The authority of a data folder; the first start makes it. `domain`: what `--trust-domain` says.
    ///
    /// # Errors
    /// The folder cannot be used, belongs to another trust domain, or its certificates cannot be used.
    pub fn open(data: &Path, domain: Option<&TrustDomain>) -> Result<Authority, CaError> {
        Authority::open_at(data, domain, Arc::new(SystemTime::now))
    }

    /// The same by another clock.
    ///
    /// # Errors
    /// As [`Authority::open`].
    pub fn open_at(data: &Path, domain: Option<&TrustDomain>, clock: Clock) -> Result<Authority, CaError> {
        let folder = data.join("ca");
        files::make_folder(&folder)?;
        let domain = files::settle_domain(&folder, domain)?;
        let now = clock();
        if files::read(&folder.join("root.pem"))?.is_none() {
            first_start(&folder, &domain, now)?;
        }
        let root_pem = files::need(&folder.join("root.pem"))?;
        let signing = match files::read(&folder.join("intermediate.pem"))? {
            Some(text) => Signing::read(&text, &text)?,
            None => new_intermediate(&folder, &domain, &root_pem, now)?,
        };
        let authority = Authority::with(domain, folder, root_pem, signing, false, clock)?;
        authority.upkeep()?;
        authority.probe()?;
        Ok(authority)
    }

    /// An authority whose intermediate somebody else made: `certificates` (PEM) has it first, then what leads to its
    /// root, the root last. The data folder keeps the trust domain only.
    ///
    /// # Errors
    /// As [`Authority::open`]; the intermediate cannot sign leaves that peers would take.
    pub fn bring(
        data: &Path,
        domain: Option<&TrustDomain>,
        certificates: &Path,
        key: &Path,
    ) -> Result<Authority, CaError> {
        Authority::bring_at(data, domain, certificates, key, Arc::new(SystemTime::now))
    }

    /// The same by another clock.
    ///
    /// # Errors
    /// As [`Authority::bring`].
    pub fn bring_at(
        data: &Path,
        domain: Option<&TrustDomain>,
        certificates: &Path,
        key: &Path,
        clock: Clock,
    ) -> Result<Authority, CaError> {
        let folder = data.join("ca");
        files::make_folder(&folder)?;
        let domain = files::settle_domain(&folder, domain)?;
        let (chain, root_pem) = issue::split_root(&files::need(certificates)?)?;
        let signing = Signing::read(&chain, &files::need(key)?)?;
        let authority = Authority::with(domain, folder, root_pem, signing, true, clock)?;
        authority.probe()?;
        Ok(authority)
    }

    fn with(
        domain: TrustDomain,
        folder: PathBuf,
        root_pem: String,
        signing: Signing,
        brought: bool,
        clock: Clock,
    ) -> Result<Authority, CaError> {
        let bundles =
            Bundles::one(&domain, &root_pem).map_err(|error| CaError::Unusable(error.to_string()))?;
        let root = issue::certificate(&root_pem)?;
        let signing = ArcSwap::from_pointee(signing);
        Ok(Authority { domain, folder, root, root_pem, bundles, signing, brought, clock })
    }

    /// The trust domain.
    pub fn domain(&self) -> &TrustDomain {
        &self.domain
    }

    /// The root certificate, PEM.
    pub fn root_pem(&self) -> &str {
        &self.root_pem
    }

    /// SHA-256 of the root certificate: what join tokens carry.
    pub fn root(&self) -> Fingerprint {
        fingerprint(&self.root)
    }

    /// [`Authority::root`] as hexadecimal digits.
    pub fn fingerprint(&self) -> String {
        hex(&self.root())
    }

    /// When the intermediate ends.
    pub fn ends(&self) -> SystemTime {
        self.signing.load().ends
    }

    /// The root and the intermediate as `pilotfish trust` shows them.
    ///
    /// # Errors
    /// They cannot be read.
    pub fn describe(&self) -> Result<(types::Root, types::Root), CaError> {
        let intermediate = issue::certificate(&self.signing.load().chain)?;
        Ok((issue::describe(&self.domain, &self.root)?, issue::describe(&self.domain, &intermediate)?))
    }

    /// Whether a request (PEM) would be signed: to be asked before a token is spent on it.
    ///
    /// # Errors
    /// As [`Authority::sign`].
    pub fn check_request(&self, request: &str) -> Result<(), CaError> {
        issue::key_of_request(request).map(|_| ())
    }

    /// Signs a leaf for the key of a request (PEM), valid for `ttl`, never longer than the intermediate. Of the request
    /// only the key counts: the name is the caller's decision.
    ///
    /// # Errors
    /// The request is none, is not signed by its key, or the key's type is not taken.
    pub fn sign(&self, request: &str, id: &SpiffeId, ttl: Duration) -> Result<Signed, CaError> {
        self.sign_named(request, id, &[], ttl)
    }

    fn sign_named(
        &self,
        request: &str,
        id: &SpiffeId,
        names: &[Name],
        ttl: Duration,
    ) -> Result<Signed, CaError> {
        if *id.trust_domain() != self.domain {
            return Err(CaError::Foreign(id.clone()));
        }
        let key = issue::key_of_request(request)?;
        let now = (self.clock)();
        let signing = self.signing.load();
        let expires = (now + ttl).min(signing.ends);
        if expires < now + SHORTEST.min(ttl) {
            return Err(CaError::Ended);
        }
        let leaf = issue::leaf(&signing, &key, id, names, now, expires)?;
        Ok(Signed { chain: leaf + &signing.chain, expires })
    }

    /// A new key and certificate for the control plane `name` itself. `names`: what people's clients call it by. Its
    /// chain ends with the root, so that a sidecar that knows a fingerprint only is able to join.
    ///
    /// # Errors
    /// The name cannot be part of a SPIFFE ID, or [`Authority::sign`] fails.
    pub fn server_credentials(&self, name: &str, names: &[Name]) -> Result<Credentials, CaError> {
        let unusable = |error: &dyn fmt::Display| CaError::Unusable(error.to_string());
        let id = SpiffeId::control(&self.domain, name).map_err(|error| unusable(&error))?;
        let own = KeyAndRequest::new(&id).map_err(|error| CaError::Crypto(error.to_string()))?;
        let signed = self.sign_named(&own.csr_pem, &id, names, LEAF)?;
        Credentials::from_pem(&(signed.chain + &self.root_pem), &own.key_pem)
            .map_err(|error| unusable(&error))
    }

    /// Renews the intermediate when it is time; to be called every hour or so.
    ///
    /// # Errors
    /// A new one cannot be made or kept; the old one goes on signing.
    pub fn upkeep(&self) -> Result<Upkeep, CaError> {
        let now = (self.clock)();
        let left = self.ends().duration_since(now).unwrap_or_default();
        if left >= RENEW {
            return Ok(Upkeep::Fine);
        }
        let root_ends = issue::ends(&self.root)?;
        if !self.brought && root_ends > self.ends() && files::read(&self.folder.join("root.key"))?.is_some() {
            let next = new_intermediate(&self.folder, &self.domain, &self.root_pem, now)?;
            self.signing.store(Arc::new(next));
            return Ok(Upkeep::Renewed);
        }
        if left >= WARN {
            return Ok(Upkeep::Fine);
        }
        let days = left.as_secs() / 86_400;
        Ok(Upkeep::Warning(match (self.brought, root_ends > self.ends()) {
            (true, _) => format!("the certificate of --ca-cert ends in {days} days: replace it and restart"),
            (false, true) => {
                format!(
                    "the intermediate certificate ends in {days} days: bring root.key back into {}",
                    self.folder.display()
                )
            }
            (false, false) => format!(
                "the root certificate ends in {days} days: make another authority, `pilotfish trust add` its root, \
                 then restart with --ca-cert and --ca-key"
            ),
        }))
    }

    /// Signs a leaf and looks at it as a peer would: certificate and key fit, the chain leads to the root, nothing has
    /// ended, no constraint of names or lengths is in the way.
    fn probe(&self) -> Result<(), CaError> {
        let credentials = self.server_credentials("probe", &[])?;
        let checked = credentials.self_check(&self.bundles, (self.clock)());
        checked
            .map(|_| ())
            .map_err(|refused| CaError::Unusable(format!("peers would refuse its leaves: {refused}")))
    }
}

impl fmt::Debug for Authority {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "Authority({}, root {})", self.domain, self.fingerprint())
    }
}

/// Makes the root. The key is there before the certificate: a start that was interrupted between begins anew.
fn first_start(folder: &Path, domain: &TrustDomain, now: SystemTime) -> Result<(), CaError> {
    let intermediate = folder.join("intermediate.pem");
    if files::read(&intermediate)?.is_some() {
        let why = "root.pem is missing beside it: restore it from a backup".to_owned();
        return Err(CaError::File { path: intermediate, why });
    }
    let key = KeyPair::generate().map_err(issue::failed)?;
    let certificate = issue::root(&key, domain, now)?;
    files::write(&folder.join("root.key"), &zeroize::Zeroizing::new(key.serialize_pem()))?;
    files::write(&folder.join("root.pem"), &certificate)
}

/// Makes an intermediate and keeps it, certificate and key in one file, so that no crash parts them.
fn new_intermediate(
    folder: &Path,
    domain: &TrustDomain,
    root_pem: &str,
    now: SystemTime,
) -> Result<Signing, CaError> {
    let path = folder.join("root.key");
    let key = files::read(&path)?.ok_or(CaError::Ended)?;
    let made = issue_intermediate(root_pem, &key, domain, now, YEAR)?;
    let text = zeroize::Zeroizing::new(format!("{}{}", made.certificate, made.key.as_str()));
    files::write(&folder.join("intermediate.pem"), &text)?;
    Signing::read(&text, &text)
}
