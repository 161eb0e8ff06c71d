//! The audit log: one record for each decision, chained by hashes, on this machine's disk first, then at the control plane.
//!
//! | file | what |
//! |---|---|
//! | [`entry`] | what a worker notes of a decision |
//! | [`thread`] | the thread that takes it from there |
//! | [`line`] | entries as lines of JSON |
//! | [`keep`] | lines sealed, written, erased when they are old; gaps |
//! | [`ship`] | their way to the control plane |
//! | [`turned`] | connections that came to no request |
//! | [`anomaly`] | unusual callers |
//! | [`state`] | what these know of each other |

mod anomaly;
mod entry;
mod keep;
mod line;
pub mod ship;
pub mod state;
mod thread;
pub mod turned;

use std::fmt;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::sync::mpsc::{SyncSender, sync_channel};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use pilotfish_config::wire::AuditWhat;
use pilotfish_filters::authz::{Asking, Judgement, Who};
use pilotfish_filters::verdict::{Deny, Reason};

use crate::bootstrap::{AuditLevel, AuditSettings, Settings};
use crate::request::admit::Asked;
use crate::request::ctx::Ctx;
use crate::server::Shared;
use crate::telemetry::log;
use crate::worker::Worker;
use entry::{Batch, Draft, Field, Outcome};
use state::State;
use thread::Thread;

/// Notes that may wait for the thread.
const QUEUE: usize = 1024;
/// The longest text of an entry, bytes; what is asked for may be longer before it is redacted.
const LONGEST: usize = 256;
/// How far the control plane has the log, beside it.
pub const SHIPPED: &str = "shipped";

/// What is no decision: when, what it is about, and its texts by their names in the record.
pub struct Note {
    at: u64,
    what: AuditWhat,
    fields: Vec<(&'static str, String)>,
}

/// What the thread is sent.
pub enum Item {
    /// There is something to take: a worker noted its first decision since the thread took those before, or connections were turned
    /// away of which nobody told.
    Wake,
    /// What is no decision.
    Note(Note),
    /// The process ends.
    End(SyncSender<()>),
}

/// The log of this sidecar.
pub struct Audit {
    settings: AuditSettings,
    queue: OnceLock<SyncSender<Item>>,
    /// What each worker noted. The thread holds a lock only to put an empty batch in a full one's place.
    batches: Box<[Mutex<Batch>]>,
    /// The thread takes nothing more. Looked at with a batch's lock.
    over: AtomicBool,
    /// What is known of its state.
    pub state: State,
}

impl fmt::Debug for Audit {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.debug_struct("Audit").field("state", &self.state).finish_non_exhaustive()
    }
}

impl Audit {
    /// Nothing is recorded before [`Audit::start`].
    pub fn new(settings: &Settings) -> Audit {
        Audit {
            settings: settings.audit.clone(),
            queue: OnceLock::new(),
            batches: (0..settings.workers).map(|_| Mutex::default()).collect(),
            over: AtomicBool::new(false),
            state: State::new(!settings.control.addresses.is_empty()),
        }
    }

    /// Starts the thread, which goes on with the log that is there. To be called once, after the exporter's start.
    pub fn start(&self, shared: &Arc<Shared>) {
        let place = place(&shared.settings);
        let is_member = !shared.settings.control.addresses.is_empty();
        match &place {
            Some(place) => log::info!("audit log", folder = place.display()),
            None if is_member || shared.exporter.takes_logs() => {
                log::info!("audit records are kept in memory until they are sent: there is no --audit-dir")
            }
            None if self.settings.which == AuditLevel::Off => {}
            None => log::info!("no audit log: there is no --audit-dir, no control plane and no collector"),
        }
        // Without any place only `--audit-required` needs to know that nothing is kept.
        if place.is_none() && !is_member && !shared.exporter.takes_logs() {
            self.state.broken.store(true, Relaxed);
            return;
        }
        let (items, queue) = sync_channel(QUEUE);
        let thread = Thread { shared: shared.clone(), queue, place };
        match std::thread::Builder::new().name("audit".into()).spawn(move || thread.run()) {
            Ok(_) => {
                let _ = self.queue.set(items);
            }
            Err(error) => {
                self.state.broken.store(true, Relaxed);
                log::error!("no thread for the audit log", error = error);
            }
        }
    }

