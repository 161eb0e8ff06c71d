//! Closed loop: every connection sends its next request as soon as it has the answer.

use std::io;

use serde_json::{Value, json};

use super::Client;
use super::request::Requests;
use crate::clock::now_ns;
use crate::samples::Samples;

/// Runs for `secs` seconds over `conns` connections.
///
/// # Errors
/// When the connections cannot be made.
pub fn run(port: u16, conns: usize, secs: f64, requests: Requests) -> io::Result<Value> {
    let mut client = Client::connect(port, conns, requests)?;
    let mut latency = Samples::with_capacity((secs * 150_000.0) as usize);
    let start = now_ns();
    let end = start + (secs * 1e9) as u64;
    for conn in 0..conns {
        client.send(conn, now_ns());
    }
    while now_ns() < end {
        client.poll(50_000_000, |client, answer| {
            latency.push(answer.took_ns);
            client.send(answer.conn, answer.at);
        })?;
    }
    let took = (now_ns() - start) as f64 / 1e9;
    let mut result = client.counts.json();
    result["secs"] = json!(took);
    result["per_sec"] = json!(client.counts.done as f64 / took);
    result["latency_us"] = latency.summary();
    Ok(result)
}
