//! The path of a call: what is written is read again, what is hostile is no path, and nothing grows.

use super::*;

fn agents(text: &str) -> Agents {
    Agents::parse(text).unwrap()
}

#[test]
fn what_is_written_is_read_again() {
    let mut rng = fastrand::Rng::with_seed(9);
    for _ in 0..2000 {
        let mut path = CallPath::first("default/a");
        for n in 0..rng.u8(..64) {
            path.agents =
                path.agents.and(&format!("ns-{}/agent.{n}_{}", rng.u8(..), "x".repeat(rng.usize(..200))));
            path.hops += 1;
        }
        path.priority = *rng.choice(&[Priority::Sheddable, Priority::Default, Priority::Critical]).unwrap();
        path.deny_cycles = rng.bool();
        path.silence =
            [None, Some(None), Some(Some(Duration::from_millis(rng.u64(1..1_000_000))))][rng.usize(..3)];
        let text = path.print();
        assert!(text.len() <= MOST, "{}", text.len());
        assert_eq!(CallPath::parse(text.as_bytes()), Some(path));
    }
}

#[test]
fn what_no_sidecar_writes_is_no_path() {
    let long = format!("hops=200;path={}", vec!["default/a"; 1000].join(","));
    let name = format!("hops=1;path=default/{}", "x".repeat(300));
    for bad in [
        "",
        "hops=1",
        "path=default/a",
        "hops=0;path=default/a",
        "hops=1;path=",
        "hops=1;path=a",
        "hops=1;path=/a",
        "hops=1;path=a/b/c",
        "hops=1;path=default/a b",
        "hops=1;path=default/a,",
        "hops=1;path=default/a,default/b",
        "hops=256;path=default/a",
        "hops=-1;path=default/a",
        "hops=1;path=default/\u{e9}",
        "hops=1;prio=highest;path=default/a",
        "hops=1;idle=x;path=default/a",
        "hops=1;;path=default/a",
        "hops=1;path=default/a;",
        &long,
        &name,
    ] {
        assert_eq!(CallPath::parse(bad.as_bytes()), None, "{bad:.80}");
    }
    assert_eq!(CallPath::parse(b"hops=1;path=default/\xff"), None);
    let later = CallPath::parse(b"hops=1;new=thing;path=default/a").unwrap();
    assert_eq!(later, CallPath::first("default/a"));
}

#[test]
fn hostile_bytes_are_read_without_harm_and_never_grow() {
    let mut rng = fastrand::Rng::with_seed(10);
    let good =
        CallPath { hops: 9, agents: agents("default/a,default/b,x/c"), ..CallPath::first("x/y") }.print();
    for _ in 0..20_000 {
        let mut bytes = good.clone().into_bytes();
        for _ in 0..rng.usize(..6) {
            let at = rng.usize(..bytes.len());
            match rng.u8(..4) {
                0 => bytes[at] = rng.u8(..),
                1 => bytes.truncate(at.max(1)),
                2 => bytes.extend_from_within(..at),
                _ => bytes.insert(at, *rng.choice(b";=,/0a").unwrap()),
            }
        }
        let Some(path) = CallPath::parse(&bytes) else { continue };
        let printed = path.print();
        assert_eq!(CallPath::parse(printed.as_bytes()), Some(path.clone()));
        assert!(printed.len() <= bytes.len() + 32, "{printed}");
        assert!(path.agents.iter().count() <= usize::from(path.hops));
    }
}

#[test]
fn a_path_is_bounded_however_long_the_chain_is() {
    let mut path = Agents::default();
    for n in 0..10_000 {
        path = path.and(&format!("default/{}{n}", "a".repeat(n % 240)));
        assert!(path.0.as_deref().unwrap().len() <= MOST_NAMES);
        assert!(path.iter().last().unwrap().ends_with(&n.to_string()));
    }
    assert_eq!(path.and("no name"), path);
}

#[test]
fn a_circle_goes_from_the_agents_last_time_to_itself() {
    let path = agents("default/a,default/b,default/a,default/c");
    assert_eq!(path.cycle("default/a"), Some(vec!["default/a", "default/c"]));
    assert_eq!(path.cycle("default/b"), Some(vec!["default/b", "default/a", "default/c"]));
    assert_eq!(path.cycle("default/d"), None);
    assert_eq!(Agents::default().cycle("default/a"), None);
}

#[test]
fn a_rule_says_more_than_its_sidecar_but_no_higher_priority() {
    let find = |pairs: &'static [(&str, &str)]| {
        move |name: &str| pairs.iter().find(|(key, _)| *key == name).map(|(_, value)| *value)
    };
    let rule = PathPolicy::read(find(&[("max-hops", "3"), ("max-priority", "critical")]));
    let own = PathPolicy::read(find(&[
        ("max-hops", "9"),
        ("call-cycles", "deny"),
        ("fan-out-limit", "7"),
        ("max-priority", "default"),
    ]));
    let both = rule.or(&own);
    assert_eq!((both.max_hops, both.cycles, both.fan_out), (Some(3), Some(Cycles::Deny), Some(7)));
    assert_eq!(both.max_priority, Some(Priority::Default));
}
