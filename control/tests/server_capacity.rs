//! What connections cost; by hand: `cargo test -p pilotfish --test main capacity -- --ignored --nocapture`.

use pilotfish_control::api::types::TrustStatus;
use pilotfish_testkit::ca::{Ca, Leaf};

use crate::support::{Http, Serve};

#[tokio::test(flavor = "multi_thread")]
#[ignore = "measures, takes long"]
async fn memory_of_idle_sidecars() {
    let serve = Serve::start(&[]);
    let ca = Ca::new("cluster.local");
    let pem = serde_json::json!({ "pem": ca.root_pem() });
    let _: TrustStatus = Http::socket(&serve).await.post("/v1/trust/roots", &pem).await.ok();
    let own = ca.issue(&Leaf::agent("cluster.local", "default", "planner"));
    let before = serve.memory();
    let mut held = Vec::new();
    let many = 1000;
    for _ in 0..many {
        held.push(Http::tls(&serve, Some(&own)).await);
    }
    let grown = serve.memory() - before;
    println!(
        "{} KiB for each of {many} connections; {} MiB at the start",
        (grown / many) >> 10,
        before >> 20
    );
}
