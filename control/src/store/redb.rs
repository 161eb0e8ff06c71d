//! The embedded store: one file in the data folder.
//!
//! A thread of its own writes. Batches that wait are taken together into one transaction and one fsync, so a store under
//! load does not pay one for each; none is acknowledged before that fsync has returned. The newest changes are kept in
//! the file as a log, so that a watch may begin where a restart interrupted it.

use std::collections::VecDeque;
use std::fmt;
use std::io;
use std::path::Path;
use std::sync::Arc;
use std::sync::mpsc as blocking;

use bytes::Bytes;
use redb::backends::FileBackend;
use redb::{
    CommitError, Database, DatabaseError, Durability, ReadableDatabase, ReadableTable, StorageError, Table,
    TableDefinition, TableError, TransactionError, WriteTransaction,
};
use tokio::sync::{mpsc, oneshot};

use super::{Answer, Batch, Change, Entry, Expect, Listed, Revision, Store, StoreError, Watch};

/// Key to the revision of its last change (8 bytes, big-endian), then its value.
const ENTRIES: TableDefinition<'_, &str, &[u8]> = TableDefinition::new("entries");
/// Revision to what it changed.
const LOG: TableDefinition<'_, u64, &[u8]> = TableDefinition::new("log");
/// `revision`, `format`.
const META: TableDefinition<'_, &str, u64> = TableDefinition::new("meta");

/// Counts up when the tables change their meaning.
const FORMAT: u64 = 1;
/// Revisions that the log keeps; a watch from before them has to list again.
const LOGGED: u64 = 10_000;
/// Batches that one transaction takes.
const TOGETHER: usize = 64;
/// Batches that a slow watcher may fall behind before it has to list again.
const BEHIND: usize = 1024;

/// The store in a file.
pub struct RedbStore {
    database: Arc<Database>,
    jobs: blocking::Sender<Job>,
}

impl fmt::Debug for RedbStore {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str("RedbStore")
    }
}

/// What the writing thread is asked for.
enum Job {
    Batch(Batch, oneshot::Sender<Result<Revision, StoreError>>),
    Watch(String, Revision, oneshot::Sender<Result<Watch, StoreError>>),
}

impl RedbStore {
    /// Opens the file, or makes it, readable by its owner only.
    ///
    /// # Errors
    /// Another process has it open; it cannot be written; it is no store, or one of a later release.
    pub fn open(path: &Path) -> Result<RedbStore, StoreError> {
        use std::os::unix::fs::OpenOptionsExt;
        let named = |why: String| unavailable(format!("{}: {why}", path.display()));
        let file = std::fs::OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .mode(0o600)
            .open(path);
        let file = file.map_err(|error| named(error.to_string()))?;
        let opened = FileBackend::new(file).and_then(|file| Database::builder().create_with_backend(file));
        let database = opened.map_err(|error| match error {
            DatabaseError::DatabaseAlreadyOpen => named("another process has it open".into()),
            DatabaseError::Storage(StorageError::Io(error)) if error.kind() != io::ErrorKind::InvalidData => {
                named(error.to_string())
            }
            other => StoreError::Corrupt(format!("{}: {other}", path.display())),
        })?;
        prepare(&database).map_err(|error| match error {
            StoreError::Unavailable { why, .. } => named(why),
            other => other,
        })?;
        let database = Arc::new(database);
        let (jobs, received) = blocking::channel();
        let writer = Writer { database: database.clone(), watchers: Vec::new() };
        let thread = std::thread::Builder::new().name("store".into());
        thread.spawn(move || writer.run(&received)).map_err(|error| named(error.to_string()))?;
        Ok(RedbStore { database, jobs })
    }

    async fn ask<T>(
        &self,
        job: impl FnOnce(oneshot::Sender<Result<T, StoreError>>) -> Job,
    ) -> Result<T, StoreError> {
        let (answer, answered) = oneshot::channel();
        let gone = || unavailable("its thread has ended".into());
        self.jobs.send(job(answer)).map_err(|_| gone())?;
        answered.await.map_err(|_| gone())?
    }

