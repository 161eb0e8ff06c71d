//! One agent of the demo: a plain HTTP server, and with `--jobs` an agent that calls others through its sidecar.

use std::net::SocketAddr;

use clap::Parser;
use pilotfish_demo::job::Whoami;
use pilotfish_demo::{agent, caller};
use tokio::io::AsyncReadExt;

/// A small agent for trying Pilotfish: answers `/`, streams tokens at `/stream`, echoes WebSocket messages at `/ws`.
#[derive(Parser)]
struct Flags {
    /// What it calls itself.
    #[arg(long, default_value = "demo-agent")]
    name: String,
    /// Which version it says it is.
    #[arg(long, default_value = "v1")]
    version: String,
    /// Where it listens; port 0 takes a free one, printed on stderr. [default: 127.0.0.1:$PORT, which a supervisor sets; else a free one]
    #[arg(long)]
    listen: Option<SocketAddr>,
    /// Read jobs (JSON lines) on stdin, carry them out through its sidecar, report on stdout.
    #[arg(long)]
    jobs: bool,
    /// A file with the address of its sidecar's outbound listener: for `/research`, which asks the streaming agent.
    #[arg(long, value_name = "PATH")]
    sidecar_file: Option<std::path::PathBuf>,
    /// End when stdin does, so that no agent outlives what started it (`--jobs` does so anyway).
    #[arg(long)]
    until_stdin_ends: bool,
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> std::io::Result<()> {
    let flags = Flags::parse();
    let port = std::env::var("PORT").ok().and_then(|port| port.parse().ok()).unwrap_or(0);
    let listen = flags.listen.unwrap_or_else(|| SocketAddr::from(([127, 0, 0, 1], port)));
    let (listener, address) = agent::bind(listen).await?;
    eprintln!("demo-agent: listening {address} name={} version={}", flags.name, flags.version);
    let who = Whoami { agent: flags.name, version: flags.version };
    let server = agent::serve(listener, agent::Serving { who, sidecar_file: flags.sidecar_file });
    let end = async {
        match (flags.jobs, flags.until_stdin_ends) {
            (true, _) => caller::work().await,
            (false, true) => stdin_end().await,
            (false, false) => std::future::pending().await,
        }
    };
    tokio::select! {
        ended = server => ended,
        ended = end => ended,
    }
}

async fn stdin_end() -> std::io::Result<()> {
    let mut stdin = tokio::io::stdin();
    let mut bytes = [0; 64];
    while stdin.read(&mut bytes).await? > 0 {}
    Ok(())
}
