//! One sidecar's stream: the hello, then what it says and what it is sent, each at its own pace.

use std::collections::{BTreeMap, VecDeque};
use std::ops::ControlFlow;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bytes::Bytes;
use pilotfish_config::wire::node::NotStarted;
use pilotfish_config::wire::{
    AuditBatch, AuditTaken, Heartbeat, Hello, MOST_ACCOUNTS, MOST_TAPPED, Refused, RefusedVersion, Share,
    Shares, State, Status, Tap, Taps, ToControl, ToSidecar, Versions, Welcome, Why, WireError,
};
use pilotfish_identity::SpiffeId;
use tokio::sync::{Notify, mpsc};
use tokio::time::{Duration, Instant, sleep_until, timeout};

use super::class::{Class, Sent, framed};
use super::recall::{self, Recalls};
use super::registration::Registration;
use super::registry::Urgency;
use super::taps::MOST_IN_A_SECOND;
use super::{Shared, edges, hello};
use crate::log;

/// A hello has to come within this time.
const HELLO_WITHIN: Duration = Duration::from_secs(10);
/// A stream that says nothing for this many leases has no sidecar at its end any more.
const SILENT_LEASES: u32 = 3;
/// A refusal waits this long for a reader.
const REFUSAL_WITHIN: Duration = Duration::from_secs(1);
/// At most this many reports in a heartbeat: more than endpoints that one agent calls within a second.
const MOST_REPORTS: usize = 1024;
/// At most this many rate limits in a heartbeat.
const MOST_LIMITS: usize = 1024;
/// Questions that wait to be sent.
const MOST_QUESTIONS: usize = 8;
/// Agents that do not come, which a sidecar has to be told.
const MOST_NOT_STARTED: usize = 100;
/// At most this many messages within a second; a sidecar says a few.
const MOST_MESSAGES: u32 = 100;

/// What `serve` is given.
type Incoming = mpsc::Receiver<Result<ToControl, WireError>>;

/// An open stream.
#[derive(Debug)]
pub(super) struct Stream {
    pub(super) number: u64,
    pub(super) registration: Arc<Registration>,
    /// There is something to send.
    pub(super) wake: Notify,
    class: Mutex<Arc<Class>>,
    progress: Mutex<Progress>,
    ending: Mutex<Option<Ending>>,
    drained: AtomicBool,
    /// Slices of rate limits that it has to be told, by name.
    shares: Mutex<BTreeMap<String, Share>>,
    /// What it is to be asked of its calls.
    questions: Mutex<VecDeque<Why>>,
    /// Agents that it is to be told will not come, with the reason.
    not_started: Mutex<BTreeMap<String, String>>,
    /// Records of its audit log that are on the disk here, by chain.
    audited: Mutex<BTreeMap<String, u64>>,
    /// Traces that it has to be asked for.
    pub(super) recalls: Recalls,
}

/// How far a sidecar is.
#[derive(Debug, Clone, Default)]
pub(super) struct Progress {
    pub(super) sent: Option<Sent>,
    pub(super) accepted: u64,
    pub(super) serving: u64,
    pub(super) refused: Option<RefusedVersion>,
    /// The version of the documents that gave it another class.
    pub(super) moved: u64,
    /// Ranks up to these were sent.
    ranked: u64,
    /// Who looks at its calls, as it was told, and as of which change.
    taps: (u64, Vec<Tap>),
}

/// Why a stream ends from this side.
#[derive(Debug, Clone)]
enum Ending {
    /// The same process has a newer stream, here or at another control plane.
    Superseded,
    /// With a last word.
    Refused(Refused),
}

impl Stream {
    /// What it sees.
    pub(super) fn class(&self) -> Arc<Class> {
        lock(&self.class).clone()
    }

    /// It sees something else from this version of the documents on.
    pub(super) fn move_to(&self, class: Arc<Class>, documents: u64) {
        *lock(&self.class) = class;
        self.progress().moved = documents;
        self.wake.notify_one();
    }

