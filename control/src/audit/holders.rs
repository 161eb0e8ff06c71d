//! Which control planes of one store keep audit logs. Each keeps what sidecars sent to it, on its own disk: whoever asks one for
//! records has to know of the others. An entry for each in the store, written again now and then; one that was not for long goes.

use std::sync::Weak;
use std::time::Duration;

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use crate::store::{Batch, Store, StoreError};

/// Where the entries are.
const PREFIX: &str = "audit/holders/";
/// How often an entry is written again ...
const EVERY: Duration = Duration::from_secs(6 * 3600);
/// ... and how soon when the store did not take it.
const AGAIN: Duration = Duration::from_secs(5);
/// A control plane that was not seen for so long is no more, seconds (30 days).
const GONE: u64 = 30 * 86_400;

/// A control plane that keeps audit logs.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Holder {
    /// Its name.
    pub control: String,
    /// Where it is reached, `https://HOST:PORT`.
    pub address: String,
    /// When it was there last, seconds since 1970; as exact as entries are written again.
    pub seen: u64,
}

/// Those of a store, by name.
///
/// # Errors
/// The store's.
pub async fn all(store: &dyn Store) -> Result<Vec<Holder>, StoreError> {
    let listed = store.list(PREFIX).await?;
    let read = |entry: &crate::store::Entry| serde_json::from_slice(&entry.value).ok();
    Ok(listed.entries.iter().filter_map(read).collect())
}

/// Keeps the entry of a control plane, as long as the store is used by somebody.
pub async fn stay(store: Weak<dyn Store>, control: String, address: String) {
    loop {
        let Some(store) = store.upgrade() else { return };
        let entered = enter(store.as_ref(), &control, &address).await;
        drop(store);
        tokio::time::sleep(if entered.is_ok() { EVERY } else { AGAIN }).await;
    }
}

async fn enter(store: &dyn Store, control: &str, address: &str) -> Result<(), StoreError> {
    let seen = super::now() / 1_000_000_000;
    let own = Holder { control: control.to_owned(), address: address.to_owned(), seen };
    let value = serde_json::to_vec(&own).map_err(|error| StoreError::Corrupt(error.to_string()))?;
    let gone = all(store).await?.into_iter().filter(|other| other.seen.saturating_add(GONE) < seen);
    let delete = gone.take(50).map(|other| format!("{PREFIX}{}", other.control)).collect();
    let put = vec![(format!("{PREFIX}{control}"), Bytes::from(value))];
    store.batch(Batch { put, delete, ..Batch::default() }).await.map(|_| ())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::memory::Memory;

    #[tokio::test]
    async fn each_is_entered_once_and_those_of_long_ago_go() {
        let store = Memory::new();
        let old = Holder { control: "old".into(), address: "https://old:1".into(), seen: 5 };
        let value = Bytes::from(serde_json::to_vec(&old).unwrap());
        let put = vec![(format!("{PREFIX}old"), value)];
        store.batch(Batch { put, ..Batch::default() }).await.unwrap();
        for (control, address) in [("a", "https://a:1"), ("b", "https://b:1"), ("a", "https://a:2")] {
            enter(&store, control, address).await.unwrap();
        }
        let all = all(&store).await.unwrap();
        let told: Vec<_> = all.iter().map(|one| (one.control.as_str(), one.address.as_str())).collect();
        assert_eq!(told, [("a", "https://a:2"), ("b", "https://b:1")]);
    }
}