    /// Records something that is no decision: an agent was quarantined, say. Texts by their names in the record.
    pub fn note(&self, what: AuditWhat, fields: Vec<(&'static str, String)>) {
        let Some(queue) = self.queue.get() else { return };
        let at = now();
        if queue.try_send(Item::Note(Note { at, what, fields })).is_err() {
            self.state.lose(at);
        }
    }

    /// Writes the last record, waits for it at most `limit`. For the end of the process.
    pub fn end(&self, limit: Duration) {
        let (done, wait) = sync_channel(1);
        if let Some(queue) = self.queue.get()
            && queue.try_send(Item::End(done)).is_ok()
        {
            let _ = wait.recv_timeout(limit);
        }
    }

    /// Whether refusals are recorded though no policy asks for it.
    fn takes_refusals(&self) -> bool {
        self.settings.which != AuditLevel::Off
    }

    /// Notes a decision, with what is known of any call. Whether the thread will have it.
    fn push(&self, worker: &Worker, ctx: &Ctx<'_>, fill: impl FnOnce(&mut Draft<'_>)) -> bool {
        let Some(batch) = self.batches.get(worker.index).filter(|_| self.queue.get().is_some()) else {
            return false;
        };
        let at = now();
        let mut batch = locked(batch);
        let (is_first, over) = (batch.is_empty(), self.over.load(Relaxed));
        let Some(mut draft) = (!over).then(|| batch.begin(at)).flatten() else {
            self.state.lose(at);
            return false;
        };
        draft.head.outbound = ctx.direction == crate::listen::Direction::Outbound;
        draft.head.trace = ctx.call.trace;
        fill(&mut draft);
        if is_first {
            self.wake();
        }
        true
    }

    fn wake(&self) {
        // A queue that is full has woken it.
        let _ = self.queue.get().map(|queue| queue.try_send(Item::Wake));
    }

    /// Puts empty batches in the place of what the workers noted.
    fn hand_over(&self, empty: &mut [Batch]) {
        for (own, empty) in self.batches.iter().zip(empty) {
            std::mem::swap(&mut *locked(own), empty);
        }
    }

    /// Nothing is taken any more: what waits is lost, and what comes.
    fn close(&self) {
        self.over.store(true, Relaxed);
        for batch in &self.batches {
            let mut batch = locked(batch);
            batch.entries().for_each(|entry| self.state.lose(entry.head.at));
            batch.clear();
        }
    }
}

fn locked(batch: &Mutex<Batch>) -> MutexGuard<'_, Batch> {
    batch.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Where the log lies: `--audit-dir`, else beside what a member of a mesh keeps.
fn place(settings: &Settings) -> Option<PathBuf> {
    let is_member = !settings.control.addresses.is_empty() || settings.control.state_dir.is_some();
    let state = || settings.control.state_dir(&settings.namespace, &settings.agent).join("audit");
    settings.audit.dir.clone().or_else(|| is_member.then(state))
}

/// Now, nanoseconds since 1970.
fn now() -> u64 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(now.as_nanos()).unwrap_or(u64::MAX)
}

/// Records a decision, as far as it has to be recorded.
///
/// # Errors
/// `audit-unavailable`: it cannot be kept, and the policy does not let the call go on without.
pub fn decided(
    worker: &Worker,
    ctx: &mut Ctx<'_>,
    asked: &Asked<'_>,
    asking: &Asking<'_>,
    judgement: &Judgement<'_>,
) -> Result<(), Deny> {
    let audit = &worker.shared.audit;
    let governance = asked.snapshot.plan.governance();
    let denied = judgement.deny.is_some();
    let by_level = match audit.settings.which {
        AuditLevel::All => true,
        AuditLevel::Denied => denied || judgement.dry_run.is_some(),
        AuditLevel::Off => false,
    };
    let wanted = by_level || governance.audit_all || judgement.audit || judgement.access;
    if !wanted && !governance.alert_on_anomalies {
        return Ok(());
    }
    let required = wanted && (audit.settings.required || governance.audit_required);
    let unavailable = required && !denied && audit.state.broken.load(Relaxed);
    // Whoever looks for the unusual has to hear of what is usual too.
    ctx.audited = true;
    let kept = audit.push(worker, ctx, |entry| {
        (entry.head.recorded, entry.head.watched) = (wanted, governance.alert_on_anomalies);
        if judgement.access && !(by_level || governance.audit_all || judgement.audit) {
            entry.head.what = AuditWhat::Access;
        }
        entry.head.outcome = match (denied || unavailable, &judgement.dry_run) {
            (true, _) => Outcome::Denied,
            (false, Some(_)) => Outcome::WouldDeny,
            (false, None) => Outcome::Allowed,
        };
        let unkept = unavailable.then_some(Reason::AuditUnavailable);
        entry.head.reason = judgement.deny.as_ref().map(|deny| deny.reason).or(unkept);
        who(entry, ctx, asking.who);
        let call = asking.call;
        entry.push(Field::Method, asking.head.method(), 32);
        entry.push(Field::Path, asking.head.path(), 4 * LONGEST);
        if let Some(method) = &call.rpc_method {
            entry.push(Field::Protocol, call.protocol.word(), 32);
            entry.push(Field::RpcMethod, method, LONGEST);
            let name = call.tool.as_deref().or(call.skill.as_deref()).unwrap_or_default();
            entry.push(Field::Name, name, LONGEST);
        }
        entry.push(Field::Host, asking.head.authority(), LONGEST);
        entry.push(Field::Permission, &judgement.permission, LONGEST);
        entry.push(Field::Resource, &judgement.resource, LONGEST);
        let class = judgement.class.and_then(|class| governance.levels.get(class));
        entry.push(Field::Class, class.map_or("", |class| class), LONGEST);
        match (entry.head.outcome, &judgement.dry_run) {
            (Outcome::WouldDeny, Some(tried)) => entry.push(Field::Policy, tried, LONGEST),
            _ => entry.push(Field::Policy, &judgement.by, LONGEST),
        }
        let detail = judgement.deny.as_ref().and_then(|deny| deny.detail.as_deref());
        entry.push(Field::Detail, detail.unwrap_or_default(), 2 * LONGEST);
        if let (true, Some(tried)) = (denied, &judgement.dry_run) {
            entry.push(Field::Detail, "; as it is tried, it would be allowed by ", LONGEST);
            entry.push(Field::Detail, tried, LONGEST);
        }
    });
    if unavailable || (required && !denied && !kept) {
        return Err(Deny::with(
            Reason::AuditUnavailable,
            "the record of this call cannot be kept, and without it the call must not be made",
        ));
    }
    Ok(())
}