    /// How far it is.
    pub(super) fn progress(&self) -> MutexGuard<'_, Progress> {
        lock(&self.progress)
    }

    /// Nobody chooses its agent any more.
    pub(super) fn confirm_drained(&self) {
        self.drained.store(true, Relaxed);
        self.wake.notify_one();
    }

    /// Slices of rate limits from now on.
    pub(super) fn portion(&self, shares: Vec<Share>) {
        lock(&self.shares).extend(shares.into_iter().map(|share| (share.name.clone(), share)));
        self.wake.notify_one();
    }

    /// Asks its sidecar; of too many questions the rest stays unanswered.
    pub(super) fn ask(&self, why: Why) {
        let mut questions = lock(&self.questions);
        if questions.len() < MOST_QUESTIONS {
            questions.push_back(why);
            drop(questions);
            self.wake.notify_one();
        }
    }

    /// Its calls wait for an agent that does not come; of too many the rest wait until they are told again.
    pub(super) fn not_started(&self, NotStarted { agent, reason }: NotStarted) {
        let mut not_started = lock(&self.not_started);
        if not_started.len() < MOST_NOT_STARTED || not_started.contains_key(&agent) {
            not_started.insert(agent, reason);
            drop(not_started);
            self.wake.notify_one();
        }
    }

    /// Its process has a newer stream.
    pub(super) fn supersede(&self) {
        self.end(Ending::Superseded);
    }

    fn end(&self, ending: Ending) {
        *lock(&self.ending) = Some(ending);
        self.wake.notify_one();
    }
}

/// Serves a stream to its end.
pub(super) async fn serve(
    shared: &Arc<Shared>,
    peer: SpiffeId,
    mut incoming: Incoming,
    outgoing: mpsc::Sender<Bytes>,
) {
    let arrived = match first(&mut incoming).await {
        Ok(Some(hello)) => join(shared, &peer, &hello),
        Ok(None) => return,
        Err(refused) => Err(refused),
    };
    match arrived {
        Ok(stream) => {
            let open = Open {
                shared: shared.clone(),
                stream,
                welcomed: false,
                messages: (Instant::now(), 0),
                tapped: 0,
            };
            open.run(incoming, outgoing).await;
        }
        Err(refused) => refuse(&peer, refused, &outgoing).await,
    }
}

/// The hello; nothing when the stream ended before it.
async fn first(incoming: &mut Incoming) -> Result<Option<Box<Hello>>, Refused> {
    let no = |reason: String, retry| Err(Refused { reason, retry });
    match timeout(HELLO_WITHIN, incoming.recv()).await {
        Err(_) => no("no hello came within 10 s".into(), true),
        Ok(None) => Ok(None),
        Ok(Some(Err(error))) => no(format!("the first message cannot be read: {error}"), false),
        Ok(Some(Ok(ToControl::Hello(hello)))) => Ok(Some(hello)),
        Ok(Some(Ok(_))) => no("the first message has to be a hello".into(), false),
    }
}

/// Says why not, and the log too.
async fn refuse(peer: &SpiffeId, refused: Refused, outgoing: &mpsc::Sender<Bytes>) {
    log::warn!("a sidecar's stream is refused", peer = peer, why = refused.reason);
    if let Some(frame) = framed(&ToSidecar::Refused(refused)) {
        let _ = timeout(REFUSAL_WITHIN, outgoing.send(frame)).await;
    }
}

/// Registers who says hello.
fn join(shared: &Arc<Shared>, peer: &SpiffeId, hello: &Hello) -> Result<Arc<Stream>, Refused> {
    hello::check(hello, peer, &shared.settings.trust_domain)?;
    let number = shared.next_stream();
    let id = format!("{}/{}/{}", hello.namespace, hello.agent, hello.instance);
    let before = shared.registry.get(&id);
    let claim = before.as_ref().map_or(0, |before| before.claim).saturating_add(1);
    let registration = Arc::new(Registration::arriving(hello, &shared.id, claim, number, shared.now()));
    let replaced = shared.registry.arrive(&registration, shared.settings.most_instances)?;
    for old in before.iter().filter(|before| before.stream != 0) {
        shared.streams().get(&old.stream).iter().for_each(|stream| stream.supersede());
    }
    for old in replaced {
        shared.ranks.forget(&old.id);
        let reason = format!("a newer process of this agent registered at the same address ({id})");
        let ending = Ending::Refused(Refused { reason, retry: false });
        shared.streams().get(&old.stream).iter().for_each(|stream| stream.end(ending.clone()));
    }
    let stream = open(shared, registration, hello);
    log::info!("a sidecar is connected", id = id, build = stream.registration.facts.build);
    Ok(stream)
}

