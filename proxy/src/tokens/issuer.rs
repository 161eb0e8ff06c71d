//! One issuer: the keys that it has now, how it is with fetching them, and the requests that wait for that.

use std::borrow::Cow;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use arc_swap::ArcSwapOption;
use pilotfish_filters::clock::Micros;
use pilotfish_filters::redact;
use pilotfish_filters::tokens::{KeySource, TokenRule};
use serde_json::{Value, json};
use tokio::sync::{Notify, watch};

use super::keys::KeySet;
use crate::clock::Epoch;
use crate::telemetry::log;
use crate::telemetry::text::push_time;

/// How many requests wait for one issuer's keys at most; more are refused at once.
const MOST_WAITING: usize = 1024;

/// An issuer's keys.
#[derive(Debug)]
pub struct Issuer {
    /// Where they come from.
    pub source: KeySource,
    /// The rule that named it first.
    name: Box<str>,
    keys: ArcSwapOption<KeySet>,
    /// Counts changes of any issuer's keys.
    generation: Arc<AtomicU64>,
    /// Looks that have begun.
    begun: AtomicU64,
    /// The last look that has ended.
    ended: watch::Sender<u64>,
    /// Rung by a request that needs a key that is not here.
    wanted: Notify,
    waiting: AtomicUsize,
    status: Mutex<Status>,
}

/// How it is with its keys.
#[derive(Debug, Default)]
struct Status {
    /// What the keys were read from, to see whether they changed.
    text: Box<[u8]>,
    /// When they were last looked at successfully.
    good: Option<Micros>,
    /// Why the last look failed.
    failed: Option<String>,
    fetches: [u64; 2],
}

