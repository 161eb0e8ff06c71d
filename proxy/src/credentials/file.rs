//! What files have, read anew when they change.

use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use arc_swap::ArcSwapOption;
use data_encoding::BASE64;
use pilotfish_config::model::{KeyPlace, Secret};
use pilotfish_filters::credentials::Credential;
use zeroize::Zeroizing;

use super::{How, Value};
use crate::server::Shared;
use crate::telemetry::log;

/// How often files are looked at.
const LOOK: Duration = Duration::from_secs(2);
/// The longest secret; longer than any header may be.
const LONGEST: u64 = 64 * 1024;

/// A secret of one or two files.
#[derive(Debug, Default)]
pub(super) struct OfFile {
    value: ArcSwapOption<Value>,
    known: Mutex<Known>,
}

/// What was there when it was looked at last.
#[derive(Debug, Default)]
struct Known {
    stamps: Vec<Option<Stamp>>,
    problem: Option<Box<str>>,
    number: u64,
}

/// Of a file: another is another content, as far as the file system can tell.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Stamp {
    file: (u64, u64),
    length: u64,
    changed: [(i64, i64); 2],
}

impl Stamp {
    fn of(path: &str) -> Option<Stamp> {
        let it = std::fs::metadata(path).ok()?;
        let changed = [(it.mtime(), it.mtime_nsec()), (it.ctime(), it.ctime_nsec())];
        Some(Stamp { file: (it.dev(), it.ino()), length: it.len(), changed })
    }
}

impl OfFile {
    fn known(&self) -> MutexGuard<'_, Known> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What it is now.
    pub fn value(&self) -> Result<Arc<Value>, String> {
        let value = self.value.load_full();
        value.ok_or_else(|| self.problem().unwrap_or_default())
    }

    /// Why there is none.
    pub fn problem(&self) -> Option<String> {
        self.known().problem.as_deref().map(str::to_owned)
    }

    /// Reads its files if they are not those that were read before.
    pub fn look(&self, credential: &Credential) {
        let stamps: Vec<_> = paths(&credential.secret).into_iter().map(Stamp::of).collect();
        let mut known = self.known();
        if known.stamps == stamps {
            return;
        }
        let first = known.stamps.is_empty();
        known.stamps = stamps;
        known.number += 1;
        match text(credential) {
            Ok(text) => {
                if !first {
                    log::info!("a credential was read anew", credential = credential.name);
                }
                known.problem = None;
                let value = Value { text, ends: None, renew: None, number: known.number };
                self.value.store(Some(Arc::new(value)));
            }
            // What was withdrawn is not shown any more.
            Err(why) => {
                log::warn!("a credential cannot be read", credential = credential.name, why = why);
                known.problem = Some(why.into());
                self.value.store(None);
            }
        }
    }
}

fn paths(secret: &Secret) -> Vec<&str> {
    match secret {
        Secret::Key { file, .. } => vec![file],
        Secret::Basic { username, password_file } => {
            username.as_ref().err().map(String::as_str).into_iter().chain([&**password_file]).collect()
        }
        _ => Vec::new(),
    }
}

/// What is shown.
fn text(credential: &Credential) -> Result<Zeroizing<String>, String> {
    let name = &credential.name;
    match &credential.secret {
        Secret::Key { place: KeyPlace::Header(_), prefix, file } => {
            Ok(Zeroizing::new(format!("{prefix}{}", &*read(name, file)?)))
        }
        Secret::Key { place: KeyPlace::Query(_), file, .. } => Ok(escape(&read(name, file)?)),
        Secret::Basic { username, password_file } => {
            let user = match username {
                Ok(user) => Zeroizing::new(user.clone()),
                Err(file) => read(name, file)?,
            };
            let pair = Zeroizing::new(format!("{}:{}", &*user, &*read(name, password_file)?));
            Ok(Zeroizing::new(format!("Basic {}", BASE64.encode(pair.as_bytes()))))
        }
        _ => Err("it is of another kind".into()),
    }
}

/// A secret: what a file has, without the white space around it.
///
/// # Errors
/// It cannot be read, or is none.
pub(super) fn read(credential: &str, path: &str) -> Result<Zeroizing<String>, String> {
    let of = std::fs::metadata(path).map_err(|error| format!("{path}: {error}"))?;
    if !of.is_file() || of.len() > LONGEST {
        return Err(format!("{path}: a secret is in a file of at most {LONGEST} bytes"));
    }
    if of.mode() & 0o007 != 0 {
        let advice = "chmod o-rwx";
        log::warn!(
            "everybody on the machine may read a secret",
            credential = credential,
            file = path,
            advice = advice
        );
    }
    let text = std::fs::read(Path::new(path)).map_err(|error| format!("{path}: {error}"))?;
    let text = Zeroizing::new(text);
    let secret = std::str::from_utf8(&text).map_err(|_| format!("{path}: the secret is not UTF-8"))?.trim();
    if secret.is_empty() {
        return Err(format!("{path}: the file is empty"));
    }
    if secret.chars().any(char::is_control) {
        return Err(format!("{path}: the secret has more than one line, or control characters"));
    }
    Ok(Zeroizing::new(secret.to_owned()))
}

/// As a form and a query have it: everything but letters, digits, `-`, `.`, `_` and `~` as `%` and two digits.
pub(super) fn escape(text: &str) -> Zeroizing<String> {
    let mut escaped = Zeroizing::new(String::with_capacity(text.len() * 3));
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) {
            escaped.push(char::from(byte));
        } else {
            let digit = |half: u8| char::from_digit(u32::from(half), 16).unwrap_or('0').to_ascii_uppercase();
            escaped.push('%');
            escaped.push(digit(byte >> 4));
            escaped.push(digit(byte & 15));
        }
    }
    escaped
}

/// Looks at the files for as long as there are some.
pub(super) async fn watch(shared: Arc<Shared>) {
    loop {
        tokio::time::sleep(LOOK).await;
        let all = shared.credentials.all();
        let mut files = 0;
        for live in &all {
            if let How::File(file) = &live.how {
                files += 1;
                file.look(&live.credential);
            }
        }
        let mut present = shared.credentials.present();
        if files == 0 && !present.all.iter().any(|live| matches!(live.how, How::File(_))) {
            present.watched = false;
            return;
        }
    }
}
