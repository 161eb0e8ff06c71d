//! Connections that made one request and then do nothing.

use std::io::{self, Read};

use serde_json::{Value, json};

use super::Client;
use super::request::{Keys, Path, Requests};
use crate::clock::now_ns;

/// Opens `conns` connections, makes one request on each, prints `ready N` and holds them until standard input ends.
///
/// # Errors
/// When a connection cannot be made.
pub fn run(port: u16, conns: usize) -> io::Result<Value> {
    let requests = Requests::new(Path::Rotating(10), Keys::PerConnection);
    // Each is opened by its request, so that no accept queue overflows.
    let mut client = Client::new(port, conns, requests)?;
    for conn in 0..conns {
        client.send(conn, now_ns());
        let give_up = now_ns() + 2_000_000_000;
        while !client.is_idle(conn) && now_ns() < give_up {
            client.poll(100_000_000, |_, _| ())?;
        }
    }
    println!("ready {}", client.still_open());
    io::stdin().read_to_end(&mut Vec::new())?;
    let mut result = client.counts.json();
    result["still_open"] = json!(client.still_open());
    Ok(result)
}