fn open(shared: &Shared, registration: Arc<Registration>, hello: &Hello) -> Arc<Stream> {
    // Under this lock, so that no step of the class is missed.
    let mut push = shared.push();
    let class = push.class_of(&registration.facts);
    let sent = hello.resume.as_ref().and_then(|resume| class.resumed(resume));
    let stream = Arc::new(Stream {
        number: registration.stream,
        wake: Notify::new(),
        class: Mutex::new(class),
        progress: Mutex::new(Progress { sent, ..Progress::default() }),
        ending: Mutex::new(None),
        drained: AtomicBool::new(false),
        shares: Mutex::default(),
        questions: Mutex::default(),
        not_started: Mutex::default(),
        audited: Mutex::default(),
        recalls: Recalls::default(),
        registration,
    });
    shared.streams().insert(stream.number, stream.clone());
    drop(push);
    if hello.status == Status::Draining {
        shared.drains.request(&stream);
        shared.registry.to_be_rendered(&stream.registration.id, Urgency::Soon);
    }
    stream
}

/// A stream while it is served; dropping it, as whoever carries the stream may do at any time, closes it.
struct Open {
    shared: Arc<Shared>,
    stream: Arc<Stream>,
    welcomed: bool,
    /// Since when messages are counted, and how many came.
    messages: (Instant, u32),
    /// Live calls in that time.
    tapped: usize,
}

impl Drop for Open {
    fn drop(&mut self) {
        let (shared, stream) = (&self.shared, &self.stream);
        shared.streams().remove(&stream.number);
        shared.drains.gone(stream.number);
        shared.asks.gone(stream.number);
        shared.demand.gone(stream.number);
        // One that drained has said good-bye; any other may come back within its lease, here or elsewhere.
        let registration = &stream.registration;
        let left = registration.live().status == Status::Draining;
        if left && shared.registry.remove(registration) {
            shared.ranks.forget(&registration.id);
            shared.lost.left(&registration.facts.agent());
        }
        log::info!("a sidecar's stream ended", id = registration.id, left = left);
    }
}

impl Open {
    async fn run(mut self, mut incoming: Incoming, outgoing: mpsc::Sender<Bytes>) {
        let silence = self.shared.settings.lease * SILENT_LEASES;
        let mut heard = Instant::now();
        // Room is asked for first, so that what is sent is the newest when there is room.
        let mut more = true;
        let ending = loop {
            tokio::select! {
                biased;
                message = incoming.recv() => {
                    heard = Instant::now();
                    match self.message(message) {
                        ControlFlow::Continue(()) => {}
                        ControlFlow::Break(ending) => break ending,
                    }
                }
                room = outgoing.reserve(), if more => {
                    let Ok(room) = room else { break self.last_words(&mut incoming) };
                    match self.next_frame() {
                        Some(frame) => room.send(frame),
                        None => more = false,
                    }
                }
                () = self.stream.wake.notified() => {
                    more = true;
                    if let Some(ending) = lock(&self.stream.ending).take() {
                        break Some(ending);
                    }
                }
                () = sleep_until(heard + silence) => break None,
            }
        };
        if let Some(Ending::Refused(refused)) = ending {
            let registration = &self.stream.registration;
            log::warn!("a sidecar's stream is ended", id = registration.id, why = refused.reason);
            if let Some(frame) = framed(&ToSidecar::Refused(refused)) {
                let _ = timeout(REFUSAL_WITHIN, outgoing.send(frame)).await;
            }
        }
    }

    /// It reads no more; what it said before that counts.
    fn last_words(&mut self, incoming: &mut Incoming) -> Option<Ending> {
        while let Ok(message) = incoming.try_recv() {
            if let ControlFlow::Break(ending) = self.message(Some(message)) {
                return ending;
            }
        }
        None
    }

