//! The loops: one takes part in the election, one looks over the nodes' leases, one decides while this control plane leads.

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::UNIX_EPOCH;

use pilotfish_config::wire::node::ToNode;
use tokio::sync::{mpsc, oneshot};
use tokio::time::{Duration, Instant, MissedTickBehavior, interval, sleep, sleep_until, timeout};

use super::board::{Board, Life};
use super::leader::{NotWritten, RENEW_EVERY, Role};
use super::reconcile::why_moved;
use super::{Mark, NotDone, Shared, records};
use crate::log;
use crate::placement::demand;
use crate::placement::place::{Limits, MoveReason, Outcome, place};
use crate::placement::world::{Traffic, World};
use crate::store::{Batch, StoreError};

/// What comes within this time is decided together; a decision that took longer than this is followed by a pause as long.
const TOGETHER: Duration = Duration::from_millis(5);
/// How often is looked when nothing happens.
const LOOK_EVERY: Duration = Duration::from_secs(1);
/// How often leases are looked at.
const LEASES_EVERY: Duration = Duration::from_millis(200);
/// A look that comes this late was not held up by nodes: they get a full lease.
const STALLED: Duration = Duration::from_secs(1);
/// How long a new leader waits for the documents that the one before acted on.
const DOCUMENTS_WITHIN: Duration = Duration::from_secs(10);
/// How long a store that failed is left alone.
const REST: Duration = Duration::from_millis(500);
/// The window of the traffic that placement looks at.
const TRAFFIC: Duration = Duration::from_secs(300);

/// What people ask for.
#[derive(Debug)]
pub enum Command {
    /// The number of an agent's replicas, by the key of its record.
    Scale(String, Option<u32>, Reply<()>),
    /// A mark on a node.
    Mark(String, Mark, Reply<usize>),
    /// At most so many moves; whether to say it only.
    Rebalance(u32, bool, Reply<Vec<String>>),
}

/// Where the answer goes.
pub type Reply<T> = oneshot::Sender<Result<T, NotDone>>;

/// Takes part in the election until the task is aborted.
pub async fn elect(shared: Arc<Shared>) {
    let mut ticks = interval(RENEW_EVERY);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut closing = shared.settings.closing.clone();
    loop {
        tokio::select! {
            biased;
            _ = closing.wait_for(|closing| *closing) => break,
            () = shared.look.notified() => {}
            _ = ticks.tick() => {}
        }
        let documents = shared.documents.borrow().version;
        let mut elector = shared.elector.lock().await;
        let role = elector.tick(documents).await;
        let until = elector.until();
        drop(elector);
        shared.role.send_if_modified(|now| {
            let changed = now.0 != role;
            if changed {
                log::info!("placement", role = word(&role));
            }
            *now = (role, until);
            changed
        });
    }
    shared.elector.lock().await.resign().await;
    shared.role.send_replace((Role::Follower { leader: None }, Instant::now()));
}

fn word(role: &Role) -> String {
    match role {
        Role::Unknown => "unknown".into(),
        Role::Leader { term } => format!("leads in term {term}"),
        Role::Paused { .. } => "cannot renew the lead: what runs goes on, nothing is ordered".into(),
        Role::Follower { leader: Some(leader) } => format!("follows {}", leader.control),
        Role::Follower { leader: None } => "follows nobody".into(),
    }
}

/// Looks over the leases until the task is aborted.
pub async fn leases(shared: Arc<Shared>) {
    let mut ticks = interval(LEASES_EVERY);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut last = Instant::now();
    loop {
        ticks.tick().await;
        let now = Instant::now();
        let stalled = now.duration_since(std::mem::replace(&mut last, now)) > STALLED;
        let turned = match shared.board().as_mut() {
            Some(board) => {
                if stalled {
                    board.excuse(now);
                }
                board.look(now, shared.settings.grace)
            }
            None => continue,
        };
        for turn in &turned {
            match turn.life {
                Life::Here | Life::Forgotten => shared.fleet.silence(&turn.node, false),
                Life::Silent | Life::Lost if turn.cut => shared.fleet.silence(&turn.node, true),
                Life::Silent | Life::Lost => {}
            }
            let how = match turn.life {
                Life::Here => "it is heard again",
                Life::Silent => "its lease is over; nothing new is placed there",
                Life::Lost => "the grace time is over; its replicas are placed elsewhere",
                Life::Forgotten => "it did not come back; it is forgotten",
            };
            log::warn!("a node's lease", node = turn.node, what = how);
        }
        if !turned.is_empty() {
            shared.wake.notify_one();
        }
    }
}

