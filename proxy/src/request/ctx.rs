//! What one request accumulates on its way; each field says which stage fills it.

use std::cell::Cell;
use std::net::SocketAddr;
use std::rc::Rc;

use pilotfish_config::wire::Explained;
use pilotfish_filters::clock::Micros;
use pilotfish_filters::correlate::CallId;
use pilotfish_filters::cors::Cors;
use pilotfish_filters::plan::Rule;
use pilotfish_filters::shed::Priority;
use pilotfish_filters::verdict::Reason;

use crate::authorizers::Beginning;
use crate::http::{ConnContext, RequestHead};
use crate::listen::Direction;
use crate::request::admit::authorize::Due;
use crate::request::authenticate::Proven;
use crate::request::guard::Standing;
use crate::request::serving::Begun;
use crate::request::start::Later;
use crate::request::trace::Onward;
use crate::shutdown::Phase;
use crate::telemetry::agentic::Agentic;
use crate::telemetry::log;
use crate::telemetry::ring::Recording;
use crate::tls::MeshPeer;
use crate::worker::{Pinned, Worker};

/// The record of one request, from its head to its last byte.
pub struct Ctx<'p> {
    /// listen: the configuration that the call keeps.
    pub snapshot: &'p Rc<Pinned>,
    /// start: configurations that it went on by, because it waited for an agent.
    pub later: &'p Later,
    /// listen: which way it goes.
    pub direction: Direction,
    /// listen: the downstream peer.
    pub peer: SocketAddr,
    /// listen: where it called.
    pub local: SocketAddr,
    /// listen: the peer, when it is a sidecar that proved who it is.
    pub mesh: Option<&'p MeshPeer>,
    /// listen: whether it came through a tunnel of the agent's that ends here.
    pub within: bool,
    /// listen: when the head was complete.
    pub started: Micros,
    /// route: the rule that matched; none for inbound and for egress to unknown hosts.
    pub rule: Option<&'p Rule>,
    /// cors: what holds for scripts of other origins.
    pub cors: Option<&'p Cors>,
    /// cors: the origin of a script that may read the answer.
    pub origin: Option<Box<[u8]>>,
    /// select: the cluster that was chosen, by its name.
    pub cluster: Option<&'p str>,
    /// select: the endpoint of the last try.
    pub endpoint: Option<SocketAddr>,
    /// guard, then route: when the call has to have ended, by its caller's deadline and the rule's timeout.
    pub deadline: Option<Micros>,
    /// guard, then route: what a call is refused with that is not over by then.
    pub overdue: Reason,
    /// guard: how important it is.
    pub priority: Priority,
    /// decode: what an external authorizer may want to see of the body.
    pub beginning: Option<Box<Beginning>>,
    /// authenticate, delegation: who is behind it, besides the peer.
    pub proven: Proven,
    /// admit: what it still owes although it is allowed.
    pub due: Due,
    /// admit, then respond: a record of the decision about it was made.
    pub audited: bool,
    /// identify: the inbound call that the agent says it belongs to.
    pub said: Option<CallId>,
    /// guard: where it stands in its chain of calls.
    pub standing: Standing,
    /// guard: for an inbound call, its place among those that the agent serves.
    pub serving: Option<Begun>,
    /// respond: set when the head of the answer is there, for whoever waits for it no longer than so.
    pub answered: Option<Rc<Cell<bool>>>,
    /// repeat: tries so far.
    pub tries: u32,
    /// respond: the status that went downstream.
    pub status: Option<u16>,
    /// any stage: why the proxy itself refused or gave up.
    pub reason: Option<Reason>,
    /// respond: bytes of the request's body that went upstream.
    pub sent: u64,
    /// respond: bytes of the answer's body that went downstream.
    pub received: u64,
    /// explain, then repeat: what its decisions weighed, when its caller asked for that and may.
    pub explained: Option<Box<Explained>>,
    /// Every stage: what is told of the call when it is over.
    pub call: Recording<'p>,
    /// trace: what the next hop is told of it.
    pub onward: Onward,
    /// trace: what the call is besides HTTP: a model's, a tool's, an agent's.
    pub agentic: Option<Box<Agentic>>,
    worker: &'p Worker,
}

impl<'p> Ctx<'p> {
    /// A fresh record for a head that just arrived.
    pub fn begin(
        worker: &'p Worker,
        (snapshot, later): (&'p Rc<Pinned>, &'p Later),
        direction: Direction,
        conn: &'p ConnContext,
        head: &RequestHead,
    ) -> Self {
        let started = worker.shared.clock.now();
        worker.metrics.direction(direction).active_requests.add(1);
        let mut call = worker.calls.take();
        call.begin(direction, conn.peer, started);
        call.h2 = conn.h2;
        call.method.set(head.method.as_str());
        call.host.set(head.authority());
        call.path.set(head.path());
        let log = &direction.telemetry(&snapshot.plan).access_log;
        if worker.shared.access_log.wants(log) {
            worker.shared.access_log.begin(log, &mut call, head, conn.mesh.as_deref());
        }
        Ctx {
            call,
            onward: Onward::default(),
            agentic: None,
            snapshot,
            later,
            direction,
            peer: conn.peer,
            local: conn.local,
            mesh: conn.mesh.as_deref(),
            within: conn.within,
            started,
            rule: None,
            cors: None,
            origin: None,
            cluster: None,
            endpoint: None,
            deadline: None,
            overdue: Reason::Timeout,
            priority: Priority::default(),
            beginning: None,
            proven: Proven::default(),
            due: Due::default(),
            audited: false,
            said: None,
            standing: Standing::default(),
            serving: None,
            explained: None,
            answered: None,
            tries: 0,
            status: None,
            reason: None,
            sent: 0,
            received: 0,
            worker,
        }
    }
}

impl Ctx<'_> {
    /// The call has to be over by `at`, if it had more time before; otherwise it is refused with `overdue`.
    pub fn shrink(&mut self, at: Micros, overdue: Reason) {
        if self.deadline.is_none_or(|before| at < before) {
            self.deadline = Some(at);
            self.overdue = overdue;
        }
    }
}

impl Drop for Ctx<'_> {
    /// A request ends by its last byte, or by being cut when the drain's deadline has passed; the latter is named.
    fn drop(&mut self) {
        self.worker.metrics.direction(self.direction).active_requests.sub(1);
        if let Some(begun) = self.serving.take() {
            self.worker.shared.serving.end(begun);
        }
        if self.worker.shared.drain.phase() == Phase::Cut {
            let age = self.worker.shared.clock.now().since(self.started);
            log::warn!(
                "cut at the drain deadline",
                direction = self.direction.word(),
                rule = self.rule.map_or("none", |rule| &*rule.name),
                peer = self.peer,
                age = format!("{:.1}s", age.as_secs_f64())
            );
        }
    }
}
