//! Who qualifies, and what is said of those who do not.

use std::time::Duration;

use pilotfish_config::model::{Capability, Locality};

use super::*;
use crate::endpoint::{EndpointStats, Outcome};

const NOW: Micros = Micros(100_000_000);

/// An agent at port `port` with capabilities, labels and a locality, each as text.
fn agent(port: u16, capabilities: &str, labels: &str, locality: &str) -> Candidate {
    let capabilities = capabilities.split_whitespace().map(|text| {
        let (name, version) =
            text.split_once('@').map_or((text, None), |(name, v)| (name, Version::parse(v).ok()));
        Capability { name: name.into(), version }
    });
    let labels = labels.split_whitespace().filter_map(|pair| pair.split_once('='));
    let endpoint = Endpoint {
        addr: ([127, 0, 0, 1], port).into(),
        unix: None,
        hostname: None,
        labels: labels.collect(),
        locality: Locality::parse(locality),
        weight: 1,
        agent: Some(format!("agent-{port}").into()),
        namespace: "default".into(),
        capabilities: capabilities.collect(),
        mesh: false,
        identity: None,
        id: None,
        degraded: false,
        dedup: None,
        stats: Arc::new(EndpointStats::new(Micros(0))),
        care: None,
    };
    Candidate { endpoint: Arc::new(endpoint), cluster: ClusterId(0) }
}

fn catalogue() -> Catalogue {
    Catalogue::new(vec![
        agent(1, "nlu@1.3.0 search", "gpu=a100 tier=gold", "eu-central/eu-central-1a"),
        agent(2, "nlu@2.0.0", "gpu=h100", "us-east/us-east-1b"),
        agent(3, "search", "version=v1 region=mars", ""),
    ])
}

fn demand(capabilities: &[&str], constraint: &str) -> Demand {
    let call = Call {
        capabilities: capabilities.iter().map(|name| (*name).into()).collect(),
        constraint: (!constraint.is_empty()).then(|| constraint.into()),
        ..Call::default()
    };
    Demand::of(&call).unwrap()
}

/// The ports of those who qualify.
fn able(catalogue: &Catalogue, capabilities: &[&str], constraint: &str) -> Vec<u16> {
    match catalogue.candidates(&demand(capabilities, constraint), NOW) {
        Ok(able) => able.iter().map(|c| c.endpoint.addr.port()).collect(),
        Err(deny) => {
            assert_eq!(deny.reason, Reason::NobodyQualifies, "{deny:?}");
            Vec::new()
        }
    }
}

#[test]
fn who_qualifies() {
    let all = catalogue();
    let cases: &[(&[&str], &str, &[u16])] = &[
        (&["nlu"], "", &[1, 2]),
        (&["NLU"], "", &[1, 2]),
        (&["nlu", "search"], "", &[1]),
        (&["nlu@^1"], "", &[1]),
        (&["nlu@>=1.3"], "", &[1, 2]),
        (&["search@^1"], "", &[3]),
        (&["search"], "version=1", &[3]),
        (&["nlu"], "version>=2", &[2]),
        (&["nlu"], "version!=^1", &[2]),
        (&["nlu"], "version in (^1|^2)", &[1, 2]),
        (&["search"], "version!=9", &[1, 3]),
        (&["nlu"], "region=eu-central", &[1]),
        (&["nlu"], "zone!=us-east-1b", &[1]),
        (&["search"], "region=mars", &[3]),
        (&["nlu"], "gpu in (h100|b200)", &[2]),
        (&["nlu"], "gpu=a100,tier=gold", &[1]),
        (&["nlu"], "tier!=gold", &[2]),
        (&["nlu"], "gpu=b200", &[]),
        (&["translation"], "", &[]),
        (&[], "gpu=h100", &[2]),
    ];
    for (capabilities, constraint, want) in cases {
        assert_eq!(able(&all, capabilities, constraint), *want, "{capabilities:?} {constraint}");
    }
}

#[test]
fn a_label_that_nobody_carries_is_a_mistake() {
    let deny = catalogue().candidates(&demand(&["nlu"], "region=eu-central, colour=red"), NOW).unwrap_err();
    assert_eq!(deny.reason, Reason::BadConstraint);
    assert_eq!(deny.detail.as_deref(), Some("agent-constraint at 20: no endpoint has the label `colour`"));
}

/// Records calls, one a second, the last of them now.
fn call_it(candidate: &Candidate, times: u64, millis: u64, outcome: Outcome) {
    for before in (0..times).rev() {
        let at = Micros(NOW.0 - before * 1_000_000);
        candidate.endpoint.stats.record(at, outcome, Duration::from_millis(millis));
    }
}

#[test]
fn what_is_not_measured_yet_meets_every_bound_for_twenty_calls() {
    let all = catalogue();
    call_it(&all.all()[0], 19, 500, Outcome::Answered(200));
    assert_eq!(able(&all, &["nlu"], "latency<100ms,success>99%,cost<1ms"), [1, 2]);
    call_it(&all.all()[0], 1, 500, Outcome::Answered(200));
    assert_eq!(able(&all, &["nlu"], "latency<100ms"), [2]);
    assert_eq!(able(&all, &["nlu"], "latency<1s"), [1, 2]);
    assert_eq!(able(&all, &["nlu"], "cost<100"), [2]);
    call_it(&all.all()[1], 40, 1, Outcome::Answered(500));
    assert_eq!(able(&all, &["nlu"], "success>=90%"), [1]);
}

