//! The store of one control plane: a file in its data folder, by redb.
//!
//! One thread writes. Batches that wait while it waits for the disk are done by its next transaction together, each with
//! a revision of its own; none is acknowledged before the disk has it. Reads see the newest transaction, off the event
//! loop. What a disk does not take (it is full) changes nothing: the file is opened again, as after a crash, and goes on.

mod file;
mod log;
mod writer;

use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, PoisonError, RwLock};
use std::thread::JoinHandle;

use bytes::Bytes;
use redb::{Database, ReadTransaction, ReadableDatabase, ReadableTable, TableDefinition};
use tokio::sync::{mpsc, oneshot};

use super::{Answer, Batch, Entry, Listed, Revision, Store, StoreError, Watch};
use writer::{Command, Writer};

/// Key to the revision of its last change and its value.
const ENTRIES: TableDefinition<'_, &str, (u64, &[u8])> = TableDefinition::new("entries");
/// Changes by revision and number within it: the key, and its new value or that it went.
const LOG: TableDefinition<'_, At, Logged> = TableDefinition::new("log");
/// Revision and number within it.
type At = (u64, u32);
/// Key and value.
type Logged = (&'static str, Option<&'static [u8]>);
/// Numbers about the file itself.
const META: TableDefinition<'_, &str, u64> = TableDefinition::new("meta");
/// In [`META`]: the revision of the newest change.
const REVISION: &str = "revision";
/// In [`META`]: the log has every change after this revision.
const OLDEST: &str = "oldest";
/// In [`META`]: how the tables are to be read.
const FORMAT: &str = "format";
/// The only value of [`FORMAT`] so far.
const FORMAT_1: u64 = 1;
/// Commands that may wait for the writer.
const WAITING: usize = 1024;

/// A store in a file.
pub struct RedbStore {
    shared: Arc<Shared>,
    commands: Option<mpsc::Sender<Command>>,
    writer: Option<JoinHandle<()>>,
}

/// What readers and the writer share.
struct Shared {
    path: PathBuf,
    /// None while the file cannot be opened again after an error.
    database: RwLock<Option<Database>>,
}

impl fmt::Debug for RedbStore {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.debug_struct("RedbStore").field("path", &self.shared.path).finish_non_exhaustive()
    }
}

impl Drop for RedbStore {
    /// Waits for what is being written, so that the file may be opened again at once.
    fn drop(&mut self) {
        self.commands = None;
        if let Some(writer) = self.writer.take() {
            let _ = writer.join();
        }
    }
}

impl RedbStore {
    /// Opens the file, or makes it (mode 0600) and its folder (0700).
    ///
    /// # Errors
    /// It cannot be read or written, another process uses it, or it is not a store of this program.
    pub fn open(path: &Path) -> Result<RedbStore, StoreError> {
        let database = file::open(path)?;
        let shared = Arc::new(Shared { path: path.to_owned(), database: RwLock::new(Some(database)) });
        let (commands, received) = mpsc::channel(WAITING);
        let writer = Writer::new(shared.clone())?;
        let writer = std::thread::Builder::new()
            .name("store".into())
            .spawn(move || writer.run(received))
            .map_err(|error| unavailable(format!("cannot start a thread: {error}")))?;
        Ok(RedbStore { shared, commands: Some(commands), writer: Some(writer) })
    }

    /// Makes a store with these entries in a file that is not there yet; its next change has a revision after
    /// `listed.revision`, and a watch from before that lists again.
    ///
    /// # Errors
    /// As [`RedbStore::open`]; there is such a file.
    pub fn create(path: &Path, listed: &Listed) -> Result<(), StoreError> {
        if path.exists() {
            return Err(unavailable(format!("{} is there already", path.display())));
        }
        file::make(path, listed).map_err(|error| file::failed(path, error))
    }

