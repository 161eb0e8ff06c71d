//! The store that several control planes share: etcd v3.
//!
//! Keys lie under `/pilotfish/`. Expectations are comparisons of revisions within one transaction. Every call has a
//! deadline; which member answers is the client's business, and a change of the leader looks like a short outage.

mod place;
mod watching;

use std::fmt;
use std::time::Duration;

use bytes::Bytes;
use etcd_client::{
    Client, Compare, CompareOp, ConnectOptions, Error, GetOptions, GetResponse, KeyValue, SortOrder,
    SortTarget, Txn, TxnOp, TxnOpResponse,
};

use super::open::Tls;
use super::{Answer, Batch, Entry, Expect, Listed, Revision, Store, StoreError, Watch};
pub use place::Place;

/// What all keys start with.
const PREFIX: &str = "/pilotfish/";
/// The deadline of one call.
const DEADLINE: Duration = Duration::from_secs(2);
/// How long a connection may take.
const CONNECT: Duration = Duration::from_secs(1);
/// Asked for a sign of life so often (etcd closes connections that ask more often than every 5 s), and left without one.
const SILENT: (Duration, Duration) = (Duration::from_secs(6), Duration::from_secs(2));
/// How often a read is tried: a member that just died may be picked twice.
const TRIES: u32 = 4;
/// The pause between.
const PAUSE: Duration = Duration::from_millis(100);
/// Keys and bytes in one answer: a message may have 4 MiB.
const PAGE: i64 = 200;
/// Keys in one call that reads many: etcd takes 128.
const TOGETHER: usize = 100;
const MESSAGE: usize = 512 << 20;

/// A store in etcd.
pub struct EtcdStore {
    client: Client,
    place: Place,
}

impl fmt::Debug for EtcdStore {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.debug_struct("EtcdStore").field("place", &self.place.to_string()).finish_non_exhaustive()
    }
}

impl EtcdStore {
    /// Connects, and asks once, so that a wrong address is told at the start.
    ///
    /// # Errors
    /// The URL or the files are wrong; nobody answers.
    pub async fn connect(url: &str, tls: &Tls) -> Result<EtcdStore, StoreError> {
        let place = Place::parse(url, tls)?;
        let mut options = ConnectOptions::new()
            .with_connect_timeout(CONNECT)
            .with_keep_alive(SILENT.0, SILENT.1)
            .with_keep_alive_while_idle(false)
            .with_tcp_keepalive(Duration::from_secs(5))
            .with_require_leader(true);
        if let Some(tls) = place.tls(tls)? {
            options = options.with_tls(tls);
        }
        let connected = Client::connect(place.endpoints(), Some(options)).await;
        let client = connected.map_err(|error| place.failed(&error, false))?;
        let store = EtcdStore { client, place };
        store.get("head").await?;
        Ok(store)
    }

    fn late(&self, unsure: bool) -> StoreError {
        let why = format!("{} did not answer within {} s", self.place, DEADLINE.as_secs());
        StoreError::Unavailable { why, unsure }
    }

    /// Reads, and again when a member went away meanwhile.
    async fn read(&self, key: &str, options: GetOptions) -> Result<GetResponse, StoreError> {
        let mut left = TRIES;
        loop {
            let mut client = self.client.kv_client().max_decoding_message_size(MESSAGE);
            let key = format!("{PREFIX}{key}");
            let error = match tokio::time::timeout(DEADLINE, client.get(key, Some(options.clone()))).await {
                Ok(Ok(found)) => return Ok(found),
                Ok(Err(error)) => self.place.failed(&error, false),
                Err(_) => self.late(false),
            };
            left -= 1;
            if left == 0 || !matches!(error, StoreError::Unavailable { .. }) {
                return Err(error);
            }
            tokio::time::sleep(PAUSE.mul_f64(0.5 + fastrand::f64())).await;
        }
    }

    /// Reads up to [`TOGETHER`] keys in one call.
    async fn some(&self, keys: &[String]) -> Result<Vec<Option<Entry>>, StoreError> {
        let gets: Vec<TxnOp> = keys.iter().map(|key| TxnOp::get(format!("{PREFIX}{key}"), None)).collect();
        let transaction = Txn::new().and_then(gets);
        let mut left = TRIES;
        let done = loop {
            let mut client = self.client.kv_client().max_decoding_message_size(MESSAGE);
            let error = match tokio::time::timeout(DEADLINE, client.txn(transaction.clone())).await {
                Ok(Ok(done)) => break done,
                Ok(Err(error)) => self.place.failed(&error, false),
                Err(_) => self.late(false),
            };
            left -= 1;
            if left == 0 {
                return Err(error);
            }
            tokio::time::sleep(PAUSE.mul_f64(0.5 + fastrand::f64())).await;
        };
        let found = |done| match done {
            TxnOpResponse::Get(mut found) => found.take_kvs().into_iter().next().map(entry).transpose(),
            _ => Ok(None),
        };
        done.op_responses().into_iter().map(found).collect()
    }

