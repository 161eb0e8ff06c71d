//! A control plane as the source of configuration: applies its updates, publishes what is good, keeps that on disk.
//! Runs on the configuration thread; [`crate::control`] has the connection.

use std::sync::Arc;
use std::sync::mpsc::{Receiver, RecvTimeoutError};
use std::time::Duration;

use pilotfish_config::wire::{Document, RefusedVersion, Resume, Update};
use pilotfish_config::{Loaded, Model, Severity};
use tokio::sync::{OwnedSemaphorePermit, watch};
use tokio::time::Instant;

use super::file::Event;
use super::{Prepared, Publisher, Refused};
use crate::control::disk::StateDir;
use crate::control::set::{Set, Touched};
use crate::telemetry::log;

/// Between two writes of the configuration to the disk at least; the first of a burst is written at once.
const WRITE_EVERY: Duration = Duration::from_secs(1);

/// How often replaced snapshots are looked at while a request may still hold one.
const BURY: Duration = Duration::from_millis(200);

/// Reasons of one refusal that are reported.
const MOST_REASONS: usize = 20;

/// An update, and its place in the queue, which goes with it.
#[derive(Debug)]
pub struct Offer {
    /// What the control plane sent.
    pub update: Update,
    /// Why it cannot be taken, whatever its documents are.
    pub problem: Option<String>,
    /// Dropped when the update is taken or refused.
    pub place: OwnedSemaphorePermit,
}

/// How far the configuration thread has come.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Progress {
    /// The control plane's newest version that was published; 0 before the first.
    pub accepted: u64,
    /// The snapshot that has it.
    pub snapshot: u64,
    /// The newest version, when it was not taken.
    pub refused: Option<RefusedVersion>,
}

/// Follows a control plane until the process ends.
#[derive(Debug)]
pub struct ControlSource {
    publisher: Publisher,
    events: Receiver<Event>,
    /// What updates touched since the last good version.
    untaken: Touched,
    /// Why the newest cannot be taken, whatever its documents are.
    problem: Option<String>,
    /// What came while updates were collected.
    held: Option<Event>,
    progress: Arc<watch::Sender<Progress>>,
    disk: StateDir,
    /// The newest version, good or not: the next delta leads on from it.
    set: Set,
    /// What its documents mean.
    loaded: Option<Loaded>,
    /// What the documents of the last good version mean, while those of the newest are refused.
    good: Option<Model>,
    /// What is to be written down, and when.
    unwritten: Option<(Set, Instant)>,
    /// When something was written last.
    written: Option<Instant>,
}

impl ControlSource {
    /// A source that has taken nothing yet.
    pub fn new(
        mut publisher: Publisher,
        disk: StateDir,
        progress: Arc<watch::Sender<Progress>>,
        events: Receiver<Event>,
    ) -> Self {
        publisher.empty_is_meant = true;
        ControlSource {
            publisher,
            events,
            untaken: Touched::default(),
            problem: None,
            held: None,
            progress,
            disk,
            set: Set::default(),
            loaded: None,
            good: None,
            unwritten: None,
            written: None,
        }
    }

    /// Serves what an earlier process left on the disk. Gives what the control plane is to know of it.
    pub fn restore(&mut self, set: Set) -> Option<Resume> {
        self.set = set;
        let everything = Touched { documents: true, endpoints: true, trust: true };
        match self.take(everything) {
            Ok(()) => self.tell(None),
            Err(refused) => {
                log::error!("the last good configuration on disk is not taken", version = self.set.version);
                refused.lines.iter().for_each(|line| log::error!(line));
                (self.set, self.loaded) = (Set::default(), None);
            }
        }
        self.set.resume()
    }

    /// Serves events until [`Event::Stop`].
    pub fn run(mut self) {
        let mut graves = false;
        loop {
            let now = Instant::now();
            let graves_at = graves.then(|| now + BURY);
            let write_at = self.unwritten.as_ref().map(|(_, due)| *due);
            let until = [graves_at, write_at].into_iter().flatten().min();
            let event = match (self.held.take(), until) {
                (Some(held), _) => Ok(held),
                (None, Some(until)) => self.events.recv_timeout(until.saturating_duration_since(now)),
                (None, None) => self.events.recv().map_err(|_| RecvTimeoutError::Disconnected),
            };
            match event {
                Ok(Event::Stop) | Err(RecvTimeoutError::Disconnected) => break,
                Ok(event) => self.serve(event),
                Err(RecvTimeoutError::Timeout) => {}
            }
            graves = self.look_after();
        }
        self.write();
    }

    /// Serves the events that wait already: for who has no thread to give to [`ControlSource::run`].
    pub fn run_waiting(&mut self) {
        while let Some(event) = self.held.take().or_else(|| self.events.try_recv().ok()) {
            self.serve(event);
        }
        self.look_after();
    }

    fn serve(&mut self, event: Event) {
        match event {
            Event::Update(offer) => self.update(*offer),
            Event::Resolved => {
                let result = self.publisher.republish();
                if result.is_err() {
                    self.publisher.say(&result);
                }
            }
            Event::Touched | Event::Stop => {}
        }
    }

    /// Writes what is due, and drops what no worker has any more; says whether some of that is left.
    fn look_after(&mut self) -> bool {
        if self.unwritten.as_ref().is_some_and(|(_, due)| *due <= Instant::now()) {
            self.write();
        }
        self.publisher.bury()
    }