    async fn command<T>(
        &self,
        command: impl FnOnce(oneshot::Sender<Result<T, StoreError>>) -> Command,
    ) -> Result<T, StoreError> {
        let ended = || StoreError::Unavailable { why: "its writer has ended".into(), unsure: true };
        let (answer, answered) = oneshot::channel();
        let commands = self.commands.as_ref().ok_or_else(ended)?;
        commands.send(command(answer)).await.map_err(|_| ended())?;
        answered.await.map_err(|_| ended())?
    }

    /// Reads; when the file is broken or closed, once more after it was opened again.
    async fn read<T: Send + 'static>(
        &self,
        work: impl Fn(&ReadTransaction) -> Result<T, redb::Error> + Clone + Send + 'static,
    ) -> Result<T, StoreError> {
        match self.shared.read(work.clone()).await {
            Err(StoreError::Unavailable { .. }) => {}
            done => return done,
        }
        self.command(Command::Reopen).await?;
        self.shared.read(work).await
    }
}

impl Shared {
    async fn read<T: Send + 'static>(
        self: &Arc<Self>,
        work: impl Fn(&ReadTransaction) -> Result<T, redb::Error> + Send + 'static,
    ) -> Result<T, StoreError> {
        let shared = self.clone();
        let done = tokio::task::spawn_blocking(move || shared.read_now(work)).await;
        done.map_err(|error| unavailable(error.to_string()))?
    }

    fn read_now<T>(
        &self,
        work: impl Fn(&ReadTransaction) -> Result<T, redb::Error>,
    ) -> Result<T, StoreError> {
        let database = self.database.read().unwrap_or_else(PoisonError::into_inner);
        let database = database.as_ref().ok_or_else(|| unavailable(file::closed(&self.path)))?;
        let done = database.begin_read().map_err(redb::Error::from).and_then(|reading| work(&reading));
        done.map_err(|error| file::failed(&self.path, error))
    }
}

fn unavailable(why: String) -> StoreError {
    StoreError::Unavailable { why, unsure: false }
}

fn found(
    entries: &impl ReadableTable<&'static str, (u64, &'static [u8])>,
    key: &str,
) -> Result<Option<Entry>, redb::Error> {
    Ok(entries.get(key)?.map(|found| {
        let (revision, value) = found.value();
        Entry { key: key.to_owned(), value: Bytes::copy_from_slice(value), revision }
    }))
}

impl Store for RedbStore {
    fn get<'a>(&'a self, key: &'a str) -> Answer<'a, Option<Entry>> {
        let key = key.to_owned();
        Box::pin(self.read(move |reading| found(&reading.open_table(ENTRIES)?, &key)))
    }

    fn get_many<'a>(&'a self, keys: &'a [String]) -> Answer<'a, Vec<Option<Entry>>> {
        let keys = keys.to_vec();
        Box::pin(self.read(move |reading| {
            let entries = reading.open_table(ENTRIES)?;
            keys.iter().map(|key| found(&entries, key)).collect()
        }))
    }

    fn list<'a>(&'a self, prefix: &'a str) -> Answer<'a, Listed> {
        let prefix = prefix.to_owned();
        Box::pin(self.read(move |reading| {
            let revision = reading.open_table(META)?.get(REVISION)?.map_or(0, |found| found.value());
            let mut entries = Vec::new();
            for found in reading.open_table(ENTRIES)?.range(prefix.as_str()..)? {
                let (key, found) = found?;
                if !key.value().starts_with(&prefix) {
                    break;
                }
                let (revision, value) = found.value();
                entries.push(Entry {
                    key: key.value().to_owned(),
                    value: Bytes::copy_from_slice(value),
                    revision,
                });
            }
            Ok(Listed { entries, revision })
        }))
    }

    fn batch(&self, batch: Batch) -> Answer<'_, Revision> {
        Box::pin(async move {
            batch.check()?;
            self.command(|answer| Command::Batch(batch, answer)).await
        })
    }

    fn watch<'a>(&'a self, prefix: &'a str, from: Revision) -> Answer<'a, Watch> {
        let prefix = prefix.to_owned();
        Box::pin(self.command(move |answer| Command::Watch(prefix, from, answer)))
    }
}
