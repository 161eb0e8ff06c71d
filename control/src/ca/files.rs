//! The authority's files: for their owner only, and never half-written.

use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::Path;

use pilotfish_identity::TrustDomain;
use zeroize::Zeroizing;

use super::{CaError, TRUST_DOMAIN};

/// Longer than any certificate chain with its key.
const LONGEST: u64 = 256 << 10;

fn failed(path: &Path, error: &io::Error) -> CaError {
    CaError::File { path: path.to_owned(), why: error.to_string() }
}

/// Makes a folder (0700) when it is not there.
pub(super) fn make_folder(path: &Path) -> Result<(), CaError> {
    DirBuilder::new().recursive(true).mode(0o700).create(path).map_err(|error| failed(path, &error))
}

/// A file's text; none when there is no such file.
pub(super) fn read(path: &Path) -> Result<Option<Zeroizing<String>>, CaError> {
    match fs::metadata(path) {
        Ok(found) if found.len() > LONGEST => {
            return Err(CaError::File {
                path: path.to_owned(),
                why: "too long for a certificate or key".into(),
            });
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(failed(path, &error)),
        Ok(_) => {}
    }
    fs::read_to_string(path).map(|text| Some(Zeroizing::new(text))).map_err(|error| failed(path, &error))
}

/// A file's text; an error when there is no such file.
pub(super) fn need(path: &Path) -> Result<String, CaError> {
    let text = read(path)?.ok_or_else(|| failed(path, &io::ErrorKind::NotFound.into()))?;
    Ok(text.as_str().to_owned())
}

/// Replaces a file (0600) by renaming a finished one; after that it survives a crash of the machine.
pub(super) fn write(path: &Path, text: &str) -> Result<(), CaError> {
    let beside = path.with_extension("new");
    let written = write_beside(&beside, text).and_then(|()| fs::rename(&beside, path)).and_then(|()| {
        let folder = path.parent().unwrap_or(Path::new("."));
        File::open(folder)?.sync_all()
    });
    written.map_err(|error| {
        let _ = fs::remove_file(&beside);
        failed(path, &error)
    })
}

fn write_beside(path: &Path, text: &str) -> io::Result<()> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(path)?;
    file.write_all(text.as_bytes())?;
    file.sync_all()
}

/// The trust domain that the first start chose; this is the first start when there is none.
pub(super) fn settle_domain(folder: &Path, wanted: Option<&TrustDomain>) -> Result<TrustDomain, CaError> {
    let path = folder.join("trust-domain");
    let parse = |text: &str| {
        let why =
            |error: &dyn std::fmt::Display| CaError::File { path: path.clone(), why: error.to_string() };
        TrustDomain::parse(text.trim()).map_err(|error| why(&error))
    };
    match (read(&path)?, wanted) {
        (Some(stored), wanted) => {
            let stored = parse(&stored)?;
            match wanted {
                Some(wanted) if *wanted != stored => {
                    Err(CaError::OtherDomain { stored, wanted: wanted.clone() })
                }
                _ => Ok(stored),
            }
        }
        (None, wanted) => {
            let domain = wanted.map_or_else(|| parse(TRUST_DOMAIN), |wanted| Ok(wanted.clone()))?;
            write(&path, &format!("{domain}\n"))?;
            Ok(domain)
        }
    }
}