    /// Takes a message in.
    fn message(&mut self, message: Option<Result<ToControl, WireError>>) -> ControlFlow<Option<Ending>> {
        let no = |reason: String, retry| ControlFlow::Break(Some(Ending::Refused(Refused { reason, retry })));
        let now = Instant::now();
        if now.saturating_duration_since(self.messages.0) >= Duration::from_secs(1) {
            self.messages = (now, 0);
            self.tapped = 0;
        }
        self.messages.1 += 1;
        if self.messages.1 > MOST_MESSAGES {
            return no(format!("more than {MOST_MESSAGES} messages within a second"), true);
        }
        match message {
            None => ControlFlow::Break(None),
            Some(Err(error)) => no(format!("a message cannot be read: {error}"), true),
            Some(Ok(ToControl::Hello(_))) => no("a second hello".into(), true),
            Some(Ok(ToControl::Heartbeat(beat))) if beat.reports.len() > MOST_REPORTS => {
                no(format!("more than {MOST_REPORTS} reports in a heartbeat"), true)
            }
            Some(Ok(ToControl::Heartbeat(beat))) if beat.limits.len() > MOST_LIMITS => {
                no(format!("more than {MOST_LIMITS} rate limits in a heartbeat"), true)
            }
            Some(Ok(ToControl::Heartbeat(beat))) if beat.edges.len() > edges::MOST_REPORTED => {
                no(format!("more than {} edges in a heartbeat", edges::MOST_REPORTED), true)
            }
            Some(Ok(ToControl::Heartbeat(beat))) => {
                self.heartbeat(&beat, now);
                ControlFlow::Continue(())
            }
            Some(Ok(ToControl::State(state))) => {
                self.state(hello::bounded(state));
                ControlFlow::Continue(())
            }
            Some(Ok(ToControl::Partial(traces))) => {
                recall::ask(&self.shared, &self.stream, &traces);
                ControlFlow::Continue(())
            }
            Some(Ok(ToControl::Tapped(tapped))) if tapped.calls.len() > MOST_TAPPED => {
                no(format!("more than {MOST_TAPPED} calls in a message"), true)
            }
            Some(Ok(ToControl::Answered(answered))) if answered.calls.len() > MOST_ACCOUNTS => {
                no(format!("more than {MOST_ACCOUNTS} calls in an answer"), true)
            }
            Some(Ok(ToControl::Tapped(tapped))) => {
                let room = MOST_IN_A_SECOND.saturating_sub(self.tapped);
                self.tapped += self.shared.taps.take(&self.stream.registration, tapped, room);
                ControlFlow::Continue(())
            }
            Some(Ok(ToControl::Answered(answered))) => {
                self.shared.asks.take(self.stream.number, answered);
                ControlFlow::Continue(())
            }
            Some(Ok(ToControl::Asked(asked))) => {
                if !self.shared.registry.is_revoked(&self.stream.registration) {
                    self.shared.asked(&self.stream, &asked);
                }
                ControlFlow::Continue(())
            }
            Some(Ok(ToControl::Audit(batch))) => {
                self.audit(batch);
                ControlFlow::Continue(())
            }
            Some(Ok(ToControl::Unknown)) => ControlFlow::Continue(()),
        }
    }

    /// Has a batch put on the disk; the sidecar is told once it is.
    fn audit(&self, batch: AuditBatch) {
        let Some(store) = &self.shared.settings.audit else { return };
        let stream = Arc::downgrade(&self.stream);
        store.take(self.stream.registration.facts.agent(), batch, move |AuditTaken { chain, seq }| {
            if let Some(stream) = stream.upgrade() {
                lock(&stream.audited).insert(chain, seq);
                stream.wake.notify_one();
            }
        });
    }

    fn heartbeat(&self, heartbeat: &Heartbeat, now: Instant) {
        let (shared, registration) = (&self.shared, &self.stream.registration);
        let beat = registration.beat(heartbeat, shared.now());
        if beat.now == Status::Draining && beat.before != Status::Draining {
            // Before it is rendered, so that what is rendered counts for it.
            shared.drains.request(&self.stream);
        }
        if beat.before != beat.now {
            let leaves = beat.before.is_routable() && !beat.now.is_routable();
            let urgency = if leaves { Urgency::Soon } else { Urgency::Usual };
            shared.registry.changed(&registration.id, urgency);
            shared.registry.tell_placement(registration);
        } else if beat.stored_differs {
            shared.registry.to_be_stored(&registration.id);
        }
        // Its lease had run out, but here it is.
        if shared.registry.get(&registration.id).is_none() {
            shared.registry.put(registration.clone(), true);
        }
        if !heartbeat.edges.is_empty() && !shared.registry.is_revoked(registration) {
            shared.edges.report(&registration.facts.agent(), &heartbeat.edges, shared.now());
        }
        if !heartbeat.limits.is_empty() && !shared.registry.is_revoked(registration) {
            shared.portions.report(shared, registration, &heartbeat.limits);
        }
        self.reports(heartbeat, now);
    }