/// Records a refusal by another stage than the one that records decisions, if it is one of who may call whom.
pub fn refused(worker: &Worker, ctx: &mut Ctx<'_>, deny: &Deny) {
    let audit = &worker.shared.audit;
    let again = is_of_answers(deny.reason) || is_of_actions(deny.reason);
    if ctx.audited && !again || !is_decision(deny.reason) {
        return;
    }
    let governance = ctx.snapshot.plan.governance();
    let wanted = audit.takes_refusals() || governance.audit_all;
    if !wanted && !governance.alert_on_anomalies {
        return;
    }
    ctx.audited = true;
    let inbound = ctx.direction == crate::listen::Direction::Inbound;
    audit.push(worker, ctx, |entry| {
        (entry.head.recorded, entry.head.watched) = (wanted, inbound && governance.alert_on_anomalies);
        if is_of_answers(deny.reason) {
            entry.head.what = AuditWhat::Answer;
        }
        (entry.head.outcome, entry.head.reason) = (Outcome::Denied, Some(deny.reason));
        let principal = ctx.mesh.map(|peer| &peer.principal);
        let (claims, chain) = (ctx.proven.claims.as_ref(), ctx.proven.chain.as_deref());
        who(entry, ctx, &Who { principal, claims, chain, ..Who::default() });
        entry.push(Field::Method, ctx.call.method.as_str(), 32);
        entry.push(Field::Path, ctx.call.path.as_str(), 4 * LONGEST);
        entry.push(Field::Host, ctx.call.host.as_str(), LONGEST);
        entry.push(Field::Detail, deny.detail.as_deref().unwrap_or_default(), 2 * LONGEST);
    });
}

/// Who called.
fn who(entry: &mut Draft<'_>, ctx: &Ctx<'_>, who: &Who<'_>) {
    match who.principal {
        Some(principal) => entry.push(Field::Caller, &principal.id, LONGEST),
        None => {
            use std::fmt::Write as _;
            // An address has at most 39 characters and a scope: no memory of its own.
            let mut address = pilotfish_filters::text::Text::<64>::default();
            let _ = write!(Address(&mut address), "{}", ctx.peer.ip());
            entry.push(Field::Caller, address.as_str(), 64);
        }
    }
    if let Some(claims) = who.claims {
        entry.push(Field::RequestPrincipal, &claims.principal, LONGEST);
    }
    if let Some(chain) = who.chain {
        let agents = chain.agents.iter().map(|agent| &agent.id);
        // An agent that nobody asked is where its chain begins: once is enough.
        let origin =
            Some(&chain.origin).filter(|origin| Some(*origin) != chain.agents.first().map(|agent| &agent.id));
        for one in origin.into_iter().chain(agents).filter(|one| !one.is_empty()).take(17) {
            entry.push(Field::Chain, one, LONGEST);
            entry.push(Field::Chain, "\n", 1);
        }
    }
}

/// Writes into a text.
struct Address<'a>(&'a mut pilotfish_filters::text::Text<64>);

impl fmt::Write for Address<'_> {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        self.0.push(text);
        Ok(())
    }
}

/// Whether a reason says that somebody may not do something; others are about what is possible.
const fn is_decision(reason: Reason) -> bool {
    matches!(
        reason,
        Reason::LocalSecret
            | Reason::Unauthenticated
            | Reason::AccessDenied
            | Reason::NotDecidable
            | Reason::Quarantined
            | Reason::Restricted
            | Reason::BadDelegation
            | Reason::DelegationRequired
            | Reason::AuthorizerUnavailable
            | Reason::EncryptionRequired
            | Reason::EgressNotAllowed
    ) || is_of_answers(reason)
}

/// Whether it is about a response action, which also ends calls that were allowed.
const fn is_of_actions(reason: Reason) -> bool {
    matches!(reason, Reason::Quarantined | Reason::Restricted)
}

/// Whether it is about an answer, of a call that was decided before.
const fn is_of_answers(reason: Reason) -> bool {
    matches!(reason, Reason::Classified | Reason::ListUnreadable)
}
