//! A seed becomes a scenario: what callers ask, how agents fail, what happens to the network, and which policies hold when.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::time::Duration;

use fastrand::Rng;

/// What a run is besides its seed.
#[derive(Debug, Clone, Copy, Default)]
pub struct Options {
    /// Sidecars send a POST again after a reset: a bug that has to be found.
    pub bug: bool,
}

/// The host that callers ask for.
pub const HOST: &str = "work.test";
/// The sidecars with an agent behind them.
pub const SERVING: [&str; 2] = ["b", "c"];
/// Callers that send one call after the other.
const LANES: usize = 4;
/// When everybody is up, and calls and troubles begin.
const UP: Duration = Duration::from_secs(2);
/// How long troubles go on to begin.
const SPAN: Duration = Duration::from_secs(6);
/// TCP_USER_TIMEOUT within the mesh; a partition that is longer cuts.
const SILENCE: Duration = pilotfish_proxy::upstream::connect::MESH_SILENCE;

/// Everything that a seed decides before the run begins. What depends on the run (message delays, how an agent meets
/// the next call) is drawn from the same seed while it goes on.
#[derive(Debug)]
pub struct Scenario {
    /// Its seed.
    pub seed: u64,
    /// The slowest message.
    pub slowest: Duration,
    /// What each lane asks, in order.
    pub lanes: Vec<Lane>,
    /// How agents are.
    pub agents: Temper,
    /// What goes wrong, by time.
    pub troubles: Vec<(Duration, Trouble)>,
    /// The policy at the start.
    pub policy: Policy,
}

/// Calls that share a connection.
#[derive(Debug)]
pub struct Lane {
    /// HTTP/2: calls do not wait for each other.
    pub h2: bool,
    /// In the order in which they are sent.
    pub calls: Vec<Call>,
}

/// One call.
#[derive(Debug, Clone)]
pub struct Call {
    /// Unique in the run.
    pub id: u32,
    /// How long its lane waits before it.
    pub pause: Duration,
    /// GET, PUT or POST.
    pub method: &'static str,
    /// Whether it has an idempotency key.
    pub keyed: bool,
    /// Bytes of its body; none for GET.
    pub body: usize,
    /// Whether the body is chunked, and comes slowly.
    pub chunked: bool,
    /// The caller goes away after this time.
    pub patience: Option<Duration>,
    /// Whether the lane closes its connection first.
    pub fresh: bool,
}

impl Call {
    /// Whether it may be executed several times, by its method (RFC 9110 section 9.2.2).
    pub fn is_idempotent(&self) -> bool {
        self.method != "POST"
    }
}

/// How agents meet calls, in percent of them.
#[derive(Debug, Clone, Copy)]
pub struct Temper {
    /// The connection is closed before the call is executed.
    pub reset_before: u32,
    /// The call is executed, and the connection closed without an answer.
    pub cut_after: u32,
    /// The call is executed, and the answer breaks off in its head.
    pub cut_in_head: u32,
    /// The call is executed, and the answer breaks off in its body.
    pub cut_in_body: u32,
    /// 503 without executing it.
    pub unavailable: u32,
    /// 500 after executing it.
    pub failed: u32,
    /// A new connection is closed at once.
    pub refuse: u32,
    /// The slowest execution.
    pub slowest: Duration,
}

