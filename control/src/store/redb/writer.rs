//! The thread that writes: batches, and the watches that are told of them.

use std::sync::{Arc, PoisonError};

use bytes::Bytes;
use redb::{Database, ReadableTable, Table};
use tokio::sync::{mpsc, oneshot};

use super::log::Sizes;
use super::{ENTRIES, LOG, META, OLDEST, REVISION, Shared, file, unavailable};
use crate::store::{Batch, Change, Expect, Revision, StoreError, Watch};

/// Batches that one transaction does at most.
const TOGETHER: usize = 256;
/// Messages that a slow watch may fall behind.
const BEHIND: usize = 1024;

type Reply<T> = oneshot::Sender<Result<T, StoreError>>;
type Entries<'t> = Table<'t, &'static str, (u64, &'static [u8])>;

/// What the writer is asked for.
pub(super) enum Command {
    Batch(Batch, Reply<Revision>),
    Watch(String, Revision, Reply<Watch>),
    /// A read failed.
    Reopen(Reply<()>),
}

/// What became of one batch of a transaction.
enum Done {
    Conflict,
    /// Nothing to change, or changes; the revision afterwards.
    At(Revision, Vec<Change>),
}

struct Watcher {
    prefix: String,
    send: mpsc::Sender<Result<Vec<Change>, StoreError>>,
}

/// Owned by its thread.
pub(super) struct Writer {
    shared: Arc<Shared>,
    sizes: Sizes,
    /// The newest revision that watches were told of.
    told: Revision,
    watchers: Vec<Watcher>,
}

impl Writer {
    pub(super) fn new(shared: Arc<Shared>) -> Result<Writer, StoreError> {
        let mut writer = Writer { shared, sizes: Sizes::default(), told: 0, watchers: Vec::new() };
        writer.told = writer.look()?;
        Ok(writer)
    }

    /// Until nobody can ask any more.
    pub(super) fn run(mut self, mut commands: mpsc::Receiver<Command>) {
        while let Some(first) = commands.blocking_recv() {
            let (mut batches, mut others) = (Vec::new(), Vec::new());
            let mut next = Some(first);
            while let Some(command) = next {
                match command {
                    Command::Batch(batch, reply) => batches.push((batch, reply)),
                    other => others.push(other),
                }
                next = if batches.len() < TOGETHER { commands.try_recv().ok() } else { None };
            }
            self.write(batches);
            for other in others {
                match other {
                    Command::Watch(prefix, from, reply) => drop(reply.send(self.watch(prefix, from))),
                    Command::Reopen(reply) => drop(reply.send(self.reopen().map(drop))),
                    Command::Batch(..) => {}
                }
            }
        }
    }

    fn write(&mut self, batches: Vec<(Batch, Reply<Revision>)>) {
        if batches.is_empty() {
            return;
        }
        let (batches, replies): (Vec<Batch>, Vec<Reply<Revision>>) = batches.into_iter().unzip();
        match self.commit(&batches) {
            Ok(done) => {
                for (done, reply) in done.into_iter().zip(replies) {
                    let answer = match done {
                        Done::Conflict => Err(StoreError::Conflict),
                        Done::At(revision, changes) => {
                            self.tell(&changes);
                            Ok(revision)
                        }
                    };
                    let _ = reply.send(answer);
                }
            }
            Err(error) => replies.into_iter().for_each(|reply| drop(reply.send(Err(error.clone())))),
        }
    }

    /// One transaction. When the disk fails, the file says afterwards whether it happened.
    fn commit(&mut self, batches: &[Batch]) -> Result<Vec<Done>, StoreError> {
        if self.shared.database.read().unwrap_or_else(PoisonError::into_inner).is_none() {
            self.reopen()?;
        }
        let mut done = Vec::new();
        let mut sizes = self.sizes.clone();
        let written = {
            let database = self.shared.database.read().unwrap_or_else(PoisonError::into_inner);
            let database = database.as_ref().ok_or_else(|| unavailable(file::closed(&self.shared.path)))?;
            transaction(database, batches, &mut sizes, &mut done)
        };
        let Err(error) = written else {
            self.sizes = sizes;
            return Ok(done);
        };
        let failed = file::failed(&self.shared.path, error);
        let last = done.iter().rev().find_map(|done| match done {
            Done::At(revision, changes) if !changes.is_empty() => Some(*revision),
            _ => None,
        });
        let told = self.told;
        match self.reopen() {
            Ok(revision) if done.len() == batches.len() && last.is_some_and(|last| revision >= last) => {
                self.told = told.max(self.told);
                // The watches were told by `reopen`, from the log.
                done.iter_mut().for_each(|done| {
                    if let Done::At(_, changes) = done {
                        changes.clear();
                    }
                });
                Ok(done)
            }
            Ok(_) => Err(failed),
            Err(_) => Err(match failed {
                StoreError::Unavailable { why, .. } => StoreError::Unavailable { why, unsure: true },
                other => other,
            }),
        }
    }

    /// Closes the file and opens it again; tells watches what they were not told.
    fn reopen(&mut self) -> Result<Revision, StoreError> {
        {
            let mut database = self.shared.database.write().unwrap_or_else(PoisonError::into_inner);
            *database = None;
            *database = Some(file::again(&self.shared.path)?);
        }
        let revision = self.look()?;
        if revision > self.told {
            let missed = self.history("", self.told)?;
            missed.iter().for_each(|changes| self.tell(changes));
        }
        Ok(revision)
    }

