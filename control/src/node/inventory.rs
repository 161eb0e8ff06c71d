//! What the node has, read again and again: cards every second, the rest slower. Told on when it differs.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use pilotfish_config::wire::node::{GpuState, Inventory};
use tokio::sync::watch;
use tokio::time::{Instant, sleep};

use super::gpu_file::GpuFile;
use super::{machine, nvml};
use crate::log;

/// Between two looks at cards: a card that is marked failed is told within a second.
const EVERY: Duration = Duration::from_millis(250);
/// Between two looks at the disk, cores and memory.
const SLOW: Duration = Duration::from_secs(5);
/// How often the use of cards is told when nothing else differs.
const USE: Duration = Duration::from_secs(15);

/// What does not change while the node runs.
#[derive(Debug, Clone)]
pub(super) struct Told {
    /// `region/zone`.
    pub(super) locality: Option<String>,
    /// Labels.
    pub(super) labels: BTreeMap<String, String>,
    /// Taints, `key=value:Effect`.
    pub(super) taints: Vec<String>,
    /// Kept for the system, thousandths of a core.
    pub(super) reserve_cpu_milli: u64,
    /// Kept for the system, bytes.
    pub(super) reserve_memory: u64,
    /// Agents at the same time.
    pub(super) most_replicas: u32,
    /// What cgroups can hold agents to.
    pub(super) enforces: Vec<String>,
    /// Whose disk is looked at.
    pub(super) data: PathBuf,
}

/// Reads, and reads again for the life of the process.
pub(super) fn follow(
    told: Told,
    mut file: Option<GpuFile>,
    nvml: Option<nvml::Watch>,
) -> watch::Receiver<Arc<Inventory>> {
    let mut slow = slow(&told);
    let first = read(&told, &slow, file.as_ref(), nvml.as_ref());
    let (sender, receiver) = watch::channel(Arc::new(first));
    tokio::spawn(async move {
        let (mut looked, mut used) = (Instant::now(), Instant::now());
        loop {
            sleep(EVERY).await;
            if sender.is_closed() {
                return;
            }
            if let Some(file) = &mut file {
                file.look();
            }
            if looked.elapsed() >= SLOW {
                looked = Instant::now();
                slow = self::slow(&told);
            }
            let now = read(&told, &slow, file.as_ref(), nvml.as_ref());
            let use_is_due = used.elapsed() >= USE;
            let told = sender.send_if_modified(|before| {
                let differs = **before != now
                    && (use_is_due
                        || without_use(&before.gpus) != without_use(&now.gpus)
                        || !same_rest(before, &now));
                if differs {
                    for trouble in now.troubles.iter().filter(|trouble| !before.troubles.contains(trouble)) {
                        log::warn!("something is wrong with this machine", why = trouble);
                    }
                    *before = Arc::new(now);
                }
                differs
            });
            if told {
                used = Instant::now();
            }
        }
    });
    receiver
}

/// What is read rarely: cores, memory, troubles.
fn slow(told: &Told) -> (u64, u64, Option<String>) {
    (machine::cpu_milli(), machine::memory(), machine::disk_trouble(&told.data))
}

fn read(
    told: &Told,
    slow: &(u64, u64, Option<String>),
    file: Option<&GpuFile>,
    nvml: Option<&nvml::Watch>,
) -> Inventory {
    let mut gpus = Vec::new();
    let mut troubles: Vec<String> = slow.2.iter().cloned().collect();
    if let Some(nvml) = nvml {
        let said = nvml.said();
        gpus.extend(said.gpus);
        troubles.extend(said.trouble);
    }
    if let Some(file) = file {
        gpus.extend(file.gpus.iter().cloned());
        troubles.extend(file.trouble.clone());
    }
    Inventory {
        locality: told.locality.clone(),
        labels: told.labels.clone(),
        taints: told.taints.clone(),
        cpu_milli: slow.0.saturating_sub(told.reserve_cpu_milli),
        memory: slow.1.saturating_sub(told.reserve_memory),
        gpus,
        most_replicas: told.most_replicas,
        troubles,
        enforces: told.enforces.clone(),
    }
}

fn without_use(gpus: &[GpuState]) -> Vec<GpuState> {
    gpus.iter().map(|gpu| GpuState { used: 0, busy_percent: 0, ..gpu.clone() }).collect()
}

fn same_rest(one: &Inventory, other: &Inventory) -> bool {
    (one.cpu_milli, one.memory, &one.troubles) == (other.cpu_milli, other.memory, &other.troubles)
}