/// Leads whenever this control plane is the leader, until the task is aborted.
pub async fn run(shared: Arc<Shared>, mut commands: mpsc::Receiver<Command>) {
    let mut role = shared.role.subscribe();
    loop {
        let term = loop {
            if let Role::Leader { term } = role.borrow_and_update().0 {
                break term;
            }
            tokio::select! {
                biased;
                changed = role.changed() => if changed.is_err() { return },
                command = commands.recv() => match command {
                    Some(command) => refuse(command, shared.elsewhere().address),
                    None => return,
                },
            }
        };
        if let Some(board) = begin(&shared, term).await {
            *shared.board() = Some(board);
            let lead =
                Leading { shared: shared.clone(), term, unsaved: false, refused: None, pause: TOGETHER };
            lead.run(&mut commands).await;
        }
        let board = shared.board().take();
        let word = ToNode::Elsewhere(shared.elsewhere());
        for session in
            board.iter().flat_map(|board| board.nodes.values()).filter_map(|node| node.session.as_ref())
        {
            session.end(word.clone());
        }
    }
}

/// Loads what the store holds; nothing when somebody else leads meanwhile.
async fn begin(shared: &Shared, term: u64) -> Option<Board> {
    let before = shared.elector.lock().await.documents_before();
    let mut documents = shared.documents.clone();
    // Older documents would stop what newer ones want.
    let _ = timeout(DOCUMENTS_WITHIN, documents.wait_for(|documents| documents.version >= before)).await;
    loop {
        if shared.term() != Some(term) {
            return None;
        }
        match records::load(&shared.store).await {
            Ok(loaded) => return Some(Board::new(term, loaded)),
            Err(error) => {
                log::warn!("what was placed cannot be read", why = error);
                sleep(REST).await;
            }
        }
    }
}

/// This control plane as the leader of one term.
struct Leading {
    shared: Arc<Shared>,
    term: u64,
    /// Something that was decided is not in the store yet.
    unsaved: bool,
    /// Why the executor did not do it the last time.
    refused: Option<String>,
    pause: Duration,
}

impl Leading {
    /// Leads until it does not any more.
    async fn run(mut self, commands: &mut mpsc::Receiver<Command>) {
        let shared = self.shared.clone();
        let mut role = shared.role.subscribe();
        let mut documents = shared.documents.clone();
        let mut replicas = shared.fleet.replica_changes();
        let mut next = Instant::now();
        loop {
            let mut command = None;
            tokio::select! {
                biased;
                _ = role.changed() => {}
                given = commands.recv() => command = given,
                _ = documents.changed() => {}
                _ = replicas.changed() => {}
                () = shared.wake.notified() => {}
                () = sleep_until(next) => {}
            }
            if self.shared.term() != Some(self.term) {
                if let Some(command) = command {
                    refuse(command, shared.elsewhere().address);
                }
                return;
            }
            sleep(self.pause).await;
            let before = Instant::now();
            while let Some(given) = command {
                self.command(given).await;
                command = commands.try_recv().ok();
            }
            let wait = match self.step().await {
                Ok(at) => at,
                Err(NotWritten::Overtaken) => {
                    shared.look.notify_one();
                    before + REST
                }
                Err(NotWritten::Store(error)) => {
                    log::warn!("what was decided cannot be stored, so nobody is told", why = error);
                    before + REST
                }
            };
            self.pause = before.elapsed().max(TOGETHER);
            next = wait.min(before + LOOK_EVERY);
        }
    }

    /// Looks, decides, stores, orders. Gives when to look again.
    async fn step(&mut self) -> Result<Instant, NotWritten> {
        let shared = self.shared.clone();
        let now = Instant::now();
        let (replicas, waiting) = (shared.fleet.replicas(), shared.fleet.demand());
        self.documents();
        let (next, world) = {
            let mut guard = shared.board();
            let Some(board) = guard.as_mut() else { return Ok(now + LOOK_EVERY) };
            board.observe(replicas, now);
            let next = board.settle(now);
            board.follow_demand(&waiting, shared.executor.places(), now);
            let plan = std::mem::take(&mut board.replan) && shared.leads().is_some();
            let world = (plan && shared.executor.places()).then(|| board.world(self.traffic(), now));
            (next, world)
        };
        if let Some(world) = world {
            let outcome = self.decide(world, Limits::default()).await;
            let done = match shared.board().as_mut() {
                Some(board) => board.apply(outcome, now, wall()),
                None => Vec::new(),
            };
            tell_log(&done);
        }
        self.save().await?;
        self.order().await;
        self.not_started(&waiting);
        Ok(next.unwrap_or(now + LOOK_EVERY))
    }

