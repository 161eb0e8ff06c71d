//! Certificates for other control planes, made where the root key is.

use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use pilotfish_identity::TrustDomain;
use rcgen::KeyPair;
use zeroize::Zeroizing;

use super::{CaError, TRUST_DOMAIN, files, issue};

/// A root with its key.
pub struct Root {
    certificate: String,
    key: Zeroizing<String>,
    domain: Option<TrustDomain>,
}

/// What was written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Files {
    /// Certificates, PEM.
    pub certificates: PathBuf,
    /// The key of the first one, PEM, mode 0600.
    pub key: PathBuf,
}

impl Root {
    /// The root of a control plane's data folder.
    ///
    /// # Errors
    /// Its certificate or its key is not there.
    pub fn of_data(data: &Path) -> Result<Root, CaError> {
        let folder = data.join("ca");
        let mut root = Root::read(&folder.join("root.pem"), &folder.join("root.key"))?;
        let domain = files::read(&folder.join("trust-domain"))?;
        root.domain = domain.and_then(|text| TrustDomain::parse(text.trim()).ok());
        Ok(root)
    }

    /// A root of two files.
    ///
    /// # Errors
    /// One of them cannot be read.
    pub fn read(certificate: &Path, key: &Path) -> Result<Root, CaError> {
        let key = Zeroizing::new(files::need(key)?);
        Ok(Root { certificate: files::need(certificate)?, key, domain: None })
    }

    /// Writes `ca.pem` (a new intermediate, then the root) and `ca.key`, valid from `now` for `ttl`.
    ///
    /// # Errors
    /// The files are there already or cannot be written, the root has ended, or its key is another one's.
    pub fn issue_into(
        &self,
        folder: &Path,
        domain: Option<&TrustDomain>,
        now: SystemTime,
        ttl: Duration,
    ) -> Result<Files, CaError> {
        let common =
            TrustDomain::parse(TRUST_DOMAIN).map_err(|error| CaError::Unusable(error.to_string()))?;
        let domain = domain.or(self.domain.as_ref()).unwrap_or(&common);
        let made = issue::issue_intermediate(&self.certificate, &self.key, domain, now, ttl)?;
        let certificates = format!("{}{}\n", made.certificate, self.certificate.trim());
        write_new(folder, ["ca.pem", "ca.key"], &certificates, &made.key)
    }
}

/// Writes `root.pem` and `root.key`.
///
/// # Errors
/// The files are there already or cannot be written.
pub fn new_root_into(folder: &Path, domain: &TrustDomain, now: SystemTime) -> Result<Files, CaError> {
    let key = KeyPair::generate().map_err(issue::failed)?;
    let certificate = issue::root(&key, domain, now)?;
    write_new(folder, ["root.pem", "root.key"], &certificate, &Zeroizing::new(key.serialize_pem()))
}

/// Never over a key that is there: it may be in use.
fn write_new(folder: &Path, names: [&str; 2], certificates: &str, key: &str) -> Result<Files, CaError> {
    files::make_folder(folder)?;
    let made = Files { certificates: folder.join(names[0]), key: folder.join(names[1]) };
    for path in [&made.certificates, &made.key] {
        if path.exists() {
            let why = "it is there already: give another folder to --out".to_owned();
            return Err(CaError::File { path: path.clone(), why });
        }
    }
    files::write(&made.key, key)?;
    files::write(&made.certificates, certificates)?;
    Ok(made)
}
