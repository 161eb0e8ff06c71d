//! `pilotfish node`.

use std::ffi::OsString;
use std::net::IpAddr;
use std::ops::RangeInclusive;
use std::path::PathBuf;

use clap::Args;
use pilotfish_config::quantity;
use zeroize::Zeroizing;

use super::failed::Failed;
use crate::node::{self, Address, CgroupWanted, Settings};

/// Run agents on this machine: joins the mesh, reports what the machine has, starts and stops agents with their sidecars.
///
/// The control plane decides what runs here; this process makes it so. Each agent is started by a sidecar of its own
/// (`pilotfish-proxy ... -- COMMAND`), which looks after it. What runs does not depend on this process: killed, ended or started
/// again, it finds its agents by what is in --data and goes on with them, and while no control plane answers, everything runs on. To
/// empty a machine: `pilotfish drain NAME`, then end this process.
///
/// It needs a join token once (`pilotfish token create --node NAME`); its key and certificate are kept in --data.
///
/// GPUs are found through the driver's library (NVML). Where there is no driver, --gpu-file declares them, as a Node document does:
///
///   gpus:
///   - id: gpu-0                # any word that is unique here; NVML's UUID for a real card
///     model: NVIDIA L4
///     memory: 24Gi
///     health: ok               # or why nothing may run there: `fan is broken`
///     slices:                  # MIG instances, if any
///     - {id: mig-0, profile: 1g.6gb, memory: 6Gi}
///
/// The file may be YAML or JSON, and a whole Node document too (examples/node.yaml). It is read again when it changes: a card whose health is not `ok` is reported within a second, and
/// the control plane moves its agents away.
///
/// Ends with 0 after a signal, with 1 when it cannot start or the join is refused (one sentence on standard error says why),
/// with 2 when it was called wrongly.
#[derive(Debug, Args)]
#[command(
    verbatim_doc_comment,
    after_help = "\
Examples:
  pilotfish token create --node gpu-7 > node.token
  pilotfish node --control https://mesh.example:15012 --token-file node.token --name gpu-7
  pilotfish node --control https://a.example,https://b.example --region eu-west --zone a
  pilotfish node --control https://a.example --label disk=ssd --taint team=vision:NoSchedule
  pilotfish node --control https://127.0.0.1:15012 --gpu-file gpus.yaml --no-nvml
  pilotfish nodes                                  # how the control plane sees it"
)]
pub struct Node {
    /// Control planes, https://HOST[:15012]; several, separated by commas. The one that leads is found among them
    #[arg(long, env = "PILOTFISH_CONTROL", value_name = "URL", value_delimiter = ',', required = true)]
    control: Vec<Address>,

    /// A file whose only line is the join token; needed once
    #[arg(long, env = "PILOTFISH_TOKEN_FILE", value_name = "FILE")]
    token_file: Option<PathBuf>,

    /// The join token. Everyone on this machine can read the arguments of a process: better give it by --token-file or the
    /// environment
    #[arg(long, env = "PILOTFISH_TOKEN", value_name = "TOKEN", hide_env_values = true, conflicts_with = "token_file", value_parser = secret)]
    token: Option<Zeroizing<String>>,

    /// The node's name, for which the token was made [default: the host's name]
    #[arg(long, env = "PILOTFISH_NODE_NAME", value_name = "NAME")]
    name: Option<String>,

    /// Folder (mode 0700) for the node's key and for what runs. [default: `node` in the control plane's data folder,
    /// /var/lib/pilotfish/node for root]
    #[arg(long, env = "PILOTFISH_NODE_DATA", value_name = "DIR")]
    data: Option<PathBuf>,

    /// The region that the machine is in; agents are placed by it, and calls prefer their own
    #[arg(long, env = "PILOTFISH_REGION", value_name = "REGION", value_parser = part)]
    region: Option<String>,

    /// The zone within the region
    #[arg(long, env = "PILOTFISH_ZONE", value_name = "ZONE", requires = "region", value_parser = part)]
    zone: Option<String>,

    /// A label that agents' `node_selector` and pools may ask for. Repeat it, or separate several by commas
    #[arg(long = "label", env = "PILOTFISH_NODE_LABELS", value_name = "K=V", value_delimiter = ',', value_parser = label)]
    labels: Vec<(String, String)>,

    /// What keeps agents away that do not tolerate it: KEY=VALUE:EFFECT with NoSchedule, PreferNoSchedule or NoExecute. Repeat it, or
    /// separate several by commas
    #[arg(long = "taint", env = "PILOTFISH_NODE_TAINTS", value_name = "TAINT", value_delimiter = ',', value_parser = taint)]
    taints: Vec<String>,

