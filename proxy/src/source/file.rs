//! A file or folder as the source of configuration: watch it, wait until it is quiet, load.
//!
//! `notify` tells of changes at once. It cannot tell of everything (a folder that was deleted and made again, a
//! network file system, a symbolic link to elsewhere), so the folder is also looked at every [`LOOK`].

use std::hash::{DefaultHasher, Hash, Hasher};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender};
use std::time::{Duration, Instant, SystemTime};

use notify::{EventKind, RecommendedWatcher, RecursiveMode, Watcher};

use super::{Prepared, Publisher};
use crate::telemetry::log;

/// How long nothing may change before the folder is read: several files are written one after the other.
pub const QUIET: Duration = Duration::from_millis(75);

/// After so much quiet the folder is read ahead, once in a burst: if nothing changes until [`QUIET`] is over, which is
/// the rule, the new configuration is ready by then.
const AHEAD: Duration = Duration::from_millis(5);

/// The longest that changes without a pause can put a reload off.
const AT_LATEST: Duration = Duration::from_secs(1);

/// How often the folder is looked at without an event.
pub const LOOK: Duration = Duration::from_secs(2);

/// How often replaced snapshots are looked at while a request may still hold one.
const BURY: Duration = Duration::from_millis(200);

/// What wakes the configuration thread.
#[derive(Debug)]
pub enum Event {
    /// Something in the folder may have changed.
    Touched,
    /// Names resolve to other addresses now.
    Resolved,
    /// The control plane sent something.
    Update(Box<super::control::Offer>),
    /// The process ends.
    Stop,
}

/// Decides when a burst of changes is over. Time is passed in.
#[derive(Debug, Default)]
pub struct Debounce {
    first: Option<Instant>,
    last: Option<Instant>,
    read_ahead: bool,
}

impl Debounce {
    /// Something changed at `now`.
    pub fn touched(&mut self, now: Instant) {
        self.first.get_or_insert(now);
        self.last = Some(now);
    }

    /// When the burst is over: after [`QUIET`], [`AT_LATEST`] after its start; `None` when nothing changed.
    pub fn due(&self) -> Option<Instant> {
        let (first, last) = (self.first?, self.last?);
        Some((last + QUIET).min(first + AT_LATEST))
    }

    /// When the folder is worth reading ahead: after [`AHEAD`], once in a burst.
    pub fn ahead(&self) -> Option<Instant> {
        self.last.filter(|_| !self.read_ahead).map(|last| last + AHEAD)
    }

    /// Whether the folder is to be read ahead at `now`; if so, not again in this burst.
    pub fn take_ahead(&mut self, now: Instant) -> bool {
        let worth = self.ahead().is_some_and(|ahead| ahead <= now);
        self.read_ahead |= worth;
        worth
    }

    /// Whether the burst is over at `now`; if so, it is forgotten.
    pub fn take(&mut self, now: Instant) -> bool {
        let over = self.due().is_some_and(|due| due <= now);
        if over {
            *self = Debounce::default();
        }
        over
    }
}

/// What a file or folder looked like: names, sizes, times and inodes of the files that are read. Equal fingerprints
/// mean that nothing has to be read again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Fingerprint(u64);

/// The fingerprint of `path` now; symbolic links are followed, so a swap of Kubernetes' `..data` shows.
pub fn fingerprint(path: &Path) -> Fingerprint {
    let mut files = vec![path.to_owned()];
    if let Ok(entries) = std::fs::read_dir(path) {
        let is_yaml = |file: &PathBuf| file.extension().is_some_and(|e| e == "yaml" || e == "yml");
        files.extend(entries.filter_map(|entry| Some(entry.ok()?.path())).filter(is_yaml));
        files.sort_unstable();
    }
    let mut hasher = DefaultHasher::new();
    for file in files {
        file.hash(&mut hasher);
        if let Ok(meta) = std::fs::metadata(&file) {
            let folder = meta.is_dir();
            // A folder's own time changes with files that are not read; its inode tells a new folder from the old.
            let of_file =
                (!folder).then(|| (meta.size(), meta.mtime(), meta.mtime_nsec(), meta.ctime_nsec()));
            (meta.dev(), meta.ino(), folder, of_file).hash(&mut hasher);
        }
    }
    Fingerprint(hasher.finish())
}

/// Watches `path` until the process ends; runs on the configuration thread.
#[derive(Debug)]
pub struct FileSource {
    publisher: Publisher,
    path: PathBuf,
    events: Receiver<Event>,
    bell: Sender<Event>,
    watcher: Option<RecommendedWatcher>,
    /// The folder that is watched: another one may take its name, and its inode too.
    watched: Option<(u64, u64, Option<SystemTime>)>,
    debounce: Debounce,
    /// What was read ahead, and what the folder looked like before.
    ahead: Option<(Fingerprint, Prepared)>,
    /// What was read last, good or not.
    read: Fingerprint,
    /// What was seen last without an event.
    seen: Fingerprint,
}