    /// Reads what the writer has to know of the file; gives its revision.
    fn look(&mut self) -> Result<Revision, StoreError> {
        let (revision, sizes) = self.shared.read_now(|reading| {
            let revision = reading.open_table(META)?.get(REVISION)?.map_or(0, |found| found.value());
            Ok((revision, Sizes::of(&reading.open_table(LOG)?)?))
        })?;
        self.sizes = sizes;
        Ok(revision)
    }

    fn tell(&mut self, changes: &[Change]) {
        let Some(last) = changes.last() else { return };
        self.told = self.told.max(last.revision);
        self.watchers.retain(|watcher| watcher.tell(changes));
    }

    fn watch(&mut self, prefix: String, from: Revision) -> Result<Watch, StoreError> {
        let oldest = self.shared.read_now(|reading| {
            Ok(reading.open_table(META)?.get(OLDEST)?.map_or(0, |found| found.value()))
        })?;
        if from < oldest || from > self.told {
            let (send, watch) = mpsc::channel(1);
            let why = format!("changes after revision {from} are not known any more: list again");
            let _ = send.try_send(Err(unavailable(why)));
            return Ok(watch);
        }
        let history = self.history(&prefix, from)?;
        let (send, watch) = mpsc::channel(history.len() + BEHIND);
        let watcher = Watcher { prefix, send };
        if history.iter().all(|changes| watcher.tell(changes)) {
            self.watchers.push(watcher);
        }
        Ok(watch)
    }

    /// Changes after a revision, one list for each.
    fn history(&self, prefix: &str, from: Revision) -> Result<Vec<Vec<Change>>, StoreError> {
        self.shared.read_now(|reading| {
            let mut all: Vec<Vec<Change>> = Vec::new();
            for found in reading.open_table(LOG)?.range((from + 1, 0)..)? {
                let (at, change) = found?;
                let (revision, _) = at.value();
                let (key, value) = change.value();
                if !key.starts_with(prefix) {
                    continue;
                }
                let change =
                    Change { key: key.to_owned(), value: value.map(Bytes::copy_from_slice), revision };
                match all.last_mut() {
                    Some(last) if last.last().is_some_and(|last| last.revision == revision) => {
                        last.push(change);
                    }
                    _ => all.push(vec![change]),
                }
            }
            Ok(all)
        })
    }
}

impl Watcher {
    /// Whether it goes on. The last place is for the error that ends a watch which is too slow.
    fn tell(&self, changes: &[Change]) -> bool {
        let own: Vec<Change> =
            changes.iter().filter(|change| change.key.starts_with(&self.prefix)).cloned().collect();
        if own.is_empty() {
            return !self.send.is_closed();
        }
        let (message, goes_on) = if self.send.capacity() > 1 {
            (Ok(own), true)
        } else {
            (Err(unavailable("this watch was too slow: list again".into())), false)
        };
        self.send.try_send(message).is_ok() && goes_on
    }
}

/// Does all batches that can be done; the others change nothing.
fn transaction(
    database: &Database,
    batches: &[Batch],
    sizes: &mut Sizes,
    done: &mut Vec<Done>,
) -> Result<(), redb::Error> {
    let writing = database.begin_write()?;
    let mut changed = false;
    {
        let mut entries = writing.open_table(ENTRIES)?;
        let mut log = writing.open_table(LOG)?;
        let mut meta = writing.open_table(META)?;
        let mut revision = meta.get(REVISION)?.map_or(0, |found| found.value());
        for batch in batches {
            if !holds(&entries, batch)? {
                done.push(Done::Conflict);
                continue;
            }
            let changes = apply(&mut entries, batch, revision + 1)?;
            if !changes.is_empty() {
                (revision, changed) = (revision + 1, true);
                sizes.append(&mut log, &changes)?;
            }
            done.push(Done::At(revision, changes));
        }
        if changed {
            meta.insert(REVISION, revision)?;
            if let Some(gone) = sizes.trim(&mut log)? {
                meta.insert(OLDEST, gone)?;
            }
        }
    }
    // A transaction is durable by default: `commit` returns when the disk has it.
    if changed { Ok(writing.commit()?) } else { Ok(writing.abort()?) }
}

fn holds(entries: &Entries<'_>, batch: &Batch) -> Result<bool, redb::Error> {
    for (key, expect) in &batch.expect {
        let found = entries.get(key.as_str())?.map(|found| found.value().0);
        let held = match (found, expect) {
            (None, Expect::Absent) => true,
            (Some(revision), Expect::At(expected)) => revision == *expected,
            _ => false,
        };
        if !held {
            return Ok(false);
        }
    }
    Ok(true)
}

fn apply(entries: &mut Entries<'_>, batch: &Batch, revision: Revision) -> Result<Vec<Change>, redb::Error> {
    let mut changes = Vec::new();
    for key in batch.deleted() {
        if entries.remove(key)?.is_some() {
            changes.push(Change { key: key.to_owned(), value: None, revision });
        }
    }
    for (key, value) in batch.written() {
        entries.insert(key, (revision, &**value))?;
        changes.push(Change { key: key.to_owned(), value: Some(value.clone()), revision });
    }
    Ok(changes)
}
