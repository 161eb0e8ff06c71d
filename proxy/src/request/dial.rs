//! dial: from a chosen endpoint to a connection that is ready for one exchange, kept or new.

use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use pilotfish_filters::clock::Micros;
use pilotfish_filters::cluster::{Cluster, ClusterSettings};
use pilotfish_filters::endpoint::Endpoint;
use pilotfish_filters::inflight::ConnectionPermit;
use pilotfish_filters::verdict::{Deny, Reason};

use crate::http::h1::client::ClientConn;
use crate::http::{Io, Upstream, h2::client as h2};
use crate::listen::Direction;
use crate::request::guard::Hop;
use crate::tls::MeshPeer;
use crate::tls::dial::{Proved, Secure, secure};
use crate::tls::outside::OutsideSet;
use crate::upstream::connect::{Address, connect};
use crate::upstream::pool::{Key, Lifetime, Meta};
use crate::worker::Worker;

/// How often a request that waits for a place looks whether another worker has freed one.
const LOOK_AGAIN: Duration = Duration::from_millis(2);

/// How another sidecar is pinged: it is noticed within 2 s when it died.
const MESH_PINGS: h2::KeepAlive =
    h2::KeepAlive { interval: Duration::from_secs(1), timeout: Duration::from_secs(1) };

/// The protocol of one exchange with an upstream.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Protocol {
    /// HTTP/1.1.
    Http1,
    /// HTTP/2 with prior knowledge.
    Http2,
}

/// Where to, and under which settings.
#[derive(Debug)]
pub struct Way<'a> {
    /// Whose connections can be used again.
    pub key: Key,
    /// Where a new one goes.
    pub address: Address<'a>,
    /// Times and limits.
    pub settings: &'a ClusterSettings,
    /// Whose limits count it; none for the local agent and for hosts that no document names.
    pub cluster: Option<&'a Cluster>,
    /// What to speak.
    pub protocol: Protocol,
    /// What the other end has to prove.
    pub secure: Secure<'a>,
    /// Whether the other end is another sidecar.
    pub mesh: bool,
    /// Whether it has to be a new connection (HTTP/1).
    pub unused: bool,
    /// Whether its address stands in a document, instead of being what a name leads to.
    pub literal: bool,
}

impl<'a> Way<'a> {
    /// The way to an endpoint of a cluster.
    ///
    /// # Errors
    /// `upstream-identity`: nobody knows who it should be. `quarantined`: its agent is. `restricted`: the own agent is, to others.
    pub fn to_endpoint(
        worker: &Worker,
        outside: &'a OutsideSet,
        cluster: &'a Cluster,
        endpoint: &'a Endpoint,
        protocol: Protocol,
    ) -> Result<Self, Deny> {
        if let Some(held) = worker.shared.actions.held() {
            held.reach(worker.shared.clock.now(), endpoint)?;
        }
        let secure = Secure::of_endpoint(&worker.shared.tls, outside, cluster, endpoint)?;
        Ok(Way {
            mesh: endpoint.mesh || secure.is_mesh(),
            secure,
            key: Key::Endpoint(Arc::clone(&endpoint.stats)),
            address: address(endpoint),
            settings: &cluster.settings,
            cluster: Some(cluster),
            protocol,
            unused: false,
            literal: endpoint.hostname.is_none(),
        })
    }

    /// The way to an address.
    pub fn to_address(
        address: SocketAddr,
        settings: &'a ClusterSettings,
        cluster: Option<&'a Cluster>,
        protocol: Protocol,
        secure: Secure<'a>,
    ) -> Self {
        let (key, mesh) = (Key::Address(address), secure.is_mesh());
        let address = Address::Tcp(address);
        Way { key, address, settings, cluster, protocol, secure, mesh, unused: false, literal: false }
    }
}

