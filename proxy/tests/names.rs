//! ServiceEntry with `resolution: DNS` and `NONE`: looked up in the background, again by TTL, the last answer kept.

use std::net::Ipv4Addr;
use std::time::{Duration, Instant};

use pilotfish_testkit::dns::Answer;
use pilotfish_testkit::{Agent, Dns, H1, Sidecar, h1};

use crate::support::sidecar;

const ONE: Ipv4Addr = Ipv4Addr::new(127, 0, 0, 1);
const TWO: Ipv4Addr = Ipv4Addr::new(127, 0, 0, 2);

/// A ServiceEntry whose endpoint is a name.
fn by_name(host: &str, resolution: &str, port: u16) -> String {
    format!(
        "apiVersion: networking.istio.io/v1\nkind: ServiceEntry\nmetadata: {{ name: s }}\nspec:\n  hosts: [{host}]\n  \
         ports: [{{ number: 80, name: web, protocol: HTTP }}]\n  resolution: {resolution}\n  endpoints:\n  \
         - {{ address: {host}, ports: {{ web: {port} }} }}\n---\n"
    )
}

/// Two agents on one port of two loopback addresses, and a name server that knows the first.
async fn start(ttl: u32) -> (Sidecar, Dns, [Agent; 2]) {
    let one = Agent::start_on("one", "127.0.0.1:0").await;
    let two = Agent::start_on("two", &format!("127.0.0.2:{}", one.port())).await;
    let dns = Dns::start().await;
    dns.set("db.test", Answer::Addresses(vec![ONE], ttl));
    let yaml = by_name("db.test", "DNS", one.port());
    let sidecar = sidecar().yaml("a.yaml", yaml).args(&["--dns-server", &dns.addr().to_string()]).start();
    (sidecar, dns, [one, two])
}

async fn until(sidecar: &Sidecar, agent: &str) {
    let end = Instant::now() + Duration::from_secs(12);
    loop {
        let answer = h1::get(sidecar.outbound, "db.test", "/", &[]).await.unwrap();
        if answer.header("x-agent").as_deref() == Some(agent) {
            return;
        }
        assert!(Instant::now() < end, "{agent} does not answer: {} {}", answer.status(), answer.text());
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

#[tokio::test]
async fn a_name_is_looked_up_again_by_its_ttl() {
    let (sidecar, dns, _agents) = start(1).await;
    until(&sidecar, "one").await;
    dns.set("db.test", Answer::Addresses(vec![TWO], 1));
    until(&sidecar, "two").await;
}

#[tokio::test]
async fn requests_do_not_ask_the_name_server() {
    let (sidecar, dns, _agents) = start(300).await;
    until(&sidecar, "one").await;
    let before = dns.queries("db.test");
    let mut client = H1::connect(sidecar.outbound).await;
    for _ in 0..50 {
        assert_eq!(client.get("db.test", "/", &[]).await.unwrap().status(), 200);
    }
    assert_eq!(dns.queries("db.test"), before);
}

#[tokio::test]
async fn a_failed_look_up_keeps_the_last_answer() {
    let (sidecar, dns, _agents) = start(1).await;
    until(&sidecar, "one").await;
    for failure in [Answer::Failure, Answer::Silence, Answer::NoName, Answer::Addresses(vec![], 1)] {
        let before = dns.queries("db.test");
        dns.set("db.test", failure.clone());
        let end = Instant::now() + Duration::from_secs(15);
        while dns.queries("db.test") == before && Instant::now() < end {
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        assert!(dns.queries("db.test") > before, "{failure:?} was not asked for");
        tokio::time::sleep(Duration::from_millis(100)).await;
        let answer = h1::get(sidecar.outbound, "db.test", "/", &[]).await.unwrap();
        assert_eq!(answer.status(), 200, "{failure:?}: {}", answer.text());
    }
    dns.set("db.test", Answer::Addresses(vec![TWO], 1));
    until(&sidecar, "two").await;
}

#[tokio::test]
async fn several_addresses_are_several_endpoints() {
    let (sidecar, dns, agents) = start(1).await;
    dns.set("db.test", Answer::Addresses(vec![ONE, TWO], 1));
    until(&sidecar, "two").await;
    for _ in 0..40 {
        assert_eq!(h1::get(sidecar.outbound, "db.test", "/", &[]).await.unwrap().status(), 200);
    }
    assert!(agents[0].requests() > 0 && agents[1].requests() > 0);
}

#[tokio::test]
async fn a_name_that_nobody_knows_is_told() {
    let dns = Dns::start().await;
    let sidecar = sidecar()
        .yaml("a.yaml", by_name("gone.test", "DNS", 80))
        .args(&["--dns-server", &dns.addr().to_string()])
        .start();
    let answer = h1::get(sidecar.outbound, "gone.test", "/", &[]).await.unwrap();
    assert_eq!((answer.status(), answer.reason().as_str()), (503, "no-healthy-endpoint"));
}

#[tokio::test]
async fn without_resolution_the_host_itself_is_called() {
    let agent = Agent::start("itself").await;
    let port = agent.port();
    let yaml = format!(
        "apiVersion: networking.istio.io/v1\nkind: ServiceEntry\nmetadata: {{ name: s }}\nspec:\n  hosts: [localhost, '*.none.test']\n  \
         ports: [{{ number: {port}, name: web, protocol: HTTP }}]\n  resolution: NONE\n"
    );
    let sidecar = sidecar().yaml("a.yaml", yaml).start();
    let answer = h1::get(sidecar.outbound, &format!("localhost:{port}"), "/", &[]).await.unwrap();
    assert_eq!(answer.header("x-agent").as_deref(), Some("itself"), "{}", answer.text());
}
