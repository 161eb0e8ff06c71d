//! The sidecars: production code from the accept loop to the upstream pool, with an identity of a throw-away authority.

use std::io;
use std::net::IpAddr;
use std::rc::Rc;
use std::sync::{Arc, LazyLock};

use clap::Parser as _;
use pilotfish_config::Options;
use pilotfish_identity::{Bundles, Credentials, Identity, TrustDomain};
use pilotfish_proxy::bootstrap::Settings;
use pilotfish_proxy::net::{Listener, Net};
use pilotfish_proxy::server::{Shared, run_worker};
use pilotfish_proxy::shutdown::Phase;
use pilotfish_proxy::source::Publisher;
use pilotfish_proxy::worker::Worker;
use pilotfish_testkit::ca::{Ca, Leaf};
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};

use crate::network::{Port, Turmoil};
use crate::scenario::{AGENT, INBOUND, OUTBOUND};
use crate::world::World;

/// The trust domain of the mesh.
const DOMAIN: &str = "sim.test";

/// Identities of all sidecars, made once in a process: nothing that happens depends on their keys.
static IDENTITIES: LazyLock<Result<Vec<(&'static str, Identity)>, String>> = LazyLock::new(|| {
    let domain = TrustDomain::parse(DOMAIN).map_err(|error| error.to_string())?;
    let ca = Ca::new(DOMAIN);
    let bundles = Arc::new(Bundles::one(&domain, &ca.root_pem()).map_err(|error| error.to_string())?);
    ["a", "b", "c"]
        .into_iter()
        .map(|name| {
            let issued = ca.issue(&Leaf::agent(DOMAIN, "default", name));
            let credentials = Credentials::from_pem(&issued.chain, &issued.key);
            let credentials = Arc::new(credentials.map_err(|error| error.to_string())?);
            Ok((
                name,
                Identity { credentials: Some(credentials), bundles: bundles.clone(), ..Identity::default() },
            ))
        })
        .collect()
});

/// What a running sidecar is told.
#[derive(Debug)]
pub enum Order {
    /// Take the documents of the moment.
    Reload,
    /// Serve what is in flight, then stop.
    Drain,
}

/// A sidecar that runs.
#[derive(Debug)]
pub struct Live {
    /// Its state.
    pub shared: Arc<Shared>,
    /// Where it takes orders.
    pub orders: UnboundedSender<Order>,
    /// Its worker.
    pub worker: Rc<Worker>,
}

/// Runs a sidecar until it has drained.
///
/// # Errors
/// It cannot start.
pub async fn run(world: Rc<World>, name: &'static str, agent: Option<IpAddr>) -> turmoil::Result {
    let mut flags = vec!["pilotfish-proxy".to_owned()];
    flags.extend(["--agent", name, "--config", "/nonexistent"].map(str::to_owned));
    flags.extend(agent.map(|agent| format!("--app={agent}:{AGENT}")));
    let settings = Settings::try_parse_from(flags)?;
    let (shared, _questions) = Shared::within(Net::Simulated(Box::new(Turmoil)), settings)?;
    let identities = IDENTITIES.as_ref().map_err(String::as_str)?;
    let identity = identities.iter().find(|(known, _)| *known == name).ok_or("no identity")?.1.clone();
    shared.tls.live.replace(identity);
    let mut publisher = Publisher::new(shared.clone());
    offer(&world, name, &mut publisher);
    let listeners = [bind(OUTBOUND).await?, bind(INBOUND).await?];
    let worker = Worker::new(0, shared.clone());
    let (orders, taken) = unbounded_channel();
    world.note(format_args!("sidecar {name} listens"));
    let live = Live { shared: shared.clone(), orders, worker: worker.clone() };
    world.sidecars.borrow_mut().insert(name, live);
    tokio::task::spawn_local(obey(world.clone(), name, shared, publisher, taken));
    run_worker(worker.clone(), listeners).await?;
    worker.pool.close();
    world.note(format_args!("sidecar {name} has drained"));
    Ok(())
}

async fn bind(port: u16) -> io::Result<Listener> {
    Ok(Listener::Simulated(Box::new(Port::bind(port).await?)))
}

async fn obey(
    world: Rc<World>,
    name: &'static str,
    shared: Arc<Shared>,
    mut publisher: Publisher,
    mut orders: UnboundedReceiver<Order>,
) {
    while let Some(order) = orders.recv().await {
        match order {
            Order::Reload => offer(&world, name, &mut publisher),
            Order::Drain => shared.drain.advance(Phase::Closing),
        }
    }
}

fn offer(world: &World, name: &str, publisher: &mut Publisher) {
    let yaml = world.documents.borrow().get(name).cloned().unwrap_or_default();
    let loaded = pilotfish_config::load_bytes("sim.yaml", yaml.into_bytes(), &Options::default());
    match publisher.finish(loaded.into()) {
        Ok(()) => world.note(format_args!("sidecar {name} is configured")),
        Err(refused) => world.wrong(format!("sidecar {name} refuses its configuration: {:?}", refused.lines)),
    }
}