impl Way<'_> {
    /// What is at its end: of an inbound call the local agent, else a sidecar only where it has to prove that it is one.
    pub fn hop(&self, direction: Direction) -> Hop {
        match direction {
            Direction::Inbound => Hop::Agent,
            Direction::Outbound if self.secure.is_mesh() => Hop::Mesh,
            Direction::Outbound => Hop::Outside,
        }
    }

    /// A kept connection for it.
    fn kept(&self, worker: &Worker, now: Micros) -> Option<(ClientConn, Meta)> {
        if self.unused {
            return None;
        }
        worker.pool.take_h1(&self.key, &self.secure, now)
    }

    /// Nothing goes on in plaintext where a policy wants encryption, but to the agent beside the sidecar.
    fn check_encryption(&self, worker: &Worker) -> Result<(), Deny> {
        if !matches!(self.secure, Secure::Plain) {
            return Ok(());
        }
        let snapshot = worker.pin();
        let governance = snapshot.plan.governance();
        let is_own = |agent| matches!(self.address, Address::Tcp(address) if address == agent);
        if !governance.encrypted || snapshot.agent.is_some_and(is_own) {
            return Ok(());
        }
        let detail = format!(
            "{} is spoken to in plaintext, and a policy wants encryption ({}): let it have a sidecar, or write `tls` into a \
             DestinationRule for it",
            self.address,
            governance.policies()
        );
        Err(Deny::with(Reason::EncryptionRequired, detail))
    }

    /// The same way over a connection that carried nothing before.
    pub fn unused(mut self) -> Self {
        self.unused = true;
        self
    }

    /// The same way for CONNECT: whoever asks for a tunnel to a host outside of the mesh speaks TLS through it.
    pub fn for_tunnel(mut self) -> Self {
        if matches!(self.secure, Secure::Outside(..)) {
            self.secure = Secure::Plain;
        }
        self
    }
}

/// Where an endpoint's connections go.
pub fn address(endpoint: &Endpoint) -> Address<'_> {
    endpoint.unix.as_deref().map_or(Address::Tcp(endpoint.addr), Address::Unix)
}

/// A connection for one exchange. [`Dialed::keep`] gives it back.
#[derive(Debug)]
pub struct Dialed {
    /// The exchange.
    pub upstream: Upstream,
    /// Whether the connection carried an exchange before: then a close before the answer says little.
    pub reused: bool,
    /// When it was there.
    pub ready: Micros,
    /// The sidecar at its other end.
    pub peer: Option<Rc<MeshPeer>>,
    back: Option<Back>,
}

/// Where a connection goes back to.
#[derive(Debug)]
struct Back {
    key: Key,
    meta: Meta,
}

impl Dialed {
    /// After the exchange: keeps the connection if it can carry another one.
    pub fn keep(self, worker: &Worker) {
        if let (Some(Back { key, meta }), Some(connection)) = (self.back, self.upstream.reusable()) {
            worker.pool.put_h1(&key, connection, meta, worker.shared.clock.now());
        }
    }
}

/// Gives a kept connection, else makes one.
///
/// # Errors
/// `connect-failed`, `connect-timeout`, `connection-pool-overflow`, `encryption-required`.
pub async fn dial(worker: &Worker, way: &Way<'_>) -> Result<Dialed, Deny> {
    way.check_encryption(worker)?;
    match way.protocol {
        Protocol::Http1 => dial_h1(worker, way).await,
        Protocol::Http2 => dial_h2(worker, way).await,
    }
}

async fn dial_h1(worker: &Worker, way: &Way<'_>) -> Result<Dialed, Deny> {
    let now = worker.shared.clock.now();
    let (connection, meta, reused, ready) = match way.kept(worker, now) {
        Some((connection, meta)) => {
            worker.metrics.upstream_reuses.add(1);
            (connection, meta, true, now)
        }
        None => {
            // On the heap: a handshake's state is large, and most calls find a connection.
            let (connection, meta, reused) = Box::pin(new_h1(worker, way)).await?;
            (connection, meta, reused, worker.shared.clock.now())
        }
    };
    let peer = meta.proved.peer().cloned();
    let back = Some(Back { key: way.key.clone(), meta });
    Ok(Dialed { upstream: connection.into(), reused, ready, peer, back })
}

/// A new connection, or one that was freed while this waited for a place; and whether it carried an exchange before.
async fn new_h1(worker: &Worker, way: &Way<'_>) -> Result<(ClientConn, Meta, bool), Deny> {
    match place(worker, way).await? {
        Place::Connection(connection, meta) => Ok((connection, meta, true)),
        Place::Permit(permit) => {
            let (io, proved) = open(worker, way).await?;
            let meta = meta(worker, way, permit, proved, &io);
            Ok((ClientConn::new(io, worker.limits.clone()), meta, false))
        }
    }
}

/// A place for a connection, or a connection that was freed while waiting for one.
pub(super) enum Place {
    /// A new connection may be made; it holds the permit.
    Permit(Option<ConnectionPermit>),
    /// A kept one.
    Connection(ClientConn, Meta),
}