/// A request that waits for keys.
#[derive(Debug)]
pub struct Waiting<'i> {
    issuer: &'i Issuer,
    ended: watch::Receiver<u64>,
    /// The first look that begins after the request came.
    until: u64,
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.issuer.waiting.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Issuer {
    /// The issuer of a rule; keys in the document are read.
    pub(super) fn new(rule: &TokenRule, generation: Arc<AtomicU64>) -> Self {
        let issuer = Issuer {
            source: rule.keys.clone(),
            name: rule.name.clone(),
            keys: ArcSwapOption::empty(),
            generation,
            begun: AtomicU64::new(0),
            ended: watch::Sender::new(0),
            wanted: Notify::new(),
            waiting: AtomicUsize::new(0),
            status: Mutex::default(),
        };
        if let KeySource::Inline(text) = &issuer.source {
            issuer.take(Ok(text.as_bytes()), None);
        }
        issuer
    }

    /// The keys, as far as they are known.
    pub fn keys(&self) -> Option<Arc<KeySet>> {
        self.keys.load_full()
    }

    /// Whether keys that are not here may come.
    pub fn may_learn(&self) -> bool {
        !matches!(self.source, KeySource::Inline(_))
    }

    /// How long a request waits for a look.
    pub fn patience(&self) -> Duration {
        match &self.source {
            KeySource::Inline(_) => Duration::ZERO,
            KeySource::Uri { timeout, .. } | KeySource::Discovery { timeout, .. } => *timeout,
        }
    }

    /// Asks for another look, and waits; `None`: too many do already, or the keys never change.
    pub fn wait(&self) -> Option<Waiting<'_>> {
        if !self.may_learn() {
            return None;
        }
        let waiting = Waiting {
            issuer: self,
            ended: self.ended.subscribe(),
            until: self.begun.load(Ordering::Acquire) + 1,
        };
        if self.waiting.fetch_add(1, Ordering::Relaxed) >= MOST_WAITING {
            return None;
        }
        self.wanted.notify_one();
        Some(waiting)
    }

    /// Waits until a request wants another look.
    pub(super) async fn wanted(&self) {
        self.wanted.notified().await;
    }

    /// Whether a request waits.
    pub(super) fn is_waited_for(&self) -> bool {
        self.waiting.load(Ordering::Relaxed) > 0
    }

    /// A look begins.
    pub(super) fn begin(&self) -> u64 {
        self.begun.fetch_add(1, Ordering::AcqRel) + 1
    }

    /// A look has ended with this. Keys that are good replace the old ones; whether they changed anything.
    pub(super) fn end(&self, look: u64, result: Result<&[u8], String>, now: Micros) -> bool {
        let changed = self.take(result, Some(now));
        self.ended.send_replace(look);
        changed
    }

    fn take(&self, result: Result<&[u8], String>, now: Option<Micros>) -> bool {
        let mut status = self.status.lock().unwrap_or_else(PoisonError::into_inner);
        let read = result.and_then(|text| {
            if *status.text == *text && self.keys.load().is_some() {
                return Ok((text, None));
            }
            Ok((text, Some(KeySet::read(text)?)))
        });
        match read {
            Ok((text, keys)) => {
                status.fetches[0] += 1;
                if status.failed.take().is_some() {
                    log::info!("an issuer's keys are there again", rule = self.name, from = self.from());
                }
                status.good = now.or(Some(Micros(0)));
                let Some(keys) = keys else { return false };
                for why in &keys.unusable {
                    log::warn!(
                        "a key of an issuer is not used",
                        rule = self.name,
                        from = self.from(),
                        why = why
                    );
                }
                status.text = text.into();
                self.keys.store(Some(Arc::new(keys)));
                self.generation.fetch_add(1, Ordering::AcqRel);
                true
            }
            Err(why) => {
                status.fetches[1] += 1;
                // Once for each kind of trouble, not for each try.
                if status.failed.as_ref() != Some(&why) {
                    let then = match self.keys.load().is_some() {
                        true => "the last good ones go on being used",
                        false => "its tokens are refused until they are",
                    };
                    log::warn!(
                        "an issuer's keys cannot be taken",
                        rule = self.name,
                        from = self.from(),
                        why = why,
                        then = then
                    );
                }
                status.failed = Some(why);
                false
            }
        }
    }

    /// Where its keys come from, as it may be told.
    fn from(&self) -> Cow<'_, str> {
        match &self.source {
            KeySource::Inline(_) => Cow::Borrowed("the document"),
            KeySource::Uri { uri, .. } => redact::url(uri),
            KeySource::Discovery { issuer, .. } => redact::url(issuer),
        }
    }

    /// Whether its last good keys are in use because newer ones cannot be had.
    pub(super) fn is_stale(&self) -> bool {
        self.status.lock().unwrap_or_else(PoisonError::into_inner).failed.is_some()
    }

    /// Looks so far: good and failed.
    pub(super) fn fetches(&self) -> [u64; 2] {
        if self.may_learn() {
            self.status.lock().unwrap_or_else(PoisonError::into_inner).fetches
        } else {
            [0, 0]
        }
    }

    /// For `/config`.
    pub(super) fn describe(&self, epoch: Epoch) -> Value {
        let status = self.status.lock().unwrap_or_else(PoisonError::into_inner);
        let keys = self.keys();
        let ids =
            keys.iter().flat_map(|set| &set.keys).map(|key| key.id.as_deref().unwrap_or("(without kid)"));
        let taken = status.good.filter(|_| self.may_learn()).map(|at| {
            let mut text = String::new();
            push_time(&mut text, Duration::from_nanos(epoch.nanos(at)));
            text
        });
        json!({
            "rule": self.name,
            "from": self.from(),
            "keys": ids.collect::<Vec<_>>(),
            "fetched": taken,
            "stale": status.failed,
            "unusable": keys.as_ref().map(|set| set.unusable.clone()).unwrap_or_default(),
        })
    }
}

impl Waiting<'_> {
    /// Waits for the end of a look; false when it was one that began after the request came, so that another one says no more.
    pub async fn look(&mut self) -> bool {
        let changed = self.ended.changed().await;
        changed.is_ok() && *self.ended.borrow_and_update() < self.until
    }
}
