//! Identity from files: certificate, key and trust bundle, taken anew when they change.
//!
//! What is not valid as a whole is refused, and the last good identity stays: the key has to fit the certificate, and the
//! chain has to verify by the bundle. The three are seldom written at one instant, so a change waits until nothing moves.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::mpsc::{RecvTimeoutError, Sender, channel};
use std::time::Instant;

use notify::{EventKind, RecommendedWatcher, RecursiveMode, Watcher};
use pilotfish_identity::{Bundles, Credentials, LiveIdentity, TrustDomain};

use crate::bootstrap::Settings;
use crate::source::file::{Debounce, Fingerprint, LOOK, fingerprint};
use crate::telemetry::log;

/// A file is at most so long: a chain and a bundle of many roots are some hundred KiB.
const LARGEST: u64 = 4 << 20;

/// Where the identity is.
#[derive(Debug, Clone)]
pub struct IdentityFiles {
    /// The chain, leaf first, PEM.
    pub certificate: PathBuf,
    /// Its private key, PEM.
    pub key: PathBuf,
    /// Roots of the trust domain, PEM.
    pub bundle: PathBuf,
    /// The trust domain that the certificate has to be of.
    pub trust_domain: Option<String>,
}

impl IdentityFiles {
    /// What the flags name; `None` when they name none.
    pub fn of(settings: &Settings) -> Option<IdentityFiles> {
        Some(IdentityFiles {
            certificate: settings.identity_cert.clone()?,
            key: settings.identity_key.clone()?,
            bundle: settings.trust_bundle.clone()?,
            trust_domain: settings.trust_domain.clone(),
        })
    }

    fn paths(&self) -> [&Path; 3] {
        [&self.certificate, &self.key, &self.bundle]
    }

    /// What tells these files from others; taken before they are read, so that no change in between is missed.
    pub fn looks(&self) -> [Fingerprint; 3] {
        self.paths().map(fingerprint)
    }

    /// Reads all three and puts them in force when they are good together.
    ///
    /// # Errors
    /// Which file is wrong, and how; nothing has changed then.
    pub fn take(&self, live: &LiveIdentity) -> Result<(), String> {
        let chain = read(&self.certificate)?;
        let key = zeroize::Zeroizing::new(read(&self.key)?);
        let credentials = Credentials::from_pem(&chain, &key)
            .map_err(|error| format!("{} and {}: {error}", self.certificate.display(), self.key.display()))?;
        let domain = credentials.id.trust_domain().clone();
        if let Some(wanted) = &self.trust_domain {
            let wanted = TrustDomain::parse(wanted).map_err(|error| format!("--trust-domain: {error}"))?;
            if wanted != domain {
                let path = self.certificate.display();
                return Err(format!(
                    "{path}: the certificate is of {domain}, and --trust-domain says {wanted}"
                ));
            }
        }
        let named = |error: &dyn std::fmt::Display| format!("{}: {error}", self.bundle.display());
        let bundles = Bundles::one(&domain, &read(&self.bundle)?).map_err(|error| named(&error))?;
        let checked = credentials.self_check(&bundles, live.now());
        checked.map_err(|error| {
            format!("{} by {}: {error}", self.certificate.display(), self.bundle.display())
        })?;
        let (credentials, bundles) = (Arc::new(credentials), Arc::new(bundles));
        live.update(|identity| {
            identity.credentials = Some(credentials.clone());
            identity.bundles = bundles.clone();
        });
        Ok(())
    }

    /// Follows the files on a thread of its own, for the life of the process. `taken` is how those looked that are in force.
    ///
    /// # Errors
    /// No thread.
    pub fn follow(self, live: Arc<LiveIdentity>, taken: [Fingerprint; 3]) -> std::io::Result<()> {
        std::thread::Builder::new().name("identity".into()).spawn(move || self.run(&live, taken))?;
        Ok(())
    }

    fn run(self, live: &LiveIdentity, mut taken: [Fingerprint; 3]) {
        let (bell, events) = channel();
        let _watchers = self.watch(&bell);
        let mut debounce = Debounce::default();
        let mut seen = taken;
        // At once: something may have changed before anybody watched.
        let mut look = Instant::now();
        loop {
            let until = debounce.due().map_or(look, |due| due.min(look));
            match events.recv_timeout(until.saturating_duration_since(Instant::now())) {
                Ok(()) => debounce.touched(Instant::now()),
                Err(RecvTimeoutError::Timeout) => {}
                // `bell` is held here, so the channel does not end.
                Err(RecvTimeoutError::Disconnected) => return,
            }
            let now = Instant::now();
            if now >= look {
                look = now + LOOK;
                let looks = self.looks();
                if looks != seen {
                    seen = looks;
                    debounce.touched(now);
                }
            }
            if debounce.take(now) {
                let before = self.looks();
                if before != taken {
                    let result = self.take(live);
                    if self.looks() == before {
                        (taken, seen) = (before, before);
                        say(&result, live);
                    } else {
                        // Half of it may be old; if that was good together, it serves until the rest is there.
                        debounce.touched(Instant::now());
                    }
                }
            }
        }
    }

    /// Watches the files' folders: a rename over a file is an event of its folder.
    fn watch(&self, bell: &Sender<()>) -> Vec<RecommendedWatcher> {
        let mut folders: Vec<&Path> = self.paths().into_iter().filter_map(Path::parent).collect();
        folders.sort_unstable();
        folders.dedup();
        let watch = |folder: &Path| {
            let bell = bell.clone();
            let told = move |event: notify::Result<notify::Event>| {
                if !matches!(event, Ok(notify::Event { kind: EventKind::Access(_), .. })) {
                    let _ = bell.send(());
                }
            };
            let folder = if folder.as_os_str().is_empty() { Path::new(".") } else { folder };
            let mut watcher = notify::recommended_watcher(told)?;
            watcher.watch(folder, RecursiveMode::NonRecursive)?;
            notify::Result::Ok(watcher)
        };
        folders.into_iter().filter_map(|folder| watch(folder).ok()).collect()
    }
}

fn read(path: &Path) -> Result<String, String> {
    let named = |error: std::io::Error| format!("{}: {error}", path.display());
    let length = std::fs::metadata(path).map_err(named)?.len();
    if length > LARGEST {
        return Err(format!("{}: larger than {} MiB", path.display(), LARGEST >> 20));
    }
    std::fs::read_to_string(path).map_err(named)
}

fn say(result: &Result<(), String>, live: &LiveIdentity) {
    match (result, &live.load().credentials) {
        (Ok(()), Some(own)) => log::info!("identity taken", id = own.id),
        (Ok(()), None) => {}
        (Err(why), _) => log::error!("identity refused, the last good one stays", why = why),
    }
}
