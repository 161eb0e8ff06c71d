//! `pilotfish-proxy drain SOCKET`: asks a sidecar on this machine to drain, where there is neither a shell nor curl: in the hook of a
//! container of its own image.

use std::ffi::OsString;
use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::process::ExitCode;
use std::time::Duration;

/// The first argument.
pub const WORD: &str = "drain";
/// A sidecar answers at once.
const PATIENCE: Duration = Duration::from_secs(5);

/// Asks, and ends with 0 when the sidecar drains.
pub fn main(mut arguments: impl Iterator<Item = OsString>) -> ExitCode {
    let (Some(socket), None) = (arguments.next(), arguments.next()) else {
        eprintln!("usage: pilotfish-proxy {WORD} SOCKET, the sidecar's --admin-socket");
        return ExitCode::from(2);
    };
    match drain(Path::new(&socket)) {
        Ok(()) => ExitCode::SUCCESS,
        Err(why) => {
            eprintln!("pilotfish-proxy {WORD}: {}: {why}", Path::new(&socket).display());
            ExitCode::FAILURE
        }
    }
}

fn drain(socket: &Path) -> Result<(), String> {
    let ask = || {
        let mut stream = UnixStream::connect(socket)?;
        stream.set_read_timeout(Some(PATIENCE))?;
        stream.set_write_timeout(Some(PATIENCE))?;
        stream.write_all(
            b"POST /drain HTTP/1.1\r\nhost: localhost\r\ncontent-length: 0\r\nconnection: close\r\n\r\n",
        )?;
        let mut status = [0; 12];
        stream.read_exact(&mut status)?;
        Ok(status)
    };
    let status = ask().map_err(|error: std::io::Error| error.to_string())?;
    match &status {
        b"HTTP/1.1 202" => Ok(()),
        other => Err(format!("it answered {}", String::from_utf8_lossy(other).escape_debug())),
    }
}