    /// Takes in documents that are newer than what is wanted.
    fn documents(&self) {
        let committed = self.shared.documents.borrow().clone();
        let mut guard = self.shared.board();
        let Some(board) = guard.as_mut() else { return };
        if board.documents == Some(committed.version) {
            return;
        }
        let scales = board.scales.clone();
        drop(guard);
        let wanted = demand(&committed.model, &|agent| scales.get(agent).copied());
        if let Some(board) = self.shared.board().as_mut() {
            board.want(committed.version, wanted);
        }
    }

    /// Decides on a thread of its own: a large decision must not hold up those who serve.
    async fn decide(&self, world: World, limits: Limits) -> Outcome {
        let before = Instant::now();
        let outcome = tokio::task::spawn_blocking(move || place(&world, &limits)).await.unwrap_or_default();
        self.shared.measures.decided(before.elapsed());
        outcome
    }

    /// Writes what is not in the store yet. What cannot be written is tried again, and ordered only then.
    async fn save(&mut self) -> Result<(), NotWritten> {
        let (names, batches) = {
            let mut guard = self.shared.board();
            let Some(board) = guard.as_mut() else { return Ok(()) };
            let names = std::mem::take(&mut board.dirty);
            let batches = records::batches(&names, |name| board.nodes.get(name).map(|node| &node.record));
            (names, batches)
        };
        let mut left: BTreeSet<String> = names;
        let mut failed = None;
        for (members, batch) in batches {
            match self.shared.elector.lock().await.write(batch).await {
                Ok(_) => left.retain(|name| !members.contains(name)),
                Err(error) => {
                    failed = Some(error);
                    break;
                }
            }
        }
        if let Some(board) = self.shared.board().as_mut() {
            board.dirty.append(&mut left);
        }
        self.unsaved = failed.is_some();
        failed.map_or(Ok(()), Err)
    }

    async fn order(&mut self) {
        let desired = match self.shared.board().as_ref() {
            Some(board) => board.desired(),
            None => return,
        };
        // By its own clock, just before: a process that was stopped meanwhile says nothing.
        if self.shared.leads() != Some(self.term) {
            return;
        }
        let refused = self.shared.executor.reconcile(self.term, &desired).await.err().map(|error| error.0);
        if let Some(why) = refused.as_ref().filter(|_| refused != self.refused) {
            log::warn!("what was decided cannot be ordered; it is tried again", why = why);
        }
        self.refused = refused;
        if !self.shared.executor.places()
            && let Ok(observed) = self.shared.executor.observe().await
        {
            *self.shared.observed.lock().unwrap_or_else(std::sync::PoisonError::into_inner) = observed;
        }
    }

    /// Those who wait for an agent that has no place are told why.
    fn not_started(&self, waiting: &[(String, u32)]) {
        if waiting.is_empty() {
            return;
        }
        let guard = self.shared.board();
        let Some(board) = guard.as_ref() else { return };
        let told: Vec<(&String, String)> = waiting
            .iter()
            .filter(|(_, count)| *count > 0)
            .filter_map(|(agent, _)| Some((agent, board.why_not_started(agent)?)))
            .collect();
        for (agent, reason) in told {
            self.shared.fleet.not_started(agent, &reason);
        }
    }

    fn traffic(&self) -> Vec<Traffic> {
        let mut sums: HashMap<(Arc<str>, Arc<str>), u64> = HashMap::new();
        for edge in self.shared.fleet.edges(TRAFFIC) {
            *sums.entry((edge.from, edge.to)).or_default() += edge.traffic.calls;
        }
        let rate = |((from, to), calls): ((Arc<str>, Arc<str>), u64)| Traffic {
            from: from.to_string(),
            to: to.to_string(),
            rate: calls as f64 / TRAFFIC.as_secs_f64(),
        };
        let mut traffic: Vec<Traffic> = sums.into_iter().filter(|(_, calls)| *calls > 0).map(rate).collect();
        traffic.sort_by(|a, b| (&a.from, &a.to).cmp(&(&b.from, &b.to)));
        traffic
    }