    async fn read<T: Send + 'static>(
        &self,
        read: impl FnOnce(&Database) -> Result<T, StoreError> + Send + 'static,
    ) -> Result<T, StoreError> {
        let database = self.database.clone();
        let reading = tokio::task::spawn_blocking(move || read(&database));
        reading.await.map_err(|error| unavailable(error.to_string()))?
    }
}

impl Store for RedbStore {
    fn get<'a>(&'a self, key: &'a str) -> Answer<'a, Option<Entry>> {
        let key = key.to_owned();
        Box::pin(self.read(move |database| {
            let table = database.begin_read().map_err(transaction)?.open_table(ENTRIES).map_err(table)?;
            let found = table.get(&*key).map_err(storage)?;
            found.map(|value| entry(&key, value.value())).transpose()
        }))
    }

    fn list<'a>(&'a self, prefix: &'a str) -> Answer<'a, Listed> {
        let prefix = prefix.to_owned();
        Box::pin(self.read(move |database| {
            let reading = database.begin_read().map_err(transaction)?;
            let (entries, meta) =
                (reading.open_table(ENTRIES).map_err(table)?, reading.open_table(META).map_err(table)?);
            let revision = meta.get("revision").map_err(storage)?.map_or(0, |revision| revision.value());
            let mut listed = Listed { entries: Vec::new(), revision };
            for found in entries.range(&*prefix..).map_err(storage)? {
                let (key, value) = found.map_err(storage)?;
                if !key.value().starts_with(&prefix) {
                    break;
                }
                listed.entries.push(entry(key.value(), value.value())?);
            }
            Ok(listed)
        }))
    }

    fn batch(&self, batch: Batch) -> Answer<'_, Revision> {
        Box::pin(self.ask(|answer| Job::Batch(batch, answer)))
    }

    fn watch<'a>(&'a self, prefix: &'a str, from: Revision) -> Answer<'a, Watch> {
        Box::pin(self.ask(move |answer| Job::Watch(prefix.to_owned(), from, answer)))
    }
}

/// Makes the tables, and refuses a file of a later release.
fn prepare(database: &Database) -> Result<(), StoreError> {
    let writing = begin(database)?;
    {
        let mut meta = writing.open_table(META).map_err(table)?;
        let format = meta.get("format").map_err(storage)?.map(|format| format.value());
        match format {
            None => drop(meta.insert("format", FORMAT).map_err(storage)?),
            Some(FORMAT) => {}
            Some(other) => {
                return Err(StoreError::Corrupt(format!(
                    "its format is {other}, this release reads {FORMAT}"
                )));
            }
        }
        writing.open_table(ENTRIES).map_err(table)?;
        writing.open_table(LOG).map_err(table)?;
    }
    writing.commit().map_err(commit)
}

fn begin(database: &Database) -> Result<WriteTransaction, StoreError> {
    let mut writing = database.begin_write().map_err(transaction)?;
    writing.set_durability(Durability::Immediate).map_err(|error| unavailable(error.to_string()))?;
    Ok(writing)
}

/// The writing thread.
struct Writer {
    database: Arc<Database>,
    watchers: Vec<Watcher>,
}

struct Watcher {
    prefix: String,
    send: mpsc::Sender<Result<Vec<Change>, StoreError>>,
}

impl Watcher {
    /// Whether it goes on.
    fn tell(&self, changes: &[Change]) -> bool {
        let own: Vec<Change> =
            changes.iter().filter(|change| change.key.starts_with(&self.prefix)).cloned().collect();
        if own.is_empty() { !self.send.is_closed() } else { self.send.try_send(Ok(own)).is_ok() }
    }
}

/// A batch of a transaction, with what came of it.
struct Done {
    answer: oneshot::Sender<Result<Revision, StoreError>>,
    result: Result<Revision, StoreError>,
    changes: Vec<Change>,
}

impl Writer {
    fn run(mut self, jobs: &blocking::Receiver<Job>) {
        let mut waiting = VecDeque::new();
        while let Ok(first) = jobs.recv() {
            waiting.push_back(first);
            waiting.extend(jobs.try_iter().take(TOGETHER - 1));
            let mut batches = Vec::new();
            while let Some(job) = waiting.pop_front() {
                match job {
                    Job::Batch(batch, answer) => batches.push((batch, answer)),
                    Job::Watch(prefix, from, answer) => {
                        self.write(std::mem::take(&mut batches));
                        let _ = answer.send(self.watch(prefix, from));
                    }
                }
            }
            self.write(batches);
        }
    }