    /// All entries under a prefix at one revision, page by page.
    async fn pages(&self, prefix: &str) -> Result<Listed, StoreError> {
        let mut entries: Vec<Entry> = Vec::new();
        let mut revision = 0;
        loop {
            // What `get_prefix` would do, from the last key on.
            let from = entries.last().map(|last| format!("{}\0", last.key));
            let from = from.unwrap_or_else(|| prefix.to_owned());
            let options = GetOptions::new()
                .with_range(end_of(prefix))
                .with_limit(PAGE)
                .with_revision(revision)
                .with_sort(SortTarget::Key, SortOrder::Ascend);
            let mut found = self.read(&from, options).await?;
            if revision == 0 {
                revision = found.header().map_or(0, etcd_client::ResponseHeader::revision);
            }
            let more = found.more();
            for found in found.take_kvs() {
                entries.push(entry(found)?);
            }
            if !more {
                return Ok(Listed { entries, revision: unsigned(revision) });
            }
        }
    }

    async fn change(&self, batch: Batch) -> Result<Revision, StoreError> {
        batch.check()?;
        let compare: Vec<Compare> =
            batch.expect.iter().map(|(key, expect)| comparison(key, *expect)).collect();
        let put =
            batch.written().map(|(key, value)| TxnOp::put(format!("{PREFIX}{key}"), value.to_vec(), None));
        let delete = batch.deleted().map(|key| TxnOp::delete(format!("{PREFIX}{key}"), None));
        let operations: Vec<TxnOp> = put.chain(delete).collect();
        let transaction = Txn::new().when(compare).and_then(operations);
        let mut left = TRIES;
        let done = loop {
            let mut client = self.client.kv_client();
            let error = match tokio::time::timeout(DEADLINE, client.txn(transaction.clone())).await {
                Ok(Ok(done)) => break done,
                Ok(Err(error)) => self.place.failed(&error, true),
                Err(_) => return Err(self.late(true)),
            };
            left -= 1;
            // Only what certainly did not happen is done again here: a member that is away was picked.
            if left == 0 || !matches!(error, StoreError::Unavailable { unsure: false, .. }) {
                return Err(error);
            }
            tokio::time::sleep(PAUSE.mul_f64(0.5 + fastrand::f64())).await;
        };
        if !done.succeeded() {
            return Err(StoreError::Conflict);
        }
        Ok(unsigned(done.header().map_or(0, etcd_client::ResponseHeader::revision)))
    }
}

fn comparison(key: &str, expect: Expect) -> Compare {
    let key = format!("{PREFIX}{key}");
    match expect {
        Expect::Absent => Compare::create_revision(key, CompareOp::Equal, 0),
        Expect::At(revision) => Compare::mod_revision(key, CompareOp::Equal, signed(revision)),
    }
}

/// The first key after all that start with `prefix`; keys are text, so their last byte is never 255.
fn end_of(prefix: &str) -> Vec<u8> {
    let mut end = format!("{PREFIX}{prefix}").into_bytes();
    if let Some(last) = end.last_mut() {
        *last += 1;
    }
    end
}

fn entry(found: KeyValue) -> Result<Entry, StoreError> {
    let revision = unsigned(found.mod_revision());
    let (key, value) = found.into_key_value();
    Ok(Entry { key: own_key(&key)?, value: Bytes::from(value), revision })
}

/// A key without the prefix.
fn own_key(key: &[u8]) -> Result<String, StoreError> {
    let key = std::str::from_utf8(key).ok().and_then(|key| key.strip_prefix(PREFIX));
    key.map(str::to_owned).ok_or_else(|| StoreError::Corrupt(format!("a key under {PREFIX} is no text")))
}

fn unsigned(revision: i64) -> Revision {
    Revision::try_from(revision).unwrap_or_default()
}

fn signed(revision: Revision) -> i64 {
    i64::try_from(revision).unwrap_or(i64::MAX)
}

impl Store for EtcdStore {
    fn get<'a>(&'a self, key: &'a str) -> Answer<'a, Option<Entry>> {
        Box::pin(async move {
            let mut found = self.read(key, GetOptions::new()).await?;
            found.take_kvs().into_iter().next().map(entry).transpose()
        })
    }

    fn get_many<'a>(&'a self, keys: &'a [String]) -> Answer<'a, Vec<Option<Entry>>> {
        Box::pin(async move {
            let mut found = Vec::with_capacity(keys.len());
            for some in keys.chunks(TOGETHER) {
                found.extend(self.some(some).await?);
            }
            Ok(found)
        })
    }

    fn list<'a>(&'a self, prefix: &'a str) -> Answer<'a, Listed> {
        Box::pin(self.pages(prefix))
    }

    fn batch(&self, batch: Batch) -> Answer<'_, Revision> {
        Box::pin(self.change(batch))
    }

    fn watch<'a>(&'a self, prefix: &'a str, from: Revision) -> Answer<'a, Watch> {
        Box::pin(watching::start(self.client.clone(), self.place.clone(), prefix, from))
    }
}

/// Whether the call may have been done although its answer says otherwise.
fn may_have_happened(error: &Error) -> bool {
    // What was never sent, or what a member refuses by itself, did not happen; what it says about a lost leader or
    // connection may have.
    const NOT: [&str; 6] = [
        "tcp connect error",
        "dns error",
        "too many requests",
        "duplicate key",
        "space exceeded",
        "permission",
    ];
    let text = error.to_string();
    !NOT.iter().any(|not| text.contains(not))
}
