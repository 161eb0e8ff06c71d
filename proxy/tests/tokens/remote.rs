//! Keys that have to be fetched: first, again, in time, and not at all.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::Relaxed};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use pilotfish_testkit::origin::{Origin, Step, ok, send};
use pilotfish_testkit::tokens::{Signer, key_set};
use pilotfish_testkit::{H1, Sidecar};
use serde_json::{Value, json};
use tokio::task::JoinSet;

use super::{call, claims, config, policy, refused};
use crate::support::{ensure, metric, run_table, sidecar, wait_metric};

/// A server of key sets, whose answer a test changes.
struct Keys {
    origin: Origin,
    answer: Arc<Mutex<Vec<Step>>>,
}

impl Keys {
    async fn start(answer: Vec<Step>) -> Keys {
        let answer = Arc::new(Mutex::new(answer));
        let now = answer.clone();
        let origin = Origin::start(move |_, _| now.lock().unwrap().clone()).await;
        Keys { origin, answer }
    }

    fn say(&self, answer: Vec<Step>) {
        *self.answer.lock().unwrap() = answer;
    }

    fn rule(&self, more: &str) -> String {
        policy(&format!(
            "issuer: https://issuer.test\naudiences: [us]\njwksUri: http://127.0.0.1:{}/keys\n{more}",
            self.origin.port()
        ))
    }
}

async fn start(agent: &Origin, yaml: &str) -> Sidecar {
    sidecar().yaml("a.yaml", yaml).app(agent.addr()).workers(2).start()
}

fn set(signers: &[&Signer]) -> Vec<Step> {
    ok(key_set(signers.iter().copied()))
}

#[tokio::test]
async fn keys_are_fetched_once_and_shown_without_being_told() {
    let (agent, signer) = (Origin::plain().await, Signer::new("ES256", "first"));
    let keys = Keys::start(set(&[&signer])).await;
    let sidecar = start(&agent, &keys.rule("")).await;
    for subject in ["a", "b", "c"] {
        assert_eq!(call(&sidecar, &signer.token(&claims(json!({"sub": subject})))).await.status(), 200);
    }
    let asked = keys.origin.requests();
    // A call that comes while they are fetched may want another look.
    assert!((1..=2).contains(&asked.len()) && asked[0].target() == "/keys", "{asked:?}");
    let issuer = &config(&sidecar).await["issuers"][0];
    assert_eq!(issuer["keys"], json!(["first"]), "{issuer}");
    assert_eq!((&issuer["stale"], issuer["fetched"].is_string()), (&Value::Null, true), "{issuer}");
    assert!(!issuer.to_string().contains(signer.key()["x"].as_str().unwrap()));
    assert!(metric(&sidecar, "pilotfish_key_set_fetches_total{result=\"good\"}").await >= 1);
}

