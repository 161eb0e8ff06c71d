//! Where a control plane keeps its data, and how the command line on the same machine finds it.

use std::path::{Path, PathBuf};

/// The Unix socket's name within the data folder.
pub const SOCKET: &str = "pilotfish.sock";

/// The TCP port of `serve --listen`.
pub const PORT: u16 = pilotfish_client::PORT;

/// The data folder when neither `--data` nor `PILOTFISH_DATA` names one: `/var/lib/pilotfish` for root, else
/// `$XDG_DATA_HOME/pilotfish`, by default `~/.local/share/pilotfish` (XDG Base Directory specification).
pub fn default_data() -> PathBuf {
    if rustix::process::geteuid().is_root() {
        return PathBuf::from("/var/lib/pilotfish");
    }
    let absolute = |name: &str| std::env::var_os(name).map(PathBuf::from).filter(|path| path.is_absolute());
    absolute("XDG_DATA_HOME")
        .or_else(|| absolute("HOME").map(|home| home.join(".local/share")))
        .unwrap_or_else(|| PathBuf::from("."))
        .join("pilotfish")
}

/// The socket of the control plane whose data is in `data`.
pub fn socket(data: &Path) -> PathBuf {
    data.join(SOCKET)
}
