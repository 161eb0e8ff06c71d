//! Who listens on a port of this machine.

use std::collections::BTreeSet;
use std::fs;
use std::path::PathBuf;

use crate::Stat;
use crate::stat::all;

/// Who listens on this port; `None`: it is not to be seen. Blocks.
pub fn listener(port: u16) -> Option<Stat> {
    let sockets: BTreeSet<PathBuf> = ["/proc/net/tcp", "/proc/net/tcp6"]
        .iter()
        .flat_map(|table| {
            let text = fs::read_to_string(table).unwrap_or_default();
            let sockets = text.lines().filter_map(|line| listening(line, port));
            sockets.map(|inode| PathBuf::from(format!("socket:[{inode}]"))).collect::<Vec<_>>()
        })
        .collect();
    let opens = |pid: &u32| {
        let descriptors = fs::read_dir(format!("/proc/{pid}/fd")).into_iter().flatten().flatten();
        let mut targets = descriptors.filter_map(|descriptor| fs::read_link(descriptor.path()).ok());
        targets.any(|target| sockets.contains(&target))
    };
    if sockets.is_empty() {
        return None;
    }
    all().into_iter().find(|(pid, _)| opens(pid)).map(|(_, stat)| stat)
}

/// The inode of a line of `/proc/net/tcp` that listens on this port.
fn listening(line: &str, port: u16) -> Option<&str> {
    const LISTEN: &str = "0A";
    let fields: Vec<&str> = line.split_ascii_whitespace().collect();
    let own = fields.get(1)?.rsplit_once(':')?.1;
    let fits = u16::from_str_radix(own, 16) == Ok(port) && fields.get(3) == Some(&LISTEN);
    fields.get(9).copied().filter(|_| fits)
}

#[cfg(test)]
mod tests {
    #[test]
    fn who_listens_is_named() {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        assert_eq!(super::listener(port).map(|stat| stat.id.pid), Some(std::process::id()));
        drop(listener);
        // A process that another test starts has it too, until it runs its own program.
        let until = std::time::Instant::now() + std::time::Duration::from_secs(20);
        while super::listener(port).is_some() {
            assert!(std::time::Instant::now() < until, "{:?}", super::listener(port));
        }
    }
}