/// What goes wrong.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Trouble {
    /// Messages between sidecar a and this one are held back.
    Hold(&'static str),
    /// They are delivered.
    Release(&'static str),
    /// Sidecar a and this one cannot reach each other.
    Partition(&'static str),
    /// The kernel has given up on connections across the partition.
    Cut(&'static str),
    /// They can again.
    Repair(&'static str),
    /// Connections between sidecar a and this one are reset, and new ones can be made.
    Reset(&'static str),
    /// A host stops.
    Crash(String),
    /// It starts again.
    Restart(String),
    /// The documents change.
    Reload(Policy),
}

/// What the documents say.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Policy {
    /// `retries.attempts`; `None` says nothing, so Istio's default holds.
    pub attempts: Option<u32>,
    /// `retries.retryOn`.
    pub retry_on: &'static str,
    /// The route's timeout.
    pub timeout: Option<Duration>,
    /// `perTryTimeout`.
    pub per_try: Option<Duration>,
    /// Which agents may be chosen.
    pub endpoints: Vec<&'static str>,
    /// Whether sidecars speak HTTP/2 with each other.
    pub h2: bool,
    /// `maxConnections` and `http1MaxPendingRequests`.
    pub most: Option<u32>,
}

/// Values of `retryOn`.
const RETRY_ON: [&str; 4] = [
    "connect-failure,refused-stream,unavailable,cancelled",
    "5xx",
    "gateway-error,reset,connect-failure",
    "reset,retriable-4xx,503",
];

impl Policy {
    fn draw(rng: &mut Rng) -> Policy {
        let endpoints = match rng.u32(..6) {
            0 => vec!["b"],
            1 => vec!["c"],
            _ => SERVING.to_vec(),
        };
        Policy {
            attempts: (rng.u32(..3) > 0).then(|| rng.u32(..5)),
            retry_on: RETRY_ON[rng.usize(..RETRY_ON.len())],
            timeout: (rng.u32(..2) > 0).then(|| millis(rng, 300, 4000)),
            per_try: (rng.u32(..3) == 0).then(|| millis(rng, 100, 1500)),
            endpoints,
            h2: rng.bool(),
            most: (rng.u32(..4) == 0).then(|| rng.u32(1..3)),
        }
    }

    /// The most tries that this policy gives one call.
    pub fn tries(&self) -> u32 {
        1 + self.attempts.unwrap_or(2)
    }

    /// The documents.
    pub fn yaml(&self) -> String {
        let label = match self.endpoints.as_slice() {
            [only] => format!("only: {only}"),
            _ => "app: work".to_owned(),
        };
        let mut text = format!(
            "apiVersion: networking.istio.io/v1\nkind: ServiceEntry\nmetadata: {{ name: work }}\nspec:\n  \
             hosts: [{HOST}]\n  location: MESH_INTERNAL\n  resolution: STATIC\n  ports:\n  \
             - {{ number: 80, name: web, protocol: HTTP }}\n  workloadSelector:\n    labels: {{ {label} }}\n"
        );
        let _ = write!(
            text,
            "---\napiVersion: networking.istio.io/v1\nkind: VirtualService\nmetadata: {{ name: work }}\nspec:\n  \
             hosts: [{HOST}]\n  http:\n  - name: all\n    route:\n    - destination: {{ host: {HOST} }}\n"
        );
        if let Some(timeout) = self.timeout {
            let _ = writeln!(text, "    timeout: {}ms", timeout.as_millis());
        }
        if let Some(attempts) = self.attempts {
            let _ = writeln!(text, "    retries:\n      attempts: {attempts}");
            if attempts > 0 {
                let _ = writeln!(text, "      retryOn: \"{}\"", self.retry_on);
            }
            if let (Some(per_try), 1..) = (self.per_try, attempts) {
                let _ = writeln!(text, "      perTryTimeout: {}ms", per_try.as_millis());
            }
        }
        let upgrade = if self.h2 { "UPGRADE" } else { "DO_NOT_UPGRADE" };
        let _ = write!(
            text,
            "---\napiVersion: networking.istio.io/v1\nkind: DestinationRule\nmetadata: {{ name: work }}\nspec:\n  \
             host: {HOST}\n  trafficPolicy:\n    connectionPool:\n      http:\n        h2UpgradePolicy: {upgrade}\n"
        );
        if let Some(most) = self.most {
            let _ = write!(
                text,
                "        http1MaxPendingRequests: {most}\n      tcp: {{ maxConnections: {most} }}\n"
            );
        }
        text
    }
}

/// The sidecars' inbound port.
pub const INBOUND: u16 = 15006;
/// The sidecars' outbound port.
pub const OUTBOUND: u16 = 15001;
/// The agents' port.
pub const AGENT: u16 = 8080;

fn millis(rng: &mut Rng, least: u64, most: u64) -> Duration {
    Duration::from_millis(rng.u64(least..most))
}

impl Scenario {
    /// The scenario of a seed.
    pub fn of_seed(seed: u64) -> Scenario {
        let mut rng = Rng::with_seed(seed);
        let rng = &mut rng;
        let mut id = 0;
        let lanes = (0..LANES).map(|_| lane(rng, &mut id)).collect();
        let policy = Policy::draw(rng);
        let (mut troubles, mut busy) = (Vec::new(), BTreeMap::new());
        for _ in 0..rng.u32(..6) {
            trouble(rng, &mut troubles, &mut busy);
        }
        troubles.sort_by_key(|(at, _)| *at);
        Scenario {
            seed,
            slowest: if rng.bool() { millis(rng, 20, 60) } else { millis(rng, 60, 400) },
            lanes,
            agents: temper(rng),
            troubles,
            policy,
        }
    }

    /// Every call.
    pub fn calls(&self) -> impl Iterator<Item = &Call> {
        self.lanes.iter().flat_map(|lane| &lane.calls)
    }

    /// Every policy that sidecar a ever has.
    pub fn policies(&self) -> impl Iterator<Item = &Policy> {
        let reloads = self.troubles.iter().filter_map(|(_, trouble)| match trouble {
            Trouble::Reload(policy) => Some(policy),
            _ => None,
        });
        std::iter::once(&self.policy).chain(reloads)
    }
}

fn lane(rng: &mut Rng, id: &mut u32) -> Lane {
    let h2 = rng.u32(..3) == 0;
    let mut calls: Vec<_> = (0..rng.u32(1..7)).map(|_| call(rng, id)).collect();
    calls.iter_mut().take(1).for_each(|first| first.pause += UP);
    Lane { h2, calls }
}

fn call(rng: &mut Rng, id: &mut u32) -> Call {
    *id += 1;
    let method = ["GET", "POST", "POST", "POST", "PUT"][rng.usize(..5)];
    let body = match (method, rng.u32(..8)) {
        ("GET", _) | (_, 0) => 0,
        (_, 1) => rng.usize(60_000..140_000),
        _ => rng.usize(1..3000),
    };
    Call {
        id: *id,
        pause: millis(rng, 0, 900),
        method,
        keyed: method == "POST" && rng.bool(),
        body,
        chunked: body > 0 && rng.u32(..3) == 0,
        patience: (rng.u32(..12) == 0).then(|| millis(rng, 10, 800)),
        fresh: rng.u32(..5) == 0,
    }
}

fn temper(rng: &mut Rng) -> Temper {
    // One run in four has good agents, so that what goes wrong there is the network's doing.
    let worst = [0, 5, 15, 40][rng.usize(..4)];
    let mut percent = || rng.u32(..=worst);
    Temper {
        reset_before: percent(),
        cut_after: percent(),
        cut_in_head: percent() / 2,
        cut_in_body: percent() / 2,
        unavailable: percent(),
        failed: percent() / 2,
        refuse: percent() / 2,
        slowest: if rng.bool() { millis(rng, 1, 50) } else { millis(rng, 50, 1500) },
    }
}

/// One more trouble and its end, after the last one of the same link or host (`busy`).
fn trouble(rng: &mut Rng, troubles: &mut Vec<(Duration, Trouble)>, busy: &mut BTreeMap<String, Duration>) {
    let side = SERVING[rng.usize(..SERVING.len())];
    let kind = rng.u32(..12);
    let what = match (kind, rng.u32(..5)) {
        (4 | 5, 0) => ["a", crate::control::HOST][rng.usize(..2)].to_owned(),
        (4 | 5, 1 | 2) => side.to_owned(),
        (4 | 5, _) => crate::agent::host(side),
        _ => format!("link to {side}"),
    };
    let free = busy.entry(what.clone()).or_default();
    let at = (UP + millis(rng, 0, SPAN.as_millis() as u64)).max(*free);
    let end = match kind {
        0 | 1 => {
            let end = at + millis(rng, 20, SILENCE.as_millis() as u64 - 100);
            troubles.extend([(at, Trouble::Hold(side)), (end, Trouble::Release(side))]);
            end
        }
        2 | 3 => {
            let cut = at + SILENCE;
            let end = cut + millis(rng, 10, 3000);
            troubles.extend([
                (at, Trouble::Partition(side)),
                (cut, Trouble::Cut(side)),
                (end, Trouble::Repair(side)),
            ]);
            end
        }
        4 | 5 => {
            let end = at + millis(rng, 10, 2500);
            troubles.extend([(at, Trouble::Crash(what.clone())), (end, Trouble::Restart(what))]);
            end
        }
        6..=8 => {
            troubles.push((at, Trouble::Reset(side)));
            at
        }
        _ => {
            troubles.push((at, Trouble::Reload(Policy::draw(rng))));
            at
        }
    };
    *free = end + Duration::from_millis(50);
}