pub(super) async fn place(worker: &Worker, way: &Way<'_>) -> Result<Place, Deny> {
    let Some(cluster) = way.cluster else { return Ok(Place::Permit(None)) };
    if let Ok(permit) = cluster.connection_permit() {
        return Ok(Place::Permit(Some(permit)));
    }
    let _pending = cluster.pending_permit()?;
    let waiter = worker.pool.wait();
    worker.shared.pressure.notify_waiters();
    loop {
        // Not an error: a place that another worker freed is found by looking again.
        let _ = tokio::time::timeout(LOOK_AGAIN, waiter.freed()).await;
        if let Some((connection, meta)) =
            worker.pool.take_h1(&way.key, &way.secure, worker.shared.clock.now())
        {
            worker.metrics.upstream_reuses.add(1);
            return Ok(Place::Connection(connection, meta));
        }
        if let Ok(permit) = cluster.connection_permit() {
            return Ok(Place::Permit(Some(permit)));
        }
    }
}

async fn dial_h2(worker: &Worker, way: &Way<'_>) -> Result<Dialed, Deny> {
    let now = worker.shared.clock.now();
    let kept = worker.pool.take_h2(&way.key, &way.secure, now);
    let reused = kept.is_some();
    let ((connection, peer), ready) = match kept {
        Some(connection) => {
            worker.metrics.upstream_reuses.add(1);
            (connection, now)
        }
        None => (Box::pin(shared_h2(worker, way)).await?, worker.shared.clock.now()),
    };
    Ok(Dialed { upstream: connection.begin().into(), reused, ready, peer, back: None })
}

/// Makes an HTTP/2 connection, unless another request of this worker made one while this one waited to.
async fn shared_h2(worker: &Worker, way: &Way<'_>) -> Result<(h2::ClientConn, Option<Rc<MeshPeer>>), Deny> {
    let dialing = worker.pool.dialing(&way.key);
    let _one_at_a_time = dialing.lock().await;
    if let Some(connection) = worker.pool.take_h2(&way.key, &way.secure, worker.shared.clock.now()) {
        return Ok(connection);
    }
    let permit = match place(worker, way).await? {
        Place::Permit(permit) => permit,
        // A kept HTTP/1.1 connection of the same endpoint, from before a change of protocol, gives up its place.
        Place::Connection(_, meta) => meta.permit,
    };
    let (io, proved) = open(worker, way).await?;
    let meta = meta(worker, way, permit, proved, &io);
    let peer = meta.proved.peer().cloned();
    let keepalive = way.settings.http2_keepalive.as_ref();
    let keepalive = keepalive.map(|times| h2::KeepAlive { interval: times.interval, timeout: times.timeout });
    let keepalive = keepalive.or(way.mesh.then_some(MESH_PINGS));
    let (key, clock) = (way.key.clone(), worker.shared.clock);
    let silent = move || {
        if let Key::Endpoint(stats) = key {
            stats.fell_silent(clock.now());
        }
    };
    let handshake = h2::ClientConn::handshake(io, worker.limits.clone(), keepalive, silent);
    let connection = handshake
        .await
        .map_err(|error| Deny::with(Reason::ConnectFailed, format!("{}: {error}", way.address)))?;
    worker.pool.put_h2(&way.key, connection.clone(), meta);
    Ok((connection, peer))
}

/// A new connection whose other end proved what it has to.
pub(super) async fn open(worker: &Worker, way: &Way<'_>) -> Result<(Io, Proved), Deny> {
    let patience = way.settings.connect_timeout_to(way.mesh);
    let opened =
        connect(&worker.shared.net, way.address, patience, way.settings.tcp_keepalive.as_ref(), way.mesh)
            .await;
    let opened = match opened {
        Ok(io) => secure(worker, io, &way.secure, way.protocol, way.settings.connect_timeout).await,
        Err(deny) => Err(deny),
    };
    match opened {
        Ok(_) => worker.metrics.upstream_connects.add(1),
        Err(_) => {
            worker.metrics.upstream_connect_failures.add(1);
            if let Some(cluster) = way.cluster {
                let slot = worker.shared.clusters.slot(&cluster.name);
                worker.metrics.cluster(slot).connect_failures.add(1);
            }
        }
    }
    opened
}

fn meta(worker: &Worker, way: &Way<'_>, permit: Option<ConnectionPermit>, proved: Proved, io: &Io) -> Meta {
    Meta {
        permit,
        proved,
        fuse: io.fuse().map(Rc::clone),
        made: worker.shared.clock.now(),
        requests: 1,
        lifetime: Lifetime {
            idle: way.settings.idle_timeout,
            age: way.settings.max_connection_duration,
            requests: way.settings.max_requests_per_connection,
            streams: way.settings.max_concurrent_streams,
        },
    }
}
