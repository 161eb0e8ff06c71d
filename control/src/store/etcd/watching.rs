//! A watch of etcd: goes on where it was when a member goes away, ends with an error when changes are lost.

use std::time::{Duration, Instant};

use bytes::Bytes;
use etcd_client::{Client, EventType, WatchOptions, WatchStream};
use tokio::sync::mpsc;

use super::{CONNECT, DEADLINE, PREFIX, Place, end_of, own_key, signed, unsigned};
use crate::store::{Change, Revision, StoreError, Watch};

/// Messages that a slow watch may fall behind before etcd is no longer read.
const BEHIND: usize = 1024;
/// The first pause before the next member is asked, and the longest.
const FIRST: Duration = Duration::from_millis(50);
const LONGEST: Duration = Duration::from_secs(1);
/// Without a member for so long the watch ends: whoever needs it should see that the store is away.
const AWAY: Duration = Duration::from_secs(10);

type Send = mpsc::Sender<Result<Vec<Change>, StoreError>>;

/// Begins to watch; the first stream is open when this returns.
pub(super) async fn start(
    client: Client,
    place: Place,
    prefix: &str,
    from: Revision,
) -> Result<Watch, StoreError> {
    let (send, watch) = mpsc::channel(BEHIND);
    let mut watching = Watching { client, place, prefix: prefix.to_owned(), seen: from };
    let stream = watching.opened().await?;
    tokio::spawn(async move {
        if let Err(error) = watching.run(stream, &send).await {
            let _ = send.send(Err(error)).await;
        }
    });
    Ok(watch)
}

struct Watching {
    client: Client,
    place: Place,
    prefix: String,
    /// Every change up to here was told.
    seen: Revision,
}

impl Watching {
    async fn open(&mut self) -> Result<WatchStream, StoreError> {
        let options =
            WatchOptions::new().with_range(end_of(&self.prefix)).with_start_revision(signed(self.seen + 1));
        let mut client = self.client.watch_client().max_decoding_message_size(super::MESSAGE);
        let opened = client.watch(format!("{PREFIX}{}", self.prefix), Some(options));
        match tokio::time::timeout(DEADLINE, opened).await {
            Ok(opened) => opened.map_err(|error| self.place.failed(&error, false)),
            Err(_) => Err(self.away("did not answer")),
        }
    }

    /// Opens the first stream; a member that is away may be picked once or twice.
    async fn opened(&mut self) -> Result<WatchStream, StoreError> {
        let mut left = super::TRIES;
        loop {
            left -= 1;
            match self.open().await {
                Err(_) if left > 0 => tokio::time::sleep(FIRST.mul_f64(0.5 + fastrand::f64())).await,
                opened => return opened,
            }
        }
    }

    fn away(&self, why: &str) -> StoreError {
        StoreError::Unavailable { why: format!("{} {why}", self.place), unsure: false }
    }

    /// Until nobody listens, or changes are lost.
    async fn run(&mut self, mut stream: WatchStream, send: &Send) -> Result<(), StoreError> {
        loop {
            let heard = Instant::now();
            tokio::select! {
                () = send.closed() => return Ok(()),
                ended = self.read(&mut stream, send) => ended?,
            }
            let mut pause = FIRST;
            stream = loop {
                tokio::select! {
                    () = send.closed() => return Ok(()),
                    () = tokio::time::sleep(pause.mul_f64(0.5 + fastrand::f64())) => {}
                }
                match self.open().await {
                    Ok(stream) => break stream,
                    Err(error) if heard.elapsed() > AWAY => return Err(error),
                    Err(_) => pause = (pause * 2).min(LONGEST),
                }
            };
        }
    }

    /// Reads one stream to its end; an error means that changes are lost.
    async fn read(&mut self, stream: &mut WatchStream, send: &Send) -> Result<(), StoreError> {
        loop {
            // A stream that breaks is opened again where it was.
            let Ok(Some(message)) = stream.message().await else { return Ok(()) };
            if message.compact_revision() > 0 {
                return Err(
                    self.away(&format!("forgot the changes after revision {}: list again", self.seen))
                );
            }
            if message.canceled() {
                // A member without a leader says so; another one may have it.
                tokio::time::sleep(CONNECT / 10).await;
                return Ok(());
            }
            for changes in by_revision(message.events(), self.seen)? {
                let Some(last) = changes.last() else { continue };
                let revision = last.revision;
                if send.send(Ok(changes)).await.is_err() {
                    return Ok(());
                }
                self.seen = revision;
            }
        }
    }
}

/// The changes of a message, one list for each revision.
fn by_revision(events: &[etcd_client::Event], seen: Revision) -> Result<Vec<Vec<Change>>, StoreError> {
    let mut all: Vec<Vec<Change>> = Vec::new();
    for event in events {
        let Some(found) = event.kv() else { continue };
        let revision = unsigned(found.mod_revision());
        if revision <= seen {
            continue;
        }
        let value = match event.event_type() {
            EventType::Put => Some(Bytes::copy_from_slice(found.value())),
            EventType::Delete => None,
        };
        let change = Change { key: own_key(found.key())?, value, revision };
        match all.last_mut() {
            Some(last) if last.last().is_some_and(|last| last.revision == revision) => last.push(change),
            _ => all.push(vec![change]),
        }
    }
    Ok(all)
}