#[test]
fn calls_in_flight_are_always_known() {
    let all = catalogue();
    all.all()[0].endpoint.stats.enter();
    assert_eq!(able(&all, &["nlu"], "inflight<1"), [2]);
    assert_eq!(able(&all, &["nlu"], "inflight<=1"), [1, 2]);
    all.all()[0].endpoint.stats.leave();
}

#[test]
fn a_refusal_says_for_each_candidate_why() {
    let all = catalogue();
    call_it(&all.all()[1], 20, 500, Outcome::Answered(200));
    let deny = all.candidates(&demand(&["nlu@^2"], "latency<100ms, gpu=a100"), NOW).unwrap_err();
    assert_eq!(deny.reason, Reason::NobodyQualifies);
    let json: serde_json::Value = serde_json::from_str(&deny.extra.unwrap()).unwrap();
    let why = |at: usize| {
        json["candidates"][at]["why"]
            .as_array()
            .unwrap()
            .iter()
            .map(|w| w.as_str().unwrap())
            .collect::<Vec<_>>()
    };
    assert_eq!(json["candidates"][0]["agent"], "agent-1");
    assert_eq!(json["candidates"][0]["endpoint"], "127.0.0.1:1");
    assert_eq!(why(0), ["has `nlu` 1.3.0, not ^2"]);
    assert_eq!(
        why(1),
        ["does not meet `latency<100ms`: it is 500.0ms", "does not meet `gpu=a100`: it is `h100`"]
    );
    assert_eq!(why(2), ["lacks the capability `nlu`", "does not meet `gpu=a100`: it has none"]);
    let nobody = all.candidates(&demand(&["nlu", "cooking"], ""), NOW).unwrap_err();
    assert_eq!(nobody.detail.as_deref(), Some("no agent offers `cooking`"));
}

#[test]
fn a_refusal_is_bounded_and_its_json_is_valid_whatever_labels_say() {
    let many = Catalogue::new((0..100).map(|p| agent(p, "a", "odd=\"x\\\u{1}y\"", "")).collect());
    let deny = many.candidates(&demand(&["b"], "odd=1"), NOW).unwrap_err();
    let json: serde_json::Value = serde_json::from_str(&deny.extra.unwrap()).unwrap();
    assert_eq!(json["candidates"].as_array().map(Vec::len), Some(32));
    assert_eq!(json["candidates_not_shown"], 68);
}

fn pick(key: Option<u64>, tried: &[std::net::SocketAddr]) -> Pick<'_> {
    Pick { key, now: NOW, tried, remote: false, compared: None }
}

#[test]
fn a_conversation_stays_with_one_agent_and_few_move_when_one_comes() {
    let of = |ports: u16| Catalogue::new((1..=ports).map(|port| agent(port, "a", "", "")).collect());
    let (ten, eleven) = (of(10), of(11));
    let mut rng = fastrand::Rng::with_seed(1);
    let mut owner = |all: &Catalogue, key: u64| {
        all.choose(&demand(&["a"], ""), &pick(Some(key), &[]), &mut rng).unwrap().endpoint.addr.port()
    };
    let mut counts = [0; 12];
    let mut moved = 0;
    for key in 0..2000 {
        let before = owner(&ten, key);
        assert_eq!(before, owner(&ten, key));
        let after = owner(&eleven, key);
        counts[usize::from(before)] += 1;
        moved += usize::from(before != after);
        assert!(before == after || after == 11, "only to the new one");
    }
    assert!(counts[1..=10].iter().all(|n| (140..260).contains(n)), "{counts:?}");
    assert!((120..250).contains(&moved), "{moved}");
}

#[test]
fn tried_and_unreachable_candidates_come_last() {
    let all = catalogue();
    let mut rng = fastrand::Rng::with_seed(1);
    let first = all.all()[0].endpoint.addr;
    for key in [None, Some(7), Some(8), Some(9)] {
        let chosen = all.choose(&demand(&["nlu"], ""), &pick(key, &[first]), &mut rng).unwrap();
        assert_eq!(chosen.endpoint.addr.port(), 2);
    }
    call_it(&all.all()[1], 1, 1, Outcome::Unreachable);
    for key in [None, Some(7), Some(8), Some(9)] {
        let chosen = all.choose(&demand(&["nlu"], ""), &pick(key, &[]), &mut rng).unwrap();
        assert_eq!(chosen.endpoint.addr.port(), 1);
    }
}

#[test]
fn the_slow_one_is_chosen_less() {
    let all = Catalogue::new((1..=2).map(|port| agent(port, "a", "", "")).collect());
    call_it(&all.all()[0], 30, 200, Outcome::Answered(200));
    call_it(&all.all()[1], 30, 10, Outcome::Answered(200));
    let mut rng = fastrand::Rng::with_seed(1);
    for _ in 0..50 {
        let chosen = all.choose(&demand(&["a"], ""), &pick(None, &[]), &mut rng).unwrap();
        assert_eq!(chosen.endpoint.addr.port(), 2);
    }
}

#[test]
fn versions_of_labels_are_read_leniently() {
    for (label, version) in
        [("v1", "1.0.0"), ("1.2", "1.2.0"), ("v1.2.3", "1.2.3"), ("1.2.3-rc1", "1.2.3-rc1")]
    {
        assert_eq!(lenient_version(label), Version::parse(version).ok(), "{label}");
    }
    for label in ["canary", "v", "1.2.3.4", "", "1-rc"] {
        assert_eq!(lenient_version(label), None, "{label}");
    }
}
