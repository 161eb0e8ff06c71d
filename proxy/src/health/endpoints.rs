//! Active checks: each sidecar asks the endpoints of those services that want it (`pilotfish.dev/health-check`).
//!
//! One task on the background runtime; it follows the newest configuration. An endpoint is asked at once when it appears, in
//! the way that calls go to it (mutual TLS to another sidecar, TLS to a host outside; at a `port` of its own: plainly), and an
//! endpoint of several clusters is asked once for all of them. The first answer counts at once, later ones by the thresholds.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use pilotfish_config::model::{CheckMethod, HealthCheck};
use pilotfish_filters::cluster::Cluster;
use pilotfish_filters::endpoint::{Endpoint, EndpointStats};
use pilotfish_identity::SpiffeId;
use tokio::net::{TcpStream, UnixStream};
use tokio::task::JoinSet;
use tokio::time::Instant;

use super::{grpc, http};
use crate::credentials::{Live, Place, Value};
use crate::delegation;
use crate::request::dial::Protocol;
use crate::request::query;
use crate::server::Shared;
use crate::snapshot::Snapshot;
use crate::tls::check::{Proof, Stream, secure};
use crate::tls::dial::Secure;

/// At most this many endpoints are asked at a time.
const AT_ONCE: usize = 64;
/// How often the configuration is looked at.
const LOOK: Duration = Duration::from_millis(100);

/// What is asked of whom: endpoints that are asked alike are asked once.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
struct Key {
    addr: SocketAddr,
    /// How, as text.
    how: Box<str>,
}

/// How an endpoint is asked.
#[derive(Debug)]
struct Way {
    address: Address,
    proof: Result<Proof, String>,
    /// The name that it is asked by.
    host: Box<str>,
    check: Arc<HealthCheck>,
    /// What it shows, or why it may not.
    credential: Result<Option<Arc<Live>>, String>,
}

#[derive(Debug)]
enum Address {
    Tcp(SocketAddr),
    Unix(Box<Path>),
}

/// One that is asked, and what it answered.
#[derive(Debug)]
struct Target {
    way: Arc<Way>,
    stats: Vec<Arc<EndpointStats>>,
    judge: Judge,
    /// When it is asked next.
    due: Instant,
    busy: bool,
}

/// Counts answers, and says what they come to.
#[derive(Debug, Default)]
struct Judge {
    verdict: Option<bool>,
    good: u32,
    bad: u32,
    /// What was wrong last.
    why: String,
}

impl Judge {
    /// Takes in an answer; whether the endpoint is well by now.
    fn answer(&mut self, answer: Result<(), String>, check: &HealthCheck) -> bool {
        match answer {
            Ok(()) => (self.good, self.bad) = (self.good.saturating_add(1), 0),
            Err(why) => (self.good, self.bad, self.why) = (0, self.bad.saturating_add(1), why),
        }
        let verdict = match self.verdict {
            None => self.good > 0,
            Some(true) => self.bad < check.unhealthy,
            Some(false) => self.good >= check.healthy,
        };
        self.verdict = Some(verdict);
        verdict
    }
}

/// Checks for the life of the process.
pub async fn run(shared: Arc<Shared>) {
    let mut rng = fastrand::Rng::new();
    let mut targets: BTreeMap<Key, Target> = BTreeMap::new();
    let mut seen = 0;
    let mut asking: JoinSet<(Key, Result<(), String>)> = JoinSet::new();
    loop {
        let newest = shared.snapshots.version();
        if newest != seen {
            seen = newest;
            targets = follow(&shared, &shared.snapshots.newest(), targets);
        }
        let now = Instant::now();
        for (key, target) in &mut targets {
            if asking.len() >= AT_ONCE {
                break;
            }
            if !target.busy && target.due <= now {
                (target.busy, target.due) = (true, now + next(&target.way.check, &mut rng));
                let (shared, key, way) = (shared.clone(), key.clone(), target.way.clone());
                asking.spawn(async move { (key, ask(&shared, &way).await) });
            }
        }
        let due = targets.values().filter(|target| !target.busy).map(|target| target.due).min();
        let wake = due.map_or(now + LOOK, |due| due.clamp(now + Duration::from_millis(1), now + LOOK));
        tokio::select! {
            biased;
            Some(Ok((key, answer))) = asking.join_next() => {
                // It may be gone since it was asked.
                if let Some(target) = targets.get_mut(&key) {
                    answered(&shared, target, answer);
                }
            }
            () = tokio::time::sleep_until(wake) => {}
        }
    }
}

fn next(check: &HealthCheck, rng: &mut fastrand::Rng) -> Duration {
    check.interval.mul_f64(1.0 + check.jitter * (rng.f64() * 2.0 - 1.0))
}