    /// A file that declares GPUs, see above
    #[arg(long, env = "PILOTFISH_GPU_FILE", value_name = "FILE")]
    gpu_file: Option<PathBuf>,

    /// Do not ask the driver for GPUs
    #[arg(long, env = "PILOTFISH_NO_NVML")]
    no_nvml: bool,

    /// The sidecar's program [default: pilotfish-proxy beside this one, else in PATH]
    #[arg(long, env = "PILOTFISH_PROXY", value_name = "PATH")]
    proxy: Option<PathBuf>,

    /// Ports for sidecars and agents; each agent takes four
    #[arg(long, env = "PILOTFISH_NODE_PORTS", value_name = "A-B", default_value = "20000-29999", value_parser = ports)]
    ports: RangeInclusive<u16>,

    /// This machine's address, on which sidecars take calls from others [default: all addresses, of which the one towards the
    /// control plane is told]
    #[arg(long, env = "PILOTFISH_NODE_ADDRESS", value_name = "IP")]
    advertise: Option<IpAddr>,

    /// Cores that agents do not get: `500m`, `2`
    #[arg(long, env = "PILOTFISH_RESERVE_CPU", value_name = "CORES", default_value = "0", value_parser = cores)]
    reserve_cpu: u64,

    /// Memory that agents do not get: `2Gi`
    #[arg(long, env = "PILOTFISH_RESERVE_MEMORY", value_name = "BYTES", default_value = "0", value_parser = bytes)]
    reserve_memory: u64,

    /// Where cgroups (version 2) of agents are made: a folder below /sys/fs/cgroup, `auto` (below the own one where that is permitted)
    /// or `off`. With the controllers `cpu` and `memory` there, agents are held to what they asked for
    #[arg(long, env = "PILOTFISH_NODE_CGROUP", value_name = "DIR", default_value = "auto", value_parser = cgroup)]
    cgroup: CgroupWanted,

    /// Agents at the same time, at most (110, the kubelet's default)
    #[arg(long, env = "PILOTFISH_MOST_REPLICAS", value_name = "N", default_value_t = 110, value_parser = clap::value_parser!(u32).range(1..=10_000))]
    most_replicas: u32,
}

fn secret(text: &str) -> Result<Zeroizing<String>, String> {
    Ok(Zeroizing::new(text.trim().to_owned()))
}

/// A part of a locality.
fn part(text: &str) -> Result<String, String> {
    match text.is_empty() || text.contains('/') {
        true => Err("it may not be empty, and has no `/`".into()),
        false => Ok(text.to_owned()),
    }
}

fn label(text: &str) -> Result<(String, String), String> {
    let (key, value) = text.split_once('=').ok_or("write KEY=VALUE")?;
    if key.is_empty() { Err("the key is missing".into()) } else { Ok((key.to_owned(), value.to_owned())) }
}

fn taint(text: &str) -> Result<String, String> {
    let (key, effect) = text.rsplit_once(':').ok_or("write KEY=VALUE:EFFECT")?;
    let effects = ["NoSchedule", "PreferNoSchedule", "NoExecute"];
    if key.is_empty() || key.starts_with('=') {
        return Err("the key is missing".into());
    }
    if effects.contains(&effect) {
        return Ok(text.to_owned());
    }
    Err(format!("`{}` is no effect: {}", effect.escape_debug(), effects.join(", ")))
}

fn ports(text: &str) -> Result<RangeInclusive<u16>, String> {
    let read = |text: &str| text.trim().parse::<u16>().ok().filter(|port| *port > 0);
    let range = text.split_once('-').and_then(|(first, last)| Some(read(first)?..=read(last)?));
    let range = range.ok_or("write FIRST-LAST, as 20000-29999")?;
    if range.end().saturating_sub(*range.start()) < 3 || range.is_empty() {
        return Err("an agent takes four ports: give at least that many".into());
    }
    Ok(range)
}

fn cores(text: &str) -> Result<u64, String> {
    quantity::milli(text).map_err(|error| error.to_string())
}

fn bytes(text: &str) -> Result<u64, String> {
    quantity::whole(text).map_err(|error| error.to_string())
}

