//! Follows the newest version in the store, whoever writes it; while the store is away, the last one known stays.

use std::sync::{Arc, Weak};
use std::time::Duration;

use super::{Committed, Newest, Resources, in_background, loaded, objects};
use crate::log;
use crate::store::{Revision, StoreError};

/// The first pause before the store is asked again, and the longest.
const FIRST: Duration = Duration::from_millis(100);
const LONGEST: Duration = Duration::from_secs(5);

/// Runs until the documents are dropped.
pub(super) async fn follow(resources: Weak<Resources>, mut seen: Revision) {
    let mut pause = FIRST;
    loop {
        match watched(&resources, seen, &mut pause).await {
            None => return,
            Some(error) => log::warn!("the newest documents are not followed for now", why = error),
        }
        loop {
            // Jitter, so that control planes do not come back together.
            tokio::time::sleep(pause.mul_f64(0.5 + fastrand::f64())).await;
            pause = (pause * 2).min(LONGEST);
            let Some(own) = resources.upgrade() else { return };
            match own.catch_up().await {
                Ok(revision) => break seen = revision,
                Err(error) => log::warn!("the newest documents cannot be read", why = error),
            }
        }
    }
}

/// Until an error; `None` when nobody needs it any more.
async fn watched(resources: &Weak<Resources>, seen: Revision, pause: &mut Duration) -> Option<StoreError> {
    let store = resources.upgrade()?.store.clone();
    let mut watch = match store.watch(objects::HEAD, seen).await {
        Ok(watch) => watch,
        Err(error) => return Some(error),
    };
    loop {
        match watch.recv().await {
            Some(Ok(_)) => {}
            Some(Err(error)) => return Some(error),
            None => return Some(StoreError::Unavailable { why: "the watch ended".into(), unsure: false }),
        }
        if let Err(error) = resources.upgrade()?.catch_up().await {
            return Some(error);
        }
        *pause = FIRST;
    }
}

impl Resources {
    /// Loads the newest version when it is not the one that is known; gives a revision to watch from.
    pub(super) async fn catch_up(&self) -> Result<Revision, StoreError> {
        let _one = self.loading.lock().await;
        let own = self.now();
        let Some((version, revision)) = objects::head(&*self.store).await? else {
            return Ok(own.revision.unwrap_or(0));
        };
        if own.revision.is_some_and(|known| known >= revision) {
            return Ok(revision);
        }
        let record = objects::record(&*self.store, version).await?;
        let record = record
            .ok_or_else(|| StoreError::Corrupt(format!("version {version} is the newest and missing")))?;
        let documents = objects::documents(&*self.store, &record, &own.committed.documents).await?;
        let committed = in_background(move || {
            let model = Arc::new(loaded::model(version, &documents)?);
            Ok::<_, StoreError>(Committed { version, documents: Arc::new(documents), model })
        });
        let committed = Arc::new(committed.await??);
        self.publish(Newest { committed, revision: Some(revision), record: Arc::new(record) });
        Ok(revision)
    }
}
