//! All replicas of the node: what runs is made equal to the newest set.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime};

use pilotfish_config::wire::node::{ReplicaOrder, ReplicaPhase, ReplicaState};
use tokio::sync::{mpsc, watch};

use super::disk;
use super::place::Place;
use super::replica::{Host, Replica, Wish};
use super::states::now_ms;

/// What is sent of a log at most, bytes.
const LONGEST_TAIL: u64 = 1 << 20;
/// A longer line is cut, characters.
const LONGEST_LINE: usize = 8192;
/// Logs of replicas that are gone.
const MOST_ENDED: usize = 50;
/// What is kept of each, bytes.
const KEPT: u64 = 64 << 10;
/// Where those are, in the data folder.
pub(super) const ENDED: &str = "ended";
/// How long a replica that is gone stays in reports.
const GONE: Duration = Duration::from_secs(60);

/// All replicas.
#[derive(Debug)]
pub(super) struct Replicas {
    host: Arc<Host>,
    actors: Mutex<BTreeMap<String, Actor>>,
}

/// What is told to a replica.
#[derive(Debug)]
struct Actor {
    wish: watch::Sender<Wish>,
    tokens: mpsc::Sender<Result<String, String>>,
}

impl Replicas {
    /// Finds what an earlier node left, and goes on with it. Nothing is stopped before a set has come.
    ///
    /// # Errors
    /// The disk's.
    pub(super) fn open(host: Arc<Host>) -> std::io::Result<Arc<Replicas>> {
        disk::private_folder(&host.folder)?;
        disk::private_folder(&host.ended)?;
        let found = Place::all(&host.folder);
        let replicas = Arc::new(Replicas { host, actors: Mutex::default() });
        for (id, place) in found {
            let mut actors = replicas.lock();
            replicas.begin(&mut actors, &id, place, Wish::Unknown);
        }
        Ok(replicas)
    }

    /// How they are.
    pub(super) fn states(&self) -> &super::states::States {
        &self.host.states
    }

    /// Makes it so: what is in `orders` runs, nothing else does.
    pub(super) fn apply(self: &Arc<Self>, orders: Vec<ReplicaOrder>) {
        let mut actors = self.lock();
        let wanted: BTreeSet<String> = orders.iter().map(|order| order.id.clone()).collect();
        for (id, actor) in actors.iter() {
            if !wanted.contains(id) {
                actor.wish.send_if_modified(|wish| {
                    let differs = !matches!(wish, Wish::Stop);
                    *wish = Wish::Stop;
                    differs
                });
            }
        }
        for order in orders {
            let id = order.id.clone();
            let Some(place) = Place::of(&self.host.folder, &id) else {
                self.refuse(&order, "its id is no `namespace/agent/replica`");
                continue;
            };
            match actors.get(&id) {
                Some(actor) => {
                    actor.wish.send_if_modified(|wish| {
                        let same = matches!(wish, Wish::Run(old) if old.generation == order.generation);
                        *wish = Wish::Run(Arc::new(order));
                        !same
                    });
                }
                None => self.begin(&mut actors, &id, place, Wish::Run(Arc::new(order))),
            }
        }
    }

    fn refuse(&self, order: &ReplicaOrder, why: &str) {
        self.host.states.set(&ReplicaState {
            id: order.id.clone(),
            generation: order.generation.clone(),
            phase: ReplicaPhase::Failed,
            reason: Some(why.to_owned()),
            restarts: 0,
            sidecar_restarts: 0,
            pid: None,
            since_ms: now_ms(),
            usage: None,
        });
    }

    fn begin(self: &Arc<Self>, actors: &mut BTreeMap<String, Actor>, id: &str, place: Place, wish: Wish) {
        let (wish, wishes) = watch::channel(wish);
        let (tokens, incoming) = mpsc::channel(1);
        actors.insert(id.to_owned(), Actor { wish, tokens });
        let replica = Replica::new(self.host.clone(), place.clone(), id, wishes, incoming);
        let (replicas, id) = (self.clone(), id.to_owned());
        tokio::spawn(async move {
            replica.run().await;
            replicas.over(&id, place);
            tokio::time::sleep(GONE).await;
            replicas.host.states.forget(&id);
        });
    }

    /// A replica is gone. One that is wanted again by now begins anew.
    fn over(self: &Arc<Self>, id: &str, place: Place) {
        let mut actors = self.lock();
        let Some(actor) = actors.remove(id) else { return };
        let wish = actor.wish.borrow().clone();
        if matches!(wish, Wish::Run(_)) {
            self.begin(&mut actors, id, place, wish);
        }
    }

    /// Hands a token on; one that nobody waits for is dropped.
    pub(super) fn token(&self, id: &str, token: Result<String, String>) {
        if let Some(actor) = self.lock().get(id) {
            let _ = actor.tokens.try_send(token);
        }
    }

    /// The last lines of a replica's output.
    ///
    /// # Errors
    /// There are none: why.
    pub(super) fn tail(&self, id: &str, lines: usize) -> Result<Vec<String>, String> {
        let place = Place::of(&self.host.folder, id).ok_or("its id is no `namespace/agent/replica`")?;
        let mut logs = place.logs();
        logs.retain(|path| path.exists());
        if logs.is_empty() {
            logs.push(log_of(&self.host.ended, id));
        }
        let mut text = Vec::new();
        for log in &logs {
            text.extend(disk::end_of(log, LONGEST_TAIL).unwrap_or_default());
        }
        if text.is_empty() {
            return Err(format!("{id} has written nothing here"));
        }
        let text = String::from_utf8_lossy(&text);
        let mut room = usize::try_from(LONGEST_TAIL).unwrap_or(usize::MAX);
        let mut last: Vec<String> = Vec::new();
        for line in text.lines().rev().take(lines) {
            let line: String = line.chars().take(LONGEST_LINE).collect();
            if line.len() > room {
                break;
            }
            room -= line.len();
            last.push(line);
        }
        last.reverse();
        Ok(last)
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<String, Actor>> {
        self.actors.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Where the last words of a replica that is gone are.
fn log_of(ended: &Path, id: &str) -> PathBuf {
    ended.join(format!("{}.log", id.replace('/', "~")))
}

/// Keeps the end of a replica's output before its folder goes; of the newest replicas only.
pub(super) fn keep_log(ended: &Path, id: &str, place: &Place) {
    let Some(log) = place.logs().pop() else { return };
    let end = disk::end_of(&log, KEPT).unwrap_or_default();
    if end.is_empty() || disk::replace(&log_of(ended, id), &end).is_err() {
        return;
    }
    let entries = fs::read_dir(ended).into_iter().flatten().flatten();
    let dated = entries.filter_map(|entry| Some((entry.metadata().ok()?.modified().ok()?, entry.path())));
    let mut kept: Vec<(SystemTime, PathBuf)> = dated.collect();
    kept.sort();
    for (_, oldest) in kept.iter().take(kept.len().saturating_sub(MOST_ENDED)) {
        let _ = fs::remove_file(oldest);
    }
}
