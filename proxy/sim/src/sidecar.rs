//! The sidecars: production code from the accept loop to the upstream pool, with an identity of a throw-away authority.

use std::io;
use std::net::IpAddr;
use std::rc::Rc;
use std::sync::{Arc, LazyLock};
use std::time::Duration;

use clap::Parser as _;
use pilotfish_config::wire::Status;
use pilotfish_identity::{Bundles, Credentials, Identity, TrustDomain};
use pilotfish_proxy::bootstrap::Settings;
use pilotfish_proxy::control::disk::StateDir;
use pilotfish_proxy::control::member::Member;
use pilotfish_proxy::control::stream;
use pilotfish_proxy::health::Health;
use pilotfish_proxy::net::{Listener, Net};
use pilotfish_proxy::server::{Shared, run_worker};
use pilotfish_proxy::source::Publisher;
use pilotfish_proxy::source::control::ControlSource;
use pilotfish_proxy::worker::Worker;
use pilotfish_testkit::ca::{Ca, Leaf};
use tokio::time::timeout;

use crate::control;
use crate::network::{Port, Turmoil};
use crate::scenario::{AGENT, INBOUND, OUTBOUND};
use crate::world::World;

/// The trust domain of the mesh.
pub const DOMAIN: &str = "sim.test";

/// Everybody's identity, made once in a process: nothing that happens depends on their keys.
static AUTHORITY: LazyLock<Result<Authority, String>> = LazyLock::new(|| {
    let domain = TrustDomain::parse(DOMAIN).map_err(|error| error.to_string())?;
    let ca = Ca::new(DOMAIN);
    let bundles = Arc::new(Bundles::one(&domain, &ca.root_pem()).map_err(|error| error.to_string())?);
    let leaf = |name: &'static str| match name {
        control::HOST => Leaf::of(&format!("spiffe://{DOMAIN}/ns/pilotfish-system/control/{name}")),
        _ => Leaf::agent(DOMAIN, "default", name),
    };
    let identities = ["a", "b", "c", control::HOST].into_iter().map(|name| {
        let issued = ca.issue(&leaf(name));
        let credentials = Credentials::from_pem(&issued.chain, &issued.key);
        let credentials = Some(Arc::new(credentials.map_err(|error| error.to_string())?));
        Ok((name, Identity { credentials, bundles: bundles.clone(), ..Identity::default() }))
    });
    Ok(Authority { root: ca.root_pem(), identities: identities.collect::<Result<_, String>>()? })
});

struct Authority {
    root: String,
    identities: Vec<(&'static str, Identity)>,
}

/// The identity of a sidecar or of the control plane.
///
/// # Errors
/// It could not be made.
pub fn identity(name: &str) -> Result<Identity, &'static str> {
    let authority = AUTHORITY.as_ref().map_err(String::as_str)?;
    let known = authority.identities.iter().find(|(known, _)| *known == name);
    known.map(|(_, identity)| identity.clone()).ok_or("no identity")
}

/// The root of everybody, PEM.
///
/// # Errors
/// It could not be made.
pub fn root() -> Result<String, &'static str> {
    AUTHORITY.as_ref().map(|authority| authority.root.clone()).map_err(String::as_str)
}

/// How often the configuration is looked after; a thread of its own does it in a process.
const LOOK: Duration = Duration::from_millis(20);
/// A sidecar without a configuration after this time is stuck.
const CONFIGURED: Duration = Duration::from_secs(60);

/// A sidecar that runs.
#[derive(Debug)]
pub struct Live {
    /// Its state.
    pub shared: Arc<Shared>,
    /// Its worker.
    pub worker: Rc<Worker>,
}

/// Runs a sidecar until it has drained.
///
/// # Errors
/// It cannot start.
pub async fn run(world: Rc<World>, name: &'static str, agent: Option<IpAddr>) -> turmoil::Result {
    let control = turmoil::lookup(control::HOST);
    let mut flags = vec!["pilotfish-proxy".to_owned(), format!("--agent={name}")];
    flags.push(format!("--control={control}:{}", control::PORT));
    flags.push(format!("--label=app=work,only={name}"));
    flags.push(format!("--inbound=0.0.0.0:{INBOUND}"));
    flags.extend(agent.map(|agent| format!("--app={agent}:{AGENT}")));
    let settings = Settings::try_parse_from(flags)?;
    let inbound = settings.inbound;
    let (shared, _questions) = Shared::within(Net::Simulated(Arc::new(Turmoil)), settings)?;
    shared.tls.live.replace(identity(name)?);
    // Probes of the agent are not simulated.
    shared.health.send_replace(Health { status: Status::Ready, detail: None });
    join(&world, name, &shared, inbound).await?;
    let listeners = [bind(OUTBOUND).await?, bind(INBOUND).await?];
    let worker = Worker::new(0, shared.clone());
    world.note(format_args!("sidecar {name} listens"));
    world.sidecars.borrow_mut().insert(name, Live { shared, worker: worker.clone() });
    run_worker(worker.clone(), listeners).await?;
    worker.pool.close();
    world.note(format_args!("sidecar {name} has drained"));
    Ok(())
}

/// What `control::start` does, without join and threads: serves what is on the disk, follows the stream.
async fn join(
    world: &Rc<World>,
    name: &'static str,
    shared: &Arc<Shared>,
    inbound: std::net::SocketAddr,
) -> turmoil::Result {
    let disk = StateDir::open(&world.folder.path().join(name))?;
    let member = Member::new(shared.clone(), disk, inbound);
    let kept = pilotfish_proxy::control::kept(&member);
    let (configuration, events) = std::sync::mpsc::channel();
    let publisher = Publisher::new(shared.clone());
    let mut source = ControlSource::new(publisher, member.disk.clone(), member.progress.clone(), events);
    let resume = kept.and_then(|set| source.restore(set));
    let mut progress = member.progress.subscribe();
    tokio::task::spawn_local(async move {
        loop {
            source.run_waiting();
            tokio::time::sleep(LOOK).await;
        }
    });
    tokio::task::spawn_local(stream::follow_progress(member.clone()));
    tokio::task::spawn_local(stream::Stream::new(member, configuration, resume).run());
    let first = progress.wait_for(|progress| progress.accepted > 0);
    let version = timeout(CONFIGURED, first)
        .await
        .map_err(|_| format!("sidecar {name} has no configuration"))??
        .accepted;
    world.note(format_args!("sidecar {name} is configured: {version}"));
    // Tokio wakes those who wait for one `watch` in an order of its own: the others go first.
    tokio::time::sleep(Duration::from_millis(5)).await;
    Ok(())
}

async fn bind(port: u16) -> io::Result<Listener> {
    Ok(Listener::Simulated(Box::new(Port::bind(port).await?)))
}
