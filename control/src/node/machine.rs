//! What the machine has, as /proc, cgroups and the file system say it.

use std::fs;
use std::path::{Path, PathBuf};

/// A disk with less room than this has a trouble, bytes: what a few dozen replicas write at their start.
const LEAST_ROOM: u64 = 64 << 20;
/// Or with a smaller share than this, percent.
const LEAST_PERCENT: u64 = 2;

/// Cores that this process may use, thousandths: the affinity's and the cgroup's limit count.
pub(super) fn cpu_milli() -> u64 {
    std::thread::available_parallelism().map_or(1, |cores| cores.get() as u64) * 1000
}

/// Memory that this process may use, bytes: the machine's, or the least limit of the cgroups that it is in.
pub(super) fn memory() -> u64 {
    let text = fs::read_to_string("/proc/meminfo").unwrap_or_default();
    let total = text.lines().find_map(|line| {
        let kilobytes = line.strip_prefix("MemTotal:")?.trim().strip_suffix(" kB")?;
        kilobytes.parse::<u64>().ok()?.checked_mul(1024)
    });
    let limits = limit_files().into_iter().filter_map(|path| {
        // `max` is no number.
        fs::read_to_string(path).ok()?.trim().parse::<u64>().ok()
    });
    limits.chain(total).min().unwrap_or(0)
}

/// Files with limits of memory, of the own cgroup and those above it, in both versions.
fn limit_files() -> Vec<PathBuf> {
    let mounts = fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
    let own = fs::read_to_string("/proc/self/cgroup").unwrap_or_default();
    let mut files = Vec::new();
    for line in own.lines() {
        let mut parts = line.splitn(3, ':');
        let (_, controllers, path) = (parts.next(), parts.next().unwrap_or_default(), parts.next());
        let (kind, file) = match controllers {
            "" => (" - cgroup2 ", "memory.max"),
            "memory" => (" - cgroup ", "memory.limit_in_bytes"),
            _ => continue,
        };
        let mount = mounts
            .lines()
            .find(|mount| mount.contains(kind) && (controllers.is_empty() || mount.ends_with(",memory")));
        let Some(mount) = mount.and_then(|mount| mount.split(' ').nth(4)) else { continue };
        let whole = Path::new(mount).join(path.unwrap_or_default().trim_start_matches('/'));
        files.extend(
            whole.ancestors().take_while(|above| above.starts_with(mount)).map(|above| above.join(file)),
        );
    }
    files
}

/// What is wrong with the disk of a folder.
pub(super) fn disk_trouble(folder: &Path) -> Option<String> {
    let found = rustix::fs::statvfs(folder).ok()?;
    let room = found.f_bavail.saturating_mul(found.f_frsize);
    let all = found.f_blocks.saturating_mul(found.f_frsize);
    let shown = folder.display();
    if room == 0 {
        return Some(format!("the disk of {shown} is full"));
    }
    if found.f_files > 0 && found.f_favail == 0 {
        return Some(format!("the disk of {shown} has room for no more files"));
    }
    let scarce =
        room < LEAST_ROOM.min(all / 10) || room.saturating_mul(100) < all.saturating_mul(LEAST_PERCENT);
    scarce.then(|| format!("the disk of {shown} is nearly full: {} MiB are left", room >> 20))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_machine_has_cores_and_memory() {
        assert!(cpu_milli() >= 1000 && memory() > 64 << 20);
        assert_eq!(disk_trouble(Path::new("/nowhere/at/all")), None);
    }
}