    /// Batches in one transaction: all of them are durable before the first is acknowledged.
    fn write(&mut self, batches: Vec<(Batch, oneshot::Sender<Result<Revision, StoreError>>)>) {
        if batches.is_empty() {
            return;
        }
        let (mut answers, mut work) = (Vec::new(), Vec::new());
        for (batch, answer) in batches {
            answers.push(answer);
            work.push(batch);
        }
        let results = transact(&self.database, &work);
        let all: Vec<Done> = match results {
            Ok(results) => {
                let done = |(answer, (result, changes))| Done { answer, result, changes };
                answers.into_iter().zip(results).map(done).collect()
            }
            Err(error) => {
                let done = |answer| Done { answer, result: Err(error.clone()), changes: Vec::new() };
                answers.into_iter().map(done).collect()
            }
        };
        for done in all {
            if !done.changes.is_empty() {
                self.watchers.retain(|watcher| watcher.tell(&done.changes));
            }
            let _ = done.answer.send(done.result);
        }
    }

    fn watch(&mut self, prefix: String, from: Revision) -> Result<Watch, StoreError> {
        let (send, receive) = mpsc::channel(BEHIND);
        let watcher = Watcher { prefix, send };
        let reading = self.database.begin_read().map_err(transaction)?;
        let (meta, log) = (reading.open_table(META).map_err(table)?, reading.open_table(LOG).map_err(table)?);
        let newest = meta.get("revision").map_err(storage)?.map_or(0, |revision| revision.value());
        let oldest = log.first().map_err(storage)?.map_or(newest + 1, |(revision, _)| revision.value());
        if from > newest || from + 1 < oldest {
            let why = format!("changes after {from} are not kept any more; list again");
            let _ = watcher.send.try_send(Err(unavailable(why)));
            return Ok(receive);
        }
        let mut goes_on = true;
        for found in log.range(from + 1..).map_err(storage)? {
            let (revision, logged) = found.map_err(storage)?;
            goes_on = goes_on && watcher.tell(&changes_of(revision.value(), logged.value())?);
        }
        if goes_on {
            self.watchers.push(watcher);
        }
        Ok(receive)
    }
}

/// What came of each batch.
type Results = Vec<(Result<Revision, StoreError>, Vec<Change>)>;

fn transact(database: &Database, batches: &[Batch]) -> Result<Results, StoreError> {
    let writing = begin(database)?;
    let mut results = Vec::with_capacity(batches.len());
    {
        let mut entries = writing.open_table(ENTRIES).map_err(table)?;
        let mut log = writing.open_table(LOG).map_err(table)?;
        let mut meta = writing.open_table(META).map_err(table)?;
        let mut revision = meta.get("revision").map_err(storage)?.map_or(0, |revision| revision.value());
        for batch in batches {
            if !holds(&entries, batch)? {
                results.push((Err(StoreError::Conflict), Vec::new()));
                continue;
            }
            let changes = change(&mut entries, batch, revision + 1)?;
            if !changes.is_empty() {
                revision += 1;
                log.insert(revision, &*log_of(&changes)?).map_err(storage)?;
            }
            results.push((Ok(revision), changes));
        }
        meta.insert("revision", revision).map_err(storage)?;
        let keep = revision.saturating_sub(LOGGED);
        log.retain_in(..=keep, |_, _| false).map_err(storage)?;
    }
    writing.commit().map_err(commit)?;
    Ok(results)
}

fn holds(entries: &Table<'_, &str, &[u8]>, batch: &Batch) -> Result<bool, StoreError> {
    for (key, expect) in &batch.expect {
        let found = entries.get(&**key).map_err(storage)?;
        let found = found.map(|value| entry(key, value.value())).transpose()?;
        let holds = match (found, expect) {
            (None, Expect::Absent) => true,
            (Some(entry), Expect::At(revision)) => entry.revision == *revision,
            _ => false,
        };
        if !holds {
            return Ok(false);
        }
    }
    Ok(true)
}