#[tokio::test]
async fn keys_change_under_load_without_a_failed_call() {
    let (agent, old) = (Origin::plain().await, Signer::new("ES256", "k0"));
    let keys = Keys::start(set(&[&old])).await;
    let sidecar = start(&agent, &keys.rule("")).await;
    let current = Arc::new(Mutex::new(Arc::new(old)));
    let stop = Arc::new(AtomicBool::new(false));
    let made = Arc::new(AtomicUsize::new(0));
    let mut callers = JoinSet::new();
    for caller in 0..4 {
        let (addr, current, stop, made) = (sidecar.inbound, current.clone(), stop.clone(), made.clone());
        callers.spawn(async move {
            let mut client = H1::connect(addr).await.patience(Duration::from_secs(30));
            let mut count = 0;
            while !stop.load(Relaxed) {
                let signer = current.lock().unwrap().clone();
                let token = signer.token(&claims(json!({"sub": format!("{caller}-{count}")})));
                let answer =
                    client.get("tester", "/", &[&format!("authorization: Bearer {token}")]).await.unwrap();
                assert_eq!(answer.status(), 200, "{} {}", signer.id, answer.text());
                count += 1;
                made.fetch_add(1, Relaxed);
            }
        });
    }
    let mut published = vec![current.lock().unwrap().clone()];
    // Time for calls, and as many as four callers need to show each key.
    let some = async || {
        let (before, until) = (made.load(Relaxed), tokio::time::Instant::now() + Duration::from_secs(60));
        tokio::time::sleep(Duration::from_millis(300)).await;
        while made.load(Relaxed) < before + 8 {
            assert!(tokio::time::Instant::now() < until, "the calls do not come to an end");
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    for turn in 1..=3 {
        some().await;
        // The issuer publishes the new key beside the old ones, whose tokens are still about, and signs with it at once.
        let next = Arc::new(Signer::new("ES256", &format!("k{turn}")));
        published.push(next.clone());
        keys.say(ok(key_set(published.iter().map(|signer| &**signer))));
        *current.lock().unwrap() = next;
    }
    some().await;
    stop.store(true, Relaxed);
    callers.join_all().await;
    let asked = keys.origin.requests().len();
    assert!((2..=8).contains(&asked), "{asked} looks");
}

#[tokio::test]
async fn keys_without_names_are_replaced_without_a_failed_call_too() {
    let (agent, old, new) = (Origin::plain().await, Signer::new("ES256", "old"), Signer::new("ES256", "new"));
    let other = Signer::new("EdDSA", "other");
    let mut nameless = old.key();
    nameless.as_object_mut().unwrap().remove("kid");
    let keys = Keys::start(ok(nameless.to_string())).await;
    let sidecar = start(&agent, &keys.rule("timeout: 30s")).await;
    // A key without a name is tried for every name.
    assert_eq!(call(&sidecar, &old.token(&claims(json!({})))).await.status(), 200);
    for next in [&new, &other] {
        let mut set = vec![nameless.clone()];
        set.push(next.key());
        keys.say(ok(json!({"keys": set}).to_string()));
        assert_eq!(call(&sidecar, &next.token(&claims(json!({})))).await.status(), 200, "{}", next.id);
    }
}

#[tokio::test]
async fn an_outage_does_not_lose_the_keys() {
    let huge = format!("{{\"keys\": [], \"x\": \"{}\"}}", "a".repeat(1024 * 1024));
    let redirect = "HTTP/1.1 302 Found\r\nLocation: /other\r\nContent-Length: 0\r\n\r\n";
    let outages = vec![
        (vec![send("HTTP/1.1 500 Oops\r\nContent-Length: 0\r\n\r\n")], "500"),
        (vec![send(redirect)], "302"),
        (ok("<html>"), "JSON"),
        (ok("{\"keys\": []}"), "none of its keys"),
        (ok(huge), "longer than"),
        (vec![Step::Hang], "within 3s"),
        (vec![Step::Close], ""),
    ];
    run_table(outages, |_, (answer, why)| outage(answer, why)).await;
}

/// A server of keys that answers so for a while.
async fn outage(answer: Vec<Step>, why: &str) -> Result<(), String> {
    let (agent, signer, next) =
        (Origin::plain().await, Signer::new("EdDSA", "k1"), Signer::new("EdDSA", "k2"));
    let keys = Keys::start(set(&[&signer])).await;
    let sidecar = start(&agent, &keys.rule("timeout: 3s")).await;
    assert_eq!(call(&sidecar, &signer.token(&claims(json!({})))).await.status(), 200);
    keys.say(answer);
    // A key that nobody knows makes the sidecar look.
    refused(&call(&sidecar, &next.token(&claims(json!({})))).await);
    let mut issuer = Value::Null;
    for _ in 0..1500 {
        issuer = config(&sidecar).await["issuers"][0].clone();
        if issuer["stale"].is_string() {
            break;
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    let stale = issuer["stale"].as_str().is_some_and(|stale| stale.contains(why));
    ensure(stale && issuer["keys"] == json!(["k1"]), || format!("{why}: {issuer}"))?;
    wait_metric(&sidecar, "pilotfish_key_sets_stale", 1).await;
    let token = signer.token(&claims(json!({"sub": "bob"})));
    assert_eq!(call(&sidecar, &token).await.status(), 200, "{why}");
    for turn in 0.. {
        if sidecar.stderr().iter().any(|line| line.contains("go on being used")) {
            break;
        }
        ensure(turn < 1000, || format!("{why}: {:?}", sidecar.stderr()))?;
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    // Back again, with another key in the place of the first.
    keys.say(set(&[&next]));
    let again = tokio::time::Instant::now() + Duration::from_secs(60);
    for turn in 0.. {
        assert!(tokio::time::Instant::now() < again, "{why}: {:?}", sidecar.stderr());
        let token = next.token(&claims(json!({"sub": format!("bob-{turn}")})));
        if call(&sidecar, &token).await.status() == 200 {
            break;
        }
    }
    refused(&call(&sidecar, &signer.token(&claims(json!({"sub": "gone"})))).await);
    Ok(())
}

#[tokio::test]
async fn without_any_keys_yet_calls_wait_as_long_as_a_look_takes() {
    let (agent, signer) = (Origin::plain().await, Signer::new("EdDSA", "k1"));
    let slow = [vec![Step::Pause(Duration::from_millis(600))], set(&[&signer])].concat();
    let keys = Keys::start(slow).await;
    let sidecar = start(&agent, &keys.rule("")).await;
    assert_eq!(call(&sidecar, &signer.token(&claims(json!({})))).await.status(), 200);
    // Those who bring no token need no keys.
    keys.say(vec![Step::Hang]);
    let sidecar = start(&agent, &keys.rule("timeout: 300ms")).await;
    let answer = H1::connect(sidecar.inbound).await.get("tester", "/", &[]).await.unwrap();
    assert_eq!(answer.status(), 200);
    assert!(
        refused(&call(&sidecar, &signer.token(&claims(json!({})))).await).contains("could not be fetched")
    );
}

#[tokio::test]
async fn keys_are_found_by_discovery() {
    let (agent, signer) = (Origin::plain().await, Signer::new("RS256", "k1"));
    let port = Arc::new(Mutex::new(0));
    let (own, text) = (port.clone(), key_set([&signer]));
    let issuer = Origin::start(move |asked, _| {
        let here = format!("http://127.0.0.1:{}/realm", own.lock().unwrap());
        match asked.target() {
            "/realm/.well-known/openid-configuration" => {
                ok(json!({"issuer": here, "jwks_uri": format!("{here}/certs")}).to_string())
            }
            "/other/.well-known/openid-configuration" => {
                ok(json!({"issuer": here, "jwks_uri": format!("{here}/certs")}).to_string())
            }
            "/realm/certs" => ok(&text),
            _ => vec![send("HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n")],
        }
    })
    .await;
    *port.lock().unwrap() = issuer.port();
    for (path, status) in [("realm", 200), ("other", 401)] {
        let here = format!("http://127.0.0.1:{}/{path}", issuer.port());
        let sidecar = start(&agent, &policy(&format!("issuer: {here}\ntimeout: 20s"))).await;
        let answer = call(&sidecar, &signer.token(&claims(json!({"iss": here})))).await;
        assert_eq!(answer.status(), status, "{:?}", sidecar.stderr());
    }
}

#[tokio::test]
async fn a_flood_of_unknown_keys_is_no_flood_for_the_issuer() {
    let (agent, signer) = (Origin::plain().await, Signer::new("EdDSA", "k1"));
    let keys = Keys::start(set(&[&signer])).await;
    let sidecar = start(&agent, &keys.rule("timeout: 20s")).await;
    let good = signer.token(&claims(json!({})));
    assert_eq!(call(&sidecar, &good).await.status(), 200);
    let began = std::time::Instant::now();
    let mut flood = JoinSet::new();
    for number in 0..100 {
        let header = json!({"alg": "EdDSA", "kid": format!("no-{number}")}).to_string();
        let token = signer.signed(&header, &claims(json!({})).to_string());
        let addr = sidecar.inbound;
        flood.spawn(async move {
            let mut client = H1::connect(addr).await.patience(Duration::from_secs(30));
            client.get("tester", "/", &[&format!("authorization: Bearer {token}")]).await.unwrap().status()
        });
    }
    // Nobody else waits for them.
    assert_eq!(call(&sidecar, &good).await.status(), 200);
    while let Some(status) = flood.join_next().await {
        assert_eq!(status.unwrap(), 401);
    }
    let (asked, seconds) = (keys.origin.requests().len() as u64, began.elapsed().as_secs());
    assert!(asked <= 2 + seconds + 1, "{asked} looks in {seconds} s");
}
