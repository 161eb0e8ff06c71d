//! `pilotfish node`: the process on each machine that starts and stops agents with their sidecars.
//!
//! | file | what |
//! |---|---|
//! | `identity`, `connect` | who the node is, and how it knows a control plane |
//! | `session` | the stream to the leader: reports go up, sets of replicas come down |
//! | `disk` | its folder, and the highest term of a leader |
//! | `inventory`, `machine`, `nvml`, `gpu_file` | what the machine has |
//! | `replicas`, `replica`, `place` | what runs is made equal to the newest set |
//! | `processes`, `cgroups`, `ports` | what a replica is made of |
//! | `states` | how each is, for reports |
//!
//! Nothing here is a parent that replicas depend on: each sidecar lives in a session of its own, writes its log itself, and is found
//! again by what is on the disk. A node that is killed and started again goes on with what runs.

mod cgroups;
mod connect;
mod disk;
mod gpu_file;
mod identity;
mod inventory;
mod machine;
mod nvml;
mod place;
mod ports;
mod reaper;
mod replica;
mod replicas;
mod session;
mod states;

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr};
use std::ops::RangeInclusive;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

use tokio::signal::unix::{SignalKind, signal};
use zeroize::Zeroizing;

pub use cgroups::Wanted as CgroupWanted;
pub use pilotfish_client::Address;
pub use place::{LAUNCH, launch};

use crate::log;

/// What a node is started with.
#[derive(Debug)]
pub struct Settings {
    /// Control planes; at least one.
    pub controls: Vec<Address>,
    /// The join token, when one was given.
    pub token: Option<Zeroizing<String>>,
    /// The node's name.
    pub name: String,
    /// Its folder.
    pub data: PathBuf,
    /// Where it is.
    pub region: Option<String>,
    /// Where in the region.
    pub zone: Option<String>,
    /// Labels.
    pub labels: BTreeMap<String, String>,
    /// Taints, `key=value:Effect`.
    pub taints: Vec<String>,
    /// A file that declares cards.
    pub gpu_file: Option<PathBuf>,
    /// Whether the driver is asked for cards.
    pub nvml: bool,
    /// `pilotfish-proxy`.
    pub proxy: PathBuf,
    /// Ports of sidecars and agents.
    pub ports: RangeInclusive<u16>,
    /// The address that other machines' sidecars connect to; `None`: the one towards the control plane.
    pub advertise: Option<IpAddr>,
    /// Kept for the system, thousandths of a core.
    pub reserve_cpu_milli: u64,
    /// Kept for the system, bytes.
    pub reserve_memory: u64,
    /// Where agents' cgroups are.
    pub cgroup: CgroupWanted,
    /// Agents at the same time, at most.
    pub most_replicas: u32,
}

/// Runs a node until SIGTERM or SIGINT. Its replicas go on after that.
///
/// # Errors
/// Why it cannot start: a folder, a file, no identity.
pub async fn run(settings: Settings) -> Result<(), String> {
    let mut term = signal(SignalKind::terminate()).map_err(|error| error.to_string())?;
    let mut interrupt = signal(SignalKind::interrupt()).map_err(|error| error.to_string())?;
    tokio::select! {
        biased;
        _ = term.recv() => {}
        _ = interrupt.recv() => {}
        served = serve(settings) => return served,
    }
    log::info!("the node ends; its agents go on");
    Ok(())
}

async fn serve(settings: Settings) -> Result<(), String> {
    let said = |error: std::io::Error| error.to_string();
    disk::private_folder(&settings.data).map_err(said)?;
    let data = settings.data.canonicalize().map_err(said)?;
    let _lock = disk::Lock::take(&data.join("node.lock")).map_err(said)?;
    let term = disk::Term::open(&data.join("term")).map_err(said)?;
    let file = settings.gpu_file.as_deref().map(gpu_file::GpuFile::open).transpose()?;
    let cgroups = cgroups::Cgroups::open(&settings.cgroup, &settings.name)?;
    let enforces = cgroups.as_ref().map(|cgroups| cgroups.enforces.clone()).unwrap_or_default();
    let locality = settings.region.as_ref().map(|region| match &settings.zone {
        Some(zone) => format!("{region}/{zone}"),
        None => region.clone(),
    });
    // What runs is found before anything is waited for: a sidecar that died while no node was there comes back at once.
    let host = replica::Host {
        folder: data.join("replicas"),
        ended: data.join(replicas::ENDED),
        common: common(&settings, locality.clone()),
        ports: ports::Pool::new(settings.ports.clone()),
        cgroups,
        reaper: reaper::Reaper::start().map_err(said)?,
        states: states::States::new(),
    };
    let replicas = replicas::Replicas::open(Arc::new(host)).map_err(said)?;
    let told = inventory::Told {
        locality,
        labels: settings.labels,
        taints: settings.taints,
        reserve_cpu_milli: settings.reserve_cpu_milli,
        reserve_memory: settings.reserve_memory,
        most_replicas: settings.most_replicas,
        enforces,
        data: data.clone(),
    };
    let inventory = inventory::follow(told, file, settings.nvml.then(nvml::Watch::start).flatten());
    {
        let inventory = inventory.borrow();
        log::info!(
            "a node starts",
            name = settings.name,
            cpu_milli = inventory.cpu_milli,
            memory = inventory.memory,
            gpus = inventory.gpus.len(),
            enforces = inventory.enforces.join(",")
        );
    }
    let member = identity::Member::obtain(&settings.name, &settings.controls, &data, settings.token).await?;
    tokio::spawn(member.clone().keep_fresh());
    let node = Arc::new(session::Node {
        member,
        controls: settings.controls,
        term: Mutex::new(term),
        replicas,
        inventory,
        instance: format!("{:032x}", fastrand::u128(..)),
    });
    eprintln!("pilotfish: node {} runs", settings.name);
    node.follow().await;
    Ok(())
}

fn common(settings: &Settings, locality: Option<String>) -> place::Common {
    let controls: Vec<String> = settings.controls.iter().map(Address::to_string).collect();
    place::Common {
        proxy: settings.proxy.clone(),
        controls: controls.join(","),
        inbound: settings.advertise.unwrap_or(IpAddr::V4(Ipv4Addr::UNSPECIFIED)),
        locality,
    }
}

/// Where a node keeps its data when nobody says: beside the control plane's, `node` in it.
pub fn default_data() -> PathBuf {
    crate::paths::default_data().join("node")
}

/// The sidecar's program: beside the own one, else in PATH.
pub fn default_proxy() -> Option<PathBuf> {
    const NAME: &str = "pilotfish-proxy";
    let own = std::env::current_exe().ok();
    let beside = own.as_deref().and_then(Path::parent).map(|folder| folder.join(NAME));
    let path = std::env::var_os("PATH").unwrap_or_default();
    let elsewhere = std::env::split_paths(&path).map(|folder| folder.join(NAME));
    beside.into_iter().chain(elsewhere).find(|path| path.is_file())
}