/// Whom the newest configuration wants to be asked; who was asked before goes on where he was.
fn follow(shared: &Shared, snapshot: &Snapshot, mut before: BTreeMap<Key, Target>) -> BTreeMap<Key, Target> {
    let mut targets: BTreeMap<Key, Target> = BTreeMap::new();
    for cluster in snapshot.plan.clusters() {
        for endpoint in cluster.endpoints() {
            let Some(check) = endpoint.care.as_ref().and_then(|care| care.check.clone()) else { continue };
            let way = Way::of(shared, snapshot, cluster, endpoint, check);
            let key = way.key(endpoint);
            let target = targets.entry(key).or_insert_with_key(|key| match before.remove(key) {
                Some(known) => Target { stats: Vec::new(), way: Arc::new(way), ..known },
                None => Target {
                    way: Arc::new(way),
                    stats: Vec::new(),
                    judge: Judge::default(),
                    due: Instant::now(),
                    busy: false,
                },
            });
            target.stats.push(Arc::clone(&endpoint.stats));
        }
    }
    let now = shared.clock.now();
    for target in targets.values().filter(|target| target.judge.verdict == Some(false)) {
        target.stats.iter().for_each(|stats| stats.checked(now, Some(&target.judge.why)));
    }
    targets
}

fn answered(shared: &Shared, target: &mut Target, answer: Result<(), String>) {
    target.busy = false;
    let good = answer.is_ok();
    shared.state.tally().checked(good);
    let well = target.judge.answer(answer, &target.way.check);
    let now = shared.clock.now();
    for stats in &target.stats {
        match (well, good) {
            (true, true) => stats.checked(now, None),
            (false, false) => stats.checked(now, Some(&target.judge.why)),
            // On the way from one to the other.
            _ => {}
        }
    }
}

impl Way {
    fn of(
        shared: &Shared,
        snapshot: &Snapshot,
        cluster: &Cluster,
        endpoint: &Endpoint,
        check: Arc<HealthCheck>,
    ) -> Way {
        let address = match (check.port, &endpoint.unix) {
            (Some(port), None) => Address::Tcp(SocketAddr::new(endpoint.addr.ip(), port)),
            (_, Some(path)) => Address::Unix(path.clone()),
            (None, None) => Address::Tcp(endpoint.addr),
        };
        let proof = match (check.port, &check.method) {
            (Some(_), _) | (_, CheckMethod::Tcp) => Ok(Proof::Nothing),
            _ => Secure::of_endpoint(&shared.tls, &snapshot.outside, cluster, endpoint)
                .map_err(|deny| deny.detail.map_or_else(|| deny.reason.word().into(), String::from))
                .and_then(|secure| Proof::of(&secure, protocol(&check))),
        };
        let credential =
            if check.credential { credential(snapshot, cluster, &address, &proof) } else { Ok(None) };
        Way { address, proof, host: cluster.host.clone(), check, credential }
    }

    /// What tells it from other ways.
    fn key(&self, endpoint: &Endpoint) -> Key {
        let proof = match &self.proof {
            Ok(Proof::Nothing) => "",
            Ok(Proof::Mesh(expected, _)) => expected,
            Ok(Proof::Outside(..)) => "outside",
            Err(why) => why,
        };
        let how = format!("{:?} {:?} {} {proof}", self.check, self.address, self.host);
        Key { addr: endpoint.addr, how: how.into() }
    }
}

/// What a check shows to a host outside: what a call of the agent would, but nothing on behalf of somebody.
fn credential(
    snapshot: &Snapshot,
    cluster: &Cluster,
    address: &Address,
    proof: &Result<Proof, String>,
) -> Result<Option<Arc<Live>>, String> {
    let live = snapshot.plan.credentials().of(&cluster.host).and_then(|at| snapshot.credentials.get(at));
    let Some(live) = live.filter(|live| !live.credential.is_for_another()) else { return Ok(None) };
    let anybody = cluster.settings.tls.as_ref().is_some_and(|tls| tls.insecure_skip_verify == Some(true));
    let stays_here = match address {
        Address::Unix(_) => true,
        Address::Tcp(address) => address.ip().is_loopback(),
    };
    match proof {
        // Another sidecar shows its own.
        Ok(Proof::Mesh(..)) => Ok(None),
        Ok(Proof::Nothing) if !stays_here && !live.credential.insecure => {
            Err(format!("the credential {} is not sent in plaintext", live.credential.name))
        }
        Ok(Proof::Outside(..)) if anybody && !live.credential.insecure => Err(format!(
            "the credential {} is not shown to a host that is not verified",
            live.credential.name
        )),
        _ => Ok(Some(live.clone())),
    }
}