fn change(
    entries: &mut Table<'_, &str, &[u8]>,
    batch: &Batch,
    revision: Revision,
) -> Result<Vec<Change>, StoreError> {
    let mut changes = Vec::new();
    for key in &batch.delete {
        if entries.remove(&**key).map_err(storage)?.is_some() {
            changes.push(Change { key: key.clone(), value: None, revision });
        }
    }
    for (key, value) in &batch.put {
        let mut stored = revision.to_be_bytes().to_vec();
        stored.extend_from_slice(value);
        entries.insert(&**key, &*stored).map_err(storage)?;
        changes.push(Change { key: key.clone(), value: Some(value.clone()), revision });
    }
    Ok(changes)
}

fn entry(key: &str, stored: &[u8]) -> Result<Entry, StoreError> {
    let bad = || StoreError::Corrupt(format!("the entry `{key}` is too short"));
    let (revision, value) = stored.split_first_chunk::<8>().ok_or_else(bad)?;
    let revision = u64::from_be_bytes(*revision);
    Ok(Entry { key: key.to_owned(), value: Bytes::copy_from_slice(value), revision })
}

/// Each change: key, then 0 (removed) or 1 and the value; texts and values after their length in four bytes.
fn log_of(changes: &[Change]) -> Result<Vec<u8>, StoreError> {
    fn push(out: &mut Vec<u8>, part: &[u8]) -> Result<(), StoreError> {
        let length = u32::try_from(part.len()).map_err(|_| unavailable("a value is too long".into()))?;
        out.extend_from_slice(&length.to_be_bytes());
        out.extend_from_slice(part);
        Ok(())
    }
    let mut out = Vec::new();
    for change in changes {
        push(&mut out, change.key.as_bytes())?;
        out.push(u8::from(change.value.is_some()));
        if let Some(value) = &change.value {
            push(&mut out, value)?;
        }
    }
    Ok(out)
}

fn changes_of(revision: Revision, mut logged: &[u8]) -> Result<Vec<Change>, StoreError> {
    fn take<'l>(rest: &mut &'l [u8]) -> Option<&'l [u8]> {
        let (length, after) = rest.split_first_chunk::<4>()?;
        let (part, after) = after.split_at_checked(u32::from_be_bytes(*length) as usize)?;
        *rest = after;
        Some(part)
    }
    fn change(rest: &mut &[u8], revision: Revision) -> Option<Change> {
        let key = String::from_utf8(take(rest)?.to_vec()).ok()?;
        let (kept, after) = rest.split_first()?;
        *rest = after;
        let value = if *kept == 0 { None } else { Some(Bytes::copy_from_slice(take(rest)?)) };
        Some(Change { key, value, revision })
    }
    let mut changes = Vec::new();
    while !logged.is_empty() {
        let bad = || StoreError::Corrupt(format!("the log of revision {revision} cannot be read"));
        changes.push(change(&mut logged, revision).ok_or_else(bad)?);
    }
    Ok(changes)
}

fn unavailable(why: String) -> StoreError {
    StoreError::Unavailable { why, unsure: false }
}

fn storage(error: StorageError) -> StoreError {
    match error {
        StorageError::Corrupted(why) => StoreError::Corrupt(why),
        StorageError::Io(error) => unavailable(error.to_string()),
        other => unavailable(other.to_string()),
    }
}

fn table(error: TableError) -> StoreError {
    match error {
        TableError::Storage(error) => storage(error),
        other => StoreError::Corrupt(other.to_string()),
    }
}

fn transaction(error: TransactionError) -> StoreError {
    match error {
        TransactionError::Storage(error) => storage(error),
        other => unavailable(other.to_string()),
    }
}

fn commit(error: CommitError) -> StoreError {
    match error {
        CommitError::Storage(StorageError::Corrupted(why)) => StoreError::Corrupt(why),
        // The disk may have taken it before it said no.
        other => StoreError::Unavailable { why: other.to_string(), unsure: true },
    }
}

#[cfg(test)]
mod tests;