    /// Only endpoints of its own set: what it cannot call it cannot have measured.
    fn reports(&self, heartbeat: &Heartbeat, now: Instant) {
        if heartbeat.reports.is_empty() || self.shared.registry.is_revoked(&self.stream.registration) {
            return;
        }
        let class = self.stream.class();
        for report in heartbeat.reports.iter().filter(|report| class.has_endpoint(&report.endpoint)) {
            if let Some(target) = self.shared.registry.get(&report.endpoint) {
                self.shared.ranks.report(&target.id, &self.stream.registration.id, report, now);
            }
        }
    }

    fn state(&self, state: State) {
        self.stream.registration.hear(self.shared.now());
        let mut progress = self.stream.progress();
        if let Some(refused) = &state.refused
            && progress.refused.as_ref() != Some(refused)
        {
            log::warn!(
                "a sidecar refuses a version",
                id = self.stream.registration.id,
                version = refused.version,
                why = hello::first_reason(refused)
            );
        }
        (progress.accepted, progress.serving) = (state.accepted, state.serving);
        progress.refused = state.refused;
        drop(progress);
        self.shared.drains.serving(self.stream.number, state.serving);
    }

    /// What comes next, made now.
    fn next_frame(&mut self) -> Option<Bytes> {
        if !self.welcomed {
            self.welcomed = true;
            return framed(&ToSidecar::Welcome(self.welcome()));
        }
        // One that is revoked is shown, but learns nothing more.
        if self.shared.registry.is_revoked(&self.stream.registration) {
            return None;
        }
        let class = self.stream.class();
        let mut progress = self.stream.progress();
        if let Some((frame, sent)) = class.next(progress.sent.as_ref()) {
            progress.sent = Some(sent);
            return Some(frame);
        }
        if self.stream.drained.swap(false, Relaxed) {
            return framed(&ToSidecar::Drained {});
        }
        let shares = std::mem::take(&mut *lock(&self.stream.shares));
        if !shares.is_empty() {
            return framed(&ToSidecar::Shares(Shares { shares: shares.into_values().collect() }));
        }
        if progress.taps.0 != self.shared.taps.version() {
            // The number first: what changes in between is another change.
            progress.taps.0 = self.shared.taps.version();
            let taps = self.shared.taps.at(&self.stream.registration.facts);
            if taps != progress.taps.1 {
                progress.taps.1.clone_from(&taps);
                return framed(&ToSidecar::Taps(Taps { taps }));
            }
        }
        if let Some((agent, reason)) = lock(&self.stream.not_started).pop_first() {
            return framed(&ToSidecar::NotStarted(NotStarted { agent, reason }));
        }
        if let Some((chain, seq)) = lock(&self.stream.audited).pop_first() {
            return framed(&ToSidecar::AuditTaken(AuditTaken { chain, seq }));
        }
        if let Some(why) = lock(&self.stream.questions).pop_front() {
            return framed(&ToSidecar::Why(why));
        }
        if let Some(traces) = self.stream.recalls.take() {
            return framed(&ToSidecar::Recall(traces));
        }
        let (from, to) = (progress.ranked, self.shared.ranks.newest());
        if from >= to {
            return None;
        }
        progress.ranked = to;
        drop(progress);
        class.ranks(from, to, &self.stream.registration.id, || self.shared.ranks.since(from))
    }

    fn welcome(&self) -> Welcome {
        let settings = &self.shared.settings;
        let milliseconds = |time: Duration| u64::try_from(time.as_millis()).unwrap_or(u64::MAX);
        Welcome {
            versions: Versions::own(),
            control: settings.id.clone(),
            trust_domain: settings.trust_domain.to_string(),
            lease_ms: milliseconds(settings.lease),
            heartbeat_ms: milliseconds(settings.heartbeat()),
        }
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
