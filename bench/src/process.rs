//! Processes that the bench starts: pinned, measured, and stopped by their own id.

use std::fs::{self, File};
use std::io;
use std::net::{Ipv4Addr, TcpStream};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};

/// Which core a process runs on, and how it is scheduled.
#[derive(Clone, Copy)]
pub struct Place {
    /// The core's number.
    pub core: usize,
    /// In the real-time class, ahead of all else on a shared machine (needs root).
    pub real_time: bool,
}

/// A command that will run `args` at `place` and die with us.
pub fn pinned(place: Place, args: &[String]) -> Command {
    let mut command = Command::new("taskset");
    command.args(["-c", &place.core.to_string(), "setpriv", "--pdeathsig", "TERM"]);
    if place.real_time {
        command.args(["chrt", "-f", "1"]);
    }
    command.args(args);
    command
}

/// A process that is stopped when this is dropped.
pub struct Process {
    child: Child,
}

impl Process {
    /// Starts `args` at `place`; what it says goes to the file `log`.
    ///
    /// # Errors
    /// When it cannot be started.
    pub fn start(place: Place, args: &[String], log: &Path) -> io::Result<Self> {
        let out = File::create(log)?;
        let child = pinned(place, args).stdin(Stdio::null()).stderr(out.try_clone()?).stdout(out).spawn()?;
        Ok(Self { child })
    }

    /// Waits until 127.0.0.1:`port` accepts.
    ///
    /// # Errors
    /// When the process ends first, or after 20 s.
    pub fn wait_for_port(&mut self, port: u16) -> io::Result<()> {
        let give_up = Instant::now() + Duration::from_secs(20);
        loop {
            if let Some(status) = self.child.try_wait()? {
                return Err(io::Error::other(format!("it ended with {status} before it listened")));
            }
            if TcpStream::connect((Ipv4Addr::LOCALHOST, port)).is_ok() {
                return Ok(());
            }
            if Instant::now() > give_up {
                return Err(io::Error::new(io::ErrorKind::TimedOut, format!("port {port} never opened")));
            }
            std::thread::sleep(Duration::from_millis(10));
        }
    }

    /// Nanoseconds that all threads of it and its children have run.
    pub fn cpu_ns(&self) -> u64 {
        tree(self.child.id()).into_iter().map(run_time_ns).sum()
    }

    /// Resident memory of it and its children, KiB.
    pub fn rss_kib(&self) -> u64 {
        tree(self.child.id()).into_iter().map(resident_kib).sum()
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let pid = i32::try_from(self.child.id()).ok().and_then(Pid::from_raw);
        // Twice: a first one may only begin to drain. It may have ended already; then there is nothing to stop.
        for _ in 0..2 {
            let _ = pid.map(|pid| kill_process(pid, Signal::TERM));
            let wait = Instant::now() + Duration::from_millis(500);
            while Instant::now() < wait {
                if !matches!(self.child.try_wait(), Ok(None)) {
                    return;
                }
                std::thread::sleep(Duration::from_millis(10));
            }
        }
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A process and all below it.
fn tree(root: u32) -> Vec<u32> {
    let mut found = vec![root];
    let mut at = 0;
    while let Some(&pid) = found.get(at) {
        for task in tasks(pid) {
            let children = fs::read_to_string(task.join("children")).unwrap_or_default();
            found.extend(children.split_whitespace().filter_map(|c| c.parse::<u32>().ok()));
        }
        at += 1;
    }
    found
}

fn tasks(pid: u32) -> Vec<std::path::PathBuf> {
    let entries = fs::read_dir(format!("/proc/{pid}/task"));
    entries.into_iter().flatten().flatten().map(|e| e.path()).collect()
}

fn run_time_ns(pid: u32) -> u64 {
    let of_task = |task: std::path::PathBuf| {
        let text = fs::read_to_string(task.join("schedstat")).unwrap_or_default();
        text.split_whitespace().next().and_then(|n| n.parse::<u64>().ok()).unwrap_or(0)
    };
    tasks(pid).into_iter().map(of_task).sum()
}

fn resident_kib(pid: u32) -> u64 {
    let text = fs::read_to_string(format!("/proc/{pid}/smaps_rollup")).unwrap_or_default();
    let line = text.lines().find_map(|l| l.strip_prefix("Rss:"));
    line.and_then(|l| l.trim().trim_end_matches("kB").trim().parse().ok()).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_is_measured_and_stopped() -> io::Result<()> {
        let log = std::env::temp_dir().join(format!("pilotfish-bench-{}.log", std::process::id()));
        let place = Place { core: 0, real_time: false };
        let args = ["sh", "-c", "sleep 60 & wait"].map(String::from);
        let process = Process::start(place, &args, &log)?;
        let pid = process.child.id();
        let give_up = Instant::now() + Duration::from_secs(10);
        while tree(pid).len() < 2 && Instant::now() < give_up {
            std::thread::sleep(Duration::from_millis(5));
        }
        let below: Vec<u32> = tree(pid).into_iter().skip(1).collect();
        assert_eq!(below.len(), 1, "the shell and its sleep");
        assert!(process.cpu_ns() > 0);
        assert!(process.rss_kib() > 100);
        drop(process);
        assert!(!Path::new(&format!("/proc/{pid}/task")).exists());
        for pid in below.into_iter().filter_map(|p| Pid::from_raw(p as i32)) {
            let _ = kill_process(pid, Signal::KILL);
        }
        fs::remove_file(log)
    }
}
