//! What telemetry costs a request: nothing told, metrics and a trace in a hundred, every trace; and a collector that takes
//! everything and keeps nothing.

use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::thread;

use crate::peers::Peer;

/// Where the collector of a workload listens, by the proxy's port.
pub const fn collector(port: u16) -> u16 {
    port + 99
}

const ANSWER: &[u8] = b"HTTP/1.1 200 OK\r\ncontent-type: application/x-protobuf\r\ncontent-length: 0\r\n\r\n";

/// What a sidecar of ours runs with.
pub fn flags(peer: Peer, port: u16) -> String {
    let sampling = match peer {
        Peer::PilotfishOff => return "--trace-sampling off --trace-propagators none".into(),
        Peer::PilotfishTraced => "100%",
        _ => "1%",
    };
    let endpoint = collector(port);
    format!(
        "--trace-sampling {sampling} --otlp-protocol http/protobuf --otlp-endpoint http://127.0.0.1:{endpoint}"
    )
}

/// The document that switches everything off that flags do not.
pub const OFF: &str = include_str!("../peers/pilotfish/telemetry-off.yaml");

/// Answers every OTLP request over HTTP/1.1 with 200, until killed. Its time is the load's, not the proxy's.
///
/// # Errors
/// The port is taken.
pub fn collect(port: u16) -> io::Result<()> {
    for stream in TcpListener::bind((Ipv4Addr::LOCALHOST, port))?.incoming() {
        let stream = stream?;
        // A connection that breaks is the proxy's to open again.
        thread::spawn(move || serve(stream));
    }
    Ok(())
}

fn serve(mut stream: TcpStream) -> io::Result<()> {
    stream.set_nodelay(true)?;
    let mut reader = BufReader::with_capacity(256 << 10, stream.try_clone()?);
    loop {
        let (mut length, mut chunked, mut lines) = (0, false, 0);
        loop {
            let mut line = String::new();
            if reader.read_line(&mut line)? == 0 {
                return Ok(());
            }
            let line = line.trim_end().to_ascii_lowercase();
            if line.is_empty() && lines > 0 {
                break;
            }
            lines += 1;
            if let Some(value) = line.strip_prefix("content-length:") {
                length = value.trim().parse().map_err(io::Error::other)?;
            }
            chunked |= line.starts_with("transfer-encoding:") && line.contains("chunked");
        }
        match chunked {
            false => skip(&mut reader, length)?,
            true => loop {
                let mut size = String::new();
                reader.read_line(&mut size)?;
                let size = u64::from_str_radix(size.trim(), 16).map_err(io::Error::other)?;
                skip(&mut reader, size + 2)?;
                if size == 0 {
                    break;
                }
            },
        }
        stream.write_all(ANSWER)?;
    }
}

fn skip(reader: &mut impl Read, length: u64) -> io::Result<()> {
    io::copy(&mut reader.take(length), &mut io::sink()).map(drop)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_collector_takes_lengths_and_chunks() -> io::Result<()> {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
        let mut client = TcpStream::connect(listener.local_addr()?)?;
        let server = thread::spawn(move || serve(listener.accept()?.0));
        client.write_all(b"POST / HTTP/1.1\r\nContent-Length: 3\r\n\r\nabcPOST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nab\r\n0\r\n\r\n")?;
        let mut answers = [0; 2 * ANSWER.len()];
        client.read_exact(&mut answers)?;
        assert!(answers.ends_with(b"\r\n\r\n"));
        drop(client);
        server.join().unwrap_or(Ok(()))
    }
}
