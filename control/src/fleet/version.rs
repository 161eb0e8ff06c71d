//! The number of an update: a counter in the store beside a digest, so that it means the same on every control plane.

use std::sync::Arc;

use serde::{Deserialize, Serialize};
use tokio::time::{Duration, Instant, timeout};

use crate::log;
use crate::store::{Batch, Expect, Store, StoreError};

/// Where the counter is.
const KEY: &str = "fleet/version";
/// A store that takes longer has no say in this update's number.
const PATIENCE: Duration = Duration::from_millis(250);
/// A store that did not answer is not asked again for this long.
const REST: Duration = Duration::from_secs(2);
/// Others may be faster this often before the number is made up here.
const TRIES: usize = 8;

#[derive(Debug, Serialize, Deserialize)]
struct Counted {
    version: u64,
    digest: String,
}

/// The counter.
#[derive(Debug)]
pub(super) struct Counter {
    store: Arc<dyn Store>,
    last: u64,
    away_until: Option<Instant>,
}

impl Counter {
    pub(super) fn new(store: Arc<dyn Store>) -> Counter {
        Counter { store, last: 0, away_until: None }
    }

    /// The number of the content with this digest: above all that this control plane gave before.
    pub(super) async fn number(&mut self, digest: &str) -> u64 {
        let away = self.away_until.is_some_and(|until| Instant::now() < until);
        let agreed = if away { None } else { Some(timeout(PATIENCE, self.agree(digest)).await) };
        self.last = match agreed {
            None => self.last + 1,
            Some(Ok(Ok(version))) => {
                self.away_until = None;
                version
            }
            Some(failed) => {
                let why = failed.err().map_or_else(|| "it did not answer".into(), |late| late.to_string());
                log::warn!("the store gives no version; counting on without it", why = why);
                self.away_until = Some(Instant::now() + REST);
                self.last + 1
            }
        };
        self.last
    }

    async fn agree(&self, digest: &str) -> Result<u64, StoreError> {
        for _ in 0..TRIES {
            let entry = self.store.get(KEY).await?;
            let known = entry.as_ref().and_then(|entry| serde_json::from_slice::<Counted>(&entry.value).ok());
            if let Some(known) = &known
                && known.digest == digest
                && known.version > self.last
            {
                return Ok(known.version);
            }
            let version = known.map_or(0, |known| known.version).max(self.last) + 1;
            let counted = Counted { version, digest: digest.to_owned() };
            let value =
                serde_json::to_vec(&counted).map_err(|error| StoreError::Corrupt(error.to_string()))?;
            let expect = entry.map_or(Expect::Absent, |entry| Expect::At(entry.revision));
            let batch = Batch {
                expect: vec![(KEY.into(), expect)],
                put: vec![(KEY.into(), value.into())],
                delete: Vec::new(),
            };
            match self.store.batch(batch).await {
                Ok(_) => return Ok(version),
                Err(StoreError::Conflict) => {}
                Err(error) => return Err(error),
            }
        }
        Err(StoreError::Conflict)
    }
}
