//! How many sidecars fit, and what they cost: `cargo test -p pilotfish --test main capacity -- --ignored --nocapture`.

use futures_util::StreamExt;
use pilotfish_control::api::types::TrustStatus;
use pilotfish_testkit::ca::{Ca, Issued, Leaf};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

use crate::support::{Http, Serve};

/// A sidecar gives its place among strangers back when it has shown its certificate: any number may share an address.
#[tokio::test(flavor = "multi_thread")]
async fn one_address_may_have_many_sidecars() {
    let limit = getrlimit(Resource::Nofile);
    setrlimit(Resource::Nofile, Rlimit { current: limit.maximum, ..limit }).unwrap();
    let (serve, own) = fleet().await;
    // More than an address has places for strangers, and few at a time: a handshake has its time, also on a busy machine.
    let connecting = (0..1100).map(|_| Http::try_tls(serve.listen, Some(&own)));
    let held: Vec<_> = futures_util::stream::iter(connecting).buffer_unordered(20).collect().await;
    let refused: Vec<_> = held.iter().filter_map(|http| http.as_ref().err()).collect();
    assert!(refused.is_empty(), "{} refused: {:?}", refused.len(), refused[0]);
}

/// A control plane, and a certificate that it takes.
async fn fleet() -> (Serve, Issued) {
    let serve = Serve::start(&[]);
    let ca = Ca::new("cluster.local");
    let pem = serde_json::json!({ "pem": ca.root_pem() });
    let _: TrustStatus = Http::socket(&serve).await.post("/v1/trust/roots", &pem).await.ok();
    let own = ca.issue(&Leaf::agent("cluster.local", "default", "planner"));
    (serve, own)
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "measures, takes long"]
async fn memory_of_idle_sidecars() {
    let (serve, own) = fleet().await;
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