/// What a check shows of the host's credential.
async fn shown<'w>(shared: &Arc<Shared>, way: &'w Way) -> Result<Option<(Place<'w>, Arc<Value>)>, String> {
    match way.credential.as_ref().map_err(Clone::clone)? {
        Some(live) => Ok(Some((live.place(), live.value(shared, None).await?))),
        None => Ok(None),
    }
}

/// The question of a check by HTTP.
fn question(
    way: &Way,
    path: &str,
    shown: Option<(Place<'_>, Arc<Value>)>,
    mut headers: Vec<(String, String)>,
) -> http::Request {
    match shown {
        Some((Place::Header(name), value)) => headers.push((name.to_owned(), value.expose().to_owned())),
        Some((Place::Query(name), value)) => {
            return http::Request::new(&query::set(path, name, value.expose()), &way.host, &headers);
        }
        None => {}
    }
    http::Request::new(path, &way.host, &headers)
}

/// A connection, and the headers by which another sidecar knows whose call it is: the agent's, of its own accord.
async fn connected(
    shared: &Shared,
    way: &Way,
    proof: &Proof,
) -> Result<(Box<dyn Stream>, Vec<(String, String)>), String> {
    let (stream, sidecar) = connect(shared, way, proof).await?;
    let chain = sidecar.and_then(|called| delegation::of_own_accord(&shared.tls, &called));
    Ok((stream, chain.map(|chain| (delegation::DELEGATION.to_owned(), chain)).into_iter().collect()))
}

fn protocol(check: &HealthCheck) -> Protocol {
    match check.method {
        CheckMethod::Grpc(_) => Protocol::Http2,
        CheckMethod::Http(_) | CheckMethod::Tcp => Protocol::Http1,
    }
}

/// One check; an error says what is wrong.
async fn ask(shared: &Arc<Shared>, way: &Way) -> Result<(), String> {
    let asking = async {
        let proof = way.proof.as_ref().map_err(Clone::clone)?;
        match &way.check.method {
            CheckMethod::Http(path) => {
                // Before a connection is made, which would wait for it.
                let shown = shown(shared, way).await?;
                let (stream, own) = connected(shared, way, proof).await?;
                http::ask(stream, &question(way, path, shown, own)).await
            }
            CheckMethod::Grpc(service) => {
                let (stream, own) = connected(shared, way, proof).await?;
                grpc::ask(stream, service, &own).await
            }
            CheckMethod::Tcp => connect(shared, way, proof).await.map(drop),
        }
    };
    match tokio::time::timeout(way.check.timeout, asking).await {
        Ok(result) => result,
        Err(_) => Err(format!("no answer within {:?}", way.check.timeout)),
    }
}

async fn connect(
    shared: &Shared,
    way: &Way,
    proof: &Proof,
) -> Result<(Box<dyn Stream>, Option<SpiffeId>), String> {
    let refused = |error: std::io::Error| match error.kind() {
        std::io::ErrorKind::ConnectionRefused => "connection refused".to_owned(),
        _ => error.to_string(),
    };
    match &way.address {
        Address::Unix(path) => Ok((Box::new(UnixStream::connect(path).await.map_err(refused)?), None)),
        Address::Tcp(address) => {
            let stream = TcpStream::connect(address).await.map_err(refused)?;
            secure(&shared.tls, stream, proof, protocol(&way.check)).await
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_answer_counts_at_once_and_later_ones_by_the_thresholds() {
        let check = HealthCheck::by(CheckMethod::Tcp);
        let bad = || Err("x".to_owned());
        let mut judge = Judge::default();
        assert!(!judge.answer(bad(), &check), "it never was well");
        assert!(!judge.answer(Ok(()), &check) && judge.answer(Ok(()), &check));
        assert!(judge.answer(bad(), &check) && judge.answer(bad(), &check) && judge.answer(Ok(()), &check));
        assert!(judge.answer(bad(), &check) && judge.answer(bad(), &check) && !judge.answer(bad(), &check));
        assert!(Judge::default().answer(Ok(()), &check));
    }

    #[test]
    fn jitter_stays_within_its_share() {
        let check = HealthCheck::by(CheckMethod::Tcp);
        let mut rng = fastrand::Rng::with_seed(1);
        let times: Vec<u128> = (0..1000).map(|_| next(&check, &mut rng).as_millis()).collect();
        assert!(times.iter().all(|time| (9000..=11000).contains(time)));
        assert!(times.iter().any(|time| *time < 9200) && times.iter().any(|time| *time > 10800));
    }
}
