//! A fleet-wide rate limit with a real control plane and three real sidecars, whose use moves from one to another.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use pilotfish_testkit::sidecar::Sidecar;
use pilotfish_testkit::{H1, h1};

use crate::mesh::{binary, pilotfish, sidecar};
use crate::support::serve::Serve;

const SOON: Duration = Duration::from_secs(30);
const RATE: f64 = 100.0;
const BURST: f64 = 10.0;

/// The slice that a sidecar keeps, 0 to 1.
async fn share(sidecar: &Sidecar) -> f64 {
    let page = h1::get(sidecar.admin, "admin", "/metrics", &[]).await.unwrap().text();
    let line =
        page.lines().find_map(|line| line.strip_prefix("pilotfish_rate_limit_share{limit=\"default/all\"} "));
    line.map_or(0.0, |value| value.parse().unwrap())
}

async fn until_share(sidecar: &Sidecar, fits: impl Fn(f64) -> bool) {
    let deadline = Instant::now() + SOON;
    loop {
        let now = share(sidecar).await;
        if fits(now) {
            return;
        }
        assert!(Instant::now() < deadline, "its slice stays {now}: {:#?}", sidecar.stderr());
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

/// Calls as fast as a few connections go while it is wanted; counts those that got through.
fn load(sidecar: &Sidecar, wanted: &Arc<AtomicBool>, good: &Arc<AtomicUsize>) {
    for _ in 0..3 {
        let (addr, wanted, good) = (sidecar.outbound, wanted.clone(), good.clone());
        tokio::spawn(async move {
            let mut client = H1::connect(addr).await;
            loop {
                if wanted.load(Ordering::Relaxed) {
                    let answer = client.get("d.test", "/", &[]).await.expect("an answer");
                    assert!([200, 429].contains(&answer.status()), "{}", answer.text());
                    good.fetch_add(usize::from(answer.status() == 200), Ordering::Relaxed);
                }
                tokio::time::sleep(Duration::from_millis(8)).await;
            }
        });
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn three_sidecars_share_one_limit_while_their_use_shifts() {
    let Some(binary) = binary() else { return };
    let control = Serve::start(&[]);
    let file = control.folder().path().join("limit.yaml");
    let yaml = "apiVersion: pilotfish.dev/v1\nkind: RateLimit\nmetadata: {name: all}\nspec: {targets: [{host: d.test}], fleet: true, \
                limit: {requests: 100, per: 1s, burst: 10}}\n---\napiVersion: networking.istio.io/v1\nkind: VirtualService\nmetadata: \
                {name: d}\nspec: {hosts: [d.test], http: [{directResponse: {status: 200}}]}\n";
    std::fs::write(&file, yaml).unwrap();
    pilotfish(&control, &["apply", "-f", file.to_str().unwrap()]);
    let launched = ["one", "two", "three"].map(|agent| sidecar(&binary, &control, agent).launch());
    let mut sidecars = Vec::new();
    for sidecar in launched {
        sidecars.push(sidecar.ready().await);
    }
    let good = Arc::new(AtomicUsize::new(0));
    let wanted: Vec<_> = sidecars.iter().map(|_| Arc::new(AtomicBool::new(false))).collect();
    sidecars.iter().zip(&wanted).for_each(|(sidecar, wanted)| load(sidecar, wanted, &good));
    // Nobody calls: equal slices.
    for sidecar in &sidecars {
        until_share(sidecar, |share| (0.3..0.34).contains(&share)).await;
    }
    wanted[0].store(true, Ordering::Relaxed);
    until_share(&sidecars[0], |share| share > 0.9).await;
    // All of the use moves, and the fleet goes on within its limit.
    let (before, start) = (good.load(Ordering::Relaxed), Instant::now());
    wanted[0].store(false, Ordering::Relaxed);
    wanted[2].store(true, Ordering::Relaxed);
    until_share(&sidecars[2], |share| share > 0.9).await;
    tokio::time::sleep(Duration::from_secs(6).saturating_sub(start.elapsed())).await;
    let count = (good.load(Ordering::Relaxed) - before) as f64;
    let most = RATE * start.elapsed().as_secs_f64() * 1.05 + BURST;
    assert!(count <= most, "{count} calls got through, {most} are allowed with 5 %");
    assert!(count >= most / 6.0, "{count} calls got through of {most}");
    // Without the control plane each keeps what it has.
    let folder = control.kill();
    let (before, start) = (good.load(Ordering::Relaxed), Instant::now());
    wanted.iter().for_each(|wanted| wanted.store(true, Ordering::Relaxed));
    tokio::time::sleep(Duration::from_secs(3)).await;
    let count = (good.load(Ordering::Relaxed) - before) as f64;
    let most = RATE * start.elapsed().as_secs_f64() * 1.05 + BURST;
    assert!(count <= most && count > 0.0, "{count} of {most}");
    assert!(share(&sidecars[2]).await > 0.8);
    drop(folder);
}