    /// Applies one update and those that wait behind it, then publishes where that leads.
    fn update(&mut self, offer: Offer) {
        let start = Instant::now();
        self.problem = offer.problem;
        self.untaken = self.untaken.and(self.set.apply(offer.update));
        drop(offer.place);
        self.waiting();
        let touched = self.untaken;
        let result = match self.problem.take() {
            Some(problem) => Err(Refused { lines: vec![problem] }),
            None => self.take(touched),
        };
        if touched.documents || touched.endpoints || result.is_err() {
            self.say(&result, start.elapsed());
        }
        if result.is_ok() {
            self.untaken = Touched::default();
            let now = Instant::now();
            let due = self.written.map_or(now, |written| written + WRITE_EVERY).max(now);
            self.unwritten = Some((self.set.clone(), due));
        }
        self.tell(result.err());
    }

    fn say(&self, result: &Result<(), Refused>, took: Duration) {
        let (version, snapshot) = (self.set.version, self.publisher.shared.snapshots.version());
        match result {
            Ok(()) => log::info!(
                "configuration taken",
                version = version,
                snapshot = snapshot,
                documents = self.set.documents().len(),
                endpoints = self.set.endpoints().len(),
                took = format!("{took:.1?}")
            ),
            Err(refused) => {
                log::error!(
                    "configuration refused, the last good one goes on serving",
                    version = version,
                    snapshot = snapshot
                );
                refused.lines.iter().for_each(|line| log::error!(line));
            }
        }
    }

    /// Applies what is in the queue already, so that a burst is compiled once.
    fn waiting(&mut self) {
        // Places are given back as updates are applied, so the stream could fill the queue for ever.
        for _ in 0..64 {
            match self.events.try_recv() {
                Ok(Event::Update(offer)) => {
                    let touched = self.set.apply(offer.update);
                    self.untaken = self.untaken.and(touched);
                    // Trust that came later and is good is all that counts.
                    self.problem = offer.problem.or(self.problem.take().filter(|_| !touched.trust));
                }
                Ok(Event::Touched) => {}
                Ok(other) => {
                    self.held = Some(other);
                    break;
                }
                Err(_) => break,
            }
        }
    }

    /// Publishes the set as it is, if it is good.
    fn take(&mut self, touched: Touched) -> Result<(), Refused> {
        let was_good = self.progress.borrow().refused.is_none();
        if was_good && self.loaded.is_some() && !touched.documents && !touched.endpoints {
            return Ok(());
        }
        let start = Instant::now();
        if touched.documents || self.loaded.is_none() {
            let before = self.loaded.take().and_then(|loaded| loaded.model);
            // While newer ones are refused, those of the last good version are what serves.
            self.good = if was_good { before } else { self.good.take() };
            self.loaded = Some(self.load());
        }
        let Some(newest) = &self.loaded else { return Ok(()) };
        let model = newest.model.as_ref().map(|model| with_endpoints(model, &self.set));
        let loaded = Loaded { model, report: newest.report.clone() };
        let result = self.publisher.finish(Prepared { loaded, took: start.elapsed() });
        match (&result, &self.good) {
            (Ok(()), _) => self.good = None,
            // Who came and who went holds whatever became of the documents.
            (Err(_), Some(good)) if touched.endpoints => {
                let model = with_endpoints(good, &self.set);
                if let Err(refused) = self.publisher.take(model, self.publisher.resources) {
                    refused.lines.iter().for_each(|line| log::error!(line));
                }
            }
            (Err(_), _) => {}
        }
        result
    }

    /// What the documents mean. Their authors' files and lines are what messages name. Warnings were told to the author
    /// by `apply`, which knows all documents; a sidecar sees a part, and would warn of what it does not see.
    fn load(&self) -> Loaded {
        let names: Vec<String> = self.set.documents().map(name).collect();
        let documents = names.iter().zip(self.set.documents());
        let texts = documents.map(|(name, document)| (name.as_str(), document.body.get()));
        let mut loaded = pilotfish_config::load_documents(texts, &self.publisher.options);
        loaded.report.diagnostics.retain(|one| one.severity == Severity::Error);
        loaded
    }

    fn tell(&self, refused: Option<Refused>) {
        let version = self.set.version;
        let snapshot = self.publisher.shared.snapshots.version();
        self.progress.send_modify(|progress| match refused {
            None => *progress = Progress { accepted: version, snapshot, refused: None },
            Some(mut refused) => {
                let more = refused.lines.len().saturating_sub(MOST_REASONS);
                refused.lines.truncate(MOST_REASONS);
                refused.lines.extend((more > 0).then(|| format!("and {more} more")));
                progress.refused = Some(RefusedVersion { version, reasons: refused.lines });
            }
        });
    }

    fn write(&mut self) {
        let Some((set, _)) = self.unwritten.take() else { return };
        self.written = Some(Instant::now());
        if let Err(error) = self.disk.keep_state(&set) {
            log::error!(
                "the configuration is not kept on disk, a restart needs the control plane",
                error = error
            );
        }
    }
}

/// How messages call a document.
fn name(document: &Document) -> String {
    if document.source.is_empty() { document.key.to_string() } else { document.source.clone() }
}

/// What documents mean, with the agents that registered.
fn with_endpoints(model: &Model, set: &Set) -> Model {
    model.clone().with_endpoints(set.endpoints())
}
