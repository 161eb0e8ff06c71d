//! The echo agent as a process, to put a sidecar before it by hand or under a conformance suite:
//! `cargo run -p pilotfish-testkit --example agent -- NAME 127.0.0.1:9000`.
#![allow(clippy::expect_used)]

use pilotfish_testkit::Agent;

fn main() {
    let mut args = std::env::args().skip(1);
    let (name, addr) = (args.next().unwrap_or("agent".into()), args.next().unwrap_or("127.0.0.1:0".into()));
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    runtime.expect("a runtime").block_on(async {
        let agent = Agent::start_on(&name, &addr).await;
        println!("{} listens on {}", agent.name(), agent.addr());
        std::future::pending::<()>().await;
    });
}