    async fn command(&mut self, command: Command) {
        match command {
            Command::Scale(name, count, reply) => {
                let written = self.write(records::scale(&name, count)).await;
                if let (Ok(()), Some(board)) = (&written, self.shared.board().as_mut()) {
                    match count {
                        Some(count) => drop(board.scales.insert(name, count)),
                        None => drop(board.scales.remove(&name)),
                    }
                    // Read anew, with these numbers.
                    board.documents = None;
                }
                let _ = reply.send(written);
            }
            Command::Mark(name, mark, reply) => {
                let known = match self.shared.board().as_mut().and_then(|board| board.nodes.get_mut(&name)) {
                    Some(node) => {
                        node.record.mark = mark;
                        Some(node.record.assignments.len())
                    }
                    None => None,
                };
                let Some(replicas) = known else {
                    let _ = reply.send(Err(NotDone::Unknown(format!("no node `{name}`"))));
                    return;
                };
                if let Some(board) = self.shared.board().as_mut() {
                    board.dirty.insert(name);
                    board.replan = true;
                }
                let saved = self.save().await.map_err(|error| self.not_done(error));
                let _ = reply.send(saved.map(|()| replicas));
            }
            Command::Rebalance(moves, dry_run, reply) => {
                let done = self.rebalance(moves, dry_run).await;
                let _ = reply.send(done);
            }
        }
    }

    async fn rebalance(&mut self, moves: u32, dry_run: bool) -> Result<Vec<String>, NotDone> {
        let now = Instant::now();
        let world = self.shared.board().as_ref().map(|board| board.world(self.traffic(), now));
        let Some(world) = world else { return Err(NotDone::NotLeading(None)) };
        let mut outcome = self.decide(world, Limits { moves, ..Limits::default() }).await;
        outcome.moves.retain(|step| step.why == MoveReason::Rebalanced);
        outcome.moves.truncate(moves as usize);
        if dry_run {
            let places = self.shared.board().as_ref().map(Board::places).unwrap_or_default();
            let said = |step: &crate::placement::place::Move| {
                let from = places.get(&step.replica).map_or("?", String::as_str);
                format!("{} moves from {from} to {}: {}", step.replica, step.to.node, why_moved(step.why))
            };
            return Ok(outcome.moves.iter().map(said).collect());
        }
        let done = match self.shared.board().as_mut() {
            Some(board) => {
                let (unplaced, stays) =
                    (std::mem::take(&mut board.unplaced), std::mem::take(&mut board.stays));
                let moves = Outcome { moves: outcome.moves, unplaced, ..Outcome::default() };
                let done = board.apply(moves, now, wall());
                board.stays = stays;
                done
            }
            None => Vec::new(),
        };
        tell_log(&done);
        self.save().await.map_err(|error| self.not_done(error))?;
        Ok(done)
    }

    async fn write(&self, batch: Batch) -> Result<(), NotDone> {
        let written = self.shared.elector.lock().await.write(batch).await;
        written.map(|_| ()).map_err(|error| self.not_done(error))
    }

    fn not_done(&self, error: NotWritten) -> NotDone {
        match error {
            NotWritten::Overtaken => {
                self.shared.look.notify_one();
                NotDone::NotLeading(None)
            }
            NotWritten::Store(error) => NotDone::Store(error),
        }
    }
}

impl super::Measures {
    fn decided(&self, took: Duration) {
        self.decisions.fetch_add(1, Relaxed);
        let took = u64::try_from(took.as_micros()).unwrap_or(u64::MAX);
        self.deciding_us.fetch_add(took, Relaxed);
        self.last_us.store(took, Relaxed);
    }
}

/// The log has a line for each of a few things that were done, and the number of many.
fn tell_log(done: &[String]) {
    const MOST: usize = 20;
    for what in done.iter().take(MOST) {
        log::info!("placement", did = what);
    }
    if done.len() > MOST {
        log::info!("placement", more = done.len() - MOST);
    }
}

fn refuse(command: Command, at: Option<String>) {
    let not = NotDone::NotLeading(at);
    match command {
        Command::Scale(_, _, reply) => drop(reply.send(Err(not))),
        Command::Mark(_, _, reply) => drop(reply.send(Err(not))),
        Command::Rebalance(_, _, reply) => drop(reply.send(Err(not))),
    }
}

/// Seconds since 1970.
fn wall() -> u64 {
    std::time::SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs()
}

/// So that a store's error can be said where only placement's errors are.
impl From<StoreError> for NotDone {
    fn from(error: StoreError) -> NotDone {
        NotDone::Store(error)
    }
}
