//! Waiting until a version of the documents is served, or refused.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::{Instant, sleep};

use super::class::Within;
use super::stream::Stream;
use super::{Fleet, Shared};
use crate::api::types::Waited;

/// How often it is looked whether it is decided.
const LOOK_EVERY: Duration = Duration::from_millis(20);

/// What a version of the documents came to at one sidecar.
enum Came {
    /// It does not concern it.
    Unconcerned,
    Served,
    Refused,
    NotYet,
}

impl Fleet {
    /// Waits until every connected sidecar that a version of the documents concerns serves it, or one refused it, or
    /// the time is over. It concerns a sidecar when it changed what that sidecar is given. Sidecars that are
    /// connected to other control planes are not waited for.
    pub async fn wait(&self, version: u64, timeout: Duration) -> Waited {
        let end = Instant::now() + timeout;
        loop {
            let over = Instant::now() >= end;
            if let Some(waited) = look(&self.shared, version, over) {
                return waited;
            }
            sleep(LOOK_EVERY.min(end.saturating_duration_since(Instant::now()))).await;
        }
    }
}

/// `None` while it is undecided.
fn look(shared: &Shared, version: u64, over: bool) -> Option<Waited> {
    if shared.view().committed.version < version {
        return over.then(|| Waited { done: false, concerned: 0, missing: Vec::new() });
    }
    let mut streams: Vec<Arc<Stream>> = shared.streams().values().cloned().collect();
    streams.sort_unstable_by(|a, b| a.registration.id.cmp(&b.registration.id));
    let (mut concerned, mut refused, mut missing) = (0, false, Vec::new());
    for stream in streams {
        match came(shared, &stream, version) {
            Came::Unconcerned => continue,
            Came::Served => {}
            came => {
                refused |= matches!(came, Came::Refused);
                missing.push(stream);
            }
        }
        concerned += 1;
    }
    let done = missing.is_empty();
    let missing = || missing.iter().map(|stream| shared.row(&stream.registration, Some(stream))).collect();
    (done || refused || over).then(|| Waited { done, concerned, missing: missing() })
}

fn came(shared: &Shared, stream: &Stream, version: u64) -> Came {
    let class = stream.class();
    let progress = stream.progress();
    let within = match progress.moved == version {
        // What it is given since then is another set altogether.
        true => Within::Since(class.version_of(version)),
        false => class.within(version),
    };
    let Within::Since(needed) = within else { return Came::Unconcerned };
    if shared.registry.is_revoked(&stream.registration) {
        return Came::Unconcerned;
    }
    if progress.serving >= needed {
        return Came::Served;
    }
    match &progress.refused {
        Some(refused) if refused.version >= needed => Came::Refused,
        _ => Came::NotYet,
    }
}