impl FileSource {
    /// A source that has published `path` already when it looked like `read`. `events` is the other end of `bell`.
    pub fn new(
        publisher: Publisher,
        path: PathBuf,
        read: Fingerprint,
        bell: Sender<Event>,
        events: Receiver<Event>,
    ) -> Self {
        let mut source = FileSource {
            publisher,
            path,
            events,
            bell,
            watcher: None,
            watched: None,
            debounce: Debounce::default(),
            ahead: None,
            read,
            seen: read,
        };
        source.watch();
        source
    }

    /// Serves events until [`Event::Stop`].
    pub fn run(mut self) {
        let mut look = Instant::now() + LOOK;
        let mut graves = false;
        loop {
            let graves_at = graves.then(|| Instant::now() + BURY);
            let wakes = [self.debounce.due(), self.debounce.ahead(), graves_at];
            let until = wakes.into_iter().flatten().fold(look, Instant::min);
            match self.events.recv_timeout(until.saturating_duration_since(Instant::now())) {
                Ok(Event::Touched) => {
                    self.ahead = None;
                    self.debounce.touched(Instant::now());
                }
                Ok(Event::Resolved) => self.resolved(),
                Ok(Event::Stop) | Err(RecvTimeoutError::Disconnected) => return,
                Ok(Event::Update(_)) | Err(RecvTimeoutError::Timeout) => {}
            }
            let now = Instant::now();
            if now >= look {
                look = self.look(now);
            }
            if self.debounce.take(now) {
                self.settled();
            } else if self.debounce.take_ahead(now) {
                self.ahead = self.changed().map(|before| {
                    self.seen = before;
                    (before, self.publisher.prepare())
                });
            }
            graves = self.publisher.bury();
        }
    }

    /// Looks at the folder without an event; gives when to look next: rarer when looking is slow.
    fn look(&mut self, now: Instant) -> Instant {
        let fingerprint = fingerprint(&self.path);
        if fingerprint != self.seen {
            self.seen = fingerprint;
            self.debounce.touched(now);
        }
        let cost = now.elapsed();
        now + LOOK.max(cost * 1000)
    }

    /// What the folder looks like, if that is not what was read last.
    fn changed(&self) -> Option<Fingerprint> {
        Some(fingerprint(&self.path)).filter(|now| *now != self.read)
    }

    /// The folder has been quiet: takes it if it differs from what was read last.
    fn settled(&mut self) {
        let ahead = self.ahead.take();
        let Some(before) = self.changed() else { return };
        let prepared = match ahead {
            Some((then, prepared)) if then == before => prepared,
            _ => self.publisher.prepare(),
        };
        if fingerprint(&self.path) != before {
            // Half of it may be old: what was loaded is nobody's configuration.
            self.debounce.touched(Instant::now());
            return;
        }
        let result = self.publisher.finish(prepared);
        (self.read, self.seen) = (before, before);
        self.publisher.say(&result);
        // The folder may be another one than the one watched so far.
        self.watch();
    }

    fn resolved(&mut self) {
        let result = self.publisher.republish();
        if result.is_err() {
            self.publisher.say(&result);
        }
    }

    /// Watches the folder, or the file's folder: a rename over a file is an event of its folder. Without a watch
    /// there is still [`LOOK`].
    fn watch(&mut self) {
        let folder = if self.path.is_dir() { Some(self.path.as_path()) } else { self.path.parent() };
        let folder = folder.filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
        let identity =
            std::fs::metadata(folder).ok().map(|meta| (meta.dev(), meta.ino(), meta.created().ok()));
        if identity.is_some() && identity == self.watched {
            return;
        }
        (self.watcher, self.watched) = (None, None);
        let bell = self.bell.clone();
        let told = move |event: notify::Result<notify::Event>| {
            // Reading the files ourselves is an event too.
            if !matches!(event, Ok(notify::Event { kind: EventKind::Access(_), .. })) {
                let _ = bell.send(Event::Touched);
            }
        };
        let watcher = notify::recommended_watcher(told).and_then(|mut watcher| {
            watcher.watch(folder, RecursiveMode::NonRecursive)?;
            Ok(watcher)
        });
        match watcher {
            Ok(watcher) => (self.watcher, self.watched) = (Some(watcher), identity),
            Err(error) if folder.exists() => {
                log::warn!(
                    "cannot watch the configuration, looking every 2 s",
                    path = folder.display(),
                    error = error
                );
            }
            Err(_) => {}
        }
    }
}

#[cfg(test)]
mod tests;