fn cgroup(text: &str) -> Result<CgroupWanted, String> {
    match text {
        "auto" => Ok(CgroupWanted::Auto),
        "off" => Ok(CgroupWanted::Off),
        path if path.starts_with('/') => Ok(CgroupWanted::In(path.into())),
        _ => Err("write a folder below /sys/fs/cgroup, `auto` or `off`".into()),
    }
}

impl Node {
    /// Does it.
    ///
    /// # Errors
    /// See [`Failed`].
    pub fn run(self) -> Result<(), Failed> {
        let settings = self.settings()?;
        // Two threads: a slow disk holds up no beat.
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build();
        let runtime = runtime.map_err(|error| Failed::refused(format!("cannot start: {error}")))?;
        let done = runtime.block_on(node::run(settings));
        // What waits in a thread is not waited for.
        runtime.shutdown_background();
        done.map_err(Failed::refused)
    }

    fn settings(self) -> Result<Settings, Failed> {
        let name = self.name.unwrap_or_else(|| {
            rustix::system::uname().nodename().to_string_lossy().into_owned().to_ascii_lowercase()
        });
        let good = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.');
        if name.is_empty() || name.len() > 253 || !name.bytes().all(good) || name.starts_with('.') {
            let shown = name.escape_debug();
            return Err(Failed::usage(format!(
                "`{shown}` is no name of a node (letters, digits, `-`, `_` and `.`): give --name"
            )));
        }
        let token = match (self.token, &self.token_file) {
            (Some(token), _) => Some(token),
            // One that was spent may be gone.
            (None, Some(file)) => match std::fs::read_to_string(file) {
                Ok(text) => Some(Zeroizing::new(text.trim().to_owned())),
                Err(error) if error.kind() == std::io::ErrorKind::NotFound => None,
                Err(error) => return Err(Failed::usage(format!("{}: {error}", file.display()))),
            },
            (None, None) => None,
        };
        let proxy = self.proxy.or_else(node::default_proxy).ok_or_else(|| {
            Failed::usage("there is no pilotfish-proxy beside this program and none in PATH: give --proxy")
        })?;
        let proxy = proxy.canonicalize();
        let proxy = proxy.map_err(|error| Failed::usage(format!("--proxy: {error}")))?;
        Ok(Settings {
            controls: self.control,
            token,
            name,
            data: self.data.unwrap_or_else(node::default_data),
            region: self.region,
            zone: self.zone,
            labels: self.labels.into_iter().collect(),
            taints: self.taints,
            gpu_file: self.gpu_file,
            nvml: !self.no_nvml,
            proxy,
            ports: self.ports,
            advertise: self.advertise,
            reserve_cpu_milli: self.reserve_cpu,
            reserve_memory: self.reserve_memory,
            cgroup: self.cgroup,
            most_replicas: self.most_replicas,
        })
    }
}

/// Become a sidecar; `pilotfish node` calls this.
#[derive(Debug, Args)]
pub struct LaunchSidecar {
    /// The replica's folder
    #[arg(long, value_name = "DIR")]
    folder: PathBuf,

    /// The cgroup to go into
    #[arg(long, value_name = "DIR")]
    cgroup: Option<PathBuf>,

    /// The program and its arguments
    #[arg(last = true, value_name = "COMMAND")]
    command: Vec<OsString>,
}

impl LaunchSidecar {
    /// Does it.
    ///
    /// # Errors
    /// It did not become one.
    pub fn run(self) -> Result<(), Failed> {
        let error = node::launch(&self.folder, self.cgroup.as_deref(), &self.command);
        Err(Failed::refused(error.to_string()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_called_wrongly_is_said() {
        assert_eq!(ports("20000-29999").unwrap(), 20_000..=29_999);
        for bad in ["", "1", "5-2", "0-9", "1-70000", "20000-20002", "a-b"] {
            assert!(ports(bad).is_err(), "{bad}");
        }
        assert_eq!(taint("a=b:NoExecute").unwrap(), "a=b:NoExecute");
        assert_eq!(taint("a:NoSchedule").unwrap(), "a:NoSchedule");
        for bad in ["", "a", "a=b", ":NoExecute", "a=b:Never", "=b:NoExecute"] {
            assert!(taint(bad).is_err(), "{bad}");
        }
        assert_eq!(label("a=b=c").unwrap(), ("a".into(), "b=c".into()));
        assert!(label("=b").is_err() && label("a").is_err());
        assert_eq!((cores("1.5"), bytes("2Gi")), (Ok(1500), Ok(2 << 30)));
        assert!(cores("many").is_err() && part("a/b").is_err() && cgroup("relative").is_err());
    }
}
